"""Proton collisions at parton and particle level from Pythia 8 (extra ``sim``)."""

import os
from types import ModuleType
from typing import NamedTuple

import numpy as np

from zoo.simulate.detector import Particles

#: Settings common to both processes: 14 TeV, Pythia's own tune, showers, hadronisation and underlying event.
COMMON = ("Beams:eCM = 14000.", "PartonLevel:MPI = on")
#: Per label: the hard processes (0 = QCD dijets of gluons and light quarks, 1 = hadronic top pairs).
PROCESSES = {
    0: ("HardQCD:all = on",),
    1: ("Top:gg2ttbar = on", "Top:qqbar2ttbar = on", "24:onMode = off", "24:onIfAny = 1 2 3 4 5"),
}
TOP, W_BOSON, HEAVIEST_DECAY_QUARK = 6, 24, 5
#: Pythia's status code of an outgoing particle of the hard process or of a resonance decay.
OUTGOING = 23


class Events(NamedTuple):
    """A batch of events.

    ``particles`` are the stable ones; ``tops`` (top, 4, 4) holds (E, px, py, pz) in GeV of each hadronically decaying
    top quark and of its three decay quarks, ``top_event`` (top,) the row of its event; ``number`` counts the events.
    """

    particles: Particles
    tops: np.ndarray
    top_event: np.ndarray
    number: int


def import_extra(name: str) -> ModuleType:
    """Import a package of the extra ``sim``; the error says how to install it.

    Raises:
        ModuleNotFoundError: If the package is absent.
    """
    import importlib

    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"zoo simulate needs {name}: pip install 'hepzoo[sim]' (Pythia 8 and FastJet)"
        ) from error


class Generator:
    """Pythia 8 set up for one process and one random seed.

    Args:
        label: 0 for QCD dijets, 1 for top pairs.
        seed: Pythia's seed, 1 to 900,000,000.
        pt_hat: Smallest and largest transverse momentum of the hard 2 -> 2 process in GeV.
        extra: Further settings, each as Pythia reads it.

    Raises:
        ModuleNotFoundError: If ``pythia8mc`` is not installed.
        FileNotFoundError: If Pythia does not find its own data files.
        ValueError: If Pythia refuses a setting or cannot start.
    """

    def __init__(self, label: int, seed: int, pt_hat: tuple[float, float], extra: tuple[str, ...] = ()) -> None:
        pythia8mc = import_extra("pythia8mc")
        self.pythia = pythia8mc.Pythia("", False)
        # Pythia without its data files starts, but knows no settings at all.
        if not self.pythia.readString("Print:quiet = on"):
            place = os.environ.get("PYTHIA8DATA")
            raise FileNotFoundError(
                "Pythia does not find its data files (share/Pythia8/xmldoc); "
                + (f"PYTHIA8DATA={place} names no such folder: unset it, or " if place else "")
                + "install it again: pip install --force-reinstall pythia8mc"
            )
        cuts = (f"PhaseSpace:pTHatMin = {pt_hat[0]}", f"PhaseSpace:pTHatMax = {pt_hat[1]}")
        seeding = ("Random:setSeed = on", f"Random:seed = {seed}")
        for setting in (*COMMON, *PROCESSES[label], *cuts, *seeding, *extra):
            if not self.pythia.readString(setting):
                raise ValueError(f"Pythia refuses the setting {setting!r}")
        if not self.pythia.init():
            raise ValueError(f"Pythia cannot start with {(*PROCESSES[label], *cuts)}")

    def generate(self, number: int) -> Events:
        """Make a batch of events; the few that Pythia gives up on are left out."""
        record = self.pythia.nextBatch(number)
        return flatten(record)


def flatten(record) -> Events:
    """Flatten Pythia's jagged event record into columns."""
    import awkward as ak

    particles = record.prt
    counts = ak.to_numpy(ak.num(particles))
    event = np.repeat(np.arange(len(counts)), counts)
    pdg_id, status, mother = (ak.to_numpy(ak.flatten(particles[name])) for name in ("id", "status", "mother1"))
    momentum = ak.flatten(particles.p)
    four_momenta = np.stack([ak.to_numpy(momentum[axis]) for axis in ("e", "px", "py", "pz")], axis=1)
    mother = mother + np.repeat(np.cumsum(counts) - counts, counts)
    stable = status > 0
    vertex = ak.fill_none(ak.flatten(particles.vProd)[stable], {"px": 0.0, "py": 0.0, "pz": 0.0, "e": 0.0})
    vertices = np.stack([ak.to_numpy(vertex[axis]) for axis in ("px", "py", "pz")], axis=1) / 1000.0
    tops = top_decays(pdg_id, np.abs(status), mother)
    return Events(
        particles=Particles(event[stable], pdg_id[stable].astype(np.int64), four_momenta[stable], vertices),
        tops=four_momenta[tops],
        top_event=event[tops[:, 0]],
        number=len(counts),
    )


def top_decays(pdg_id: np.ndarray, status: np.ndarray, mother: np.ndarray) -> np.ndarray:
    """Rows of each top quark that decays to three quarks, just before the decay, and of those quarks: (top, 4).

    Args:
        pdg_id: PDG codes of the whole event record, (particle,).
        status: Absolute status codes, (particle,).
        mother: Row of the first mother, (particle,).
    """
    quarks = np.flatnonzero((status == OUTGOING) & (np.abs(pdg_id) <= HEAVIEST_DECAY_QUARK))
    from_top = quarks[np.abs(pdg_id[mother[quarks]]) == TOP]
    from_w = quarks[np.abs(pdg_id[mother[quarks]]) == W_BOSON]
    # Copies of a W descend from the top it came from: follow the first mothers up.
    ancestor = mother[from_w]
    while np.any(waiting := np.abs(pdg_id[ancestor]) == W_BOSON):
        ancestor = np.where(waiting, mother[ancestor], ancestor)
    rows = [(mother[b], b, *from_w[ancestor == mother[b]]) for b in from_top]
    return np.array([row for row in rows if len(row) == 4], dtype=np.int64).reshape(-1, 4)
