"""JetNet: the particles of each jet relative to it, one class per file, in HDF5."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np

from zoo.data.datasets import DATASETS
from zoo.data.formats.columns import Block, Columns, Hdf5Columns, Kind, Lists
from zoo.data.formats.layout import Layout, LayoutFile

FACTS = DATASETS["jetnet"]

_PARTS = {
    "particle_features": ("etarel", "phirel", "ptrel", "mask"),
    "jet_features": ("pt", "eta", "mass", "num_particles"),
}
_PARTICLE = {name: f"particle_features/{name}" for name in _PARTS["particle_features"]}
_JET = {name: f"jet_features/{name}" for name in _PARTS["jet_features"]}

LAYOUT = Layout(
    name=FACTS.name,
    classes=FACTS.classes,
    momenta={"pt": "pt", "eta": "eta", "phi": "phi"},
    label={f"{name}{most}.*": name for name in FACTS.classes for most in ("", "30", "150")},
    fields={"jet_pt": _JET["pt"], "jet_eta": _JET["eta"], "jet_phi": "jet_phi", "jet_mass": _JET["mass"]},
    mask=_PARTICLE["mask"],
    max_particles=FACTS.max_particles,
)


def find_jetnet(path: Path, file: h5py.File, labelled: bool = True) -> LayoutFile:
    r"""The jets of an open file; the momenta are computed from the relative ones.

    .. math:: p_T = p_{T,rel}\, p_T^{jet}, \quad \eta = \eta_{rel} + \eta^{jet}, \quad \phi = \phi_{rel}

    Note:
        The files do not give the azimuth of a jet: it is set to 0. Particles are massless. The files keep only the
        leading 30 or 150 particles; the others still count in the momentum of the jet, which the table keeps.

    Raises:
        ValueError: if an array is missing or has another shape, or the name of the file, which alone gives the class,
            is not one like ``g.hdf5``, ``q30.hdf5`` or ``t150.hdf5``.
    """
    columns = Hdf5Columns(path, file, _PARTS)
    _check_shapes(path, columns)
    return LayoutFile(path, _AbsoluteColumns(columns), LAYOUT, labelled)


def _check_shapes(path: Path, columns: Hdf5Columns) -> None:
    for ndim, (name, parts) in zip((3, 2), _PARTS.items(), strict=True):
        data = columns.group.get(name)
        shape = data.shape if isinstance(data, h5py.Dataset) else None
        if shape is None or len(shape) != ndim or shape[-1] != len(parts) or data.dtype.kind != "f":
            found = "missing" if shape is None else f"{data.dtype} of shape {shape}"
            raise ValueError(f"{path}: array {name!r} with the columns {', '.join(parts)} is {found}; fetch it again")


@dataclasses.dataclass(frozen=True)
class _AbsoluteColumns:
    """The columns of a file, and ``pt``, ``eta`` and ``phi`` of its particles computed from them."""

    relative: Columns

    @property
    def names(self) -> list[str]:
        return [*self.relative.names, "pt", "eta", "phi", "jet_phi"]

    def count_rows(self, names: Sequence[str]) -> int:
        return self.relative.count_rows([*_PARTICLE.values(), *_JET.values()])

    def kind(self, name: str) -> Kind:
        if name in self.relative.names:
            return self.relative.kind(name)
        is_list = name != "jet_phi"
        return Kind(is_list, np.dtype(np.float64), is_list)

    def blocks(self, names: Sequence[str], start: int, stop: int, size: int) -> Iterator[Block]:
        for block in self.relative.blocks([*_PARTICLE.values(), *_JET.values()], start, stop, size):
            lists = {name: block[column] for name, column in _PARTICLE.items()}
            jet = {name: block[column].astype(np.float64) for name, column in _JET.items()}
            counts = lists["ptrel"].counts
            made = {
                "pt": Lists(counts, lists["ptrel"].values * np.repeat(jet["pt"], counts)),
                "eta": Lists(counts, lists["etarel"].values + np.repeat(jet["eta"], counts)),
                "phi": lists["phirel"],
                "jet_phi": np.zeros(len(counts)),
            }
            yield {name: (block | made)[name] for name in names}
