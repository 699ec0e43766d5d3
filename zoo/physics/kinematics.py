"""Collider coordinates of four-momenta (..., 4) = (E, px, py, pz) in GeV, each (...) in the dtype of the input."""

import math

import torch
from torch import Tensor

from zoo.physics.lorentz import squared_mass


def energy(four_momenta: Tensor) -> Tensor:
    """Energy in GeV."""
    return four_momenta[..., 0]


def pt(four_momenta: Tensor) -> Tensor:
    """Momentum transverse to the beam in GeV."""
    return torch.hypot(four_momenta[..., 1], four_momenta[..., 2])


def phi(four_momenta: Tensor) -> Tensor:
    """Azimuth in (-pi, pi]."""
    return torch.atan2(four_momenta[..., 2], four_momenta[..., 1])


def eta(four_momenta: Tensor) -> Tensor:
    r"""Pseudorapidity; infinite along the beam and zero for a vanishing momentum.

    .. math:: \eta = \operatorname{arsinh}(p_z / p_T)
    """
    pz = four_momenta[..., 3]
    return torch.where(pz == 0, 0.0, torch.asinh(pz / pt(four_momenta)))


def rapidity(four_momenta: Tensor) -> Tensor:
    r"""Rapidity; infinite along the beam for a massless particle.

    .. math:: y = \tfrac12 \ln \frac{E + p_z}{E - p_z} = \operatorname{arsinh}(p_z / \sqrt{m^2 + p_T^2})

    In the second form only the mass is a difference of large numbers, and that is formed in float64; a space-like
    particle counts as massless.
    """
    transverse_mass2 = squared_mass(four_momenta).clamp(min=0) + pt(four_momenta).double().square()
    pz = four_momenta[..., 3].double()
    return torch.where(pz == 0, 0.0, torch.asinh(pz * transverse_mass2.rsqrt())).to(four_momenta.dtype)


def mass(four_momenta: Tensor) -> Tensor:
    r"""Signed invariant mass in GeV, :math:`\operatorname{sgn}(m^2) \sqrt{|m^2|}`, formed in float64."""
    mass2 = squared_mass(four_momenta)
    return (mass2.sign() * mass2.abs().sqrt()).to(four_momenta.dtype)


def delta_phi(phi_i: Tensor, phi_j: Tensor) -> Tensor:
    """Difference of two azimuths, wrapped into [-pi, pi)."""
    return torch.remainder(phi_i - phi_j + math.pi, 2 * math.pi) - math.pi


def from_pt_eta_phi_mass(pt: Tensor, eta: Tensor, phi: Tensor, mass: Tensor | float = 0.0) -> Tensor:
    """Four-momenta (..., 4) in GeV from pt in GeV, pseudorapidity, azimuth and mass in GeV, all (...)."""
    px, py, pz = pt * phi.cos(), pt * phi.sin(), pt * eta.sinh()
    energy = (px.square() + py.square() + pz.square() + torch.as_tensor(mass).square()).sqrt()
    return torch.stack([energy, px, py, pz], dim=-1)
