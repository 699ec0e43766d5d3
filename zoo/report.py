"""What a tested run leaves behind: figures with errors, predictions, pictures, a page; and a table of several runs.

The folder ``report/`` of a run holds ``metrics.json``, ``predictions.arrow``, each picture as PNG and PDF, and
``README.md``. ``metrics.json`` is written last: where it lies, the report is complete.
"""

import csv
import dataclasses
import functools
import hashlib
import importlib.metadata
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import rich.box
import yaml
from rich.console import Console
from rich.table import Table

from zoo.files import atomic_write
from zoo.metrics import (
    MINIMUM_PASS,
    SIGNAL_EFFICIENCIES,
    RocCurve,
    confusion_matrix,
    pair_score,
    roc_curve,
    significance_improvement,
    tagging_metrics,
)
from zoo.pictures import BACKGROUND_COLOUR, SIGNAL_COLOURS, add_legend, coloured, labelled_axes, render

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "Predictions",
    "compare_label_counts",
    "compare_runs",
    "figures_table",
    "for_terminal",
    "markdown_table",
    "plain_figures_table",
    "print_figures",
    "print_table",
    "rounded",
    "write_report",
    "write_training_report",
]

FORMAT = "zoo-report"
PRETRAINING_FORMAT = "zoo-pretraining-report"
VERSION = 1
#: Curves are dotted where fewer background jets than this pass the cut, and end where none does.
FEW_JETS = 10
#: Settings in which the seeds of one training may differ: the seed, where things are read, logged or written, and the
#: task, which is the same for all that are compared and which older runs do not tell.
SEED_SETTINGS = {
    "task", "seed", "seed_everything", "run_folder", "predictions", "wandb", "test_after_fit", "default_root_dir",
    "ckpt_path", "logger", "dirpath", "enable_progress_bar", "num_workers",
}  # fmt: skip
#: Confusion matrices of more classes than this have colours but no numbers.
FEW_CLASSES = 20
INTERVAL_NOTE = "68 % interval (test jets)"
CAPTIONS = {
    "rejection": "Background rejection against signal efficiency. Band: Clopper-Pearson interval (68.3 %) of the "
    f"background count; dotted: fewer than {FEW_JETS} background jets pass; arrow: lower bound.",
    "roc": "ROC curve, with the same intervals.",
    "significance_improvement": "Significance improvement eS/sqrt(eB), drawn as long as "
    f"{MINIMUM_PASS} background jets pass (statistical error of eB at most 20 %).",
    "scores": "Scores of the test jets: log-odds of signal against background, each class normalised to one.",
    "scores_by_source": "The same score by the source of the test jets, each normalised to one. The AUC is that of a "
    "background source against all of the signal.",
    "confusion": "Confusion matrix: in which share of each row the largest logit is that of the column. Under the name "
    "of a row stands its number of test jets.",
    "training": "Loss and validation AUC during the training (of a linear probe, where the training had no labels).",
}
SPREAD_NOTE = (
    "± is the standard deviation over the seeds; with one seed, the statistical error of the test jets. "
    "'>' marks a lower bound: in a run no background jet passed."
)


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """What a model answered for each jet of a split.

    Args:
        logits: (batch, class), kept as float32.
        label: class number of each jet, (batch,), -1 where it is unknown.
        weight: (batch,).
        index: row number of each jet in the source of its split, (batch,).
        classes: names of the classes; a label is a position in it.
        source: where the classes were put together of others, the number of each jet's class among those, (batch,).
        sources: names of those; empty where no class was merged.

    Raises:
        ValueError: where types or shapes do not fit or a label is no class.
    """

    logits: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    index: np.ndarray
    classes: tuple[str, ...]
    source: np.ndarray | None = None
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.source is None) == bool(self.sources):
            raise ValueError("source and sources belong together: give both or none")
        for name, dtype in self._types.items():
            found = np.asarray(getattr(self, name)).dtype
            if found.kind not in ("iub" if dtype is np.int64 else "iubf"):
                raise ValueError(f"{name} must hold {np.dtype(dtype)}, got {found}")
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=dtype))
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "sources", tuple(self.sources))
        if self.logits.ndim != 2 or self.logits.shape[1] != len(self.classes):
            raise ValueError(f"logits must be (batch, {len(self.classes)} classes), got shape {self.logits.shape}")
        for name in self._of_jets:
            if getattr(self, name).shape != (len(self),):
                raise ValueError(f"{name} must be ({len(self)},) like logits, got shape {getattr(self, name).shape}")
        for name, known in {"label": self.classes, **({"source": self.sources} if self.sources else {})}.items():
            values = getattr(self, name)
            if len(self) and not -1 <= values.min() <= values.max() < len(known):
                raise ValueError(f"{name} must lie in 0..{len(known) - 1} (or be -1), got {np.unique(values)[:8]}")

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def _types(self) -> dict[str, type]:
        """Columns of the file in order, with their types."""
        types = {"logits": np.float32, "label": np.int64, "weight": np.float32, "index": np.int64}
        return types | ({"source": np.int64} if self.sources else {})

    @property
    def _of_jets(self) -> tuple[str, ...]:
        """Columns of one number a jet."""
        return tuple(name for name in self._types if name != "logits")

    def save(self, path: Path) -> None:
        """Write an Arrow IPC file with a checksum, beside ``path`` first."""
        flat = pa.array(self.logits.ravel())
        logits = pa.FixedSizeListArray.from_arrays(flat, len(self.classes))
        columns = [logits, *(pa.array(getattr(self, name)) for name in self._of_jets)]
        metadata = {"classes": json.dumps(self.classes), "sha256": self._checksum()}
        if self.sources:
            metadata["sources"] = json.dumps(self.sources)
        schema = _prediction_schema(len(self.classes), is_merged=bool(self.sources))
        table = pa.table(columns, schema.with_metadata(metadata))
        with atomic_write(Path(path)) as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)

    @classmethod
    def load(cls, path: Path) -> "Predictions":
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: where there is no such file.
            ValueError: where the file is damaged or holds something else.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: test the run again to write its predictions")
        try:
            table = pa.ipc.open_file(pa.py_buffer(path.read_bytes())).read_all()
            metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
            classes, sources = (tuple(json.loads(metadata.get(key, "[]"))) for key in ("classes", "sources"))
            schema = _prediction_schema(len(classes), is_merged=bool(sources))
            if not table.schema.remove_metadata().equals(schema):
                raise ValueError(f"its columns are {', '.join(f'{f.name}: {f.type}' for f in table.schema)}")
            if any(column.null_count for column in table.columns):
                raise ValueError("it has empty cells")
            logits = table["logits"].combine_chunks()
            columns = {name: table[name].to_numpy() for name in schema.names if name != "logits"}
            columns["logits"] = logits.flatten().to_numpy().reshape(len(table), len(classes))
            predictions = cls(**columns, classes=classes, sources=sources)
            intact = metadata["sha256"] == predictions._checksum()
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{path} holds no predictions ({error}): test the run again") from error
        if not intact:
            raise ValueError(f"{path} is damaged (its checksum differs): test the run again")
        return predictions

    def _checksum(self) -> str:
        names = [*self.classes, self.sources] if self.sources else self.classes
        digest = hashlib.sha256(json.dumps(names).encode())
        for name in self._types:
            digest.update(getattr(self, name).tobytes())
        return digest.hexdigest()


def _prediction_schema(num_classes: int, is_merged: bool) -> pa.Schema:
    logits = pa.list_(pa.float32(), num_classes)
    columns = {"logits": logits, "label": pa.int64(), "weight": pa.float32(), "index": pa.int64()}
    return pa.schema(columns | ({"source": pa.int64()} if is_merged else {}))


def write_report(
    folder: Path,
    predictions: Predictions,
    *,
    title: str,
    history: Path | None = None,
    config: Path | None = None,
    facts: dict[str, Any] | None = None,
    background: int = 0,
) -> dict[str, Any]:
    """Write the whole report of a tested run; everything is computed before the first file is touched.

    Args:
        folder: created where needed; an older report in it is replaced.
        predictions: of the test split; every jet needs its label.
        title: name of the model or run; the seeds of one training share it.
        history: ``metrics.csv`` of Lightning's CSVLogger, for the training curves.
        config: YAML file of the run, shown on the page.
        facts: how it was made (command, seed, wall time, ...), shown on the page.
        background: the background class.

    Returns:
        The contents of ``metrics.json``; its key ``metrics`` holds every figure with error and counts.

    Raises:
        ValueError: on NaN logits, a class without jets, or an unreadable history or configuration.
        FileNotFoundError: where history or configuration is missing.
    """
    folder = Path(folder)
    settings_text = None if config is None else _read_text(Path(config), "configuration")
    document = {
        "format": FORMAT,
        "version": VERSION,
        "title": title,
        "classes": list(predictions.classes),
        "background": predictions.classes[background],
        "jets": _count(predictions.label, predictions.classes),
        "metrics": _figures(predictions, background),
        "facts": _plain(facts or {}),
        "settings": None if settings_text is None else _parse_settings(Path(config), settings_text),
        "versions": {name: importlib.metadata.version(name) for name in ("zoo", "torch", "numpy")},
    }
    if predictions.sources:
        document["sources"] = _count(predictions.source, predictions.sources)
    pictures = _pictures(predictions, title, background, None if history is None else Path(history))
    files = {f"{name}.{kind}": content for name, kinds in pictures.items() for kind, content in kinds.items()}
    files["README.md"] = _page(document, list(pictures), settings_text).encode()
    _make_folder(folder)
    (folder / "metrics.json").unlink(missing_ok=True)
    predictions.save(folder / "predictions.arrow")
    files["metrics.json"] = (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()
    _write_files(folder, files)
    return document


def write_training_report(
    folder: Path,
    *,
    title: str,
    jets: int,
    figures: dict[str, dict[str, Any]],
    drawings: dict[str, tuple[str, Callable[["Figure"], None]]],
    history: Path | None,
    config: Path | None,
    facts: dict[str, Any],
) -> dict[str, Any]:
    """Write the report of a training that judges no classes; everything is computed before the first file is touched.

    Args:
        folder: created where needed; an older report in it is replaced.
        title: name of the model or run.
        jets: number of validation jets.
        figures: by name, each with ``value`` and ``error`` (None where it has none).
        drawings: by name of the picture, caption and what draws it.
        history: ``metrics.csv`` of Lightning's CSVLogger, for the training curves.
        config: YAML file of the run, shown on the page.
        facts: how it was made, shown on the page.

    Returns:
        The contents of ``metrics.json``.

    Raises:
        ValueError: on an unreadable history or configuration.
    """
    settings_text = None if config is None else _read_text(Path(config), "configuration")
    document = {
        "format": PRETRAINING_FORMAT,
        "version": VERSION,
        "title": title,
        "jets": jets,
        "metrics": _plain(figures),
        "facts": _plain(facts),
        "settings": None if settings_text is None else _parse_settings(Path(config), settings_text),
        "versions": {name: importlib.metadata.version(name) for name in ("zoo", "torch", "numpy")},
    }
    captions = {name: caption for name, (caption, _) in drawings.items()}
    draw = {name: function for name, (_, function) in drawings.items()}
    logged = {} if history is None else _read_history(Path(history))
    if logged:
        captions["training"] = CAPTIONS["training"]
        draw["training"] = lambda figure: _draw_training(figure, logged, title)
    pictures = {name: render(function) for name, function in draw.items()}
    files = {f"{name}.{kind}": content for name, kinds in pictures.items() for kind, content in kinds.items()}
    files["README.md"] = _training_page(document, captions, settings_text).encode()
    _make_folder(Path(folder))
    (Path(folder) / "metrics.json").unlink(missing_ok=True)
    files["metrics.json"] = (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()
    _write_files(Path(folder), files)
    return document


def print_table(metrics: dict[str, Any], console: Console | None = None) -> None:
    """Print the figures of a report on the terminal.

    Args:
        metrics: what :func:`write_report` returned, or the contents of a ``metrics.json``.
        console: where to print; the standard output unless told.
    """
    console = console or Console()
    table = Table(title=f"{metrics['title']}: {sum(metrics['jets'].values()):,} test jets", title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("rests on", justify="right")
    for name, figure in metrics["metrics"].items():
        if not name.startswith("significance_improvement"):
            table.add_row(_label(name), for_terminal(_value_text(figure), console), _counts_text(figure))
    console.print(table)


def print_figures(document: dict[str, Any]) -> None:
    """Print the figures of `write_training_report` on the terminal, a line each."""
    print(f"{document['title']}: {document['jets']:,} validation jets")
    for name, figure in document["metrics"].items():
        print(f"  {name}: {rounded(figure['value'], figure['error']).replace('±', '+-')}")


def compare_runs(runs: Sequence[Path], out: Path) -> None:
    """Put several tested runs in one table and one picture, seeds of the same training as mean and spread.

    Runs belong together if title and settings are the same but for the seed. Writes ``comparison.md``,
    ``comparison.csv``, ``comparison.png`` and ``comparison.pdf``, and prints the table.

    Args:
        runs: run folders that hold a ``report/`` (or report folders).
        out: folder to write.

    Raises:
        FileNotFoundError: where a run lacks its report.
        ValueError: where a report is damaged, two are the same, or they judge different classes or jets.
    """
    if not runs:
        raise ValueError("no runs to compare: name at least one run folder")
    loaded = [_load_run(Path(run)) for run in runs]
    _require_comparable(loaded)
    groups = _group_by_training(loaded)
    names = _compared_figures(loaded[0])
    rows = [_Row.of(label, members, names) for label, members in groups.items()]
    jets = sum(loaded[0].document["jets"].values())
    picture = render(lambda figure: _draw_comparison(figure, groups))
    files = {f"comparison.{kind}": content for kind, content in picture.items()}
    files["comparison.csv"] = _comparison_csv(rows, names).encode()
    files["comparison.md"] = _comparison_page(rows, names, jets).encode()
    _make_folder(Path(out))
    _write_files(Path(out), files)
    _print_comparison(rows, names, jets)
    print(f"Table and picture: {out}")


def compare_label_counts(trainings: Mapping[str, Mapping[int, Sequence[Path]]], out: Path) -> None:
    """Put trainings on few and many labelled jets in one table and one picture, seeds as mean and spread.

    Writes ``label_efficiency.md``, ``.csv``, ``.png`` and ``.pdf``, and prints the table.

    Args:
        trainings: by their names, such as ``scratch``, run folders by the number of labelled jets they trained on.
        out: folder to write.

    Raises:
        FileNotFoundError: where a run lacks its report.
        ValueError: where a report is damaged, two are the same, or they judge different classes or jets.
    """
    loaded = {
        (name, count): [_load_run(Path(run)) for run in by_count[count]]
        for name, by_count in trainings.items()
        for count in sorted(by_count)
    }
    runs = [run for members in loaded.values() for run in members]
    _require_comparable(runs)
    names, jets = _compared_figures(runs[0]), sum(runs[0].document["jets"].values())
    rows = {key: _Row.of(f"{key[0]}, {key[1]:,} labels", members, names) for key, members in loaded.items()}
    picture = render(lambda figure: _draw_label_counts(figure, rows, f"{jets:,} test jets"))
    files = {f"label_efficiency.{kind}": content for kind, content in picture.items()}
    counts = [count for _, count in rows]
    files["label_efficiency.csv"] = _comparison_csv(list(rows.values()), names, {"labels": counts}).encode()
    files["label_efficiency.md"] = _label_counts_page(rows, names, jets).encode()
    _make_folder(Path(out))
    _write_files(Path(out), files)
    _print_comparison(list(rows.values()), names, jets)
    print(f"Table and picture: {out}")


@dataclasses.dataclass(frozen=True, eq=False)
class _Run:
    """A tested run: where it lies, its figures and its predictions."""

    folder: Path
    document: dict[str, Any]
    predictions: Predictions

    @property
    def name(self) -> str:
        return self.folder.resolve().name


@dataclasses.dataclass(frozen=True)
class _Row:
    """One training in the table of a comparison: for each figure its mean, spread, statistical error and text."""

    label: str
    runs: tuple[str, ...]
    means: dict[str, float]
    spreads: dict[str, float | None]
    errors: dict[str, float | None]
    bounds: dict[str, bool]

    @classmethod
    def of(cls, label: str, members: Sequence[_Run], names: Sequence[str]) -> "_Row":
        figures = {name: [run.document["metrics"][name] for run in members] for name in names}
        values = {name: [figure["value"] for figure in each] for name, each in figures.items()}
        errors = {name: [figure["error"] for figure in each] for name, each in figures.items()}
        return cls(
            label=label,
            runs=tuple(run.name for run in members),
            means={name: float(np.mean(each)) for name, each in values.items()},
            spreads={name: float(np.std(each, ddof=1)) if len(each) > 1 else None for name, each in values.items()},
            errors={name: None if None in each else float(np.mean(each)) for name, each in errors.items()},
            bounds={name: any(f.get("is_bound", False) for f in each) for name, each in figures.items()},
        )

    @property
    def seeds(self) -> int:
        return len(self.runs)

    @property
    def texts(self) -> dict[str, str]:
        uncertain = self.errors if self.seeds == 1 else self.spreads
        return {name: rounded(mean, uncertain[name], self.bounds[name]) for name, mean in self.means.items()}


# Figures and their text


def _figures(predictions: Predictions, background: int) -> dict[str, dict[str, Any]]:
    """Every figure as plain JSON: value, error, counts."""
    if len(predictions) and predictions.label.min() < 0:
        unknown = int((predictions.label < 0).sum())
        raise ValueError(f"{unknown} of {len(predictions)} jets have no label: a report needs the labels of all")
    bad = predictions.index[~np.isfinite(predictions.logits).all(axis=1)]
    if len(bad):
        raise ValueError(
            f"logits of {len(bad)} of {len(predictions)} jets are NaN or infinite (index {bad[:5].tolist()}): look at "
            "these jets of the input and at the loss of the training"
        )
    signal = 1 - background if len(predictions.classes) == 2 else 1
    judged = tagging_metrics(
        predictions.logits,
        predictions.label,
        predictions.weight,
        signal=signal,
        background=background,
        classes=predictions.classes,
    )
    figures = {name: _plain(dataclasses.asdict(figure)) for name, figure in judged.items()}
    for name, curve in _curves(predictions, background).items():
        suffix = f"_{name}" if len(predictions.classes) > 2 else ""
        if _effective_background(curve) >= MINIMUM_PASS:
            best = significance_improvement(curve)
            figures[f"significance_improvement{suffix}"] = _plain(dataclasses.asdict(best))
    return figures


def _count(numbers: np.ndarray, names: Sequence[str]) -> dict[str, int]:
    """Number of jets of each class."""
    return {name: int((numbers == number).sum()) for number, name in enumerate(names)}


def _curves(predictions: Predictions, background: int) -> dict[str, RocCurve]:
    """Curve of each signal class against the background."""
    curves = {}
    for signal, name in enumerate(predictions.classes):
        if signal != background:
            chosen = np.isin(predictions.label, (signal, background))
            score = pair_score(predictions.logits[chosen], signal, background)
            curves[name] = roc_curve(score, predictions.label[chosen] == signal, predictions.weight[chosen])
    return curves


def _plain(value: Any) -> Any:
    """The same as JSON knows it: NaN and infinity become null, what is no JSON becomes text."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _print_comparison(rows: Sequence[_Row], names: Sequence[str], jets: int) -> None:
    """The table on the terminal; rejections of many classes are left to the written one."""
    console = Console()
    shown = names if len(names) <= 4 else names[:2]
    title, note = (for_terminal(text, console) for text in (f"Tested on the same {jets:,} jets", SPREAD_NOTE))
    texts = [[for_terminal(row.texts[name], console) for name in shown] for row in rows]
    headings = [_label(name).replace(" at ", "\n") for name in shown]
    columns = zip(*texts, strict=True)
    widths = [max(map(len, [*heading.split("\n"), *column])) for heading, column in zip(headings, columns, strict=True)]
    table = Table(title=title, title_justify="left", box=rich.box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    # Names fold before any number does.
    numbers = sum(widths) + len("seeds") + 2 * len(widths) + 4
    room = max(10, min(console.width - numbers, max(len(row.label) for row in rows)))
    table.add_column("model", overflow="fold", width=room)
    table.add_column("seeds", justify="right", width=len("seeds"))
    for heading, width in zip(headings, widths, strict=True):
        table.add_column(heading, justify="right", width=width)
    for row, values in zip(rows, texts, strict=True):
        table.add_row(row.label, str(row.seeds), *values)
    Console(width=max(console.width, room + numbers)).print(table)
    console.print(note)


def _label(name: str) -> str:
    """How a figure is called in a table."""
    if name == "auc":
        return "AUC"
    for key, text in (("background_rejection_", "1/eB at eS = "), ("significance_improvement", "max. SIC")):
        if name.startswith(key):
            number, _, signal = name.removeprefix(key).partition("_")
            return f"{text}{number}" + (f" ({signal})" if signal else "")
    return name


def rounded(value: float, error: float | None, is_bound: bool = False) -> str:
    """Value and error with two significant digits of the error, never rounded before the decimal point.

    >>> rounded(2195.4, 173.2), rounded(0.97931, 0.00108), rounded(5432.1, None, is_bound=True)
    ('2195 ± 173', '0.9793 ± 0.0011', '> 5432')
    """
    if is_bound:
        return f"> {math.floor(value)}"
    if not error:
        return f"{value:.4g}"
    decimals = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"


def _value_text(figure: dict[str, Any]) -> str:
    """Value with its error; with its interval where too few jets pass for a symmetric error."""
    if figure.get("n_pass", FEW_JETS) < FEW_JETS and not figure["is_bound"]:
        return f"{figure['value']:.0f} [{figure['lower']:.0f}, {figure['upper']:.0f}]"
    return rounded(figure["value"], figure["error"], figure.get("is_bound", False))


def _counts_text(figure: dict[str, Any]) -> str:
    if "n_background" in figure:
        return f"{figure['n_pass']:,.0f} of {figure['n_background']:,.0f} background jets"
    if "signal_efficiency" in figure:
        return f"{figure['n_pass']:,.0f} background jets at eS = {figure['signal_efficiency']:.3f}"
    return f"{figure['n_jets']:,.0f} jets"


def figures_table(metrics: dict[str, Any]) -> str:
    """The figures of a report as a Markdown table, each with its error and the number of jets that it rests on."""
    rows = [[_label(name), _value_text(figure), _counts_text(figure)] for name, figure in metrics.items()]
    return markdown_table(["figure", "value", "rests on"], rows)


def plain_figures_table(metrics: dict[str, Any]) -> str:
    """The figures of a training that judges no classes as a Markdown table, each with its error."""
    rows = [[name, rounded(figure["value"], figure["error"])] for name, figure in metrics.items()]
    return markdown_table(["figure", "value"], rows)


def for_terminal(text: str, console: Console) -> str:
    """The text as far as a terminal can show it."""
    return text.replace("±", "+-") if console.options.ascii_only else text


# Pages


def _page(document: dict[str, Any], pictures: Sequence[str], settings: str | None) -> str:
    """The report as Markdown; without a date, so that the same run gives the same page."""
    jets, sources = (
        ", ".join(f"{count:,} {name}" for name, count in document.get(key, {}).items()) for key in ("jets", "sources")
    )
    parts = [
        f"# {document['title']}",
        f"Tested on {sum(document['jets'].values()):,} jets ({jets}); background is {document['background']}."
        + (f" They come from {sources}." if sources else ""),
        figures_table(document["metrics"]),
        "Errors are one standard deviation from the number of test jets: DeLong for the AUC, Clopper-Pearson for the "
        "others. They do not hold the spread between trainings. `>` marks a lower bound: no background jet passed; "
        f"brackets hold the interval where fewer than {FEW_JETS} pass.",
        "## Pictures",
        *[f"![{name.replace('_', ' ')}]({name}.png)\n\n{CAPTIONS[name]} ([PDF]({name}.pdf))" for name in pictures],
        "## How it was made",
        markdown_table(["", ""], [*document["facts"].items(), *document["versions"].items()]),
        f"Predictions: `predictions.arrow` (logits, label, weight, index{', source' if sources else ''}). "
        "Figures: `metrics.json`.",
    ]
    if settings is not None:
        parts += ["## Settings", f"```yaml\n{settings.strip()}\n```"]
    return "\n\n".join(parts) + "\n"


def _training_page(document: dict[str, Any], captions: dict[str, str], settings: str | None) -> str:
    """The report of a training that judges no classes as Markdown."""
    parts = [
        f"# {document['title']}",
        f"Validated on {document['jets']:,} jets.",
        plain_figures_table(document["metrics"]),
        "Errors are one standard deviation from the number of jets.",
        "## Pictures",
        *[f"![{name}]({name}.png)\n\n{caption} ([PDF]({name}.pdf))" for name, caption in captions.items()],
        "## How it was made",
        markdown_table(["", ""], [*document["facts"].items(), *document["versions"].items()]),
    ]
    if settings is not None:
        parts += ["## Settings", f"```yaml\n{settings.strip()}\n```"]
    return "\n\n".join(parts) + "\n"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table of plain texts and numbers in Markdown."""
    cells = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in cells)


def _comparison_page(rows: Sequence[_Row], names: Sequence[str], jets: int) -> str:
    table = [[row.label, row.seeds, *row.texts.values(), ", ".join(row.runs)] for row in rows]
    parts = [
        "# Comparison of runs",
        f"All judged on the same {jets:,} test jets.",
        markdown_table(["model", "seeds", *map(_label, names), "runs"], table),
        SPREAD_NOTE,
        "![Background rejection against signal efficiency](comparison.png)",
        "Line: mean over the seeds. Band: standard deviation over the seeds, or the Clopper-Pearson interval (68.3 %) "
        f"of a single run. Curves are drawn where {FEW_JETS} background jets or more pass in every seed.",
    ]
    return "\n\n".join(parts) + "\n"


def _label_counts_page(rows: Mapping[tuple[str, int], _Row], names: Sequence[str], jets: int) -> str:
    table = [
        [name, f"{count:,}", row.seeds, *row.texts.values(), ", ".join(row.runs)] for (name, count), row in rows.items()
    ]
    parts = [
        "# Label efficiency",
        f"All judged on the same {jets:,} test jets.",
        markdown_table(["training", "labels", "seeds", *map(_label, names), "runs"], table),
        SPREAD_NOTE,
        "![AUC against the number of labelled training jets](label_efficiency.png)",
    ]
    return "\n\n".join(parts) + "\n"


def _comparison_csv(
    rows: Sequence[_Row], names: Sequence[str], further: Mapping[str, Sequence[int]] = MappingProxyType({})
) -> str:
    """The numbers of all rows; ``further`` are columns, a number a row."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [f"{name}{suffix}" for name in names for suffix in ("", "_spread", "_error", "_is_bound")]
    writer.writerow(["model", *further, "seeds", "runs", *columns])
    for number, row in enumerate(rows):
        cells = [(row.means[n], row.spreads[n], row.errors[n], row.bounds[n]) for n in names]
        front = [row.label, *[column[number] for column in further.values()], row.seeds, " ".join(row.runs)]
        writer.writerow([*front, *[cell for four in cells for cell in four]])
    return text.getvalue()


# Files


def _read_text(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing: name the {what} of the run") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text ({error}): name the {what} of the run") from error


def _parse_settings(path: Path, text: str) -> Any:
    try:
        return _plain(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML ({error}): name the configuration of the run") from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise FileExistsError(f"{folder} is a file: name a folder to write") from None


def _write_files(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        with atomic_write(folder / name) as file:
            file.write(content)


def _load_run(folder: Path) -> _Run:
    """Figures and predictions of a run folder, or what is wrong with them and what to do."""
    report = folder if (folder / "metrics.json").is_file() and not (folder / "report").is_dir() else folder / "report"
    path = report / "metrics.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: test the run first (python train.py test --config ...)")
    try:
        document = _checked_document(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged or no report of this version ({error!r}): test the run again") from error
    predictions = Predictions.load(report / "predictions.arrow")
    if len(predictions) != sum(document["jets"].values()) or list(predictions.classes) != document["classes"]:
        raise ValueError(f"{path} and predictions.arrow beside it do not belong together: test the run again")
    return _Run(folder, document, predictions)


def _checked_document(document: dict[str, Any]) -> dict[str, Any]:
    """The document itself if it has all that a comparison reads."""
    if (document["format"], document["version"]) != (FORMAT, VERSION):
        raise ValueError(f"format {document['format']!r} version {document['version']!r}")
    absent = {"title", "classes", "background", "settings"} - set(document)
    if absent or not {"accuracy", "auc"} <= set(document["metrics"]):
        raise KeyError(*sorted(absent or {"metrics.accuracy", "metrics.auc"}))
    numbers = [
        number for figure in document["metrics"].values() for number in (figure["value"], figure["error"] or 0.0)
    ]
    if not all(isinstance(number, int | float) for number in [*numbers, *document["jets"].values()]):
        raise TypeError("a figure or a count is no number")
    return document


def _require_comparable(runs: Sequence[_Run]) -> None:
    """Refuse runs whose figures do not speak of the same jets, and the same run twice."""
    first = runs[0]
    for number, run in enumerate(runs):
        for key in ("classes", "background", "jets"):
            if run.document[key] != first.document[key]:
                raise ValueError(
                    f"{run.folder} and {first.folder} cannot be compared: {key} {run.document[key]} against "
                    f"{first.document[key]}; test both on the same split"
                )
        if _compared_figures(run) != _compared_figures(first):
            raise ValueError(f"{run.folder} and {first.folder} hold different figures: test both again")
        if not _same_jets(run.predictions, first.predictions):
            raise ValueError(f"{run.folder} and {first.folder} were tested on different jets: use the same split")
        for other in runs[:number]:
            if np.array_equal(run.predictions.logits, other.predictions.logits):
                raise ValueError(f"{run.folder} and {other.folder} hold the same predictions: leave one out")


def _compared_figures(run: _Run) -> list[str]:
    return [name for name in run.document["metrics"] if not name.startswith("significance_improvement")]


def _same_jets(one: Predictions, other: Predictions) -> bool:
    orders = [np.lexsort((each.label, each.index)) for each in (one, other)]
    return all(
        np.array_equal(getattr(one, name)[orders[0]], getattr(other, name)[orders[1]]) for name in ("index", "label")
    )


def _group_by_training(runs: Sequence[_Run]) -> dict[str, list[_Run]]:
    """Seeds of one training under its title; trainings of one title are told apart by their runs' names."""
    groups: dict[tuple[str, str], list[_Run]] = {}
    for run in runs:
        settings = json.dumps(_without_seed(run.document["settings"]), sort_keys=True)
        groups.setdefault((run.document["title"], settings), []).append(run)
    titles = [title for title, _ in groups]
    return {
        title if titles.count(title) == 1 else f"{title} ({', '.join(run.name for run in members)})": members
        for (title, _), members in groups.items()
    }


def _without_seed(settings: Any) -> Any:
    if isinstance(settings, dict):
        return {key: _without_seed(value) for key, value in settings.items() if key not in SEED_SETTINGS}
    return [_without_seed(value) for value in settings] if isinstance(settings, list) else settings


# Pictures


def _pictures(
    predictions: Predictions, title: str, background: int, history: Path | None
) -> dict[str, dict[str, bytes]]:
    """Every picture of a report, as PNG and PDF."""
    curves = _curves(predictions, background)
    heading = (title, f"{len(predictions):,} test jets")
    drawings: dict[str, Callable[[Figure], None]] = {
        "rejection": lambda figure: _draw_rejection(figure, curves, heading),
        "roc": lambda figure: _draw_roc(figure, curves, heading),
        "significance_improvement": lambda figure: _draw_significance_improvement(figure, curves, heading),
        "scores": lambda figure: _draw_scores(figure, predictions, background, heading),
    }
    if len(predictions.classes) > 2:
        drawings["confusion"] = lambda figure: _draw_confusion(figure, predictions, heading)
    elif predictions.sources:
        drawings["scores_by_source"] = lambda figure: _draw_scores_by_source(figure, predictions, background, heading)
    logged = {} if history is None else _read_history(history)
    if logged:
        drawings["training"] = lambda figure: _draw_training(figure, logged, title)
    return {name: render(draw) for name, draw in drawings.items()}


def _draw_rejection(figure: "Figure", curves: dict[str, RocCurve], heading: tuple[str, str]) -> None:
    axes = labelled_axes(
        figure, heading, r"Signal efficiency $\varepsilon_S$", r"Background rejection $1/\varepsilon_B$"
    )
    for colour, (name, curve) in coloured(curves):
        scan = _Scan.of(curve)
        _draw_with_band(axes, scan, scan.value, scan.lower, scan.upper, colour, _curve_label(name, curve))
        for efficiency in SIGNAL_EFFICIENCIES:
            point = curve.background_rejection(efficiency)
            # An arrow upwards stands for a lower bound.
            upper = 1.5 * point.value if point.is_bound else point.upper
            bars = [[point.value - point.lower], [upper - point.value]]
            axes.errorbar([efficiency], [point.value], bars, lolims=point.is_bound, fmt="o", color=colour, capsize=5)
    _scale_rejection(axes)
    add_legend(axes, "lower left", INTERVAL_NOTE)


def _draw_roc(figure: "Figure", curves: dict[str, RocCurve], heading: tuple[str, str]) -> None:
    axes = labelled_axes(
        figure, heading, r"Background efficiency $\varepsilon_B$", r"Signal efficiency $\varepsilon_S$"
    )
    for colour, (name, curve) in coloured(curves):
        scan = _Scan.of(curve)
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
        scan = _Scan.of(curve).where_passed(MINIMUM_PASS)
        edges = [scan.efficiency * np.sqrt(edge) for edge in (scan.value, scan.lower, scan.upper)]
        label = name
        if _effective_background(curve) >= MINIMUM_PASS:
            best = significance_improvement(curve)
            axes.errorbar([best.signal_efficiency], [best.value], [best.error], fmt="*", ms=16, c=colour)
            label += f": maximum {rounded(best.value, best.error)}"
        _draw_with_band(axes, scan, *edges, colour, label)
    axes.axhline(1, color="grey", linestyle="--", linewidth=1.5)
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    add_legend(axes, "best", INTERVAL_NOTE)


def _draw_scores(figure: "Figure", predictions: Predictions, background: int, heading: tuple[str, str]) -> None:
    """One pair: a colour a class. Several pairs: a colour a pair, with its background dashed."""
    other = predictions.classes[background]
    signals = [name for name in predictions.classes if name != other]
    axes = labelled_axes(figure, heading, f"Score: log-odds against {other}", "Jets per bin, each class normalised")
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
    """Two classes that were put together of several: a colour a source, signal first."""
    signal = 1 - background
    other = predictions.classes[background]
    axes = labelled_axes(figure, heading, f"Score: log-odds against {other}", "Jets per bin, each source normalised")
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


def _draw_confusion(figure: "Figure", predictions: Predictions, heading: tuple[str, str]) -> None:
    """Rows are the classes, or what they were put together of; columns the class of the largest logit."""
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
    labels = [f"{name}\n{count:,}" for name, count in _count(truth, names).items()]
    axes.set_yticks(range(len(names)), labels)
    axes.set_xticks(range(len(predictions.classes)), predictions.classes)
    if len(predictions.classes) > 6:
        axes.tick_params(axis="x", rotation=45)
    for (row, column), share in np.ndenumerate(shares):
        colour = "white" if share > 0.5 else "black"
        text = "" if np.isnan(share) else f"{share:.2f}"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize="small")


def _draw_training(figure: "Figure", logged: dict[str, np.ndarray], title: str) -> None:
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
        if len(panel) > 1:
            axes.legend(loc="best")
    shared[0].set_title(title, loc="left", fontsize="small")
    shared[-1].set_xlabel(axis)
    shared[-1].set_xlim(left=0)
    shared[-1].xaxis.get_major_locator().set_params(integer=True)


def _draw_comparison(figure: "Figure", groups: dict[str, list[_Run]]) -> None:
    run = next(iter(groups.values()))[0]
    heading = (f"{run.document['background']} rejection", f"{len(run.predictions):,} test jets")
    axes = labelled_axes(
        figure, heading, r"Signal efficiency $\varepsilon_S$", r"Background rejection $1/\varepsilon_B$"
    )
    background = run.document["classes"].index(run.document["background"])
    for colour, (label, members) in coloured(groups):
        by_run = [_curves(member.predictions, background) for member in members]
        seeds = f", {len(members)} seeds" if len(members) > 1 else ""
        for number, name in enumerate(by_run[0]):
            scan = _Scan.over_seeds([_Scan.of(curves[name]) for curves in by_run])
            signal = f", {name}" if len(by_run[0]) > 1 else ""
            style = ("-", "--", "-.", ":")[number % 4]
            axes.plot(scan.efficiency, scan.value, color=colour, linestyle=style, label=label + signal + seeds)
            axes.fill_between(scan.efficiency, scan.lower, scan.upper, color=colour, alpha=0.3, linewidth=0)
    _scale_rejection(axes)
    sizes = [len(members) for members in groups.values()]
    notes = ["standard deviation over seeds"] * (max(sizes) > 1) + [INTERVAL_NOTE] * (min(sizes) == 1)
    add_legend(axes, "lower left", " or ".join(notes))


def _draw_label_counts(figure: "Figure", rows: Mapping[tuple[str, int], _Row], heading: str) -> None:
    axes = labelled_axes(figure, ("Label efficiency", heading), "Labelled training jets", "AUC")
    for colour, (name, points) in coloured({name: [r for r in rows.items() if r[0][0] == name] for name, _ in rows}):
        counts, means = zip(*((count, row.means["auc"]) for (_, count), row in points), strict=True)
        bars = [(row.errors if row.seeds == 1 else row.spreads)["auc"] or 0.0 for _, row in points]
        axes.errorbar(counts, means, bars, fmt="o-", color=colour, capsize=5, label=name)
    axes.set_xscale("log")
    ticks = sorted({count for _, count in rows})
    axes.set_xticks(ticks, labels=[f"{count:,}" for count in ticks])
    axes.minorticks_off()
    seeds = {row.seeds for row in rows.values()}
    notes = ["standard deviation over seeds"] * (max(seeds) > 1) + ["error of the test jets"] * (min(seeds) == 1)
    axes.legend(loc="best", title=f"bars: {' or '.join(notes)}", title_fontsize="x-small")


@dataclasses.dataclass(frozen=True, eq=False)
class _Scan:
    """Background rejection with its interval over signal efficiencies, as long as any background passes."""

    efficiency: np.ndarray
    value: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    n_pass: np.ndarray

    @classmethod
    def of(cls, curve: RocCurve) -> "_Scan":
        efficiencies = np.arange(1, 501) / 500
        points = [curve.background_rejection(float(efficiency)) for efficiency in efficiencies]
        columns = np.array([(p.value, p.lower, p.upper, p.n_pass) for p in points]).T
        return cls(efficiencies, *columns)._at(columns[3] > 0)

    @classmethod
    def over_seeds(cls, scans: Sequence["_Scan"]) -> "_Scan":
        """Mean and standard deviation where enough background passes in all; the scan itself of a single seed."""
        scans = [scan.where_passed(FEW_JETS) for scan in scans]
        if len(scans) == 1:
            return scans[0]
        common = functools.reduce(np.intersect1d, [scan.efficiency for scan in scans])
        scans = [scan._at(np.isin(scan.efficiency, common)) for scan in scans]
        values = np.array([scan.value for scan in scans])
        mean, spread = values.mean(axis=0), values.std(axis=0, ddof=1)
        return cls(common, mean, mean - spread, mean + spread, np.min([scan.n_pass for scan in scans], axis=0))

    def where_passed(self, minimum: float) -> "_Scan":
        return self._at(self.n_pass >= minimum)

    def _at(self, chosen: np.ndarray) -> "_Scan":
        return _Scan(*(getattr(self, field.name)[chosen] for field in dataclasses.fields(self)))


def _score_edges(score: np.ndarray, bins: int) -> np.ndarray:
    """Edges of a histogram of scores, without the outermost thousandth."""
    lowest, highest = np.quantile(score, (0.0005, 0.9995))
    return np.linspace(lowest, highest if highest > lowest else lowest + 1, bins + 1)


def _finish_scores(axes: "Axes", edges: np.ndarray, histograms: int) -> None:
    """Limits with room for the legend of so many histograms, and the legend."""
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, (1 + 0.1 * histograms) * axes.get_ylim()[1])
    add_legend(axes, "upper center", "statistical error")


def _scale_rejection(axes: "Axes") -> None:
    axes.set_yscale("log")
    axes.set_xlim(0, 1)
    axes.set_ylim(1, max(10, 1.3 * axes.get_ylim()[1]))


def _draw_with_band(
    axes: "Axes", scan: _Scan, value: np.ndarray, lower: np.ndarray, upper: np.ndarray, colour: str, label: str
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


def _effective_background(curve: RocCurve) -> float:
    return curve.background_pass[-1].item() ** 2 / curve.background_squares[-1].item()


def _read_history(path: Path) -> dict[str, np.ndarray]:
    """Columns of Lightning's ``metrics.csv`` that the picture shows, each as rows of (step, value)."""
    rows = list(csv.DictReader(io.StringIO(_read_text(path, "metrics.csv"))))
    logged = {}
    for name in ("train_loss_step", "train_loss", "val_loss", "val_auc", "val_probe_auc", "epoch"):
        # A resumed run may log a step twice; the later row stands.
        points = {
            _number(path, n, row, "step"): _number(path, n, row, name) for n, row in enumerate(rows) if row.get(name)
        }
        if points:
            logged[name] = np.array(sorted(points.items()))
    return logged if set(logged) - {"epoch"} else {}


def _number(path: Path, line: int, row: dict[str, str], column: str) -> float:
    try:
        return float(row[column])
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"{path}, line {line + 2}: column {column!r} holds {row.get(column)!r}, no number; give the metrics.csv of "
            "Lightning's CSVLogger or leave the history out"
        ) from None


def _training_axis(logged: dict[str, np.ndarray]) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    """Epochs where the validation came once an epoch of constant length, steps otherwise."""
    validated = logged.get("val_loss", logged.get("val_auc"))
    epochs = dict(map(tuple, logged["epoch"])) if "epoch" in logged else {}
    if validated is not None and all(step in epochs for step in validated[:, 0]):
        lengths = [(step + 1) / (epochs[step] + 1) for step in validated[:, 0]]
        if np.allclose(lengths, lengths[0], rtol=0.01):
            return "Epoch", lambda steps: (steps + 1) / lengths[0]
    return "Training step", lambda steps: steps + 1
