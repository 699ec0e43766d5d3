r"""Expected significance of a search that counts the events above a cut on the score of a model.

References:
    Asymptotic formulae for likelihood-based tests of new physics (2010), arXiv:1007.1727: the median discovery
    significance from the Asimov data set, equation 97.
    G. Cowan, Discovery sensitivity for a counting experiment with background uncertainty (2012): the same for a
    background that is measured in a control region.
    Evaluation of three methods for calculating statistical significance when incorporating a systematic uncertainty
    into a test of the background-only hypothesis for a Poisson process (2007), arXiv:physics/0702156: how a relative
    uncertainty becomes a control region.
"""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from rich.console import Console
from rich.table import Table

from zoo.files import require_output, write_together
from zoo.limits import parse_json
from zoo.metrics import MINIMUM_PASS, RocCurve, efficiency_variance, log_probability, roc_curve
from zoo.report import Predictions, for_terminal, rounded
from zoo.report.pictures import SIGNAL_COLOURS, add_legend, labelled_axes, render
from zoo.report.writing import TASK_FORMATS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Background events of the test that must pass a cut that was chosen on other events; fewer than `MINIMUM_PASS`, which
#: the choice itself needs, because they fluctuate.
QUOTED_PASS = 10


def expected_significance(signal: ArrayLike, background: ArrayLike, background_uncertainty: float = 0.0) -> np.ndarray:
    r"""Median discovery significance for s expected signal events over b expected background events.

    .. math::
        Z &= \sqrt{2 \left( (s + b) \ln(1 + s / b) - s \right)} \\
        Z &= \sqrt{2 \left( (s + b) \ln \frac{(s + b)(b + \sigma^2)}{b^2 + (s + b) \sigma^2}
        - \frac{b^2}{\sigma^2} \ln \left( 1 + \frac{\sigma^2 s}{b (b + \sigma^2)} \right) \right)}

    The first is for a known background, the second for one with the uncertainty :math:`\sigma`, as from a control
    region with :math:`b^2 / \sigma^2` expected events. For :math:`s \ll b` they are :math:`s / \sqrt{b}` and
    :math:`s / \sqrt{b + \sigma^2}`.

    Args:
        signal: expected events s, 0 or more.
        background: expected events b, above 0.
        background_uncertainty: :math:`\sigma / b`.

    Returns:
        Significance in standard deviations, of the common shape.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> expected_significance(10, 100).round(4).item(), expected_significance(10, 100, 0.1).round(4).item()
        (0.984, 0.6902)
    """
    if np.iscomplexobj(signal) or np.iscomplexobj(background):
        raise ValueError("signal and background must be real numbers of events")
    s, b = np.broadcast_arrays(np.asarray(signal, np.float64), np.asarray(background, np.float64))
    if not ((s >= 0).all() and np.isfinite(s).all()):
        raise ValueError("signal must be 0 or more expected events, and finite")
    if not ((b > 0).all() and np.isfinite(b).all()):
        raise ValueError(
            "background must be more than 0 expected events, and finite; the formula has no answer without"
        )
    _check_uncertainty(background_uncertainty)
    if background_uncertainty == 0:
        half_q0 = (s + b) * np.log1p(s / b) - s
    else:
        variance = (background_uncertainty * b) ** 2
        observed = (s + b) * np.log1p(s * b / (b**2 + (s + b) * variance))
        control = np.log1p(variance * s / (b * (b + variance))) / background_uncertainty**2
        half_q0 = observed - control
    return np.sqrt(2 * np.maximum(half_q0, 0))


@dataclasses.dataclass(frozen=True)
class Yields:
    """What a search expects before the cut on the score.

    Args:
        signal: events, above 0.
        background: events, above 0.
        background_uncertainty: relative, the same after any cut.

    Raises:
        ValueError: if a number is out of range.
    """

    signal: float
    background: float
    background_uncertainty: float = 0.0

    def __post_init__(self) -> None:
        for name in ("signal", "background"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name}_yield must be more than 0 events, got {getattr(self, name)}")
        _check_uncertainty(self.background_uncertainty)


@dataclasses.dataclass(frozen=True, eq=False)
class SignificanceScan:
    """Expected significance after every cut ``score >= threshold``, from the tightest to the loosest.

    Shapes:
        every array: (threshold,).
    """

    threshold: np.ndarray
    signal_efficiency: np.ndarray
    signal: np.ndarray  #: expected events after the cut
    background: np.ndarray  #: the same
    value: np.ndarray  #: in standard deviations
    error: np.ndarray  #: of the value, from the number of judged events
    n_pass: np.ndarray  #: (effective) judged background events after the cut

    @property
    def best(self) -> int:
        """Position of the largest value."""
        return int(self.value.argmax())

    def passed_by(self, threshold: float) -> int:
        """Position of the events with at least this score.

        Raises:
            ValueError: if too few of them are background events to quote a significance.
        """
        position = int(np.searchsorted(-self.threshold, -threshold, side="right")) - 1
        if position < 0:
            raise ValueError(
                f"too few background events of the test pass the cut at {threshold:.6g} that was chosen on others; "
                "judge more events"
            )
        return position


def scan_significance(curve: RocCurve, yields: Yields, minimum_pass: float = MINIMUM_PASS) -> SignificanceScan:
    """Expected significance after every cut that enough background events pass.

    The error comes from the two efficiencies, each moved in turn by its binomial standard deviation. It does not
    include the uncertainty of the yields.

    Args:
        curve: counts of `signal_curve` or `zoo.metrics.roc_curve`.
        yields: expected events before the cut.
        minimum_pass: (effective) number of background events that must pass, at least 2.

    Raises:
        ValueError: if not even the loosest cut passes that many.
    """
    total = np.divide(
        np.square(curve.background_pass, dtype=np.float64),
        curve.background_squares,
        where=curve.background_pass > 0,
        out=np.zeros(len(curve.threshold)),
    )
    allowed = (total >= minimum_pass) & (curve.signal_pass >= 0)  # negative weights may leave a negative sum
    if not allowed.any():
        raise ValueError(f"a cut must leave {minimum_pass} background events; there are {total[-1]:.0f} in all")
    (s, s_error), (b, b_error) = (
        (expected * efficiency[allowed], expected * error[allowed])
        for expected, (efficiency, error) in (
            (yields.signal, _efficiency(curve.signal_pass, curve.signal_squares)),
            (yields.background, _efficiency(curve.background_pass, curve.background_squares)),
        )
    )

    def at(signal: np.ndarray, background: np.ndarray) -> np.ndarray:
        return expected_significance(signal, background, yields.background_uncertainty)

    by_signal = at(s + s_error, b) - at(np.maximum(s - s_error, 0), b)
    by_background = at(s, b + b_error) - at(s, b - b_error)
    return SignificanceScan(
        threshold=curve.threshold[allowed],
        signal_efficiency=curve.signal_efficiency[allowed],
        signal=s,
        background=b,
        value=at(s, b),
        error=np.hypot(by_signal, by_background) / 2,
        n_pass=total[allowed],
    )


def signal_curve(predictions: Predictions, signal: int) -> RocCurve:
    r"""Counts of a signal class against all others together, by the log-odds :math:`\ln p_s / (1 - p_s)`.

    Several backgrounds are mixed as in the judged events, with their weights.

    Raises:
        ValueError: if an event has no label, or a logit is NaN.
    """
    if len(predictions) and predictions.label.min() < 0:
        raise ValueError("events without a label cannot be judged; give predictions of labelled events")
    of_signal = log_probability(predictions.logits)[:, signal]
    with np.errstate(divide="ignore"):  # if 1 - p is too small the score is infinite, and ordered like any other
        score = of_signal - np.log(-np.expm1(of_signal))
    return roc_curve(score, predictions.label == signal, predictions.weight)


def show_significance(
    run: Path,
    yields: Yields,
    *,
    signal: str | None = None,
    validation: Path | None = None,
    out: Path | None = None,
    force: bool = False,
) -> None:
    """Print the expected significance of a tested run, and write it as ``significance.json``, ``.png`` and ``.pdf``.

    Args:
        run: run folder that holds a tested report.
        yields: expected events before the cut.
        signal: name of the signal class; by default, of two, the one that is not the report's background.
        validation: predictions for other events, from ``zoo predict`` of a run, on which the cut is chosen; None: it is
            chosen on the test, which biases the value upwards.
        out: folder to write; by default ``<run>/significance``.
        force: whether older files there are replaced.

    Raises:
        FileNotFoundError: if there are no predictions.
        FileExistsError: if the files exist and ``force`` was not given.
        ValueError: if a file is damaged, the classes do not fit, or there are too few events.
    """
    out = out or run / "significance"
    report = run / "report"
    for kind in ("json", "png", "pdf"):
        inputs = (report / "predictions.arrow", report / "metrics.json", validation)
        require_output(out / f"significance.{kind}", inputs, force=force)
    _require_classes(report / "metrics.json")
    test = Predictions.load(report / "predictions.arrow")
    number = _signal_class(test.classes, signal, report / "metrics.json")
    curve = signal_curve(test, number)
    if validation is None:
        scan = scan_significance(curve, yields)
        chosen = scan.best
    else:
        others = scan_significance(signal_curve(_other_events(validation, test), number), yields)
        scan = scan_significance(curve, yields, QUOTED_PASS)
        chosen = scan.passed_by(others.threshold[others.best].item())
    document = _document(scan, chosen, yields, test.classes[number], len(test), validation)
    picture = render(lambda figure: _draw(figure, scan, chosen, document))
    text = json.dumps(document, indent=2, allow_nan=False) + "\n"
    files = {f"significance.{kind}": content for kind, content in (picture | {"json": text.encode()}).items()}
    write_together(out, files)
    _print(document)
    print(f"Numbers and picture: {out}")


def _check_uncertainty(uncertainty: float) -> None:
    if not 0 <= uncertainty < np.inf:
        raise ValueError(f"background_uncertainty must be a relative error of 0 or more, got {uncertainty}")


def _efficiency(passed: np.ndarray, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Efficiency of every cut and its standard deviation, from sums of weights and of squared weights."""
    passed, squares = passed.astype(np.float64), squares.astype(np.float64)
    total = passed[-1]
    return passed / total, np.sqrt(efficiency_variance(passed, total, squares, squares[-1]))


def _require_classes(report: Path) -> None:
    """Refuse a report on something other than classes; missing or damaged parts are reported where they are used."""
    try:
        form = parse_json(report.read_text(encoding="utf-8"))["format"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if form in TASK_FORMATS:
        raise ValueError(f"{report}: judges no classes, and a search cuts on the score of one; give a classification")


def _signal_class(classes: tuple[str, ...], signal: str | None, report: Path) -> int:
    if signal is None and len(classes) == 2:
        return 1 - _background_of(report, classes)
    if signal not in classes:
        given = "" if signal is None else f", not {signal!r}"
        raise ValueError(f"signal: give one of the classes {', '.join(classes)}{given}")
    return classes.index(signal)


def _background_of(report: Path, classes: tuple[str, ...]) -> int:
    """The background class of a report, against which the score of two classes is taken."""
    try:
        return classes.index(parse_json(report.read_text(encoding="utf-8"))["background"])
    except FileNotFoundError:
        raise FileNotFoundError(f"{report} is missing: test the run again, or give --signal") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{report} does not say its background ({error}): test the run again") from error


def _other_events(path: Path, test: Predictions) -> Predictions:
    """Predictions of the validation, if they are compatible with those of the test."""
    others = Predictions.load(path)
    if others.classes != test.classes:
        raise ValueError(
            f"{path}: has the classes {', '.join(others.classes)}, the test {', '.join(test.classes)}; "
            "predict with the same run"
        )
    if np.array_equal(np.sort(others.logits, axis=0), np.sort(test.logits, axis=0)):
        raise ValueError(f"{path}: holds the events of the test; a cut must be chosen on others")
    return others


def _document(
    scan: SignificanceScan, chosen: int, yields: Yields, signal: str, events: int, validation: Path | None
) -> dict[str, Any]:
    def at(position: int) -> dict[str, float]:
        return {field.name: getattr(scan, field.name)[position].item() for field in dataclasses.fields(scan)}

    return {
        "signal_class": signal,
        "test_events": events,
        "yields": dataclasses.asdict(yields),
        "cut_chosen_on": "test" if validation is None else str(validation),
        "without_cut": at(-1),
        "with_cut": at(chosen),
    }


def _heading(document: dict[str, Any]) -> str:
    yields = document["yields"]
    uncertainty = f" ± {100 * yields['background_uncertainty']:.3g} %" if yields["background_uncertainty"] else ""
    return f"S = {yields['signal']:,g}, B = {yields['background']:,g}{uncertainty}"


def _choice(document: dict[str, Any]) -> str:
    is_same = document["cut_chosen_on"] == "test"
    return "cut chosen on the same events, leans upwards" if is_same else "cut chosen on other events"


def _print(document: dict[str, Any]) -> None:
    console = Console()
    title = f"{document['signal_class']}: {_heading(document)}, {document['test_events']:,} test events"
    table = Table(title=for_terminal(title, console), title_justify="left")
    table.add_column("")
    for column in ("eS", "S", "B", "significance", "test background"):
        table.add_column(column, justify="right")
    rows = {
        "no cut": document["without_cut"],
        f"score >= {document['with_cut']['threshold']:.4g}": document["with_cut"],
    }
    for name, row in rows.items():
        numbers = [f"{row['signal_efficiency']:.3f}", f"{row['signal']:.4g}", f"{row['background']:.4g}"]
        value = for_terminal(rounded(row["value"], row["error"]), console)
        table.add_row(name, *numbers, value, f"{row['n_pass']:,.0f}")
    console.print(table)
    note = f"Expected significance in standard deviations, ± from the number of test events; {_choice(document)}."
    console.print(for_terminal(note, console))


def _draw(figure: "Figure", scan: SignificanceScan, chosen: int, document: dict[str, Any]) -> None:
    heading = (_heading(document), f"{document['test_events']:,} test events")
    axes = labelled_axes(figure, heading, r"Signal efficiency $\varepsilon_S$", "Expected significance")
    shown = np.unique(np.searchsorted(scan.signal_efficiency, np.linspace(0, 1, 501)).clip(max=len(scan.value) - 1))
    x, value, error = (column[shown] for column in (scan.signal_efficiency, scan.value, scan.error))
    colour = SIGNAL_COLOURS[0]
    axes.plot(x, value, color=colour, label=document["signal_class"])
    axes.fill_between(x, value - error, value + error, color=colour, alpha=0.3, linewidth=0)
    label = f"{rounded(scan.value[chosen], scan.error[chosen])}, {_choice(document)}"
    point = scan.signal_efficiency[chosen], scan.value[chosen], scan.error[chosen]
    axes.errorbar(*point, fmt="*", ms=16, color=colour, label=label)
    axes.axhline(scan.value[-1], color="grey", linestyle="--", label=f"no cut: {scan.value[-1]:.3g}")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.35 * (value + error).max())
    add_legend(axes, "upper left", "statistical error (test events)")
