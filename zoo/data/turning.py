"""How columns change when an event is rotated about the beam or mirrored: from their names, or as a user says."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from zoo.physics.quantities import change_of, other_component

#: Rows of a file that are examined for the range of an azimuth.
SAMPLE_ROWS = 10_000
#: Azimuths with more different values beyond a full turn are not in radians; a few may mean "no direction".
FEW = 3


@dataclasses.dataclass
class ColumnChanges:
    """How columns change when an event is rotated or mirrored, if their names do not say it.

    Args:
        azimuths: angles in radians about the beam, such as of a vertex.
        vectors: pairs of columns, the components along x and y of a vector; a cosine and a sine are one, too.
        mirrored: columns that change sign under a reflection, such as signed impact parameters.
        unchanged: columns that stay as they are.

    Raises:
        ValueError: if a column is given twice, or a vector has not two components.
    """

    azimuths: list[str] = dataclasses.field(default_factory=list)
    vectors: list[list[str]] = dataclasses.field(default_factory=list)
    mirrored: list[str] = dataclasses.field(default_factory=list)
    unchanged: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        if any(len(vector) != 2 for vector in self.vectors):
            raise ValueError(f"vectors: must be pairs of columns along x and y, not {self.vectors}")
        if twice := sorted({name for name in self.names if self.names.count(name) > 1}):
            raise ValueError(f"augmentation_columns: {twice[0]!r} is given twice")

    @property
    def names(self) -> list[str]:
        """All columns that are named."""
        return [*self.azimuths, *(name for vector in self.vectors for name in vector), *self.mirrored, *self.unchanged]

    def of(self, name: str) -> str | None:
        """The key that names the column; None if none does."""
        for key in ("azimuths", "mirrored", "unchanged"):
            if name in getattr(self, key):
                return key
        return "vectors" if any(name in vector for vector in self.vectors) else None

    def partner(self, name: str) -> str | None:
        """The other component of the vector that the column belongs to; None if no vector is declared with it."""
        return next((vector[vector[0] == name] for vector in self.vectors if name in vector), None)


@dataclasses.dataclass(frozen=True)
class Turning:
    """How some columns change: azimuths with the start of their range, vectors (x, y), and mirrored ones."""

    azimuths: Mapping[str, float]
    vectors: tuple[tuple[str, str], ...]
    mirrored: tuple[str, ...]

    @classmethod
    def of(cls, names: Iterable[str], tables: Sequence[Mapping[str, np.ndarray]], changes: ColumnChanges) -> "Turning":
        """How the columns that a model needs change.

        Args:
            names: of the columns.
            tables: all columns of each file, (row,) each.
            changes: how columns change whose names do not say it.

        Raises:
            ValueError: if it is not known how a column of floats changes, the other component of a vector is missing,
                or azimuths are not in radians.
        """
        azimuths, vectors, mirrored = {}, {}, []
        for name in names:
            samples = [table[name][:SAMPLE_ROWS] for table in tables if name in table]
            if not samples:
                continue
            kind = changes.of(name) or change_of(name)
            if kind is None and all(sample.dtype.kind in "iu" for sample in samples):
                kind = "unchanged"  # whole numbers are counts and types
            if kind == "mirrored" and changes.of(name) is None and all((sample >= 0).all() for sample in samples):
                kind = "unchanged"  # a length, such as the distance to a vertex, has no sign
            if kind == "azimuths":
                azimuths[name] = _start_of_range(name, samples)
            elif kind == "mirrored":
                mirrored.append(name)
            elif kind == "vectors":
                vectors[_vector(name, tables, changes)] = None
            elif kind is None:
                raise ValueError(_unknown(name))
        return cls(azimuths, tuple(vectors), tuple(mirrored))

    @property
    def names(self) -> tuple[str, ...]:
        """The columns needed, including the other components of vectors."""
        return (*self.azimuths, *dict.fromkeys(name for vector in self.vectors for name in vector), *self.mirrored)

    def turn(self, columns: Mapping[str, np.ndarray], sign: np.ndarray, angle: np.ndarray) -> dict[str, np.ndarray]:
        """Columns of rows that are mirrored by a ``sign`` (row,) of y and then rotated by an ``angle`` (row,).

        A value that is not an angle, such as -99 for an event without a direction, stays.
        """
        turned = {name: sign * columns[name] for name in self.mirrored if name in columns}
        for name in self.azimuths.keys() & columns.keys():
            start, values = self.azimuths[name], columns[name]
            angles = np.remainder(sign * values + angle - start, 2 * math.pi) + start
            turned[name] = np.where(np.abs(values) > 2 * math.pi, values, angles)
        for x, y in self.vectors:
            if x in columns and y in columns:
                turned[x], turned[y] = turn_vector(columns[x], sign * columns[y], angle)
        return {name: turned.get(name, values).astype(values.dtype, copy=False) for name, values in columns.items()}


def turn_vector(x: np.ndarray, y: np.ndarray, angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Components along x and y of vectors rotated by an ``angle`` (row,) in radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    return cos * x - sin * y, sin * x + cos * y


def _start_of_range(name: str, samples: Sequence[np.ndarray]) -> float:
    values = np.concatenate([sample.astype(np.float64) for sample in samples])
    is_angle = np.abs(values) <= 2 * math.pi
    if len(np.unique(values[~is_angle])) > FEW:
        raise ValueError(
            f"augmentation: {name!r} is an azimuth in radians by its name, but holds numbers such as "
            f"{values[~is_angle][0]:.6g}; name it in data.augmentation_columns, under what it is, or convert it"
        )
    return 0.0 if values[is_angle].max(initial=0.0) > math.pi + 1e-3 else -math.pi


def _vector(name: str, tables: Sequence[Mapping[str, np.ndarray]], changes: ColumnChanges) -> tuple[str, str]:
    """The vector (x, y) that a column is a component of."""
    partner = changes.partner(name)
    if partner is None:
        partner, is_x = other_component(name)
    else:
        is_x = [name, partner] in [list(vector) for vector in changes.vectors]
    if not all(partner in table for table in tables):
        raise ValueError(
            f"augmentation: {name!r} turns together with {partner!r}, which the files have not; read it too, or say in "
            "data.augmentation_columns what the column is: one of azimuths, vectors, mirrored and unchanged"
        )
    return (name, partner) if is_x else (partner, name)


def _unknown(name: str) -> str:
    return (
        f"augmentation: nothing says how {name!r} changes when an event is turned or mirrored; name it in "
        "data.augmentation_columns, under azimuths, vectors, mirrored or unchanged"
    )
