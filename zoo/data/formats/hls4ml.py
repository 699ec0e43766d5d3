"""The hls4ml LHC jets: zero-padded arrays in HDF5 whose columns are named in the file."""

from pathlib import Path

import h5py

from zoo.data.datasets import DATASETS
from zoo.data.formats.columns import Hdf5Columns, require_stored
from zoo.data.formats.layout import Layout, LayoutFile

FACTS = DATASETS["hls4ml"]

PARTICLES, JETS = "jetConstituentList", "jets"

#: The data set that names the positions on the last axis of each array.
_NAMES = {PARTICLES: "particleFeatureNames", JETS: "jetFeatureNames"}

LAYOUT = Layout(
    name=FACTS.name,
    classes=FACTS.classes,
    momenta={
        "px": f"{PARTICLES}/j1_px",
        "py": f"{PARTICLES}/j1_py",
        "pz": f"{PARTICLES}/j1_pz",
        "energy": f"{PARTICLES}/j1_e",
    },
    label=tuple(f"{JETS}/{name}" for name in FACTS.label_columns),
    fields={name: f"{JETS}/{name}" for name in ("j_pt", "j_eta", "j_mass")},
    max_particles=FACTS.max_particles,
)


def find_hls4ml(path: Path, file: h5py.File, labelled: bool = True) -> LayoutFile:
    """The jets of an open file; its particles are massive, and its jets have no azimuth.

    Note:
        The public files give 17 names for 16 columns of particles; the last name is one too many.

    Raises:
        ValueError: if a column is missing.
    """
    names = {array: _read_names(path, file, array, member) for array, member in _NAMES.items()}
    return LayoutFile(path, Hdf5Columns(path, file, names), LAYOUT, labelled)


def _read_names(path: Path, file: h5py.File, array: str, member: str) -> list[str]:
    data, names = file.get(array), file.get(member)
    for name, found, ndim in ((array, data, 3 if array == PARTICLES else 2), (member, names, 1)):
        if not isinstance(found, h5py.Dataset) or found.ndim != ndim:
            raise ValueError(f"{path}: data set {name!r} with {ndim} axes is missing; is it a file of hls4ml jets?")
    if not h5py.check_string_dtype(names.dtype):
        raise ValueError(f"{path}: data set {member!r} must hold names, not {names.dtype}; write them as strings")
    require_stored(path, names)
    read = [name.decode() if isinstance(name, bytes) else str(name) for name in names[:]]
    if len(read) < data.shape[-1]:
        raise ValueError(
            f"{path}: {member!r} has {len(read)} names for {data.shape[-1]} columns of {array!r}; add them"
        )
    needed = {*LAYOUT.lists, *LAYOUT.numbers}
    twice = [name for name in read if read.count(name) > 1 and f"{array}/{name}" in needed]
    if twice:
        raise ValueError(f"{path}: {member!r} has the name {twice[0]!r} twice; correct the names")
    return read
