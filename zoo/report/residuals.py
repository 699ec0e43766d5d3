"""How far predicted numbers are from the true ones: metrics with errors, and plots against the true value."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from zoo.physics.quantities import label_of
from zoo.report.findings import Drawings
from zoo.report.pictures import BACKGROUND_COLOUR, SIGNAL_COLOURS, labelled_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Ends of the central 68 % interval.
CENTRAL = (0.16, 0.84)

#: Number of bins of the true value, equally filled; fewer if a bin would have too few jets for a resolution.
BINS, FEWEST_JETS = 12, 30


def residual_metrics(
    predicted: np.ndarray, true: np.ndarray, low: np.ndarray, high: np.ndarray
) -> dict[str, tuple[float, float | None]]:
    r"""Value and statistical error of each metric for predictions (jet,), in the units of the target.

    - ``bias``: mean of predicted - true;
    - ``resolution``: half of the central 68 % interval of predicted - true;
    - ``mae``: mean of \|predicted - true\|;
    - ``coverage``: fraction of the jets whose true value lies between ``low`` and ``high``.
    """
    residual = predicted - true
    is_inside = ((true >= low) & (true <= high)).astype(np.float64)
    return {
        "bias": _mean(residual),
        "resolution": half_width(residual),
        "mae": _mean(np.abs(residual)),
        "coverage": (float(is_inside.mean()), _binomial(is_inside)),
    }


def half_width(values: np.ndarray) -> tuple[float, float | None]:
    r"""Half of the central 68 % interval, and its error.

    The error of a quantile q of n values is half the distance between the order statistics
    :math:`n q \pm \sqrt{n q (1 - q)}`; two quantiles p < q have the correlation
    :math:`\sqrt{p (1 - q) / (q (1 - p))}`.

    References:
        Order Statistics (David and Nagaraja, 2003), doi:10.1002/0471722162, chapters 7 and 10.
    """
    ordered, (lower, upper) = np.sort(values), CENTRAL
    width = float(np.quantile(ordered, upper) - np.quantile(ordered, lower)) / 2
    if len(values) < FEWEST_JETS:
        return width, None
    one, other = (_error_of_quantile(ordered, level) for level in CENTRAL)
    correlation = np.sqrt(lower * (1 - upper) / (upper * (1 - lower)))
    return width, float(np.sqrt(max(one**2 + other**2 - 2 * correlation * one * other, 0.0))) / 2


def _error_of_quantile(ordered: np.ndarray, level: float) -> float:
    number, spread = len(ordered), np.sqrt(level * (1 - level) / len(ordered))
    low, high = np.quantile(ordered, np.clip([level - spread, level + spread], 0.5 / number, 1 - 0.5 / number))
    return float(high - low) / 2


def _mean(values: np.ndarray) -> tuple[float, float | None]:
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


def _binomial(is_inside: np.ndarray) -> float | None:
    passed, number = is_inside.sum() + 0.5, len(is_inside) + 1  # never an error of 0
    return float(np.sqrt(passed / number * (1 - passed / number) / number)) if len(is_inside) > 1 else None


def draw_against_truth(
    name: str,
    predicted: np.ndarray,
    true: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    level: float,
    heading: tuple[str, str],
) -> Drawings:
    """Plots of one target: predicted against true, bias, and resolution with the predicted one.

    Args:
        name: name of the target.
        predicted: (jet,).
        true: (jet,).
        low: lower ends of the predicted intervals, (jet,).
        high: upper ends.
        level: probability content of these intervals.
        heading: texts above the axes, left and right.
    """
    label = label_of(name).replace("Jet ", "jet ", 1)  # after another word
    bins = _bins(true)
    return {
        name: (
            f"Predicted against true {name}, number of jets in colour (logarithmic).",
            _draw_scatter(label, predicted, true, heading),
        ),
        f"{name}_bias": (
            f"Mean of predicted - true {name} in bins of the true value, with its statistical error.",
            _draw_bins(label, "Mean of predicted - true", bins, true, {"": (predicted - true, _mean)}, heading),
        ),
        f"{name}_resolution": (
            f"Half of the central 68 % interval of predicted - true {name} in bins of the true value, and half of the "
            f"predicted interval of {100 * level:.3g} % on average.",
            _draw_bins(
                label,
                "Resolution",
                bins,
                true,
                {"of the residuals": (predicted - true, half_width), "predicted": ((high - low) / 2, _mean)},
                heading,
            ),
        ),
    }


def _bins(true: np.ndarray) -> np.ndarray:
    """Edges of bins with equally many jets, (bin + 1,)."""
    number = max(1, min(BINS, len(true) // FEWEST_JETS))
    return np.unique(np.quantile(true, np.linspace(0, 1, number + 1)))


def _draw_scatter(
    label: str, predicted: np.ndarray, true: np.ndarray, heading: tuple[str, str]
) -> Callable[["Figure"], None]:
    def draw(figure: "Figure") -> None:
        axes = labelled_axes(figure, heading, f"True {label}", f"Predicted {label}")
        low, high = np.quantile(np.concatenate([true, predicted]), (0.001, 0.999))
        edges = np.linspace(low, high if high > low else low + 1, 61)
        counts, _, _ = np.histogram2d(true, predicted, (edges, edges))
        shown = np.where(counts > 0, np.log10(np.maximum(counts, 1)), np.nan)
        axes.pcolormesh(edges, edges, shown.T, cmap="viridis", rasterized=True)
        axes.plot(edges[[0, -1]], edges[[0, -1]], color=SIGNAL_COLOURS[1], lw=1.5, ls="--")

    return draw


def _draw_bins(
    label: str,
    what: str,
    edges: np.ndarray,
    true: np.ndarray,
    series: dict[str, tuple[np.ndarray, Callable[[np.ndarray], tuple[float, float | None]]]],
    heading: tuple[str, str],
) -> Callable[["Figure"], None]:
    """Points of each series in bins of the true value; bars show statistical errors and the widths of the bins."""
    place = np.clip(np.searchsorted(edges, true, side="right") - 1, 0, max(len(edges) - 2, 0))
    numbers = [number for number in range(max(len(edges) - 1, 1)) if (place == number).any()]
    centres = [float(true[place == number].mean()) for number in numbers]

    def draw(figure: "Figure") -> None:
        axes = labelled_axes(figure, heading, f"True {label}", f"{what}, {label}")
        for colour, (name, (values, summary)) in zip(SIGNAL_COLOURS, series.items(), strict=False):
            points = [summary(values[place == number]) for number in numbers]
            errors = [error or 0.0 for _, error in points]
            style = {"fmt": "o", "color": colour, "capsize": 4, "label": name or None}
            axes.errorbar(centres, [value for value, _ in points], errors, **style)
        if "" in series:
            axes.axhline(0, color=BACKGROUND_COLOUR, lw=1.5, ls="--")
        else:
            axes.set_ylim(bottom=0)
            axes.legend(loc="best")

    return draw
