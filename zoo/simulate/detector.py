"""A parametric detector: stable particles in, massless energy-flow objects out.

Charged particles curl in a solenoid, tracks are lost and smeared, energy is deposited in the towers of an
electromagnetic and a hadronic calorimeter, and tower energy that the tracks do not explain becomes a neutral object.
Every number is in :class:`DetectorCard`; ``docs/simulation.md`` gives the reasons.

References:
    The method of energy-flow objects in a parametric detector: de Favereau et al., "DELPHES 3, A modular framework for
    fast simulation of a generic collider experiment" (2014), arXiv:1307.6346.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

#: A unit charge of pT in a field B curls with radius pT / (0.2998 GeV/T/m * B).
GEV_PER_TESLA_METRE = 0.299792458
#: Neutral particles use the formula of charged ones with this radius in metres: over a detector's length they deviate
#: from a straight line by less than 0.1 mm, and the differences of squares in the formula still hold to 1e-5.
STRAIGHT = 1e5

ELECTRON, MUON, PHOTON = 11, 13, 22
NEUTRINOS = (12, 14, 16)
#: Charged particles that may reach the detector, and the sign of the charge for a positive PDG number.
CHARGES = {11: -1, 13: -1, 211: 1, 321: 1, 2212: 1, 3112: -1, 3222: 1, 3312: -1, 3334: -1}
#: K_S and Lambda that arrive undecayed deposit energy in both calorimeters.
SHARING_HADRONS = (310, 3122)


class Particles(NamedTuple):
    """Stable particles of many events, flat.

    Shapes and units: ``event`` (particle,) int64, row of the event in its batch; ``pdg_id`` (particle,) int64;
    ``four_momenta`` (particle, 4) = (E, px, py, pz) in GeV; ``vertices`` (particle, 3) = (x, y, z) in metres.
    """

    event: np.ndarray
    pdg_id: np.ndarray
    four_momenta: np.ndarray
    vertices: np.ndarray


class EnergyFlow(NamedTuple):
    """Massless energy-flow objects of many events, flat; each column (object,), energy in GeV."""

    event: np.ndarray
    energy: np.ndarray
    eta: np.ndarray
    phi: np.ndarray


class Tracks(NamedTuple):
    """Reconstructed tracks: direction at the vertex, where they meet the calorimeter, and relative resolution."""

    event: np.ndarray
    pdg_id: np.ndarray
    energy: np.ndarray
    eta: np.ndarray
    phi: np.ndarray
    tower_eta: np.ndarray
    tower_phi: np.ndarray
    resolution: np.ndarray


class Towers(NamedTuple):
    """Calorimeter towers: their event, central eta, and the random position inside that their objects point to."""

    event: np.ndarray
    centre: np.ndarray
    eta: np.ndarray
    phi: np.ndarray


@dataclass(frozen=True)
class Calorimeter:
    """Resolution and thresholds of one calorimeter, energies in GeV.

    A row of ``resolution`` is (edge, constant, stochastic, noise) and applies up to ``|eta| <= edge``:
    ``sigma^2 = (constant E)^2 + stochastic^2 E + noise^2``. A tower, and its excess over the tracks, counts if it is
    above ``energy_min`` and above ``significance_min`` standard deviations.
    """

    resolution: tuple[tuple[float, float, float, float], ...]
    energy_min: float
    significance_min: float


@dataclass(frozen=True)
class DetectorCard:
    """Every number of the detector, in metres, tesla and GeV.

    A row of an efficiency is (edge in |eta|, below 1 GeV, 1 to 100 GeV, above 100 GeV); a row of a track resolution is
    (edge in |eta|, floor, slope) in ``sigma(pT) / pT = sqrt(floor^2 + (slope pT)^2)``.
    """

    radius: float = 1.15
    half_length: float = 3.51
    magnetic_field: float = 2.0
    track_pt_min: float = 0.1
    hadron_efficiency: tuple = ((1.5, 0.70, 0.95, 0.95), (2.5, 0.60, 0.85, 0.85))
    electron_efficiency: tuple = ((1.5, 0.73, 0.95, 0.99), (2.5, 0.50, 0.83, 0.90))
    muon_efficiency: tuple = ((1.5, 0.75, 0.99, 0.99), (2.5, 0.70, 0.98, 0.98))
    hadron_resolution: tuple = ((0.5, 0.06, 1.3e-3), (1.5, 0.10, 1.7e-3), (2.5, 0.25, 3.1e-3))
    electron_resolution: tuple = ((0.5, 0.03, 1.3e-3), (1.5, 0.05, 1.7e-3), (2.5, 0.15, 3.1e-3))
    muon_resolution: tuple = ((0.5, 0.01, 1.0e-4), (1.5, 0.015, 1.5e-4), (2.5, 0.025, 3.5e-4))
    sharing_ecal_fraction: float = 0.3
    tower_eta_edges: tuple[float, ...] = (-3.2, *(row / 10 for row in range(-26, 27)), 3.2)
    towers_in_phi: int = 36
    ecal: Calorimeter = Calorimeter(((3.2, 0.0017, 0.101, 0.0),), energy_min=0.5, significance_min=1.0)
    hcal: Calorimeter = Calorimeter(
        ((1.7, 0.0302, 0.5205, 1.59), (3.2, 0.0500, 0.706, 0.0)), energy_min=1.0, significance_min=1.0
    )
    smear: bool = True


def detect(particles: Particles, card: DetectorCard, rng: np.random.Generator) -> EnergyFlow:
    """Turn stable particles into energy-flow objects: tracks, electromagnetic remainders, hadronic remainders.

    Args:
        particles: Stable particles of a batch of events, neutrinos included.
        card: The detector's numbers.
        rng: Source of every random choice.

    Returns:
        Massless objects, flat over the events, in no particular order.
    """
    particles = inside(particles, card)
    tower_eta, tower_phi = propagate(particles, card)
    tracks = reconstruct_tracks(particles, tower_eta, tower_phi, card, rng)
    ecal_part = ecal_fraction(particles.pdg_id, card)
    invisible = np.isin(np.abs(particles.pdg_id), (*NEUTRINOS, MUON))
    energy = np.where(invisible, 0.0, particles.four_momenta[:, 0])
    hits, track_hits, towers = find_towers(particles.event, tower_eta, tower_phi, tracks, card, rng)
    electrons = np.abs(tracks.pdg_id) == ELECTRON
    hadrons = ~np.isin(np.abs(tracks.pdg_id), (ELECTRON, MUON))
    objects = []
    for calorimeter, share, stopped in ((card.ecal, ecal_part, electrons), (card.hcal, 1.0 - ecal_part, hadrons)):
        true_energy = np.bincount(hits, energy * share, len(towers.event))
        stopped_hits = np.where(stopped, track_hits, 0)
        neutral, scale = energy_flow(true_energy, tracks, stopped_hits, towers, calorimeter, rng, smear=card.smear)
        objects.append(neutral)
        tracks = tracks._replace(energy=tracks.energy * scale)
    objects.append(EnergyFlow(tracks.event, tracks.energy, tracks.eta, tracks.phi))
    return EnergyFlow(*(np.concatenate(columns) for columns in zip(*objects, strict=True)))


def inside(particles: Particles, card: DetectorCard) -> Particles:
    """The particles produced inside the solenoid; those produced outside leave no trace."""
    x, y, z = particles.vertices.T
    kept = (np.hypot(x, y) < card.radius) & (np.abs(z) < card.half_length)
    return Particles(*(column[kept] for column in particles))


def charge(pdg_id: np.ndarray) -> np.ndarray:
    """Electric charge in units of the positron's, zero for every neutral particle.

    >>> charge(np.array([211, -211, 11, 22])).tolist()
    [1, -1, -1, 0]
    """
    magnitude = np.abs(pdg_id)
    result = np.zeros(len(pdg_id), dtype=np.int64)
    for code, sign in CHARGES.items():
        result[magnitude == code] = sign
    return result * np.sign(pdg_id)


def ecal_fraction(pdg_id: np.ndarray, card: DetectorCard) -> np.ndarray:
    """Fraction of each particle's energy that the electromagnetic calorimeter sees; the hadronic one sees the rest."""
    magnitude = np.abs(pdg_id)
    fraction = np.isin(magnitude, (ELECTRON, PHOTON)).astype(np.float64)
    fraction[np.isin(magnitude, SHARING_HADRONS)] = card.sharing_ecal_fraction
    return fraction


def propagate(particles: Particles, card: DetectorCard) -> tuple[np.ndarray, np.ndarray]:
    r"""Where each particle meets the calorimeter: pseudorapidity and azimuth seen from the origin.

    .. math:: \rho = p_T / (0.2998\, q B), \qquad \phi(s) = \phi_0 - s / \rho

    The path ends on the cylinder or, if it comes first, on an end cap.

    Args:
        particles: Particles produced inside the cylinder.
        card: Radius, half length and field.

    Returns:
        eta and phi, each (particle,).
    """
    _, px, py, pz = particles.four_momenta.T
    x, y, z = particles.vertices.T
    pt = np.maximum(np.hypot(px, py), 1e-9)
    phi0 = np.arctan2(py, px)
    sign = charge(particles.pdg_id)
    bent = pt / (GEV_PER_TESLA_METRE * card.magnetic_field * np.where(sign == 0, 1, sign))
    rho = np.where(sign == 0, STRAIGHT, bent)
    centre_x, centre_y = x + rho * np.sin(phi0), y - rho * np.cos(phi0)
    distance = np.maximum(np.hypot(centre_x, centre_y), 1e-12)
    sine = (card.radius**2 - distance**2 - rho**2) / (2 * rho * distance)
    bend = np.arcsin(np.clip(sine, -1.0, 1.0))
    towards = np.arctan2(centre_y, centre_x)
    turns = np.stack([phi0 - (towards - bend), phi0 - (towards - np.pi + bend)]) * np.sign(rho)
    path = np.min(np.mod(turns, 2 * np.pi), axis=0) * np.abs(rho)
    path[np.abs(sine) > 1.0] = np.inf
    with np.errstate(divide="ignore"):
        to_end_cap = np.where(pz == 0.0, np.inf, (np.copysign(card.half_length, pz) - z) * pt / pz)
    path = np.minimum(path, to_end_cap)
    path[~np.isfinite(path)] = 0.0
    phi = phi0 - path / rho
    end_x, end_y = centre_x - rho * np.sin(phi), centre_y + rho * np.cos(phi)
    distance = np.maximum(np.hypot(end_x, end_y), 1e-9)
    return np.arcsinh((z + path * pz / pt) / distance), np.arctan2(end_y, end_x)


def by_region(abs_eta: np.ndarray, rows: tuple) -> np.ndarray:
    """The row of numbers that applies at each ``|eta|``, (particle, number); zeros beyond the last edge."""
    table = np.array([row[1:] for row in rows] + [[0.0] * (len(rows[0]) - 1)])
    return table[np.searchsorted([row[0] for row in rows], abs_eta)]


def reconstruct_tracks(
    particles: Particles, tower_eta: np.ndarray, tower_phi: np.ndarray, card: DetectorCard, rng: np.random.Generator
) -> Tracks:
    """Tracks of the charged particles: some are lost, the rest get a log-normal pT and lose their mass.

    Efficiency and resolution depend on where the path leaves the tracker, so particles that curl far forward are lost.

    Args:
        particles: Stable particles inside the tracker.
        tower_eta: Pseudorapidity at the calorimeter, (particle,).
        tower_phi: Azimuth at the calorimeter, (particle,).
        card: Efficiencies and resolutions.
        rng: Source of the random choices.
    """
    _, px, py, pz = particles.four_momenta.T
    pt = np.hypot(px, py)
    candidates = np.flatnonzero((charge(particles.pdg_id) != 0) & (pt > card.track_pt_min))
    pt, pdg_id = pt[candidates], particles.pdg_id[candidates]
    eta = np.arcsinh(pz[candidates] / pt)
    exit_eta = np.abs(tower_eta[candidates])
    efficiency = np.empty(len(pt))
    resolution = np.empty(len(pt))
    band = np.searchsorted([1.0, 100.0], pt)
    for chosen, efficiencies, resolutions in _species(pdg_id, card):
        efficiency[chosen] = np.take_along_axis(
            by_region(exit_eta[chosen], efficiencies), band[chosen][:, None], axis=1
        )[:, 0]
        floor, slope = by_region(exit_eta[chosen], resolutions).T
        resolution[chosen] = np.hypot(floor, slope * pt[chosen])
    found = rng.random(len(pt)) < efficiency
    measured = log_normal(pt, pt * resolution, rng) if card.smear else pt
    rows = candidates[found]
    return Tracks(
        event=particles.event[rows],
        pdg_id=pdg_id[found],
        energy=(measured * np.cosh(eta))[found],
        eta=eta[found],
        phi=np.arctan2(py[rows], px[rows]),
        tower_eta=tower_eta[rows],
        tower_phi=tower_phi[rows],
        resolution=resolution[found],
    )


def _species(pdg_id: np.ndarray, card: DetectorCard) -> Iterator[tuple[np.ndarray, tuple, tuple]]:
    electron, muon = np.abs(pdg_id) == ELECTRON, np.abs(pdg_id) == MUON
    yield electron, card.electron_efficiency, card.electron_resolution
    yield muon, card.muon_efficiency, card.muon_resolution
    yield ~(electron | muon), card.hadron_efficiency, card.hadron_resolution


def log_normal(mean: np.ndarray, sigma: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Positive random numbers of the given mean and standard deviation; zero where the mean is zero."""
    positive = mean > 0.0
    safe = np.where(positive, mean, 1.0)
    width = np.sqrt(np.log1p((sigma / safe) ** 2))
    return np.where(positive, safe * np.exp(width * rng.standard_normal(len(mean)) - 0.5 * width**2), 0.0)


def energy_resolution(energy: np.ndarray, eta: np.ndarray, calorimeter: Calorimeter) -> np.ndarray:
    """Absolute energy resolution in GeV of towers at the given pseudorapidity."""
    constant, stochastic, noise = by_region(np.abs(eta), calorimeter.resolution).T
    return np.sqrt((constant * energy) ** 2 + stochastic**2 * energy + noise**2)


def find_towers(
    event: np.ndarray,
    eta: np.ndarray,
    phi: np.ndarray,
    tracks: Tracks,
    card: DetectorCard,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, Towers]:
    """Number the towers that particles and tracks enter; tower 0 stands for "beyond the calorimeter".

    Both calorimeters share the towers, and all objects of a tower point to one random position inside it.

    Args:
        event: Event of each particle, (particle,).
        eta: Where it meets the calorimeter, (particle,).
        phi: Likewise.
        tracks: The tracks.
        card: The towers' edges.
        rng: Source of the random positions.

    Returns:
        Tower of each particle, tower of each track, and the towers.
    """
    edges = np.asarray(card.tower_eta_edges)
    event, eta, phi = (
        np.concatenate(pair) for pair in ((event, tracks.event), (eta, tracks.tower_eta), (phi, tracks.tower_phi))
    )
    row = np.searchsorted(edges, eta, side="right") - 1
    column = np.floor((phi / (2 * np.pi) + 0.5) * card.towers_in_phi).astype(np.int64) % card.towers_in_phi
    number = (event * (len(edges) - 1) + row) * card.towers_in_phi + column
    number[(row < 0) | (row >= len(edges) - 1)] = -1
    # The extra -1 makes tower 0 the place beyond the edge even when it is empty.
    numbers, tower = np.unique(np.append(number, -1), return_inverse=True)
    rest, column = np.divmod(numbers, card.towers_in_phi)
    tower_event, row = np.divmod(rest, len(edges) - 1)
    low, high = edges[row], edges[row + 1]
    towers = Towers(
        event=tower_event,
        centre=0.5 * (low + high),
        eta=low + (high - low) * rng.random(len(numbers)),
        phi=2 * np.pi * ((column + rng.random(len(numbers))) / card.towers_in_phi - 0.5),
    )
    particles = len(number) - len(tracks.event)
    return tower[:particles], tower[particles:-1], towers


def energy_flow(
    true_energy: np.ndarray,
    tracks: Tracks,
    track_hits: np.ndarray,
    towers: Towers,
    calorimeter: Calorimeter,
    rng: np.random.Generator,
    *,
    smear: bool,
) -> tuple[EnergyFlow, np.ndarray]:
    """Compare the energy of each tower of one calorimeter with the tracks that enter it.

    Well measured tracks are subtracted from the tower's energy. If the calorimeter measures the remaining tracks
    better, they are scaled to the rest. If no tracks remain, the rest is a neutral object, provided that it passes the
    threshold and is significant.

    Args:
        true_energy: Energy deposited in each tower, (tower,) GeV.
        tracks: All tracks.
        track_hits: Tower in which each track is stopped, (track,); 0 for none.
        towers: The towers.
        calorimeter: Resolution and thresholds.
        rng: Source of the random choices.
        smear: False turns off resolution and thresholds: a tower shows its true energy, and tracks are exact.

    Returns:
        The neutral objects, and the factor by which each track's energy changes, (track,).
    """
    count = len(towers.event)
    stopped = track_hits > 0
    tower_sigma = energy_resolution(tracks.energy, towers.centre[track_hits], calorimeter)
    poor = stopped & (tower_sigma < tracks.resolution * tracks.energy) & smear
    poor_energy = np.bincount(track_hits, tracks.energy * poor, count)
    good_energy = np.bincount(track_hits, tracks.energy * (stopped & ~poor), count)
    energy = measure(true_energy, towers.centre, calorimeter, rng) if smear else true_energy
    rest = np.maximum(energy - good_energy, 0.0)
    scale = np.where(poor_energy > 0.0, rest / np.where(poor_energy > 0.0, poor_energy, 1.0), 1.0)
    neutral = (rest > 0.0) & (poor_energy == 0.0)
    if smear:
        neutral &= above_threshold(rest, towers.centre, calorimeter)
    neutral[0] = False
    objects = EnergyFlow(*(column[neutral] for column in (towers.event, rest, towers.eta, towers.phi)))
    return objects, np.where(poor, scale[track_hits], 1.0)


def measure(true_energy: np.ndarray, eta: np.ndarray, calorimeter: Calorimeter, rng: np.random.Generator) -> np.ndarray:
    """Smeared energies of towers in GeV, zero below the thresholds."""
    energy = log_normal(true_energy, energy_resolution(true_energy, eta, calorimeter), rng)
    return np.where(above_threshold(energy, eta, calorimeter), energy, 0.0)


def above_threshold(energy: np.ndarray, eta: np.ndarray, calorimeter: Calorimeter) -> np.ndarray:
    """Which energies count: above the smallest one and significant against the resolution."""
    sigma = energy_resolution(energy, eta, calorimeter)
    return (energy > calorimeter.energy_min) & (energy > calorimeter.significance_min * sigma)
