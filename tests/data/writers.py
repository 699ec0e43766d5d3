"""Small random jets in every public layout, and the files that hold them."""

from pathlib import Path

import awkward as ak
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import uproot
from pyarrow import parquet

from zoo.data.datasets import JET_COLUMNS, describe_dataset

FLAGS = ("part_isChargedHadron", "part_isNeutralHadron", "part_isPhoton", "part_isElectron", "part_isMuon")
IMPACT = ("part_d0val", "part_d0err", "part_dzval", "part_dzerr")

#: Events of DarkMachines, a line each.
LINES = [
    "7;ttH;1;239073.7;-0.08691;j,222072.1,192993.9,-0.53710,2.78658;b,52456.0,49350.6,-0.32490,-2.44215",
    "8;tttt;0.5;1000;3.1;e+,112430.6,81538.2,-0.84511,-2.85950",
    "9;ttZ;1;0;0;m-,27914.3,22684.4,-0.66662,0.25541;m+,60000,30000,1.31,1;g,20000,20000,0,0",
    "10;ttW;2;1e3;0;e-,112430.6,81538.2,-0.84511,-2.85950",
]

_HLS4ML_PARTICLES = "px py pz e erel pt ptrel eta etarel etarot phi phirel phirot deltaR costheta costhetarel pdgid"
_HLS4ML_JETS = "j_ptfrac j_pt j_eta j_mass j_multiplicity j_g j_q j_w j_z j_t j_undef"


def random_momenta(particles: int, seed: int) -> np.ndarray:
    """Massless four-momenta (particle, 4) in GeV, float32, roughly those of a jet along +x at pt 600 GeV."""
    random = np.random.default_rng(seed)
    momenta = random.normal([12.0, 0.0, 4.0], [4.0, 2.0, 2.0], size=(particles, 3))
    return np.column_stack([np.linalg.norm(momenta, axis=1), momenta]).astype(np.float32)


def top_tagging_rows(jets: int) -> pd.DataFrame:
    """Jets of the Top Tagging Reference, zero-padded to four constituents; jet ``j`` has 1 + j % 4 of them."""
    rows = np.zeros((jets, 4, 4), dtype=np.float32)
    for jet, row in enumerate(rows):
        row[: 1 + jet % 4] = random_momenta(1 + jet % 4, seed=jet)
    names = [f"{component}_{i}" for i in range(4) for component in ("E", "PX", "PY", "PZ")]
    frame = pd.DataFrame(rows.reshape(jets, 16), columns=names)
    for name in ("truthE", "truthPX", "truthPY", "truthPZ"):
        frame[name] = np.float32(0)
    frame["ttv"] = 0
    frame["is_signal_new"] = np.resize([0, 1, 0, 1, 1, 0], jets)
    return frame


def jetclass_columns(counts: np.ndarray) -> dict[str, ak.Array | np.ndarray]:
    """Jets of JetClass with so many particles each; the class of jet ``j`` is j % 10."""
    random = np.random.default_rng(5)
    particles, jets = int(counts.sum()), len(counts)
    momenta = random.normal([12.0, 0.0, 4.0], [4.0, 2.0, 2.0], size=(particles, 3)).astype(np.float32)
    energy = np.linalg.norm(momenta.astype(float), axis=1).astype(np.float32)
    kinds = random.integers(0, 5, particles)
    flat = dict(zip(("part_px", "part_py", "part_pz"), momenta.T, strict=True)) | {"part_energy": energy}
    flat |= {"part_charge": random.integers(-1, 2, particles).astype(np.int32)}
    flat |= {name: kinds == kind for kind, name in enumerate(FLAGS)}
    flat |= {name: random.normal(0, 2, particles).astype(np.float32) for name in IMPACT}
    fields = {name: random.uniform(1, 2, jets).astype(np.float32) for name in JET_COLUMNS}
    classes = describe_dataset("jetclass").classes
    labels = {f"label_{name}": np.arange(jets) % 10 == i for i, name in enumerate(classes)}
    lists = {name: ak.unflatten(np.ascontiguousarray(values), counts) for name, values in flat.items()}
    return {**lists, **fields, **labels}


def changed(columns: dict, name: str, row: int, particle: int, value: float) -> dict:
    """The columns with another number for one particle."""
    values = ak.to_list(columns[name])
    values[row][particle] = value
    dtype = ak.to_numpy(ak.flatten(columns[name])).dtype
    return {**columns, name: ak.values_astype(ak.Array(values), dtype)}


def write_root(path: Path, columns: dict, rows: int = 5) -> Path:
    """Write columns as a TTree with so many jets a basket."""
    lists = {name: values for name, values in columns.items() if isinstance(values, ak.Array)}
    flat = {name: np.asarray(values) for name, values in columns.items() if name not in lists}
    with uproot.recreate(path) as file:
        types = {name: ak.type(values[:0]).content for name, values in lists.items()}
        file.mktree("tree", types | {name: values.dtype for name, values in flat.items()})
        for piece in _pieces(columns, rows):
            file["tree"].extend(piece)
    return path


def write_rntuple(path: Path, columns: dict, rows: int = 5) -> Path:
    """Write columns as an RNTuple with so many jets a cluster."""
    first, *others = _pieces(columns, rows)
    with uproot.recreate(path) as file:
        ntuple = file.mkrntuple("tree", first)
        for piece in others:
            ntuple.extend(piece)
    return path


def _pieces(columns: dict, rows: int) -> list[dict]:
    jets = max(map(len, columns.values()))
    return [{name: values[i : i + rows] for name, values in columns.items()} for i in range(0, jets, rows)]


def write_parquet(path: Path, columns: dict, rows: int = 5) -> Path:
    """Write columns as parquet with the checksums of its pages and so many jets a row group."""
    table = pa.table({name: _arrow(values) for name, values in columns.items()})
    parquet.write_table(table, path, row_group_size=rows, write_page_checksum=True)
    return path


def _arrow(values: ak.Array | np.ndarray) -> pa.Array:
    if not isinstance(values, ak.Array):
        return pa.array(values)
    offsets = np.concatenate([[0], np.cumsum(ak.to_numpy(ak.num(values)))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(ak.to_numpy(ak.flatten(values))))


def quark_gluon_arrays() -> dict[str, np.ndarray]:
    """Three jets with 4, 2 and 1 particles as EnergyFlow publishes them."""
    particles = np.zeros((3, 5, 4))
    particles[0, :4] = [[100, 0.5, 3, 211], [50, 0.4, 3.1, 22], [20, 0.6, 2.9, -11], [3, 0.5, 3, 130]]
    particles[1, :2] = [[200, -1, 6.2, -2212], [0.5, -1.2, 6.3, 13]]
    particles[2, :1] = [[500, 1.7, 1, -2112]]
    return {"X": particles, "y": np.array([1.0, 0.0, 1.0])}


def hls4ml_arrays(jets: int) -> dict[str, np.ndarray]:
    """Jets of hls4ml, padded to 8 particles; jet ``j`` has 1 + j % 8 of them and the class j % 5."""
    random = np.random.default_rng(3)
    particles = np.zeros((jets, 8, 16))
    for jet in range(jets):
        real = slice(0, 1 + jet % 8)
        momenta = random.normal(0, 20, (real.stop, 3))
        particles[jet, real, :3] = momenta
        particles[jet, real, 3] = np.sqrt((momenta**2).sum(axis=1) + 0.14**2)
        particles[jet, real, 4:] = 7.0
    fields = random.uniform(1, 2, (jets, 11))
    fields[:, 5:] = np.eye(6)[np.arange(jets) % 5]
    return {
        "jetConstituentList": particles,
        "particleFeatureNames": np.array([f"j1_{name}" for name in _HLS4ML_PARTICLES.split()], dtype="S"),
        "jets": fields,
        "jetFeatureNames": np.array(_HLS4ML_JETS.split(), dtype="S"),
        "jetImage": np.zeros((jets, 4, 4)),
    }


def jetnet_arrays(jets: int) -> dict[str, np.ndarray]:
    """Jets of JetNet with 1 TeV, padded to 6 particles; jet ``j`` has 2 + j % 5; what is masked is not zero."""
    random = np.random.default_rng(4)
    counts = 2 + np.arange(jets) % 5
    particles = random.normal(0, 0.1, (jets, 6, 4)).astype(np.float32)
    particles[..., 2] = random.uniform(0.01, 0.3, (jets, 6))
    particles[..., 3] = np.arange(6) < counts[:, None]
    fields = [
        random.uniform(900, 1100, jets),
        random.normal(0, 1, jets),
        random.uniform(20, 200, jets),
        counts,
    ]
    return {"particle_features": particles, "jet_features": np.column_stack(fields).astype(np.float32)}


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """Write arrays as HDF5."""
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values, compression="gzip")
    return path


def lhc_olympics_rows(events: int) -> np.ndarray:
    """Events of the LHC Olympics, padded to 7 particles; event ``j`` has 1 + j % 7; the label is last."""
    random = np.random.default_rng(6)
    particles = np.zeros((events, 7, 3))
    for event in range(events):
        real = slice(0, 1 + event % 7)
        particles[event, real] = random.normal([100, 0, 0], [10, 1, 1], (real.stop, 3))
    return np.column_stack([particles.reshape(events, 21), np.resize([0, 1, 0, 0, 1], events)])
