"""Random rotations and reflections of whole events, which change no physics, drawn for every event and epoch."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from zoo.data.datasets import JET_COLUMNS
from zoo.data.packed import PackedJets
from zoo.data.store import JetTable
from zoo.data.turning import ColumnChanges, Turning, turn_vector

#: The kinds of transformations, in the order in which they are applied.
KINDS = ("reflection", "rotation")


@dataclasses.dataclass(frozen=True)
class Augmentation:
    r"""Transforms each event as a whole, by random numbers that depend only on its row, the epoch and the seed.

    .. math:: p_y \leftarrow \pm p_y, \qquad
        \begin{pmatrix} p_x \\ p_y \end{pmatrix} \leftarrow
        \begin{pmatrix} \cos\alpha & -\sin\alpha \\ \sin\alpha & \cos\alpha \end{pmatrix}
        \begin{pmatrix} p_x \\ p_y \end{pmatrix}

    with either sign and any angle :math:`\alpha` equally probable. Columns that change under a rotation or reflection
    are transformed too, see `zoo.data.turning` and `zoo.physics.quantities`.

    Args:
        kinds: some of `KINDS`.
        seed: of the draws.
        changes: how columns change whose names do not say it.

    Raises:
        ValueError: if a kind is unknown or given twice.
    """

    kinds: tuple[str, ...]
    seed: int
    changes: ColumnChanges = dataclasses.field(default_factory=ColumnChanges)

    def __post_init__(self) -> None:
        if not set(self.kinds) <= set(KINDS) or len(set(self.kinds)) < len(self.kinds):
            raise ValueError(f"augmentation: must hold {' and '.join(KINDS)}, each once at most, not {self.kinds}")

    def of(self, tables: Sequence[JetTable], columns: Sequence[str], fields: Sequence[str]) -> "EventAugmentation":
        """The augmentation for the events of some tables, of which a model needs ``columns`` and ``fields``.

        Raises:
            ValueError: as of `Turning.of`, or if ``changes`` name a column that no table has.
        """
        for name in self.changes.names:
            if not any(name in table.particles or name in table.fields for table in tables):
                raise ValueError(
                    f"augmentation_columns: no file has a column {name!r}; correct the name, or leave it out"
                )
        return EventAugmentation(
            self,
            Turning.of(columns, [table.particles for table in tables], self.changes),
            Turning.of((*JET_COLUMNS, *fields), [table.fields for table in tables], self.changes),
        )


@dataclasses.dataclass(frozen=True)
class EventAugmentation:
    """An `Augmentation`, and how the columns of ``particles`` and of ``events`` change."""

    drawn: Augmentation
    particles: Turning
    events: Turning

    def transform(self, jets: PackedJets, epoch: int) -> PackedJets:
        """The events as the model sees them in an epoch."""
        kinds, seed = self.drawn.kinds, self.drawn.seed
        sign, angle = np.ones(len(jets.counts)), np.zeros(len(jets.counts))
        if "reflection" in kinds:
            sign = np.where(uniform((seed, epoch, KINDS.index("reflection")), jets.index) < 0.5, -1.0, 1.0)
        if "rotation" in kinds:
            angle = 2 * math.pi * uniform((seed, epoch, KINDS.index("rotation")), jets.index)
        of_particles = np.repeat(sign, jets.counts), np.repeat(angle, jets.counts)
        of_jets = {name: values for name, values in jets.columns.items() if name in JET_COLUMNS}
        columns = {name: values for name, values in jets.columns.items() if name not in JET_COLUMNS}
        return jets._replace(
            four_momenta=_turn_momenta(jets.four_momenta, *of_particles),
            columns=self.particles.turn(columns, *of_particles) | self.events.turn(of_jets, sign, angle),
            fields=self.events.turn(jets.fields, sign, angle),
        )


def _turn_momenta(four_momenta: np.ndarray, sign: np.ndarray, angle: np.ndarray) -> np.ndarray:
    energy, px, py, pz = four_momenta.T
    turned = np.empty((4, len(energy)), dtype=four_momenta.dtype)
    turned[0], turned[3] = energy, pz
    turned[1], turned[2] = turn_vector(px, sign * py, angle)
    return turned.T


def uniform(key: tuple[int, ...], rows: np.ndarray) -> np.ndarray:
    """A float64 number in [0, 1) for each row, a pure function of the key and the row.

    References:
        Fast splittable pseudorandom number generators (2014), doi:10.1145/2660193.2660195: its mixing of bits.
    """
    state = np.zeros(1, dtype=np.uint64)
    for part in (*key, rows):
        state = _mix(state ^ np.asarray(part).astype(np.uint64))
    return (state >> np.uint64(11)) * 2.0**-53


def _mix(state: np.ndarray) -> np.ndarray:
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
