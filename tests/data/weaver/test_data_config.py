"""weaver's data files as they are: the witness is weaver-core's own loader."""

import awkward as ak
import h5py
import numpy as np
import pytest
import torch
import uproot
import yaml
from weaver.utils.data.config import DataConfig
from weaver.utils.data.fileio import _read_files
from weaver.utils.data.preprocess import (
    AutoStandardizer,
    WeightMaker,
    _apply_selection,
    _build_new_variables,
    _build_weights,
)
from weaver.utils.dataset import _get_reweight_indices, _load_next

from zoo import load_pretrained
from zoo.cli import main
from zoo.cli import training_command as command
from zoo.data.batch import collate, gather
from zoo.data.datamodule import JetDataModule, Split
from zoo.data.read_report import MendedWarning, RejectedJetsWarning
from zoo.data.readers import read_jets
from zoo.data.source import open_source
from zoo.data.weaver.data_config import read_weaver_yaml
from zoo.data.weaver.formulas import reading_table
from zoo.inference import predict
from zoo.publish import publish_run
from zoo.report import Predictions

JETCLASS = """
treename: tree
selection: (jet_pt > 100) & (jet_nparticles >= 1)
test_time_selection: jet_pt > 50
new_variables:
  part_mask: ak.ones_like(part_energy)
  part_pt: np.hypot(part_px, part_py)
  part_pt_log: np.log(part_pt)
  part_e_log: np.log(part_energy)
  part_logptrel: np.log(part_pt/jet_pt)
  part_logerel: np.log(part_energy/jet_energy)
  part_deltaR: np.hypot(part_deta, part_dphi)
  part_d0: np.tanh(part_d0val)
preprocess:
  method: manual
  data_fraction:
inputs:
  pf_points:
    length: 6
    pad_mode: wrap
    vars: [[part_deta, null], [part_dphi, null]]
  pf_features:
    length: 6
    pad_mode: wrap
    vars:
      - [part_pt_log, 1.7, 0.7]
      - [part_e_log, 2.0, 0.7]
      - [part_logptrel, -4.7, 0.7, -2, 3]
      - [part_logerel, -4.7, 0.7]
      - [part_deltaR, 0.2, 4.0]
      - [part_charge, null]
      - part_isMuon
      - [part_d0, null]
      - [part_d0err, 0, 1, 0, 1]
      - [part_deta, null]
      - [part_dphi, null]
  pf_vectors:
    length: 6
    vars: [[part_px, null], [part_py, null], [part_pz, null], [part_energy, null]]
  pf_mask:
    length: 6
    vars: [[part_mask, null]]
labels:
  type: simple
  value: [label_QCD, label_Hbb, label_Tbqq]
observers: [jet_pt, jet_nparticles, jet_sdmass]
"""

WEIGHTS = """
weights:
  use_precomputed_weights: false
  reweight_method: flat
  reweight_vars:
    jet_pt: [100, 250, 400, 600, 1000]
    jet_sdmass: [0, 60, 120, 300]
  reweight_classes: [label_QCD, label_Hbb, label_Tbqq]
"""


@pytest.fixture(scope="module")
def columns():
    """400 jets as JetClass has them, of 1 to 11 particles."""
    random = np.random.default_rng(4)
    counts = random.integers(1, 12, 400)
    particles = counts.sum()
    momenta = random.normal([60.0, 0.0, 20.0], [20.0, 9.0, 9.0], size=(particles, 3)).astype(np.float32)
    flat = dict(zip(("part_px", "part_py", "part_pz"), momenta.T, strict=True))
    flat["part_energy"] = np.linalg.norm(momenta.astype(float), axis=1).astype(np.float32) * np.float32(1.01)
    for name, width in (("deta", 0.4), ("dphi", 0.4), ("d0val", 2.0), ("d0err", 1.0)):
        flat[f"part_{name}"] = random.normal(0, width, particles).astype(np.float32)
    flat["part_charge"] = random.integers(-1, 2, particles).astype(np.int32)
    flat["part_isMuon"] = random.integers(0, 2, particles).astype(bool)
    label = random.choice(3, 400, p=[0.5, 0.3, 0.2])
    jets = {f"label_{name}": label == i for i, name in enumerate(("QCD", "Hbb", "Tbqq"))}
    jets["jet_pt"] = random.uniform(30, 1100, 400).astype(np.float32)
    jets["jet_energy"] = (jets["jet_pt"] * random.uniform(1, 3, 400)).astype(np.float32)
    jets["jet_sdmass"] = random.uniform(-5, 350, 400).astype(np.float32)
    jets["jet_nparticles"] = counts.astype(np.int32)
    jets["gen_weight"] = random.uniform(0.1, 2, 400).astype(np.float32)
    return {name: ak.unflatten(np.ascontiguousarray(values), counts) for name, values in flat.items()} | jets


def write_root(path, columns):
    with uproot.recreate(path) as file:
        is_list = {name: isinstance(values, ak.Array) for name, values in columns.items()}
        file.mktree("tree", {k: ak.type(v[:0]).content if is_list[k] else v.dtype for k, v in columns.items()})
        file["tree"].extend(columns)
    return path


@pytest.fixture(scope="module")
def jets(columns, tmp_path_factory):
    return write_root(tmp_path_factory.mktemp("jets") / "jets.root", columns)


@pytest.fixture
def write(tmp_path):
    """Function that writes text, or the values of a changed YAML, as a data file."""

    def write(text=JETCLASS, **changes):
        values = yaml.safe_load(text) | changes
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
        return tmp_path / "mine.yaml"

    return write


def by_weaver(jets, data_file, split):
    """What weaver's loader makes of all jets of a file, before it samples and shuffles."""
    is_training = split != "test"
    config = DataConfig.load(str(data_file), load_observers=not is_training, load_reweight_info=is_training)
    options = {"training": is_training, "reweight": False, "shuffle": False, "mode": split}
    table, indices = _load_next(config, [str(jets)], None, options)
    np.testing.assert_array_equal(indices, np.arange(len(indices)))
    return table


def weights_by_weaver(jets, data_file):
    config = DataConfig.load(str(data_file))
    if config.weight_name and not config.use_precomputed_weights and config.reweight_hists is None:
        config = WeightMaker([str(jets)], config).produce()
    table = _read_files([str(jets)], config.train_load_branches, treename=config.treename)
    table = _apply_selection(table, config.selection, funcs=config.var_funcs)
    return np.asarray(_build_weights(_build_new_variables(table, config.train_var_funcs), config))


def compare(jets, data_file, split, classes=None):
    """The largest difference of features and momenta to weaver's; everything else must be equal."""
    expected = by_weaver(jets, data_file, split)
    description = read_weaver_yaml(data_file, classes, split)
    table = read_jets(jets, layout=description)
    batch = collate(gather(table, np.arange(len(table)), description.feature_table.columns), description.feature_table)
    real = expected["_pf_mask"][:, 0] != 0
    longest = batch.mask.shape[1]
    assert not real[:, longest:].any()
    np.testing.assert_array_equal(batch.mask.numpy(), real[:, :longest])
    differences = []
    for found, group in ((batch.features, "features"), (batch.four_momenta[..., [1, 2, 3, 0]], "vectors")):
        wanted = expected[f"_pf_{group}"].transpose(0, 2, 1)[:, :longest]
        differences.append(np.abs(found[batch.mask].numpy() - wanted[real[:, :longest]]).max())
        assert (found[~batch.mask] == 0).all()
    np.testing.assert_array_equal(
        batch.label.numpy(), expected[next(iter(description.labels)) if classes else "_label_"]
    )
    for name in description.observers if split == "test" else ():
        np.testing.assert_array_equal(table.fields[name], expected[name])
    return max(differences)


@pytest.mark.parametrize("split", ["train", "test"])
def test_tensors_are_those_of_weaver(jets, write, split):
    assert compare(jets, write(), split) < 1e-6


@pytest.mark.parametrize("ending", ["root", "parquet"])
def test_tensors_of_jetclass2_are_those_of_weaver(shared_data, write, ending):
    values = yaml.safe_load(JETCLASS)
    values["new_variables"] |= {"is_resonant": "jet_label < 161", "is_qcd": "jet_label >= 161"}
    for group in values["inputs"].values():
        group["length"] = 32
    labels = {"type": "simple", "value": ["is_resonant", "is_qcd"]}
    selection = "(jet_pt > 300) & (jet_pt < 2000)"
    data_file = write(yaml.safe_dump(values, sort_keys=False), labels=labels, selection=selection, treename=None)
    assert compare(shared_data / "jetclass2" / f"JetClassII_example.{ending}", data_file, "train") < 1e-6
    assert compare(shared_data / "jetclass2" / f"JetClassII_example.{ending}", data_file, "test") < 1e-6


def test_all_jets_of_jetclass2_stay(shared_data, write):
    labels = {"type": "custom", "value": {"truth": "jet_label"}}
    data_file = write(labels=labels, selection=None, test_time_selection=None)
    description = read_weaver_yaml(data_file, [str(number) for number in range(188)])
    table, report = open_source(shared_data / "jetclass2" / "JetClassII_example.root", layout=description).read()
    assert len(table) == 100
    assert not any(report.rejected.values())


@pytest.mark.parametrize(
    "labels",
    [
        {
            "truth": "np.argmax(np.stack([ak.to_numpy(label_QCD), ak.to_numpy(label_Hbb), "
            "ak.to_numpy(label_Tbqq)], 1), 1)"
        },
        {"truth": "1*label_Hbb + 2*label_Tbqq", "mass": "jet_sdmass"},
    ],
)
def test_custom_labels(jets, write, labels):
    data_file = write(labels={"type": "custom", "value": labels})
    assert compare(jets, data_file, "train", ["QCD", "Hbb", "Tbqq"]) < 1e-6
    table = read_jets(jets, layout=read_weaver_yaml(data_file, ["QCD", "Hbb", "Tbqq"], "train"))
    expected = by_weaver(jets, data_file, "train")
    for name in list(labels)[1:]:
        np.testing.assert_array_equal(table.fields[name], expected[name])


EXPRESSIONS = {
    "helper": "_clip(part_d0val, -1, 0.5)",
    "momentum": "_p4_from_pxpypze(part_px, part_py, part_pz, part_energy).rapidity",
    "method": "_p4_from_pxpypze(part_px, part_py, part_pz, part_energy).deltaphi(jet_p4)",
    "hash": "(_hash(jet_nparticles, jet_nparticles) % 7) * ak.ones_like(part_px)",
    "sorted": "_batch_gather(part_pt, _batch_argsort(-part_pt))",
    "sums": "part_pt / ak.sum(part_pt, axis=1)",
    "where": "np.where(part_isMuon, part_pt, -1.0)",
    "leading": "part_pt / part_pt[:, 0]",
    "powers": "np.sqrt(np.maximum(part_energy**2 - part_pz**2, 1e-8)) // 7",
    "flags": "ak.values_astype((part_charge != 0) & ~part_isMuon | (part_pt > jet_pt / 4), 'int32')",
    "training": "part_pt * aux_training_",
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_expressions_have_the_values_of_weaver(jets, write, name):
    values = yaml.safe_load(JETCLASS)
    values["new_variables"] |= {
        "jet_p4": "_p4_from_ptetaphim(jet_pt, 0*jet_pt + 0.3, 0*jet_pt - 1, jet_sdmass)",
        "mine": EXPRESSIONS[name],
    }
    values["inputs"]["pf_features"]["vars"].append(["mine", 1.5, 0.1])
    data_file = write(yaml.safe_dump(values, sort_keys=False))
    assert compare(jets, data_file, "train") < 1e-6
    found = read_jets(jets, layout=read_weaver_yaml(data_file, split="train")).particles["weaver_mine"]
    assert len(np.unique(found)) > 1


def test_a_mask_leaves_particles_out(jets, write):
    values = yaml.safe_load(JETCLASS)
    first = "(ak.local_index(part_px) == 0)"
    values["new_variables"]["part_mask"] = f"ak.values_astype((part_charge != 0) | {first}, 'float32')"
    expected = by_weaver(jets, data_file := write(yaml.safe_dump(values, sort_keys=False)), "train")
    table = read_jets(jets, layout=read_weaver_yaml(data_file, split="train"))
    real = expected["_pf_mask"][:, 0] != 0
    np.testing.assert_array_equal(table.counts, real.sum(axis=1))
    np.testing.assert_array_equal(table.particles["part_px"], expected["_pf_vectors"][:, 0][real])


def test_zeros_in_lists_are_padding(columns, jets, write, tmp_path):
    """Whatever the mask says, which most data files make of ones."""
    layout = read_weaver_yaml(write())

    def pad(values):
        padded = ak.to_numpy(ak.fill_none(ak.pad_none(values, 14), 0))
        return ak.from_regular(ak.Array(padded.astype(ak.to_numpy(ak.flatten(values)).dtype)))

    padded = {name: pad(values) if isinstance(values, ak.Array) else values for name, values in columns.items()}
    expected = read_jets(jets, layout=layout)
    with pytest.warns(MendedWarning, match="entries without momentum, taken as padding"):
        found = read_jets(write_root(tmp_path / "padded.root", padded), layout=layout)
    np.testing.assert_array_equal(found.counts, expected.counts)
    for name, values in expected.particles.items():
        np.testing.assert_array_equal(found.particles[name], values)


def test_infinite_and_undefined_numbers_become_those_of_weaver(jets, write):
    values = yaml.safe_load(JETCLASS)
    values["new_variables"]["odd"] = "np.log(_clip(part_d0val, -0.001, 1) / (part_isMuon & (part_charge == 0)))"
    values["inputs"]["pf_features"]["vars"].append(["odd", 1.0, 0.5, -2, 3])
    data_file = write(yaml.safe_dump(values, sort_keys=False))
    with pytest.warns(UserWarning, match=r"jets.root: \d+ values of 'odd' that are NaN, which become 0 as in weaver"):
        assert compare(jets, data_file, "train") < 1e-6


WEIGHTINGS = {
    "flat": {},
    "ref": {"reweight_method": "ref"},
    "threshold": {"reweight_threshold": 40},
    "classes": {"class_weights": [1, 0.5, 3]},
    "outside": {"reweight_discard_under_overflow": False},
    "outside_ref": {"reweight_discard_under_overflow": False, "reweight_method": "ref"},
    "base": {"reweight_basewgt": "gen_weight * 2"},
    "two_classes": {"reweight_classes": ["label_QCD", "is_top"]},
    "precomputed": {"use_precomputed_weights": True, "weight_branches": ["gen_weight", "is_top"]},
}


@pytest.mark.filterwarnings("ignore:.*reweighting")
@pytest.mark.parametrize("name", WEIGHTINGS)
def test_weights_are_those_of_weaver(jets, write, tmp_path, monkeypatch, name):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # weaver lets its warnings sink in
    values = yaml.safe_load(JETCLASS + WEIGHTS)
    values["new_variables"]["is_top"] = "ak.values_astype(label_Tbqq, 'int32')"
    values["weights"] |= WEIGHTINGS[name]
    data_file = write(yaml.safe_dump(values, sort_keys=False))
    expected = weights_by_weaver(jets, data_file)
    if name != "precomputed":
        with pytest.raises(ValueError, match="histograms of 'weights' are yet to be fitted"):
            read_jets(jets, layout=read_weaver_yaml(data_file, split="train"))
        main(["data", "fit-scaling", str(jets), "--weaver-yaml", str(data_file), "--out", str(tmp_path / "out.yaml")])
        data_file = tmp_path / "out.yaml"
        np.testing.assert_allclose(weights_by_weaver(jets, data_file), expected, rtol=1e-6)
    for split in ("train", "val"):
        table = read_jets(jets, layout=read_weaver_yaml(data_file, split=split))
        np.testing.assert_allclose(table.weight, expected, rtol=1e-6, atol=1e-9)
    assert len(np.unique(table.weight)) > 5
    assert set(read_jets(jets, layout=read_weaver_yaml(data_file, split="test")).weight) == {1}


@pytest.mark.filterwarnings("ignore:.*reweighting")
def test_custom_labels_are_variables(jets, write, tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    values = yaml.safe_load(JETCLASS + WEIGHTS)
    values["labels"] = {"type": "custom", "value": {"is_top": "1*label_Tbqq", "is_light": "1 - is_top"}}
    values["weights"]["reweight_classes"] = ["is_top", "is_light"]
    data_file = write(yaml.safe_dump(values, sort_keys=False))
    main(["data", "fit-scaling", str(jets), "--weaver-yaml", str(data_file), "--out", str(tmp_path / "out.yaml")])
    table = read_jets(jets, layout=read_weaver_yaml(tmp_path / "out.yaml", ["other", "top"], "train"))
    np.testing.assert_allclose(table.weight, weights_by_weaver(jets, data_file), rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(table.fields["is_light"], 1 - table.label)


def test_drawing_jets_and_weighing_losses_have_the_same_mean(jets, write, tmp_path):
    data_file = write(JETCLASS + WEIGHTS)
    main(["data", "fit-scaling", str(jets), "--weaver-yaml", str(data_file), "--out", str(tmp_path / "out.yaml")])
    weight = read_jets(jets, layout=read_weaver_yaml(tmp_path / "out.yaml", split="train")).weight
    assert 0 <= weight.min() < 0.5 < weight.max() <= 0.9
    np.random.seed(3)  # noqa: NPY002 - weaver draws from the global state
    draws = 3000
    drawn = np.concatenate([_get_reweight_indices(weight) for _ in range(draws)])
    share = np.bincount(drawn, minlength=len(weight)) / len(drawn)
    error = np.sqrt(share.max() / len(drawn))
    np.testing.assert_allclose(share, weight / weight.sum(), atol=6 * error)
    assert np.ptp(share) > 30 * error


def test_fitted_scales_are_those_of_weaver(jets, write, tmp_path):
    values = yaml.safe_load(JETCLASS + WEIGHTS)
    values["preprocess"] = {"method": "auto", "data_fraction": 0.4}
    features = values["inputs"]["pf_features"]["vars"]
    features[6] = ["part_isMuon", None]
    features[:3] = [["part_pt_log"], "part_e_log", ["part_logptrel", "auto", 1, -2, 2]]
    values["inputs"]["pf_mask"]["vars"] = ["part_mask"]
    data_file = write(yaml.safe_dump(values, sort_keys=False))
    with pytest.raises(
        ValueError, match=r"mine.yaml: centre and scale of 'part_pt_log' and the .* 'zoo data fit-scaling"
    ):
        read_jets(jets, layout=read_weaver_yaml(data_file, split="train"))
    with pytest.raises(ValueError, match="zoo data fit-scaling FILE"):
        _ = read_weaver_yaml(data_file).feature_table
    out = tmp_path / "out.yaml"
    main(["data", "fit-scaling", str(jets), "--weaver-yaml", str(data_file), "--out", str(out)])
    expected = AutoStandardizer([str(jets)], DataConfig.load(str(data_file))).produce().preprocess_params
    found = DataConfig.load(str(out)).preprocess_params
    assert found.keys() == expected.keys()
    for name, params in expected.items():
        assert found[name].keys() == params.keys()
        for key, value in params.items():
            assert found[name][key] == (pytest.approx(value, rel=1e-6) if isinstance(value, float) else value), name
    assert found["part_pt_log"]["center"] > 3
    assert found["part_mask"]["center"] is None
    assert compare(jets, out, "train") < 1e-6
    with pytest.raises(SystemExit, match="2"):
        main(["data", "fit-scaling", str(jets), "--weaver-yaml", str(out), "--out", str(tmp_path / "again.yaml")])
    with pytest.raises(SystemExit, match="2"):
        main(["data", "fit-scaling", str(jets), "--weaver-yaml", str(data_file), "--out", str(out)])


def test_magic_of_branches_and_files(columns, write, tmp_path):
    renamed = {name.replace("part_", "FatJet_cand_"): values for name, values in columns.items()}
    path = write_root(tmp_path / "TTbar_1.root", renamed)
    magic = {"branch_magic": {"part_": "FatJet_cand_"}, "file_magic": {"sample": {"QCD": 1, "TT.*_1": 2}}}
    assert compare(path, write(**magic, observers=["sample"]), "test") < 1e-6
    assert set(read_jets(path, layout=read_weaver_yaml(write(**magic, observers=["sample"]))).fields["sample"]) == {2}


def test_padded_arrays_of_hdf5(columns, write, tmp_path):
    import tables

    with tables.open_file(tmp_path / "jets.h5", "w") as file:
        for name, values in columns.items():
            if isinstance(values, ak.Array):
                dtype = ak.to_numpy(ak.flatten(values)).dtype
                values = ak.to_numpy(ak.fill_none(ak.pad_none(values, 12, clip=True), 0)).astype(dtype)
            file.create_array("/", name, values)
    values = yaml.safe_load(JETCLASS)
    values["new_variables"] |= {"part_mask": "ak.values_astype(part_energy > 0, 'float32')"}
    values["new_variables"] |= {"part_logptrel": "np.log(part_pt/jet_pt[:, np.newaxis])"}
    values["new_variables"] |= {"part_logerel": "np.log(part_energy/jet_energy[:, np.newaxis])"}
    for group in values["inputs"].values():
        group |= {"length": 12, "pad_mode": "constant"}
    assert compare(tmp_path / "jets.h5", write(yaml.safe_dump(values, sort_keys=False)), "train") < 1e-6
    assert h5py.is_hdf5(tmp_path / "jets.h5")


def variables_of(path, write, variables, features):
    """Features of jets of two particles each, by expressions."""
    values = yaml.safe_load(JETCLASS) | {"selection": None, "test_time_selection": None, "observers": None}
    values["inputs"]["pf_features"]["vars"] = features
    values["new_variables"] = {"part_mask": "ak.ones_like(part_energy)"} | variables
    del values["inputs"]["pf_points"]
    return read_jets(path, layout=read_weaver_yaml(write(yaml.safe_dump(values))))


@pytest.fixture
def padded(tmp_path):
    """Two jets of two particles in padded arrays: as many jets as each has particles."""
    particles = {"part_px": [[3, 4], [30, 40]], "part_py": [[1, 2], [3, 4]], "part_pz": [[1, 1], [1, 1]]}
    particles["part_energy"] = [[50, 50], [50, 50]]
    arrays = {name: np.array(values, dtype=np.float32) for name, values in particles.items()}
    arrays["hits"] = np.array([[3, 250], [7, 9]], dtype=np.uint8)
    arrays["jet_hits"] = np.array([200, 100], dtype=np.uint8)
    arrays["jet_pt"] = np.array([10, 100], dtype=np.float32)
    arrays |= {f"label_{name}": np.array([i == 0] * 2) for i, name in enumerate(("QCD", "Hbb", "Tbqq"))}
    with h5py.File(tmp_path / "padded.h5", "w") as file:
        for name, values in arrays.items():
            file[name] = values
    return tmp_path / "padded.h5"


def test_small_whole_numbers_do_not_wrap(padded, write):
    variables = {"less": "hits - 5", "more": "hits + jet_hits", "times": "np.multiply(jet_hits, hits)"}
    particles = variables_of(padded, write, variables, ["less", "more", "times"]).particles
    assert particles["weaver_less"].tolist() == [-2, 245, 2, 4]
    assert particles["weaver_more"].tolist() == [203, 450, 107, 109]
    assert particles["weaver_times"].tolist() == [600, 50000, 700, 900]


def test_numbers_of_jets_meet_the_particles_of_their_jet(padded, write):
    for expression in ("part_px / jet_pt", "np.divide(part_px, jet_pt)", "part_px / jet_pt[:, np.newaxis]"):
        particles = variables_of(padded, write, {"ratio": expression}, ["ratio"]).particles
        np.testing.assert_allclose(particles["weaver_ratio"], [0.3, 0.4, 0.3, 0.4])
    for expression in (
        "_pad(part_px, 2) / jet_pt",
        "np.hypot(jet_pt, _pad(part_px, 2))",
        "_clip(_pad(part_px, 2), 0, jet_pt)",
        "_pad(part_px, 2) > jet_pt",
        "np.where(jet_pt > 20, _pad(part_px, 2), 0)",
    ):
        with pytest.raises(
            ValueError, match=r"a number of each of 2 jets meets an array padded to one length.*newaxis"
        ):
            variables_of(padded, write, {"ratio": expression}, ["ratio"])


def test_a_file_is_read_in_blocks(jets, write, monkeypatch):
    description = read_weaver_yaml(write(), split="train")
    whole = read_jets(jets, layout=description)
    monkeypatch.setattr("zoo.data.source.CHUNK_JETS", 37)
    parts = read_jets(jets, layout=description)
    for name, values in whole.particles.items():
        np.testing.assert_array_equal(parts.particles[name], values)
    for name in ("offsets", "label", "weight", "source_rows"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
    some = read_jets(jets, rows=(100, 300), layout=description)
    np.testing.assert_array_equal(
        some.source_rows, whole.source_rows[(whole.source_rows >= 100) & (whole.source_rows < 300)]
    )


def test_bad_jets_are_counted(columns, write, tmp_path):
    energy = ak.to_list(columns["part_energy"])
    energy[7][0] = -1.0
    path = write_root(tmp_path / "jets.root", columns | {"part_energy": ak.values_astype(ak.Array(energy), "float32")})
    data_file = write(selection=None, test_time_selection=None)
    with pytest.warns(RejectedJetsWarning, match="left out 1 of 400 jets: 1 negative energy") as warned:
        table = read_jets(path, layout=read_weaver_yaml(data_file))
    assert set(range(400)) - set(table.source_rows.tolist()) == {7}
    assert any("1 values of 'part_e_log' that are NaN" in str(one.message) for one in warned)


def test_training_with_a_data_file(jets, write, tmp_path):
    data_file = write(JETCLASS + WEIGHTS)
    main(["data", "fit-scaling", str(jets), "--weaver-yaml", str(data_file), "--out", str(tmp_path / "out.yaml")])
    splits = {
        name: Split([str(jets)], fraction=(start, start + 0.25))
        for name, start in (("train", 0.0), ("val", 0.25), ("test", 0.5))
    }
    module = JetDataModule(weaver_yaml=str(tmp_path / "out.yaml"), batch_size=16, **splits)
    assert module.classes == ("QCD", "Hbb", "Tbqq")
    assert module.input_dim == 11
    module.setup()
    weights = {name: module._datasets[name].tables[0] for name in splits}
    assert len(set(weights["train"].weight)) > 5
    assert len(set(weights["val"].weight)) > 5
    assert set(weights["test"].weight) == {1}
    assert set(weights["test"].fields) == {"jet_pt", "jet_nparticles", "jet_sdmass"}
    assert 50 < weights["test"].fields["jet_pt"].min() < 100
    batch = next(iter(module.train_dataloader()))
    assert batch.features.shape[2] == 11
    assert batch.features.isfinite().all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"selections": "x"}, r"mine.yaml: there is no key 'selections'; did you mean 'selection'\?"),
        ({"selection": "(jet_pt > 5"}, r"selection: in .*: this is no expression"),
        ({"selection": 5}, "selection: must be a string, not 5"),
        ({"selection": "__import__('os').system('ls')"}, 'selection: in "__import__.*: there is no function'),
        ({"new_variables": {"x": "().__class__"}}, r"new_variables.x: in .*: '\(\).__class__' is not allowed"),
        ({"new_variables": {"x": "part_px.__class__"}}, "new_variables.x: in .*: 'part_px.__class__' is not allowed"),
        ({"new_variables": {"x": "lambda: 1"}}, "new_variables.x: in .*: 'lambda: 1' is not allowed"),
        ({"new_variables": {"x": "[y for y in z]"}}, "new_variables.x: in .* is not allowed"),
        ({"new_variables": {"x": "np.fromfile('x')"}}, "there is no function 'np.fromfile' here; did you mean"),
        ({"new_variables": {"x": "np.log(y)", "y": "x + 1"}}, r"new_variables: 'x' needs itself \(x -> y -> x\)"),
        ({"labels": {"type": "simple", "value": ["a", "b", "a"]}}, "labels.value: a label is given twice"),
        ({"new_variables": {"x": 3}}, "new_variables.x: must be a string, not 3"),
        ({"inputs": {"pf_features": {"length": "8", "vars": ["x"]}}}, "inputs.pf_features.length: must be a whole"),
        ({"inputs": {"pf_features": {"lenght": 8, "vars": ["x"]}}}, "there is no key 'lenght'; did you mean 'length'"),
        ({"inputs": {"pf_features": {"length": 8, "vars": [["x", "1e-3"]]}}}, "vars.x: must be a finite .* 1.0e"),
        ({"inputs": {"pf_features": {"length": 8, "vars": [["x", 0, 1, 3, 2]]}}}, "limits 3 and 2 must rise"),
        ({"inputs": {"pf_features": {"length": 8, "vars": ["x"]}}}, "pf_vectors, must have the 4 vars"),
        (
            {"inputs": {"sv_features": {"length": 8, "vars": ["x"]}, "pf_mask": {"length": 8, "vars": ["x"]}}},
            "different",
        ),
        ({"inputs": {"event": {"length": None, "vars": ["x"]}}}, "'event' is no group that the zoo's models take"),
        ({"labels": {"type": "complex", "value": ["a", "b"]}}, "labels.type: must be simple or custom, not 'complex'"),
        ({"labels": {"type": "simple", "value": ["a"]}}, "mine.yaml: labels: must be at least two classes"),
        ({"labels": {"type": "custom", "value": {"a": "b"}}}, "name no classes; give the names in 'classes'"),
        ({"observers": ["a"], "monitor_variables": ["b"]}, "weaver takes one of them"),
        ({"preprocess": {"method": "guess"}}, "preprocess.method: must be manual or auto, not 'guess'"),
        ({"weights": {"use_precomputed_weights": "no"}}, "use_precomputed_weights: must be true or false, not 'no'"),
        ({"weights": {"use_precomputed_weights": False}}, "the key 'reweight_method' is missing"),
        ({"bucketing": {"vars": "x"}}, "there is no key 'vars'; did you mean 'var'"),
    ],
)
def test_mistakes_in_the_file_are_named(write, changes, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        read_weaver_yaml(write(**changes))


def changed_inputs(name, variable):
    values = yaml.safe_load(JETCLASS)
    values["inputs"][f"pf_{name}"]["vars"][0] = variable
    return values["inputs"]


def test_many_variables_of_each_other_and_merged_keys(jets, tmp_path):
    """Each variable needs the two before it, so that following each way again would never end."""
    chain = "\n".join(f"  v{i}: v{i - 1} + v{i - 2}" for i in range(2, 60))
    text = JETCLASS.replace("new_variables:", f"new_variables:\n  v0: part_px\n  v1: part_py\n{chain}")
    text = text.replace("      - part_isMuon", "      - [v59, 0, 1.0e-14]")
    text = text.replace(
        "pf_points:\n    length: 6\n    pad_mode: wrap", "pf_points: &points\n    length: 6\n    pad_mode: wrap"
    )
    text = text.replace("pf_features:\n    length: 6\n    pad_mode: wrap", "pf_features:\n    <<: *points")
    (tmp_path / "mine.yaml").write_text(text)
    assert "*points" in text
    assert compare(jets, tmp_path / "mine.yaml", "train") < 1e-6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"observers": ["jet_ptt"]},
            r"jets.root: column 'jet_ptt' is missing, .*mine.yaml needs; did you mean 'jet_pt'\?",
        ),
        ({"test_time_selection": "jet_p > 1"}, "column 'jet_p' is missing"),
        (
            {"test_time_selection": "part_px > 1"},
            r"'part_px > 1' must be one number for each of 400 rows, is 400 \* var",
        ),
        (
            {"test_time_selection": "jet_pt > np.max(jet_pt)"},
            "cannot be worked out: np.max makes one number of all jets",
        ),
        ({"test_time_selection": "jet_pt > 1e9"}, "none is selected by 'jet_pt > 1e9'"),
        ({"observers": ["part_px"]}, "'part_px' must be one number for each of"),
        (
            {"labels": {"type": "simple", "value": ["label_QCD", "label_Hbb"]}},
            r"row \d+ has the labels none; exactly one",
        ),
        (
            {"labels": {"type": "simple", "value": ["label_QCD", "label_QCD | label_Hbb", "label_Tbqq"]}},
            "has the labels l",
        ),
        (
            {"labels": {"type": "simple", "value": ["label_QCD", "jet_nparticles"]}},
            "'jet_nparticles' must be 0 or 1, not",
        ),
        ({"inputs": changed_inputs("features", "jet_pt")}, "'jet_pt' must be a list of numbers for each of"),
        ({"inputs": changed_inputs("features", "np")}, "column 'np' is missing"),
        (
            {"new_variables": yaml.safe_load(JETCLASS)["new_variables"] | {"part_d0": "part_d0val[:, 1:]"}},
            r"'part_d0' has \d+ particles in row 0, 'part_pt_log' has",
        ),
        (
            {
                "new_variables": yaml.safe_load(JETCLASS)["new_variables"]
                | {"part_d0": "_batch_permute_indices(part_px)"}
            },
            "cannot be worked out: a random order",
        ),
    ],
)
def test_mistakes_in_the_jets_are_named(jets, write, changes, message):
    description = read_weaver_yaml(write(**changes))
    with pytest.raises(ValueError, match=message):
        read_jets(jets, layout=description)


def test_custom_labels_outside_of_the_classes(jets, write):
    data_file = write(labels={"type": "custom", "value": {"truth": "jet_nparticles"}})
    with pytest.raises(
        ValueError, match=r"label 'jet_nparticles' must be a whole number from 0 to 1, not \d+ as in row"
    ):
        read_jets(jets, layout=read_weaver_yaml(data_file, ["a", "b"]))


def test_a_model_trained_with_a_data_file_is_published(jets, write, tmp_path):
    data_file = write(JETCLASS + WEIGHTS)
    main(["data", "fit-scaling", str(jets), "--weaver-yaml", str(data_file), "--out", str(tmp_path / "out.yaml")])
    builder = {"class_path": "zoo.deepsets.pfn", "init_args": {"input_dim": 11, "num_classes": 3}}
    splits = {
        name: {"files": [str(jets)], "fraction": part}
        for name, part in (("train", [0, 0.25]), ("val", [0.25, 0.5]), ("test", [0.5, 1]))
    }
    config = {
        "run_folder": str(tmp_path / "run"),
        "trainer": {"max_epochs": 1, "enable_progress_bar": False},
        "model": {"model": builder, "num_classes": 3},
        "data": {"weaver_yaml": str(tmp_path / "out.yaml"), **splits},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    command.main(["fit", "--config", str(tmp_path / "config.yaml")])
    with pytest.warns(UserWarning, match=r"part_logerel, part_deltaR, .* cannot be written as formulas"):  # here random
        publish_run(tmp_path / "run", tmp_path / "mine", licence="MIT", paper="arXiv:1810.05165")
    tagger = load_pretrained(tmp_path / "mine")
    assert tagger.config.classes == ["QCD", "Hbb", "Tbqq"]
    description = read_weaver_yaml(tmp_path / "out.yaml", split="test")
    table, features = read_jets(jets, (200, 400), description), reading_table(description, tagger.feature_table)
    batch = collate(gather(table, np.arange(len(table)), features.columns), features)
    tested = Predictions.load(tmp_path / "run" / "report" / "predictions.arrow")
    assert sorted(tested.index) == sorted(batch.index.tolist())
    logits = tested.logits[np.argsort(tested.index)][np.searchsorted(np.sort(tested.index), batch.index)]
    with torch.no_grad():
        found = tagger.model(batch.features, batch.four_momenta, batch.mask)
    np.testing.assert_allclose(found, logits, rtol=1e-5, atol=1e-5)
    scores = predict(tagger, jets, rows=(200, 400), layout=read_weaver_yaml(tmp_path / "out.yaml"))
    np.testing.assert_allclose(scores.logits[batch.index - 200], logits, rtol=1e-5, atol=1e-5)
    assert (np.flatnonzero(scores.is_scored) + 200).tolist() == sorted(batch.index.tolist())
    assert f"{200 - len(table)} not selected" in str(scores)
