"""The plots of a report."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.metrics import (
    MINIMUM_PASS,
    RocCurve,
    confusion_matrix,
    pair_score,
    roc_curve,
    significance_improvement,
)
from zoo.report.figures import FEW_JETS, count_jets, curves_of, effective_background
from zoo.report.findings import Drawings
from zoo.report.history import number_in, read_rows
from zoo.report.pictures import BACKGROUND_COLOUR, SIGNAL_COLOURS, add_legend, coloured, labelled_axes
from zoo.report.predictions import Predictions
from zoo.report.tables import rounded

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


#: Confusion matrices with more classes than this show colours but no numbers.
FEW_CLASSES = 20
INTERVAL_NOTE = "68 % interval (test sample)"
#: Captions of the plots, with a placeholder for what the rows are.
_CAPTIONS = {
    "rejection": "Background rejection against signal efficiency. Band: Clopper-Pearson interval (68.3 %) of the "
    f"background count; dotted: fewer than {FEW_JETS} background {{rows}} pass; arrow: lower bound.",
    "roc": "ROC curve, with the same intervals.",
    "significance_improvement": "Significance improvement eS/sqrt(eB), drawn as long as "
    f"{MINIMUM_PASS} background {{rows}} pass (statistical error of eB at most 20 %).",
    "scores": "Scores of the test {rows}: log-odds of signal against background, each class normalised to one.",
    "scores_by_source": "The same score by the source of the test {rows}, each normalised to one. The AUC is that of a "
    "background source against all of the signal.",
    "confusion": "Confusion matrix: in which share of each row the largest logit is that of the column. Under the name "
    "of a row stands its number of test {rows}.",
    "training": "Loss and validation AUC during the training (of a linear probe, where the training had no labels).",
}


def caption(picture: str, rows: str) -> str:
    """The caption of a plot, which mentions jets or events."""
    return _CAPTIONS[picture].format(rows=rows)


def draw_pictures(
    predictions: Predictions, title: str, background: int, signal_efficiencies: Sequence[float]
) -> Drawings:
    """Every plot of a report on classification."""
    curves = curves_of(predictions, background)
    heading = (title, f"{len(predictions):,} test {predictions.rows}")
    drawings: dict[str, Callable[[Figure], None]] = {
        "rejection": lambda figure: _draw_rejection(figure, curves, heading, signal_efficiencies),
        "roc": lambda figure: _draw_roc(figure, curves, heading),
        "significance_improvement": lambda figure: _draw_significance_improvement(figure, curves, heading),
        "scores": lambda figure: _draw_scores(figure, predictions, background, heading),
    }
    if len(predictions.classes) > 2:
        drawings["confusion"] = lambda figure: draw_confusion(figure, predictions, heading)
    elif predictions.sources:
        drawings["scores_by_source"] = lambda figure: _draw_scores_by_source(figure, predictions, background, heading)
    return {name: (caption(name, predictions.rows), draw) for name, draw in drawings.items()}


def _draw_rejection(
    figure: "Figure", curves: dict[str, RocCurve], heading: tuple[str, str], signal_efficiencies: Sequence[float]
) -> None:
    axes = labelled_axes(
        figure, heading, r"Signal efficiency $\varepsilon_S$", r"Background rejection $1/\varepsilon_B$"
    )
    for colour, (name, curve) in coloured(curves):
        scan = Scan.of(curve)
        _draw_with_band(axes, scan, scan.value, scan.lower, scan.upper, colour, _curve_label(name, curve))
        for efficiency in signal_efficiencies:
            point = curve.background_rejection(efficiency)
            # An upward arrow marks a lower bound.
            is_open = np.isinf(point.upper)
            upper = 1.5 * point.value if is_open else point.upper
            bars = [[point.value - point.lower], [upper - point.value]]
            axes.errorbar([efficiency], [point.value], bars, lolims=is_open, fmt="o", color=colour, capsize=5)
    scale_rejection(axes)
    add_legend(axes, "lower left", INTERVAL_NOTE)


def _draw_roc(figure: "Figure", curves: dict[str, RocCurve], heading: tuple[str, str]) -> None:
    axes = labelled_axes(
        figure, heading, r"Background efficiency $\varepsilon_B$", r"Signal efficiency $\varepsilon_S$"
    )
    for colour, (name, curve) in coloured(curves):
        scan = Scan.of(curve)
        few = scan.n_pass < FEW_JETS
        axes.plot(1 / scan.value[~few], scan.efficiency[~few], color=colour, label=_curve_label(name, curve))
        axes.plot(1 / scan.value[few], scan.efficiency[few], color=colour, linestyle=":")
        axes.fill_betweenx(scan.efficiency, 1 / scan.upper, 1 / scan.lower, color=colour, alpha=0.3, linewidth=0)
    lowest = min(curve.background_efficiency[curve.background_pass > 0][0] for curve in curves.values())
    chance = np.geomspace(lowest / 2, 1, 200)
    axes.plot(chance, chance, color="grey", linestyle="--", label="chance")
    axes.set_xscale("log")
    axes.set_xlim(chance[0], 1)
    axes.set_ylim(0, 1.02)
    add_legend(axes, "best", INTERVAL_NOTE)


def _draw_significance_improvement(figure: "Figure", curves: dict[str, RocCurve], heading: tuple[str, str]) -> None:
    axes = labelled_axes(
        figure, heading, r"Signal efficiency $\varepsilon_S$", r"SIC = $\varepsilon_S\,/\,$√$\varepsilon_B$"
    )
    for colour, (name, curve) in coloured(curves):
        scan = Scan.of(curve).where_passed(MINIMUM_PASS)
        edges = [scan.efficiency * np.sqrt(edge) for edge in (scan.value, scan.lower, scan.upper)]
        label = name
        if effective_background(curve) >= MINIMUM_PASS:
            best = significance_improvement(curve)
            axes.errorbar([best.signal_efficiency], [best.value], [best.error], fmt="*", ms=16, c=colour)
            label += f": maximum {rounded(best.value, best.error)}"
        _draw_with_band(axes, scan, *edges, colour, label)
    axes.axhline(1, color="grey", linestyle="--", linewidth=1.5)
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    add_legend(axes, "best", INTERVAL_NOTE)


def _draw_scores(figure: "Figure", predictions: Predictions, background: int, heading: tuple[str, str]) -> None:
    """One pair: one colour per class. Several pairs: one colour per pair, with its background dashed."""
    other = predictions.classes[background]
    signals = [name for name in predictions.classes if name != other]
    axes = labelled_axes(figure, heading, f"Score: log-odds against {other}", _per_bin(predictions, "class"))
    scores = {name: pair_score(predictions.logits, predictions.classes.index(name), background) for name in signals}
    edges = _score_edges(np.concatenate(list(scores.values())), bins=60)
    for colour, (name, score) in coloured(scores):
        for member, is_signal in ((other, False), (name, True)):
            style = {"color": colour, "linestyle": "-" if is_signal else "--", "label": name if is_signal else None}
            if len(signals) == 1 and not is_signal:
                style = {"color": BACKGROUND_COLOUR, "linestyle": "-", "label": other}
            chosen = predictions.label == predictions.classes.index(member)
            _draw_histogram(axes, score[chosen], predictions.weight[chosen], edges, style)
    _finish_scores(axes, edges, len(predictions.classes))


def _draw_scores_by_source(
    figure: "Figure", predictions: Predictions, background: int, heading: tuple[str, str]
) -> None:
    """Two classes that were merged from several: one colour per source, signal first."""
    signal = 1 - background
    other = predictions.classes[background]
    axes = labelled_axes(figure, heading, f"Score: log-odds against {other}", _per_bin(predictions, "source"))
    score = pair_score(predictions.logits, signal, background)
    edges = _score_edges(score, bins=30)
    is_signal = predictions.label == signal
    groups = {name: predictions.source == number for number, name in enumerate(predictions.sources)}
    found = sorted((item for item in groups.items() if item[1].any()), key=lambda item: not is_signal[item[1]].all())
    for colour, (name, chosen) in coloured(dict(found)):
        label = name
        if not is_signal[chosen].any():
            pair = chosen | is_signal
            label = _curve_label(name, roc_curve(score[pair], is_signal[pair], predictions.weight[pair]))
        style = {"color": colour, "linestyle": "-", "label": label}
        _draw_histogram(axes, score[chosen], predictions.weight[chosen], edges, style)
    _finish_scores(axes, edges, len(found))


def _per_bin(predictions: Predictions, group: str) -> str:
    return f"{predictions.rows.capitalize()} per bin, each {group} normalised"


def draw_confusion(figure: "Figure", predictions: Predictions, heading: tuple[str, str]) -> None:
    """Rows are the classes, or the sources they were merged from; columns are the class of the largest logit."""
    truth, names = predictions.label, predictions.classes
    if predictions.sources:
        truth, names = predictions.source, predictions.sources
    shares = confusion_matrix(predictions.logits, truth, predictions.weight, len(names))
    axes = labelled_axes(figure, heading, "Predicted class", "True class")
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    figure.colorbar(image, label="Share of the row")
    axes.tick_params(which="both", length=0)
    axes.minorticks_off()
    if max(shares.shape) > FEW_CLASSES:
        return
    labels = [f"{name}\n{count:,}" for name, count in count_jets(truth, names).items()]
    axes.set_yticks(range(len(names)), labels)
    axes.set_xticks(range(len(predictions.classes)), predictions.classes)
    if len(predictions.classes) > 6:
        axes.tick_params(axis="x", rotation=45)
    for (row, column), share in np.ndenumerate(shares):
        colour = "white" if share > 0.5 else "black"
        text = "" if np.isnan(share) else f"{share:.2f}"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize="small")


def draw_training(figure: "Figure", logged: dict[str, np.ndarray], title: str) -> None:
    """Loss, and AUC if there is one, during the training, from what `read_history` gives."""
    titles = {
        ("train_loss_step", "train_loss", "val_loss"): "Loss",
        ("val_auc",): "Validation AUC",
        ("val_probe_auc",): "AUC of a linear probe",
    }
    panels = [panel for panel in titles if set(panel) & set(logged)]
    styles = {
        "train_loss_step": {"color": "#94a4a2", "linewidth": 1, "alpha": 0.7, "label": "training, single batches"},
        "train_loss": {"color": BACKGROUND_COLOUR, "marker": "o", "label": "training, mean of the epoch"},
        **{
            name: {"color": SIGNAL_COLOURS[0], "marker": "s", "label": "validation"}
            for name in ("val_loss", "val_auc", "val_probe_auc")
        },
    }
    axis, to_axis = _training_axis(logged)
    shared = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
    for axes, panel in zip(shared, panels, strict=True):
        for name in panel:
            if name in logged:
                axes.plot(to_axis(logged[name][:, 0]), logged[name][:, 1], **styles[name])
        axes.set_ylabel(titles[panel])
        if titles[panel] != "Loss" and axes.get_ylim()[1] > 1:
            axes.set_ylim(top=1)  # an AUC is at most 1, even with few points on the axis
        if len(panel) > 1:
            axes.legend(loc="best")
    shared[0].set_title(title, loc="left", fontsize="small")
    shared[-1].set_xlabel(axis)
    shared[-1].set_xlim(left=0)
    shared[-1].xaxis.get_major_locator().set_params(integer=True)


@dataclasses.dataclass(frozen=True, eq=False)
class Scan:
    """Background rejection with its interval at each signal efficiency, as long as any background passes."""

    efficiency: np.ndarray
    value: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    n_pass: np.ndarray

    @classmethod
    def of(cls, curve: RocCurve) -> "Scan":
        efficiencies = np.arange(1, 501) / 500
        points = [curve.background_rejection(float(efficiency)) for efficiency in efficiencies]
        columns = np.array([(p.value, p.lower, p.upper, p.n_pass) for p in points]).T
        return cls(efficiencies, *columns)._at(np.isfinite(columns[2]))  # a bound has no upper end

    @classmethod
    def over_seeds(cls, scans: Sequence["Scan"]) -> "Scan":
        """Mean and standard deviation where enough background passes in all; for a single seed, its own scan."""
        scans = [scan.where_passed(FEW_JETS) for scan in scans]
        if len(scans) == 1:
            return scans[0]
        common = functools.reduce(np.intersect1d, [scan.efficiency for scan in scans])
        scans = [scan._at(np.isin(scan.efficiency, common)) for scan in scans]
        values = np.array([scan.value for scan in scans])
        mean, spread = values.mean(axis=0), values.std(axis=0, ddof=1)
        return cls(common, mean, mean - spread, mean + spread, np.min([scan.n_pass for scan in scans], axis=0))

    def where_passed(self, minimum: float) -> "Scan":
        return self._at(self.n_pass >= minimum)

    def _at(self, chosen: np.ndarray) -> "Scan":
        return Scan(*(getattr(self, field.name)[chosen] for field in dataclasses.fields(self)))


def _score_edges(score: np.ndarray, bins: int) -> np.ndarray:
    """Edges of a histogram of scores that leave out the outermost thousandth."""
    lowest, highest = np.quantile(score, (0.0005, 0.9995))
    return np.linspace(lowest, highest if highest > lowest else lowest + 1, bins + 1)


def _finish_scores(axes: "Axes", edges: np.ndarray, histograms: int) -> None:
    """Set limits with room for the legend of so many histograms, and add the legend."""
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, (1 + 0.1 * histograms) * axes.get_ylim()[1])
    add_legend(axes, "upper center", "statistical error")


def scale_rejection(axes: "Axes") -> None:
    """Set up the axes of background rejection against signal efficiency."""
    axes.set_yscale("log")
    axes.set_xlim(0, 1)
    axes.set_ylim(1, max(10, 1.3 * axes.get_ylim()[1]))


def _draw_with_band(
    axes: "Axes", scan: Scan, value: np.ndarray, lower: np.ndarray, upper: np.ndarray, colour: str, label: str
) -> None:
    few = scan.n_pass < FEW_JETS
    axes.plot(scan.efficiency[~few], value[~few], color=colour, label=label)
    axes.plot(scan.efficiency[few], value[few], color=colour, linestyle=":")
    axes.fill_between(scan.efficiency, lower, upper, color=colour, alpha=0.3, linewidth=0)


def _draw_histogram(
    axes: "Axes", score: np.ndarray, weight: np.ndarray, edges: np.ndarray, style: dict[str, Any]
) -> None:
    """Normalised histogram with a band of its statistical error; scores beyond the edges count in the last bins."""
    score, weight = np.clip(score, edges[0], edges[-1]), weight.astype(np.float64)
    counts, squares = (np.histogram(score, edges, weights=power)[0] for power in (weight, weight**2))
    total, errors = weight.sum(), np.sqrt(squares)
    axes.stairs(counts / total, edges, linewidth=2.5, **style)
    low, high = (counts - errors) / total, (counts + errors) / total
    axes.stairs(high, edges, baseline=low, fill=True, color=style["color"], alpha=0.3)


def _curve_label(name: str, curve: RocCurve) -> str:
    area = curve.auc()
    return f"{name}: AUC = {rounded(area.value, area.error)}"


def read_history(path: Path) -> dict[str, np.ndarray]:
    """Columns of a ``metrics.csv`` that the plot shows, each as rows of (step, value)."""
    shown = ("train_loss_step", "train_loss", "val_loss", "val_auc", "val_probe_auc", "epoch")
    points: dict[str, dict[float, float]] = {name: {} for name in shown}
    for line, row in enumerate(read_rows(path), 2):
        for name in shown:
            if row.get(name):
                # A resumed run may log a step twice; the later row counts.
                points[name][number_in(path, line, row, "step")] = number_in(path, line, row, name)
    logged = {name: np.array(sorted(values.items())) for name, values in points.items() if values}
    return logged if set(logged) - {"epoch"} else {}


def _training_axis(logged: dict[str, np.ndarray]) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    """Epochs if there was one validation per epoch and all epochs are equally long, otherwise steps."""
    validated = logged.get("val_loss", logged.get("val_auc"))
    epochs = dict(map(tuple, logged["epoch"])) if "epoch" in logged else {}
    if validated is not None and all(step in epochs for step in validated[:, 0]):
        lengths = [(step + 1) / (epochs[step] + 1) for step in validated[:, 0]]
        if np.allclose(lengths, lengths[0], rtol=0.01):
            return "Epoch", lambda steps: (steps + 1) / lengths[0]
    return "Training step", lambda steps: steps + 1
