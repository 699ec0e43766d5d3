"""Several runs in one table and one plot."""

import csv
import dataclasses
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import rich.box
from rich.console import Console
from rich.table import Table

from zoo.files import require_output, write_together
from zoo.limits import parse_json
from zoo.old_configs import renew_settings
from zoo.report.answers import Answers
from zoo.report.classification import FORMAT
from zoo.report.drawings import INTERVAL_NOTE, Scan, scale_rejection
from zoo.report.figures import FEW_JETS, curves_of
from zoo.report.files import make_folder
from zoo.report.pictures import SIGNAL_COLOURS, add_legend, coloured, labelled_axes, render
from zoo.report.predictions import Predictions
from zoo.report.tables import for_terminal, label_of, markdown_table, rounded
from zoo.report.writing import TASK_FORMATS, VERSION

if TYPE_CHECKING:
    from matplotlib.figure import Figure


#: Settings in which the seeds of one training may differ: the seed, where data are read, logged or written, and what
#: the test quotes.
SEED_SETTINGS = {
    "seed", "seed_everything", "run_folder", "predictions", "wandb", "test_after_fit", "default_root_dir",
    "ckpt_path", "logger", "dirpath", "enable_progress_bar", "num_workers", "signal_efficiencies",
}  # fmt: skip

#: Columns of predictions that belong to the jets and are not predicted.
_OF_JETS = ("index", "label")

#: Line styles of the signals of one run, and of runs if there are more of them than colours.
LINE_STYLES = ("-", "--", "-.", ":")
SPREAD_NOTE = "± is the standard deviation over the seeds; with one seed, the statistical error of the judged sample."
BOUND_NOTE = f"{SPREAD_NOTE} '>' marks a lower bound: in a run no background passed."


def compare_runs(runs: Sequence[Path], out: Path, *, force: bool = False) -> None:
    """Put several tested runs in one table and one plot, seeds of the same training as mean and spread.

    Runs belong together if their titles and settings agree in all but the seed. Writes ``comparison.md``,
    ``comparison.csv`` and, for classification, ``comparison.png`` and ``comparison.pdf``, and prints the table.

    Args:
        runs: run folders that hold a ``report/`` (or report folders).
        out: folder to write.
        force: whether an older comparison there is replaced.

    Raises:
        FileNotFoundError: if a run lacks its report.
        FileExistsError: if there is a comparison already and ``force`` was not given.
        ValueError: if a report is damaged, two are the same, or they are about different tasks, classes or jets.
    """
    if not runs:
        raise ValueError("no runs to compare: name at least one run folder")
    reports = [_report_folder(Path(run)) / name for run in runs for name in ("metrics.json", "predictions.arrow")]
    for kind in ("csv", "md", "png", "pdf"):
        require_output(Path(out) / f"comparison.{kind}", reports, force=force)
    loaded = [_load_run(Path(run)) for run in runs]
    _require_comparable(loaded)
    groups = _group_by_training(loaded)
    names = _compared_figures(loaded[0])
    rows = [_Row.of(label, members, names) for label, members in groups.items()]
    tested, has_picture = loaded[0].tested, loaded[0].is_of_classes
    picture = render(lambda figure: _draw_comparison(figure, groups)) if has_picture else {}
    files = {f"comparison.{kind}": content for kind, content in picture.items()}
    files["comparison.csv"] = _comparison_csv(rows, names).encode()
    files["comparison.md"] = _comparison_page(rows, names, tested, has_picture=has_picture).encode()
    make_folder(Path(out))
    write_together(Path(out), files)
    if has_picture:
        _print_comparison(rows, names, tested)
    else:
        _print_metrics(rows, names, tested)
    print(f"{'Table and picture' if has_picture else 'Table'}: {out}")


def compare_label_counts(trainings: Mapping[str, Mapping[int, Sequence[Path]]], out: Path) -> None:
    """Put trainings on few and many labelled jets in one table and one plot, seeds as mean and spread.

    Writes ``label_efficiency.md``, ``.csv``, ``.png`` and ``.pdf``, and prints the table.

    Args:
        trainings: run folders by the name of the training, such as ``scratch``, and the number of labelled jets.
        out: folder to write.

    Raises:
        FileNotFoundError: if a run lacks its report.
        ValueError: if a report is damaged, two are the same, or they are about different classes or jets.
    """
    loaded = {
        (name, count): [_load_run(Path(run)) for run in by_count[count]]
        for name, by_count in trainings.items()
        for count in sorted(by_count)
    }
    runs = [run for members in loaded.values() for run in members]
    _require_comparable(runs)
    if not runs[0].is_of_classes:
        raise ValueError(f"{runs[0].folder}: was not trained for classes, and labels are those of classes")
    names, tested = _compared_figures(runs[0]), runs[0].tested
    rows = {key: _Row.of(f"{key[0]}, {key[1]:,} labels", members, names) for key, members in loaded.items()}
    picture = render(lambda figure: _draw_label_counts(figure, rows, runs[0]))
    files = {f"label_efficiency.{kind}": content for kind, content in picture.items()}
    counts = [count for _, count in rows]
    files["label_efficiency.csv"] = _comparison_csv(list(rows.values()), names, {"labels": counts}).encode()
    files["label_efficiency.md"] = _label_counts_page(rows, names, tested).encode()
    make_folder(Path(out))
    write_together(Path(out), files)
    _print_comparison(list(rows.values()), names, tested)
    print(f"Table and picture: {out}")


@dataclasses.dataclass(frozen=True, eq=False)
class _Run:
    """A tested run: its folder, its metrics, and its predictions, which a pretraining does not store."""

    folder: Path
    document: dict[str, Any]
    predictions: Predictions | Answers | None

    @property
    def is_of_classes(self) -> bool:
        return self.document["format"] == FORMAT

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def rows(self) -> str:
        return self.document.get("rows", "jets")

    @property
    def tested(self) -> str:
        jets, split = self.document["jets"], self.document.get("split", "test" if self.is_of_classes else "validation")
        return f"{sum(jets.values()) if self.is_of_classes else jets:,} {split} {self.rows}"

    @property
    def jets(self) -> dict[str, np.ndarray]:
        """What identifies the judged jets: row numbers, labels and true values, in the order of the rows."""
        if isinstance(self.predictions, Predictions):
            columns = {"index": self.predictions.index, "label": self.predictions.label}
        else:
            found = {} if self.predictions is None else self.predictions.columns
            columns = {name: values for name, values in found.items() if name in _OF_JETS or name.endswith("_true")}
        order = np.lexsort([*columns.values()][::-1]) if columns else ()
        return {name: values[order] for name, values in columns.items()}

    def says_the_same(self, other: "_Run") -> bool:
        """Whether its logits equal those of another run; or its metrics, for a task without logits."""
        if isinstance(self.predictions, Predictions) and isinstance(other.predictions, Predictions):
            return np.array_equal(self.predictions.logits, other.predictions.logits)
        return self.document["metrics"] == other.document["metrics"]


@dataclasses.dataclass(frozen=True)
class _Row:
    """One training in the table of a comparison: the mean, spread, statistical error and text of each metric."""

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


def _print_comparison(rows: Sequence[_Row], names: Sequence[str], tested: str) -> None:
    """Print the table; the rejections of many classes appear in the file only."""
    console = Console()
    shown = [name for name in names if not label_of(name).endswith(")")]  # a class in brackets: one of many
    title, note = (for_terminal(text, console) for text in (f"Tested on the same {tested}", BOUND_NOTE))
    texts = [[for_terminal(row.texts[name], console) for name in shown] for row in rows]
    headings = [label_of(name).replace(" at ", "\n") for name in shown]
    columns = zip(*texts, strict=True)
    widths = [max(map(len, [*heading.split("\n"), *column])) for heading, column in zip(headings, columns, strict=True)]
    table = Table(title=title, title_justify="left", box=rich.box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    # Names wrap before any number does.
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


def _print_metrics(rows: Sequence[_Row], names: Sequence[str], tested: str) -> None:
    """Print the table of a task with its own metrics, one line per metric and one column per training."""
    console = Console()
    table = Table(title=f"Judged on the same {tested}", title_justify="left", box=rich.box.SIMPLE_HEAD, show_edge=False)
    table.add_column("metric", no_wrap=True)
    for row in rows:
        seeds = f"{row.seeds} seed{'s' if row.seeds > 1 else ''}"
        table.add_column(f"{row.label}\n{seeds}", justify="right", overflow="fold")
    for name in names:
        table.add_row(name, *(for_terminal(row.texts[name], console) for row in rows))
    console.print(table)
    console.print(for_terminal(SPREAD_NOTE, console))


def _comparison_page(rows: Sequence[_Row], names: Sequence[str], tested: str, *, has_picture: bool) -> str:
    table = [[row.label, row.seeds, *row.texts.values(), ", ".join(row.runs)] for row in rows]
    parts = [
        "# Comparison of runs",
        f"All judged on the same {tested}.",
        markdown_table(["model", "seeds", *map(label_of, names), "runs"], table),
        BOUND_NOTE if has_picture else SPREAD_NOTE,
    ]
    of_picture = [
        "![Background rejection against signal efficiency](comparison.png)",
        "Line: mean over the seeds. Band: standard deviation over the seeds, or the Clopper-Pearson interval (68.3 %) "
        f"of a single run. Curves are drawn where {FEW_JETS} of the background or more pass in every seed.",
    ]
    return "\n\n".join(parts + of_picture * has_picture) + "\n"


def _label_counts_page(rows: Mapping[tuple[str, int], _Row], names: Sequence[str], tested: str) -> str:
    table = [
        [name, f"{count:,}", row.seeds, *row.texts.values(), ", ".join(row.runs)] for (name, count), row in rows.items()
    ]
    parts = [
        "# Label efficiency",
        f"All judged on the same {tested}.",
        markdown_table(["training", "labels", "seeds", *map(label_of, names), "runs"], table),
        BOUND_NOTE,
        "![AUC against the number of labels](label_efficiency.png)",
    ]
    return "\n\n".join(parts) + "\n"


def _comparison_csv(
    rows: Sequence[_Row], names: Sequence[str], further: Mapping[str, Sequence[int]] = MappingProxyType({})
) -> str:
    """The numbers of all rows; ``further`` are columns with one number per row."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [f"{name}{suffix}" for name in names for suffix in ("", "_spread", "_error", "_is_bound")]
    writer.writerow(["model", *further, "seeds", "runs", *columns])
    for number, row in enumerate(rows):
        cells = [(row.means[n], row.spreads[n], row.errors[n], row.bounds[n]) for n in names]
        front = [row.label, *[column[number] for column in further.values()], row.seeds, " ".join(row.runs)]
        writer.writerow([*front, *[cell for four in cells for cell in four]])
    return text.getvalue()


def _draw_comparison(figure: "Figure", groups: dict[str, list[_Run]]) -> None:
    run = next(iter(groups.values()))[0]
    heading = (f"{run.document['background']} rejection", run.tested)
    axes = labelled_axes(
        figure, heading, r"Signal efficiency $\varepsilon_S$", r"Background rejection $1/\varepsilon_B$"
    )
    background = run.document["classes"].index(run.document["background"])
    for position, (colour, (label, members)) in enumerate(coloured(groups)):
        by_run = [curves_of(member.predictions, background) for member in members]
        seeds = f", {len(members)} seeds" if len(members) > 1 else ""
        for number, name in enumerate(by_run[0]):
            scan = Scan.over_seeds([Scan.of(curves[name]) for curves in by_run])
            signal = f", {name}" if len(by_run[0]) > 1 else ""
            style = LINE_STYLES[(number + position // len(SIGNAL_COLOURS)) % len(LINE_STYLES)]
            axes.plot(scan.efficiency, scan.value, color=colour, linestyle=style, label=label + signal + seeds)
            axes.fill_between(scan.efficiency, scan.lower, scan.upper, color=colour, alpha=0.3, linewidth=0)
    scale_rejection(axes)
    sizes = [len(members) for members in groups.values()]
    notes = ["standard deviation over seeds"] * (max(sizes) > 1) + [INTERVAL_NOTE] * (min(sizes) == 1)
    add_legend(axes, "lower left", " or ".join(notes))


def _draw_label_counts(figure: "Figure", rows: Mapping[tuple[str, int], _Row], run: _Run) -> None:
    axes = labelled_axes(figure, ("Label efficiency", run.tested), f"Labelled training {run.rows}", "AUC")
    for colour, (name, points) in coloured({name: [r for r in rows.items() if r[0][0] == name] for name, _ in rows}):
        counts, means = zip(*((count, row.means["auc"]) for (_, count), row in points), strict=True)
        bars = [(row.errors if row.seeds == 1 else row.spreads)["auc"] or 0.0 for _, row in points]
        axes.errorbar(counts, means, bars, fmt="o-", color=colour, capsize=5, label=name)
    axes.set_xscale("log")
    ticks = sorted({count for _, count in rows})
    axes.set_xticks(ticks, labels=[f"{count:,}" for count in ticks])
    axes.minorticks_off()
    seeds = {row.seeds for row in rows.values()}
    notes = ["standard deviation over seeds"] * (max(seeds) > 1) + ["error of the test sample"] * (min(seeds) == 1)
    axes.legend(loc="best", title=f"bars: {' or '.join(notes)}", title_fontsize="x-small")


def _load_run(folder: Path) -> _Run:
    """Metrics and predictions of a run folder, or an error that says what is wrong and what to do."""
    report = _report_folder(folder)
    path = report / "metrics.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: test the run first (zoo test --run-folder {folder})")
    try:
        document = _checked_document(parse_json(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged or no report of this version ({error!r}): test the run again") from error
    stored = report / "predictions.arrow"
    if document["format"] != FORMAT:
        return _Run(folder, document, Answers.load(stored) if stored.is_file() else None)
    predictions = Predictions.load(stored)
    if len(predictions) != sum(document["jets"].values()) or list(predictions.classes) != document["classes"]:
        raise ValueError(f"{path} and predictions.arrow beside it do not belong together: test the run again")
    return _Run(folder, document, predictions)


def _report_folder(folder: Path) -> Path:
    """The report of a run folder, or the folder itself if it is a report."""
    return folder if (folder / "metrics.json").is_file() and not (folder / "report").is_dir() else folder / "report"


def _checked_document(document: dict[str, Any]) -> dict[str, Any]:
    """The document, if it has all that a comparison reads."""
    if document["format"] not in (FORMAT, *TASK_FORMATS) or document["version"] != VERSION:
        raise ValueError(f"format {document['format']!r} version {document['version']!r}")
    is_of_classes = document["format"] == FORMAT
    needed, metrics = {"title", "settings"}, set()
    if is_of_classes:
        needed, metrics = needed | {"classes", "background"}, {"accuracy", "auc"}
    absent = needed - set(document)
    if absent or not metrics <= set(document["metrics"]):
        raise KeyError(*sorted(absent or {"metrics.accuracy", "metrics.auc"}))
    numbers = [
        number for figure in document["metrics"].values() for number in (figure["value"], figure["error"] or 0.0)
    ]
    counts = document["jets"].values() if is_of_classes else [document["jets"]]
    if not all(isinstance(number, int | float) for number in [*numbers, *counts]):
        raise TypeError("a metric or a count is no number")
    return document


def _require_comparable(runs: Sequence[_Run]) -> None:
    """Refuse runs whose metrics are not about the same jets, and the same run twice."""
    first = runs[0]
    for number, run in enumerate(runs):
        ours, theirs = ([each.document.get(key) for key in ("format", "task")] for each in (run, first))
        if ours != theirs:
            raise ValueError(
                f"{run.folder} and {first.folder} cannot be compared: they were trained for different tasks; give the "
                "runs of each task a table of their own"
            )
        for key in ("classes", "background", "split", "jets"):
            ours, theirs = (each.document.get(key) for each in (run, first))
            if ours != theirs:
                raise ValueError(
                    f"{run.folder} and {first.folder} cannot be compared: {key} {ours} against {theirs}; test both on "
                    "the same split"
                )
        if _compared_figures(run) != _compared_figures(first):
            raise ValueError(f"{run.folder} and {first.folder} hold different metrics: test both again")
        if not _same_jets(run.jets, first.jets):
            raise ValueError(f"{run.folder} and {first.folder} were tested on different jets: use the same split")
        for other in runs[:number]:
            if run.says_the_same(other):
                raise ValueError(f"{run.folder} and {other.folder} hold the same predictions: leave one out")


def _compared_figures(run: _Run) -> list[str]:
    return [name for name in run.document["metrics"] if not name.startswith("significance_improvement")]


def _same_jets(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def _group_by_training(runs: Sequence[_Run]) -> dict[str, list[_Run]]:
    """Seeds of one training under its title; trainings with one title are told apart by what the run names share."""
    groups: dict[tuple[str, str], list[_Run]] = {}
    for run in runs:
        settings = json.dumps(_without_seed(renew_settings(run.document["settings"])), sort_keys=True)
        groups.setdefault((run.document["title"], settings), []).append(run)
    titles = [title for title, _ in groups]
    shared = [_shared_name(members) for members in groups.values()]
    labels = [
        title if titles.count(title) == 1 else f"{title} ({name if shared.count(name) == 1 else _all_names(members)})"
        for (title, _), name, members in zip(groups, shared, groups.values(), strict=True)
    ]
    return dict(zip(labels, groups.values(), strict=True))


def _all_names(members: Sequence[_Run]) -> str:
    return ", ".join(run.name for run in members)


def _shared_name(members: Sequence[_Run]) -> str:
    """The names of the runs without their ``-seed3``, if that leaves one; otherwise all names."""
    without_seeds = {re.sub(r"[-_]seed\d+$", "", run.name) for run in members}
    return without_seeds.pop() if len(without_seeds) == 1 else _all_names(members)


def _without_seed(settings: Any) -> Any:
    if isinstance(settings, dict):
        return {key: _without_seed(value) for key, value in settings.items() if key not in SEED_SETTINGS}
    return [_without_seed(value) for value in settings] if isinstance(settings, list) else settings
