"""Readers: a file of jets in, a `JetTable` out, with every bad jet counted and every bad column named."""

import contextlib
import dataclasses
import functools
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from zoo.data.formats.columns import HDF5_MAGIC, PARQUET_MAGIC, ROOT_MAGIC, Columns, open_columns, open_hdf5_file
from zoo.data.formats.dark_machines import is_dark_machines, open_dark_machines, open_event_lines, with_rounding
from zoo.data.formats.formulas import column_names, with_formulas
from zoo.data.formats.hls4ml import open_hls4ml
from zoo.data.formats.jetclass import open_jetclass_parquet, open_jetclass_root
from zoo.data.formats.jetnet import open_jetnet
from zoo.data.formats.jets_of_events import jets_of_events
from zoo.data.formats.layout import Layout, LayoutFile
from zoo.data.formats.lhc_olympics import find_frame, open_lhc_olympics
from zoo.data.formats.momenta import RAISED_AS_STATED
from zoo.data.formats.quark_gluon import NPZ_MAGIC, open_quark_gluon
from zoo.data.formats.top_tagging import open_top_tagging
from zoo.data.manifest import folder_of, read_manifest
from zoo.data.remote import local_path
from zoo.data.shards import open_shards
from zoo.data.store import (
    ARROW_MAGIC,
    JetTable,
    NoJetsError,
    bad_jets,
    count_jets,
    infinite_columns,
    join_tables,
    open_store,
)
from zoo.data.weaver.data_config import WeaverYaml
from zoo.data.weaver.reader import open_with_weaver

#: What says which columns of a file hold what.
Description = Layout | WeaverYaml

#: Jets read at a time: 200 padded constituents of so many jets take 26 MB.
CHUNK_JETS = 8192


class JetFile(Protocol):
    """An open file of another format, bad jets included."""

    notes: Counter[str]  #: what was done with particles and numbers so far, and how often

    def __len__(self) -> int:
        """Number of rows."""

    def chunks(self, start: int, stop: int, size: int) -> Iterator[JetTable]:
        """The rows ``start`` to ``stop`` in order, at most ``size`` at a time."""


class Format(NamedTuple):
    """A kind of file and what opens it, by its path and whether it must be ``labelled``, see `find_format`."""

    name: str
    open: Callable[..., AbstractContextManager[JetFile]]


#: The kind of a file by its first bytes; HDF5 and text need a closer look.
_FORMATS = {
    ROOT_MAGIC: Format("JetClass or JetClass-II, ROOT", open_jetclass_root),
    PARQUET_MAGIC: Format("JetClass or JetClass-II, parquet", open_jetclass_parquet),
    NPZ_MAGIC: Format("quark and gluon jets of EnergyFlow, NumPy archive", open_quark_gluon),
}

#: The kind of an HDF5 file by a member that no other kind has.
_HDF5_FORMATS = {
    "table/table": Format("Top Tagging Reference, HDF5", open_top_tagging),
    "jetConstituentList": Format("hls4ml LHC jets, HDF5", open_hls4ml),
    "particle_features": Format("JetNet, HDF5", open_jetnet),
}
_LHC_OLYMPICS = Format("LHC Olympics 2020, HDF5", open_lhc_olympics)
_DARK_MACHINES = Format("DarkMachines events, text", open_dark_machines)

#: The zoo's own file, which `zoo.data.store` opens.
STORE = "jets of the zoo, Arrow"

#: So much of a file is looked at to tell its kind.
_START_BYTES = 4096


@dataclasses.dataclass(frozen=True)
class ReadReport:
    """What became of the rows of a file.

    Args:
        path: the file.
        rows: number of rows read.
        rejected: number of jets left out, by the reasons of `zoo.data.store.bad_jets`.
        mended: number of particles or numbers that were dropped or changed, by what was done.
        infinite: number of jets left out for a number that is not finite, by its column.
    """

    path: Path
    rows: int
    rejected: Mapping[str, int]
    mended: Mapping[str, int] = dataclasses.field(default_factory=dict)
    infinite: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def left_out(self) -> int:
        """Number of jets left out."""
        return sum(self.rejected.values())

    def __add__(self, other: "ReadReport") -> "ReadReport":
        """The report of these rows and of others."""
        counts = (
            {key: one.get(key, 0) + two.get(key, 0) for key in {**one, **two}}
            for one, two in (
                (self.rejected, other.rejected),
                (self.mended, other.mended),
                (self.infinite, other.infinite),
            )
        )
        return ReadReport(self.path, self.rows + other.rows, *counts)

    def reasons(self) -> Iterator[str]:
        """Number and reason of the jets left out, a line for each reason there is."""
        columns = ", ".join(f"{name} in {count}" for name, count in self.infinite.items())
        for reason, count in self.rejected.items():
            if count:
                yield f"{count} {reason}" + (f" ({columns})" if columns and reason == "not finite" else "")

    def mendings(self) -> Iterator[str]:
        """Number of particles or numbers, and what was done with them, a line for each kind there is."""
        return (f"{count} {what}" for what, count in self.mended.items() if count)

    def __str__(self) -> str:
        return f"{self.path}: left out {self.left_out} of {self.rows} jets: {', '.join(self.reasons())}"


class RejectedJetsWarning(UserWarning):
    """Some jets of a file were left out; its argument is a `ReadReport`."""


class MendedWarning(UserWarning):
    """Some particles or numbers of a file were dropped or changed as it was read; its argument is a `ReadReport`."""

    def __str__(self) -> str:
        (report,) = self.args
        return f"{report.path}: {'; '.join(report.mendings())}"


def warn_of(report: ReadReport, stacklevel: int = 1) -> None:
    """Warn of what was left out and of what was mended, if anything was; what a layout or format states is no news."""
    if report.left_out:
        warnings.warn(RejectedJetsWarning(report), stacklevel=stacklevel + 1)
    if any(count for what, count in report.mended.items() if what != RAISED_AS_STATED):
        warnings.warn(MendedWarning(report), stacklevel=stacklevel + 1)


def read_jets(
    path: str | Path,
    rows: tuple[int, int] | None = None,
    layout: Description | None = None,
    *,
    labelled: bool = True,
) -> JetTable:
    """Read jets from a file of any known format, whichever it is by its content.

    The formats are the zoo's own file, a folder that `zoo convert` wrote (to leave it on the disk: `open_tables`), and
    those of `known_formats`. Jets that `zoo.data.store.bad_jets` names are left out with a `RejectedJetsWarning`;
    ``source_rows`` of the table keeps the row in the file of each jet that stays. What is mended, such as padding in
    lists and what rounding made impossible, is counted in a `MendedWarning`.

    Args:
        path: file or converted folder.
        rows: first row and the row after the last; None reads all.
        layout: which columns of a ROOT, parquet or HDF5 file, or of events in text, hold what; see
            `zoo.data.formats.layout_yaml.read_layout` and `zoo.data.weaver.data_config.read_weaver_yaml`. The zoo's own
            file says that itself.
        labelled: whether the file must tell the class of each jet; else it is -1 where it does not.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the format is unknown, the file is damaged, or a column is missing or holds something else than
            it should; the message names the file, the field and the remedy.
        NoJetsError: if no good jet is left.
    """
    table, report = read_and_report(path, rows, layout, labelled=labelled)
    warn_of(report, stacklevel=2)
    return table


def read_and_report(
    path: str | Path,
    rows: tuple[int, int] | None = None,
    layout: Description | None = None,
    *,
    labelled: bool = True,
) -> tuple[JetTable, ReadReport]:
    """The same as `read_jets`, with the report instead of a warning."""
    path = local_path(path)
    if folder := folder_of(path):
        table = join_tables(open_shards(folder, rows, verify=True))
        return table, ReadReport(path, len(table), {})
    found = find_format(path, layout, labelled=labelled)
    if found is None:
        table = open_store(path)
        table = table.slice(*check_rows(path, rows, len(table)))
        return table, ReadReport(path, len(table), {})
    chunks, report = [], ReadReport(path, 0, {})
    with found.open(path) as file:
        start, stop = check_rows(path, rows, len(file))
        for chunk, of_chunk in _good_jets(path, file, (start, stop)):
            report += of_chunk
            chunks.append(chunk)
    report = dataclasses.replace(report, rows=stop - start)  # of which not all need be selected
    if not any(map(len, chunks)):
        by = f" by {layout.selects!r}" if isinstance(layout, WeaverYaml) else ""
        selected = f"{path}: of the rows {start} to {stop} none is selected{by}; change the selection, or the rows"
        message = f"{report}; no jet is left, check the units and the columns" if report.left_out else selected
        message = "; ".join([message, *report.mendings()])  # what was noticed, such as padding that is not zero
        raise NoJetsError(message, report.rejected)
    return join_tables(chunks), report


def read_chunks(
    path: str | Path,
    rows: tuple[int, int],
    layout: Description | None = None,
    *,
    verify: bool = True,
    labelled: bool = True,
) -> Iterator[tuple[JetTable, ReadReport]]:
    """The good jets of some rows, those of `CHUNK_JETS` rows at a time, and what became of these rows.

    Args:
        path: file.
        rows: first row and the row after the last.
        layout: as of `read_jets`.
        verify: whether a file of the zoo is compared with its checksums, which reads it as a whole; False for whoever
            did that just now and reads it in pieces.
        labelled: as of `find_format`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: as `read_jets`, except that chunks without a good jet are no error.
    """
    path = local_path(path)
    found = find_format(path, layout, labelled=labelled)
    if found is None:
        table = open_store(path, verify=verify)
        table = table.slice(*check_rows(path, rows, len(table)))
        yield table, ReadReport(path, len(table), {})
        return
    with found.open(path) as file:
        yield from _good_jets(path, file, check_rows(path, rows, len(file)))


def _good_jets(path: Path, file: JetFile, rows: tuple[int, int]) -> Iterator[tuple[JetTable, ReadReport]]:
    start, stop = rows
    noted = Counter()
    for chunk in file.chunks(start, stop, CHUNK_JETS):
        reasons = bad_jets(chunk)
        infinite = infinite_columns(chunk) if reasons["not finite"].any() else {}
        rejected = {reason: int(mask.sum()) for reason, mask in reasons.items()}
        report = ReadReport(path, len(chunk), rejected, file.notes - noted, infinite)
        noted = file.notes.copy()
        yield _keep(chunk, ~np.any(list(reasons.values()), axis=0)), report


def open_tables(
    path: str | Path,
    rows: tuple[int, int] | None = None,
    layout: Description | None = None,
    *,
    verify: bool | None = None,
    labelled: bool = True,
) -> list[JetTable]:
    """Read jets as `read_jets` does, but leave those of a converted folder on the disk, one table a shard.

    Args:
        path: file or converted folder.
        rows: first row and the row after the last; None reads all.
        layout: as of `read_jets`; a converted folder needs none.
        verify: whether a folder is compared with its checksums, see `zoo.data.shards.open_shards`.
        labelled: as of `read_jets`.
    """
    tables, report = open_and_report(path, rows, layout, verify=verify, labelled=labelled)
    warn_of(report, stacklevel=2)
    return tables


def open_and_report(
    path: str | Path,
    rows: tuple[int, int] | None = None,
    layout: Description | None = None,
    *,
    verify: bool | None = None,
    labelled: bool = True,
) -> tuple[list[JetTable], ReadReport]:
    """The same as `open_tables`, with the report instead of warnings."""
    folder = folder_of(path)
    if folder is None:
        table, report = read_and_report(path, rows, layout, labelled=labelled)
        return [table], report
    tables = open_shards(folder, rows, verify=verify)
    return tables, ReadReport(local_path(path), sum(map(len, tables)), {})


def count_rows(path: str | Path, layout: Description | None = None, *, labelled: bool = True) -> int:
    """Number of rows of a file that `read_jets` can read, bad jets included; ``labelled`` as of `find_format`."""
    path = local_path(path)
    if folder := folder_of(path):
        return read_manifest(folder).jets
    found = find_format(path, layout, labelled=labelled)
    if found is None:
        return count_jets(path)
    with found.open(path) as file:
        return len(file)


def known_formats() -> tuple[str, ...]:
    """Names of the formats that need no layout."""
    formats = (*_FORMATS.values(), *_HDF5_FORMATS.values(), _LHC_OLYMPICS, _DARK_MACHINES)
    return (STORE, *(known.name for known in formats))


def find_format(path: Path, layout: Description | None = None, *, labelled: bool = True) -> Format | None:
    """The kind of a file by its content; None for the zoo's own.

    Args:
        path: file.
        layout: as of `read_jets`.
        labelled: whether the file must tell the class of each jet; else it is -1 where it does not.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is of no known kind; the message says what it has and which are known.
    """
    with path.open("rb") as file:
        start = file.read(_START_BYTES)
    if start.startswith(ARROW_MAGIC):
        return None
    if isinstance(layout, WeaverYaml):
        described = dataclasses.replace(layout, is_labelled=layout.is_labelled and labelled)
        return Format(f"weaver's data file {layout.name!r}", functools.partial(open_with_weaver, description=described))
    found = _find_labelled(path, start, layout)
    return found if labelled else found._replace(open=functools.partial(found.open, labelled=False))


def _find_labelled(path: Path, start: bytes, layout: Layout | None) -> Format:
    """The kind of a file that the zoo itself labels, or a layout does."""
    if layout is not None:
        opener = functools.partial(open_columns, key=layout.tree)
        if is_dark_machines(start):
            opener, layout = open_event_lines, with_rounding(layout)
        return Format(f"layout {layout.name!r}", functools.partial(_open_described, layout=layout, opener=opener))
    for magic, known in _FORMATS.items():
        if start.startswith(magic):
            return known
    if start.startswith(HDF5_MAGIC):
        return _find_hdf5_format(path)
    if is_dark_machines(start):
        return _DARK_MACHINES
    raise _unknown(path, f"starts with {start[:24]!r}" if start else "is empty")


@contextlib.contextmanager
def _open_described(
    path: Path, layout: Layout, opener: Callable[[Path], AbstractContextManager[Columns]], labelled: bool = True
) -> Iterator[LayoutFile]:
    with opener(path) as columns:
        if layout.jets is not None:
            absent = () if labelled else [name for name in layout.label_columns if name not in columns.names]
            needed = [name for name in layout.numbers if name not in absent]
            particles, jets = (column_names(of, columns.names) for of in (layout.lists, needed))
            columns = jets_of_events(path, columns, layout.jets, particles, jets)
        columns = with_formulas(path, columns, (*layout.lists, *layout.fields.values()))
        yield LayoutFile(path, columns, layout, labelled)


def _find_hdf5_format(path: Path) -> Format:
    with open_hdf5_file(path) as file:
        for member, known in _HDF5_FORMATS.items():
            if member in file:
                return known
        if find_frame(file) is not None:
            return _LHC_OLYMPICS
        raise _unknown(path, f"is an HDF5 file with {', '.join(sorted(file)[:12]) or 'nothing'}")


def _unknown(path: Path, found: str) -> ValueError:
    return ValueError(
        f"{path} {found}, which is none of the known formats ({'; '.join(known_formats())}); describe a ROOT, "
        "parquet or HDF5 file in a layout, or check that it is complete"
    )


def check_rows(path: Path, rows: tuple[int, int] | None, available: int) -> tuple[int, int]:
    """The rows asked for, None for all.

    Raises:
        ValueError: if the file does not have them.
        NoJetsError: if the file has no rows at all.
    """
    start, stop = (0, available) if rows is None else rows
    if not available:
        raise NoJetsError(f"{path}: holds no row; leave it out, or fetch it again", {})
    if not 0 <= start < stop <= available:
        raise ValueError(f"{path}: rows {start} to {stop} are not within its {available} rows; change the row range")
    return start, stop


def _keep(table: JetTable, good: np.ndarray) -> JetTable:
    if good.all():
        return table
    particle = np.repeat(good, table.counts)
    return JetTable(
        particles={name: values[particle] for name, values in table.particles.items()},
        offsets=np.concatenate([[0], np.cumsum(table.counts[good])]),
        fields={name: values[good] for name, values in table.fields.items()},
        label=table.label[good],
        weight=table.weight[good],
        metadata=table.metadata,
        source_rows=table.source_rows[good],
    )
