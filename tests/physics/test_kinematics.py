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
