"""Changes to a jet that leave it the same kind of jet.

References:
    Symmetries, safety, and self-supervision (JetCLR) (2021), arXiv:2108.04253.
"""

import math

import torch
from torch import Tensor

from zoo.physics import kinematics
from zoo.physics.lorentz import resolve_masses


def rotate(four_momenta: Tensor, mask: Tensor, angle: Tensor) -> Tensor:
    """Rotate jets about their axis in the plane of pseudorapidity and azimuth.

    The transverse momentum and mass of every particle stay the same, and so do the centre of the jet, weighted by
    transverse momentum, and the distances to it.

    Args:
        four_momenta: (batch, particle, 4) in GeV.
        mask: bool (batch, particle), True for a real particle.
        angle: (batch,) in radians.
    """
    centre_eta, centre_phi = _centre(four_momenta, mask)
    momenta = four_momenta.double()
    eta, phi = kinematics.from_axis(kinematics.finite_eta(momenta), kinematics.phi(momenta), centre_eta, centre_phi)
    sin, cos = angle.double().sin()[:, None], angle.double().cos()[:, None]
    return _at(four_momenta, centre_eta + cos * eta - sin * phi, centre_phi + sin * eta + cos * phi)


def translate(four_momenta: Tensor, eta: Tensor, phi: Tensor) -> Tensor:
    """Move jets elsewhere in the detector; transverse momenta, masses and distances stay the same.

    Args:
        four_momenta: (batch, particle, 4) in GeV.
        eta: (batch,), added to the pseudorapidity of every particle.
        phi: (batch,), added to the azimuth.
    """
    momenta = four_momenta.double()
    return _at(four_momenta, kinematics.finite_eta(momenta) + eta[:, None], kinematics.phi(momenta) + phi[:, None])


def smear(four_momenta: Tensor, scale: float, generator: torch.Generator | None = None) -> Tensor:
    r"""Move particles as a detector and soft radiation do, soft ones farther; transverse momenta and masses stay.

    .. math:: \Delta\eta, \Delta\phi \sim \mathcal{N}(0, \Lambda / p_T)

    Args:
        four_momenta: (batch, particle, 4) in GeV.
        scale: :math:`\Lambda` in GeV; the spread of a shift is never larger than one.
        generator: on the CPU; None for torch's own.
    """
    momenta = four_momenta.double()
    spread = (scale / kinematics.pt(momenta).clamp(min=scale)) if scale else torch.zeros_like(momenta[..., 0])
    eta, phi = (
        spread * torch.randn(spread.shape, generator=generator, dtype=spread.dtype).to(spread.device) for _ in range(2)
    )
    return _at(four_momenta, kinematics.finite_eta(momenta) + eta, kinematics.phi(momenta) + phi)


def split(
    four_momenta: Tensor, mask: Tensor, fraction: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Split particles into two collinear ones with the same total momentum.

    Args:
        four_momenta: (batch, particle, 4) in GeV.
        mask: bool (batch, particle), True for a real particle.
        fraction: probability that a particle is split.
        generator: on the CPU; None for torch's own.

    Returns:
        Four-momenta (batch, 2 particle, 4) and their mask: first what the first of the two keeps, then what the
            second gets.
    """
    chance, share = (torch.rand(mask.shape, generator=generator).to(mask.device) for _ in range(2))
    is_split = mask & (chance < fraction)
    second = torch.where(is_split, share, 0.0)[..., None] * four_momenta
    return torch.cat([four_momenta - second, second], dim=1), torch.cat([mask, is_split], dim=1)


def augment(
    four_momenta: Tensor,
    mask: Tensor,
    *,
    max_shift: float,
    smearing: float,
    split_fraction: float,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """A random new version of each jet: split, smeared, rotated and translated.

    Args:
        four_momenta: (batch, particle, 4) in GeV.
        mask: bool (batch, particle), True for a real particle.
        max_shift: largest shift in pseudorapidity; the shift in azimuth is arbitrary.
        smearing: scale of `smear` in GeV.
        split_fraction: probability that a particle is split.
        generator: on the CPU; None for torch's own.

    Returns:
        Four-momenta (batch, 2 particle, 4), zero where there is no particle, and their mask.
    """
    momenta, real = split(four_momenta, mask, split_fraction, generator)
    turn, eta, phi = (2 * torch.rand(3, len(mask), generator=generator, dtype=torch.float64) - 1).to(mask.device)
    momenta = rotate(smear(momenta, smearing, generator), real, math.pi * turn)
    momenta = translate(momenta, max_shift * eta, math.pi * phi)
    return momenta.masked_fill(~real[..., None], 0), real


def _centre(four_momenta: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Pseudorapidity and azimuth (batch, 1) of jets, the means of their particles weighted by transverse momentum."""
    momenta = four_momenta.double().masked_fill(~mask[..., None], 0)
    phi_of_sum = kinematics.phi(momenta.sum(1))[:, None]
    weight = kinematics.pt(momenta)
    weight = weight / weight.sum(1, keepdim=True).clamp(min=1e-8)
    eta = (weight * kinematics.finite_eta(momenta)).sum(1, keepdim=True)
    return eta, phi_of_sum + (weight * kinematics.delta_phi(kinematics.phi(momenta), phi_of_sum)).sum(1, keepdim=True)


def _at(four_momenta: Tensor, eta: Tensor, phi: Tensor) -> Tensor:
    """The particles at other pseudorapidities and azimuths, in their original dtype."""
    momenta, mass2 = resolve_masses(four_momenta)
    mass = mass2.clamp(min=0).sqrt()
    return kinematics.from_pt_eta_phi_mass(kinematics.pt(momenta), eta, phi, mass).to(four_momenta.dtype)
