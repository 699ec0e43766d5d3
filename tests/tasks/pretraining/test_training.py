"""Pretrainings through the training door: labels unread, resumed bit for bit, best by lowest loss, and a report."""

import copy
import csv
import json
from collections.abc import Callable
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Trainer, seed_everything
from safetensors.torch import load_file

from tests.data.writers import write_parquet
from zoo import create_model, load_pretrained, registry
from zoo.cli import training_command as command
from zoo.data import JetDataModule
from zoo.data.datamodule import Split
from zoo.data.datasets import resolve_file
from zoo.data.features import feature_table
from zoo.data.readers import read_jets
from zoo.particlenet import ParticleNet
from zoo.publish import publish_run
from zoo.tasks.pretraining import MaskedParticles, read_backbone
from zoo.training.checkpoints import read_checkpoint

REPOSITORY = Path(__file__).resolve().parents[3]

#: Stops a training before a step, as a kill does but for what the process would have lost.
STOP = """
from lightning.pytorch import Callback

class Stop(Callback):
    def __init__(self, before_step: int) -> None:
        self.before_step = before_step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.before_step:
            raise RuntimeError("stopped")
"""


def small_config(run_folder: Path) -> dict:
    """A pretraining of seconds, with dropout and averaged weights."""
    model = {"input_dim": 7, "num_classes": 2, "num_neighbors": 4, "conv_dims": [[8], [8]], "dropout": 0.3}
    return {
        "run_folder": str(run_folder),
        "trainer": {
            "max_epochs": 2,
            "log_every_n_steps": 2,
            "enable_progress_bar": False,
            "callbacks": [{"class_path": "zoo.training.callbacks.WeightAverage", "init_args": {"decay": 0.9}}],
        },
        "checkpoints": {"every_n_train_steps": 2},
        "model": {
            "class_path": "zoo.tasks.MaskedParticles",
            "init_args": {
                "model": {"class_path": "zoo.particlenet.ParticleNet", "init_args": model},
                "targets": ["codes", "regression"],
                "num_codes": 16,
                "decoder_dim": 16,
                "decoder_layers": 1,
                "learning_rate": 0.01,
            },
        },
        "data": {
            "train": {"files": ["sample:top_tagging/train"], "rows": [0, 90]},
            "val": {"files": ["sample:top_tagging/val"], "rows": [0, 120]},
            "batch_size": 18,
        },
    }


def run(subcommand: str, config: dict, *options: str) -> command.TrainingCLI:
    path = Path(config["run_folder"]).with_suffix(".yaml")
    path.write_text(yaml.safe_dump(config))
    return command.main([subcommand, "--config", str(path), *options])


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> tuple[Path, dict]:
    """Run folder and configuration of a finished pretraining."""
    config = small_config(tmp_path_factory.mktemp("pretraining") / "run")
    run("fit", config)
    return Path(config["run_folder"]), config


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_fit_leaves_a_run_folder_with_a_report(fitted):
    folder, _ = fitted
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml", "metrics.csv", "checkpoints", "tensorboard", "report",
    }  # fmt: skip
    pictures = {"reconstruction", "codes", "expected", "training"}
    names = {path.name for path in (folder / "report").iterdir()}
    assert names == {"metrics.json", "README.md"} | {f"{name}.{kind}" for name in pictures for kind in ("png", "pdf")}
    document = json.loads((folder / "report" / "metrics.json").read_text())
    figures = {"val_loss", "val_codes_loss", "val_regression_loss", "val_codes_accuracy", "val_probe_auc"}
    assert document["metrics"].keys() == figures
    assert document["jets"] == 120
    assert document["title"] == "ParticleNet, masked particles"
    assert document["facts"]["checkpoint"] == "best.ckpt"
    assert document["metrics"]["val_loss"]["error"] > 0
    assert 0.5 < document["metrics"]["val_probe_auc"]["value"] <= 1, "representations know something of the classes"


def test_every_figure_that_may_be_monitored_is_logged(fitted):
    folder, config = fitted
    path = folder.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(config))
    figures = set(command.main(["--config", str(path)], run=False).model.epoch_figures)
    assert {"val_codes_accuracy", "val_regression_loss", "val_probe_auc"} < figures
    assert figures <= {name for row in history(folder) for name, value in row.items() if value}


def test_best_checkpoint_has_the_lowest_loss_and_the_report_judges_it(fitted):
    folder, _ = fitted
    losses = [float(row["val_loss"]) for row in history(folder) if row["val_loss"]]
    assert len(losses) == 2
    best = read_checkpoint(folder / "checkpoints" / "best.ckpt")
    assert best["epoch"] == int(np.argmin(losses))
    figures = json.loads((folder / "report" / "metrics.json").read_text())["metrics"]
    assert figures["val_loss"]["value"] == pytest.approx(min(losses), rel=1e-5), "what is hidden is so in every epoch"
    assert read_backbone(folder).keys() < {name.removeprefix("model.") for name in best["state_dict"]}


def test_stopped_and_resumed_equals_uninterrupted(fitted, tmp_path, monkeypatch):
    """Inside the first epoch of 5 steps, then inside the second: masks, dropout and averages go on as they would."""
    folder, config = fitted
    (tmp_path / "stop_before.py").write_text(STOP)
    monkeypatch.syspath_prepend(tmp_path)
    config = config | {"run_folder": str(tmp_path / "run"), "test_after_fit": False}
    for step in (3, 7):
        stop = {"class_path": "stop_before.Stop", "init_args": {"before_step": step}}
        callbacks = [*config["trainer"]["callbacks"], stop]
        with pytest.raises(RuntimeError, match="stopped"):
            run("fit", config | {"trainer": config["trainer"] | {"callbacks": callbacks}}, "--ckpt_path", "last")
    run("fit", config, "--ckpt_path", "last")
    for name in ("last", "best"):
        expected, got = (
            read_checkpoint(where / "checkpoints" / f"{name}.ckpt") for where in (folder, tmp_path / "run")
        )
        assert got["global_step"] == expected["global_step"]
        for part in ("state_dict", "training_state_dict"):
            assert all(torch.equal(got[part][key], value) for key, value in expected[part].items()), (name, part)
    assert history(tmp_path / "run") == history(folder)
    codes = expected["state_dict"]["codes"]
    assert len(codes.unique(dim=0)) == 16, "the codes are those of the training particles, not zeros"


def test_validate_writes_the_same_report(fitted):
    folder, config = fitted
    before = (folder / "report" / "metrics.json").read_text()
    run("validate", config)
    assert (folder / "report" / "metrics.json").read_text() == before


def register(config: dict, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ParticleNet]:
    """Builder of the model of a configuration, as if it were in the zoo."""
    arguments = config["model"]["init_args"]["model"]["init_args"]

    def small(input_dim: int, num_classes: int) -> ParticleNet:
        return ParticleNet(**arguments | {"input_dim": input_dim, "num_classes": num_classes})

    small.__module__ = "zoo.particlenet"  # the builder of another package asks for its entry point
    monkeypatch.setattr("zoo.publish.registered_name", lambda path: "small")
    facts = registry.ModelFacts("small", small, registry.Paper("unpublished"), "jets")
    monkeypatch.setitem(registry._facts, "small", facts)
    return small


def test_a_pretraining_is_published_as_a_backbone(fitted, tmp_path, jets, monkeypatch):
    """Once its model is registered, as only those can be built by whoever loads the folder."""
    folder, config = fitted
    with pytest.raises(ValueError, match=r"ParticleNet is not the builder of a model of zoo\.list_models"):
        publish_run(folder, tmp_path / "mine", licence="MIT", paper="arXiv:1902.08570")
    small = register(config, monkeypatch)
    publish_run(folder, tmp_path / "mine", licence="MIT", paper="arXiv:1902.08570")
    published = load_pretrained(tmp_path / "mine")
    assert published.config.classes == []
    assert set(load_file(tmp_path / "mine" / "model.safetensors")) == set(read_backbone(folder))
    model = small(7, 2).eval()
    model.load_state_dict(read_backbone(folder), strict=False)
    with torch.no_grad():
        expected = model.encode(jets.features, jets.four_momenta, jets.mask)
    torch.testing.assert_close(published.encode(jets.four_momenta, jets.mask), expected)
    card = (tmp_path / "mine" / "README.md").read_text()
    for words in ("trained without labels on top_tagging", "On 120 validation jets", "backbone.encode("):
        assert words in card


def test_saved_config_begins_the_same_task(fitted, tmp_path):
    folder, _ = fitted
    options = ["--run_folder", str(tmp_path / "again"), "--test_after_fit", "false", "--trainer.max_epochs", "1"]
    line = command.main(["fit", "--config", str(folder / "config.yaml"), *options])
    assert isinstance(line.model, MaskedParticles)


def weights_after_training(label_of=None, probe_fraction: float = 0.0) -> tuple[dict, dict]:
    """Weights and metrics of a short training on jets whose labels and weights are exchanged."""

    class Jets(JetDataModule):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            if label_of is None:
                return batch
            return batch._replace(label=label_of(batch.label), weight=torch.linspace(0, 3, len(batch.label)))

    seed_everything(5)
    model = create_model("particlenet_lite", input_dim=7, num_classes=2)
    training = MaskedParticles(model, feature_table("kin"), num_codes=16, probe_fraction=probe_fraction)
    data = Jets(
        train=Split(["sample:top_tagging/train"], rows=(0, 48)),
        val=Split(["sample:top_tagging/val"], rows=(0, 60)),
        batch_size=16,
    )
    seed_everything(6)
    trainer = Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu",
        enable_model_summary=False, num_sanity_val_steps=0, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(training, datamodule=data)
    return training.state_dict(), {name: value.item() for name, value in trainer.callback_metrics.items()}


def test_labels_change_neither_loss_nor_weights():
    """Nor do weights, which may depend on them, or whether the probe looks at them."""
    weights, figures = weights_after_training()
    for label_of in (lambda label: torch.full_like(label, -1), lambda label: 1 - label):
        for probe_fraction in (0.0, 1.0):
            others, other_figures = weights_after_training(label_of, probe_fraction)
            assert all(torch.equal(others[name], value) for name, value in weights.items())
            assert {name: other_figures[name] for name in figures} == figures
    assert "val_probe_auc" not in figures
    assert "val_probe_auc" in other_figures, "control: the probe reads labels where there are any"


@pytest.fixture
def unlabelled(fitted, tmp_path) -> dict:
    """The configuration of ``fitted`` on the same jets, in files that hold their momenta and nothing else."""
    _, config = fitted
    momenta = {name: f"part_{name}" for name in ("energy", "px", "py", "pz")}
    (tmp_path / "layout.yaml").write_text(yaml.safe_dump({"units": "GeV", "momenta": momenta}))
    data = {"layout": str(tmp_path / "layout.yaml"), "batch_size": config["data"]["batch_size"]}
    for split in ("train", "val"):
        jets = read_jets(resolve_file(f"sample:top_tagging/{split}"), rows=tuple(config["data"][split]["rows"]))
        columns = {name: ak.unflatten(jets.particles[name], jets.counts) for name in momenta.values()}
        data[split] = {"files": [str(write_parquet(tmp_path / f"{split}.parquet", columns))]}
    return config | {"run_folder": str(tmp_path / "run"), "data": data}


def test_files_without_labels_give_the_same_weights(fitted, unlabelled, tmp_path, monkeypatch):
    """And their backbone is published. Control: a tagger refuses the files."""
    folder, config = fitted
    run("fit", unlabelled)
    one, other = (read_checkpoint(f / "checkpoints" / "last.ckpt")["state_dict"] for f in (folder, tmp_path / "run"))
    assert all(torch.equal(other[name], value) for name, value in one.items())
    figures, of_labelled = (
        json.loads((f / "report" / "metrics.json").read_text())["metrics"] for f in (tmp_path / "run", folder)
    )
    assert of_labelled.keys() - figures.keys() == {"val_probe_auc"}
    assert all(figures[name] == of_labelled[name] for name in figures)
    register(config, monkeypatch)
    publish_run(tmp_path / "run", tmp_path / "mine", licence="MIT", paper="arXiv:1902.08570")
    assert load_pretrained(tmp_path / "mine").config.classes == []

    tagging = small_tagger() | {"run_folder": str(tmp_path / "tagger"), "data": unlabelled["data"]}
    with pytest.raises(ValueError, match=r"layout\.yaml: the key 'classes' is missing"):
        run("fit", tagging)
    with pytest.raises(ValueError, match=r"data\.labelled: Classification is trained and tested on labels"):
        run("fit", tagging, "--data.labelled", "false")


def small_tagger() -> dict:
    model = {"class_path": "zoo.deepsets.pfn", "init_args": {"input_dim": 7, "num_classes": 2}}
    return {"trainer": {"max_epochs": 1, "enable_progress_bar": False}, "model": {"model": model}}


def test_a_probe_without_labels_is_not_monitored(unlabelled):
    with pytest.raises(ValueError, match=r"the validation jets give no val_probe_auc, perhaps for want of labels"):
        run("fit", unlabelled, "--checkpoints.monitor", "val_probe_auc", "--test_after_fit", "false")


def test_a_task_has_its_own_keys_and_subcommands(fitted, tmp_path, capsys):
    _, config = fitted
    config = config | {"run_folder": str(tmp_path / "run")}
    for subcommand in ("test", "predict"):
        with pytest.raises(ValueError, match=r"zoo\.tasks\.MaskedParticles: has no answers to .*; use fit or validate"):
            run(subcommand, config)
    for task in ("maskd", ["tagging"]):
        with pytest.raises(ValueError, match=r"task: must be one of tagging, .*, not .*(maskd|tagging)"):
            run("fit", {**config, "model": config["model"]["init_args"], "task": task})
    tagging = config["model"] | {"class_path": "Classification"}
    with pytest.raises(SystemExit):
        run("fit", config | {"model": tagging})
    message = capsys.readouterr().err
    assert "Problem with given class_path 'zoo.tasks.Classification'" in message
    assert "is not accepted" in message, "a tagger has other keys"
    assert not (tmp_path / "run").exists()


def test_models_without_representations_are_refused(fitted, tmp_path):
    _, config = fitted
    model = {"class_path": "zoo.deepsets.pfn", "init_args": {"input_dim": 7, "num_classes": 2}}
    config = copy.deepcopy(config) | {"run_folder": str(tmp_path / "run")}
    config["model"]["init_args"]["model"] = model
    with pytest.raises(ValueError, match=r"model\.model: PFN has no 'encode'"):
        run("fit", config)
