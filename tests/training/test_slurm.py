"""Jobs of SLURM: only our checkpoints are taken, and a job that is stopped at its time limit goes on by itself."""

import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import OnExceptionCheckpoint
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment

from tests.training.test_resume import assert_equal, history
from tests.training.test_train import metrics, run, small_config, write
from zoo.cli.training_command import main
from zoo.training.checkpoints import read_checkpoint

JOB = {
    "SLURM_JOB_ID": "12",
    "SLURM_JOB_NAME": "train",
    "SLURM_NTASKS": "1",
    "SLURM_NTASKS_PER_NODE": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}


class SignalAt(Callback):
    """Sends this process what SLURM sends before a time limit, or a preemption, once at a place."""

    def __init__(self, place: str = "", number: int = signal.SIGUSR1) -> None:
        self.place = place
        self.number = number

    def pass_by(self, place: str) -> None:
        if place == self.place:
            self.place = ""
            os.kill(os.getpid(), self.number)

    def on_train_batch_start(self, trainer, *_):
        self.pass_by(f"step {trainer.global_step}")

    def on_validation_batch_start(self, trainer, *_):
        self.pass_by(f"validation {trainer.current_epoch}")

    def on_test_batch_start(self, *_):
        self.pass_by("test")


@pytest.fixture
def job(monkeypatch, tmp_path) -> Path:
    """This process is one of a job; what ``scontrol`` was asked is found in the file."""
    for name, value in JOB.items():
        monkeypatch.setenv(name, value)
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {commands}/asked\n')
    (commands / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(commands), prepend=os.pathsep)
    return commands / "asked"


def config_with(folder: Path, place: str = "", number: int = signal.SIGUSR1) -> dict:
    """A training of 2 epochs of 15 steps with dropout and averaged weights, which is signalled at a place."""
    config = small_config(folder)
    config["trainer"]["callbacks"] = [
        {"class_path": "zoo.training.callbacks.WeightAverage", "init_args": {"decay": 0.9}},
        {"class_path": "tests.training.test_slurm.SignalAt", "init_args": {"place": place, "number": int(number)}},
    ]
    return config


def last_step(folder: Path) -> int:
    return read_checkpoint(folder / "run" / "checkpoints" / "last.ckpt")["global_step"]


@pytest.mark.slow
def test_a_requeued_job_goes_on_by_itself_bit_for_bit(job, tmp_path, monkeypatch, capsys):
    """The same command four times, without --ckpt_path: stopped in an epoch, in a validation, and in the test."""
    whole = tmp_path / "whole"
    whole.mkdir()
    run("fit", config_with(whole), whole)
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "11")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    for restart, (place, step) in enumerate([("step 5", 6), ("validation 1", 30), ("test", 30)]):
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restart))
        with pytest.raises(SystemExit, match="75"):
            run("fit", config_with(tmp_path, place), tmp_path)
        assert last_step(tmp_path) == step, "saved after the very step, or the epoch"
        assert "goes on from" in capsys.readouterr().out
    assert job.read_text() == "requeue 11_3\n" * 3
    assert not (tmp_path / "run" / "report").exists()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    run("fit", config_with(tmp_path), tmp_path)

    for name in ("last", "best"):
        got, expected = (read_checkpoint(f / "run" / "checkpoints" / f"{name}.ckpt") for f in (tmp_path, whole))
        for checkpoint in (got, expected):
            assert checkpoint["callbacks"]["RunCheckpoints"].pop("seconds") > 0
        for part in ("state_dict", "training_state_dict", "optimizer_states", "lr_schedulers", "callbacks"):
            assert_equal(got[part], expected[part], f"{name}.{part}")
    assert history(tmp_path, "run") == history(whole, "run")
    assert metrics(tmp_path) == metrics(whole)
    assert not list(tmp_path.rglob("hpc_ckpt*"))


def test_only_its_own_job_continues_a_run(job, tmp_path, monkeypatch):
    config = config_with(tmp_path, "step 5")
    with pytest.raises(SystemExit, match="75"):
        run("fit", config, tmp_path)
    for restart, number in (("0", "12"), ("1", "13")):
        monkeypatch.setenv("SLURM_RESTART_COUNT", restart)
        monkeypatch.setenv("SLURM_JOB_ID", number)
        with pytest.raises(ValueError, match="holds a run already; add --ckpt-path last"):
            run("fit", config, tmp_path)


def test_a_preempted_job_is_stopped_after_its_step(job, tmp_path):
    """SLURM decides itself whether it is requeued."""
    with pytest.raises(SystemExit, match="143"):
        run("fit", config_with(tmp_path, "step 5", signal.SIGTERM), tmp_path)
    assert last_step(tmp_path) == 6
    assert not job.exists()


def test_a_job_that_is_not_requeued_goes_on(job, tmp_path, capsys):
    (job.parent / "scontrol").write_text("#!/bin/sh\necho 'requeue is disabled' >&2\nexit 1\n")
    run("fit", config_with(tmp_path, "step 5"), tmp_path, "--test_after_fit", "false")
    assert "SLURM has not requeued the job (scontrol requeue 12: requeue is disabled)" in capsys.readouterr().err
    assert last_step(tmp_path) == 30


def test_no_checkpoint_but_the_named_one_is_taken(job, tmp_path, monkeypatch):
    """Lightning takes the newest hpc_ckpt_*.ckpt of a job's folder, or the file of an OnExceptionCheckpoint."""
    config = small_config(tmp_path)
    run("fit", config, tmp_path)
    expected = metrics(tmp_path)
    other = read_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt")
    other["state_dict"] = {name: torch.zeros_like(value) for name, value in other["state_dict"].items()}
    torch.save(other, tmp_path / "run" / "hpc_ckpt_1.ckpt")
    run("test", config, tmp_path)
    assert metrics(tmp_path) == expected
    assert expected["auc"]["value"] > 0.6, "control: zeros give every jet the same score"

    fresh = small_config(tmp_path / "fresh")
    (tmp_path / "fresh" / "run").mkdir(parents=True)
    shutil.copy(tmp_path / "run" / "hpc_ckpt_1.ckpt", tmp_path / "fresh" / "run")
    exception = OnExceptionCheckpoint(tmp_path / "fresh" / "run", "hpc_ckpt_1")
    monkeypatch.setattr("zoo.training.trainer.SafeCheckpointIO.load_checkpoint", pytest.fail)
    monkeypatch.setattr("zoo.cli.training_command.RandomState", lambda: exception)
    line = run("fit", fresh, tmp_path, "--ckpt_path", "last", "--test_after_fit", "false")
    assert exception in line.trainer.callbacks
    one, again = (read_checkpoint(f / "run" / "checkpoints" / "best.ckpt") for f in (tmp_path, tmp_path / "fresh"))
    assert_equal(again["state_dict"], one["state_dict"], "weights")


def test_hyperparameters_of_a_checkpoint_do_not_replace_the_config(tmp_path):
    """Lightning's command line would take ``hyper_parameters`` of a checkpoint for its ``model``."""
    config = small_config(tmp_path)
    run("fit", config, tmp_path, "--test_after_fit", "false")
    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    torch.save(read_checkpoint(path) | {"hyper_parameters": {"signal": 0}}, path)
    line = run("validate", config, tmp_path)
    assert line.config.validate.model.init_args.signal == line.model.val_metrics.signal == 1


@pytest.mark.parametrize("rank", [{"SLURM_PROCID": "3"}, {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "3"}])
def test_a_single_process_writes_whatever_its_rank_elsewhere(job, tmp_path, monkeypatch, rank):
    for name, value in rank.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("lightning.fabric.utilities.rank_zero.rank_zero_only.rank", 3)
    line = run("fit", config_with(tmp_path), tmp_path, "--trainer.max_epochs", "1", "--test_after_fit", "false")
    assert line.trainer.is_global_zero
    assert history(tmp_path, "run")


def environment(config: dict, folder: Path, *options: str) -> object:
    line = main(["--config", write(config, folder), "--trainer.accelerator", "cpu", *options], run=False)
    return line.trainer._accelerator_connector.cluster_environment


def test_who_starts_the_processes(job, tmp_path, monkeypatch):
    config = small_config(tmp_path)
    two = ("--trainer.devices", "2")
    assert isinstance(environment(config, tmp_path), LightningEnvironment)
    assert isinstance(environment(config, tmp_path, *two), LightningEnvironment), "the one task starts the other"
    with pytest.raises(ValueError, match=r"trainer\.num_nodes: SLURM started one task"):
        environment(config, tmp_path, *two, "--trainer.num_nodes", "2")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "2")
    found = environment(config, tmp_path, *two)
    assert isinstance(found, SLURMEnvironment)
    assert not found.auto_requeue
    with pytest.raises(ValueError, match=r"trainer\.devices: 3 on each of 1 nodes, but SLURM started 2 tasks"):
        environment(config, tmp_path, "--trainer.devices", "3")
    with pytest.raises(ValueError, match="leave SLURMEnvironment out, or set its auto_requeue: false"):
        environment(config, tmp_path, "--trainer.plugins", "[lightning.pytorch.plugins.environments.SLURMEnvironment]")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("fast_dev_run", "true", "give data.train_jets and trainer.max_epochs 1"),
        ("barebones", "true", "leave it out; a run has its checkpoints and its history"),
        ("enable_checkpointing", "false", "leave it out; a run has its checkpoints"),
        ("accelerator", "tpu", "Requirement .*torch_xla"),
    ],
)
def test_settings_by_which_lightning_chooses_otherwise_are_refused(tmp_path, option, value, message):
    with pytest.raises(ValueError, match=rf"trainer.*: {message}"):
        run("fit", small_config(tmp_path), tmp_path, f"--trainer.{option}", value)
    assert not (tmp_path / "run").exists()
