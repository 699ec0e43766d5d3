"""How strongly pairs of reconstructed objects couple in the Standard Model, and how that changes with energy.

References:
    Attention to the strengths of physical interactions (2022), arXiv:2211.05143: the couplings of pairs of objects.
    Review of Particle Physics (2024), Phys. Rev. D 110, 030001: masses and couplings at the mass of the Z boson;
    "Quantum Chromodynamics" and "Electroweak Model" for the one-loop running.
"""

import math

import torch
from torch import Tensor

from zoo.physics.lorentz import resolve_masses, squared_mass

#: Types of objects, in the order of their numbers: light jet, b jet, electrons, muons, photon.
OBJECT_TYPES = ("j", "b", "e-", "e+", "m-", "m+", "g")
#: Number of an object without a type, which does not couple.
NO_TYPE = len(OBJECT_TYPES)

#: Strong, electromagnetic and neutral weak coupling, as fixed in arXiv:2211.05143.
STRONG = 1.22
ELECTROMAGNETIC = 0.31
WEAK = 0.758

#: GeV; and the couplings there, alpha_s and the electromagnetic one of five flavours, both in the MS scheme.
Z_MASS = 91.188
STRONG_AT_Z = 0.1180
ELECTROMAGNETIC_AT_Z = 1 / 127.930

#: GeV; below this scale the couplings do not run, as perturbation theory breaks down.
FREEZING_SCALE = 1.0
#: GeV; fermions lighter than `FREEZING_SCALE` contribute wherever a coupling runs.
LIGHT = FREEZING_SCALE
CHARM, TAU, BOTTOM, TOP = 1.273, 1.77693, 4.183, 172.57
#: Mass in GeV of each quark, and mass and :math:`N_c Q^2` of each charged fermion.
QUARKS = (LIGHT, LIGHT, LIGHT, CHARM, BOTTOM, TOP)
CHARGED_FERMIONS = (
    *((LIGHT, 1.0), (LIGHT, 1.0), (TAU, 1.0)),
    *((LIGHT, 4 / 3), (LIGHT, 1 / 3), (LIGHT, 1 / 3), (CHARM, 4 / 3), (BOTTOM, 1 / 3), (TOP, 4 / 3)),
)


def strong_coupling(scale: Tensor) -> Tensor:
    r"""The strong coupling :math:`\alpha_s(Q)` at one loop, continuous at the quark thresholds.

    .. math::
        \frac{1}{\alpha_s(Q)} = \frac{1}{\alpha_s(m_Z)} + \frac{1}{12 \pi} \Big[ 33 \, \ell(Q, 0)
        - 2 \sum_q \ell(Q, m_q) \Big], \quad
        \ell(Q, m) = \ln \frac{\max(Q, m)^2}{\max(m_Z, m)^2}

    Args:
        scale: Q in GeV, (...); below `FREEZING_SCALE` it counts as that.

    Returns:
        (...), float64, without unit.

    Example:
        >>> [round(alpha, 4) for alpha in strong_coupling(torch.tensor([0.0, 91.188, 1000.0])).tolist()]
        [0.3584, 0.118, 0.0892]
    """
    running = 33 * _logarithm(scale, 0.0) - 2 * sum(_logarithm(scale, mass) for mass in QUARKS)
    return 1 / (1 / STRONG_AT_Z + running / (12 * math.pi))


def electromagnetic_coupling(scale: Tensor) -> Tensor:
    r"""The electromagnetic coupling :math:`\alpha(Q)` with one loop of every charged fermion below the scale.

    .. math::
        \frac{1}{\alpha(Q)} = \frac{1}{\alpha(m_Z)} - \frac{1}{3 \pi} \sum_f N_c Q_f^2 \, \ell(Q, m_f)

    with :math:`\ell` as in `strong_coupling`. Loops of W bosons are left out: up to 1 TeV they would change the
    coupling by 2 %.

    Args:
        scale: Q in GeV, (...); below `FREEZING_SCALE` it counts as that.

    Returns:
        (...), float64, without unit.

    Example:
        >>> [round(1 / alpha, 2) for alpha in electromagnetic_coupling(torch.tensor([91.188, 1000.0])).tolist()]
        [127.93, 124.04]
    """
    running = sum((charge2 * _logarithm(scale, mass) for mass, charge2 in CHARGED_FERMIONS), start=scale.new_zeros(()))
    return 1 / (1 / ELECTROMAGNETIC_AT_Z - running / (3 * math.pi))


def _logarithm(scale: Tensor, mass: float) -> Tensor:
    """The logarithm of a scale in GeV, frozen below a particle's mass in GeV, zero at the mass of the Z boson."""
    return 2 * (scale.double().clamp(min=max(FREEZING_SCALE, mass)) / max(Z_MASS, mass)).log()


def pair_couplings(types_i: Tensor, types_j: Tensor, scale: Tensor | None = None) -> Tensor:
    r"""Coupling of pairs of objects by their types, the same for (i, j) and (j, i).

    ==================================================  ==============
    pair                                                coupling
    ==================================================  ==============
    jets, b jets, and one of each                       :math:`g_s`
    photon and jet                                      :math:`g_e / 2`
    photon and b jet                                    :math:`g_e / 3`
    photon and charged lepton                           :math:`g_e`
    leptons of the same flavour and opposite charges    :math:`g_Z`
    any other                                           0
    ==================================================  ==============

    Args:
        types_i: numbers in `OBJECT_TYPES`, or `NO_TYPE`, int64 (pair,).
        types_j: of the other objects, (pair,).
        scale: in GeV, (pair,), at which :math:`g_s = \sqrt{4 \pi \alpha_s}` and :math:`g_e = \sqrt{4 \pi \alpha}` are
            evaluated (`strong_coupling`, `electromagnetic_coupling`), while :math:`g_Z` stays `WEAK`; by default all
            have the fixed values of arXiv:2211.05143.

    Returns:
        (pair,), float64.

    Example:
        >>> electron, positron, photon = (torch.tensor([OBJECT_TYPES.index(name)]) for name in ("e-", "e+", "g"))
        >>> pair_couplings(electron, positron).item(), pair_couplings(photon, positron).item()
        (0.758, 0.31)
    """
    factors = _FACTORS.to(types_i.device).flatten(1).index_select(1, types_i * len(_FACTORS[0]) + types_j)
    if scale is None:
        strengths = factors.new_tensor([STRONG, ELECTROMAGNETIC, WEAK])[:, None]
    else:
        strong, electromagnetic = (
            (4 * math.pi * alpha(scale)).sqrt() for alpha in (strong_coupling, electromagnetic_coupling)
        )
        strengths = torch.stack([strong, electromagnetic, strong.new_tensor(WEAK).expand_as(strong)])
    return (factors * strengths).sum(0)


def pair_mass(four_momenta: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Invariant mass in GeV of pairs of particles (particle, 4) with the numbers ``i`` and ``j`` (pair,), float64."""
    momenta, _ = resolve_masses(four_momenta)
    return squared_mass(momenta.index_select(0, i) + momenta.index_select(0, j)).clamp(min=0).sqrt()


def _factors() -> Tensor:
    """Factors of the strong, the electromagnetic and the weak coupling for each pair of types, (3, type, type)."""
    pairs = [
        *((0, one, other, 1.0) for one, other in (("j", "j"), ("j", "b"), ("b", "b"))),
        *((1, "g", "j", 1 / 2), (1, "g", "b", 1 / 3)),
        *((1, "g", lepton, 1.0) for lepton in ("e-", "e+", "m-", "m+")),
        *((2, "e-", "e+", 1.0), (2, "m-", "m+", 1.0)),
    ]
    factors = torch.zeros(3, NO_TYPE + 1, NO_TYPE + 1, dtype=torch.float64)
    for kind, one, other, factor in pairs:
        i, j = OBJECT_TYPES.index(one), OBJECT_TYPES.index(other)
        factors[kind, i, j] = factors[kind, j, i] = factor
    return factors


_FACTORS = _factors()
