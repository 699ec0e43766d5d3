"""The Top Tagging Reference set: zero-padded rows of a pandas table in HDF5."""

import dataclasses
import pickletools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from zoo.data.datasets import describe_dataset
from zoo.data.formats.columns import require_stored
from zoo.data.formats.momenta import four_momenta
from zoo.data.hints import did_you_mean
from zoo.data.store import JetTable

FACTS = describe_dataset("top_tagging")

(LABEL_COLUMN,) = FACTS.label_columns
_MOMENTUM_NAME = re.compile(r"(E|PX|PY|PZ)_(\d+)")


class TopTaggingFile:
    """An open file; see `zoo.data.formats.known.JetFile`."""

    def __init__(self, path: Path, data: h5py.Dataset, labelled: bool = True) -> None:
        self.path = path
        self.data = data
        self.labelled = labelled
        self.notes: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self.data)

    def chunks(self, start: int, stop: int, size: int) -> Iterator[JetTable]:
        """The rows ``start`` to ``stop``, at most ``size`` at a time."""
        columns = _find_columns(self.path, self.data)
        momenta = [columns[name] for name in _momentum_names(self.path, columns, FACTS.max_particles, self.labelled)]
        for first in range(start, stop, size):
            block = self.data[first : min(first + size, stop)]
            yield self._to_table(_read_momenta(block, momenta), self._read_labels(block, columns, first), first)

    def _read_labels(self, block: np.ndarray, columns: dict[str, "_Column"], first_row: int) -> np.ndarray:
        column, num_classes = columns.get(LABEL_COLUMN), len(FACTS.classes)
        if column is None or column.dtype.kind not in "iu":
            return np.full(len(block), -1, dtype=np.int64)
        label = column.read(block).astype(np.int64)
        is_class = (label >= 0) & (label < num_classes)
        if self.labelled and not is_class.all():
            wrong = np.flatnonzero(~is_class)[0]
            raise ValueError(
                f"{self.path}: column {LABEL_COLUMN!r} must be 0 to {num_classes - 1}, not {label[wrong]} "
                f"as in row {first_row + wrong}; correct the label"
            )
        return np.where(is_class, label, -1)

    def _to_table(self, momenta: np.ndarray, label: np.ndarray, first_row: int) -> JetTable:
        """Jets of zero-padded rows (jet, 4 * particle); a particle is real if any of its numbers is not zero."""
        rows = momenta.reshape(len(momenta), -1, 4)
        real = np.any(rows != 0, axis=2)
        components = dict(zip(("energy", "px", "py", "pz"), rows[real].T, strict=True))
        with np.errstate(over="ignore"):
            particles, notes = four_momenta(components)
        self.notes += notes
        return JetTable(
            particles=particles,
            offsets=np.concatenate([[0], np.cumsum(real.sum(axis=1))]),
            fields={},
            label=label,
            weight=np.ones(len(label), dtype=np.float32),
            metadata=FACTS.metadata,
            source_rows=np.arange(first_row, first_row + len(label)),
        )


def find_top_tagging(path: Path, file: h5py.File, labelled: bool = True) -> TopTaggingFile:
    """The jets of an open file; damage is reported when it is read.

    Raises:
        ValueError: if the file holds no pandas table.
    """
    data = file.get("table/table")
    if not isinstance(data, h5py.Dataset) or data.dtype.names is None or data.ndim != 1:
        raise ValueError(f"{path} has no pandas table 'table' (format 'table'); is it a top tagging file?")
    require_stored(path, data)
    return TopTaggingFile(path, data, labelled)


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
    """Columns by name: pandas puts columns of the same type in a block and lists their names in an attribute."""
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


#: The opcodes of a pickled list of strings; none of these can call or import anything.
_LAYOUT_OPCODES = {"PROTO", "FRAME", "MARK", "LIST", "EMPTY_LIST", "APPEND", "APPENDS", "PUT", "BINPUT", "LONG_BINPUT"}
_LAYOUT_OPCODES |= {"MEMOIZE", "STOP"}
_STRING_OPCODES = {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "STRING", "BINSTRING", "SHORT_BINSTRING"}


def _unpickle_names(path: Path, attribute: str, pickled: object) -> list[str]:
    """The strings of a pickled list, read from its opcodes: loading a pickle could run any code."""
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


def _momentum_names(path: Path, columns: dict[str, _Column], max_particles: int, labelled: bool) -> list[str]:
    """The names E_0, PX_0, PY_0, PZ_0, E_1, ..., after a check that they and a needed label exist and are numeric."""
    numbers = {int(match[2]) for name in columns if (match := _MOMENTUM_NAME.fullmatch(name))}
    particles = max(numbers, default=0) + 1
    if particles > max_particles:
        raise ValueError(
            f"{path}: column 'E_{max_particles}' is one particle too many, this data set has at most {max_particles}; "
            "keep the leading ones"
        )
    momenta = [f"{component}_{i}" for i in range(particles) for component in ("E", "PX", "PY", "PZ")]
    for name in (*momenta, *([LABEL_COLUMN] if labelled else [])):
        if name not in columns:
            hint = did_you_mean(name, columns.keys() - set(momenta))
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
