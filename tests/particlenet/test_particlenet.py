"""Neighbours of ParticleNet; that it equals weaver's on real jets is shown in test_importers.py."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from zoo import create_model
from zoo.layers import leading_mask
from zoo.particlenet.particlenet import nearest_neighbors


@pytest.mark.parametrize("dim", [2, 64])
def test_neighbours_are_those_of_scikit_learn(dim):
    counts = torch.tensor([20, 9, 30])
    points = torch.randn(59, dim, dtype=torch.float64)
    neighbors = nearest_neighbors(points, leading_mask(counts), 8)
    assert neighbors.starts.tolist() == list(range(0, 60 * 8, 8))
    first = 0
    for count in counts.tolist():
        jet = points[first : first + count].numpy()
        expected = NearestNeighbors(n_neighbors=8).fit(jet).kneighbors(return_distance=False)
        found = neighbors.j.reshape(-1, 8)[first : first + count] - first
        np.testing.assert_array_equal(found.numpy(), expected)
        first += count


def test_small_jets_have_all_others_as_neighbours():
    """None is padding, none is the particle itself; a lone particle and an empty jet have none."""
    counts = torch.tensor([1, 0, 3, 12])
    neighbors = nearest_neighbors(torch.randn(16, 2), leading_mask(counts), 5)
    number = neighbors.starts.diff().tolist()
    assert number == [0] + [2] * 3 + [5] * 12
    groups = torch.split(neighbors.j, number)
    assert [set(group.tolist()) for group in groups[:4]] == [set(), {2, 3}, {1, 3}, {1, 2}]
    assert all(i not in group.tolist() for i, group in enumerate(groups))
    assert min(neighbors.j[sum(number[:4]) :]) >= 4


def test_coincident_particles_are_neighbours_but_not_of_themselves():
    """A self-loop would take the place of a neighbour, as where the nearest of k + 1 is dropped blindly."""
    neighbors = nearest_neighbors(torch.zeros(3, 2), leading_mask(torch.tensor([3])), 2)
    assert [set(pair) for pair in neighbors.j.reshape(3, 2).tolist()] == [{1, 2}, {0, 2}, {0, 1}]


def test_boost_along_the_beam_changes_no_neighbour(jets):
    """Distances are differences of pseudorapidity and azimuth; control: a boost across the beam does change them."""
    model = create_model("particlenet_lite", input_dim=7, num_classes=2).double().eval()
    momentum = jets.four_momenta[..., 1:].double()
    four_momenta = torch.cat([momentum.norm(dim=-1, keepdim=True), momentum], dim=-1)

    def boosted(axis: int) -> torch.Tensor:
        gamma, other = 1.25, four_momenta.clone()
        other[..., 0] = gamma * (four_momenta[..., 0] + 0.6 * four_momenta[..., axis])
        other[..., axis] = gamma * (four_momenta[..., axis] + 0.6 * four_momenta[..., 0])
        return other

    features = jets.features.double()
    logits = [model(features, momenta, jets.mask) for momenta in (four_momenta, boosted(3), boosted(1))]
    torch.testing.assert_close(logits[1], logits[0], rtol=0, atol=1e-9)
    assert (logits[2] - logits[0]).abs().max() > 1e-6
