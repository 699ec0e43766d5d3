"""Files of any names, in four formats, read with a layout."""

import dataclasses
import os
import pickle

import awkward as ak
import h5py
import numpy as np
import pyarrow as pa
import pytest
import uproot
from pyarrow import parquet

from zoo.data.datamodule import JetDataModule, Split
from zoo.data.formats.layout import Layout
from zoo.data.formats.momenta import COMPONENTS, four_momenta
from zoo.data.read_report import RejectedJetsWarning
from zoo.data.readers import read_jets
from zoo.data.source import open_source

COUNTS = np.array([3, 1, 4, 2, 5, 1, 2])
PARTICLES = int(COUNTS.sum())

LAYOUT = Layout(
    name="mine",
    classes=("qcd", "top"),
    momenta={"pt": "cand_pt", "eta": "cand_eta", "phi": "cand_phi", "mass": "cand_mass"},
    label="flavour",
    particles={"part_charge": "cand_q", "part_isMuon": "cand_mu"},
    fields={"jet_tau21": "tau21", "event": "event"},
    weight="gen_weight",
)


@pytest.fixture
def columns() -> dict:
    """Seven jets of massive particles, in GeV."""
    random = np.random.default_rng(7)
    flat = {
        "cand_pt": random.exponential(20, PARTICLES).astype(np.float32) + 1,
        "cand_eta": random.normal(0, 1, PARTICLES).astype(np.float32),
        "cand_phi": random.uniform(-np.pi, np.pi, PARTICLES).astype(np.float32),
        "cand_mass": random.choice([0, 0.13957, 0.938], PARTICLES).astype(np.float32),
        "cand_q": random.integers(-1, 2, PARTICLES).astype(np.int32),
        "cand_mu": random.integers(0, 2, PARTICLES).astype(bool),
    }
    flat["cand_e"] = np.sqrt((flat["cand_pt"] * np.cosh(flat["cand_eta"])) ** 2 + flat["cand_mass"] ** 2)
    jets = {
        "tau21": random.uniform(0, 1, 7).astype(np.float32),
        "event": np.array([9007199254740993, 2, 3, 4, 5, 6, 7]),
        "gen_weight": np.array([1, 2, -1, 0.5, 1, 1, 1]),
        "flavour": np.array([0, 1, 1, 0, 1, 0, 0], dtype=np.int32),
    }
    return {name: ak.unflatten(values, COUNTS) for name, values in flat.items()} | jets


def write_root(path, columns, kind="mktree"):
    with uproot.recreate(path) as file:
        types = {
            name: ak.type(values[:0]).content if isinstance(values, ak.Array) else (values.dtype, values.shape[1:])
            for name, values in columns.items()
        }
        if kind == "mkrntuple":
            file.mkrntuple("Events", columns)
        else:
            file.mktree("Events", types)
            file["Events"].extend(columns)


def write_rntuple(path, columns):
    write_root(path, columns, "mkrntuple")


def write_parquet(path, columns):
    arrow = {
        name: pa.array(values.to_list(), pa.list_(pa.from_numpy_dtype(ak.to_numpy(ak.flatten(values)).dtype)))
        if isinstance(values, ak.Array)
        else pa.array(values)
        for name, values in columns.items()
    }
    parquet.write_table(pa.table(arrow), path, row_group_size=3, write_page_checksum=True)


def write_padded_hdf5(path, columns):
    with h5py.File(path, "w") as file:
        for name, values in columns.items():
            if isinstance(values, ak.Array):
                dtype = ak.to_numpy(ak.flatten(values)).dtype
                values = ak.to_numpy(ak.fill_none(ak.pad_none(values, 6, clip=True), 0)).astype(dtype)
            file[f"Events/{name}"] = values


def write_jagged_hdf5(path, columns):
    with h5py.File(path, "w") as file:
        for name, values in columns.items():
            if isinstance(values, ak.Array):
                dtype = h5py.vlen_dtype(ak.to_numpy(ak.flatten(values)).dtype)
                data = file.create_dataset(f"Events/{name}", len(values), dtype)
                for row, jet in enumerate(values):
                    data[row] = ak.to_numpy(jet)
            else:
                file[f"Events/{name}"] = values


WRITERS = {
    "root": write_root,
    "rntuple": write_rntuple,
    "parquet": write_parquet,
    "padded": write_padded_hdf5,
    "jagged": write_jagged_hdf5,
}


@pytest.fixture(params=WRITERS)
def write(request, tmp_path):
    """Function that writes columns in one of the formats."""

    def write(columns):
        WRITERS[request.param](tmp_path / f"jets.{request.param}", columns)
        return tmp_path / f"jets.{request.param}"

    write.tree = None if request.param == "parquet" else "Events"
    return write


def flat(columns, name):
    return ak.to_numpy(ak.flatten(columns[name])).astype(float)


def test_every_number_is_read_in_every_format(columns, write):
    path = write(columns)
    table = read_jets(path, layout=dataclasses.replace(LAYOUT, tree=write.tree))
    pt, eta, phi, mass = (flat(columns, f"cand_{name}") for name in ("pt", "eta", "phi", "mass"))
    found = {name: values.astype(float) for name, values in table.particles.items()}
    np.testing.assert_allclose(np.hypot(found["part_px"], found["part_py"]), pt, rtol=1e-6)
    np.testing.assert_allclose(np.arctan2(found["part_py"], found["part_px"]), phi, atol=1e-6)
    momentum = np.sqrt(found["part_px"] ** 2 + found["part_py"] ** 2 + found["part_pz"] ** 2)
    np.testing.assert_allclose(np.arctanh(found["part_pz"] / momentum), eta, atol=1e-5)
    np.testing.assert_allclose(found["part_energy"] ** 2 - momentum**2, mass**2, atol=1e-6 * np.max(momentum) ** 2)
    np.testing.assert_array_equal(found["part_charge"], flat(columns, "cand_q"))
    np.testing.assert_array_equal(found["part_isMuon"], flat(columns, "cand_mu"))
    assert table.particles["part_isMuon"].dtype == np.uint8
    assert table.counts.tolist() == COUNTS.tolist()
    assert table.label.tolist() == [0, 1, 1, 0, 1, 0, 0]
    assert table.weight.tolist() == [1, 2, -1, 0.5, 1, 1, 1]
    np.testing.assert_array_equal(table.fields["jet_tau21"], columns["tau21"])
    np.testing.assert_array_equal(table.fields["event"], columns["event"])
    assert table.metadata == {"dataset": "mine", "classes": ["qcd", "top"], "units": "GeV"}


def write_padded_parquet(path, columns):
    arrow = {
        name: pa.FixedSizeListArray.from_arrays(values.reshape(-1), values.shape[1]) if values.ndim == 2 else values
        for name, values in columns.items()
    }
    parquet.write_table(pa.table(arrow), path)


@pytest.mark.parametrize("write", [write_root, write_rntuple, write_padded_parquet])
def test_padded_arrays_outside_hdf5(columns, tmp_path, write):
    """Branches and columns of a fixed length; what has no momentum is padding."""
    padded = {}
    for name, values in columns.items():
        padded[name] = np.asarray(values) if not isinstance(values, ak.Array) else np.zeros((7, 6), np.float32)
        if isinstance(values, ak.Array):
            for row, jet in enumerate(values.to_list()):
                padded[name][row, : len(jet)] = jet
    write(tmp_path / "padded", padded)
    write_parquet(tmp_path / "jagged", columns)
    found, expected = (read_jets(tmp_path / name, layout=LAYOUT) for name in ("padded", "jagged"))
    assert found.counts.tolist() == COUNTS.tolist()
    for name, values in expected.particles.items():
        np.testing.assert_array_equal(found.particles[name], values)


def test_columns_that_hold_no_numbers(columns, tmp_path):
    write_parquet(tmp_path / "jets.parquet", columns)
    table = parquet.read_table(tmp_path / "jets.parquet").drop_columns("cand_pt")
    parquet.write_table(table.append_column("cand_pt", pa.array([["a"]] * 7)), tmp_path / "jets.parquet")
    with pytest.raises(
        ValueError, match="column 'cand_pt' must hold lists of floating-point numbers, not lists of obj"
    ):
        read_jets(tmp_path / "jets.parquet", layout=LAYOUT)


@pytest.mark.parametrize("rows", [(0, 7), (2, 5), (6, 7)])
def test_row_ranges_and_chunks(columns, write, monkeypatch, rows):
    path, layout = write(columns), dataclasses.replace(LAYOUT, tree=write.tree)
    whole = read_jets(path, layout=layout).slice(*rows)
    monkeypatch.setattr("zoo.data.source.CHUNK_JETS", 2)
    part = read_jets(path, rows, layout)
    for name, values in whole.particles.items():
        np.testing.assert_array_equal(part.particles[name], values)
    assert part.label.tolist() == whole.label.tolist()
    assert part.source_rows.tolist() == list(range(*rows))
    assert len(open_source(path, layout)) == 7


def test_megaelectronvolts_become_gigaelectronvolts(columns, write):
    layout = dataclasses.replace(LAYOUT, tree=write.tree, fields={"met": "tau21", "other": "tau21"})
    gev = read_jets(write(columns), layout=layout)
    mev = read_jets(write(columns), layout=dataclasses.replace(layout, units="MeV"))
    for name in ("part_energy", "part_px", "part_py", "part_pz"):
        np.testing.assert_allclose(mev.particles[name], gev.particles[name] / 1000, rtol=1e-6)
    np.testing.assert_allclose(mev.fields["met"], gev.fields["met"] / 1000, rtol=1e-6)
    np.testing.assert_array_equal(mev.fields["other"], gev.fields["other"])
    np.testing.assert_array_equal(mev.particles["part_charge"], gev.particles["part_charge"])


@pytest.mark.parametrize("components", COMPONENTS, ids="-".join)
def test_the_same_momentum_in_all_components(components):
    random = np.random.default_rng(2)
    px, py, pz = random.normal(0, 30, (3, 50))
    mass = random.uniform(0, 5, 50) if {"mass", "energy"} & set(components) else np.zeros(50)
    pt = np.hypot(px, py)
    given = {
        "px": px,
        "py": py,
        "pz": pz,
        "pt": pt,
        "eta": np.arcsinh(pz / pt),
        "phi": np.arctan2(py, px),
        "mass": mass,
    }
    given["energy"] = np.sqrt(px**2 + py**2 + pz**2 + mass**2)
    scaled = {name: given[name] * (1 if name in ("eta", "phi") else 1000) for name in components}
    found, _ = four_momenta(scaled, 1e-3)
    for name in ("px", "py", "pz", "energy"):
        np.testing.assert_allclose(found[f"part_{name}"], given[name], rtol=1e-6, atol=1e-5)
        assert found[f"part_{name}"].dtype == np.float32


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("cand_pt", np.nan, "not finite"),
        ("cand_phi", np.inf, "not finite"),
        ("cand_pt", -3, "negative energy"),
        ("cand_mass", -1, "negative energy"),
        ("cand_eta", 500, "not finite"),
    ],
)
def test_bad_jets_are_counted(columns, write, name, value, reason):
    jets = columns[name].to_list()
    jets[2][1] = value
    columns[name] = ak.values_astype(ak.Array(jets), np.float32)
    with pytest.warns(RejectedJetsWarning) as caught:
        table = read_jets(write(columns), layout=dataclasses.replace(LAYOUT, tree=write.tree))
    assert table.source_rows.tolist() == [0, 1, 3, 4, 5, 6]
    assert caught[0].message.args[0].rejected[reason] == 1
    assert caught[0].filename == __file__


def test_jets_without_particles_are_counted(columns, write):
    columns |= {name: values[:, :0] if name == "none" else values for name, values in columns.items()}
    lists = {name: values for name, values in columns.items() if isinstance(values, ak.Array)}
    empty = {name: ak.concatenate([values[:6], values[6:, :0]]) for name, values in lists.items()}
    with pytest.warns(RejectedJetsWarning, match="1 no particles"):
        table = read_jets(write(columns | empty), layout=dataclasses.replace(LAYOUT, tree=write.tree))
    assert len(table) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cand_pt": "cand_Pt"}, r"jets.*: column 'cand_pt' is missing; did you mean 'cand_Pt'\?"),
        ({"flavour": "flavor"}, r"column 'flavour' is missing; did you mean 'flavor'\?"),
        ({"gen_weight": "genWeight"}, r"column 'gen_weight' is missing; did you mean 'genWeight'\?"),
    ],
)
def test_missing_and_misspelt_columns(columns, write, change, message):
    columns = {change.get(name, name): values for name, values in columns.items()}
    with pytest.raises(ValueError, match=message):
        read_jets(write(columns), layout=dataclasses.replace(LAYOUT, tree=write.tree))


@pytest.mark.parametrize(
    ("name", "convert", "message"),
    [
        ("cand_pt", lambda v: ak.values_astype(v, np.int32), "lists of floating-point numbers, not lists of int32"),
        ("cand_q", lambda v: ak.to_numpy(ak.firsts(v)), "lists of numbers or flags, not int32"),
        ("tau21", lambda v: ak.unflatten(v, np.ones(7, int)), "numbers, not lists of float32"),
    ],
)
def test_wrong_types(columns, write, name, convert, message):
    columns[name] = convert(columns[name])
    with pytest.raises(ValueError, match=f"jets.*: column '{name}' must hold {message}"):
        read_jets(write(columns), layout=dataclasses.replace(LAYOUT, tree=write.tree))


@pytest.mark.parametrize("fraction", [0.3, 0.9])
def test_truncated_file(columns, write, fraction):
    path = write(columns)
    path.write_bytes(path.read_bytes()[: int(fraction * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"jets.* cannot be read: .*; it is truncated or damaged"):
        read_jets(path, layout=dataclasses.replace(LAYOUT, tree=write.tree))


def test_another_tree(columns, tmp_path):
    write_root(tmp_path / "jets.root", columns)
    assert len(read_jets(tmp_path / "jets.root", layout=LAYOUT)) == 7
    with pytest.raises(ValueError, match=r"jets.root: there is no tree 'Evnts'; did you mean 'Events'\? Change 'tree'"):
        read_jets(tmp_path / "jets.root", layout=dataclasses.replace(LAYOUT, tree="Evnts"))
    write_padded_hdf5(tmp_path / "jets.h5", columns)
    with pytest.raises(ValueError, match=r"jets.h5: there is no group 'events'; did you mean 'Events'\?"):
        read_jets(tmp_path / "jets.h5", layout=dataclasses.replace(LAYOUT, tree="events"))
    write_parquet(tmp_path / "jets.parquet", columns)
    with pytest.raises(ValueError, match=r"jets.parquet: a parquet file has no tree 'Events'; leave 'tree' out"):
        read_jets(tmp_path / "jets.parquet", layout=dataclasses.replace(LAYOUT, tree="Events"))


def test_a_layout_is_not_for_text(tmp_path):
    (tmp_path / "jets.csv").write_text("a,b\n")
    with pytest.raises(ValueError, match=r"jets.csv: a layout describes ROOT, parquet and HDF5 files; .* b'a,b"):
        read_jets(tmp_path / "jets.csv", layout=LAYOUT)


def test_parts_of_padded_arrays_in_hdf5(tmp_path):
    """Arrays (jet, particle, number), as the Aspen Open Jets have, and compound rows with a mask, as ATLAS has."""
    random = np.random.default_rng(1)
    cands = np.zeros((3, 5, 4))
    for jet, count in enumerate((2, 5, 1)):
        cands[jet, :count, :3] = random.normal(0, 10, (count, 3))
    cands[..., 3] = np.linalg.norm(cands[..., :3], axis=2)
    tracks = np.zeros((3, 5), dtype=[("pt", "f4"), ("eta", "f4"), ("phi", "f4"), ("valid", "?")])
    tracks["pt"], tracks["valid"][:, :2] = 2000, True
    with h5py.File(tmp_path / "jets.h5", "w") as file:
        file["PFCands"], file["tracks"] = cands, tracks
        file["jets"] = np.array([(5,), (0,), (5,)], dtype=[("flavour", "i4")])
        file["per_file"] = np.zeros(10)
    layout = Layout(
        name="aspen",
        classes=("b", "light"),
        momenta={name: f"PFCands/{i}" for i, name in enumerate(("px", "py", "pz", "energy"))},
        label="jets/flavour",
        label_values=(5, 0),
    )
    table = read_jets(tmp_path / "jets.h5", layout=layout)
    assert table.counts.tolist() == [2, 5, 1]
    assert table.label.tolist() == [0, 1, 0]
    np.testing.assert_array_equal(table.particles["part_py"][2:7], cands[1, :, 1].astype(np.float32))
    polar = {name: f"tracks/{name}" for name in ("pt", "eta", "phi")}
    masked = dataclasses.replace(layout, momenta=polar, mask="tracks/valid", units="MeV")
    table = read_jets(tmp_path / "jets.h5", layout=masked)
    assert table.counts.tolist() == [2, 2, 2]
    np.testing.assert_allclose(table.particles["part_energy"], 2)
    with pytest.raises(ValueError, match=r"data set '/per_file' has 10 rows, '/PFCands' has 3; write the file again"):
        read_jets(tmp_path / "jets.h5", layout=dataclasses.replace(layout, weight="per_file"))


def test_labels_of_hadron_flavours(columns, write):
    columns["flavour"] = np.array([5, 4, 0, 5, 4, 0, 0], dtype=np.int32)
    layout = dataclasses.replace(LAYOUT, tree=write.tree, classes=("b", "c", "light"), label_values=(5, 4, 0))
    assert read_jets(write(columns), layout=layout).label.tolist() == [0, 1, 2, 0, 1, 2, 2]
    columns["flavour"][3] = 15
    with pytest.raises(ValueError, match=r"column 'flavour' must be one of 5, 4, 0, not 15 as in row 3; correct"):
        read_jets(write(columns), layout=layout)


def test_several_values_of_one_class(columns, write):
    columns["flavour"] = np.array([5, -5, 0, 21, 4, 0, 1], dtype=np.int32)
    values = {5: "b", -5: "b", 0: "light", 21: "light", 1: "light", 4: "c"}
    layout = dataclasses.replace(LAYOUT, tree=write.tree, classes=("b", "c", "light"), label_values=values)
    assert read_jets(write(columns), layout=layout).label.tolist() == [0, 0, 2, 2, 1, 2, 2]
    del values[21]
    with pytest.raises(ValueError, match=r"column 'flavour' must be one of 5, -5, 0, 1, 4, not 21 as in row 3"):
        read_jets(write(columns), layout=dataclasses.replace(layout, label_values=values))
    with pytest.raises(ValueError, match="column 'flavour' must hold text, not int32"):
        read_jets(write(columns), layout=dataclasses.replace(layout, label_values={"5": "b"}))


def test_a_file_without_rows(columns, write):
    path = write({name: values[:0] for name, values in columns.items()})
    with pytest.raises(ValueError, match=r"jets.*: holds no row"):
        read_jets(path, layout=dataclasses.replace(LAYOUT, tree=write.tree))
    path.write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"jets.*: a layout describes ROOT, parquet and HDF5 files; .* starts with b''"
    ):
        read_jets(path, layout=LAYOUT)


def test_labels_as_flags_and_as_names_of_files(columns, write):
    columns |= {"is_top": columns["flavour"] == 1, "is_qcd": columns["flavour"] == 0}
    path = write(columns)
    flags = dataclasses.replace(LAYOUT, tree=write.tree, label=("is_qcd", "is_top"))
    assert read_jets(path, layout=flags).label.tolist() == [0, 1, 1, 0, 1, 0, 0]
    swapped = dataclasses.replace(flags, label=("is_top", "is_qcd"))
    assert read_jets(path, layout=swapped).label.tolist() == [1, 0, 0, 1, 0, 1, 1]
    of_file = dataclasses.replace(flags, label={"jets.*": "top", "QCD*": "qcd"})
    assert read_jets(path, layout=of_file).label.tolist() == [1] * 7
    with pytest.raises(ValueError, match=r"must give its class by one of the patterns TT\*, QCD\*, the .* are: none"):
        read_jets(path, layout=dataclasses.replace(flags, label={"TT*": "top", "QCD*": "qcd"}))
    with pytest.raises(ValueError, match="the classes that fit are: qcd, top; rename the file"):
        read_jets(path, layout=dataclasses.replace(flags, label={"j*": "top", "*s.*": "qcd"}))


def test_the_momentum_of_the_jet(columns, write):
    columns |= {name: np.linspace(1, 2, 7).astype(np.float32) for name in ("pt", "eta", "phi", "m")}
    names = {"jet_pt": "pt", "jet_eta": "eta", "jet_phi": "phi", "jet_mass": "m"}
    table = read_jets(write(columns), layout=dataclasses.replace(LAYOUT, tree=write.tree, fields=names))
    expected = np.sqrt((columns["pt"] * np.cosh(columns["eta"])) ** 2 + columns["m"] ** 2)
    np.testing.assert_allclose(table.fields["jet_energy"], expected, rtol=1e-6)


def test_more_particles_than_expected(columns, write):
    with pytest.raises(ValueError, match="row 4 has 5 particles, mine has at most 4; keep the leading ones"):
        read_jets(write(columns), layout=dataclasses.replace(LAYOUT, tree=write.tree, max_particles=4))


def test_integers_that_float32_would_round(columns, write):
    columns["cand_q"] = ak.values_astype(columns["cand_q"] * 0 + 16777217, np.int32)
    with pytest.raises(ValueError, match="column 'cand_q' has integers above 16777216, which float32 rounds"):
        read_jets(write(columns), layout=dataclasses.replace(LAYOUT, tree=write.tree))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"units": "TeV"}, "units: must be GeV or MeV, not 'TeV'"),
        ({"rows": "hits"}, "rows: must be jets or events, not 'hits'"),
        ({"momenta": {"pt": "a", "eta": "b"}}, "momenta: must have exactly the components of one of"),
        ({"momenta": {"pt": "a", "eta": "b", "phi": "c", "mass": "d", "energy": "e"}}, "momenta: must have exactly"),
        ({"classes": ("qcd",)}, "classes: must be at least two, none twice"),
        ({"classes": ("qcd", "qcd")}, "classes: must be at least two, none twice"),
        ({"label": ("a", "b", "c")}, "label: 3 columns for 2 classes; give one for each"),
        ({"label": {"*": "tops"}}, r"label: '\*' has no class 'tops'; did you mean 'top'\?"),
        ({"label_values": (1, 1)}, "label_values: must be one for each of"),
        ({"label_values": (0, 1, 1)}, "label_values: must be one for each of"),
        ({"label_values": {1: "topp"}}, r"label_values: 1 has no class 'topp'; did you mean 'top'\?"),
        ({"label_values": (1, 2), "label": ("a", "b")}, "label_values: belong to a label in one column"),
        ({"particles": {"part_px": "x"}}, "particles: 'part_px' is made of 'momenta'; give it another name"),
        ({"fields": {"jet_pt": "x"}}, "fields: 'jet_eta' is missing beside 'jet_pt'; give all of jet_pt"),
    ],
)
def test_layouts_that_contradict_themselves(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(LAYOUT, **changes)


class _Payload:
    """Unpickling it makes a folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_pickles_in_hdf5_are_never_read(columns, tmp_path):
    trap = tmp_path / "trap"
    write_padded_hdf5(tmp_path / "jets.h5", columns)
    with h5py.File(tmp_path / "jets.h5", "r+") as file:
        del file["Events/flavour"]
        data = file.create_dataset("Events/flavour", 7, h5py.vlen_dtype(np.uint8))
        data[0] = np.frombuffer(pickle.dumps(_Payload(str(trap))), dtype=np.uint8)
    with pytest.raises(ValueError, match="column 'flavour' must hold whole numbers, not lists of uint8"):
        read_jets(tmp_path / "jets.h5", layout=dataclasses.replace(LAYOUT, tree="Events"))
    with h5py.File(tmp_path / "jets.h5", "r+") as file:
        del file["Events/flavour"]
        file["Events/flavour"] = ["b", "c", "b", "b", "b", "b", "b"]
    with pytest.raises(ValueError, match="column 'flavour' must be one of qcd, top, not b as in row 0"):
        read_jets(tmp_path / "jets.h5", layout=dataclasses.replace(LAYOUT, tree="Events"))
    assert not trap.exists()


def test_a_layout_in_the_configuration_of_a_training(columns, tmp_path):
    for name in ("TT_1.root", "QCD_1.root"):
        write_root(tmp_path / name, columns)
    (tmp_path / "mine.yaml").write_text(
        """
        units: GeV
        classes: [qcd, top]
        momenta: {pt: cand_pt, eta: cand_eta, phi: cand_phi, mass: cand_mass}
        label: {"TT_*": top, "QCD_*": qcd}
        """
    )
    files = [str(tmp_path / "TT_1.root"), str(tmp_path / "QCD_1.root")]
    layout = str(tmp_path / "mine.yaml")
    datamodule = JetDataModule(train=Split(files, rows=(0, 5)), test=Split(files, rows=(5, 7)), layout=layout)
    assert datamodule.classes == ("qcd", "top")
    datamodule.setup()
    batches = list(datamodule.test_dataloader())
    assert sorted(label for batch in batches for label in batch.label.tolist()) == [0, 0, 1, 1]
    assert sorted(index for batch in batches for index in batch.index.tolist()) == [5, 6, 12, 13]
    (tmp_path / "bad.yaml").write_text("clases: [a, b]")
    with pytest.raises(ValueError, match=r"bad.yaml: there is no key 'clases'; did you mean 'classes'"):
        JetDataModule(layout=str(tmp_path / "bad.yaml"))


@pytest.mark.parametrize("kind", ["external storage", "external link", "virtual data set", "group behind a link"])
def test_hdf5_whose_numbers_lie_in_another_file_is_refused(columns, tmp_path, kind):
    """A file of somebody else's must not choose which files of this machine are read."""
    longest = COUNTS.max()
    path, other = tmp_path / "jets.h5", tmp_path / "other.h5"
    with h5py.File(path, "w") as file, h5py.File(other, "w") as elsewhere:
        for name, column in columns.items():
            values = ak.to_numpy(ak.fill_none(ak.pad_none(column, longest), 0)) if column.ndim == 2 else column
            file[name] = np.asarray(values)
        elsewhere["g/tau21"] = file["tau21"][:]
    assert len(read_jets(path, layout=LAYOUT)) == len(COUNTS)
    raw = tmp_path / "secret.bin"
    raw.write_bytes(bytes(100))
    with h5py.File(path, "a") as file:
        del file["tau21"]
        if kind == "external storage":
            file.create_dataset("tau21", (len(COUNTS),), "f4", external=[(str(raw), 0, 4 * len(COUNTS))])
        elif kind == "virtual data set":
            layout = h5py.VirtualLayout((len(COUNTS),), "f4")
            layout[:] = h5py.VirtualSource(str(other), "g/tau21", (len(COUNTS),))
            file.create_virtual_dataset("tau21", layout)
        else:
            file["linked"] = h5py.ExternalLink(str(other), "/g" if kind.startswith("group") else "/g/tau21")
            file["tau21"] = h5py.SoftLink("/linked/tau21" if kind.startswith("group") else "/linked")
    with pytest.raises(ValueError, match=r"jets.h5: /(tau21|linked) lies in another file, '.*(secret.bin|other.h5)'"):
        read_jets(path, layout=LAYOUT)
