"""Files with one event per row and several jets in it, read as files with one jet per row."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from zoo.data.formats.columns import Block, Columns, Kind, Lists
from zoo.data.hints import did_you_mean

#: Columns that are added to every such file: the row of the event, and the number of the jet in it.
EVENT, NUMBER = "jets/event", "jets/number"

#: Keys of ``jets`` in a layout, with what they name.
KEYS = ("nested", "index", "particles", "links")


@dataclasses.dataclass(frozen=True)
class Grouping:
    """How the particles of an event are assigned to its jets, in one of three ways.

    Args:
        nested: any column of lists of lists: the columns of the particles are lists of lists, one list per jet.
        index: column with the number of the jet in the event for each link; negative ones belong to no jet.
        particles: with ``index``: column with the number of the particle, in the columns of the particles, for each
            link; None: the links are the particles.
        links: column of lists of lists: for each jet the numbers of its particles in the columns of the particles;
            negative ones mean no particle. The links of ATLAS files are such numbers.

    Raises:
        ValueError: if the arguments give none of these ways.
    """

    nested: str | None = None
    index: str | None = None
    particles: str | None = None
    links: str | None = None

    def __post_init__(self) -> None:
        given = [key for key in ("nested", "index", "links") if getattr(self, key) is not None]
        if len(given) != 1 or (self.particles is not None and self.index is None):
            raise ValueError(
                "jets: must have one of nested (a column of lists of lists), index (number of the jet of each link, "
                f"with particles, that of the particle) and links (lists of numbers of particles), not {given}"
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it names."""
        return tuple(name for key in KEYS if (name := getattr(self, key)) is not None)


def jets_of_events(
    path: Path, columns: Columns, grouping: Grouping, particles: Sequence[str], jets: Sequence[str]
) -> Columns:
    """The columns with one jet per row.

    Args:
        path: the file, for messages.
        columns: with one event per row.
        grouping: how the particles belong to the jets.
        particles: columns of the particles.
        jets: columns of the jets, or of the events, whose numbers all jets of an event get. With ``index`` there must
            be at least one of jets, which gives their number.

    Raises:
        ValueError: if a column is missing or of the wrong kind.
    """
    for name in (*grouping.columns, *particles, *jets):
        if name not in columns.names and name not in (EVENT, NUMBER):
            raise ValueError(f"{path}: column {name!r} is missing; {did_you_mean(name, columns.names)}")
    of_particles = dict.fromkeys(particles)
    of_jets = [name for name in jets if name not in (EVENT, NUMBER) and columns.kind(name).is_list]
    counted = grouping.nested or grouping.links or next(iter(of_jets), None)
    if counted is None:
        raise ValueError(
            f"{path}: nothing says how many jets an event has; name a column of the jets in 'fields', such as their pt"
        )
    for name in (grouping.nested, grouping.links):
        if name is not None and not columns.kind(name).is_nested:
            raise ValueError(f"{path}: column {name!r} must hold lists of lists, not {columns.kind(name)}")
    for name in of_particles:
        kind = columns.kind(name)
        if not kind.is_list or kind.is_nested != (grouping.nested is not None):
            expected = "lists of lists" if grouping.nested else "lists"
            raise ValueError(f"{path}: column {name!r} of the particles must hold {expected} of numbers, not {kind}")
    return _Jets(path, columns, grouping, frozenset(of_particles), frozenset(of_jets), counted)


@dataclasses.dataclass(frozen=True)
class _Jets:
    """Columns with one jet per row; see `jets_of_events`."""

    path: Path
    columns: Columns
    grouping: Grouping
    particles: frozenset[str]
    jets: frozenset[str]
    counted: str

    @property
    def names(self) -> Sequence[str]:
        return [*self.columns.names, EVENT, NUMBER]

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        """Number of jets up to the end of each event, int64 (event,)."""
        events = self.columns.count_rows([self.counted])
        blocks = self.columns.blocks([self.counted], 0, events, 65536) if events else ()
        return np.cumsum(np.concatenate([np.zeros(0, np.int64), *(block[self.counted].counts for block in blocks)]))

    def count_rows(self, names: Sequence[str]) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def kind(self, name: str) -> Kind:
        if name in (EVENT, NUMBER):
            return Kind(False, np.dtype(np.int64))
        kind = self.columns.kind(name)
        return Kind(name in self.particles, kind.dtype)

    def blocks(self, names: Sequence[str], start: int, stop: int, size: int) -> Iterator[Block]:
        needed = list(dict.fromkeys([name for name in names if name not in (EVENT, NUMBER)] + [self.counted]))
        needed += [name for name in self.grouping.columns if name not in needed]
        for first in range(start, stop, size):
            last = min(first + size, stop)
            event, end = np.searchsorted(self._ends, [first, last - 1], side="right").tolist()
            before = int(self._ends[event - 1]) if event else 0
            rows = {name: [] for name in names}
            for block in self.columns.blocks(needed, event, end + 1, size):
                jets = self._to_jets(block, names, event)
                event += len(block[self.counted].counts)
                for name in names:
                    rows[name].append(jets[name])
            yield {name: _cut(parts, first - before, last - before) for name, parts in rows.items()}

    def _to_jets(self, block: Block, names: Sequence[str], first_event: int) -> Block:
        """All jets of some events."""
        counts = block[self.counted].counts
        event = np.repeat(np.arange(len(counts)), counts)
        own = {EVENT: event + first_event, NUMBER: np.arange(len(event)) - (np.cumsum(counts) - counts)[event]}
        jet_counts, place = self._find_particles(block, counts, first_event)
        found: Block = {}
        for name in names:
            if name in own:
                found[name] = own[name]
            elif name in self.particles and self.grouping.nested:
                self._require_counts(name, block[name].counts, counts, first_event)
                found[name] = block[name].lists
            elif name in self.particles:
                found[name] = Lists(jet_counts, self._pick(name, block[name], place, first_event))
            elif name in self.jets:
                self._require_counts(name, block[name].counts, counts, first_event)
                found[name] = block[name].values
            else:
                found[name] = block[name][event]
        return found

    def _find_particles(
        self, block: Block, counts: np.ndarray, first_event: int
    ) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """Number of particles of each jet, and the event and number there of each particle, jet by jet."""
        grouping = self.grouping
        if grouping.links is not None:
            lists = block[grouping.links].lists
            row = np.repeat(np.arange(len(lists.counts)), lists.counts)
            is_linked = lists.values >= 0
            row, particle = row[is_linked], lists.values[is_linked]
            event = np.repeat(np.arange(len(counts)), counts)[row]
            return np.bincount(row, minlength=len(lists.counts)), (event, particle)
        if grouping.index is None:
            return counts, (np.zeros(0, np.int64), np.zeros(0, np.int64))
        jet = block[grouping.index]
        event = np.repeat(np.arange(len(counts)), jet.counts)
        own = np.arange(len(event)) - (np.cumsum(jet.counts) - jet.counts)[event]
        particle = own
        if grouping.particles is not None:
            self._require_counts(grouping.particles, block[grouping.particles].counts, jet.counts, first_event)
            particle = block[grouping.particles].values
        self._require_within(grouping.index, jet.values, counts[event], event + first_event)
        is_linked = (jet.values >= 0) & (particle >= 0)
        event, particle = event[is_linked], particle[is_linked]
        row = (np.cumsum(counts) - counts)[event] + jet.values[is_linked].astype(np.int64)
        order = np.argsort(row, kind="stable")
        return np.bincount(row, minlength=int(counts.sum())), (event[order], particle[order])

    def _pick(self, name: str, column: Lists, place: tuple[np.ndarray, np.ndarray], first_event: int) -> np.ndarray:
        event, particle = place
        self._require_within(name, particle, column.counts[event], event + first_event)
        starts = np.cumsum(column.counts) - column.counts
        return column.values[starts[event] + particle.astype(np.int64)]

    def _require_within(self, name: str, number: np.ndarray, available: np.ndarray, event: np.ndarray) -> None:
        wrong = np.flatnonzero(number >= available)
        if len(wrong):
            raise ValueError(
                f"{self.path}: in event {event[wrong[0]]} a link names number {number[wrong[0]]} for {name!r}, of "
                f"which there are {available[wrong[0]]}; correct 'jets' of the layout"
            )

    def _require_counts(self, name: str, found: np.ndarray, expected: np.ndarray, first_event: int) -> None:
        wrong = np.flatnonzero(found != expected)
        if len(wrong):
            raise ValueError(
                f"{self.path}: column {name!r} has {found[wrong[0]]} entries in event {first_event + wrong[0]}, "
                f"others have {expected[wrong[0]]}; correct the layout"
            )


def _cut(parts: Sequence[np.ndarray | Lists], start: int, stop: int) -> np.ndarray | Lists:
    """The rows ``start`` to ``stop`` of some joined parts."""
    if not isinstance(parts[0], Lists):
        return np.concatenate(parts)[start:stop]
    counts = np.concatenate([part.counts for part in parts])
    ends = np.cumsum(counts)
    first, last = (int(ends[row - 1]) if row else 0 for row in (start, stop))
    return Lists(counts[start:stop], np.concatenate([part.values for part in parts])[first:last])
