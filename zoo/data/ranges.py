"""Ranges of the jets that a model was trained on, stored with the model, and jets that lie outside them."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.data.context import ContextTable
from zoo.data.features import FeatureTable, Input
from zoo.physics import kinematics

#: The quantiles of the training values between which a range lies.
LEVELS = (0.001, 0.999)

#: Quantities that are made of momenta alone, whatever the features are.
OF_MOMENTA = ("number of particles", "jet pt (GeV)", "jet mass (GeV)", "particle pt (GeV)")

#: A larger fraction of jets or particles outside a range is reported; of the training jets it is .002.
LARGEST_PART = 0.1

#: This few jets or particles outside a range are chance, unless they are all there are.
FEWEST = 5

#: A particle whose momentum exceeds its energy by more than this fraction of it has its components in another order.
_ORDER_TOLERANCE = 1e-3


class Range(NamedTuple):
    """Smallest value, median and largest value without outliers, at the `LEVELS` of the training values."""

    low: float
    median: float
    high: float


@dataclasses.dataclass(frozen=True)
class InputRanges:
    """Ranges of some training jets, by the names of `quantities`.

    Example:
        >>> ranges = InputRanges(1000, {"jet pt (GeV)": Range(550.0, 570.0, 650.0)})
        >>> InputRanges.from_dict(ranges.to_dict()) == ranges
        True
    """

    jets: int
    ranges: Mapping[str, Range]

    def to_dict(self) -> dict[str, Any]:
        """The ranges as plain JSON values."""
        return {"jets": self.jets, "ranges": {name: list(of) for name, of in self.ranges.items()}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "InputRanges":
        """The ranges that `to_dict` wrote.

        Raises:
            ValueError: if the values are no such ranges.
        """
        try:
            return cls(int(values["jets"]), {name: Range(*map(float, of)) for name, of in values["ranges"].items()})
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"'inputs' must have jets and ranges of three numbers each, not {values!r}") from error


def quantities(
    inputs: Mapping[str, Tensor], feature_table: FeatureTable, context_table: ContextTable
) -> Iterator[tuple[str, Tensor]]:
    """The quantities of jets that have a range, by name: values (jet,) or (particle,), momenta and masses in GeV.

    Features and context are given without centring and scaling, but within their limits.

    Args:
        inputs: those of a model: ``features``, ``four_momenta``, ``mask`` and, if it takes it, ``context``.
        feature_table: defines the features.
        context_table: defines the context.
    """
    four_momenta, mask = inputs["four_momenta"], inputs["mask"]
    jets = four_momenta.double().masked_fill(~mask[..., None], 0).sum(dim=1)
    of_momenta = (mask.sum(dim=1).double(), kinematics.pt(jets), kinematics.mass(jets))
    yield from zip(OF_MOMENTA, (*of_momenta, kinematics.pt(four_momenta[mask].double())), strict=True)
    of_particles = zip(feature_table.features, inputs["features"][mask].T, strict=True)
    of_jets = zip(context_table.features, inputs["context"].T, strict=True) if context_table.context_dim else ()
    for feature, values in (*of_particles, *of_jets):
        yield feature.name, _raw(feature, values)


def _raw(feature: Input, values: Tensor) -> Tensor:
    return values.double() / feature.scale + feature.centre if feature.scale else values.double()


def measure_ranges(jets: int, parts: Iterable[Iterable[tuple[str, Tensor]]]) -> InputRanges:
    """The ranges of this number of jets, from the `quantities` of some of them at a time."""
    values: dict[str, list[Tensor]] = {}
    for part in parts:
        for name, found in part:
            values.setdefault(name, []).append(found.float())
    levels = (LEVELS[0], 0.5, LEVELS[1])
    return InputRanges(jets, {name: Range(*_quantiles(torch.cat(found), levels)) for name, found in values.items()})


def _quantiles(values: Tensor, levels: Iterable[float]) -> Iterator[float]:
    ordered = values.sort().values  # torch.quantile takes 16 million values at most
    return (float(f"{ordered[round(level * (len(ordered) - 1))].item():.9g}") for level in levels)  # float32's digits


class RangeCheck:
    """Counts what lies outside the ranges of a training.

    Args:
        ranges: of the training.
    """

    def __init__(self, ranges: InputRanges) -> None:
        self.ranges = ranges
        self._counts: dict[str, list[int]] = {}
        self._extremes: dict[str, list[float]] = {}

    def update(self, found: Iterable[tuple[str, Tensor]]) -> None:
        """Add the `quantities` of some jets."""
        for name, values in found:
            if name not in self.ranges.ranges or not values.numel():
                continue
            low, _, high = self.ranges.ranges[name]
            # float32, as the ranges were measured, so that rounding alone does not count as outside
            values = values.float()
            counts = [len(values), int((values < low).sum()), int((values > high).sum())]
            self._counts[name] = [a + b for a, b in zip(self._counts.get(name, [0, 0, 0]), counts, strict=True)]
            smallest, largest = self._extremes.get(name, [torch.inf, -torch.inf])
            self._extremes[name] = [min(smallest, values.min().item()), max(largest, values.max().item())]

    def findings(self) -> dict[str, str]:
        """By quantity, what lies outside in more than `LARGEST_PART` of the cases, in words."""
        found = {}
        for name, (total, below, above) in self._counts.items():
            low, _, high = self.ranges.ranges[name]
            smallest, largest = self._extremes[name]
            parts = [f"{100 * below / total:.3g} % are below (down to {smallest:.3g})"] if below else []
            parts += [f"{100 * above / total:.3g} % are above (up to {largest:.3g})"] if above else []
            if below + above > LARGEST_PART * total and below + above >= min(total, FEWEST):
                found[name] = f"{name}: trained on {low:.3g} to {high:.3g}, {' and '.join(parts)}"
        return found


def require_momenta(four_momenta: Tensor, mask: Tensor) -> None:
    """Refuse momenta (batch, particle, 4) that are zero, or not (E, px, py, pz), as far as E < |p| shows it.

    Raises:
        ValueError: with the order that they seem to have; or because the mask (batch, particle) marks padding as real.
    """
    momenta = four_momenta[mask]
    is_padding = (momenta == 0).all(dim=-1)
    if is_padding.any():
        raise ValueError(
            f"the mask calls {int(is_padding.sum())} of {len(momenta)} particles real that have neither energy nor "
            "momentum; padding is False in it: four_momenta[..., 0] > 0"
        )
    is_wrong = _breaks_order(momenta, 0)
    if is_wrong.any():
        is_last = not _breaks_order(momenta, 3).any()
        other = "correct them; of (pt, eta, phi, mass) zoo.physics.kinematics.from_pt_eta_phi_mass makes momenta"
        hint = "they look like (px, py, pz, E): give four_momenta[..., [3, 0, 1, 2]]" if is_last else other
        raise ValueError(
            f"four_momenta must be (E, px, py, pz) in GeV, but {int(is_wrong.sum())} of {len(momenta)} particles have "
            f"E < |p|; {hint}"
        )


def _breaks_order(momenta: Tensor, energy: int) -> Tensor:
    """Whether each particle (particle, 4) has less energy than momentum, if that component is its energy."""
    values = momenta.double()
    squares = values.square()
    momentum = (squares.sum(dim=-1) - squares[..., energy]).clamp(min=0).sqrt()
    return momentum > (1 + _ORDER_TOLERANCE) * values[..., energy]
