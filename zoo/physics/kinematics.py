"""Collider coordinates of four-momenta (..., 4) = (E, px, py, pz) in GeV, each (...) in the dtype of the input."""

import math

import torch
from torch import Tensor

from zoo.physics.lorentz import resolve_masses, squared_mass


def energy(four_momenta: Tensor) -> Tensor:
    """Energy in GeV."""
    return four_momenta[..., 0]


def pt(four_momenta: Tensor) -> Tensor:
    """Transverse momentum in GeV."""
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

    In the second form only the mass is a difference of large numbers, and it is computed in float64; a space-like
    particle counts as massless.
    """
    transverse_mass2 = squared_mass(four_momenta).clamp(min=0) + pt(four_momenta).double().square()
    pz = four_momenta[..., 3].double()
    return torch.where(pz == 0, 0.0, torch.asinh(pz * transverse_mass2.rsqrt())).to(four_momenta.dtype)


def mass(four_momenta: Tensor) -> Tensor:
    r"""Signed invariant mass in GeV, :math:`\operatorname{sgn}(m^2) \sqrt{|m^2|}`, computed in float64."""
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


#: Where rapidity and pseudorapidity of particles along the beam are cut, so that differences stay finite: the
#: pseudorapidity of 1 GeV of energy with 4e-9 GeV of pt.
LARGEST_RAPIDITY = 20.0


def finite_eta(four_momenta: Tensor) -> Tensor:
    """Pseudorapidity, cut at `LARGEST_RAPIDITY`."""
    return eta(four_momenta).clamp(-LARGEST_RAPIDITY, LARGEST_RAPIDITY)


def finite_rapidity(four_momenta: Tensor) -> Tensor:
    """Rapidity, cut at `LARGEST_RAPIDITY`."""
    return rapidity(four_momenta).clamp(-LARGEST_RAPIDITY, LARGEST_RAPIDITY)


def from_axis(eta: Tensor, phi: Tensor, axis_eta: Tensor, axis_phi: Tensor) -> tuple[Tensor, Tensor]:
    r"""Positions of particles relative to an axis, such as that of their jet.

    .. math:: \Delta\eta = \eta - \eta_\mathrm{axis}, \quad \Delta\phi = \phi - \phi_\mathrm{axis}

    Args:
        eta: pseudorapidities or rapidities of the particles, (...).
        phi: their azimuths.
        axis_eta: the same of the axis, broadcast against ``eta``.
        axis_phi: its azimuth.

    Returns:
        The differences, (...) each, the second in [-pi, pi).
    """
    return eta - axis_eta, delta_phi(phi, axis_phi)


def relative_to_axis(four_momenta: Tensor, axis: Tensor) -> tuple[Tensor, Tensor]:
    """Pseudorapidity and azimuth of particles relative to an axis (`from_axis`), each float64 (...).

    Args:
        four_momenta: (..., 4) in GeV.
        axis: four-momenta (..., 4) in GeV, such as those of jets, broadcast against ``four_momenta``.
    """
    momenta, axis = four_momenta.double(), axis.double()
    return from_axis(finite_eta(momenta), phi(momenta), finite_eta(axis), phi(axis))


def relative_to_jet(four_momenta: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    r"""Pseudorapidity and azimuth of packed particles relative to the sum of their jet, each float64 (particle,).

    Args:
        four_momenta: (particle, 4) in GeV, the jets one after the other.
        counts: int64 (jet,), number of particles of each jet.
    """
    momenta = four_momenta.double()
    jet_of_particle = torch.repeat_interleave(counts, output_size=len(momenta))
    jets = momenta.new_zeros(len(counts), 4).index_add_(0, jet_of_particle, momenta)
    axis_eta, axis_phi = (of(jets)[jet_of_particle] for of in (finite_eta, phi))  # once per jet, not per particle
    return from_axis(finite_eta(momenta), phi(momenta), axis_eta, axis_phi)


#: Smallest argument of a logarithm of `pair_features`, in GeV, GeV^2 or without unit.
SMALLEST = 1e-8


def pair_features(four_momenta: Tensor, i: Tensor, j: Tensor) -> Tensor:
    r"""Logarithms of the parton-shower variables of a pair, the same for (i, j) and (j, i).

    .. math::
        \ln k_T = \ln(\min(p_{T,i}, p_{T,j}) \Delta), \quad
        \ln z = \ln \frac{\min(p_{T,i}, p_{T,j})}{p_{T,i} + p_{T,j}}, \quad
        \ln \Delta, \quad \ln m^2 = \ln (p_i + p_j)^2

    with :math:`\Delta^2 = (y_i - y_j)^2 + (\phi_i - \phi_j)^2`. They are computed in float64: for a collinear pair the
    mass is a difference of nearly equal numbers. Arguments below `SMALLEST`, such as those of a particle with itself,
    are replaced by it.

    References:
        Particle Transformer for Jet Tagging (2022), arXiv:2202.03772.

    Args:
        four_momenta: (particle, 4) in GeV, float32 or float64.
        i: (pair,) first particle of each pair.
        j: (pair,) second particle.

    Returns:
        (pair, 4), float64.
    """
    momenta, _ = resolve_masses(four_momenta)
    (pt_i, y_i, phi_i), (pt_j, y_j, phi_j) = (
        torch.stack([pt(momenta), finite_rapidity(momenta), phi(momenta)]).index_select(1, end) for end in (i, j)
    )
    delta = torch.hypot(y_i - y_j, delta_phi(phi_i, phi_j))
    softer = torch.minimum(pt_i, pt_j)
    fraction = softer / (pt_i + pt_j).clamp(min=SMALLEST)
    mass2 = squared_mass(momenta.index_select(0, i) + momenta.index_select(0, j))
    return torch.stack([softer * delta, fraction, delta, mass2], dim=-1).clamp(min=SMALLEST).log()
