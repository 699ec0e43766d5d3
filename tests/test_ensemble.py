"""Ensembles: the mean of the log-odds of verified members, in a folder as any other."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.baselines.test_trees import TEXT
from tests.hub.test_hub import config, sign
from zoo import create_model, load_pretrained, predict
from zoo.baselines.trees import BoostedTrees
from zoo.cli import main
from zoo.data.batch import JetBatch
from zoo.data.context import NO_CONTEXT
from zoo.data.features import FeatureTable, feature_table
from zoo.hub import Parts, PretrainedError, save_parts, save_pretrained

SAMPLE = "sample:top_tagging/test"


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory, jets: JetBatch) -> list[Path]:
    """A network on momenta, one that sees charges and types too, and trees."""
    folder = tmp_path_factory.mktemp("members")
    inputs = (jets.four_momenta[:4], jets.mask[:4])
    torch.manual_seed(2)
    network = create_model("lorentznet", input_dim=7, num_classes=2)
    save_pretrained(folder / "one", network, config(licence="CC0-1.0"), *inputs, "")
    table = feature_table("kinpid")
    columns = {name: torch.randint(0, 2, inputs[1].shape).float() for name in table.columns}
    settings = config(model="pfn", features=table.to_dict(), paper="arXiv:1810.05165")
    model = create_model("pfn", input_dim=13, num_classes=2)
    save_pretrained(folder / "two", model, settings, *inputs, "", columns=columns)
    trees = BoostedTrees(TEXT, "substructure", (), ())
    settings = config(
        model="lightgbm_substructure", kind="trees", features={"features": []}, observables=["multiplicity", "mass"]
    )
    save_parts(folder / "trees", Parts(trees, FeatureTable(()), NO_CONTEXT), settings, *inputs, "", {})
    return [folder / "one", folder / "two", folder / "trees"]


@pytest.fixture(scope="module")
def ensemble(members: list[Path]) -> Path:
    out = members[0].parent / "all"
    main(["ensemble", *map(str, members), "--out", str(out)])
    return out


def log_odds(logits: torch.Tensor) -> np.ndarray:
    return (logits[:, 1] - logits[:, 0]).double().numpy()


def test_the_mean_of_the_log_odds(members, ensemble, jets):
    columns = {name: torch.randint(0, 2, jets.mask.shape).float() for name in feature_table("kinpid").columns}
    inputs = (jets.four_momenta, jets.mask, columns)
    loaded = load_pretrained(ensemble)
    expected = np.mean([log_odds(load_pretrained(member)(*inputs)) for member in members], axis=0)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(log_odds(loaded(*inputs)), expected, atol=1e-5)
    assert loaded.config.licence == "CC0-1.0 AND MIT"
    assert loaded.config.paper == "arXiv:2201.08187, arXiv:1810.05165"
    with pytest.raises(ValueError, match="'part_charge' is missing"):
        loaded(*inputs[:2])
    card = (ensemble / "README.md").read_text()
    assert "Those of its members, `one`, `two`, `trees`" in card
    assert "the ensemble was not tested as a whole" in card


def test_scores_of_a_file(members, tmp_path):
    main(["ensemble", str(members[0]), str(members[2]), "pfn_energyflow.top_tagging", "--out", str(tmp_path / "three")])
    found = predict(tmp_path / "three", SAMPLE, rows=(0, 40)).logits.astype(float)
    of_members = [
        predict(name, SAMPLE, rows=(0, 40)).logits for name in (members[0], members[2], "pfn_energyflow.top_tagging")
    ]
    expected = np.mean([logits[:, 1].astype(float) - logits[:, 0] for logits in of_members], axis=0)
    np.testing.assert_allclose(found[:, 1] - found[:, 0], expected, atol=1e-4)
    assert (
        load_pretrained(tmp_path / "three" / "members" / "pfn_energyflow.top_tagging").config.model == "pfn_energyflow"
    )


def test_trees_are_checked_as_networks_are(members, capsys):
    """They have no parameter, no gradient and no features."""
    main(["check", str(members[2]), "--jets", "8"])
    assert "order of particles" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["model.safetensors", "SHA256SUMS", "config.json"])
def test_a_damaged_member_is_named(ensemble, tmp_path, name):
    """Also where whoever changed it made the checksums of the ensemble right again."""
    folder = shutil.copytree(ensemble, tmp_path / "all")
    path = folder / "members" / "one" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(PretrainedError, match=rf"members/one/{name}: differs from its checksum"):
        load_pretrained(folder)
    sign(folder)
    with pytest.raises(PretrainedError, match=r"members/one/.*checksum|members/one/SHA256SUMS"):
        load_pretrained(folder)


def change(folder: Path, path: str, **values: object) -> None:
    """Another config, and the checksums of the folder that it belongs to and of the ensemble."""
    file = folder / path
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    sign(file.parent)
    sign(folder)


@pytest.mark.parametrize(
    ("path", "values", "message"),
    [
        (
            "config.json",
            {"members": ["one", "two"]},
            r"'members' are .*'two'\], the folder holds \['one', 'trees', 'two'\]",
        ),
        ("config.json", {"members": ["one", "two", "../trees"]}, "'members' must be different names of folders"),
        ("config.json", {"members": None}, "'members' must be list|'members' belongs to the kind 'ensemble'"),
        ("config.json", {"members": ["one"] * 3}, "'members' must be different names of folders"),
        ("config.json", {"observables": ["mass"]}, "'observables' belongs to the kind 'trees'"),
        ("members/one/config.json", {"classes": ["top", "qcd"]}, r"members/one/config\.json: 'classes' is"),
        ("members/one/config.json", {"units": "MeV"}, r"members/one/config\.json: 'units' is 'MeV', not 'GeV'"),
        ("members/two/config.json", {"format_version": 9}, r"members/two/config\.json: format_version 9"),
    ],
)
def test_a_wrong_config_is_refused(ensemble, tmp_path, path, values, message):
    folder = shutil.copytree(ensemble, tmp_path / "all")
    change(folder, path, **values)
    with pytest.raises(PretrainedError, match=message):
        load_pretrained(folder)


def test_files_out_of_a_folder_are_refused(ensemble, tmp_path):
    folder = shutil.copytree(ensemble, tmp_path / "all")
    sums = (folder / "SHA256SUMS").read_text()
    for name in (
        "../secret",
        "members/../../secret",
        "members/one/model.pt",
        "/etc/passwd",
        "members/one/members/x/config.json",
    ):
        (folder / "SHA256SUMS").write_text(f"{sums}{'0' * 64}  {name}\n")
        with pytest.raises(PretrainedError, match="SHA256SUMS: must list the files of a pretrained folder"):
            load_pretrained(folder)


def test_what_makes_no_ensemble_is_refused(members, ensemble, tmp_path, jets):
    backbone = create_model("particlenet_lite", input_dim=7, num_classes=2)
    settings = config(model="particlenet_lite", classes=[], kind="backbone", metrics={})
    save_pretrained(tmp_path / "backbone", backbone, settings, jets.four_momenta[:2], jets.mask[:2], "")
    for names, message in (
        ([members[0]], "two members at least"),
        ([members[0], members[0]], "there is a member 'one' already"),
        ([members[0], ensemble], "all: is of the kind 'ensemble'"),
        ([members[0], tmp_path / "backbone"], "backbone: is of the kind 'backbone'"),
        ([members[0], tmp_path / "nothing"], "no pretrained model or folder"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(["ensemble", *map(str, names), "--out", str(tmp_path / "out")])
        assert not (tmp_path / "out").exists(), message
