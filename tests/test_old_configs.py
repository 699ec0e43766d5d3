"""Configurations of an older zoo: those that travel with the shipped models, and those that users still have."""

import json

import pytest
import torch
import yaml

from zoo.cli import training_command as train
from zoo.hub import load_pretrained
from zoo.hub.folder import PACKAGED
from zoo.old_configs import is_old, renew_settings
from zoo.publish import publish_run

NETWORK = {"class_path": "zoo.lorentznet.LorentzNet", "init_args": {"num_classes": 2, "embed_dim": 8, "num_layers": 1}}
DATA = {"train": {"files": ["sample:top_tagging/train"], "rows": [0, 40]}}


def build(folder, config: dict, *options: str):
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({"run_folder": "unused", "data": DATA, **config}))
    return train.main(["--config", str(path), *options], run=False)


@pytest.mark.parametrize("folder", sorted(path.parent for path in PACKAGED.glob("*/config.json")), ids=lambda p: p.name)
def test_settings_of_shipped_models_are_read(folder, tmp_path):
    """They were written before ``task`` became a class, with callbacks that have moved since."""
    settings = json.loads((folder / "config.json").read_text())["training"]["settings"]
    assert is_old(settings)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    line = train.main(["--config", str(path)], run=False)
    expected = "Substructure" if folder.name.endswith("substructure") else "Classification"
    assert type(line.model).__name__ == expected
    assert line.datamodule.labelled == (expected == "Classification")
    assert not is_old(renew_settings(settings))


def test_old_and_new_spelling_are_the_same_training(tmp_path, capsys):
    arguments = {"model": NETWORK, "learning_rate": 0.02}
    old = build(tmp_path, {"task": "tagging", "model": arguments})
    assert "config.yaml: was written for an older zoo" in capsys.readouterr().err
    new = build(tmp_path, {"model": {"class_path": "Classification", "init_args": arguments}})
    assert "older zoo" not in capsys.readouterr().err
    assert new.config.model.class_path == old.config.model.class_path == "zoo.tasks.Classification"
    assert old.model.learning_rate == new.model.learning_rate == 0.02
    assert all(torch.equal(value, new.model.state_dict()[name]) for name, value in old.model.state_dict().items())


@pytest.mark.parametrize("is_flat", [True, False])
@pytest.mark.parametrize("prefix", ["", "init_args."])
def test_options_of_the_command_line_reach_either_spelling(tmp_path, is_flat, prefix):
    arguments = {"model": NETWORK, "learning_rate": 0.02}
    model = arguments if is_flat else {"class_path": "zoo.tasks.Classification", "init_args": arguments}
    options = [f"--model.{prefix}learning_rate", "0.5", f"--model.{prefix}model.{prefix}embed_dim", "12"]
    line = build(tmp_path, {"model": model}, *options)
    assert line.model.learning_rate == 0.5
    assert line.config.model.init_args.model.init_args.embed_dim == 12
    assert line.config.model.init_args.model.init_args.num_layers == 1, "what is not named stays"


def test_task_of_the_command_line_is_a_class_with_a_hint(tmp_path, capsys):
    network = {"class_path": "zoo.particlenet.particlenet_lite", "init_args": {"input_dim": 7, "num_classes": 2}}
    line = build(tmp_path, {"model": {"model": network}}, "--task", "contrastive")
    assert type(line.model).__name__ == "Contrastive"
    assert "--task contrastive: is --model zoo.tasks.Contrastive now" in capsys.readouterr().err


def test_parts_of_configs_compose_in_either_order():
    assert renew_settings({"model": {"learning_rate": 0.1}}) == {"model": {"learning_rate": 0.1}}, "a class comes later"
    assert renew_settings({"model": {"class_path": "lightgbm", "inputs": "pairs"}})["model"]["inputs"] == "pairs"
    with pytest.raises(ValueError, match=r"task: must be one of tagging, masked_particles, .* not 'taging'"):
        renew_settings({"task": "taging"})


def test_a_run_folder_of_an_older_zoo_goes_on_is_tested_and_published(tmp_path):
    """Its config.yaml as it was written then; control: the report of its own test has the same metrics."""
    network = {"class_path": "zoo.deepsets.pfn", "init_args": {"input_dim": 7, "num_classes": 2}}
    split = {name: {"files": [f"sample:top_tagging/{name}"], "rows": [0, 60]} for name in ("train", "val", "test")}
    config = {
        "run_folder": str(tmp_path / "run"),
        "trainer": {"max_epochs": 2, "enable_progress_bar": False},
        "model": {"model": network},
        "data": split | {"batch_size": 20},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    train.main(["fit", "--config", str(tmp_path / "config.yaml")])
    run = tmp_path / "run"
    settings = yaml.safe_load((run / "config.yaml").read_text())
    old = settings | {"task": "tagging", "model": settings["model"]["init_args"]}
    (run / "config.yaml").write_text(yaml.safe_dump(old))
    report = run / "report" / "metrics.json"
    before = json.loads(report.read_text())["metrics"]
    train.main(["fit", "--config", str(run / "config.yaml"), "--ckpt_path", "last"])
    train.main(["test", "--config", str(run / "config.yaml")])
    assert json.loads(report.read_text())["metrics"] == before
    assert is_old(yaml.safe_load((run / "config.yaml").read_text())), "control: it is the old file that was read"
    publish_run(run, tmp_path / "mine", licence="MIT")
    assert load_pretrained(tmp_path / "mine").config.model == "pfn"
