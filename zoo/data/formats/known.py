"""The known kinds of files, recognised by their content, and the functions that open them."""

import contextlib
import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

import h5py

from zoo.data.formats.columns import HDF5_MAGIC, PARQUET_MAGIC, ROOT_MAGIC, Columns, open_columns, open_hdf5_file
from zoo.data.formats.dark_machines import is_dark_machines, open_dark_machines, open_event_lines, with_rounding
from zoo.data.formats.formulas import column_names, with_formulas
from zoo.data.formats.hls4ml import find_hls4ml
from zoo.data.formats.jetclass import open_jetclass_parquet, open_jetclass_root
from zoo.data.formats.jetnet import find_jetnet
from zoo.data.formats.jets_of_events import jets_of_events
from zoo.data.formats.layout import Layout, LayoutFile
from zoo.data.formats.lhc_olympics import find_frame, find_lhc_olympics
from zoo.data.formats.quark_gluon import NPZ_MAGIC, open_quark_gluon
from zoo.data.formats.top_tagging import find_top_tagging
from zoo.data.store import JetTable
from zoo.data.weaver.data_config import WeaverYaml
from zoo.data.weaver.reader import open_with_weaver

#: What says which columns of a file hold what.
Description = Layout | WeaverYaml


class JetFile(Protocol):
    """An open file of a format other than the zoo's own, bad jets included."""

    notes: Counter[str]  #: what has been done with particles and numbers so far, and how often

    def __len__(self) -> int:
        """Number of rows."""

    def chunks(self, start: int, stop: int, size: int) -> Iterator[JetTable]:
        """The rows ``start`` to ``stop`` in order, at most ``size`` at a time."""


class OpenFile(NamedTuple):
    """An open file and the name of its format."""

    format: str
    jets: JetFile


class _Format(NamedTuple):
    """A kind of file and the function that opens it, called with its path and whether its jets must be labelled."""

    name: str
    open: Callable[[Path, bool], AbstractContextManager[JetFile]]


class _Hdf5Format(NamedTuple):
    """A kind of HDF5 file, and the function that finds the jets in an open one."""

    name: str
    find: Callable[[Path, h5py.File, bool], JetFile]


#: The kind of a file by its first bytes; HDF5 and text need a closer look.
_FORMATS = {
    ROOT_MAGIC: _Format("JetClass or JetClass-II, ROOT", open_jetclass_root),
    PARQUET_MAGIC: _Format("JetClass or JetClass-II, parquet", open_jetclass_parquet),
    NPZ_MAGIC: _Format("quark and gluon jets of EnergyFlow, NumPy archive", open_quark_gluon),
}

#: The kind of an HDF5 file by a member that no other kind has.
_HDF5_FORMATS = {
    "table/table": _Hdf5Format("Top Tagging Reference, HDF5", find_top_tagging),
    "jetConstituentList": _Hdf5Format("hls4ml LHC jets, HDF5", find_hls4ml),
    "particle_features": _Hdf5Format("JetNet, HDF5", find_jetnet),
}
_LHC_OLYMPICS = _Hdf5Format("LHC Olympics 2020, HDF5", find_lhc_olympics)
_DARK_MACHINES = _Format("DarkMachines events, text", open_dark_machines)

#: The zoo's own file, which `zoo.data.store` opens.
STORE = "jets of the zoo, Arrow"


def known_formats() -> tuple[str, ...]:
    """Names of the formats that need no layout."""
    formats = (*_FORMATS.values(), *_HDF5_FORMATS.values(), _LHC_OLYMPICS, _DARK_MACHINES)
    return (STORE, *(known.name for known in formats))


@contextlib.contextmanager
def open_known(path: Path, start: bytes, layout: Description | None, *, labelled: bool) -> Iterator[OpenFile]:
    """Open a file of a format other than the zoo's own, recognised by its content.

    Args:
        path: file.
        start: its first bytes, see `zoo.data.formats.columns.first_bytes`.
        layout: which columns of a ROOT, parquet or HDF5 file, or of events in text, hold what.
        labelled: whether the file must give the class of each jet; if not, it is -1 where the class is missing.

    Raises:
        ValueError: if the file is of no known kind or damaged, also while it is open; the message says what the file
            holds and which kinds are known.
    """
    if layout is None and start.startswith(HDF5_MAGIC):
        with open_hdf5_file(path) as file:
            name, find = _find_hdf5_format(path, file)
            yield OpenFile(name, find(path, file, labelled))
        return
    name, opener = _find_format(path, start, layout)
    with opener(path, labelled) as jets:
        yield OpenFile(name, jets)


def _find_format(path: Path, start: bytes, layout: Description | None) -> _Format:
    if isinstance(layout, WeaverYaml):
        return _Format(f"weaver's data file {layout.name!r}", functools.partial(_open_with_weaver, start, layout))
    if layout is not None:
        opener = functools.partial(open_columns, start=start, key=layout.tree)
        if is_dark_machines(start):
            opener, layout = open_event_lines, with_rounding(layout)
        return _Format(f"layout {layout.name!r}", functools.partial(_open_described, opener, layout))
    for magic, known in _FORMATS.items():
        if start.startswith(magic):
            return known
    if is_dark_machines(start):
        return _DARK_MACHINES
    raise _unknown(path, f"starts with {start[:24]!r}" if start else "is empty")


def _open_with_weaver(
    start: bytes, description: WeaverYaml, path: Path, labelled: bool
) -> AbstractContextManager[JetFile]:
    described = dataclasses.replace(description, is_labelled=description.is_labelled and labelled)
    return open_with_weaver(path, start, described)


@contextlib.contextmanager
def _open_described(
    opener: Callable[[Path], AbstractContextManager[Columns]], layout: Layout, path: Path, labelled: bool
) -> Iterator[LayoutFile]:
    with opener(path) as columns:
        if layout.jets is not None:
            absent = () if labelled else [name for name in layout.label_columns if name not in columns.names]
            needed = [name for name in layout.numbers if name not in absent]
            particles, jets = (column_names(of, columns.names) for of in (layout.lists, needed))
            columns = jets_of_events(path, columns, layout.jets, particles, jets)
        columns = with_formulas(path, columns, (*layout.lists, *layout.fields.values()))
        yield LayoutFile(path, columns, layout, labelled)


def _find_hdf5_format(path: Path, file: h5py.File) -> _Hdf5Format:
    for member, known in _HDF5_FORMATS.items():
        if member in file:
            return known
    if find_frame(file) is not None:
        return _LHC_OLYMPICS
    raise _unknown(path, f"is an HDF5 file with {', '.join(sorted(file)[:12]) or 'nothing'}")


def _unknown(path: Path, found: str) -> ValueError:
    return ValueError(
        f"{path} {found}, which is none of the known formats ({'; '.join(known_formats())}); describe a ROOT, "
        "parquet or HDF5 file in a layout, or check that it is complete"
    )
