"""A training that is killed and resumed ends bit for bit where an uninterrupted one ends."""

import csv
import os
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import torch
import yaml

from zoo.training.checkpoints import read_checkpoint

REPOSITORY = Path(__file__).resolve().parents[2]
TRAIN_JETS, BATCH_SIZE, EPOCHS = 90, 10, 3

#: Runs inside the training: writes down every batch before its step, and kills the process where it is told to.
PROBE = """
import os
import signal
from lightning.pytorch import Callback

class Probe(Callback):
    def __init__(self, kill_at: str = "", diary: str = "") -> None:
        self.kill_at, self.diary = kill_at, diary

    def pass_by(self, place: str) -> None:
        if place == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.pass_by(f"step {trainer.global_step}")
        with open(self.diary, "a") as file:
            print(trainer.current_epoch, trainer.global_step, *batch.index.tolist(), file=file)

    def on_validation_batch_end(self, trainer, *_):
        self.pass_by(f"validation {trainer.current_epoch}")

    def on_train_epoch_start(self, trainer, pl_module):
        self.pass_by(f"epoch {trainer.current_epoch}")
"""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A folder with a small configuration: dropout, averaged weights, a step checkpoint every 4 of 9 steps."""
    folder = tmp_path_factory.mktemp("resume")
    (folder / "probe.py").write_text(PROBE)
    model = {"num_classes": 2, "embed_dim": 8, "num_layers": 1, "dropout": 0.3}
    config = {
        "run_folder": "unset",
        "trainer": {
            "max_epochs": EPOCHS,
            "log_every_n_steps": 2,
            "callbacks": [
                {"class_path": "zoo.training.callbacks.WeightAverage", "init_args": {"decay": 0.9}},
                {"class_path": "probe.Probe", "init_args": {"diary": "unset"}},
            ],
        },
        "checkpoints": {"every_n_train_steps": 4},
        "model": {"model": {"class_path": "zoo.lorentznet.LorentzNet", "init_args": model}, "learning_rate": 0.01},
        "data": {
            "train": {"files": ["sample:top_tagging/train"], "rows": [0, TRAIN_JETS]},
            "val": {"files": ["sample:top_tagging/val"], "rows": [0, 60]},
            "batch_size": BATCH_SIZE,
        },
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def train(workplace: Path, run: str, *, kill_at: str = "", workers: int = 0, resume: bool = False) -> None:
    """Run the real ``train.py`` in a process of its own."""
    config = yaml.safe_load((workplace / "config.yaml").read_text())
    config["run_folder"] = str(workplace / run)
    config["trainer"]["callbacks"][1]["init_args"] = {"kill_at": kill_at, "diary": str(workplace / f"{run}.log")}
    config["data"]["num_workers"] = workers
    (workplace / f"{run}.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, REPOSITORY / "train.py", "fit", "--config", workplace / f"{run}.yaml"]
    command += ["--test_after_fit", "false", "--trainer.enable_progress_bar", "false"]
    command += ["--ckpt_path", "last"] if resume else []
    environment = os.environ | {"PYTHONPATH": str(workplace), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=workplace, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == (-signal.SIGKILL if kill_at else 0), done.stderr


def batches(workplace: Path, run: str) -> dict[tuple[int, int], list[tuple[int, ...]]]:
    """All that was served at each (epoch, step): more than one batch where a kill made the step run again."""
    served = defaultdict(list)
    for line in (workplace / f"{run}.log").read_text().splitlines():
        epoch, step, *jets = map(int, line.split())
        served[epoch, step].append(tuple(jets))
    return dict(served)


def history(workplace: Path, run: str) -> list[dict[str, str]]:
    with (workplace / run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def assert_equal(one, other, where: str) -> None:
    """Bitwise equality of nested checkpoint contents."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for i, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_equal(left, right, f"{where}[{i}]")
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype, where
        assert torch.equal(one, other), where
    else:
        assert one == other, where


@pytest.fixture(scope="module")
def uninterrupted(workplace) -> Path:
    train(workplace, "uninterrupted")
    return workplace / "uninterrupted"


#: With checkpoints after steps 4 and 8 of 9: inside an epoch, in the validation, between epochs, before any checkpoint.
KILLS = {0: ["step 3", "validation 0", "epoch 1", "step 14"], 2: ["step 15"]}


@pytest.mark.slow
@pytest.mark.parametrize("workers", KILLS)
def test_killed_and_resumed_equals_uninterrupted(workplace, uninterrupted, workers):
    run = f"killed{workers}"
    for number, place in enumerate(KILLS[workers]):
        train(workplace, run, kill_at=place, workers=workers, resume=number > 0)
    train(workplace, run, workers=workers, resume=True)

    for name in ("last", "best"):
        expected = read_checkpoint(uninterrupted / "checkpoints" / f"{name}.ckpt")
        got = read_checkpoint(workplace / run / "checkpoints" / f"{name}.ckpt")
        for checkpoint in (got, expected):
            assert checkpoint["callbacks"]["RunCheckpoints"].pop("seconds") > 0
        for part in ("state_dict", "training_state_dict", "optimizer_states", "lr_schedulers", "callbacks"):
            assert_equal(got[part], expected[part], f"{name}.{part}")
        assert (got["epoch"], got["global_step"]) == (expected["epoch"], expected["global_step"])

    served, expected = batches(workplace, run), batches(workplace, "uninterrupted")
    assert served.keys() == expected.keys()
    assert any(len(again) > 1 for again in served.values()), "no kill cost a step: the test does not test resuming"
    for place, again in served.items():
        assert set(again) == set(expected[place]), place
    for epoch in range(EPOCHS):
        seen = [jet for (e, _), (jets, *_) in served.items() if e == epoch for jet in jets]
        assert sorted(seen) == list(range(TRAIN_JETS))

    assert history(workplace, run) == history(workplace, "uninterrupted")
    assert not list((workplace / run / "checkpoints").glob(".*"))


@pytest.mark.slow
def test_uninterrupted_run_is_what_the_test_needs(uninterrupted, workplace):
    """Weights move, the average differs from them, dropout and shuffling are random: equality is no accident."""
    checkpoint = read_checkpoint(uninterrupted / "checkpoints" / "last.ckpt")
    average, weights = checkpoint["state_dict"], checkpoint["training_state_dict"]
    assert any(not torch.equal(average[name], weights[name]) for name in weights)
    orders = defaultdict(list)
    for (epoch, _), (jets,) in batches(workplace, "uninterrupted").items():
        orders[epoch] += jets
    assert len({tuple(order) for order in orders.values()}) == EPOCHS
    assert checkpoint["global_step"] == EPOCHS * TRAIN_JETS // BATCH_SIZE
    losses = [row["train_loss"] for row in history(workplace, "uninterrupted") if row["train_loss"]]
    assert len(set(losses)) == EPOCHS
