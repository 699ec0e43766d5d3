"""Jets of the Top Tagging Reference set: clustering, cuts, truth matching."""

from dataclasses import dataclass

import numpy as np

from zoo.data.packed import PackedJets
from zoo.simulate.detector import EnergyFlow
from zoo.simulate.generator import import_extra


@dataclass(frozen=True)
class Selection:
    """Which jets are kept: radius, pT window in GeV, acceptance, matching distance, constituents, jets per event."""

    radius: float = 0.8
    pt_min: float = 550.0
    pt_max: float = 650.0
    abs_eta_max: float = 2.0
    matching_radius: float = 0.8
    constituents_max: int = 200
    jets_per_event: int = 2


def select_jets(
    objects: EnergyFlow, tops: np.ndarray | None, top_event: np.ndarray | None, selection: Selection
) -> PackedJets:
    """Cluster the objects of each event and keep the jets inside the cuts.

    Args:
        objects: Energy-flow objects, flat over the events.
        tops: (top, 4, 4) top quark and its three decay quarks; None: no matching.
        top_event: (top,) the event of each top.
        selection: The cuts.

    Returns:
        The accepted jets in order of their event, with its row in the batch as ``index``; their constituents are
        massless, in float32 and in descending pT.
    """
    order = np.argsort(objects.event, kind="stable")
    event = objects.event[order]
    four_momenta = massless(objects.energy[order], objects.eta[order], objects.phi[order])
    constituents, owner, jet_event = cluster(four_momenta, event, selection)
    jets = sum_by_jet(four_momenta[constituents], owner, len(jet_event))
    accepted = inside_window(jets, selection)
    if tops is not None:
        accepted &= matched(jets, jet_event, tops, top_event, selection.matching_radius)
    return leading_constituents(four_momenta[constituents], owner, jet_event, accepted, selection)


def massless(energy: np.ndarray, eta: np.ndarray, phi: np.ndarray) -> np.ndarray:
    """Four-momenta (object, 4) of massless objects."""
    pt = energy / np.cosh(eta)
    return np.stack([energy, pt * np.cos(phi), pt * np.sin(phi), energy * np.tanh(eta)], axis=1)


def cluster(
    four_momenta: np.ndarray, event: np.ndarray, selection: Selection
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The leading anti-kT jets of each event.

    Args:
        four_momenta: (object, 4) GeV, grouped by event.
        event: (object,) ascending.
        selection: Radius, lowest pT and number of jets per event.

    Returns:
        Rows of the constituents, the jet each belongs to, and the event of each jet.
    """
    fastjet = import_extra("fastjet")
    import awkward as ak
    import vector

    vector.register_awkward()
    names, counts = np.unique(event, return_counts=True)
    columns = dict(zip(("E", "px", "py", "pz"), four_momenta.T, strict=True))
    jagged = ak.unflatten(ak.zip(columns, with_name="Momentum4D"), counts)
    definition = fastjet.JetDefinition(fastjet.antikt_algorithm, selection.radius)
    sequence = fastjet.ClusterSequence(jagged, definition)
    jets = sequence.inclusive_jets(min_pt=selection.pt_min)
    members = sequence.constituent_index(min_pt=selection.pt_min)
    leading = ak.argsort(np.hypot(jets.px, jets.py), ascending=False)[:, : selection.jets_per_event]
    members = members[leading]
    first = np.cumsum(counts) - counts
    per_event = ak.to_numpy(ak.num(members))
    per_jet = ak.to_numpy(ak.flatten(ak.num(members, axis=2)))
    in_event = np.repeat(np.arange(len(counts)), per_event)
    owner = np.repeat(np.arange(len(per_jet)), per_jet)
    rows = ak.to_numpy(ak.flatten(members, axis=None)) + first[in_event[owner]]
    return rows.astype(np.int64), owner, names[in_event]


def sum_by_jet(four_momenta: np.ndarray, owner: np.ndarray, jets: int) -> np.ndarray:
    """Sum of the constituents of each jet, (jet, 4)."""
    return np.stack([np.bincount(owner, column, jets) for column in four_momenta.T], axis=1)


def inside_window(jets: np.ndarray, selection: Selection) -> np.ndarray:
    """Which jets lie in the window of pT and pseudorapidity, (jet,) bool."""
    pt = np.hypot(jets[:, 1], jets[:, 2])
    abs_eta = np.abs(np.arcsinh(jets[:, 3] / pt))
    return (pt > selection.pt_min) & (pt < selection.pt_max) & (abs_eta < selection.abs_eta_max)


def matched(
    jets: np.ndarray, jet_event: np.ndarray, tops: np.ndarray, top_event: np.ndarray, radius: float
) -> np.ndarray:
    """Which jets have one top and all its three quarks within ``radius`` in (eta, phi) of their axis, (jet,) bool."""
    pairs = jet_event[:, None] == top_event[None, :]
    jet, top = np.nonzero(pairs)
    distance = delta_r(jets[jet, None, :], tops[top])
    result = np.zeros(len(jets), dtype=bool)
    result[jet[np.all(distance < radius, axis=1)]] = True
    return result


def delta_r(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Distance in (eta, phi) between four-momenta (..., 4); shapes broadcast."""

    def direction(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.arcsinh(p[..., 3] / np.hypot(p[..., 1], p[..., 2])), np.arctan2(p[..., 2], p[..., 1])

    (eta_i, phi_i), (eta_j, phi_j) = direction(first), direction(second)
    return np.hypot(eta_i - eta_j, np.mod(phi_i - phi_j + np.pi, 2 * np.pi) - np.pi)


def leading_constituents(
    four_momenta: np.ndarray, owner: np.ndarray, jet_event: np.ndarray, accepted: np.ndarray, selection: Selection
) -> PackedJets:
    """The accepted jets' constituents in descending pT, the softest beyond the limit dropped, E = |p| in float32."""
    momenta = four_momenta[:, 1:].astype(np.float32)
    pt = np.hypot(*momenta[:, :2].astype(np.float64).T)
    order = np.lexsort((-pt, owner))
    counts = np.bincount(owner, minlength=len(jet_event))
    rank = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    order = order[accepted[owner] & (rank < selection.constituents_max)]
    energy = np.sqrt(np.sum(momenta[order].astype(np.float64) ** 2, axis=1)).astype(np.float32)
    return PackedJets.unlabelled(
        four_momenta=np.concatenate([energy[:, None], momenta[order]], axis=1),
        counts=np.minimum(counts, selection.constituents_max)[accepted],
        index=jet_event[accepted],
    )
