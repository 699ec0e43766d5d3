"""The training door: configurations, run folders, refusals, and the subcommands on real jets."""

import copy
import csv
import dataclasses
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
import uproot
import wandb
import yaml
from lightning.pytorch import Callback
from sklearn.metrics import roc_auc_score

from tests.data.writers import LINES
from zoo import cli
from zoo.cli import training_command as command
from zoo.data.datasets import resolve_file
from zoo.data.store import open_store, write_store
from zoo.files import only_one
from zoo.report import Predictions
from zoo.training.checkpoints import CheckpointError, read_checkpoint

REPOSITORY = Path(__file__).resolve().parents[2]


def small_config(folder: Path) -> dict:
    """A training of seconds."""
    model = {"num_classes": 2, "embed_dim": 8, "num_layers": 1}
    return {
        "run_folder": str(folder / "run"),
        "trainer": {"max_epochs": 2, "log_every_n_steps": 2, "enable_progress_bar": False},
        "model": {
            "class_path": "zoo.tasks.Classification",
            "init_args": {
                "model": {"class_path": "zoo.lorentznet.LorentzNet", "init_args": model},
                "learning_rate": 0.003,
            },
        },
        "data": {
            "train": {"files": ["sample:top_tagging/train"], "rows": [0, 300]},
            "val": {"files": ["sample:top_tagging/val"], "rows": [0, 100]},
            "test": {"files": ["sample:top_tagging/test"], "rows": [100, 300]},
            "batch_size": 20,
        },
    }


@pytest.fixture
def config(tmp_path) -> dict:
    return small_config(tmp_path)


def write(config: dict, folder: Path) -> str:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path)


def run(subcommand: str, config: dict, folder: Path, *options: str) -> command.TrainingCLI:
    return command.main([subcommand, "--config", write(config, folder), *options])


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> tuple[Path, dict]:
    """Folder and configuration of a finished training."""
    folder = tmp_path_factory.mktemp("fitted")
    config = small_config(folder)
    run("fit", config, folder)
    return folder, config


class FakeRun:
    """As much of a run of W&B as the logger needs."""

    def __init__(self, name: str) -> None:
        self.id = self.name = name
        self.config = {}

    def log(self, values: dict) -> None:
        pass


def metrics(folder: Path) -> dict:
    return json.loads((folder / "run" / "report" / "metrics.json").read_text())["metrics"]


def change(config: dict, key: str, value: object) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        config = config.setdefault(parent, {})
    config[last] = value


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("run_foldr", "x", "run_foldr"),
        ("trainer.max_epoch", 3, "max_epoch"),
        ("trainer.max_epochs", "many", "max_epochs"),
        ("model.init_args.learning_rat", 0.1, "learning_rat"),
        ("model.init_args.learning_rate", "fast", "learning_rate"),
        ("model.init_args.model.class_path", "zoo.lorentznet.lorentzmet", "lorentzmet"),
        ("model.init_args.model.init_args.embed_dims", 8, "embed_dims"),
        ("model.init_args.model.init_args.embed_dim", "wide", "embed_dim"),
        ("data.batchsize", 10, "batchsize"),
        ("data.train.row", [0, 10], "row"),
        ("data.train.rows", [0, "all"], "rows"),
        ("checkpoints.every_n_steps", 5, "every_n_steps"),
        (
            "trainer.callbacks",
            [{"class_path": "torch.Boom"}],
            "trainer.callbacks: Problem with given class_path 'torch",
        ),
    ],
)
def test_misspelt_keys_and_wrong_types_are_refused(config, tmp_path, capsys, key, value, named):
    change(config, key, value)
    with pytest.raises(SystemExit) as stop:
        run("fit", config, tmp_path)
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("zoo: error:")
    assert named in message
    assert len(message.splitlines()) == 1
    assert "class '" not in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("subcommand", "option"),
    [("fit", "--trainer.max_epoch=3"), ("fit", "--model.learning_rat=1e-3"), ("test", "--data.batch=10")],
)
def test_abbreviated_options_are_refused(config, tmp_path, capsys, subcommand, option):
    with pytest.raises(SystemExit, match="2"):
        run(subcommand, config, tmp_path, option)
    message = capsys.readouterr().err
    assert f"unrecognized arguments: {option}" in message or "Option 'learning_rat' is not accepted" in message
    assert len(message.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_config_of_the_net_is_refused(config, tmp_path):
    """It names classes to import. Control: the same file, which Lightning's own command line reads by its URL too."""
    path = write(config, tmp_path)
    with pytest.raises(ValueError, match=r"config file://.*: only local files are read; .* it is code"):
        command.main(["fit", "-c", f"file://{path}"])
    assert command.main(["-c", path], run=False).config.run_folder == config["run_folder"]


def test_a_part_of_a_config_of_the_net_is_refused(config, tmp_path, capsys):
    part = yaml.safe_dump(config.pop("data"))
    (tmp_path / "part.yaml").write_text(part)
    fsspec.filesystem("memory").pipe("/part.yaml", part.encode())
    with pytest.raises(SystemExit, match="2"):
        run("fit", config, tmp_path, "--data", "memory://part.yaml")
    assert "Unable to load config" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="0"):
        run("fit", config, tmp_path, "--data", f"{tmp_path}/part.yaml", "--print_config")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.init_args.learning_rate", -1.0, "learning_rate must be positive, got -1.0"),
        ("model.init_args.warmup", 1.5, r"warmup must be in \[0, 1\)"),
        ("checkpoints.every_n_train_steps", 0, "every_n_train_steps must be 1 or more"),
        ("trainer.default_root_dir", "elsewhere", "trainer.default_root_dir: give run_folder"),
        ("trainer.sync_batchnorm", True, "trainer.sync_batchnorm: leave it out"),
        ("trainer.max_steps", 100, "trainer.max_steps: give trainer.max_epochs"),
        ("trainer.val_check_interval", 0.5, "trainer.val_check_interval: leave it out"),
        ("data.batch_size", 0, "batch_size"),
        ("data.train.files", ["missing.h5"], r"missing\.h5"),
        (
            "model.init_args.model.init_args.num_classes",
            3,
            "init_args.num_classes is 3, but must be 2, the number of classes, qcd, top",
        ),
        ("model.init_args.num_classes", 3, r"model\.num_classes is 3, but must be 2, .* qcd, top: write 2"),
        ("checkpoints.monitor", "val_acu", "monitor: no metric is called 'val_acu'; did you mean 'val_auc'"),
        ("checkpoints.monitor", "val_probe_auc", "no metric is called 'val_probe_auc'"),
        ("data.layout", "{folder}/beside.yml", r"beside\.yml: no such file; did you mean 'beside\.yaml'"),
        ("data.weaver_yaml", "{folder}/beside.yml", r"beside\.yml: no such file; did you mean 'beside\.yaml'"),
        ("data.features", "{folder}/beside.yml", r"beside\.yml: no such file; did you mean 'beside\.yaml'"),
        ("data.context", "{folder}/beside.yml", r"beside\.yml: no such file; did you mean 'beside\.yaml'"),
    ],
)
def test_values_that_cannot_be_used_are_refused(config, tmp_path, key, value, message):
    (tmp_path / "beside.yaml").touch()
    change(config, key, value.format(folder=tmp_path) if isinstance(value, str) else value)
    with pytest.raises((ValueError, OSError), match=message):
        run("fit", config, tmp_path)
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_wrong_input_dim_is_refused(config, tmp_path):
    config["model"]["init_args"]["model"] = {
        "class_path": "zoo.lorentznet.lorentznet",
        "init_args": {"input_dim": 13, "num_classes": 2},
    }
    with pytest.raises(ValueError, match=r"init_args\.input_dim is 13, but must be 7, the number of features"):
        run("fit", config, tmp_path)


@pytest.mark.parametrize(
    ("builder", "context", "message"),
    [
        (
            "particle_transformer_for_events",
            None,
            r"takes 2 context features, but the data has 0 \(none\): give",
        ),
        ("particle_transformer", "met", r"takes 0 context features, but the data has 2 \(met_log, met_phi\): leave"),
    ],
)
def test_another_context_is_refused(config, tmp_path, builder, context, message):
    arguments = {"input_dim": 12, "num_classes": 5}
    config["model"]["init_args"] |= {
        "model": {"class_path": f"zoo.particle_transformer.{builder}", "init_args": arguments},
        "num_classes": 5,
    }
    (tmp_path / "events.csv").write_text("\n".join(LINES) + "\n")
    split = {"files": [str(tmp_path / "events.csv")]}
    config["data"] = {"dataset": "four_tops", "features": "events", "context": context, "train": split}
    with pytest.warns(UserWarning, match="no jet is of class"), pytest.raises(ValueError, match=message):
        run("fit", config, tmp_path)
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_fit_leaves_the_run_folder(fitted):
    folder, config = fitted
    names = {path.name for path in (folder / "run").iterdir()}
    assert names == {"config.yaml", "metrics.csv", "checkpoints", "tensorboard", "report"}
    assert {path.name for path in (folder / "run" / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    assert {"metrics.json", "predictions.arrow", "README.md"} <= {p.name for p in (folder / "run/report").iterdir()}
    assert list((folder / "run" / "tensorboard").glob("events.*"))
    with (folder / "run" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    aucs = [float(row["val_auc"]) for row in rows if row["val_auc"]]
    assert len(aucs) == config["trainer"]["max_epochs"]
    best = read_checkpoint(folder / "run" / "checkpoints" / "best.ckpt")
    assert best["epoch"] == int(np.argmax(aucs))
    last = read_checkpoint(folder / "run" / "checkpoints" / "last.ckpt")
    assert last["global_step"] == 2 * 15
    assert sum(bool(row["train_loss_step"]) for row in rows) == last["global_step"] // 2


def test_every_figure_that_may_be_monitored_is_logged(fitted):
    folder, config = fitted
    with (folder / "run" / "metrics.csv").open(newline="") as file:
        logged = {name for row in csv.DictReader(file) for name, value in row.items() if value}
    figures = set(command.main(["--config", write(config, folder)], run=False).model.epoch_figures)
    assert logged - figures == {"epoch", "step", "learning_rate", "train_loss_step"} | {
        f"{name}_error" for name in figures if not name.endswith("loss")
    }
    assert figures <= logged


def test_report_judges_the_test_rows_with_the_best_checkpoint(fitted):
    folder, _ = fitted
    predictions = Predictions.load(folder / "run" / "report" / "predictions.arrow")
    assert sorted(predictions.index) == list(range(100, 300))
    score = predictions.logits[:, 1] - predictions.logits[:, 0]
    assert metrics(folder)["auc"]["value"] == pytest.approx(roc_auc_score(predictions.label, score), abs=1e-9)


def test_report_tells_how_the_weights_came_to_be(fitted):
    folder, _ = fitted
    facts = json.loads((folder / "run" / "report" / "metrics.json").read_text())["facts"]
    assert facts["seed"] == 1
    assert facts["steps"] == 15 * facts["epochs"]
    assert 0 < facts["training_minutes"] < 10
    assert facts["checkpoint"] == "best.ckpt"
    assert facts["parameters"] < 10_000


def test_test_and_predict_repeat_the_answer(fitted, tmp_path):
    folder, config = fitted
    before = metrics(folder)
    first = Predictions.load(folder / "run" / "report" / "predictions.arrow")
    run("test", config, folder)
    assert metrics(folder) == before
    config = config | {"data": config["data"] | {"predict": {"files": ["sample:top_tagging/test"], "rows": [150, 250]}}}
    run("predict", config, tmp_path, "--predictions", str(tmp_path / "new" / "answer.arrow"))
    answer = Predictions.load(tmp_path / "new" / "answer.arrow")
    assert sorted(answer.index) == list(range(150, 250))
    order = {row: i for i, row in enumerate(first.index)}
    expected = first.logits[[order[row] for row in answer.index]]
    np.testing.assert_allclose(answer.logits, expected, atol=1e-5)
    assert len((folder / "run" / "metrics.csv").read_text().splitlines()) > 5, "testing leaves the history alone"


def test_predict_writes_root_with_observers_and_never_over_an_input(fitted, tmp_path, capsys):
    folder, config = fitted
    jets = open_store(resolve_file("sample:top_tagging/test"))
    event = np.arange(len(jets)) + 2**60
    files = [str(tmp_path / name) for name in ("one.arrow", "two.arrow")]
    for path, rows in zip(files, (slice(0, 30), slice(30, 50)), strict=True):
        part = jets.slice(rows.start, rows.stop)
        write_store(path, dataclasses.replace(part, fields={"event": event[rows], **part.fields}, source_rows=None))
    data = config["data"] | {"predict": {"files": files}, "observers": ["event"]}
    out = tmp_path / "new" / "answer.root"
    for path in (out, tmp_path / "answer.arrow"):
        run(
            "predict",
            config | {"data": data},
            tmp_path,
            "--run_folder",
            str(folder / "run"),
            "--predictions",
            str(path),
        )
    with uproot.open(out) as file:
        assert file.classnames() == {"scores;1": "TTree"}
        found = file["scores"].arrays(library="np")
    assert list(found) == ["index", "label", "weight", "score_qcd", "score_top", "event"]
    np.testing.assert_array_equal(found["index"], np.arange(50), err_msg="a friend of the trees that were read")
    np.testing.assert_array_equal(found["event"], event[:50])
    np.testing.assert_array_equal(found["label"], jets.label[:50])
    answer = Predictions.load(tmp_path / "answer.arrow")
    np.testing.assert_array_equal(answer.fields["event"], event[answer.index])
    probability = torch.tensor(answer.logits).double().softmax(dim=1)[:, 1].numpy()
    np.testing.assert_allclose(found["score_top"], probability[np.argsort(answer.index)], rtol=1e-6)

    options = ["--run_folder", str(folder / "run")]
    (tmp_path / "link.arrow").symlink_to(files[1])
    for path, force, message in (
        (out, [], "exists; add --force"),
        (files[0], ["--force"], "an input"),
        (tmp_path / "link.arrow", ["--force"], "an input"),
        (tmp_path / "answer.txt", [], "scores are written as .arrow"),
    ):
        with pytest.raises((ValueError, FileExistsError), match=message):
            run("predict", config | {"data": data}, tmp_path, *options, "--predictions", str(path), *force)
    with pytest.raises(ValueError, match="field 'events' is not among"):
        run("predict", config | {"data": data | {"observers": ["events"]}}, tmp_path, *options)
    run("predict", config | {"data": data}, tmp_path, *options, "--predictions", str(out), "--force")


def test_the_command_predicts_a_file_with_a_run_folder_alone(fitted, tmp_path, capsys):
    folder, config = fitted
    out, run_folder = tmp_path / "answer.csv", str(folder / "run")
    options = ["--run-folder", run_folder, "--out", str(out)]
    cli.main(["predict", "sample:top_tagging/test", *options, "--rows", "150", "160"])
    judged = Predictions.load(folder / "run" / "report" / "predictions.arrow")
    expected = dict(zip(judged.index, torch.tensor(judged.logits).double().softmax(dim=1)[:, 1].tolist(), strict=True))
    with out.open(newline="") as file:
        found = {int(row["index"]): float(row["score_top"]) for row in csv.DictReader(file)}
    assert list(found) == list(range(150, 160))
    assert found == pytest.approx({row: expected[row] for row in found}, rel=1e-5)

    write_store(tmp_path / "small.arrow", open_store(resolve_file("sample:top_tagging/test")).slice(0, 7))
    split = {"files": ["sample:top_tagging/test"], "rows": [100, 300]}
    path = write(config | {"data": config["data"] | {"predict": split}}, tmp_path)
    cli.main(["predict", str(tmp_path / "small.arrow"), *options, "--config", path, "--force"])
    assert len(out.read_text().splitlines()) == 1 + 7, "the rows of the configuration are those of its file"


def test_report_quotes_the_rejection_of_the_signal_and_efficiencies_of_the_config(fitted, tmp_path):
    folder, config = fitted
    shutil.copytree(folder / "run", tmp_path / "run")
    options = ["--run_folder", str(tmp_path / "run"), "--model.signal", "0", "--model.signal_efficiencies", "[0.6]"]
    run("test", config, tmp_path, *options, "--seed_everything", "5")
    document = json.loads((tmp_path / "run" / "report" / "metrics.json").read_text())
    assert document["facts"]["seed"] == 1, "of the training"
    assert document["background"] == "top"
    judged = Predictions.load(tmp_path / "run" / "report" / "predictions.arrow")
    score = judged.logits[:, 0] - judged.logits[:, 1]
    signal = np.sort(score[judged.label == 0])[::-1]
    passed = (score[judged.label == 1] >= signal[math.ceil(0.6 * len(signal)) - 1]).sum()
    expected = (judged.label == 1).sum() / passed
    assert document["metrics"]["background_rejection_0.6"]["value"] == pytest.approx(expected)
    assert "background_rejection_0.3" not in document["metrics"]


def test_saved_config_begins_the_same_training(fitted, tmp_path):
    folder, _ = fitted
    saved = str(folder / "run" / "config.yaml")
    command.main(["fit", "--config", saved, "--run_folder", str(tmp_path / "again"), "--test_after_fit", "false"])
    one = read_checkpoint(folder / "run" / "checkpoints" / "last.ckpt")["state_dict"]
    other = read_checkpoint(tmp_path / "again" / "checkpoints" / "last.ckpt")["state_dict"]
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_is_never_overwritten(fitted, tmp_path):
    folder, config = fitted
    elsewhere = tmp_path / "last.ckpt"
    elsewhere.write_bytes((folder / "run" / "checkpoints" / "last.ckpt").read_bytes())
    before = {path: path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file()}
    for options in ([], ["--ckpt_path", str(elsewhere)]):
        with pytest.raises(ValueError, match="holds a run already; add --ckpt-path last"):
            run("fit", config, folder, *options)
    assert before == {path: path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file()}


def test_two_trainings_do_not_share_a_run_folder(config, tmp_path):
    with only_one(tmp_path / "run", "training"):
        for options in ([], ["--ckpt_path", "last"]):
            with pytest.raises(
                BlockingIOError, match=r"run: is in use by another training, process \d+ on .* name another"
            ):
                run("fit", config, tmp_path, *options)
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    assert not (tmp_path / "run").exists()


def test_resuming_a_finished_run_changes_no_weight(fitted):
    folder, config = fitted
    path = folder / "run" / "checkpoints" / "last.ckpt"
    before, history = path.read_bytes(), (folder / "run" / "metrics.csv").read_text()
    run("fit", config, folder, "--ckpt_path", "last")
    assert path.read_bytes() == before
    assert (folder / "run" / "metrics.csv").read_text() == history


@pytest.mark.parametrize("subcommand", ["fit", "validate", "test", "predict"])
def test_damaged_checkpoint_is_refused_before_anything_is_built(config, tmp_path, subcommand):
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    torch.save({"state_dict": {"model.weight": torch.ones(1000)}}, path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(CheckpointError, match=r"last\.ckpt: not readable .* restore a copy"):
        run(subcommand, config, tmp_path, "--ckpt_path", "last")
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["checkpoints"]


@pytest.mark.parametrize("name", ["https://example.org/best.ckpt", "s3://bucket/best.ckpt"])
def test_checkpoint_from_the_net_is_refused(config, tmp_path, name):
    for subcommand in ("fit", "test"):
        with pytest.raises(CheckpointError, match="only local files are read"):
            run(subcommand, config, tmp_path, "--ckpt_path", name)


def test_checkpoint_of_another_model_is_refused(fitted, tmp_path):
    folder, config = fitted
    path = str(folder / "run" / "checkpoints" / "best.ckpt")
    config = copy.deepcopy(config) | {"run_folder": str(tmp_path / "other")}
    config["model"]["init_args"]["model"]["init_args"]["embed_dim"] = 16
    for subcommand in ("fit", "test"):
        with pytest.raises(CheckpointError, match=r"best\.ckpt: is of another model: .* shape .* use the config"):
            run(subcommand, config, tmp_path, "--ckpt_path", path)
    assert not (tmp_path / "other" / "config.yaml").exists()


def test_averaged_run_is_not_continued_without_the_average(config, tmp_path):
    config["trainer"]["callbacks"] = [{"class_path": "zoo.training.callbacks.WeightAverage"}]
    run("fit", config, tmp_path, "--test_after_fit", "false")
    config["trainer"]["callbacks"] = None
    with pytest.raises(ValueError, match=r"last\.ckpt: was made with averaged weights; keep"):
        run("fit", config, tmp_path, "--ckpt_path", "last")


def test_untrained_model_is_not_tested(config, tmp_path):
    with pytest.raises(CheckpointError, match=r"best\.ckpt: no such file; train first"):
        run("test", config, tmp_path)


def test_diverging_training_stops_and_keeps_no_bad_checkpoint(config, tmp_path):
    config["model"]["init_args"] |= {"learning_rate": 1e30, "warmup": 0.0}
    with pytest.raises(FloatingPointError, match=r"not finite"):
        run("fit", config, tmp_path, "--checkpoints.every_n_train_steps", "1")
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    if path.exists():
        assert all(value.isfinite().all() for value in read_checkpoint(path)["state_dict"].values())


class Broken(Callback):
    """A fault in a program, which numpy answers with a ValueError."""

    def on_train_start(self, *_):
        np.zeros(3) + np.zeros(4)


def test_the_command_tells_a_mistake_from_a_bug(config, tmp_path, capsys):
    """In the midst of a training: a loss that is not finite is a line with a remedy, a fault in a callback is none."""
    options = ["--model.init_args.learning_rate", "1e30", "--model.init_args.warmup", "0"]
    with pytest.raises(SystemExit, match="2"):
        cli.main(["fit", "--config", write(config, tmp_path), *options])
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("zoo: error: ")
    assert "not finite" in line
    config |= {"run_folder": str(tmp_path / "other")}
    config["trainer"]["callbacks"] = [{"class_path": "tests.training.test_train.Broken"}]
    with pytest.raises(ValueError, match="could not be broadcast"):
        cli.main(["fit", "--config", write(config, tmp_path)])
    assert "zoo: error" not in capsys.readouterr().err


def test_bf16_trains(config, tmp_path):
    line = run("fit", config, tmp_path, "--trainer.precision", "bf16-mixed", "--test_after_fit", "false")
    assert line.trainer.precision == "bf16-mixed"
    assert line.trainer.callback_metrics["val_loss"].isfinite()
    assert all(parameter.dtype == torch.float32 for parameter in line.model.parameters())


def test_wandb_by_one_line(config, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    config["wandb"] = "zoo"
    run("fit", config, tmp_path, "--test_after_fit", "false")
    assert wandb.run is None, "the next training in this process is another run"
    runs = list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert len(runs) == 1
    deadline = time.monotonic() + 30  # its own process writes what it was given, and may take longer than finish
    while runs[0].stat().st_size < 1000 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert runs[0].stat().st_size > 1000
    assert (tmp_path / "run" / "metrics.csv").exists(), "beside the other loggers, not instead"


def test_a_resumed_training_is_the_same_run_of_wandb(config, tmp_path, monkeypatch):
    """But another that begins at its checkpoint is not."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    ids = []
    monkeypatch.setattr(wandb, "init", lambda **options: ids.append(options["id"]) or FakeRun(options["id"] or "new"))
    config |= {"wandb": "zoo", "test_after_fit": False}
    run("fit", config, tmp_path)
    run("fit", config, tmp_path, "--ckpt_path", "last")
    last = str(tmp_path / "run" / "checkpoints" / "last.ckpt")
    run("fit", config, tmp_path, "--ckpt_path", last, "--run_folder", str(tmp_path / "other"))
    assert ids == [None, "new", None]


@pytest.mark.slow
def test_command_line_answers_with_one_line(config, tmp_path):
    config["data"]["train"]["rows"] = [10, 5]
    command = [sys.executable, REPOSITORY / "train.py", "fit", "--config", write(config, tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "rows" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_full_disk_is_one_line(config, tmp_path):
    command = [sys.executable, REPOSITORY / "train.py", "fit", "--config", write(config, tmp_path)]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**14, 2**14))

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, preexec_fn=limit)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"zoo: error: {tmp_path}/run/checkpoints/best.ckpt: ")
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "run").rglob("*.draft"))


@pytest.mark.slow
def test_two_processes_by_the_command(config, tmp_path):
    """Lightning starts the second by the words that the first was started with."""
    options = ["--trainer.devices", "2", "--trainer.accelerator", "cpu", "--trainer.max_epochs", "1"]
    command = [sys.executable, "-m", "zoo.cli", "fit", "--config", write(config, tmp_path), *options]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "no report, as it is made in one process: zoo test --run-folder" in done.stdout
    last = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert last["global_step"] == 8, "300 jets in batches of 20 of each of two"
