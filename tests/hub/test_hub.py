"""Pretrained folders: what was saved comes back, and what is damaged is refused."""

import hashlib
import json
import pickle
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from zoo import create_model, list_pretrained, load_pretrained
from zoo.data.batch import JetBatch
from zoo.data.datasets import JET_COLUMNS
from zoo.data.features import feature_table
from zoo.hub import PACKAGED, PretrainedConfig, PretrainedError, save_pretrained

FILES = ("config.json", "model.safetensors", "golden.safetensors", "README.md", "SHA256SUMS")

#: Bytes that all weights in the package may take together.
LIMIT = 40_000_000


def config(**changes: object) -> PretrainedConfig:
    values = {
        "model": "lorentznet",
        "classes": ["qcd", "top"],
        "features": feature_table("kin").to_dict(),
        "dataset": "top_tagging",
        "units": "GeV",
        "metrics": {"auc": 0.5},
        "licence": "MIT",
        "paper": "arXiv:2201.08187",
    }
    return PretrainedConfig(**{**values, **changes})


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, jets: JetBatch) -> tuple[Path, torch.nn.Module]:
    folder = tmp_path_factory.mktemp("hub") / "model"
    torch.manual_seed(1)
    model = create_model("lorentznet", input_dim=7, num_classes=2)
    save_pretrained(folder, model, config(), jets.four_momenta[:4], jets.mask[:4], "# Card\n")
    return folder, model


@pytest.fixture
def folder(saved: tuple[Path, torch.nn.Module], tmp_path: Path) -> Path:
    return shutil.copytree(saved[0], tmp_path / "model")


def sign(folder: Path) -> None:
    """Make the checksums right again, as whoever alters a folder on purpose can."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / "SHA256SUMS")
    lines = (f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n" for path in files)
    (folder / "SHA256SUMS").write_text("".join(lines))


def edit(folder: Path, **changes: object) -> None:
    values = {**json.loads((folder / "config.json").read_text()), **changes}
    (folder / "config.json").write_text(json.dumps(values))
    sign(folder)


def test_what_was_saved_comes_back(saved, jets):
    folder, model = saved
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    tagger = load_pretrained(folder)
    assert tagger.config == config()
    assert not tagger.model.training
    expected = model.eval()(jets.features, jets.four_momenta, jets.mask)
    assert torch.equal(tagger(jets.four_momenta, jets.mask), expected)


def test_features_that_momenta_do_not_give(tmp_path, jets):
    table = feature_table("kinpid")
    settings = config(model="particlenet", features=table.to_dict())
    model = create_model("particlenet", input_dim=13, num_classes=2)
    inputs = (jets.four_momenta[:3], jets.mask[:3])
    with pytest.raises(ValueError, match="'part_charge' is missing"):
        save_pretrained(tmp_path / "model", model, settings, *inputs, "")
    assert list(tmp_path.iterdir()) == []
    columns = {name: torch.rand(inputs[1].shape) for name in table.columns}
    save_pretrained(tmp_path / "model", model, settings, *inputs, "", columns=columns)
    tagger = load_pretrained(tmp_path / "model")
    with torch.no_grad():
        expected = tagger.model(table.padded(*inputs, columns), *inputs)
    assert torch.equal(tagger(*inputs, columns), expected)


def test_an_existing_folder_is_kept(folder, jets):
    before = (folder / "model.safetensors").read_bytes()
    model = create_model("lorentznet", input_dim=7, num_classes=2)
    with pytest.raises(FileExistsError, match="exists"):
        save_pretrained(folder, model, config(), jets.four_momenta, jets.mask, "")
    assert (folder / "model.safetensors").read_bytes() == before


def test_what_would_not_load_is_not_written(tmp_path, jets):
    model = create_model("lorentznet", input_dim=7, num_classes=3)
    with pytest.raises(PretrainedError, match="weights of lorentznet"):
        save_pretrained(tmp_path / "model", model, config(), jets.four_momenta, jets.mask, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(PretrainedError, match=f"{name}.*missing"):
        load_pretrained(folder)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_a_damaged_file_is_named(folder, name, damage):
    path = folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes({"flip": content, "truncate": content[: len(content) // 2], "empty": b""}[damage])
    with pytest.raises(PretrainedError, match=r"config\.json|safetensors|README\.md|SHA256SUMS"):
        load_pretrained(folder)


def test_a_pickle_is_never_read(folder):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (folder / "exploded",))

    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    sign(folder)
    with pytest.raises(PretrainedError, match="not a safetensors file"):
        load_pretrained(folder)
    (folder / "model.safetensors").rename(folder / "model.pt")
    with pytest.raises(PretrainedError, match=r"model.pt is not read"):
        load_pretrained(folder)
    assert not (folder / "exploded").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"surprise": 1}, "missing or unknown: .*surprise"),
        ({"classes": "qcd,top"}, "'classes' must be list"),
        ({"classes": [0, 1]}, "'classes' must be a list of names"),
        ({"classes": ["qcd", "top", "w"]}, "not the weights of lorentznet"),
        ({"model": "lorentznt"}, "did you mean lorentznet"),
        ({"format_version": 4}, "format_version 4 is not 1 to 3; update zoo"),
        ({"format_version": 0}, "format_version 0 is not 1 to 3"),
        ({"format_version": "2"}, "'format_version' must be int"),
        ({"training": []}, "'training' must be dict"),
        ({"features": {"features": []}}, "at least one feature"),
        ({"metrics": None}, "'metrics' must be dict"),
    ],
)
def test_a_wrong_config_is_refused(folder, changes, message):
    edit(folder, **changes)
    with pytest.raises(PretrainedError, match=message):
        load_pretrained(folder)


@pytest.fixture
def backbone(tmp_path: Path, jets: JetBatch) -> tuple[Path, torch.nn.Module]:
    """A folder of a backbone, and the model that it was made of."""
    model = create_model("particlenet_lite", input_dim=7, num_classes=5)
    settings = config(model="particlenet_lite", classes=[], kind="backbone", metrics={})
    save_pretrained(tmp_path / "backbone", model, settings, jets.four_momenta[:4], jets.mask[:4], "")
    return tmp_path / "backbone", model.eval()


def test_a_backbone_gives_representations_and_no_logits(backbone, jets):
    folder, model = backbone
    loaded = load_pretrained(folder)
    with torch.no_grad():
        expected = model.encode(jets.features, jets.four_momenta, jets.mask)
    assert torch.equal(loaded.encode(jets.four_momenta, jets.mask), expected)
    assert expected.shape == (int(jets.mask.sum()), model.embed_dim)
    names = load_file(folder / "model.safetensors").keys()
    assert names == {name for name in model.state_dict() if not name.startswith("head.")}
    with pytest.raises(ValueError, match="a backbone gives no logits"):
        loaded(jets.four_momenta, jets.mask)


def test_what_is_no_backbone_is_refused(backbone, jets, tmp_path):
    folder, _ = backbone
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"head.0.weight": torch.zeros(1)}, folder / "model.safetensors")
    sign(folder)
    with pytest.raises(PretrainedError, match=r"model\.safetensors: holds head\.0\.weight, which no backbone has"):
        load_pretrained(folder)
    shortcut = weights.pop("blocks.0.shortcut.weight")
    save_file(weights, folder / "model.safetensors")
    sign(folder)
    with pytest.raises(PretrainedError, match="not the weights of particlenet_lite"):
        load_pretrained(folder)
    save_file(weights | {"blocks.0.shortcut.weight": shortcut + 1}, folder / "model.safetensors")
    sign(folder)
    with pytest.raises(PretrainedError, match="representation differ from the stored"):
        load_pretrained(folder)
    edit(folder, classes=["qcd", "top"])
    with pytest.raises(PretrainedError, match="'classes' must be empty for a backbone"):
        load_pretrained(folder)
    edit(folder, kind="decoder")
    with pytest.raises(PretrainedError, match=r"'kind' must be one of tagger, backbone, .*, task, is 'decoder'"):
        load_pretrained(folder)
    model, settings = create_model("pfn", input_dim=7, num_classes=2), config(model="pfn", classes=[], kind="backbone")
    with pytest.raises(PretrainedError, match="PFN: has no 'encode'"):
        save_pretrained(tmp_path / "other", model, settings, jets.four_momenta, jets.mask, "")


def test_other_weights_are_found_out_by_their_outputs(folder, jets, tmp_path):
    other = create_model("lorentznet", input_dim=7, num_classes=2)
    save_pretrained(tmp_path / "other", other, config(), jets.four_momenta, jets.mask, "")
    shutil.copy(tmp_path / "other" / "model.safetensors", folder)
    sign(folder)
    with pytest.raises(PretrainedError, match="differ from the stored ones"):
        load_pretrained(folder)


@pytest.mark.parametrize(
    "change",
    [{"centre": 99}, {"scale": 0.71}, {"clip": 0.5}, {"formula": "log_energy"}, {"formula": "2 * log_pt"}],
)
@pytest.mark.parametrize("version", [2, 3])
def test_another_preprocessing_is_found_out(folder, change, version):
    """Also by folders of version 2, of what momenta alone tell."""
    features = feature_table("kin").to_dict()
    edit(folder, features=features, format_version=version)
    assert load_pretrained(folder).config.format_version == version
    features["features"][0] |= change
    edit(folder, features=features)
    with pytest.raises(PretrainedError, match=r"'part_pt_log', computed from the stored momenta .* differs"):
        load_pretrained(folder)


def test_preprocessing_is_compared_with_columns_and_momenta_of_jets_too(tmp_path, jets):
    """A jet that is not the sum of its particles, and a charge that turns."""
    table, momenta, mask = feature_table("kinpid"), jets.four_momenta[:3], jets.mask[:3]
    columns = {name: torch.randint(0, 2, mask.shape, dtype=torch.int8) for name in table.columns}
    columns |= {name: torch.rand(3) + 1 for name in JET_COLUMNS}
    model = create_model("pfn", input_dim=13, num_classes=2)
    settings = config(model="pfn", features=table.to_dict())
    save_pretrained(tmp_path / "model", model, settings, momenta, mask, "", columns=columns)
    features = table.to_dict()
    features["features"][5]["formula"] = "0 - charge"
    edit(tmp_path / "model", features=features)
    with pytest.raises(PretrainedError, match="'part_charge', computed from the stored momenta and columns, differs"):
        load_pretrained(tmp_path / "model")
    edit(tmp_path / "model", features=table.to_dict())
    golden = load_file(tmp_path / "model" / "golden.safetensors")
    save_file(golden | {"column.jet_eta": golden["column.jet_eta"] + 0.1}, tmp_path / "model" / "golden.safetensors")
    sign(tmp_path / "model")
    with pytest.raises(PretrainedError, match="'part_deltaR', computed from the stored momenta and columns, differs"):
        load_pretrained(tmp_path / "model")
    del golden["column.part_charge"]
    save_file(golden, tmp_path / "model" / "golden.safetensors")
    sign(tmp_path / "model")
    with pytest.raises(PretrainedError, match=r"golden\.safetensors: must hold .*column\.part_charge"):
        load_pretrained(tmp_path / "model")


def test_a_folder_of_version_2_with_columns_still_loads(tmp_path, jets):
    table = feature_table("kinpid")
    columns = {name: torch.rand(3, jets.mask.shape[1]) for name in table.columns} | {
        name: torch.rand(3) + 1 for name in JET_COLUMNS
    }
    settings = config(model="pfn", features=table.to_dict())
    model = create_model("pfn", input_dim=13, num_classes=2)
    save_pretrained(tmp_path / "model", model, settings, jets.four_momenta[:3], jets.mask[:3], "", columns=columns)
    golden = load_file(tmp_path / "model" / "golden.safetensors")
    old = {name: value for name, value in golden.items() if not name.startswith("column.")}
    save_file(old, tmp_path / "model" / "golden.safetensors")
    edit(tmp_path / "model", format_version=2)
    assert load_pretrained(tmp_path / "model").config.format_version == 2
    edit(tmp_path / "model", format_version=3)
    with pytest.raises(PretrainedError, match=r"must hold .*column"):
        load_pretrained(tmp_path / "model")


def test_hostile_folders_are_refused_within_seconds(folder, jets):
    """Each of these would fill the memory, or the stack, before a checksum of its author could tell."""
    start = time.monotonic()
    # copied, since older releases of safetensors map the file, which is written over below
    golden = {name: value.clone() for name, value in load_file(folder / "golden.safetensors").items()}
    wide = {
        name: golden[name].repeat(1, 80, *[1] * (golden[name].ndim - 2))
        for name in ("features", "four_momenta", "mask")
    }
    for changed, message in (
        (wide, r"places for .* particles, of which at most 64 jets and 4,194,304 pairs of places are verified"),
        ({"mask": golden["mask"].float()}, "mask must be boolean"),
        ({"mask": golden["mask"] & False}, "has no particle, so nothing can be verified"),
        ({"four_momenta": golden["four_momenta"].int()}, r"four_momenta must be float32, is torch\.int32"),
        ({"features": golden["features"][..., :6].contiguous()}, "features must be"),
    ):
        save_file(golden | changed, folder / "golden.safetensors")
        sign(folder)
        with pytest.raises(PretrainedError, match=message):
            load_pretrained(folder)
    save_file(golden, folder / "golden.safetensors")
    features = feature_table("kin").to_dict()["features"]
    for changed, message in (
        ({"classes": ["a"] * 1001}, "'classes' has 1,001 entries, more than 1,000"),
        ({"features": {"features": features * 200}}, "'features' has 1,400 entries"),
        (
            {"features": {"features": [features[0] | {"formula": "-" * 50_000 + "log_pt"}, *features[1:]]}},
            "config.json: ",
        ),
        (
            {"features": {"features": [features[0] | {"formula": "log_pt * 9**9**9**9"}, *features[1:]]}},
            "the exponent .* is too",
        ),
        ({"paper": "x" * 2_000_000}, "config.json: has 2,.* bytes and may have 1,048,576"),
    ):
        before = (folder / "config.json").read_text()
        edit(folder, **changed)
        with pytest.raises(PretrainedError, match=message):
            load_pretrained(folder)
        (folder / "config.json").write_text(before)
    (folder / "config.json").write_text("[" * 100_000 + "]" * 100_000)
    sign(folder)
    with pytest.raises(PretrainedError, match=r"config\.json: .* nested too deeply"):
        load_pretrained(folder)
    assert time.monotonic() - start < 20


def test_an_unknown_name_is_answered_with_the_closest():
    with pytest.raises(FileNotFoundError, match=r"did you mean lorentznet\.top_tagging"):
        load_pretrained("lorentznet.toptagging")
    with pytest.raises(PretrainedError, match="only folders and hf://owner/repo@commit are loaded"):
        load_pretrained("https://example.org/model")


@pytest.mark.parametrize("name", list_pretrained())
def test_packaged_models_load(name):
    config = load_pretrained(name).config
    figure = {"tagger": "auc", "backbone": "val_probe_auc"}[config.kind]
    assert config.metrics[figure]["value"] > 0.94


def test_the_package_stays_small():
    files = [path for path in PACKAGED.rglob("*") if path.is_file()]
    assert {path.name for path in files} == set(FILES)
    assert sum(path.stat().st_size for path in files) < LIMIT
