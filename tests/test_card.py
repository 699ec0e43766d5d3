"""The card says what the config knows, and can be rewritten."""

import json
from pathlib import Path

import pytest
import torch

from tests.hub.test_hub import config, edit, sign
from zoo import create_model, load_pretrained
from zoo.card import renew_card, write_card
from zoo.cli import main
from zoo.data.batch import JetBatch
from zoo.data.features import Feature, FeatureTable, feature_table
from zoo.hub import PACKAGED, PretrainedError, list_pretrained, save_pretrained


@pytest.fixture
def folder(tmp_path: Path, jets: JetBatch) -> Path:
    model = create_model("pfn", input_dim=7, num_classes=2)
    settings = config(model="pfn", paper="arXiv:1810.05165", metrics={})
    save_pretrained(tmp_path / "mine", model, settings, jets.four_momenta[:4], jets.mask[:4], "old")
    return tmp_path / "mine"


@pytest.mark.parametrize("name", list_pretrained())
def test_the_cards_that_ship_are_those_of_their_configs(name):
    assert (PACKAGED / name / "README.md").read_text() == write_card(name, load_pretrained(name).config)


def test_what_a_card_says():
    card = (PACKAGED / "lorentznet.top_tagging" / "README.md").read_text()
    for feature in feature_table("kin").features:
        assert f"| {feature.name} | `{feature.formula}` | {feature.centre} | {feature.scale} |" in card
    for words in (
        "| AUC | 0.98144 ± 0.00077 | 20,000 jets |",
        "python train.py fit --config configs/top_tagging/lorentznet_5percent.yaml",
        "arXiv:1902.09914; https://zenodo.org/records/2603256, CC-BY-4.0",
        "Weights: MIT",
        "550 to 650 GeV",
        'zoo.predict("lorentznet.top_tagging", "jets.h5")',
        "zoo predict --model lorentznet.top_tagging jets.h5",
        "license: mit",
    ):
        assert words in card


def test_clips_columns_and_foreign_licences():
    features = FeatureTable((Feature("a", "charge", 0.5, 2.0, (-1.0, 3.0)), Feature("b", "tanh(part_x)", clip=4.0)))
    card = write_card("mine", config(features=features.to_dict(), metrics={}, licence="My Own", dataset="my_jets"))
    assert "| a | `charge` | 0.5 | 2.0 | -1.0 to 3.0 |" in card
    assert "| b | `tanh(part_x)` | 0.0 | 1.0 | ±4.0 |" in card
    assert "the columns `part_charge`, `part_x`" in card
    assert "license: other\nlicense_name: my-own\n" in card
    assert "my_jets: files that a layout described" in card
    assert "it was not tested" in card


def test_a_card_is_written_anew(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "README.md").write_text("damaged")
    main(["hub", "card", str(folder)])
    assert load_pretrained(folder)
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {name for name in after if after[name] != before[name]} == {"README.md", "SHA256SUMS"}
    assert "`pfn` (arXiv:1810.05165) for the classes qcd, top" in after["README.md"].decode()


def test_a_card_hides_no_damage(folder):
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 4
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(PretrainedError, match=r"model\.safetensors: differs from its checksum"):
        renew_card(folder)
    assert (folder / "README.md").read_text() == "old"


def test_metrics_of_another_kind_are_refused(folder):
    edit(folder, metrics={"auc": 0.5})
    with pytest.raises(PretrainedError, match="'metrics' are not those of a report"):
        renew_card(folder)


def test_a_folder_of_version_1_loads_and_gets_a_card(folder, jets):
    expected = load_pretrained(folder)(jets.four_momenta, jets.mask)
    values = json.loads((folder / "config.json").read_text())
    del values["training"]
    (folder / "config.json").write_text(json.dumps(values | {"format_version": 1}))
    sign(folder)
    tagger = load_pretrained(folder)
    assert torch.equal(tagger(jets.four_momenta, jets.mask), expected)
    assert tagger.config.training == {}
    renew_card(folder)
    assert "Nothing is known of it." in (folder / "README.md").read_text()
