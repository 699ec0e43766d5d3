"""Columns computed from others by formulas of a layout, such as momenta from charge over momentum."""

import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from zoo.data.expressions import Expression, Language, parse
from zoo.data.formats.columns import Block, Columns, Kind, Lists
from zoo.data.hints import did_you_mean

_NUMPY = """
abs arccos arcsin arcsinh arctan arctan2 arctanh cos cosh exp expm1 hypot log log10 log1p log2 maximum minimum sign sin
sinh sqrt tan tanh clip where
"""
LANGUAGE = Language({name: getattr(np, name) for name in _NUMPY.split()}, {"pi": np.pi})

#: A name in backticks, for columns whose names are not plain words, such as ```tracks/qOverP```.
_QUOTED = re.compile(r"`([^`]+)`")


@dataclasses.dataclass(frozen=True)
class _Formula:
    """A formula of columns: the expression, and the column of each of its names."""

    expression: Expression
    column_of: Mapping[str, str]


def with_formulas(path: Path, columns: Columns, wanted: Iterable[str]) -> Columns:
    """The columns of a file, and formulas of them as further columns, named by the text of the formula.

    A formula has numbers, operators, the functions of `LANGUAGE`, and names of columns, in backticks unless they are
    plain words. Everything is float64, whatever the type of the columns; in a formula with lists, a number of the jet
    is used for each of its particles.

    Args:
        path: the file, for messages.
        columns: of the file.
        wanted: names of columns, and formulas.

    Raises:
        ValueError: if a formula is not allowed, or a column in it is missing.
    """
    formulas = {}
    for text in wanted:
        if text not in columns.names and (formula := _parse(path, text, columns.names)) is not None:
            formulas[text] = formula
    return _Computed(path, columns, formulas) if formulas else columns


def column_names(texts: Iterable[str], known: Sequence[str]) -> list[str]:
    """The columns that some names and formulas need."""
    names: dict[str, None] = {}
    for text in texts:
        words = {text} if text in known else {*_QUOTED.findall(text), *re.findall(r"\w+", _QUOTED.sub(" ", text))}
        names |= dict.fromkeys(word for word in sorted(words) if word in known or word == text)
    return list(names)


def _parse(path: Path, text: str, known: Sequence[str]) -> _Formula | None:
    """A formula, or None for the name of a column, even a misspelt one."""
    column_of: dict[str, str] = {}

    def name(match: re.Match) -> str:
        column_of[f"column_{len(column_of)}"] = match[1]
        return f" column_{len(column_of) - 1} "

    quoted, words = _QUOTED.sub(name, text), set(re.findall(r"\w+", text))
    is_like_name = re.fullmatch(r"\w+([./:]+\w+)*", text) and ("." in text or not words <= set(known))
    if quoted == text and (text.isidentifier() or is_like_name or not words & set(known)):
        return None
    try:
        expression = parse(quoted, LANGUAGE)
    except ValueError as error:
        raise ValueError(f"{path}: the formula {text!r} of the layout: {error}") from None
    column_of |= {name: name for name in expression.names if name not in column_of}
    for column in column_of.values():
        if column not in known:
            raise ValueError(
                f"{path}: column {column!r} is missing, which the formula {text!r} of the layout needs; "
                f"{did_you_mean(column, known)} Names that are no plain words stand in `backticks`"
            )
    if not column_of:
        raise ValueError(f"{path}: the formula {text!r} of the layout has no column in it; name at least one")
    return _Formula(expression, column_of)


@dataclasses.dataclass(frozen=True)
class _Computed:
    """Columns of a file and formulas of them."""

    path: Path
    columns: Columns
    formulas: Mapping[str, _Formula]

    @property
    def names(self) -> Sequence[str]:
        return [*self.columns.names, *self.formulas]

    def count_rows(self, names: Sequence[str]) -> int:
        return self.columns.count_rows(self._needed(names))

    def kind(self, name: str) -> Kind:
        if name not in self.formulas:
            return self.columns.kind(name)
        kinds = {column: self.columns.kind(column) for column in self.formulas[name].column_of.values()}
        for column, kind in kinds.items():
            if kind.is_nested or kind.dtype.kind not in "fiub":
                raise ValueError(f"{self.path}: column {column!r} in {name!r} must hold numbers, not {kind}")
        lists = [kind for kind in kinds.values() if kind.is_list]
        return Kind(bool(lists), np.dtype(np.float64), any(kind.is_padded for kind in lists))

    def blocks(self, names: Sequence[str], start: int, stop: int, size: int) -> Iterator[Block]:
        for block in self.columns.blocks(self._needed(names), start, stop, size):
            yield {name: self._work_out(name, block) if name in self.formulas else block[name] for name in names}

    def _needed(self, names: Sequence[str]) -> list[str]:
        columns: dict[str, None] = {}
        for name in names:
            columns |= dict.fromkeys(self.formulas[name].column_of.values() if name in self.formulas else (name,))
        return list(columns)

    def _work_out(self, text: str, block: Block) -> np.ndarray | Lists:
        formula = self.formulas[text]
        given = {name: block[column] for name, column in formula.column_of.items()}
        lists = {name: values for name, values in given.items() if isinstance(values, Lists)}
        counts = next((values.counts for values in lists.values()), None)
        if any((values.counts != counts).any() for values in lists.values()):
            raise ValueError(f"{self.path}: the lists in {text!r} have different lengths; take those of one collection")
        spread = functools.partial(_spread, counts)
        with np.errstate(all="ignore"):  # jets with numbers that are not finite are counted as bad
            values = formula.expression.evaluate({name: spread(values) for name, values in given.items()})
        values = np.asarray(values, dtype=np.float64)
        return values if counts is None else Lists(counts, values)


def _spread(counts: np.ndarray | None, values: np.ndarray | Lists) -> np.ndarray:
    """Numbers as float64: one per particle, that of its jet if there is only one per jet; or one per jet."""
    if isinstance(values, Lists):
        return values.values.astype(np.float64)
    return (values if counts is None else np.repeat(values, counts)).astype(np.float64)
