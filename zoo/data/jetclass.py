"""JetClass and JetClass-II: one jet a row, its particles in lists, as a ROOT tree or a parquet file."""

import contextlib
import dataclasses
import difflib
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from zoo.data.datasets import DATASETS, JET_COLUMNS, Dataset
from zoo.data.store import MOMENTUM_COLUMNS, JetTable

ROOT_MAGIC = b"root"
PARQUET_MAGIC = b"PAR1"

#: What the formulas of the features need beside the momenta; a file may lack any of them.
PARTICLE_COLUMNS = (
    "part_charge",
    "part_isChargedHadron",
    "part_isNeutralHadron",
    "part_isPhoton",
    "part_isElectron",
    "part_isMuon",
    "part_d0val",
    "part_d0err",
    "part_dzval",
    "part_dzerr",
)

#: Data sets of this layout; each has label columns of its own.
_LAYOUTS = (DATASETS["jetclass"], DATASETS["jetclass2"])


class Kind(NamedTuple):
    """What a column holds: one number a jet, or a list of them."""

    is_list: bool
    dtype: np.dtype  #: ``object`` for anything that is no number


class Lists(NamedTuple):
    """A list of numbers for each jet."""

    counts: np.ndarray  #: (jet,)
    values: np.ndarray  #: one after the other


class Columns(Protocol):
    """Named columns of a file, whatever its format."""

    names: list[str]
    rows: int

    def kind(self, name: str) -> Kind:
        """What a column holds."""

    def blocks(self, names: Sequence[str], start: int, stop: int, size: int) -> Iterator[dict[str, np.ndarray | Lists]]:
        """Some columns of the rows ``start`` to ``stop``, at most ``size`` rows at a time."""


class JetClassFile:
    """An open file of JetClass or JetClass-II; see `zoo.data.readers.JetFile`.

    Its tables have the columns `PARTICLE_COLUMNS` and the fields `JET_COLUMNS` as far as the file has them: uint8 for
    what is stored as bool, float32 for all other numbers.

    Raises:
        ValueError: if a column is missing, or has a type that it should not have.
    """

    def __init__(self, path: Path, columns: Columns) -> None:
        self.path = path
        self.columns = columns
        self.facts = self._find_layout()
        self.jet_columns = [name for name in JET_COLUMNS if name in columns.names]
        self._require((*MOMENTUM_COLUMNS, *self.facts.label_columns, *(JET_COLUMNS if self.jet_columns else ())))
        self.particle_columns = [*MOMENTUM_COLUMNS, *(name for name in PARTICLE_COLUMNS if name in columns.names)]
        for name in self.particle_columns:
            is_measured = name in MOMENTUM_COLUMNS
            expected = "lists of floating-point numbers" if is_measured else "lists of numbers or flags"
            self._check_kind(name, True, "f" if is_measured else "fiub", expected)
        for name in self.jet_columns:
            self._check_kind(name, False, "f", "floating-point numbers")
        for name in self.facts.label_columns:
            is_index = len(self.facts.label_columns) == 1
            self._check_kind(name, False, "iu" if is_index else "fiub", "integers" if is_index else "0 and 1")

    def __len__(self) -> int:
        return self.columns.rows

    def chunks(self, start: int, stop: int, size: int) -> Iterator[JetTable]:
        """The rows ``start`` to ``stop``, at most ``size`` at a time."""
        names = [*self.particle_columns, *self.jet_columns, *self.facts.label_columns]
        for block in self.columns.blocks(names, start, stop, size):
            table = self._to_table(block, start)
            start += len(table)
            yield table
        if start != stop:
            raise ValueError(f"{self.path} ends at row {start} instead of {stop}; it is truncated, fetch it again")

    def _find_layout(self) -> Dataset:
        for facts in _LAYOUTS:
            if any(name in self.columns.names for name in facts.label_columns):
                return facts
        known = [name for facts in _LAYOUTS for name in facts.label_columns]
        others = [name for name in self.columns.names if name not in JET_COLUMNS]
        close = [name for name in others if difflib.get_close_matches(name, known, n=1, cutoff=0.8)]
        hint = f"did you mean {close[0]!r}? Rename the column" if close else "jets without labels cannot be read"
        raise ValueError(
            f"{self.path}: no column of labels; JetClass has {known[0]!r} and {len(known) - 2} more, JetClass-II has "
            f"{known[-1]!r}; {hint}"
        )

    def _require(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in self.columns.names:
                close = difflib.get_close_matches(name, set(self.columns.names) - set(names), n=1)
                some = ", ".join(sorted(self.columns.names)[:8])
                hint = f"did you mean {close[0]!r}?" if close else f"found {some}, ..."
                raise ValueError(f"{self.path}: column {name!r} is missing; {hint} Rename the column")

    def _check_kind(self, name: str, is_list: bool, kinds: str, expected: str) -> None:
        kind = self.columns.kind(name)
        if kind.is_list != is_list or kind.dtype.kind not in kinds:
            found = f"lists of {kind.dtype}" if kind.is_list else str(kind.dtype)
            raise ValueError(f"{self.path}: column {name!r} must hold {expected}, not {found}; convert it with astype")

    def _to_table(self, block: dict[str, np.ndarray | Lists], first_row: int) -> JetTable:
        counts = block["part_px"].counts
        for name in self.particle_columns:
            self._check_counts(name, block[name].counts, counts, first_row)
        label = self._read_labels(block, first_row)
        return JetTable(
            particles={name: _to_numbers(block[name].values) for name in self.particle_columns},
            offsets=np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]),
            fields={name: _to_numbers(block[name]) for name in self.jet_columns},
            label=label,
            weight=np.ones(len(label), dtype=np.float32),
            metadata=self.facts.metadata,
            source_rows=np.arange(first_row, first_row + len(label)),
        )

    def _check_counts(self, name: str, found: np.ndarray, expected: np.ndarray, first_row: int) -> None:
        wrong = np.flatnonzero(found != expected)
        if len(wrong):
            row = wrong[0]
            raise ValueError(
                f"{self.path}: column {name!r} has {found[row]} particles in row {first_row + row}, 'part_px' has "
                f"{expected[row]}; write the file again"
            )

    def _read_labels(self, block: dict[str, np.ndarray | Lists], first_row: int) -> np.ndarray:
        names, num_classes = self.facts.label_columns, len(self.facts.classes)
        if len(names) == 1:
            label = block[names[0]].astype(np.int64)
            wrong = np.flatnonzero((label < 0) | (label >= num_classes))
            if len(wrong):
                row = wrong[0]
                raise ValueError(
                    f"{self.path}: column {names[0]!r} must be 0 to {num_classes - 1}, not {label[row]} as in row "
                    f"{first_row + row}; correct the label"
                )
            return label
        is_set = np.stack([block[name] for name in names], axis=1)
        rows, columns = np.nonzero((is_set != 0) & (is_set != 1))
        if len(rows):
            row, column = rows[0], columns[0]
            raise ValueError(
                f"{self.path}: column {names[column]!r} must be 0 or 1, not {is_set[row, column]} as in row "
                f"{first_row + row}; correct the label"
            )
        wrong = np.flatnonzero(is_set.sum(axis=1) != 1)
        if len(wrong):
            found = [name for name, value in zip(names, is_set[wrong[0]], strict=True) if value]
            raise ValueError(
                f"{self.path}: row {first_row + wrong[0]} has the labels {', '.join(found) or 'none'}; exactly one of "
                f"{names[0]!r} to {names[-1]!r} must be 1, correct the labels"
            )
        return is_set.argmax(axis=1)


def _to_numbers(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # infinite numbers are counted as bad jets
        return np.ascontiguousarray(values, dtype=np.uint8 if values.dtype.kind == "b" else np.float32)


@contextlib.contextmanager
def open_root(path: Path) -> Iterator[JetClassFile]:
    """Open the tree ``tree``, or the only one, of a ROOT file; its compressed baskets carry checksums, others none.

    Raises:
        ValueError: if the file is damaged, has no such tree, or its branches are not those of JetClass.
    """
    import uproot  # slow to import, and few need it

    try:
        file = uproot.open(path)
        trees = [name for name, kind in file.classnames(recursive=False, cycle=False).items() if kind == "TTree"]
        name = "tree" if "tree" in trees else trees[0] if len(trees) == 1 else None
        tree = None if name is None else file[name]
    except Exception as error:  # uproot raises many kinds for a damaged file
        raise _damaged(path, error) from error
    with file:
        if tree is None:
            found = ", ".join(trees) or "none"
            raise ValueError(f"{path} must hold a TTree 'tree', or only one; found {found}; is it a JetClass file?")
        yield JetClassFile(path, _Tree(path, tree))


@dataclasses.dataclass(frozen=True)
class _Tree:
    """Branches of a ROOT tree; baskets of other rows are not read."""

    path: Path
    tree: Any  #: uproot.TTree

    @functools.cached_property
    def names(self) -> list[str]:
        return self.tree.keys(recursive=False)

    @property
    def rows(self) -> int:
        return self.tree.num_entries

    def kind(self, name: str) -> Kind:
        import uproot

        found = self.tree[name].interpretation
        is_list = isinstance(found, uproot.AsJagged)
        content = found.content if is_list else found
        dtype = content.to_dtype if isinstance(content, uproot.AsDtype) else np.dtype(object)
        return Kind(is_list, np.dtype(object) if dtype.shape else dtype.newbyteorder("="))

    def blocks(self, names: Sequence[str], start: int, stop: int, size: int) -> Iterator[dict[str, np.ndarray | Lists]]:
        import awkward as ak

        def convert(array: ak.Array) -> np.ndarray | Lists:
            if array.ndim == 1:
                return ak.to_numpy(array)
            return Lists(ak.to_numpy(ak.num(array)), ak.to_numpy(ak.flatten(array)))

        arrays = self.tree.iterate(list(names), entry_start=start, entry_stop=stop, step_size=size, library="ak")

        def read_column(name: str) -> object:
            return self.tree[name].array(entry_start=start, entry_stop=stop, library="ak")

        for block in _unless_damaged(self.path, arrays, names, read_column):
            yield {name: convert(block[name]) for name in names}


@contextlib.contextmanager
def open_parquet(path: Path) -> Iterator[JetClassFile]:
    """Open a parquet file; pages are compared with their checksums where the writer stored any.

    Raises:
        ValueError: if the file is damaged, or its columns are not those of JetClass.
    """
    try:
        file = parquet.ParquetFile(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(path, error) from error
    with file:
        yield JetClassFile(path, _Parquet(path, file))


@dataclasses.dataclass(frozen=True)
class _Parquet:
    """Columns of a parquet file; row groups of other rows are not read."""

    path: Path
    file: parquet.ParquetFile

    @functools.cached_property
    def names(self) -> list[str]:
        return self.file.schema_arrow.names

    @property
    def rows(self) -> int:
        return self.file.metadata.num_rows

    def kind(self, name: str) -> Kind:
        found = self.file.schema_arrow.field(name).type
        is_list = pa.types.is_list(found) or pa.types.is_large_list(found)
        content = found.value_type if is_list else found
        is_number = pa.types.is_integer(content) or pa.types.is_floating(content) or pa.types.is_boolean(content)
        return Kind(is_list, np.dtype(content.to_pandas_dtype() if is_number else object))

    def blocks(self, names: Sequence[str], start: int, stop: int, size: int) -> Iterator[dict[str, np.ndarray | Lists]]:
        groups = range(self.file.num_row_groups)
        ends = np.cumsum([self.file.metadata.row_group(group).num_rows for group in groups])
        first, last = np.searchsorted(ends, [start, stop - 1], side="right").tolist()
        needed = list(groups)[first : last + 1]
        row = int(ends[first - 1]) if first else 0
        batches = self.file.iter_batches(size, row_groups=needed, columns=list(names))

        def read_column(name: str) -> object:
            return self.file.read_row_groups(needed, columns=[name])

        for batch in _unless_damaged(self.path, batches, names, read_column):
            wanted = batch.slice(max(start - row, 0), max(min(stop, row + len(batch)) - max(start, row), 0))
            row += len(batch)
            if len(wanted):
                yield {name: self._convert(name, wanted.column(name)) for name in names}

    def _convert(self, name: str, column: pa.Array) -> np.ndarray | Lists:
        is_list = self.kind(name).is_list
        values = column.flatten() if is_list else column
        if column.null_count or values.null_count:
            raise ValueError(f"{self.path}: column {name!r} holds nulls; leave those jets out or fill them")
        numbers = values.to_numpy(zero_copy_only=False)
        return Lists(column.value_lengths().to_numpy(), numbers) if is_list else numbers


def _unless_damaged(
    path: Path, blocks: Iterator[Any], names: Sequence[str], read_column: Callable[[str], object]
) -> Iterator[Any]:
    """The blocks of a file; if one cannot be read, an error with the first column that cannot."""
    while True:
        try:
            block = next(blocks, None)
        except Exception as error:  # the libraries raise many kinds for a damaged file
            for name in names:
                try:
                    read_column(name)
                except Exception as cause:
                    raise _damaged(path, cause, name) from cause
            raise _damaged(path, error) from error
        if block is None:
            return
        yield block


def _damaged(path: Path, error: Exception, column: str | None = None) -> ValueError:
    where = "" if column is None else f": column {column!r}"
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ValueError(f"{path}{where} cannot be read: {reason}; it is truncated or damaged, fetch it again")
