"""Features of weaver's data files as formulas: the witness is weaver-core's own loader."""

import warnings

import awkward as ak
import numpy as np
import pytest
import yaml

from tests.data.weaver.test_data_config import JETCLASS, by_weaver
from tests.data.writers import jetclass_columns, write_root
from zoo import load_pretrained
from zoo.cli import main
from zoo.cli import training_command as command
from zoo.data.batch import collate, gather
from zoo.data.datamodule import JetDataModule
from zoo.data.features import Feature, agree, feature_table
from zoo.data.readers import read_jets
from zoo.data.weaver.data_config import read_weaver_yaml
from zoo.data.weaver.formulas import formula_table, reading_table, verified_table
from zoo.inference import predict
from zoo.training.fine_tuning import FineTuning, find_backbone, load_backbone

#: All classes of JetClass, as files of another number of them are not told as such.
LABELS = ["QCD", "Hbb", "Hcc", "Hgg", "H4q", "Hqql", "Zqq", "Wqq", "Tbqq", "Tbl"]


@pytest.fixture(scope="module")
def jets(tmp_path_factory):
    """60 jets of JetClass whose own momenta and relative angles are those of their particles."""
    counts = np.arange(60) % 6 + 1
    columns = jetclass_columns(counts)
    px, py, pz, energy = (columns[f"part_{name}"] for name in ("px", "py", "pz", "energy"))
    jet = [ak.to_numpy(ak.sum(values, axis=1)).astype(float) for values in (px, py, pz, energy)]
    pt, phi = np.hypot(jet[0], jet[1]), np.arctan2(jet[1], jet[0])
    eta = np.arcsinh(jet[2] / pt)
    columns |= {"jet_pt": pt, "jet_eta": eta, "jet_phi": phi, "jet_energy": jet[3]}
    columns |= {name: columns[name].astype(np.float32) for name in ("jet_pt", "jet_eta", "jet_phi", "jet_energy")}
    of_particles = np.arcsinh(pz / np.hypot(px, py)) - eta
    deta = of_particles * np.where(eta < 0, -1, 1)
    dphi = (np.arctan2(py, px) - phi + np.pi) % (2 * np.pi) - np.pi
    columns |= {"part_deta": ak.values_astype(deta, np.float32), "part_dphi": ak.values_astype(dphi, np.float32)}
    columns["jet_nparticles"] = counts.astype(np.int32)
    columns["jet_sdmass"] = np.full(60, 80, dtype=np.float32)
    return write_root(tmp_path_factory.mktemp("jets") / "jets.root", columns, rows=60)


@pytest.fixture
def data_file(tmp_path):
    values = yaml.safe_load(JETCLASS) | {"selection": None, "test_time_selection": None}
    values["labels"]["value"] = [f"label_{name}" for name in LABELS]
    del values["inputs"]["pf_points"]
    (tmp_path / "jetclass.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return tmp_path / "jetclass.yaml"


def test_formulas_agree_with_the_data_file_on_public_jets(shared_data, data_file):
    values = yaml.safe_load(data_file.read_text()) | {"observers": None, "treename": None}
    values["labels"] = {"type": "custom", "value": {"truth": "jet_label"}}
    data_file.write_text(yaml.safe_dump(values, sort_keys=False))
    description = read_weaver_yaml(data_file, [str(number) for number in range(188)])
    table = verified_table(description, shared_data / "jetclass2" / "JetClassII_example.root", (0, 100))
    assert table == formula_table(description)
    assert not [name for name in table.columns if name.startswith("weaver_")]


def changed(data_file, variables, features):
    values = yaml.safe_load(data_file.read_text())
    values["new_variables"] |= variables
    values["inputs"]["pf_features"]["vars"] = features
    data_file.write_text(yaml.safe_dump(values, sort_keys=False))
    return read_weaver_yaml(data_file)


def test_formulas_have_the_values_of_weaver_without_its_data_file(jets, data_file):
    expected = by_weaver(jets, data_file, "test")
    table = formula_table(read_weaver_yaml(data_file))
    assert [feature.formula for feature in table.features[:5]] == [
        "log_pt",
        "log_energy",
        "log_pt_fraction",
        "log_energy_fraction",
        "delta_r",
    ]
    read = read_jets(jets)  # as JetClass
    batch = collate(gather(read, np.arange(len(read)), table.columns), table)
    wanted = expected["_pf_features"].transpose(0, 2, 1)[:, : batch.mask.shape[1]]
    np.testing.assert_allclose(batch.features[batch.mask], wanted[batch.mask.numpy()], atol=2e-5)


@pytest.mark.parametrize(
    ("expression", "formula"),
    [
        ("part_charge / part_d0err", "nan_to(part_charge / part_d0err, 0.5)"),
        ("np.where(np.abs(part_charge) == 1, part_px, 0)", "where(abs(part_charge) == 1, part_px, 0)"),
        ("_clip(part_d0val, -1, 1) * np.pi", f"clip(part_d0val, -1, 1) * {np.pi}"),
        ("np.float32(part_isMuon) + ak.ones_like(part_px)", "part_isMuon + (1 + 0 * part_px)"),
        ("part_px[part_px > 0]", "weaver_mine"),
        ("ak.argsort(part_px)", "weaver_mine"),
        ("part_mine", "weaver_mine"),
    ],
)
def test_what_formulas_have_is_translated_and_nothing_else(data_file, expression, formula):
    variables = {"mine": expression, "part_mine": "_p4_from_pxpypze(part_px, part_py, part_pz, part_energy).pt"}
    description = changed(data_file, variables, [["mine", 0.5, 2, -3, 3]])
    assert formula_table(description).features == (Feature("mine", formula, 0.5, 2, (-3, 3)),)


def test_doubling_variables_end_as_a_column(data_file):
    variables = {"v0": "part_px * part_py"} | {f"v{i + 1}": f"v{i} + v{i}" for i in range(60)}
    assert formula_table(changed(data_file, variables, ["v60"])).features[0].formula == "weaver_v60"


def test_features_agree_by_their_values():
    kin = feature_table("kin")
    assert agree(kin.features[2], Feature("x", "log(hypot(part_px, part_py) / jet_pt)", -4.7, 0.7, (-5, 5)))
    assert not agree(kin.features[2], Feature("x", "log(hypot(part_px, part_py) / jet_energy)", -4.7, 0.7, (-5, 5)))
    one, other = (Feature("x", f"log_pt + (abs(part_id) == {number})") for number in (211, 13))
    assert agree(one, one)
    assert not agree(one, other)
    assert not agree(Feature("x", "part_id == 211"), Feature("x", "part_id == 13"))
    assert not agree(Feature("x", "log(log_pt - 1e9)"), Feature("x", "log(log_pt - 2e9)"))  # all are NaN
    assert not agree(Feature("x", "log_pt + (part_id > 1000)"), Feature("x", "log_pt + 0 * part_id"))


@pytest.mark.slow
def test_a_published_model_needs_no_data_file(jets, data_file, tmp_path):
    builder = {"class_path": "zoo.deepsets.pfn", "init_args": {"input_dim": 11, "num_classes": 10}}
    splits = {name: {"files": [str(jets)]} for name in ("train", "test")}
    splits["train"]["rows"], splits["test"]["rows"] = [0, 30], [30, 60]
    config = {
        "run_folder": str(tmp_path / "run"),
        "trainer": {"max_epochs": 1, "enable_progress_bar": False, "logger": False},
        "model": {"model": builder, "num_classes": 10},
        "data": {"weaver_yaml": str(data_file), **splits},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    command.main(["fit", "--config", str(tmp_path / "config.yaml")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        main(["publish", str(tmp_path / "run"), "--out", str(tmp_path / "mine"), "--licence", "MIT", "--paper", "x"])
    folder = load_pretrained(tmp_path / "mine")
    assert not [name for name in folder.feature_table.columns if name.startswith("weaver_")]
    with_file = predict(folder, jets, layout=read_weaver_yaml(data_file))
    alone = predict(folder, jets)  # read as JetClass
    assert with_file.is_scored.all()
    np.testing.assert_allclose(alone.logits, with_file.logits, atol=1e-4)
    assert reading_table(read_weaver_yaml(data_file), folder.feature_table).columns[0] == "weaver_part_pt_log"
    stages = FineTuning("x", new=[]).stages(folder.model)
    for source in ("mine", "run"):
        load_backbone(folder.model, find_backbone(str(tmp_path / source)), stages, data_of(data_file).interface)
    first, *others = yaml.safe_load(data_file.read_text())["inputs"]["pf_features"]["vars"]
    other = changed(data_file, {}, [[first[0], 1.8, 0.7], *others])
    assert reading_table(other, folder.feature_table) == folder.feature_table
    with pytest.raises(ValueError, match="was trained with other features: part_pt_log, number 0"):
        load_backbone(folder.model, find_backbone(str(tmp_path / "mine")), stages, data_of(data_file).interface)


def data_of(data_file):
    return JetDataModule(weaver_yaml=str(data_file))
