"""Collider coordinates against scikit-hep's vector."""

import math

import numpy as np
import pytest
import torch
import vector

from zoo.physics import kinematics


@pytest.fixture
def four_momenta() -> torch.Tensor:
    momentum = torch.randn(500, 3, dtype=torch.float64) * torch.tensor([10.0, 10.0, 100.0], dtype=torch.float64)
    energy = (momentum.square().sum(-1) + torch.rand(500, dtype=torch.float64)).sqrt()
    return torch.cat([energy[:, None], momentum], dim=-1)


@pytest.mark.parametrize("name", ["pt", "eta", "phi", "rapidity", "mass", "energy"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_agrees_with_vector(four_momenta, name, dtype):
    four_momenta = four_momenta.to(dtype)
    E, px, py, pz = four_momenta.double().numpy().T
    witness = getattr(vector.array({"E": E, "px": px, "py": py, "pz": pz}), name)
    value = getattr(kinematics, name)(four_momenta)
    assert value.dtype == dtype
    tolerance = 1e-10 if dtype == torch.float64 else 2e-6
    torch.testing.assert_close(value.double(), torch.from_numpy(np.asarray(witness)), rtol=tolerance, atol=tolerance)


def test_delta_phi_is_wrapped_as_in_vector():
    phi_i, phi_j = (20 * torch.rand(2, 1000, dtype=torch.float64) - 10).unbind()
    one = vector.array({"x": phi_i.cos().numpy(), "y": phi_i.sin().numpy()})
    two = vector.array({"x": phi_j.cos().numpy(), "y": phi_j.sin().numpy()})
    wrapped = kinematics.delta_phi(phi_i, phi_j)
    torch.testing.assert_close(wrapped, torch.from_numpy(one.deltaphi(two)), rtol=0, atol=1e-12)
    assert wrapped.min() >= -math.pi
    assert wrapped.max() < math.pi


def test_along_the_beam_and_at_rest():
    four_momenta = torch.tensor([[5.0, 0, 0, 5], [5.0, 0, 0, -5], [0, 0, 0, 0], [2.0, 0, 0, 0]])
    assert kinematics.eta(four_momenta).tolist() == [math.inf, -math.inf, 0, 0]
    assert kinematics.rapidity(four_momenta).tolist() == [math.inf, -math.inf, 0, 0]


def test_coordinates_round_trip(four_momenta):
    coordinates = [getattr(kinematics, name)(four_momenta) for name in ("pt", "eta", "phi", "mass")]
    torch.testing.assert_close(kinematics.from_pt_eta_phi_mass(*coordinates), four_momenta)


def pairs_of(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.combinations(torch.arange(number)).T)


def test_pair_features_agree_with_vector(four_momenta):
    i, j = pairs_of(60)
    E, px, py, pz = four_momenta[:60].numpy().T
    particles = vector.array({"E": E, "px": px, "py": py, "pz": pz})
    one, two = particles[i.numpy()], particles[j.numpy()]
    softer, delta = np.minimum(one.pt, two.pt), np.hypot(one.rapidity - two.rapidity, one.deltaphi(two))
    expected = np.log([softer * delta, softer / (one.pt + two.pt), delta, (one + two).mass2])
    values = kinematics.pair_features(four_momenta[:60], i, j)
    torch.testing.assert_close(values, torch.from_numpy(expected.T), rtol=0, atol=1e-9)
    torch.testing.assert_close(kinematics.pair_features(four_momenta[:60], j, i), values, rtol=0, atol=1e-12)


def test_mass_of_a_collinear_pair_survives_float32():
    """Two massless particles 0.001 apart: the naive float32 mass is rounding noise (control)."""
    pt, eta, phi = torch.tensor([500.0, 300.0]), torch.tensor([1.0, 1.001]), torch.tensor([2.0, 2.0])
    momenta = kinematics.from_pt_eta_phi_mass(pt, eta, phi)
    exact = math.log(2 * 500 * 300 * (math.cosh(0.001) - 1))
    index = torch.tensor([0]), torch.tensor([1])
    assert abs(kinematics.pair_features(momenta, *index)[0, 3].item() - exact) < 1e-3
    total = momenta.sum(0)
    naive = total[0] ** 2 - total[1:].square().sum()
    assert abs(naive.clamp(min=1e-8).log().item() - exact) > 0.1


def test_pair_features_are_finite_for_any_particle():
    momenta = torch.tensor([[0.0, 0, 0, 0], [5, 0, 0, 5], [5, 0, 0, -5], [5, 3, 4, 0]])
    i, j = torch.cartesian_prod(torch.arange(4), torch.arange(4)).T
    assert kinematics.pair_features(momenta, i, j).isfinite().all()


def test_place_in_the_jet_agrees_with_vector(four_momenta):
    counts = torch.tensor([3, 0, 5])
    deta, dphi = kinematics.relative_to_jet(four_momenta[:8], counts)
    E, px, py, pz = four_momenta[:8].numpy().T
    particles = vector.array({"E": E, "px": px, "py": py, "pz": pz})
    for rows in (slice(0, 3), slice(3, 8)):
        jet = vector.obj(E=E[rows].sum(), px=px[rows].sum(), py=py[rows].sum(), pz=pz[rows].sum())
        torch.testing.assert_close(deta[rows], torch.from_numpy(particles[rows].eta - jet.eta))
        torch.testing.assert_close(dphi[rows], torch.from_numpy(particles[rows].deltaphi(jet)))
