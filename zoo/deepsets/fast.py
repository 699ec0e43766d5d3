"""Sums of flow networks over packed particles: neither the layers nor the sum work on padding."""

import torch
from torch import Tensor, nn

from zoo.kernels.packing import pack
from zoo.kernels.segments import offsets, segment_sum
from zoo.physics import kinematics


def pfn_sum(phi: nn.Sequential, features: Tensor | None, four_momenta: Tensor, mask: Tensor) -> Tensor:
    r""":math:`\sum_i \Phi(x_i)` (batch, latent), with x = (z, y, phi) if there are no ``features``."""
    starts = offsets(mask.sum(1))
    if features is None:
        x = torch.stack(jet_coordinates(pack(four_momenta, mask), starts), dim=-1).to(phi[0].weight.dtype)
    else:
        x = pack(features, mask)
    return _sum(phi(x), starts, phi[0].weight.dtype)


def efn_sum(phi: nn.Sequential, four_momenta: Tensor, mask: Tensor) -> Tensor:
    r""":math:`\sum_i z_i \, \Phi(y_i, \phi_i)` (batch, latent)."""
    starts = offsets(mask.sum(1))
    z, *angles = jet_coordinates(pack(four_momenta, mask), starts)
    dtype = phi[0].weight.dtype
    return _sum(z[:, None].to(dtype) * phi(torch.stack(angles, dim=-1).to(dtype)), starts, dtype)


def jet_coordinates(four_momenta: Tensor, starts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The (z, y, phi) of `zoo.deepsets.deepsets.jet_coordinates`, of packed particles.

    Args:
        four_momenta: (particle, 4) as (E, px, py, pz) in GeV, jet after jet.
        starts: (jet + 1,) first particle of each jet, and the end.

    Returns:
        (particle,) each, float64.
    """
    momenta = four_momenta.double()
    pt, rapidity, phi = kinematics.pt(momenta), kinematics.finite_rapidity(momenta), kinematics.phi(momenta)
    sums = segment_sum(torch.cat([momenta, pt[:, None]], dim=-1), starts)
    jets, jet_pt = sums[:, :4], sums[:, 4].clamp(min=torch.finfo(sums.dtype).tiny)
    of_jet = torch.stack([jet_pt, kinematics.finite_rapidity(jets), kinematics.phi(jets)], dim=-1)
    jet_pt, jet_rapidity, jet_phi = of_jet.repeat_interleave(starts.diff(), dim=0).unbind(-1)
    return pt / jet_pt, *kinematics.from_axis(rapidity, phi, jet_rapidity, jet_phi)


def _sum(terms: Tensor, starts: Tensor, dtype: torch.dtype) -> Tensor:
    """Sum over the particles of each jet, (particle, latent) -> (jet, latent), in ``dtype`` also under autocast."""
    with torch.autocast(terms.device.type, enabled=False):
        return segment_sum(terms.to(dtype), starts)
