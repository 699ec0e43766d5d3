"""Layouts: which columns of a file are the momenta, labels and weights; a file with a layout becomes jet tables."""

import dataclasses
import fnmatch
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.datasets import JET_COLUMNS
from zoo.data.formats.columns import Block, Columns
from zoo.data.formats.jets_of_events import Grouping
from zoo.data.formats.momenta import COMPONENTS, PADDING, four_momenta, is_empty
from zoo.data.hints import did_you_mean
from zoo.data.store import MOMENTUM_COLUMNS, JetTable, bad_particles
from zoo.limits import MAX_PARTICLES

#: Factors to GeV.
UNITS = {"GeV": 1.0, "MeV": 1e-3}

#: Names for the rows of a file.
ROWS = ("jets", "events")

#: Fields in the unit of the momenta, which are converted with them; all others are taken as they are.
MOMENTUM_FIELDS = ("jet_pt", "jet_energy", "jet_mass", "met")

#: What may be done with a particle that no model may see: its jet is rejected, or it is dropped from its jet.
BAD_PARTICLES = ("reject", "drop")

#: What may be done with a row whose label is no class.
OTHER_LABELS = ("refuse", "drop")

#: What else is done with particles and numbers, as reports call it.
DROPPED = "bad particles, dropped from their jets"
UNLISTED = "rows whose label is no class, dropped as other_labels says"
LIKE_PADDING = (
    "entries of padded arrays that are not finite or have |eta| above 100; if they are padding, name the column that "
    "tells particles in 'mask', or write 'bad_particles: drop'"
)
FILLED = "values of {!r} that are not finite, filled with {:g}"

#: No detector sees particles beyond this.
_LARGEST_ETA = 100

#: Integers up to here are exact in float32.
_EXACT = 2**24


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which columns of a file hold what; each row is one jet or event.

    In ``momenta``, ``particles`` and ``fields`` a formula of columns may replace the name of a column, such as
    ``arctan2(sin_phi, cos_phi)``, see `zoo.data.formats.formulas`.

    Args:
        name: name of the data set, for the metadata of the table.
        classes: class names; a jet's label is an index into them.
        momenta: column of each component, one of the sets in `COMPONENTS`; ``energy`` is taken as it is, ``mass`` gives
            the energy, and with neither particles are massless. All are lists.
        label: a column of class indices; or a column of 0 and 1 for each class in order; or, for files of one class
            each, the class by a pattern of the file's name, such as ``{"QCD_*.root": "qcd"}``; or None if the classes
            of the jets are not known: they are all -1 then, which no training accepts.
        units: unit of the momenta and of `MOMENTUM_FIELDS` in the file, a key of `UNITS`; the table has GeV.
        tree: tree of a ROOT file (None: ``tree``, or the only one) or group of an HDF5 file (None: the whole file).
        particles: further columns of the particles by the names that they get, such as ``part_charge``.
        fields: columns of the jets by the names that they get. `JET_COLUMNS` are the momentum of the jet itself, all
            four or none; ``jet_mass`` may stand in for ``jet_energy``.
        weight: column of weights; None: 1.
        mask: column of lists that are 0 for padding; None: in zero-padded arrays, entries without momentum are padding.
        label_values: the value of the label column for each class in order, such as (5, 4, 0); or the class of each
            value, where a class may have several values, such as ``{5: "b", 4: "c", 21: "light", 0: "light"}``; None:
            0, 1, 2, ..., or the names of the classes in a column of text.
        max_particles: most particles of a row; None: any number.
        rows: what the rows are, ``jets`` or ``events``, as reports call them.
        fill: replacement for values that are not finite, by the name of one of ``particles`` or ``fields``, or
            ``mass`` for that of the particles; without a replacement such a value is bad.
        bad_particles: what is done with a particle that is bad by the reasons of `zoo.data.store.bad_jets`: ``reject``
            leaves out its jet, ``drop`` only the particle.
        other_labels: what is done with a row whose label is no class: ``refuse`` is an error, ``drop`` leaves the row
            out and counts it.
        jets: how the particles of events are assigned to their jets, for files with several jets per row; then each jet
            becomes one row, in the order of the file, and the columns ``jets/event`` and ``jets/number`` identify it.
        momentum_tolerance: fraction of E by which :math:`|p|` may exceed it and still be rounding, see
            `zoo.data.formats.momenta.four_momenta`; None: that of the type of the columns.

    Raises:
        ValueError: if an argument contradicts another or has an invalid value.
    """

    name: str
    classes: tuple[str, ...]
    momenta: Mapping[str, str]
    label: str | tuple[str, ...] | Mapping[str, str] | None
    units: str = "GeV"
    tree: str | None = None
    particles: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)
    weight: str | None = None
    mask: str | None = None
    label_values: tuple[int, ...] | Mapping[int | str, str] | None = None
    max_particles: int | None = None
    rows: str = "jets"
    fill: Mapping[str, float] = dataclasses.field(default_factory=dict)
    bad_particles: str = "reject"
    momentum_tolerance: float | None = None
    other_labels: str = "refuse"
    jets: Grouping | None = None

    def __post_init__(self) -> None:
        if self.rows not in ROWS:
            raise ValueError(f"rows: must be {' or '.join(ROWS)}, not {self.rows!r}")
        if self.bad_particles not in BAD_PARTICLES:
            raise ValueError(f"bad_particles: must be {' or '.join(BAD_PARTICLES)}, not {self.bad_particles!r}")
        if self.momentum_tolerance is not None and not 0 <= self.momentum_tolerance < 1:
            raise ValueError(f"momentum_tolerance: must be from 0 to 1, not {self.momentum_tolerance}")
        if self.other_labels not in OTHER_LABELS:
            raise ValueError(f"other_labels: must be {' or '.join(OTHER_LABELS)}, not {self.other_labels!r}")
        self._check_momenta()
        self._check_classes()
        self._check_names()

    def _check_momenta(self) -> None:
        if self.units not in UNITS:
            raise ValueError(f"units: must be {' or '.join(UNITS)}, not {self.units!r}")
        if set(self.momenta) not in map(set, COMPONENTS):
            known = "; ".join(", ".join(names) for names in COMPONENTS)
            raise ValueError(f"momenta: must have exactly the components of one of ({known}), not {list(self.momenta)}")

    def _check_classes(self) -> None:
        is_labelled = self.label is not None
        if (is_labelled and len(self.classes) < 2) or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes: must be at least two, none twice, not {list(self.classes)}")
        if isinstance(self.label, Mapping):
            self._check_known("label", self.label)
        elif is_labelled and not isinstance(self.label, str) and len(self.label) != len(self.classes):
            raise ValueError(f"label: {len(self.label)} columns for {len(self.classes)} classes; give one for each")
        if self.label_values is not None:
            self._check_values()

    def _check_values(self) -> None:
        if not isinstance(self.label, str):
            raise ValueError("label_values: belong to a label in one column; leave them out or name that column")
        if isinstance(self.label_values, Mapping):
            self._check_known("label_values", self.label_values)
        elif not len(set(self.label_values)) == len(self.label_values) == len(self.classes):
            raise ValueError(f"label_values: must be one for each of {list(self.classes)}, none twice")

    def _check_known(self, key: str, classes: Mapping[Any, str]) -> None:
        for value, name in classes.items():
            if name not in self.classes:
                raise ValueError(f"{key}: {value!r} has no class {name!r}; {did_you_mean(name, self.classes)}")

    def _check_names(self) -> None:
        taken = set(self.particles) & set(MOMENTUM_COLUMNS)
        if taken:
            raise ValueError(f"particles: {min(taken)!r} is made of 'momenta'; give it another name")
        jet = {name for name in JET_COLUMNS if name in self.fields}
        if jet and "jet_mass" in self.fields:
            jet.add("jet_energy")
        if jet and len(jet) < len(JET_COLUMNS):
            missing = next(name for name in JET_COLUMNS if name not in jet)
            raise ValueError(
                f"fields: {missing!r} is missing beside {min(jet)!r}; give all of {', '.join(JET_COLUMNS)}"
            )

        known = {*self.particles, *self.fields, *({"mass"} & self.momenta.keys())}
        for name in self.fill.keys() - known:
            raise ValueError(f"fill: {name!r} is none of 'particles' and 'fields'; {did_you_mean(name, known)}")

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of a table of these jets."""
        return {"dataset": self.name, "classes": list(self.classes), "units": "GeV"}

    @property
    def values(self) -> dict[str, Any]:
        """The arguments as plain JSON values; ``label_values`` by class are pairs, as JSON has no numbers as keys."""
        values = {
            field.name: dict(value) if isinstance(value := getattr(self, field.name), Mapping) else value
            for field in dataclasses.fields(self)
        }
        values["jets"] = None if self.jets is None else dataclasses.asdict(self.jets)
        if isinstance(self.label_values, Mapping):
            values["label_values"] = list(self.label_values.items())
        # folders that were converted before these keys existed are those of layouts without them
        values = {key: value for key, value in values.items() if key not in _LATER or value != _LATER[key]}
        return json.loads(json.dumps(values))

    @property
    def label_columns(self) -> tuple[str, ...]:
        """Columns that the labels come from; none if they come from the file's name, or there are no labels."""
        if self.label is None or isinstance(self.label, Mapping):
            return ()
        return (self.label,) if isinstance(self.label, str) else tuple(self.label)

    @property
    def class_of_value(self) -> dict[int | str, int]:
        """Class index of each value of the label column."""
        if isinstance(self.label_values, Mapping):
            return {value: self.classes.index(name) for value, name in self.label_values.items()}
        values = range(len(self.classes)) if self.label_values is None else self.label_values
        return {value: index for index, value in enumerate(values)}

    @property
    def lists(self) -> tuple[str, ...]:
        """Columns that hold a list for each row."""
        mask = () if self.mask is None else (self.mask,)
        return (*self.momenta.values(), *self.particles.values(), *mask)

    @property
    def numbers(self) -> tuple[str, ...]:
        """Columns that hold one number for each row."""
        return (*self.unlabelled_numbers, *self.label_columns)

    @property
    def unlabelled_numbers(self) -> tuple[str, ...]:
        """Columns that hold one number for each row, except those that only the labels need."""
        weight = () if self.weight is None else (self.weight,)
        return (*self.fields.values(), *weight)


#: Keys that the first layouts did not have, with their values then.
_LATER = {"fill": {}, "bad_particles": "reject", "momentum_tolerance": None, "other_labels": "refuse", "jets": None}


class LayoutFile:
    """An open file with a layout; see `zoo.data.formats.known.JetFile`.

    With ``labelled`` false, a label that is missing or not one of the classes is -1 instead of an error.

    Its ``notes`` count what has been done with particles and numbers so far, such as `PADDING`, `DROPPED` and `FILLED`.

    Particle columns are uint8 if stored as bool, else float32; fields are float32, or int64 for integers.

    Raises:
        ValueError: if a column is missing or has the wrong type, or no class matches the file's name.
    """

    def __init__(self, path: Path, columns: Columns, layout: Layout, labelled: bool = True) -> None:
        self.path = path
        self.columns = columns
        self.layout = layout
        self.labelled = labelled
        self.notes: Counter[str] = Counter()
        self._reads_labels = labelled or all(map(self._is_label, layout.label_columns))
        self._numbers = layout.numbers if self._reads_labels else layout.unlabelled_numbers
        self._names = list(dict.fromkeys((*layout.lists, *self._numbers)))
        for name in self._names:
            if name not in columns.names:
                hint = did_you_mean(name, set(columns.names) - set(self._names))
                raise ValueError(f"{path}: column {name!r} is missing; {hint} Rename the column or the layout's")
        self._check_kinds()
        self._is_padded = any(columns.kind(name).is_padded for name in layout.momenta.values())
        self._class_of_file = self._find_class() if isinstance(layout.label, Mapping) else None

    def __len__(self) -> int:
        return self.columns.count_rows(self._names)

    def chunks(self, start: int, stop: int, size: int) -> Iterator[JetTable]:
        """The rows ``start`` to ``stop``, at most ``size`` at a time."""
        for block in self.columns.blocks(self._names, start, stop, size):
            table = self._to_table(block, start)
            start += len(table)
            yield self._without_others(table)
        if start != stop:
            raise ValueError(f"{self.path} ends at row {start} instead of {stop}; it is truncated, fetch it again")

    def _without_others(self, table: JetTable) -> JetTable:
        """The rows whose label is a class, if others are to be dropped."""
        if self.layout.other_labels != "drop" or self.layout.label is None or not self.labelled:
            return table
        is_class = table.label >= 0
        self.notes[UNLISTED] += int((~is_class).sum())
        return table if is_class.all() else table.take(np.flatnonzero(is_class))

    def _check_kinds(self) -> None:
        layout, floats = self.layout, "floating-point numbers"
        for name in layout.momenta.values():
            self._check_kind(name, True, "f", f"lists of {floats}")
        for name in layout.lists[len(layout.momenta) :]:
            self._check_kind(name, True, "fiub", "lists of numbers or flags")
        for name, column in layout.fields.items():
            is_momentum = name in JET_COLUMNS
            self._check_kind(column, False, "f" if is_momentum else "fiub", floats if is_momentum else "numbers")
        if layout.weight is not None:
            self._check_kind(layout.weight, False, "fiu", "numbers")
        for name in layout.label_columns if self._reads_labels else ():
            kinds, expected = self._kinds_of_label()
            self._check_kind(name, False, kinds, expected)

    def _is_label(self, name: str) -> bool:
        """Whether a column exists and has a type that labels may have."""
        if name not in self.columns.names:
            return False
        kind = self.columns.kind(name)
        return not kind.is_list and kind.dtype.kind in self._kinds_of_label()[0]

    def _kinds_of_label(self) -> tuple[str, str]:
        if not isinstance(self.layout.label, str):
            return "fiub", "0 and 1"
        if any(isinstance(value, str) for value in self.layout.class_of_value):
            return "U", "text"
        if self.layout.label_values is None and self.columns.kind(self.layout.label).dtype.kind == "U":
            return "U", "text"  # the names of the classes
        return "iubf", "whole numbers"

    def _check_kind(self, name: str, is_list: bool, kinds: str, expected: str) -> None:
        kind = self.columns.kind(name)
        if kind.is_list != is_list or kind.is_nested or kind.dtype.kind not in kinds:
            remedy = "convert it with astype"
            if kind.is_nested:
                remedy = "name what makes jets of such an event in 'jets', as in docs/data.md"
            raise ValueError(f"{self.path}: column {name!r} must hold {expected}, not {kind}; {remedy}")

    def _find_class(self) -> int | None:
        fitting = {name for pattern, name in self.layout.label.items() if fnmatch.fnmatchcase(self.path.name, pattern)}
        if len(fitting) != 1 and not self.labelled:
            return None
        if len(fitting) != 1:
            patterns = ", ".join(self.layout.label)
            found = ", ".join(sorted(fitting)) or "none"
            raise ValueError(
                f"{self.path}: the name of the file must give its class by one of the patterns {patterns}, the classes "
                f"that fit are: {found}; rename the file or change the patterns"
            )
        return self.layout.classes.index(fitting.pop())

    def _to_table(self, block: Block, first_row: int) -> JetTable:
        layout = self.layout
        counts, lists = self._select_particles(block, first_row)
        jets = {name: block[name] for name in self._numbers}
        counts, particles = self._read_particles(counts, lists)
        self._check_most(counts, first_row)
        rows = len(counts)
        weight = np.ones(rows) if layout.weight is None else jets[layout.weight]
        with np.errstate(over="ignore"):  # infinite numbers are counted as bad jets
            return JetTable(
                particles=particles,
                offsets=np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]),
                fields=self._to_fields(jets),
                label=self._read_labels(jets, rows, first_row),
                weight=weight.astype(np.float32),
                metadata=layout.metadata,
                source_rows=np.arange(first_row, first_row + rows),
            )

    def _select_particles(self, block: Block, first_row: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Number of particles of each row, and the lists without padding."""
        lists = {name: block[name] for name in self.layout.lists}
        first, *others = lists
        counts = lists[first].counts
        for name in others:
            self._check_counts(name, lists[name].counts, first, counts, first_row)
        values = {name: column.values for name, column in lists.items()}
        real = self._is_particle(values, counts, first_row)
        if real.all():
            return counts, values
        return _count_true(real, counts), {name: column[real] for name, column in values.items()}

    def _is_particle(self, values: dict[str, np.ndarray], counts: np.ndarray, first_row: int) -> np.ndarray:
        empty = is_empty({component: values[name] for component, name in self.layout.momenta.items()})
        if self.layout.mask is None:
            # arrays of one length are always padded, but padding in lists is worth reporting
            self.notes[PADDING] += 0 if self._is_padded else int(empty.sum())
            # lists of one length are arrays that the format does not distinguish from lists, as is usual in parquet
            is_array = self._is_padded or (len(counts) and np.ptp(counts) == 0)
            if is_array and self.layout.bad_particles == "reject":  # otherwise they are counted when dropped
                self._note_padding(values)
            return ~empty
        mask = values[self.layout.mask]
        wrong = np.flatnonzero(np.isnan(mask))
        if len(wrong):
            row = first_row + np.searchsorted(np.cumsum(counts), wrong[0], side="right")
            raise ValueError(f"{self.path}: column {self.layout.mask!r} is not a number in row {row}; correct the mask")
        self.notes[PADDING] += int((empty & (mask != 0)).sum())
        return (mask != 0) & ~empty

    def _note_padding(self, values: Mapping[str, np.ndarray]) -> None:
        """Count what looks like padding other than zeros."""
        momenta = {component: values[name] for component, name in self.layout.momenta.items()}
        odd = np.logical_or.reduce([~np.isfinite(of) for of in momenta.values()])
        if "eta" in momenta:
            with np.errstate(invalid="ignore"):
                odd |= np.abs(momenta["eta"]) > _LARGEST_ETA
        self.notes[LIKE_PADDING] += int(odd.sum())

    def _read_particles(
        self, counts: np.ndarray, lists: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Number of particles of each row, and the particle columns of the table."""
        layout = self.layout
        components = {name: self._fill(name, lists[column]) for name, column in layout.momenta.items()}
        with np.errstate(over="ignore"):  # infinite numbers are counted as bad jets
            momenta, notes = four_momenta(components, UNITS[layout.units], layout.momentum_tolerance)
            particles = momenta | {
                name: self._to_numbers(column, self._fill(name, lists[column]))
                for name, column in layout.particles.items()
            }
        self.notes += notes
        if layout.bad_particles == "reject":
            return counts, particles
        bad = np.logical_or.reduce(list(bad_particles(particles).values()))
        self.notes[DROPPED] += int(bad.sum())
        return _count_true(~bad, counts), {name: values[~bad] for name, values in particles.items()}

    def _fill(self, name: str, values: np.ndarray) -> np.ndarray:
        """The values, with those that are not finite replaced if the layout gives a replacement."""
        if name not in self.layout.fill or values.dtype.kind != "f":
            return values
        number, is_good = self.layout.fill[name], np.isfinite(values)
        self.notes[FILLED.format(name, number)] += int((~is_good).sum())
        return np.where(is_good, values, values.dtype.type(number))

    def _check_counts(self, name: str, found: np.ndarray, first: str, expected: np.ndarray, first_row: int) -> None:
        wrong = np.flatnonzero(found != expected)
        if len(wrong):
            row = wrong[0]
            raise ValueError(
                f"{self.path}: column {name!r} has {found[row]} particles in row {first_row + row}, {first!r} has "
                f"{expected[row]}; write the file again"
            )

    def _check_most(self, counts: np.ndarray, first_row: int) -> None:
        most, has = self.layout.max_particles or MAX_PARTICLES, self.layout.name
        if len(counts) and counts.max() > most:
            row, has = counts.argmax(), has if self.layout.max_particles else "a jet or event"
            raise ValueError(
                f"{self.path}: row {first_row + row} has {counts[row]} particles, {has} has at most {most}; keep the "
                "leading ones"
            )

    def _to_numbers(self, name: str, values: np.ndarray) -> np.ndarray:
        if values.dtype.kind in "iu" and len(values) and max(-int(values.min()), int(values.max())) > _EXACT:
            raise ValueError(
                f"{self.path}: column {name!r} has integers above {_EXACT}, which float32 rounds; leave it out"
            )
        return np.ascontiguousarray(values, dtype=np.uint8 if values.dtype.kind == "b" else np.float32)

    def _to_fields(self, jets: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        fields = {}
        for name, column in self.layout.fields.items():
            values = self._fill(name, jets[column])
            if values.dtype.kind == "f":
                scale = UNITS[self.layout.units] if name in MOMENTUM_FIELDS else 1.0
                fields[name] = (values if scale == 1 else values * np.float64(scale)).astype(np.float32)
            else:
                fields[name] = values.astype(np.int64)
        if "jet_pt" in fields and "jet_energy" not in fields:
            momentum = np.float64(fields["jet_pt"]) * np.cosh(np.float64(fields["jet_eta"]))
            fields["jet_energy"] = np.hypot(momentum, fields["jet_mass"]).astype(np.float32)
        return fields

    def _read_labels(self, jets: dict[str, np.ndarray], rows: int, first_row: int) -> np.ndarray:
        if self._class_of_file is not None:
            return np.full(rows, self._class_of_file, dtype=np.int64)
        if not self.layout.label_columns or not self._reads_labels:
            return np.full(rows, -1, dtype=np.int64)
        if isinstance(self.layout.label, str):
            return self._read_indices(jets[self.layout.label], first_row)
        names = self.layout.label_columns
        flags = np.stack([jets[name] for name in names], axis=1)
        if not self.labelled or self.layout.other_labels == "drop":
            return class_if_told(flags)
        return class_of_flags(self.path, names, flags, np.arange(first_row, first_row + rows))

    def _read_indices(self, found: np.ndarray, first_row: int) -> np.ndarray:
        class_of_value = self.layout.class_of_value
        if found.dtype.kind == "U" and self.layout.label_values is None:
            class_of_value = {name: index for index, name in enumerate(self.layout.classes)}
        values, place = np.unique(found, return_inverse=True)
        label = np.array([class_of_value.get(value, -1) for value in values.tolist()], dtype=np.int64)[place]
        wrong = np.flatnonzero(label < 0)
        if len(wrong) and self.labelled and self.layout.other_labels == "refuse":
            is_range = self.layout.label_values is None and found.dtype.kind != "U"
            expected = (
                f"0 to {len(class_of_value) - 1}" if is_range else f"one of {', '.join(map(str, class_of_value))}"
            )
            raise ValueError(
                f"{self.path}: column {self.layout.label!r} must be {expected}, not {found[wrong[0]]} as in row "
                f"{first_row + wrong[0]}; correct the label, or write 'other_labels: drop' in the layout"
            )
        return label


def class_of_flags(path: Path, names: Sequence[str], flags: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The class, int64 (jet,), whose flag is set.

    Args:
        path: the file, for messages.
        names: of the flags, one per class.
        flags: (jet, class).
        rows: row of each jet in the file, for messages.

    Raises:
        ValueError: if a flag is neither 0 nor 1, or not exactly one flag of a jet is 1.
    """
    wrong_rows, columns = np.nonzero((flags != 0) & (flags != 1))
    if len(wrong_rows):
        row, column = wrong_rows[0], columns[0]
        raise ValueError(
            f"{path}: column {names[column]!r} must be 0 or 1, not {flags[row, column]} as in row {rows[row]}; "
            "correct the label"
        )
    wrong = np.flatnonzero(flags.sum(axis=1) != 1)
    if len(wrong):
        found = [name for name, value in zip(names, flags[wrong[0]], strict=True) if value]
        raise ValueError(
            f"{path}: row {rows[wrong[0]]} has the labels {', '.join(found) or 'none'}; exactly one of {names[0]!r} to "
            f"{names[-1]!r} must be 1, correct the labels"
        )
    return flags.argmax(axis=1)


def class_if_told(flags: np.ndarray) -> np.ndarray:
    """The same for flags (jet, class) that need not be valid; -1 where they are not those of one class."""
    is_told = ((flags == 0) | (flags == 1)).all(axis=1) & (flags.sum(axis=1) == 1)
    return np.where(is_told, flags.argmax(axis=1), -1)


def whole_labels(path: Path, name: str, label: np.ndarray, first_row: int, labelled: bool) -> np.ndarray:
    """Labels int64 (jet,) that a file stores as any kind of number.

    Args:
        path: the file, for messages.
        name: what messages call the label.
        label: (jet,).
        first_row: row of the first jet in the file, for messages.
        labelled: whether each must be a whole number; if not, it is -1 where it is not one.

    Raises:
        ValueError: if one is not.
    """
    is_whole = label == np.trunc(label)
    if labelled and not is_whole.all():
        wrong = np.flatnonzero(~is_whole)[0]
        raise ValueError(f"{path}: {name} of row {first_row + wrong} is {label[wrong]}; correct it")
    return np.where(is_whole, label, -1).astype(np.int64)


def _count_true(flags: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """How many of the ``counts`` flags of each row are set."""
    before = np.concatenate([[0], np.cumsum(flags)])
    ends = np.cumsum(counts)
    return before[ends] - before[ends - counts]
