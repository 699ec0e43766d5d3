"""Lorentz transformations against scikit-hep's vector, which shares no code with them."""

import math

import numpy as np
import pytest
import torch
import vector

from zoo.physics.lorentz import (
    boost_matrix,
    minkowski_dot,
    random_lorentz,
    resolve_masses,
    rotation_matrix,
    squared_mass,
)

METRIC = torch.diag(torch.tensor([1.0, -1, -1, -1], dtype=torch.float64))


@pytest.fixture
def momenta() -> torch.Tensor:
    momentum = 50 * torch.randn(200, 3, dtype=torch.float64)
    mass = torch.rand(200, dtype=torch.float64)
    energy = (momentum.square().sum(-1) + mass.square()).sqrt()
    return torch.cat([energy[:, None], momentum], dim=-1)


def as_vector(four_momenta: torch.Tensor) -> vector.MomentumNumpy4D:
    columns = four_momenta.numpy()
    return vector.array(dict(zip(("E", "px", "py", "pz"), columns.T, strict=True)))


def as_tensor(momenta: vector.MomentumNumpy4D) -> torch.Tensor:
    return torch.from_numpy(np.stack([momenta.E, momenta.px, momenta.py, momenta.pz], axis=-1))


def test_products_agree_with_vector(momenta):
    one, two = as_vector(momenta), as_vector(momenta.flip(0))
    torch.testing.assert_close(minkowski_dot(momenta, momenta.flip(0)), torch.from_numpy(one.dot(two)))
    torch.testing.assert_close(squared_mass(momenta), torch.from_numpy(one.tau2), rtol=1e-6, atol=1e-9)


def test_boost_agrees_with_vector(momenta):
    velocity = torch.tensor([0.3, -0.5, 0.7], dtype=torch.float64)
    boosted = momenta @ boost_matrix(velocity).mT
    beta = vector.obj(x=velocity[0].item(), y=velocity[1].item(), z=velocity[2].item())
    torch.testing.assert_close(boosted, as_tensor(as_vector(momenta).boost_beta3(beta)))


def test_rotation_agrees_with_vector(momenta):
    axis, angle = torch.tensor([1.0, 2.0, -0.5], dtype=torch.float64), torch.tensor(0.8, dtype=torch.float64)
    rotated = momenta @ rotation_matrix(axis, angle).mT
    witness = as_vector(momenta).rotate_axis(vector.obj(x=1.0, y=2.0, z=-0.5), 0.8)
    torch.testing.assert_close(rotated, as_tensor(witness))


@pytest.mark.parametrize("gamma", [1.0, 2.0, 100.0])
def test_random_transformations_preserve_the_metric(gamma):
    matrices = random_lorentz(50, gamma=gamma)
    torch.testing.assert_close(
        matrices @ METRIC @ matrices.mT, METRIC.expand(50, 4, 4), rtol=0, atol=1e-14 * 10 * gamma**2
    )
    torch.testing.assert_close(matrices[:, 0, 0], torch.full((50,), gamma, dtype=torch.float64))
    assert (torch.linalg.det(matrices) > 0).all()


def test_random_rotations_are_uniform():
    """The image of an axis is uniform on the sphere, and the mean trace of a uniform rotation is zero."""
    rotations = random_lorentz(20_000, gamma=1.0)[:, 1:, 1:]
    z = rotations[:, 2, 0].sort().values
    uniform = torch.linspace(-1, 1, len(z), dtype=torch.float64)
    assert (z - uniform).abs().max() < 0.03
    assert rotations.diagonal(dim1=1, dim2=2).sum(-1).mean().abs() < 0.03


def test_a_boost_to_the_speed_of_light_is_refused():
    with pytest.raises(ValueError, match="below the speed of light"):
        boost_matrix(torch.tensor([0.6, 0.8, 0.1]))
    with pytest.raises(ValueError, match="at least 1"):
        random_lorentz(gamma=0.5)


def test_float32_products_keep_the_digits_of_their_inputs():
    """Two collinear 500 GeV particles: the product in float32 arithmetic is wrong by far more than the inputs are."""
    one = torch.tensor([500.0, 300.0, 400.0, 0.0])
    two = torch.tensor([250.0, 150.0, 200.0, math.sqrt(250.0**2 - 150.0**2 - 200.0**2 + 1e-3)])
    exact = float(np.dot(one.double().numpy() * [1, -1, -1, -1], two.double().numpy()))
    assert minkowski_dot(one, two).item() == pytest.approx(exact, abs=1e-9)


def test_rounding_is_not_taken_for_a_mass():
    """Massless particles stay massless after rounding to float32 in any frame; massive ones keep their mass."""
    momentum = 100 * torch.randn(5000, 3, dtype=torch.float64)
    massless = torch.cat([momentum.norm(dim=-1, keepdim=True), momentum], dim=-1)
    boosted = massless @ random_lorentz(gamma=50.0).mT
    resolved, mass2 = resolve_masses(boosted.float())
    assert (mass2 == 0).all()
    assert squared_mass(boosted.float()).abs().max() > 1  # what would have been taken for a mass
    torch.testing.assert_close(resolved, boosted, rtol=1e-6, atol=1e-6 * boosted.abs().max().item())

    pion = torch.tensor([[math.hypot(10.0, 0.1396), 0.0, 6.0, 8.0]], dtype=torch.float64)
    resolved, mass2 = resolve_masses(pion.float())
    assert mass2.sqrt().item() == pytest.approx(0.1396, rel=1e-3)
    assert (resolved == pion.float().double()).all()


def test_half_precision_momenta_are_refused():
    with pytest.raises(ValueError, match="float32 or float64"):
        resolve_masses(torch.ones(3, 4, dtype=torch.bfloat16))
