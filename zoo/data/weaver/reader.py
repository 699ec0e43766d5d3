"""Jets of a file as weaver's data file describes them."""

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.datasets import JET_COLUMNS
from zoo.data.formats.columns import ROOT_MAGIC, Block, Columns, Lists, open_columns
from zoo.data.formats.layout import class_if_told, class_of_flags
from zoo.data.formats.momenta import PADDING, four_momenta, is_empty
from zoo.data.hints import did_you_mean
from zoo.data.store import JetTable
from zoo.data.weaver.data_config import IS_TRAINING, Input, Reweighting, WeaverYaml
from zoo.data.weaver.weights import weigh
from zoo.limits import first_match

_LARGEST = np.finfo(np.float32).max

#: What is done with inputs, as reports call it.
NOT_NUMBERS = "values of {!r} that are NaN, which become 0 as in weaver"


class ExpressionError(ValueError):
    """An expression cannot be evaluated; the message names the file and the expression."""


class Variables(dict):
    """Variables of some rows by name: columns, and values computed from them on demand."""

    def __init__(self, path: Path, description: WeaverYaml, columns: Mapping[str, Any], rows: np.ndarray) -> None:
        super().__init__(columns)
        self.path = path
        self.description = description
        self.rows = rows

    def __missing__(self, name: str) -> Any:
        self[name] = value = self.work_out(self.description.variables[name])
        return value

    def work_out(self, text: str) -> Any:
        """The value of an expression of the data file, or of a variable."""
        expression = self.description.parsed.get(text)
        if expression is None:
            return self[text]
        try:
            with np.errstate(all="ignore"):  # numbers that are not finite are clipped, or make the jet bad
                return expression.evaluate(self)
        except ExpressionError:
            raise
        except Exception as error:  # whatever NumPy, awkward and vector raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ExpressionError(
                f"{self.path}: {text!r} cannot be worked out: {reason}; correct it in {self.description.path}"
            ) from error

    def numbers(self, text: str) -> np.ndarray:
        """An expression that is one number a row, (row,)."""
        import awkward as ak

        value = self.work_out(text)
        if isinstance(value, ak.Array) and (value.ndim != 1 or ak.fields(value)):
            raise self._is_not("one number", text, value)
        value = ak.to_numpy(value) if isinstance(value, ak.Array) else np.asarray(value)
        if value.ndim == 0:
            value = np.full(len(self.rows), value)
        if np.ma.is_masked(value) or value.shape != self.rows.shape or value.dtype.kind not in "fiub":
            raise self._is_not("one number", text, value)
        return np.ma.getdata(value)

    def lists(self, text: str) -> Lists:
        """An expression that is a list of numbers a row."""
        import awkward as ak

        value = self.work_out(text)
        value = value if isinstance(value, ak.Array) else ak.from_numpy(np.asarray(value))
        if value.ndim != 2 or len(value) != len(self.rows) or ak.fields(value):
            raise self._is_not("a list of numbers", text, value)
        flat = ak.to_numpy(ak.flatten(value))
        if np.ma.is_masked(flat) or flat.dtype.kind not in "fiub":
            raise self._is_not("a list of numbers", text, value)
        return Lists(ak.to_numpy(ak.num(value)), np.ma.getdata(flat))

    def _is_not(self, expected: str, text: str, value: Any) -> ExpressionError:
        found = value.type if hasattr(value, "type") else f"{value.dtype} {value.shape}"
        return ExpressionError(
            f"{self.path}: {text!r} must be {expected} for each of {len(self.rows)} rows, is {found}; correct it in "
            f"{self.description.path}"
        )


class VariableReader:
    """The variables of a file, for the selected rows.

    Args:
        path: the file.
        columns: its columns.
        description: what to select and to compute.
        wanted: the expressions and variables that will be needed.

    Raises:
        ValueError: if a column is missing.
    """

    def __init__(self, path: Path, columns: Columns, description: WeaverYaml, wanted: Iterable[str]) -> None:
        self.path = path
        self.columns = columns
        self.description = description
        self.selection = description.selects
        self._constants = {IS_TRAINING: description.split == "train"} | {
            name: self._value_of_file(values) for name, values in description.file_magic.items()
        }
        self._needed: dict[str, None] = {}
        for text in (*wanted, *(() if self.selection is None else (self.selection,))):
            self._add_names(text)
        computed = {*description.variables, *self._constants}
        self._columns = {name: self._find(name) for name in self._needed if name not in computed}
        if not self._columns:
            raise ValueError(f"{description.path}: no column of {path} is used")

    def _value_of_file(self, values: Mapping[str, float]) -> float:
        try:
            pattern = first_match(tuple(values), str(self.path))
        except ValueError as error:
            raise ValueError(f"{self.description.path}: file_magic: {error}") from None
        return 0 if pattern is None else values[pattern]

    def _add_names(self, text: str) -> None:
        """Add the variables in an expression, and what they are computed from."""
        expression = self.description.parsed.get(text)
        for name in (text,) if expression is None else expression.names:
            if name not in self._needed:
                self._needed[name] = None
                if name in self.description.variables:
                    self._add_names(self.description.variables[name])

    def _find(self, name: str) -> str:
        column = name
        for part, replacement in self.description.branch_magic.items():
            column = column.replace(part, replacement)
        if column not in self.columns.names:
            known = {*self.columns.names, *self.description.variables}
            raise ValueError(
                f"{self.path}: column {column!r} is missing, which {self.description.path} needs; "
                f"{did_you_mean(column, known)}"
            )
        return column

    def __len__(self) -> int:
        return self.columns.count_rows(list(self._columns.values()))

    def blocks(self, start: int, stop: int, size: int) -> Iterator[Variables]:
        """The selected rows from ``start`` to ``stop``, read at most ``size`` rows at a time."""
        for block in self.columns.blocks(list(dict.fromkeys(self._columns.values())), start, stop, size):
            rows = len(_first(block))
            yield self._select(self._variables(block, np.arange(start, start + rows)))
            start += rows
        if start != stop:
            raise ValueError(f"{self.path} ends at row {start} instead of {stop}; it is truncated, fetch it again")

    def _variables(self, block: Block, rows: np.ndarray) -> Variables:
        import awkward as ak

        values = {name: self._to_awkward(column, block[column]) for name, column in self._columns.items()}
        values |= {name: ak.from_numpy(np.full(len(rows), value)) for name, value in self._constants.items()}
        return Variables(self.path, self.description, values, rows)

    def _to_awkward(self, column: str, values: np.ndarray | Lists) -> Any:
        import awkward as ak

        if not isinstance(values, Lists):
            return ak.from_numpy(_widened(values))
        return ak.unflatten(_widened(values.values), values.counts)

    def _select(self, variables: Variables) -> Variables:
        if self.selection is None:
            return variables
        selected = variables.numbers(self.selection).astype(bool)
        columns = {name: variables[name][selected] for name in (*self._columns, *self._constants)}
        return Variables(self.path, self.description, columns, variables.rows[selected])


def _widened(values: np.ndarray) -> np.ndarray:
    """Whole numbers as int64, so that neither small types nor differences of unsigned ones wrap around."""
    is_larger = values.dtype == np.uint64 and len(values) and values.max() > np.iinfo(np.int64).max
    return values.astype(np.int64) if values.dtype.kind in "iu" and not is_larger else values


def _first(block: Block) -> np.ndarray:
    values = next(iter(block.values()))
    return values.counts if isinstance(values, Lists) else values


@contextlib.contextmanager
def open_with_weaver(path: Path, start: bytes, description: WeaverYaml) -> Iterator["WeaverFile"]:
    """Open a ROOT, parquet or HDF5 file with weaver's data file; ``start`` are its first bytes.

    Raises:
        ValueError: if the file has another format or is damaged, a column is missing, or a number is yet to be fitted.
    """
    with open_weaver_columns(path, start, description) as columns:
        yield WeaverFile(path, columns, description)


def open_weaver_columns(path: Path, start: bytes, description: WeaverYaml) -> AbstractContextManager[Columns]:
    """Open the columns of a file; ``treename`` applies to ROOT files only, as in weaver."""
    return open_columns(path, start, description.tree if start.startswith(ROOT_MAGIC) else None)


class WeaverFile:
    """An open file with weaver's data file; see `zoo.data.formats.known.JetFile`.

    Rows that are not selected are left out without a warning. Jets have their first ``length`` particles, except those
    that the mask leaves out and those without momentum, which are padding, and counted in ``notes``. The raw values of
    the features are the particle columns ``weaver_...``: infinite values become the largest float if they will be
    clipped, and NaN becomes the value that is scaled to 0, as in weaver.

    Raises:
        ValueError: if a column is missing, or a scale or weight is yet to be fitted.
    """

    def __init__(self, path: Path, columns: Columns, description: WeaverYaml) -> None:
        description.require_scaling()
        self.path = path
        self.description = description
        fields = description.monitors + (description.observers if description.split == "test" else ())
        self._fields = tuple(name for name in fields if description.is_labelled or self._has(columns, name))
        texts = tuple(description.labels.values())
        is_told = bool(description.classes) and all(self._has(columns, text) for text in texts)
        self._labels = texts if description.is_labelled or is_told else ()
        self._weights = None if description.split == "test" else description.weights
        self._kept = description.kept or ()
        has_jets = description.kept is not None and set(JET_COLUMNS) <= set(columns.names)
        self._jets = JET_COLUMNS if has_jets else ()
        self._reader = VariableReader(path, columns, description, self._wanted())
        self.notes: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._reader)

    def chunks(self, start: int, stop: int, size: int) -> Iterator[JetTable]:
        """The selected rows from ``start`` to ``stop``, read at most ``size`` rows at a time."""
        for variables in self._reader.blocks(start, stop, size):
            yield self._to_table(variables)

    def _has(self, columns: Columns, text: str) -> bool:
        """Whether a file has what an expression or a variable needs."""
        try:
            momenta = (variable.name for variable in self.description.vectors)  # required in any case
            VariableReader(self.path, columns, self.description, (text, *momenta))
        except ValueError:
            return False
        return True

    def _wanted(self) -> Iterator[str]:
        yield from (variable.name for variable in self.description.inputs)
        yield from self._labels
        yield from self._fields
        yield from (*self._kept, *self._jets)
        yield from wanted_by_weights(self._weights)

    def _to_table(self, variables: Variables) -> JetTable:
        names = (*(variable.name for variable in self.description.inputs), *self._kept)
        lists = {name: variables.lists(name) for name in names}
        counts, is_kept = self._choose_particles(lists, variables.rows)
        components = self._components(lists)
        particles, notes = four_momenta({name: values[is_kept] for name, values in components.items()})
        self.notes += notes
        for variable in self.description.features:
            particles[variable.column] = self._limit(variable, lists[variable.name].values[is_kept])
        for name in self._kept:
            particles[name] = lists[name].values[is_kept].astype(np.float32)
        return JetTable(
            particles=particles,
            offsets=np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]),
            fields=self._read_fields(variables),
            label=self._read_labels(variables),
            weight=self._read_weights(variables),
            metadata=self.description.metadata,
            source_rows=variables.rows,
        )

    def _choose_particles(self, lists: Mapping[str, Lists], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Number of particles of each jet, and their positions among all particles."""
        length, (first, *others) = self.description.features[0].length, lists
        counts = lists[first].counts
        for other in others:
            wrong = np.flatnonzero(lists[other].counts != counts)
            if len(wrong):
                found, expected = lists[other].counts[wrong[0]], counts[wrong[0]]
                raise ValueError(
                    f"{self.path}: {other!r} has {found} particles in row {rows[wrong[0]]}, {first!r} has "
                    f"{expected}; correct it in {self.description.path}"
                )
        jet = np.repeat(np.arange(len(counts)), counts)
        is_kept = np.arange(len(jet)) - (np.cumsum(counts) - counts)[jet] < length
        if self.description.mask is not None:
            is_kept &= lists[self.description.mask.name].values != 0
        is_padding = is_kept & is_empty(self._components(lists))
        self.notes[PADDING] += int(is_padding.sum())
        is_kept &= ~is_padding
        return np.bincount(jet[is_kept], minlength=len(counts)), is_kept

    def _components(self, lists: Mapping[str, Lists]) -> dict[str, np.ndarray]:
        """The components of all momenta, in the order of weaver's vectors."""
        names = ("px", "py", "pz", "energy")
        return {
            name: lists[variable.name].values for name, variable in zip(names, self.description.vectors, strict=True)
        }

    def _limit(self, variable: Input, values: np.ndarray) -> np.ndarray:
        values = values.astype(np.float32)
        is_nan = np.isnan(values)
        if is_nan.any():
            self.notes[NOT_NUMBERS.format(variable.name)] += int(is_nan.sum())
        if variable.centre is None:
            return np.where(is_nan, np.float32(0), values)
        return np.nan_to_num(values, nan=variable.centre, posinf=_LARGEST, neginf=-_LARGEST)

    def _read_fields(self, variables: Variables) -> dict[str, np.ndarray]:
        further = tuple(self.description.labels)[1:] if self.description.is_custom and self._labels else ()
        texts = {name: self.description.labels[name] for name in further} | {
            name: name for name in (*self._fields, *self._jets)
        }
        fields = {name: variables.numbers(text) for name, text in texts.items()}
        return {name: values.astype(np.uint8) if values.dtype == bool else values for name, values in fields.items()}

    def _read_labels(self, variables: Variables) -> np.ndarray:
        if not self._labels:
            return np.full(len(variables.rows), -1, dtype=np.int64)
        if self.description.is_custom:
            return self._read_indices(variables)
        flags = np.stack([variables.numbers(text) for text in self._labels], axis=1)
        if self.description.is_labelled:
            return class_of_flags(self.path, self._labels, flags, variables.rows)
        return class_if_told(flags)

    def _read_indices(self, variables: Variables) -> np.ndarray:
        """The first of the custom labels, int64 (jet,)."""
        found, most = variables.numbers(self._labels[0]), len(self.description.classes) - 1
        is_class = np.isin(found, np.arange(most + 1))
        if not is_class.all() and self.description.is_labelled:
            wrong = np.flatnonzero(~is_class)[0]
            raise ValueError(
                f"{self.path}: the label {self._labels[0]!r} must be a whole number from 0 to {most}, not "
                f"{found[wrong]} as in row {variables.rows[wrong]}; correct it in {self.description.path} or name more "
                "classes"
            )
        return np.where(is_class, found, -1).astype(np.int64)

    def _read_weights(self, variables: Variables) -> np.ndarray:
        if self._weights is None:
            return np.ones(len(variables.rows), dtype=np.float32)
        if isinstance(self._weights, str):
            return variables.numbers(self._weights).astype(np.float32)
        return weigh(self._weights, self._weights.histograms, *weight_inputs(self._weights, variables))


def wanted_by_weights(weights: str | Reweighting | None) -> tuple[str, ...]:
    """The expressions and variables that the weights need."""
    if isinstance(weights, Reweighting):
        return weights.names if weights.base_weight is None else (*weights.names, weights.base_weight)
    return () if weights is None else (weights,)


def weight_inputs(weights: Reweighting, variables: Variables) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """The variables and the base weight that `zoo.data.weaver.weights` needs."""
    base = None if weights.base_weight is None else variables.numbers(weights.base_weight)
    return {name: variables.numbers(name) for name in weights.names}, base
