"""DarkMachines events: one event per line of text, its objects separated by semicolons, in MeV."""

import contextlib
import dataclasses
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
from pyarrow import compute, csv

from zoo.data.datasets import DATASETS
from zoo.data.formats.columns import Block, Columns, Kind, Lists
from zoo.data.formats.layout import Layout, LayoutFile
from zoo.data.hints import did_you_mean

FACTS = DATASETS["four_tops"]

_EVENT = ("event", "process", "weight", "met", "met_phi")
_OBJECT = ("object", "energy", "pt", "eta", "phi")
_TEXT = ("event", "process", "object")

#: Kind of an object by its symbol: its flag and its charge.
_OBJECTS = {
    "j": ("part_isJet", 0),
    "b": ("part_isBJet", 0),
    "e-": ("part_isElectron", -1),
    "e+": ("part_isElectron", 1),
    "m-": ("part_isMuon", -1),
    "m+": ("part_isMuon", 1),
    "g": ("part_isPhoton", 0),
}
_FLAGS = tuple(dict.fromkeys(flag for flag, _ in _OBJECTS.values()))

#: Energies are printed with seven digits and pseudorapidities with five decimals, so that the momentum of a massless
#: object may seem to exceed its energy by this fraction.
ROUNDING = 1e-4

LAYOUT = Layout(
    name=FACTS.name,
    classes=FACTS.classes,
    momenta={name: name for name in ("pt", "eta", "phi", "energy")},
    label="process",
    label_values={name: name for name in FACTS.classes},
    units=FACTS.file_units,
    particles={name: name for name in ("part_charge", *_FLAGS)},
    fields={"met": "met", "met_phi": "met_phi"},
    weight="weight",
    rows=FACTS.rows,
    momentum_tolerance=ROUNDING,
)

_NUMBER = rb"[-+.\deE]+"
_LINE = re.compile(
    rb"[^;,\s]+;[^;,\s]+;" + rb";".join([_NUMBER] * 3) + rb"(;[^;,\s]+" + rb",[^;,\s]+" * 4 + rb")*;?\s*"
)


def is_dark_machines(start: bytes) -> bool:
    """Whether a file that starts with these bytes holds such events: whether a line, even if cut off, is one."""
    *lines, last = start.split(b"\n")
    return any(map(_LINE.fullmatch, (*lines, last, last.rpartition(b";")[0])))


@contextlib.contextmanager
def open_dark_machines(path: Path, labelled: bool = True) -> Iterator[LayoutFile]:
    """Open a file of the processes of `FACTS`; particles are the reconstructed objects.

    Note:
        Where rounding in the text leaves an object with up to `ROUNDING` more momentum than energy, its energy is the
        momentum.

    Raises:
        ValueError: while it is read, if a line is not an event; the message names the line and the field.
    """
    with open_event_lines(path) as columns:
        yield LayoutFile(path, columns, LAYOUT, labelled)


def with_rounding(layout: Layout) -> Layout:
    """A layout of such events with the tolerance for their rounding, unless it has one of its own."""
    if layout.momentum_tolerance is not None:
        return layout
    return dataclasses.replace(layout, momentum_tolerance=ROUNDING)


@contextlib.contextmanager
def open_event_lines(path: Path) -> Iterator[Columns]:
    """Open the columns of a file: ``pt``, ``eta``, ``phi``, ``energy``, ``part_charge`` and flags such as
    ``part_isBJet`` of the objects; ``process``, ``weight``, ``met`` and ``met_phi`` of the event.
    """
    with path.open("rb") as file:
        yield _Lines(path, file)


@dataclasses.dataclass(frozen=True)
class _Lines:
    """The columns of the events of an open file, parsed in blocks of the requested size."""

    path: Path
    file: BinaryIO

    @property
    def names(self) -> tuple[str, ...]:
        return (*LAYOUT.lists, *LAYOUT.numbers)

    def count_rows(self, names: Sequence[str]) -> int:
        """Number of lines up to the last that is not blank."""
        self.file.seek(0)
        return max((number for number, line in enumerate(self.file, 1) if not line.isspace()), default=0)

    def kind(self, name: str) -> Kind:
        return Kind(name in LAYOUT.lists, np.dtype(np.str_ if name == "process" else np.float64))

    def blocks(self, names: Sequence[str], start: int, stop: int, size: int) -> Iterator[Block]:
        self.file.seek(0)
        lines = itertools.islice(self.file, start, stop)
        while chunk := list(itertools.islice(lines, size)):
            yield self._parse(chunk, start)
            start += len(chunk)

    def _parse(self, lines: list[bytes], first_row: int) -> Block:
        events, objects, counts = _split(lines)
        try:
            event = _read_table(events, ";", _EVENT)
            particle = _read_table(objects, ",", _OBJECT)
        except pa.ArrowInvalid as error:
            self._name_the_mistake(lines, first_row)
            raise ValueError(f"{self.path}: rows from {first_row}: {error}; correct the file") from error
        if len(event) != len(lines) or len(particle) != counts.sum():
            self._name_the_mistake(lines, first_row)
        symbol = compute.index_in(particle["object"], pa.array(list(_OBJECTS)))
        if symbol.null_count:
            self._name_the_mistake(lines, first_row)
        jets = {name: event[name].to_numpy() for name in ("weight", "met", "met_phi")}
        negative = np.flatnonzero(jets["met"] < 0)
        if len(negative):
            line, met = first_row + negative[0] + 1, jets["met"][negative[0]]
            raise ValueError(f"{self.path}: line {line}: the met must be 0 or more, not {met}; correct the line")
        lists = {name: particle[name].to_numpy() for name in ("energy", "pt", "eta", "phi")}
        lists |= _describe(symbol.to_numpy())
        return {name: Lists(counts, values) for name, values in lists.items()} | {
            **jets,
            "process": event["process"].to_numpy(),
        }

    def _name_the_mistake(self, lines: list[bytes], first_row: int) -> None:
        """Raise the error of the first line that is not an event."""
        for number, line in enumerate(lines, first_row + 1):
            event, *objects = _fields_of(line)
            self._check(number, _EVENT, event, "")
            for place, values in enumerate(objects, 1):
                self._check(number, _OBJECT, values, f" of object {place}")

    def _check(self, number: int, names: Sequence[str], values: Sequence[str], where: str) -> None:
        at = f"{self.path}: line {number}"
        if len(values) != len(names):
            raise ValueError(f"{at}: must have {', '.join(names)}{where}, not {values}; correct the line")
        for name, value in zip(names, values, strict=True):
            if name == "object" and value not in _OBJECTS:
                raise ValueError(f"{at}: object{where} is {value!r}; {did_you_mean(value, _OBJECTS)} Correct the line")
            if name not in _TEXT and not _is_number(value):
                raise ValueError(f"{at}: the {name}{where} must be a number, not {value!r}; correct the line")


def _split(lines: list[bytes]) -> tuple[bytes, bytes, np.ndarray]:
    """The first five fields of all lines, one line each; all objects, one line each; and the number of objects."""
    text = b"".join(line.rstrip().rstrip(b";") + b"\n" for line in lines)
    characters = np.frombuffer(text, dtype=np.uint8).copy()
    ends = np.flatnonzero((characters == ord(";")) | (characters == ord("\n")))
    is_line_end = characters[ends] == ord("\n")
    line_of_end = np.cumsum(is_line_end) - is_line_end
    ends_of_lines = np.bincount(line_of_end, minlength=len(lines))
    place = np.arange(len(ends)) - np.repeat(np.cumsum(ends_of_lines) - ends_of_lines, ends_of_lines)
    is_object = np.repeat(place >= len(_EVENT), np.diff(ends, prepend=-1))
    characters[ends[(place >= len(_EVENT) - 1) | is_line_end]] = ord("\n")
    counts = np.maximum(ends_of_lines - len(_EVENT), 0)
    return characters[~is_object].tobytes(), characters[is_object].tobytes(), counts


def _read_table(text: bytes, delimiter: str, names: Sequence[str]) -> pa.Table:
    types = {name: pa.string() if name in _TEXT else pa.float64() for name in names}
    if not text:
        return pa.table({name: pa.array([], kind) for name, kind in types.items()})
    return csv.read_csv(
        io.BytesIO(text),
        read_options=csv.ReadOptions(column_names=names, use_threads=False),
        parse_options=csv.ParseOptions(delimiter=delimiter, quote_char=False),
        convert_options=csv.ConvertOptions(column_types=types, null_values=[], strings_can_be_null=False),
    )


def _fields_of(line: bytes) -> list[list[str]]:
    """The fields of the event itself, and those of each object."""
    fields = line.decode(errors="replace").rstrip().rstrip(";").split(";")
    return [fields[: len(_EVENT)], *(values.split(",") for values in fields[len(_EVENT) :])]


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return "_" not in value and value == value.strip()


def _describe(symbol: np.ndarray) -> dict[str, np.ndarray]:
    """Charge and flags of objects by the positions of their symbols in `_OBJECTS`."""
    charge = np.array([charge for _, charge in _OBJECTS.values()])[symbol]
    flags = {name: np.array([flag == name for flag, _ in _OBJECTS.values()])[symbol] for name in _FLAGS}
    return {"part_charge": charge, **flags}
