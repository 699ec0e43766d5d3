"""What each augmentation leaves as it is, and that it does something."""

import math

import pytest
import torch
from torch import Tensor

from zoo.data.batch import JetBatch
from zoo.physics import kinematics
from zoo.tasks.pretraining.augmentations import augment, rotate, smear, split, translate


@pytest.fixture
def momenta(jets: JetBatch) -> Tensor:
    """In float64, with masses."""
    momentum = jets.four_momenta[..., 1:].double()
    mass = torch.linspace(0, 1, momentum.shape[1], dtype=torch.float64).expand(momentum.shape[:2])
    energy = (momentum.square().sum(-1) + mass.square()).sqrt()
    return torch.cat([energy[..., None], momentum], dim=-1).masked_fill(~jets.mask[..., None], 0)


def coordinates(momenta: Tensor, mask: Tensor) -> Tensor:
    """Pseudorapidity and azimuth of the real particles, (node, 2)."""
    real = momenta[mask]
    return torch.stack([torch.asinh(real[:, 3] / real[:, 1:3].norm(dim=-1)), torch.atan2(real[:, 2], real[:, 1])], 1)


def same(one: Tensor, two: Tensor, tolerance: float = 1e-9) -> bool:
    return torch.allclose(one, two, rtol=tolerance, atol=tolerance)


def test_splitting_conserves_the_four_momentum(momenta, jets):
    children, mask = split(momenta, jets.mask, 0.5)
    particles = jets.mask.shape[1]
    assert same(children[:, :particles] + children[:, particles:], momenta)
    assert 0.4 < (mask.sum() - jets.mask.sum()) / jets.mask.sum() < 0.6
    assert not mask[:, :particles].logical_xor(jets.mask).any()
    parent, child = momenta[mask[:, particles:]], children[:, particles:][mask[:, particles:]]
    share = child[:, :1] / parent[:, :1]
    assert same(child, share * parent), "both go where the one went"
    assert share.std() > 0.2
    assert torch.equal(split(momenta, jets.mask, 0.0)[0][:, :particles], momenta)


def test_rotation_conserves_transverse_momenta_masses_and_distances_to_the_axis(momenta, jets):
    """A turn by a full angle is none; by a quarter it takes pseudorapidity to azimuth."""
    turned = rotate(momenta, jets.mask, torch.full((8,), math.pi / 2, dtype=torch.float64))
    real, other = momenta[jets.mask], turned[jets.mask]
    assert same(kinematics.pt(other), kinematics.pt(real))
    assert same(kinematics.mass(other), kinematics.mass(real), 1e-4)
    assert (other - real).abs().max() > 1
    assert same(rotate(momenta, jets.mask, torch.full((8,), 2 * math.pi, dtype=torch.float64))[jets.mask], real, 1e-7)
    for jet in range(8):
        one, two = (coordinates(each[jet], jets.mask[jet]) for each in (momenta, turned))
        weight = kinematics.pt(momenta[jet][jets.mask[jet]])[:, None]
        two[:, 1] = one[:1, 1] + torch.remainder(two[:, 1] - one[:1, 1] + math.pi, 2 * math.pi) - math.pi
        one[:, 1] = one[:1, 1] + torch.remainder(one[:, 1] - one[:1, 1] + math.pi, 2 * math.pi) - math.pi
        centre = (weight * one).sum(0) / weight.sum()
        assert same((weight * two).sum(0) / weight.sum(), centre, 1e-7), "the axis stays"
        quarter = torch.stack([-(one - centre)[:, 1], (one - centre)[:, 0]], dim=1)
        assert same(two - centre, quarter, 1e-7)


def test_translation_conserves_transverse_momenta_masses_and_differences(momenta, jets):
    moved = translate(momenta, *(torch.full((8,), by, dtype=torch.float64) for by in (0.3, -1.2)))
    real, other = momenta[jets.mask], moved[jets.mask]
    assert same(kinematics.pt(other), kinematics.pt(real))
    assert same(kinematics.mass(other), kinematics.mass(real), 1e-4)
    shift = coordinates(moved, jets.mask) - coordinates(momenta, jets.mask)
    assert same(shift[:, 0], torch.full_like(shift[:, 0], 0.3))
    assert same(shift[:, 1].cos(), torch.full_like(shift[:, 1], math.cos(-1.2)))


def test_smearing_moves_the_soft_and_leaves_transverse_momenta(momenta, jets):
    moved = torch.stack([smear(momenta, 0.1) for _ in range(300)])
    assert same(kinematics.pt(moved[0]), kinematics.pt(momenta))
    mask = jets.mask.expand(300, -1, -1)
    shift = (coordinates(moved, mask) - coordinates(momenta, jets.mask).repeat(300, 1)).unflatten(0, (300, -1))
    spread = shift[..., 0].std(0) * kinematics.pt(momenta[jets.mask])
    assert spread.mean().item() == pytest.approx(0.1, rel=0.05)
    assert spread.std() < 0.02
    assert same(smear(momenta, 0.0)[jets.mask], momenta[jets.mask])


def test_versions_are_other_jets_with_the_same_transverse_momenta(jets):
    options = {"max_shift": 0.5, "smearing": 0.1, "split_fraction": 0.2}
    momenta, mask = augment(jets.four_momenta, jets.mask, **options)
    assert momenta.dtype == torch.float32
    assert (momenta[~mask] == 0).all()
    assert momenta.isfinite().all()
    sums = [torch.where(real, kinematics.pt(each), 0).sum(1) for each, real in ((momenta, mask), (jets[1], jets[2]))]
    torch.testing.assert_close(*sums, rtol=1e-5, atol=0)
    one, two, other = (
        augment(jets.four_momenta, jets.mask, **options, generator=torch.Generator().manual_seed(seed))[0]
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
