"""Four-momenta from the components that files give, with padding and unphysical values caused by rounding alone."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from zoo.data.store import MOMENTUM_COLUMNS, MOMENTUM_TOLERANCE

_CARTESIAN, _POLAR = ("px", "py", "pz"), ("pt", "eta", "phi")
_ANGLES = ("eta", "phi")

#: Components that determine a momentum; without energy and mass, particles are massless.
COMPONENTS = tuple((*three, *fourth) for three in (_CARTESIAN, _POLAR) for fourth in (("energy",), ("mass",), ()))

#: What is done with particles, as reports call it.
PADDING = "entries without momentum, taken as padding"
RAISED = "energies below the momentum by rounding, raised to it"
RAISED_AS_STATED = "energies below the momentum within the stated tolerance, raised to it"
NO_MASS = "masses below 0 by rounding, taken as 0"
NEGATIVE_MASS = "masses below 0 by more than rounding, whose jets have a negative energy"


def rounding(dtypes: Iterable[np.dtype]) -> float:
    r"""Largest :math:`|p| / E - 1` of massless particles after rounding to the coarsest of the types.

    It is four times the machine epsilon: half an epsilon comes from E, half from the size of p, the rest from angles up
    to about 6. Types finer than float32 count as float32, as most numbers were float32 once.
    """
    return 4 * max(float(np.finfo(dtype).eps) for dtype in (np.dtype(np.float32), *dtypes))


def is_empty(components: Mapping[str, np.ndarray]) -> np.ndarray:
    """Which entries (particle,) have neither momentum nor energy nor mass, whatever their angles."""
    return np.logical_and.reduce([values == 0 for name, values in components.items() if name not in _ANGLES])


def four_momenta(
    components: Mapping[str, np.ndarray], scale: float = 1.0, tolerance: float | None = None
) -> tuple[dict[str, np.ndarray], Counter[str]]:
    r"""`MOMENTUM_COLUMNS`, float32 in GeV, of momenta given by any of `COMPONENTS`, and the number of each repair.

    Numbers that violate :math:`E \ge |p|` or :math:`m \ge 0` by no more than rounding are repaired: an energy becomes
    :math:`|p|` where that is larger by at most the fraction ``tolerance`` of E, and a mass 0 where it is negative with

    .. math:: |m| \le \sqrt{2\,\mathrm{tolerance}}\;|p|,

    as a mass of :math:`\mathrm{sgn}(E^2 - p^2) \sqrt{|E^2 - p^2|}` is for such an energy. Other values stay, and
    `zoo.data.store.bad_jets` counts their jets: a negative transverse momentum or mass, which would reverse a particle,
    gives a negative energy.

    Args:
        components: arrays (particle,) by component.
        scale: factor to GeV; not applied to angles.
        tolerance: see above; None: that of `rounding` for the types of the components.
    """
    raised = RAISED if tolerance is None else RAISED_AS_STATED
    if tolerance is None:
        tolerance = rounding(values.dtype for values in components.values() if values.dtype.kind == "f")
    if scale == 1 and set(components) == {*_CARTESIAN, "energy"} and tolerance <= MOMENTUM_TOLERANCE:
        names = dict(zip(MOMENTUM_COLUMNS, ("energy", *_CARTESIAN), strict=True))
        return {name: np.ascontiguousarray(components[key], dtype=np.float32) for name, key in names.items()}, Counter()
    given = {name: values.astype(np.float64) for name, values in components.items()}
    lengths = {name: values * scale for name, values in given.items() if name not in _ANGLES}
    with np.errstate(invalid="ignore", over="ignore"):  # the numbers of bad jets
        px, py, pz = _three_momenta(given, lengths)
        energy, notes = _energy(lengths, np.sqrt(px * px + py * py + pz * pz), tolerance, raised)
        momenta = dict(zip(MOMENTUM_COLUMNS, (energy, px, py, pz), strict=True))
        return {name: values.astype(np.float32) for name, values in momenta.items()}, notes


def _three_momenta(given: Mapping[str, np.ndarray], lengths: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
    if "px" in lengths:
        return [lengths[name] for name in _CARTESIAN]
    pt = lengths["pt"]
    return pt * np.cos(given["phi"]), pt * np.sin(given["phi"]), pt * np.sinh(given["eta"])


def _energy(
    lengths: Mapping[str, np.ndarray], momentum: np.ndarray, tolerance: float, raised: str
) -> tuple[np.ndarray, Counter[str]]:
    notes = Counter()
    if "energy" in lengths:
        energy = lengths["energy"]
        # without a need for repair, whatever `bad_jets` accepts stays as it is
        is_low = (momentum > energy) & (momentum <= (1 + tolerance) * energy) & (tolerance > MOMENTUM_TOLERANCE)
        energy = np.where(is_low, momentum, energy)
        notes[raised] = int(is_low.sum())
    elif "mass" in lengths:
        mass = lengths["mass"]
        is_rounded = (mass < 0) & (-mass <= np.sqrt(2 * tolerance) * momentum)
        is_negative = mass < -np.sqrt(2 * tolerance) * momentum  # not where the momentum is not finite
        energy = np.where(is_negative, -1.0, 1.0) * np.hypot(momentum, np.where(is_rounded, 0.0, mass))
        notes |= Counter({NO_MASS: int(is_rounded.sum()), NEGATIVE_MASS: int(is_negative.sum())})
    else:
        energy = momentum
    return np.where(lengths.get("pt", momentum) < 0, -np.abs(energy), energy), notes
