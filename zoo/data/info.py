"""Facts about the data sets, and the contents of a file of jets: classes, columns, and anything odd."""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Column, Table

from zoo.data.datasets import DATASETS, resolve_file
from zoo.data.description import Description, read_description
from zoo.data.oddities import find_oddities
from zoo.data.read_report import ReadReport
from zoo.data.source import open_source
from zoo.data.store import JetTable
from zoo.physics.quantities import unit_of

#: Data sets whose impact parameters are documented to be in mm; those of other files may be in another unit.
_IN_MILLIMETRES = ("jetclass", "jetclass2")

#: Largest number of classes that are named.
MANY = 10

QUANTILES = (0.0, 0.01, 0.5, 0.99, 1.0)


@dataclasses.dataclass(frozen=True)
class ColumnInfo:
    """Smallest value, median and largest value of a column.

    Args:
        name: name of the column in the table.
        unit: GeV, rad, mm, or empty.
        smallest: smallest value.
        median: median.
        largest: largest value.
    """

    name: str
    unit: str
    smallest: float
    median: float
    largest: float


@dataclasses.dataclass(frozen=True)
class FileInfo:
    """The contents of a file; all but ``rows`` refers to the rows that were read, without the jets left out.

    Args:
        format: name of the format.
        rows: number of rows of the file.
        report: what became of the rows that were read.
        dataset: name of the data set.
        jets: number of jets of each class.
        unlabelled: number of jets whose class is not known.
        particles: number of particles per jet at the `QUANTILES`.
        columns: all columns, those of the particles first.
        oddities: anything that deserves a look, in words.
    """

    format: str
    rows: int
    report: ReadReport
    dataset: str
    jets: dict[str, int]
    unlabelled: int
    particles: tuple[float, ...]
    columns: tuple[ColumnInfo, ...]
    oddities: tuple[str, ...]


def describe_file(
    path: str | Path,
    layout: str | Path | Description | None = None,
    max_rows: int = 100_000,
) -> FileInfo:
    """Read a file, or its first rows, and say what it holds.

    Args:
        path: file, or the name of a packaged sample.
        layout: what describes it, see `zoo.data.description`, or the YAML file of a layout, with or without classes.
        max_rows: largest number of rows to read.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read, see `zoo.data.readers.read_jets`.
    """
    if max_rows < 1:
        raise ValueError(f"jets: must be at least 1, not {max_rows}")
    path = resolve_file(path)
    described = read_description(layout, labelled=False) if isinstance(layout, str | Path) else layout
    with open_source(path, described, labelled=False, verify=True) as source:
        rows, kind = len(source), source.format
        table, report = source.read((0, min(rows, max_rows)))
    dataset = str(table.metadata.get("dataset", "unknown"))
    classes = table.metadata.get("classes") or [str(label) for label in range(table.label.max() + 1)]
    known = table.label[table.label >= 0]
    unlabelled = len(table) - len(known)
    jets = dict(zip(classes, np.bincount(known, minlength=len(classes)).tolist(), strict=True))
    columns = tuple(_describe_columns(table))
    oddities = (*_find_losses(report), *_check_sum(path, dataset), *_odd_classes(jets), *find_oddities(table))
    particles = tuple(np.quantile(table.counts, QUANTILES).tolist())
    return FileInfo(kind, rows, report, dataset, jets, unlabelled, particles, columns, oddities)


def _describe_columns(table: JetTable) -> Iterator[ColumnInfo]:
    has_lengths = table.metadata.get("dataset") in _IN_MILLIMETRES
    for name, values in (table.particles | table.fields | {"weight": table.weight}).items():
        smallest, median, largest = np.quantile(values, [0, 0.5, 1]).tolist()
        unit = unit_of(name)
        yield ColumnInfo(name, unit if unit != "mm" or has_lengths else "", smallest, median, largest)


def _find_losses(report: ReadReport) -> Iterator[str]:
    if report.left_out:
        yield f"{report.left_out} of {report.rows} jets ({100 * report.left_out / report.rows:.2g} %) were left out"


def _check_sum(path: Path, dataset: str) -> Iterator[str]:
    files = DATASETS[dataset].files if dataset in DATASETS else ()
    published = next((file.md5 for file in files if file.name == path.name), None)
    if published is not None:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
        if found != published:
            yield f"the MD5 sum is {found}, that of the published {path.name} is {published}"


def _odd_classes(jets: dict[str, int]) -> Iterator[str]:
    there = [name for name, count in jets.items() if count]
    if len(there) == 1:
        yield f"all jets are of the class {there[0]!r}; a training needs files of the others too"
    elif there and len(there) < len(jets):
        yield f"no jet is of the class {_some([name for name, count in jets.items() if not count])}"


def _some(names: Sequence[str]) -> str:
    """The first `MANY` names, joined."""
    return ", ".join(names[:MANY]) + (f" and {len(names) - MANY} more" if len(names) > MANY else "")


def show_datasets(console: Console | None = None) -> None:
    """Print a table of the data sets."""
    table = Table("data set", "classes", "unit", "jets", Column("source", overflow="fold"), "licence")
    for facts in DATASETS.values():
        jets = f"{sum(count for _, count in facts.jets):,}" if facts.jets else ""
        classes = f"{len(facts.classes)}: {_some(facts.classes)}"
        table.add_row(facts.name, classes, facts.file_units, jets, f"{facts.source}\n{facts.citation}", facts.licence)
    (console or Console()).print(table)


def show_file(
    path: str | Path,
    layout: str | Path | Description | None = None,
    max_rows: int = 100_000,
    console: Console | None = None,
) -> None:
    """Print what a file holds; the arguments are those of `describe_file`."""
    info = describe_file(path, layout, max_rows)
    console = console or Console()
    table = Table("column", "unit", "smallest", "median", "largest")
    for column in info.columns:
        numbers = (f"{value:.5g}" for value in (column.smallest, column.median, column.largest))
        table.add_row(column.name, column.unit, *numbers)
    for line in _lines(info):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(table)
    for oddity in info.oddities:
        console.print(f"odd: {oddity}", markup=False, highlight=False, soft_wrap=True)
    if not info.oddities:
        console.print("nothing odd was found")


def _lines(info: FileInfo) -> Iterator[str]:
    some = "" if info.report.rows == info.rows else f", of which the first {info.report.rows:,} were read"
    yield f"{info.report.path}: {info.format}, data set {info.dataset}, {info.rows:,} rows{some}"
    yield from (f"left out: {reason}" for reason in info.report.reasons())
    yield from (f"mended: {mending}" for mending in info.report.mendings())
    unlabelled = [f"{info.unlabelled:,} of a class that is not known"] if info.unlabelled else []
    yield "jets: " + _some([f"{count:,} {name}" for name, count in info.jets.items() if count] + unlabelled)
    levels = zip(QUANTILES, info.particles, strict=True)
    yield "particles of a jet: " + ", ".join(f"{count:g} ({level:.0%})" for level, count in levels)
