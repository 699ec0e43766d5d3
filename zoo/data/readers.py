"""Readers: a file of jets in, a `JetTable` out, with every bad jet counted and every bad column named."""

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import numpy as np

from zoo.data.columns import HDF5_MAGIC, PARQUET_MAGIC, ROOT_MAGIC
from zoo.data.jetclass import open_jetclass_parquet, open_jetclass_root
from zoo.data.store import ARROW_MAGIC, JetTable, bad_jets, count_jets, open_store
from zoo.data.top_tagging import open_top_tagging

#: Jets read at a time: 200 padded constituents of so many jets take 26 MB.
CHUNK_JETS = 8192


class JetFile(Protocol):
    """An open file of another format, bad jets included."""

    def __len__(self) -> int:
        """Number of rows."""

    def chunks(self, start: int, stop: int, size: int) -> Iterator[JetTable]:
        """The rows ``start`` to ``stop`` in order, at most ``size`` at a time."""


#: First bytes of a file, and what opens it.
_OPENERS: dict[bytes, Callable[[Path], AbstractContextManager[JetFile]]] = {
    HDF5_MAGIC: open_top_tagging,
    ROOT_MAGIC: open_jetclass_root,
    PARQUET_MAGIC: open_jetclass_parquet,
}


@dataclasses.dataclass(frozen=True)
class ReadReport:
    """What became of the rows of a file.

    Args:
        path: the file.
        rows: number of rows read.
        rejected: number of jets left out, by the reasons of `zoo.data.store.bad_jets`.
    """

    path: Path
    rows: int
    rejected: dict[str, int]

    def __str__(self) -> str:
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.rejected.items() if count)
        return f"{self.path}: left out {sum(self.rejected.values())} of {self.rows} jets: {reasons}"


class RejectedJetsWarning(UserWarning):
    """Some jets of a file were left out; its argument is a `ReadReport`."""


def read_jets(path: str | Path, rows: tuple[int, int] | None = None) -> JetTable:
    """Read jets from a file of any known format, whichever it is by its content.

    The formats are the Top Tagging Reference set (HDF5), JetClass and JetClass-II (ROOT or parquet), and the zoo's own
    file. Jets that `zoo.data.store.bad_jets` names are left out with a `RejectedJetsWarning`; ``source_rows`` of the
    table keeps the row in the file of each jet that stays.

    Args:
        path: file.
        rows: first row and the row after the last; None reads all.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the format is unknown, the file is damaged, a column is missing or holds something else than it
            should, or no good jet is left; the message names the file, the field and the remedy.
    """
    path = Path(path)
    opener = _find_opener(path)
    if opener is None:
        table = open_store(path)
        return table.slice(*_check_rows(path, rows, len(table)))
    chunks, rejected = [], {}
    with opener(path) as file:
        start, stop = _check_rows(path, rows, len(file))
        for chunk in file.chunks(start, stop, CHUNK_JETS):
            reasons = bad_jets(chunk)
            rejected = {reason: rejected.get(reason, 0) + int(mask.sum()) for reason, mask in reasons.items()}
            chunks.append(_keep(chunk, ~np.any(list(reasons.values()), axis=0)))
    _report(ReadReport(path, stop - start, rejected))
    return _join(chunks)


def count_rows(path: str | Path) -> int:
    """Number of rows of a file that `read_jets` can read, bad jets included."""
    path = Path(path)
    opener = _find_opener(path)
    if opener is None:
        return count_jets(path)
    with opener(path) as file:
        return len(file)


def _find_opener(path: Path) -> Callable[[Path], AbstractContextManager[JetFile]] | None:
    """What opens a file; None for the zoo's own."""
    with path.open("rb") as file:
        start = file.read(max(map(len, (ARROW_MAGIC, *_OPENERS))))
    if start.startswith(ARROW_MAGIC):
        return None
    for magic, opener in _OPENERS.items():
        if start.startswith(magic):
            return opener
    raise ValueError(
        f"{path} is neither an HDF5 file nor an Arrow file of the zoo, nor ROOT or parquet; "
        "convert it or check that it is complete"
    )


def _check_rows(path: Path, rows: tuple[int, int] | None, available: int) -> tuple[int, int]:
    start, stop = (0, available) if rows is None else rows
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


def _join(tables: list[JetTable]) -> JetTable:
    """Tables of the same columns, one after the other."""
    first = tables[0]
    return JetTable(
        particles={name: np.concatenate([table.particles[name] for table in tables]) for name in first.particles},
        offsets=np.concatenate([[0], np.cumsum(np.concatenate([table.counts for table in tables]))]),
        fields={name: np.concatenate([table.fields[name] for table in tables]) for name in first.fields},
        label=np.concatenate([table.label for table in tables]),
        weight=np.concatenate([table.weight for table in tables]),
        metadata=first.metadata,
        source_rows=np.concatenate([table.source_rows for table in tables]),
    )


def _report(report: ReadReport) -> None:
    rejected = sum(report.rejected.values())
    if rejected == report.rows:
        raise ValueError(f"{report}; no jet is left, check the units and the columns")
    if rejected:
        warnings.warn(RejectedJetsWarning(report), stacklevel=3)
