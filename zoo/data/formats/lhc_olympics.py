"""The LHC Olympics 2020: events as rows of a pandas frame in HDF5, format 'fixed'."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np

from zoo.data.datasets import DATASETS
from zoo.data.formats.columns import BLOCK_BYTES, Block, Kind, Lists, damaged, require_stored
from zoo.data.formats.layout import Layout, LayoutFile, whole_labels

FACTS = DATASETS["lhc_olympics"]

(LABEL,) = FACTS.label_columns
_COMPONENTS = ("pt", "eta", "phi")

LAYOUT = Layout(
    name=FACTS.name,
    classes=FACTS.classes,
    momenta={name: name for name in _COMPONENTS},
    label=LABEL,
    max_particles=FACTS.max_particles,
)


def find_frame(file: h5py.File) -> str | None:
    """Name of the group that holds a pandas frame of the format 'fixed'; None if there is none."""
    return next(
        (name for name, group in file.items() if isinstance(group, h5py.Group) and "block0_items" in group), None
    )


def find_lhc_olympics(path: Path, file: h5py.File, labelled: bool = True) -> LayoutFile:
    """The events of an open file, with massless particles; also a black box, which has no label, if none is needed.

    Raises:
        ValueError: if the rows are not labelled events, or hold pickled objects.
    """
    frame = _Frame(path, _find_blocks(path, file[find_frame(file)]), labelled=labelled)
    width = frame.width
    if width % 3 == 0 and labelled:
        raise ValueError(
            f"{path}: rows of {width} numbers have no label, which is last; the labels of a black box are in a "
            "file of their own, add them as a further column"
        )
    if width % 3 == 2 or width // 3 > FACTS.max_particles:
        raise ValueError(
            f"{path}: rows must be at most {FACTS.max_particles} x (pt, eta, phi) and a label, not {width} "
            "numbers; is it a file of the LHC Olympics?"
        )
    return LayoutFile(path, frame, LAYOUT, labelled)


def _find_blocks(path: Path, group: h5py.Group) -> dict[h5py.Dataset, np.ndarray]:
    """The arrays of a frame, each with the columns of the frame that it holds."""
    blocks = {}
    for number in range(sum(name.endswith("_items") for name in group)):
        items, values = (group.get(f"block{number}_{part}") for part in ("items", "values"))
        if not isinstance(items, h5py.Dataset) or not isinstance(values, h5py.Dataset):
            raise ValueError(f"{path}: block {number} of the frame {group.name!r} is incomplete; fetch it again")
        for data in (items, values):
            require_stored(path, data)
            if data.dtype.kind not in "iuf":
                raise ValueError(
                    f"{path}: {data.name!r} holds {data.dtype} instead of numbers; objects are pickled and never read, "
                    "write numbers"
                )
        if values.ndim != 2 or values.shape[1] != len(items):
            raise ValueError(f"{path}: {values.name!r} is {values.shape} for {len(items)} columns; fetch it again")
        blocks[values] = items[:].astype(np.int64)
    found = np.sort(np.concatenate(list(blocks.values())))
    if not np.array_equal(found, np.arange(len(found))) or len({len(values) for values in blocks}) != 1:
        raise ValueError(f"{path}: the columns of the frame {group.name!r} are not 0, 1, 2, ...; fetch it again")
    return blocks


@dataclasses.dataclass(frozen=True)
class _Frame:
    """The numbers of each row: pt, eta and phi of each particle in turn, and the label, if there is one."""

    path: Path
    data: dict[h5py.Dataset, np.ndarray]
    labelled: bool

    @property
    def names(self) -> tuple[str, ...]:
        return (*_COMPONENTS, LABEL) if self.width % 3 else _COMPONENTS

    @property
    def width(self) -> int:
        return sum(map(len, self.data.values()))

    def count_rows(self, names: Sequence[str]) -> int:
        return len(next(iter(self.data)))

    def kind(self, name: str) -> Kind:
        return Kind(False, np.dtype(np.int64)) if name == LABEL else Kind(True, np.dtype(np.float64), True)

    def blocks(self, names: Sequence[str], start: int, stop: int, size: int) -> Iterator[Block]:
        size = min(size, BLOCK_BYTES // (8 * self.width))
        for first in range(start, stop, size):
            rows = self._read(first, min(first + size, stop))
            particles = self.width // 3
            counts = np.full(len(rows), particles)
            lists = {
                name: Lists(counts, rows[:, i : 3 * particles : 3].reshape(-1)) for i, name in enumerate(_COMPONENTS)
            }
            if LABEL in self.names:
                lists[LABEL] = whole_labels(self.path, "the label", rows[:, -1], first, self.labelled)
            yield lists

    def _read(self, first: int, last: int) -> np.ndarray:
        rows = np.empty((last - first, self.width))
        for values, items in self.data.items():
            try:
                rows[:, items] = values[first:last]
            except (OSError, RuntimeError) as error:
                raise damaged(self.path, error, values.name) from error
        return rows
