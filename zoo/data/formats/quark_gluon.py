"""EnergyFlow's quark and gluon jets: zero-padded particles in a NumPy archive, read in pieces and never unpickled."""

import contextlib
import dataclasses
import itertools
import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from zoo.data.datasets import DATASETS
from zoo.data.formats.columns import BLOCK_BYTES, Block, Kind, Lists, damaged
from zoo.data.formats.layout import Layout, LayoutFile, whole_labels

NPZ_MAGIC = b"PK\x03\x04"

FACTS = DATASETS["quark_gluon"]

PARTICLES = "X"
(LABEL,) = FACTS.label_columns

_PHOTON, _ELECTRON, _MUON = 22, 11, 13

#: Masses in GeV of the particles in EnergyFlow's jets, by their PDG numbers, from the Particle Data Group.
_MASSES = {
    0: 0.0,
    _ELECTRON: 0.00051,
    _MUON: 0.10566,
    _PHOTON: 0.0,
    111: 0.13498,
    130: 0.49761,
    211: 0.13957,
    310: 0.49761,
    311: 0.49761,
    321: 0.49368,
    2112: 0.93957,
    2212: 0.93827,
    3112: 1.19745,
    3122: 1.11568,
    3212: 1.19264,
    3222: 1.18937,
    3312: 1.32171,
    3322: 1.31486,
    3334: 1.67245,
}

#: Charge of the particles by their numbers in the Monte Carlo scheme of the Particle Data Group; antiparticles have the
#: opposite one.
_CHARGED_HADRONS = {211: 1, 321: 1, 2212: 1, 3222: 1, 3112: -1, 3312: -1, 3334: -1}
_NEUTRAL_HADRONS = (111, 130, 310, 311, 2112, 3122, 3212, 3322)
_CHARGES = _CHARGED_HADRONS | dict.fromkeys((*_NEUTRAL_HADRONS, _PHOTON), 0) | {_ELECTRON: -1, _MUON: -1}

_KINDS = {
    "part_isChargedHadron": tuple(_CHARGED_HADRONS),
    "part_isNeutralHadron": _NEUTRAL_HADRONS,
    "part_isPhoton": (_PHOTON,),
    "part_isElectron": (_ELECTRON,),
    "part_isMuon": (_MUON,),
}

LAYOUT = Layout(
    name=FACTS.name,
    classes=FACTS.classes,
    momenta={"pt": "pt", "eta": "rapidity", "phi": "phi"},
    label=LABEL,
    particles={name: name for name in ("part_charge", *_KINDS, "part_pdg_id", "part_mass")},
)


@contextlib.contextmanager
def open_quark_gluon(path: Path, labelled: bool = True) -> Iterator[LayoutFile]:
    """Open an archive with the arrays ``X`` (jet, particle, 4), of pt, rapidity, azimuth and kind, and ``y`` (jet,).

    Note:
        Particles are taken as massless, so that their rapidity is their pseudorapidity: a charged pion with a
        transverse momentum of 1 GeV then has 1 % less energy than it had. The mass of their kind is the column
        ``part_mass``, see `zoo.physics.lorentz.give_masses`.

    Raises:
        ValueError: if the file is damaged, lacks an array, has one of another shape, or holds pickled objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            particles = _find_array(path, archive, PARTICLES)
            has_label = labelled or f"{LABEL}.npy" in archive.namelist()
            label = _find_array(path, archive, LABEL) if has_label else None
            of_label = particles.shape[:1] if label is None else label.shape
            if len(particles.shape) != 3 or particles.shape[2] != 4 or of_label != particles.shape[:1]:
                raise ValueError(
                    f"{path}: arrays {PARTICLES!r} and {LABEL!r} must be (jets, particles, 4) and (jets,), not "
                    f"{particles.shape} and {of_label}; keep pt, rapidity, phi and the pdg id"
                )
            yield LayoutFile(path, _Archive(path, particles, label, labelled), LAYOUT, labelled)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise damaged(path, error) from error


@dataclasses.dataclass(frozen=True)
class _Array:
    """An array in an archive, read row by row from any start."""

    archive: zipfile.ZipFile
    member: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def row_bytes(self) -> int:
        return self.dtype.itemsize * int(np.prod(self.shape[1:]))

    def read(self, start: int, stop: int, size: int) -> Iterator[np.ndarray]:
        """The rows ``start`` to ``stop``, at most ``size`` at a time."""
        with self.archive.open(self.member) as file:
            _read_header(file)
            file.seek(file.tell() + start * self.row_bytes)
            for first in range(start, stop, size):
                rows = min(size, stop - first)
                content = file.read(rows * self.row_bytes)
                if len(content) < rows * self.row_bytes:
                    raise EOFError(f"{self.member} ends early")
                yield np.frombuffer(content, self.dtype).reshape(rows, *self.shape[1:])


def _find_array(path: Path, archive: zipfile.ZipFile, name: str) -> _Array:
    member = f"{name}.npy"
    if member not in archive.namelist():
        found = ", ".join(archive.namelist()) or "none"
        raise ValueError(f"{path}: array {name!r} is missing, found {found}; is it a file of quark and gluon jets?")
    with archive.open(member) as file:
        try:
            shape, is_fortran, dtype = _read_header(file)
        except ValueError as error:
            raise damaged(path, error, name) from error
        start = file.tell()
    if dtype.kind not in "iuf" or is_fortran:
        raise ValueError(
            f"{path}: array {name!r} must hold numbers in C order, not {dtype}; objects are pickled and never read, "
            "write it again with numpy.savez"
        )
    # the checksum covers the whole member, and is not compared if only part of it is read
    found, expected = archive.getinfo(member).file_size - start, dtype.itemsize * math.prod(shape)
    if found != expected:
        raise damaged(path, ValueError(f"{found} bytes instead of {expected} for the shape {shape}"), name)
    return _Array(archive, member, shape, dtype)


def _read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"version {version} of the array format is not known")
    return read(file)


@dataclasses.dataclass(frozen=True)
class _Archive:
    """The columns of the particles, with charge and kind from their PDG numbers, and of the jets."""

    path: Path
    particles: _Array
    label: _Array | None
    labelled: bool

    @property
    def names(self) -> tuple[str, ...]:
        return (*LAYOUT.lists, *(LAYOUT.unlabelled_numbers if self.label is None else LAYOUT.numbers))

    def count_rows(self, names: Sequence[str]) -> int:
        return self.particles.shape[0]

    def kind(self, name: str) -> Kind:
        return Kind(False, np.dtype(np.int64)) if name == LABEL else Kind(True, np.dtype(np.float64), True)

    def blocks(self, names: Sequence[str], start: int, stop: int, size: int) -> Iterator[Block]:
        size = min(size, max(1, BLOCK_BYTES // max(1, self.particles.row_bytes)))
        labels = itertools.repeat(None) if self.label is None else self.label.read(start, stop, size)
        for particles, label in zip(self.particles.read(start, stop, size), labels, strict=False):
            block = self._to_block(particles.astype(np.float64), start)
            if label is not None:
                block[LABEL] = whole_labels(self.path, repr(LABEL), label, start, self.labelled)
            yield block
            start += len(particles)

    def _to_block(self, particles: np.ndarray, first_row: int) -> Block:
        counts = np.full(len(particles), particles.shape[1])
        pt, rapidity, phi, number = particles.reshape(-1, 4).T
        known = np.isin(np.abs(number), list(_CHARGES)) | ((number == 0) & (pt == 0))
        if not known.all():
            place = np.flatnonzero(~known)[0]
            raise ValueError(
                f"{self.path}: array {PARTICLES!r} has a particle of the pdg id {number[place]:g} in row "
                f"{first_row + place // particles.shape[1]}, which is none of {sorted(_CHARGES)}; leave such jets out"
            )
        lists = {"pt": pt, "rapidity": rapidity, "phi": phi, **_describe(number)}
        return {name: Lists(counts, values) for name, values in lists.items()}


def _describe(number: np.ndarray) -> dict[str, np.ndarray]:
    """Charge, kind and mass of particles by their PDG numbers, and the numbers themselves."""
    known = np.array(sorted(_CHARGES))
    place = np.searchsorted(known, np.abs(number)).clip(max=len(known) - 1)
    mass = np.where(number == 0, 0.0, np.array([_MASSES[key] for key in known.tolist()])[place])
    charge = np.array([_CHARGES[key] for key in known.tolist()])[place] * np.sign(number) + 0.0  # no -0
    kinds = {name: np.isin(known, of)[place] for name, of in _KINDS.items()}
    return {"part_charge": charge, **kinds, "part_pdg_id": number, "part_mass": mass}
