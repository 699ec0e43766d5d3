"""Readers: a file of jets in, a `JetTable` out, with every bad jet counted and every bad column named."""

import contextlib
import dataclasses
import difflib
import pickletools
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 - registers the compressions that PyTables writes
import numpy as np

from zoo.data.datasets import describe_dataset
from zoo.data.store import ARROW_MAGIC, MOMENTUM_COLUMNS, JetTable, bad_jets, count_jets, open_store

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"

#: Jets read at a time: 200 padded constituents of so many jets take 26 MB.
CHUNK_JETS = 8192

LABEL_COLUMN = "is_signal_new"
_MOMENTUM_NAME = re.compile(r"(E|PX|PY|PZ)_(\d+)")


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
    """Read jets from a Top Tagging Reference HDF5 file or the zoo's own file, whichever it is by its content.

    Jets that `zoo.data.store.bad_jets` names are left out with a `RejectedJetsWarning`; ``source_rows`` of the table
    keeps the row in the file of each jet that stays.

    Args:
        path: file.
        rows: first row and the row after the last; None reads all.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the format is unknown, the file is damaged, a column is missing or holds something else than it
            should, or no good jet is left; the message names the file, the field and the remedy.
    """
    path = Path(path)
    if _is_hdf5(path):
        return _read_top_tagging(path, rows)
    table = open_store(path)
    start, stop = _check_rows(path, rows, len(table))
    return table.slice(start, stop)


def count_rows(path: str | Path) -> int:
    """Number of rows of a file that `read_jets` can read, bad jets included."""
    path = Path(path)
    if not _is_hdf5(path):
        return count_jets(path)
    with _open_top_tagging(path) as data:
        return len(data)


def _is_hdf5(path: Path) -> bool:
    with path.open("rb") as file:
        magic = file.read(len(HDF5_MAGIC))
    if magic != HDF5_MAGIC and not magic.startswith(ARROW_MAGIC):
        raise ValueError(
            f"{path} is neither an HDF5 file nor an Arrow file of the zoo; convert it or check that it is complete"
        )
    return magic == HDF5_MAGIC


def _check_rows(path: Path, rows: tuple[int, int] | None, available: int) -> tuple[int, int]:
    start, stop = (0, available) if rows is None else rows
    if not 0 <= start < stop <= available:
        raise ValueError(f"{path}: rows {start} to {stop} are not within its {available} rows; change the row range")
    return start, stop


@contextlib.contextmanager
def _open_top_tagging(path: Path) -> Iterator[h5py.Dataset]:
    try:
        with h5py.File(path) as file:
            data = file.get("table/table")
            if not isinstance(data, h5py.Dataset) or data.dtype.names is None or data.ndim != 1:
                raise ValueError(f"{path} has no pandas table 'table' (format 'table'); is it a top tagging file?")
            yield data
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{path} cannot be read: {error}; it is truncated or damaged, fetch it again") from error


def _read_top_tagging(path: Path, rows: tuple[int, int] | None) -> JetTable:
    facts = describe_dataset("top_tagging")
    metadata = {"dataset": facts.name, "classes": list(facts.classes), "units": facts.units}
    with _open_top_tagging(path) as data:
        start, stop = _check_rows(path, rows, len(data))
        columns = _find_columns(path, data)
        momenta = [columns[name] for name in _momentum_names(path, columns, facts.max_particles)]
        chunks, rejected = [], {}
        for first in range(start, stop, CHUNK_JETS):
            block = data[first : min(first + CHUNK_JETS, stop)]
            label = _read_labels(path, block, columns[LABEL_COLUMN], first, len(facts.classes))
            chunk = _to_table(_read_momenta(block, momenta), label, first, metadata)
            reasons = bad_jets(chunk)
            rejected = {reason: rejected.get(reason, 0) + int(mask.sum()) for reason, mask in reasons.items()}
            chunks.append(_keep(chunk, ~np.any(list(reasons.values()), axis=0)))
    _report(ReadReport(path, stop - start, rejected))
    return _join(chunks, metadata)


@dataclasses.dataclass(frozen=True)
class _Column:
    """Where a named column lies in the compound rows of a pandas table."""

    field: str
    position: int | None
    dtype: np.dtype

    def read(self, block: np.ndarray) -> np.ndarray:
        values = block[self.field]
        return values if self.position is None else values[:, self.position]


def _find_columns(path: Path, data: h5py.Dataset) -> dict[str, _Column]:
    """Columns by name: pandas puts those of one type in a block and lists their names in an attribute."""
    columns = {}
    for field in data.dtype.names:
        kind = data.dtype[field]
        if not kind.shape:
            columns[field] = _Column(field, None, kind)
            continue
        attribute = f"{field}_kind"
        names = _unpickle_names(path, attribute, data.attrs.get(attribute))
        if kind.shape != (len(names),):
            raise ValueError(
                f"{path}: attribute {attribute!r} names {len(names)} columns of {kind.shape}; write it again"
            )
        columns |= {name: _Column(field, position, kind.base) for position, name in enumerate(names)}
    return columns


#: What a pickled list of strings is made of; none of these can call or import anything.
_LAYOUT_OPCODES = {"PROTO", "FRAME", "MARK", "LIST", "EMPTY_LIST", "APPEND", "APPENDS", "PUT", "BINPUT", "LONG_BINPUT"}
_LAYOUT_OPCODES |= {"MEMOIZE", "STOP"}
_STRING_OPCODES = {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "STRING", "BINSTRING", "SHORT_BINSTRING"}


def _unpickle_names(path: Path, attribute: str, pickled: object) -> list[str]:
    """The strings of a pickled list, read from its opcodes: a pickle that is loaded may run any code."""
    if not isinstance(pickled, bytes):
        raise ValueError(f"{path}: attribute {attribute!r} with the column names is missing; write it with pandas")
    names = []
    try:
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name in _STRING_OPCODES:
                names.append(argument)
            elif opcode.name not in _LAYOUT_OPCODES:
                raise ValueError(f"it holds {opcode.name}")
    except ValueError as error:
        message = f"{path}: attribute {attribute!r} is no plain list of column names ({error}); do not trust this file"
        raise ValueError(message) from error
    return names


def _momentum_names(path: Path, columns: dict[str, _Column], max_particles: int) -> list[str]:
    """The names E_0, PX_0, PY_0, PZ_0, E_1, ..., once they and the label are found present and numeric."""
    numbers = {int(match[2]) for name in columns if (match := _MOMENTUM_NAME.fullmatch(name))}
    particles = max(numbers, default=0) + 1
    if particles > max_particles:
        raise ValueError(
            f"{path}: column 'E_{max_particles}' is one particle too many, this data set has at most {max_particles}; "
            "keep the leading ones"
        )
    momenta = [f"{component}_{i}" for i in range(particles) for component in ("E", "PX", "PY", "PZ")]
    for name in (*momenta, LABEL_COLUMN):
        if name not in columns:
            close = difflib.get_close_matches(name, columns.keys() - set(momenta), n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"found {', '.join(sorted(columns)[:8])}, ..."
            raise ValueError(f"{path}: column {name!r} is missing; {hint} Rename the column")
        kinds, expected = ("iu", "integers") if name == LABEL_COLUMN else ("f", "floating-point numbers")
        if columns[name].dtype.kind not in kinds:
            raise ValueError(
                f"{path}: column {name!r} must hold {expected}, not {columns[name].dtype}; convert it with astype"
            )
    return momenta


def _read_momenta(block: np.ndarray, columns: list[_Column]) -> np.ndarray:
    fields = {column.field for column in columns}
    if len(fields) == 1 and columns[0].position is not None:
        return block[fields.pop()][:, [column.position for column in columns]]
    return np.stack([column.read(block) for column in columns], axis=1)


def _read_labels(path: Path, block: np.ndarray, column: _Column, first_row: int, num_classes: int) -> np.ndarray:
    label = column.read(block).astype(np.int64)
    wrong = np.flatnonzero((label < 0) | (label >= num_classes))
    if len(wrong):
        raise ValueError(
            f"{path}: column {LABEL_COLUMN!r} must be 0 to {num_classes - 1}, not {label[wrong[0]]} "
            f"as in row {first_row + wrong[0]}; correct the label"
        )
    return label


def _to_table(momenta: np.ndarray, label: np.ndarray, first_row: int, metadata: dict) -> JetTable:
    """Jets of zero-padded rows (jet, 4 * particle); a particle is real if any of its numbers is not zero."""
    four_momenta = momenta.reshape(len(momenta), -1, 4)
    real = np.any(four_momenta != 0, axis=2)
    with np.errstate(over="ignore"):
        flat = four_momenta[real].astype(np.float32)
    return JetTable(
        particles={name: np.ascontiguousarray(flat[:, i]) for i, name in enumerate(MOMENTUM_COLUMNS)},
        offsets=np.concatenate([[0], np.cumsum(real.sum(axis=1))]),
        fields={},
        label=label,
        weight=np.ones(len(label), dtype=np.float32),
        metadata=metadata,
        source_rows=np.arange(first_row, first_row + len(label)),
    )


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


def _join(tables: list[JetTable], metadata: dict) -> JetTable:
    return JetTable(
        particles={name: np.concatenate([table.particles[name] for table in tables]) for name in MOMENTUM_COLUMNS},
        offsets=np.concatenate([[0], np.cumsum(np.concatenate([table.counts for table in tables]))]),
        fields={},
        label=np.concatenate([table.label for table in tables]),
        weight=np.concatenate([table.weight for table in tables]),
        metadata=metadata,
        source_rows=np.concatenate([table.source_rows for table in tables]),
    )


def _report(report: ReadReport) -> None:
    rejected = sum(report.rejected.values())
    if rejected == report.rows:
        raise ValueError(f"{report}; no jet is left, check the units and the columns")
    if rejected:
        warnings.warn(RejectedJetsWarning(report), stacklevel=4)
