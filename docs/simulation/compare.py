"""Compare simulated jets with the Top Tagging Reference set: pictures, one number an observable, classifier AUC.

    python docs/simulation/compare.py --reference data/top_tagging/train.h5 \
        --simulated zoo/data/samples/top_tagging_train.arrow --jets 6000 --out docs/simulation

Needs the extras ``sim`` (FastJet) and ``test`` (scikit-learn). Only the training rows 20,000 to 60,549 of the
reference are read. Writes one PNG a group of observables and prints the tables of docs/simulation.md.
"""

import argparse
import warnings
from pathlib import Path

import awkward as ak
import fastjet
import matplotlib.pyplot as plt
import mplhep
import numpy as np
import vector
from scipy.stats import ks_2samp
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from zoo.data.readers import read_jets

CLASSES = ("QCD", "top")
RADIUS = 0.8
#: Training rows of the reference that nobody looked at while the detector was tuned (that was done on 0 to 19,999).
FRESH_ROWS = (20_000, 60_550)
#: Constituents that enter the energy correlation of triplets: its cost grows with their cube.
CORRELATED = 30
#: Fractions of the constituents' pT distribution that enter as observables.
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
SPECTRUM_QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)

#: picture -> observable -> (axis label, range); 40 bins each, so that counts of constituents fall into whole bins
PICTURES = {
    "jets": {
        "multiplicity": ("constituents", (-0.5, 119.5)),
        "mass": ("jet mass [GeV]", (0, 300)),
        "leading pT fraction": (r"leading constituent $p_T$ / jet $p_T$", (0, 0.8)),
        "jet pT": (r"jet $p_T$ [GeV]", (550, 650)),
        "jet eta": (r"jet $\eta$", (-2, 2)),
        "pT fraction of 10": (r"10 leading constituents $p_T$ / jet $p_T$", (0.2, 1.0)),
    },
    "substructure": {
        "girth": (r"girth $\sum p_T \Delta R / p_T$", (0, 0.5)),
        "width": (r"width $\sum p_T \Delta R^2 / p_T$", (0, 0.25)),
        "tau21": (r"$\tau_{21}$", (0, 1.1)),
        "tau32": (r"$\tau_{32}$", (0, 1.1)),
        "C2": (r"$C_2$", (0, 0.5)),
        "pT dispersion": (r"$\sqrt{\sum p_T^2} / \sum p_T$", (0, 0.8)),
    },
}


def main() -> None:
    """Compare, print, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--simulated", type=Path, required=True)
    parser.add_argument("--jets", type=int, default=6000, help="jets of each class and source, at most")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    options = parser.parse_args()
    # FastJet's Python side warns about exclusive jets for every algorithm, the kT algorithm of this page included.
    warnings.filterwarnings("ignore", message="dcut and exclusive jets")
    reference = read_jets(options.reference, FRESH_ROWS)
    simulated = read_jets(options.simulated)
    sides = [[Sample(table, label, options.jets) for label in (0, 1)] for table in (reference, simulated)]
    for label, name in enumerate(CLASSES):
        print_class(name, sides[0][label], sides[1][label])
    draw_observables(sides, options.out)
    draw_constituents(sides, options.out)


class Sample:
    """Jets of one class: padded constituents (jet, constituent) in pT, eta and phi, and their observables."""

    def __init__(self, table, label: int, limit: int) -> None:
        rows = np.flatnonzero(table.label == label)[:limit]
        names = ("part_px", "part_py", "part_pz")
        flat = np.concatenate([np.arange(table.offsets[row], table.offsets[row + 1]) for row in rows])
        self.counts = np.diff(table.offsets)[rows]
        px, py, pz = (table.particles[name][flat].astype(np.float64) for name in names)
        pt = np.hypot(px, py)
        self.pt, self.eta, self.phi = pt, np.arcsinh(pz / pt), np.arctan2(py, px)
        momenta = ak.zip({"px": px, "py": py, "pz": pz, "E": np.sqrt(pt**2 + pz**2)}, with_name="Momentum4D")
        self.momenta = ak.unflatten(momenta, self.counts)
        self.observables = self._observables()

    def pad(self, values: np.ndarray, fill: float = 0.0) -> np.ndarray:
        """Flat values as (jet, constituent)."""
        jagged = ak.unflatten(values, self.counts)
        padded = ak.pad_none(jagged, int(self.counts.max()), clip=True)
        return ak.to_numpy(ak.fill_none(padded, fill))

    def _observables(self) -> dict[str, np.ndarray]:
        jet = ak.sum(self.momenta.px, axis=1), ak.sum(self.momenta.py, axis=1), ak.sum(self.momenta.pz, axis=1)
        jet_px, jet_py, jet_pz = (ak.to_numpy(axis) for axis in jet)
        energy = ak.to_numpy(ak.sum(self.momenta.E, axis=1))
        jet_pt = np.hypot(jet_px, jet_py)
        jet_eta = np.arcsinh(jet_pz / jet_pt)
        pt, eta, phi = self.pad(self.pt), self.pad(self.eta), self.pad(self.phi)
        to_axis = distance(eta, phi, jet_eta[:, None], np.arctan2(jet_py, jet_px)[:, None])
        fraction = np.cumsum(pt, axis=1) / jet_pt[:, None]
        taus = self._subjettiness(pt, eta, phi)
        scalar = pt.sum(axis=1)
        nearest = self._nearest(pt, eta, phi)
        result = {
            "multiplicity": self.counts.astype(np.float64),
            "mass": np.sqrt(np.maximum(energy**2 - jet_px**2 - jet_py**2 - jet_pz**2, 0.0)),
            "leading pT fraction": fraction[:, 0],
            "jet pT": jet_pt,
            "jet eta": jet_eta,
            "pT fraction of 3": fraction[:, 2],
            "pT fraction of 10": fraction[:, 9],
            "girth": (pt * to_axis).sum(axis=1) / jet_pt,
            "width": (pt * to_axis**2).sum(axis=1) / jet_pt,
            "pT dispersion": np.sqrt((pt**2).sum(axis=1)) / scalar,
            "tau1": taus[0],
            "tau21": taus[1] / taus[0],
            "tau32": taus[2] / taus[1],
            "C2": correlation(pt, eta, phi),
            "nearest neighbour, mean": nearest.mean(axis=1, where=pt > 0),
            "objects in one direction": (nearest < 1e-5).sum(axis=1, where=pt > 0).astype(np.float64),
        }
        logarithms = np.log(np.where(pt > 0, pt, np.nan))
        for quantile, values in zip(QUANTILES, np.nanquantile(logarithms, QUANTILES, axis=1), strict=True):
            result[f"log pT, {100 * quantile:.0f} %"] = values
        return result

    def _nearest(self, pt: np.ndarray, eta: np.ndarray, phi: np.ndarray) -> np.ndarray:
        """Distance of each constituent to its nearest neighbour, capped at the jet radius."""
        result = np.full_like(pt, RADIUS)
        for first in range(0, len(pt), 200):
            block = slice(first, first + 200)
            pairs = distance(eta[block, :, None], phi[block, :, None], eta[block, None, :], phi[block, None, :])
            pairs = np.where(pt[block, None, :] > 0, pairs, RADIUS) + RADIUS * np.eye(pt.shape[1])
            result[block] = np.minimum(pairs.min(axis=2), RADIUS)
        return result

    def _subjettiness(self, pt: np.ndarray, eta: np.ndarray, phi: np.ndarray) -> list[np.ndarray]:
        """tau_1 to tau_3 with beta = 1 about exclusive kT axes."""
        vector.register_awkward()
        sequence = fastjet.ClusterSequence(self.momenta, fastjet.JetDefinition(fastjet.kt_algorithm, RADIUS))
        taus = []
        for number in (1, 2, 3):
            axes = sequence.exclusive_jets(n_jets=number)
            px, py, pz = (ak.to_numpy(axes[name])[:, None, :] for name in ("px", "py", "pz"))
            axis_eta, axis_phi = np.arcsinh(pz / np.hypot(px, py)), np.arctan2(py, px)
            closest = distance(eta[:, :, None], phi[:, :, None], axis_eta, axis_phi).min(axis=2)
            taus.append((pt * closest).sum(axis=1) / (pt.sum(axis=1) * RADIUS))
        return taus


def distance(eta_i: np.ndarray, phi_i: np.ndarray, eta_j: np.ndarray, phi_j: np.ndarray) -> np.ndarray:
    """Delta R."""
    return np.hypot(eta_i - eta_j, np.mod(phi_i - phi_j + np.pi, 2 * np.pi) - np.pi)


def correlation(pt: np.ndarray, eta: np.ndarray, phi: np.ndarray) -> np.ndarray:
    """Energy correlation ratio C_2 = e_3 e_1 / e_2^2 with beta = 1 of the leading constituents."""
    result = np.empty(len(pt))
    pt, eta, phi = (values[:, :CORRELATED] for values in (pt, eta, phi))
    for first in range(0, len(pt), 500):
        block = slice(first, first + 500)
        z = pt[block] / pt[block].sum(axis=1, keepdims=True)
        pairs = distance(eta[block, :, None], phi[block, :, None], eta[block, None, :], phi[block, None, :])
        weighted = pairs * z[:, None, :]
        e2 = np.einsum("ji,jik->j", z, weighted) / 2
        # sum over i, j, k of z_i z_j z_k R_ij R_jk R_ki = trace of (R z)^3; each triplet counts six times
        e3 = np.einsum("jab,jba->j", weighted @ weighted, weighted) / 6
        result[block] = e3 / e2**2
    return result


def print_class(name: str, reference: Sample, simulated: Sample) -> None:
    """The table of one class, in Markdown, and the classifier's AUC."""
    print(f"\n{name}: {len(reference.counts)} reference jets, {len(simulated.counts)} simulated jets\n")
    print("| observable | reference mean | simulated mean | KS distance | AUC |\n|---|---|---|---|---|")
    source = np.repeat([0, 1], [len(reference.counts), len(simulated.counts)])
    for key, real in reference.observables.items():
        ours = simulated.observables[key]
        auc = roc_auc_score(source, np.concatenate([real, ours]))
        print(f"| {key} | {real.mean():.4g} | {ours.mean():.4g} | {ks_2samp(real, ours).statistic:.3f} | {auc:.3f} |")
    print()
    for text, side in (("reference", reference), ("simulated", simulated)):
        quantiles = ", ".join(f"{value:.3g}" for value in np.quantile(side.pt, SPECTRUM_QUANTILES))
        print(f"constituent pT, 1, 10, 50, 90 and 99 % quantiles in GeV, {text}: {quantiles}")
    auc, error = classifier_auc(reference, simulated)
    print(f"classifier AUC, {name}: {auc:.3f} +- {error:.3f}")


def classifier_auc(reference: Sample, simulated: Sample) -> tuple[float, float]:
    """AUC of reference against simulated jets on held-out jets (5 folds), and its error from Hanley and McNeil."""
    rows = [np.stack(list(side.observables.values()), axis=1) for side in (reference, simulated)]
    source = np.repeat([0, 1], [len(side) for side in rows])
    # The larger side is weighted down: 0.5 must mean "no difference" whatever the numbers.
    model = HistGradientBoostingClassifier(
        max_iter=150,
        learning_rate=0.05,
        max_leaf_nodes=15,
        min_samples_leaf=40,
        class_weight="balanced",
        random_state=1,
    )
    folds = StratifiedKFold(5, shuffle=True, random_state=1)
    scores = cross_val_predict(model, np.concatenate(rows), source, cv=folds, method="predict_proba")[:, 1]
    auc = roc_auc_score(source, scores)
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    real, ours = len(rows[0]), len(rows[1])
    variance = (auc * (1 - auc) + (ours - 1) * (q1 - auc**2) + (real - 1) * (q2 - auc**2)) / (real * ours)
    return auc, np.sqrt(variance)


def draw_observables(sides: list[list[Sample]], out: Path) -> None:
    """One PNG for each group: reference as points, simulated as lines."""
    for picture, panels in PICTURES.items():
        figure, axes = plt.subplots(2, 3, figsize=(15, 8.5))
        for axis, (key, (text, limits)) in zip(axes.flat, panels.items(), strict=True):
            edges = np.linspace(*limits, 41)
            samples = [[sample.observables[key] for sample in side] for side in sides]
            overlay(axis, samples, edges, [[len(values) for values in side] for side in samples])
            axis.set(xlabel=text, ylabel="fraction of jets", xlim=limits)
        finish(figure, axes.flat[0], out / f"{picture}.png")


def draw_constituents(sides: list[list[Sample]], out: Path) -> None:
    """Constituent pT, distance to the axis and to the nearest neighbour, as numbers in a jet."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6))
    jets = [[len(sample.counts) for sample in side] for side in sides]
    overlay(axes[0], [[sample.pt for sample in side] for side in sides], np.geomspace(0.1, 600, 46), jets)
    axes[0].set(xlabel=r"constituent $p_T$ [GeV]", ylabel="constituents in a jet", xscale="log", xlim=(0.1, 600))
    neighbours = [[nearest_distances(sample) for sample in side] for side in sides]
    overlay(axes[1], neighbours, np.geomspace(1e-3, RADIUS, 46), jets)
    axes[1].set(
        xlabel=r"nearest neighbour $\Delta R$", ylabel="constituents in a jet", xscale="log", xlim=(1e-3, RADIUS)
    )
    finish(figure, axes[0], out / "constituents.png")


def nearest_distances(sample: Sample) -> np.ndarray:
    """Flat distances of all constituents to their nearest neighbours."""
    pt = sample.pad(sample.pt)
    return sample._nearest(pt, sample.pad(sample.eta), sample.pad(sample.phi))[pt > 0]


def overlay(axis: plt.Axes, samples: list, edges: np.ndarray, jets: list) -> None:
    """Reference (points with errors) and simulation (line with band) of both classes, each over its number of jets."""
    for label, colour in enumerate(("C0", "C3")):
        for side, kind in enumerate(("reference", "zoo simulate")):
            counts, total = np.histogram(samples[side][label], edges)[0], jets[side][label]
            height, error = counts / total, np.sqrt(counts) / total
            text = f"{CLASSES[label]}, {kind}"
            if side == 0:
                style = {"histtype": "errorbar", "markersize": 5}
                mplhep.histplot(height, edges, yerr=error, ax=axis, color=colour, label=text, **style)
            else:
                mplhep.histplot(height, edges, ax=axis, color=colour, label=text, yerr=False, linewidth=1.5)
                axis.stairs(height + error, edges, baseline=height - error, fill=True, color=colour, alpha=0.25)


def finish(figure: plt.Figure, first: plt.Axes, path: Path) -> None:
    """Legend above all panels, layout, file."""
    handles, texts = first.get_legend_handles_labels()
    figure.legend(handles, texts, ncols=4, loc="upper center", fontsize=13, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.45 / figure.get_figheight()))
    figure.savefig(path, dpi=80)
    plt.close(figure)
    print(f"wrote {path}")


if __name__ == "__main__":
    plt.style.use([mplhep.style.ROOT, {"font.size": 13, "axes.labelsize": 14, "lines.markersize": 4}])
    main()
