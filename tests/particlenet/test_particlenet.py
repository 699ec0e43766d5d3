"""Neighbours of ParticleNet; that it equals weaver's on real jets is shown in test_importers.py."""

import sys

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from zoo import create_model
from zoo.kernels.packing import length_groups
from zoo.particlenet.fast import nearest_neighbors


@pytest.mark.parametrize("dim", [2, 64])
def test_neighbours_are_those_of_scikit_learn(dim):
    counts = torch.tensor([30, 20, 9])
    points = torch.randn(59, dim, dtype=torch.float64)
    neighbors = nearest_neighbors(points, length_groups(counts), 8)
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
    counts = torch.tensor([12, 3, 1, 0])
    neighbors = nearest_neighbors(torch.randn(16, 2), length_groups(counts), 5)
    number = neighbors.starts.diff().tolist()
    assert number == [5] * 12 + [2] * 3 + [0]
    groups = torch.split(neighbors.j, number)
    assert [set(group.tolist()) for group in groups[12:]] == [{13, 14}, {12, 14}, {12, 13}, set()]
    assert all(i not in group.tolist() for i, group in enumerate(groups))
    assert max(neighbors.j[: 5 * 12]) < 12


def test_coincident_particles_are_neighbours_but_not_of_themselves():
    """A self-loop would take the place of a neighbour, as where the nearest of k + 1 is dropped blindly."""
    neighbors = nearest_neighbors(torch.zeros(3, 2), length_groups(torch.tensor([3])), 2)
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


@pytest.mark.parametrize("cached_numbers", [1, 1000, 1 << 17])
def test_inference_in_blocks_equals_the_layers_one_after_the_other(jets, monkeypatch, cached_numbers):
    monkeypatch.setattr(sys.modules["zoo.particlenet.edge_conv"], "CACHED_NUMBERS", cached_numbers)
    model = create_model("particlenet_lite", input_dim=7, num_classes=2).double()
    inputs = (jets.features.double(), jets.four_momenta, jets.mask)
    model(*inputs)  # so that the normalisations have statistics of their own
    model.eval()
    one_after_the_other = model(*inputs)
    with torch.no_grad():
        torch.testing.assert_close(model(*inputs), one_after_the_other, rtol=1e-10, atol=1e-10)
