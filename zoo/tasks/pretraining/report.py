"""The plots in reports on pretraining, and the errors of means over particles."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TRUE_COLOUR, _PREDICTED_COLOUR = "#717581", "#bd1f01"


def error_of_mean(values: np.ndarray, jet: np.ndarray) -> float | None:
    """Standard error of the mean of values (item,) that are independent between jets only; None for fewer than two.

    Args:
        values: (item,).
        jet: int64 (item,), the jet of each item.
    """
    _, number = np.unique(jet, return_inverse=True)
    if number.max(initial=0) < 1:
        return None
    of_jets = np.bincount(number, values - values.mean())
    return float(np.sqrt(np.square(of_jets).sum() * len(of_jets) / (len(of_jets) - 1)) / len(values))


def draw_momenta(names: tuple[str, ...], true: np.ndarray, predicted: np.ndarray) -> Callable[["Figure"], None]:
    """Distributions of true and predicted numbers (item, name), one panel per name."""

    def draw(figure: "Figure") -> None:
        panels = figure.subplots(1, len(names))
        figure.set_size_inches(7 * len(names), 7)
        for axes, name, one, other in zip(panels, names, true.T, predicted.T, strict=False):
            low, high = np.quantile(one, (0.002, 0.998))
            edges = np.linspace(low, high if high > low else low + 1, 26)  # as coarse as the codes
            for values, colour, label, filled in (
                (one, _TRUE_COLOUR, "true", True),
                (other, _PREDICTED_COLOUR, "predicted", False),
            ):
                counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
                axes.stairs(counts / len(values), edges, fill=filled, color=colour, alpha=0.5 if filled else 1, lw=2.5)
                axes.plot([], [], color=colour, lw=4, alpha=0.5 if filled else 1, label=label)
            axes.set_xlabel(name)
            axes.set_ylim(0, 1.25 * axes.get_ylim()[1])  # with room for the legend
        panels[0].set_ylabel("Hidden particles per bin, normalised")
        panels[0].set_title(f"{len(true):,} hidden particles", loc="left", fontsize="small")
        panels[-1].legend(loc="upper right", fontsize="small")

    return draw


def draw_scatter(names: tuple[str, ...], true: np.ndarray, expected: np.ndarray) -> Callable[["Figure"], None]:
    """Expected against true numbers (item, name), one panel per name."""

    def draw(figure: "Figure") -> None:
        panels = figure.subplots(1, len(names))
        figure.set_size_inches(7 * len(names), 7)
        for axes, name, one, other in zip(panels, names, true.T, expected.T, strict=False):
            low, high = np.quantile(one, (0.002, 0.998))
            edges = np.linspace(low, high if high > low else low + 1, 61)
            counts, _, _ = np.histogram2d(one, other, (edges, edges))
            shown = np.where(counts > 0, np.log10(np.maximum(counts, 1)), np.nan)
            axes.pcolormesh(edges, edges, shown.T, cmap="viridis", rasterized=True)
            axes.plot(edges[[0, -1]], edges[[0, -1]], color=_PREDICTED_COLOUR, lw=1.5, ls="--")
            correlation = np.corrcoef(one, other)[0, 1] if other.std() > 0 else 0.0
            axes.set_title(f"correlation {correlation:.2f}", loc="left", fontsize="small")
            axes.set_xlabel(f"{name}, true")
            axes.set_ylabel("expected")

    return draw


def draw_codes(true: np.ndarray, drawn: np.ndarray, num_codes: int) -> Callable[["Figure"], None]:
    """How often each code occurs and how often it is predicted, the most frequent first."""

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        one, other = (np.bincount(codes, minlength=num_codes) for codes in (true, drawn))
        order = np.argsort(-one, kind="stable")
        edges = np.arange(num_codes + 1) - 0.5
        axes.stairs(one[order] / len(true), edges, fill=True, color=_TRUE_COLOUR, alpha=0.5, label="true")
        axes.stairs(other[order] / len(drawn), edges, color=_PREDICTED_COLOUR, lw=2, label="predicted")
        axes.set_xlabel("Code, the most frequent first")
        axes.set_ylabel("Part of the hidden particles")
        axes.set_xlim(edges[0], edges[-1])
        axes.set_title(f"{len(true):,} hidden particles", loc="left", fontsize="small")
        axes.legend(loc="upper right")

    return draw


def draw_similarities(same: np.ndarray, other: np.ndarray) -> Callable[["Figure"], None]:
    """Distributions of the cosines (jet,) of versions of the same jet and of other jets."""

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        edges = np.linspace(-1, 1, 51)
        for cosines, colour, label in ((same, _PREDICTED_COLOUR, "same jet"), (other, _TRUE_COLOUR, "other jet")):
            counts, _ = np.histogram(cosines.clip(-1, 1), edges)
            axes.stairs(counts / len(cosines), edges, color=colour, lw=2.5, label=label)
        axes.set_xlabel("Cosine of the projections of two versions")
        axes.set_ylabel("Pairs per bin, normalised")
        axes.set_xlim(-1, 1)
        axes.set_title(f"{len(same):,} validation jets", loc="left", fontsize="small")
        axes.legend(loc="upper left")

    return draw
