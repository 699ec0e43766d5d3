"""`zoo import`: features and classes are those that somebody named, and the folder answers to jets that have them."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.data.writers import quark_gluon_arrays
from tests.test_importers import WITNESSES, named_as_released
from zoo import create_model, load_pretrained
from zoo.cli import main
from zoo.data.batch import collate, gather
from zoo.data.datamodule import interface_of
from zoo.data.datasets import describe_dataset
from zoo.data.features import feature_table
from zoo.data.readers import read_jets
from zoo.importers import folder as importers
from zoo.inference import predict
from zoo.training.fine_tuning import FineTuning, find_backbone, load_backbone

#: As of JetClass_kin.yaml.
KINEMATICS = """
selection: jet_pt > 500
new_variables:
  part_mask: ak.ones_like(part_energy)
  part_pt: np.hypot(part_px, part_py)
  part_pt_log: np.log(part_pt)
  part_e_log: np.log(part_energy)
  part_logptrel: np.log(part_pt/jet_pt)
  part_logerel: np.log(part_energy/jet_energy)
  part_deltaR: np.hypot(part_deta, part_dphi)
inputs:
  pf_points:
    length: 128
    vars: [[part_deta, null], [part_dphi, null]]
  pf_features:
    length: 128
    vars:
      - [part_pt_log, 1.7, 0.7]
      - [part_e_log, 2.0, 0.7]
      - [part_logptrel, -4.7, 0.7]
      - [part_logerel, -4.7, 0.7]
      - [part_deltaR, 0.2, 4.0]
      - [part_deta, null]
      - [part_dphi, null]
  pf_vectors:
    length: 128
    vars: [[part_px, null], [part_py, null], [part_pz, null], [part_energy, null]]
  pf_mask:
    length: 128
    vars: [[part_mask, null]]
labels:
  type: simple
  value: [label_QCD, label_Hbb, label_Tbqq]
"""

Run = Callable[..., Path]


@pytest.fixture
def weights(tmp_path: Path) -> Run:
    """Function that writes the random weights of a network of weaver."""

    def write(name: str, input_dim: int, num_classes: int) -> Path:
        torch.manual_seed(3)
        torch.save(WITNESSES[name](input_dim, num_classes).state_dict(), tmp_path / "net.pt")
        return tmp_path / "net.pt"

    return write


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    """weaver's, in another folder than the weights."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "kin.yaml").write_text(KINEMATICS)
    return tmp_path / "data" / "kin.yaml"


def run(path: Path, *options: object, kind: str = "weaver-checkpoint") -> Path:
    out = path.parent / "out"
    main(["import", kind, str(path), "--out", str(out), "--licence", "MIT", *map(str, options)])
    return out


def refused(capsys: pytest.CaptureFixture, path: Path, *options: object, kind: str = "weaver-checkpoint") -> str:
    with pytest.raises(SystemExit, match="2"):
        run(path, *options, kind=kind)
    assert not (path.parent / "out").exists()
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "features"),
    [("particlenet_weaver", "kin"), ("particlenet_weaver", "full"), ("particle_transformer_weaver", "kinpid")],
)
def test_networks_of_jetclass_answer_to_its_jets(weights, shared_data, name, features):
    table = feature_table(features)
    told = ("--use_pre_activation_pair", "false") if name.startswith("particle_transformer") else ()
    out = run(weights(name, table.input_dim, 10), "--features", features, "--dataset", "jetclass", *told)
    tagger = load_pretrained(out)
    assert tagger.config.model == name
    assert tagger.feature_table == table
    assert tagger.config.classes == list(describe_dataset("jetclass").classes)
    golden = load_file(out / "golden.safetensors")
    if features != "kin":
        types = golden["features"][golden["mask"]][:, 6:11]
        assert types.sum(1).tolist() == [1.0] * len(types)
        assert types.any(0).all()
    jets = read_jets(shared_data / "jetclass2" / "JetClassII_example.parquet", rows=(0, 4))
    packed = gather(jets, np.arange(4), table.columns)
    batch = collate(packed, table)
    columns = {key: torch.from_numpy(packed.columns[key]) for key in packed.columns}
    for key in table.columns:
        padded = torch.zeros(batch.mask.shape)
        padded[batch.mask] = columns[key].float()
        columns[key] = padded
    logits = tagger(batch.four_momenta, batch.mask, columns)
    with torch.no_grad():
        expected = tagger.model(batch.features, batch.four_momenta, batch.mask)
    torch.testing.assert_close(logits, expected)
    if table.columns:
        with pytest.raises(ValueError, match=r"'part_charge' is missing, .* use the features kin"):
            tagger(batch.four_momenta, batch.mask)


@pytest.mark.parametrize("name", WITNESSES)
def test_import_is_compared_with_weaver_itself(weights, capsys, monkeypatch, name):
    """Control: a network that gives other logits is refused."""
    options = ["--features", "kin", "--dataset", "top_tagging"]
    if name.startswith("particle_transformer"):
        options += ["--use-pre-activation-pair", str(name.endswith("pre_activation")).lower()]
    out = run(weights(name, 7, 2), *options)
    (note,) = load_pretrained(out).config.training["notes"]
    median = re.search(r"weaver-core \S+ itself, on 32 jets .* differ by (\S+) in the median", note)[1]
    assert 0 < float(median) < 1e-4
    shutil.rmtree(out)
    ours = importers.weaver_logits
    monkeypatch.setattr(importers, "weaver_logits", lambda *told: ours(*told) + 0.1)
    assert "gives other logits than weaver-core" in refused(capsys, weights(name, 7, 2), *options)


@pytest.mark.parametrize("place", ["option", "beside"])
def test_features_and_classes_of_the_data_file(weights, data_file, tmp_path, capsys, place):
    """Its features are written as formulas, its classes are its labels."""
    path = weights("particlenet_weaver", 7, 3)
    if place == "beside":
        data_file.rename(tmp_path / "kin.yaml")
    config = load_pretrained(run(path, *(("--weaver-yaml", data_file) if place == "option" else ()))).config
    assert config.classes == ["QCD", "Hbb", "Tbqq"]
    assert [feature["formula"] for feature in config.features["features"]] == [
        feature.formula for feature in feature_table("kin").features
    ]
    assert config.dataset == "kin.yaml"
    assert "particlenet_weaver for QCD, Hbb, Tbqq. Trained elsewhere: " in (told := capsys.readouterr().out)
    assert "features of kin.yaml." in told
    assert "taken as a network with 16 neighbours in every block" in config.training["origin"]
    assert "on jets with `jet_pt > 500`, of which it saw the first 128 particles" in config.training["notes"][0]


def test_features_that_are_no_formulas_need_the_data_file(weights, data_file):
    """Of the hardest particle of the jet, say, which no formula of one particle knows."""
    data_file.write_text(
        KINEMATICS.replace("part_deltaR: np.hypot(part_deta, part_dphi)", "part_deltaR: part_pt/part_pt[:, :1]")
    )
    with pytest.warns(UserWarning, match=r"kin.yaml: part_deltaR cannot be written as formulas .*--weaver-yaml"):
        out = run(weights("particlenet_weaver", 7, 3), "--weaver-yaml", data_file)
    assert load_pretrained(out).feature_table.columns == ("weaver_part_deltaR",)
    assert "but `weaver_part_deltaR`, which reading with weaver's data file" in (out / "README.md").read_text()


def test_number_of_features_does_not_name_them(weights, data_file, tmp_path, capsys):
    """12 might be of `events`, and 7 of `kin`, or of anything else."""
    for number in (7, 12):
        error = refused(capsys, weights("particlenet_weaver", number, 2), "--dataset", "top_tagging")
        assert "net.pt: holds no names of features, and their number does not say which; give weaver's data" in error
    path = weights("particlenet_weaver", 12, 3)
    error = refused(capsys, path, "--weaver-yaml", data_file)
    assert f"net.pt: takes 12 features of a particle, {data_file} has 7" in error
    assert "give one of --features and --weaver-yaml" in refused(
        capsys, path, "--weaver-yaml", data_file, "--features", "events"
    )
    (tmp_path / "one.yaml").write_text(KINEMATICS)
    (tmp_path / "two.yaml").write_text(KINEMATICS)
    (tmp_path / "config.yaml").write_text("no: data file")
    assert "(one.yaml, two.yaml lie beside it)" in refused(capsys, path)


def test_classes_of_ones_own(weights, data_file, capsys):
    path = weights("particlenet_weaver", 7, 4)
    given = ("--features", "kin", "--dataset", "top_tagging")
    assert "net.pt: has 4 classes, top_tagging has qcd, top; give as many names" in refused(capsys, path, *given)
    assert "net.pt: has 4 classes; name them" in refused(capsys, path, "--features", "kin")
    assert f"has 4 classes, {data_file} has QCD, Hbb, Tbqq" in refused(capsys, path, "--weaver-yaml", data_file)
    assert "has 4 classes, classes has b, c, b" in refused(capsys, path, *given, "--classes", "b", "c", "b")
    out = run(path, *given, "--classes", "b", "c", "light", "tau")
    assert load_pretrained(out).config.classes == ["b", "c", "light", "tau"]


def test_labels_of_the_type_custom(weights, data_file, capsys):
    data_file.write_text(KINEMATICS[: KINEMATICS.index("labels:")] + "labels: {type: custom, value: {flavour: kind}}\n")
    path = weights("particlenet_weaver", 7, 3)
    assert "name no classes; give the names in 'classes'" in refused(capsys, path, "--weaver-yaml", data_file)
    out = run(path, "--weaver-yaml", data_file, "--classes", "b", "c", "light")
    assert load_pretrained(out).config.classes == ["b", "c", "light"]


def test_points_must_be_angles(weights, data_file, capsys):
    data_file.write_text(
        KINEMATICS.replace("[[part_deta, null], [part_dphi, null]]", "[[part_px, null], [part_py, null]]")
    )
    error = refused(capsys, weights("particlenet_weaver", 7, 3), "--weaver-yaml", data_file)
    assert f"{data_file}: the points are part_px, part_py, in which the network finds its first neighbours" in error


@pytest.mark.parametrize("source", ["weaver_yaml", "features"])
def test_imported_network_is_fine_tuned_with_the_data_file_it_was_trained_with(weights, data_file, source):
    options = (
        ("--weaver-yaml", data_file) if source == "weaver_yaml" else ("--features", "kin", "--dataset", "jetclass")
    )
    out = run(
        weights("particlenet_weaver", 7, 3), *options, *(("--classes", "QCD", "Hbb", "Tbqq") * (source == "features"))
    )
    backbone = find_backbone(str(out))
    model = create_model("particlenet_weaver", input_dim=7, num_classes=3)
    stages = FineTuning(str(out), new=[]).stages(model)
    load_backbone(model, backbone, stages, interface_of({"features": None, "weaver_yaml": str(data_file)}))
    assert all(torch.equal(value, backbone.weights[key]) for key, value in model.state_dict().items())
    data_file.write_text(KINEMATICS.replace("[part_pt_log, 1.7, 0.7]", "[part_pt_log, 1.6, 0.7]"))
    with pytest.raises(ValueError, match="was trained with other features: part_pt_log, number 0, is"):
        load_backbone(model, backbone, stages, interface_of({"features": None, "weaver_yaml": str(data_file)}))


@pytest.fixture
def released(tmp_path: Path) -> Run:
    """Function that writes the random weights of a model under the names of the LorentzNet release."""

    def write(name: str, input_dim: int) -> Path:
        torch.manual_seed(3)
        state = create_model(name, input_dim=input_dim, num_classes=2).state_dict()
        torch.save(named_as_released(state), tmp_path / "best-val-model.pt")
        return tmp_path / "best-val-model.pt"

    return write


def test_release_of_top_tagging_says_what_it_costs_in_symmetry(released):
    out = run(released("lorentznet_release", 7), "--dataset", "top_tagging", kind="lorentznet-release")
    loaded = load_pretrained(out)
    assert loaded.config.model == "lorentznet_release"
    assert loaded.config.paper == "arXiv:2201.08187"
    card = (out / "README.md").read_text()
    assert "no symmetry exactly" in card
    assert "Measured at the import on 32 jets" in card
    assert "a rotation by 1 about the beam moves them by " in card


def test_release_of_quarks_and_gluons_answers_to_the_files_of_energyflow(released, tmp_path):
    """Types and masses of the particles come from their numbers in the file."""
    out = run(released("lorentznet_qg_release", 9), "--dataset", "quark_gluon", kind="lorentznet-release")
    loaded = load_pretrained(out)
    assert loaded.config.model == "lorentznet_qg_release"
    assert loaded.config.classes == ["gluon", "quark"]
    np.savez(tmp_path / "QG_jets.npz", **quark_gluon_arrays())
    result = predict(out, tmp_path / "QG_jets.npz")
    assert np.isfinite(result.score).all()
    assert len(np.unique(result.logits[:, 0])) == 3


def test_release_is_not_asked_for_features(released, capsys):
    path = released("lorentznet_release", 7)
    error = refused(capsys, path, "--features", "full", "--dataset", "top_tagging", kind="lorentznet-release")
    assert "a lorentznet_release takes the features kin, not full" in error
    assert "has 2 classes; name them" in refused(capsys, path, kind="lorentznet-release")
