r"""Substructure of jets: the observables of theory, computed from the particles, whatever their origin.

Distances are in the plane of pseudorapidity and azimuth relative to the jet, :math:`\theta_{ij}^2 = (\eta_i -
\eta_j)^2 + (\phi_i - \phi_j)^2`, and fractions :math:`z_i = p_{T,i} / \sum_j p_{T,j}`.

References:
    Energy correlation functions for jet substructure (2013), arXiv:1305.0007.
    Identifying boosted objects with N-subjettiness (2011), arXiv:1011.2268.
    Maximizing boosted top identification by minimizing N-subjettiness (2012), arXiv:1108.2701: its axes by k-means.
"""

import functools
import itertools

import torch
from torch import Tensor

from zoo.physics import kinematics

#: Exponents of the angle in the energy correlations, and in the N-subjettiness.
CORRELATION_EXPONENTS = (0.5, 1.0, 2.0)
SUBJETTINESS_EXPONENTS = (1.0, 2.0)
#: Most axes of the N-subjettiness.
MAX_SUBJETS = 4

#: Steps of k-means: of 4,000 jets one in a hundred still changes after five, and one after ten.
_STEPS = 10
#: Smallest arguments of the logarithms: for masses in GeV, for the momentum fraction of a subjet, for all others.
_SMALLEST_MASS, _SMALLEST_FRACTION, _SMALLEST = 0.1, 1e-3, 1e-6


def substructure(four_momenta: Tensor, mask: Tensor, *, of_subjets: bool = False) -> dict[str, Tensor]:
    r"""Natural logarithms of observables of each jet, by name, float32 (batch,) each.

    - ``mass``, ``pt`` in GeV, ``mass_over_pt``, ``multiplicity``, and ``dispersion``, :math:`\sum_i z_i^2`;
    - ``e2_B`` and ``e3_B``, see `energy_correlations`, for exponents B of `CORRELATION_EXPONENTS`;
    - ``tauN_B``, :math:`\sum_i z_i \min_a \theta_{ia}^B` with the axes a of N `subjets`, up to `MAX_SUBJETS`;
    - ``subjetK_of_N_mass`` and ``_fraction`` of two and of three subjets, the hardest first; ``pair_KL_mass`` of two
      of the three, and ``smallest_pair_mass``, which is that of the W in the decay of a top quark;
    - optionally, the shapes of two, three and four subjets and the relations between them: ``subjetK_of_N_width``,
      :math:`\sum_i z_i \theta_i / \sum_i z_i` with the angles to the subjet's axis, ``_multiplicity`` and
      ``_dispersion``, :math:`\sum_i z_i^2 / (\sum_i z_i)^2`; mass and fraction of four; ``pair_KL_of_4_mass`` and
      ``triple_KLM_of_4_mass``; and ``pair_KL_angle``, the distance of the axes of two of the three.

    Arguments too small for a logarithm are replaced by a smallest value, so that all results are finite, also for empty
    jets. A collinear splitting changes multiplicities and dispersions, and may change which of several divisions into
    subjets is found, but none of the others.

    Everything is computed in float32 and float64, also under autocast.

    Args:
        four_momenta: (batch, particle, 4) in GeV.
        mask: bool (batch, particle), True for a real particle.
        of_subjets: also compute the shapes of the subjets, 48 observables in addition to the 33.
    """
    with torch.autocast(four_momenta.device.type, enabled=False):
        found = _substructure(four_momenta, mask, of_subjets)
    return {name: values.clamp(min=_SMALLEST).log().float() for name, values in found.items()}


@functools.cache
def observables(*, of_subjets: bool = False) -> tuple[str, ...]:
    """Names of the observables, in the order of `substructure`."""
    nothing = torch.zeros(1, 1, 4)
    return tuple(substructure(nothing, nothing[..., 0].bool(), of_subjets=of_subjets))


def _substructure(four_momenta: Tensor, mask: Tensor, of_subjets: bool) -> dict[str, Tensor]:
    """The observables themselves, (batch,) each."""
    momenta = four_momenta.double().masked_fill(~mask[..., None], 0)
    jets = momenta.sum(1)
    pt = kinematics.pt(momenta)
    fractions = (pt / pt.sum(1, keepdim=True).clamp(min=_SMALLEST)).float()
    plane = _plane(momenta, jets).masked_fill(~mask[..., None], 0).float()

    found = {
        "mass": _mass(jets),
        "pt": kinematics.pt(jets).clamp(min=_SMALLEST_MASS),
        "mass_over_pt": (_mass(jets) / kinematics.pt(jets).clamp(min=_SMALLEST_MASS)).clamp(min=_SMALLEST_FRACTION),
        "multiplicity": mask.sum(1).clamp(min=1),
        "dispersion": fractions.square().sum(1),
    }
    distances = torch.cdist(plane, plane, compute_mode="donot_use_mm_for_euclid_dist")
    for exponent in CORRELATION_EXPONENTS:
        found[f"e2_{exponent}"], found[f"e3_{exponent}"] = energy_correlations(fractions, distances**exponent)
    shapes: dict[str, Tensor] = {}
    for number in range(1, MAX_SUBJETS + 1):
        nearest, distance2 = subjets(fractions, plane, number)
        for exponent in SUBJETTINESS_EXPONENTS:
            found[f"tau{number}_{exponent}"] = (fractions * distance2 ** (exponent / 2)).sum(1)
        if number == 1 or (number == MAX_SUBJETS and not of_subjets):
            continue
        belongs, shares = _hardest_first(nearest, mask, fractions, number)
        sums = belongs.to(momenta.dtype).mT @ momenta
        if number in (2, 3):
            found |= _masses_and_fractions(sums, shares)
        if number == 3:
            pairs = {f"pair_{places}_mass": mass for places, mass in _masses_together(sums, 2).items()}
            found |= pairs | {"smallest_pair_mass": torch.stack(list(pairs.values())).amin(0)}
        if of_subjets and number == 3:
            shapes |= _angles(plane, fractions, belongs)
        if of_subjets and number == 4:
            shapes |= _masses_and_fractions(sums, shares)
            shapes |= {f"pair_{places}_of_4_mass": mass for places, mass in _masses_together(sums, 2).items()}
            shapes |= {f"triple_{places}_of_4_mass": mass for places, mass in _masses_together(sums, 3).items()}
        if of_subjets:
            shapes |= _shapes(belongs, shares, fractions, distance2.sqrt())
    return found | shapes


def energy_correlations(fractions: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
    r"""Energy correlations of two and of three particles, (batch,) each.

    .. math::
        e_2 = \sum_{i < j} z_i z_j \, \theta_{ij}^\beta, \qquad
        e_3 = \sum_{i < j < k} z_i z_j z_k \, (\theta_{ij} \theta_{ik} \theta_{jk})^\beta

    The triple sum is a matrix product: the distance of a particle to itself is zero, so that only terms with three
    different particles contribute.

    References:
        Energy correlation functions for jet substructure (2013), arXiv:1305.0007.

    Args:
        fractions: z, (batch, particle), zero for padding.
        angles: theta^beta, (batch, particle, particle), zero on the diagonal.
    """
    pairs = fractions[:, :, None] * angles * fractions[:, None]
    third = angles @ (fractions[:, :, None] * angles)
    return pairs.sum((1, 2)) / 2, (pairs * third).sum((1, 2)) / 6


def subjets(fractions: Tensor, plane: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Divide jets into subjets, so that the squared distances to their axes, weighted by the fractions, are small.

    The first axis is the hardest particle, each further one the particle that adds most to the sum; k-means then moves
    them. Nothing is random, so the answer is always the same, but it is a local minimum.

    References:
        Maximizing boosted top identification by minimizing N-subjettiness (2012), arXiv:1108.2701.

    Args:
        fractions: (batch, particle), zero for padding.
        plane: (batch, particle, 2), pseudorapidity and azimuth relative to the jet.
        number: of subjets.

    Returns:
        int64 (batch, particle), the nearest axis of each particle, and its squared distance (batch, particle).
    """
    axes = _particle(plane, fractions)
    for _ in range(number - 1):
        axes = torch.cat([axes, _particle(plane, fractions * _distance2(plane, axes).amin(2))], dim=1)
    for _ in range(_STEPS):
        nearest = _distance2(plane, axes).argmin(2)
        weights = _to_their_subjets(fractions, nearest, number)
        total = weights.sum(1)[..., None]
        axes = torch.where(total > 0, weights.mT @ plane / total.clamp(min=_SMALLEST**2), axes)
    distance2, nearest = _distance2(plane, axes).min(2)
    return nearest, distance2


def _to_their_subjets(values: Tensor, nearest: Tensor, number: int) -> Tensor:
    """Values of particles in the column of their subjet, (batch, particle, subjet), zero in the others."""
    return values.new_zeros(*values.shape, number).scatter(2, nearest[..., None], values[..., None])


def _hardest_first(nearest: Tensor, mask: Tensor, fractions: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Which particle belongs to which subjet, (batch, particle, subjet), and the momentum fraction of each subjet."""
    shares, order = _to_their_subjets(fractions, nearest, number).sum(1).sort(dim=1, descending=True, stable=True)
    belongs = _to_their_subjets(mask.to(fractions.dtype), nearest, number)
    return belongs.gather(2, order[:, None].expand_as(belongs)), shares


def _masses_and_fractions(sums: Tensor, shares: Tensor) -> dict[str, Tensor]:
    """Masses of subjets with the momenta ``sums``, and their momentum fractions, the hardest first."""
    number = shares.shape[1]
    found = {}
    for place in range(number):
        found[f"subjet{place + 1}_of_{number}_mass"] = _mass(sums[:, place])
        found[f"subjet{place + 1}_of_{number}_fraction"] = shares[:, place].clamp(min=_SMALLEST_FRACTION)
    return found


def _masses_together(sums: Tensor, number: int) -> dict[str, Tensor]:
    """Masses of combinations of that number of subjets, by their places, such as ``12``."""
    choices = itertools.combinations(range(sums.shape[1]), number)
    return {"".join(str(place + 1) for place in places): _mass(sums[:, places].sum(1)) for places in choices}


def _angles(plane: Tensor, fractions: Tensor, belongs: Tensor) -> dict[str, Tensor]:
    """Distances between the axes of subjets."""
    weights = belongs * fractions[..., None]
    axes = weights.mT @ plane / weights.sum(1)[..., None].clamp(min=_SMALLEST**2)
    pairs = itertools.combinations(range(belongs.shape[2]), 2)
    return {f"pair_{i + 1}{j + 1}_angle": (axes[:, i] - axes[:, j]).norm(dim=1) for i, j in pairs}


def _shapes(belongs: Tensor, shares: Tensor, fractions: Tensor, angles: Tensor) -> dict[str, Tensor]:
    """Width, multiplicity and dispersion of each subjet; ``angles`` are those of the particles to its axis."""
    number = belongs.shape[2]
    weights = belongs * fractions[..., None]
    total = shares.clamp(min=_SMALLEST)
    of_each = {
        "width": (weights * angles[..., None]).sum(1) / total,
        "multiplicity": belongs.sum(1).clamp(min=1),
        "dispersion": weights.square().sum(1) / total.square(),
    }
    return {
        f"subjet{place + 1}_of_{number}_{name}": values[:, place]
        for place in range(number)
        for name, values in of_each.items()
    }


def _plane(momenta: Tensor, jets: Tensor) -> Tensor:
    """Pseudorapidity and azimuth relative to the jet, (batch, particle, 2)."""
    return torch.stack(kinematics.relative_to_axis(momenta, jets[:, None]), dim=-1)


def _mass(momenta: Tensor) -> Tensor:
    return kinematics.mass(momenta).clamp(min=_SMALLEST_MASS)


def _particle(plane: Tensor, weight: Tensor) -> Tensor:
    """Position of the particle with the largest weight, (batch, 1, 2)."""
    return plane.gather(1, weight.argmax(1)[:, None, None].expand(-1, 1, 2))


def _distance2(plane: Tensor, axes: Tensor) -> Tensor:
    """Squared distances (batch, particle, axis)."""
    x, y = (plane[:, :, None, i] - axes[:, None, :, i] for i in range(2))
    return x.square() + y.square()
