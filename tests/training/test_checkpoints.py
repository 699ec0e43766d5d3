"""Checkpoints survive kills and damage, and never run code."""

import multiprocessing
import os
import pickle
import random
import signal
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.test_files import small_disk
from zoo.lorentznet import LorentzNet
from zoo.training.callbacks import WeightAverage
from zoo.training.checkpoints import (
    CheckpointError,
    SafeCheckpointIO,
    read_checkpoint,
    read_model_weights,
    require_same_model,
)


class RunsCode:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


PROGRESS = {"epoch": 2, "global_step": 40, "callbacks": {}}


@pytest.fixture
def checkpoint() -> dict:
    return PROGRESS | {
        "state_dict": {"model.weight": torch.randn(64, 64), "model.steps": torch.tensor(3)},
        "loops": {"epoch": 2, "progress": (1, 2.5, None, "a")},
    }


@pytest.fixture
def path(tmp_path, checkpoint) -> Path:
    SafeCheckpointIO().save_checkpoint(checkpoint, tmp_path / "checkpoints" / "last.ckpt")
    return tmp_path / "checkpoints" / "last.ckpt"


def same(one: dict, other: dict) -> bool:
    return (
        one["loops"] == other["loops"]
        and one["state_dict"].keys() == other["state_dict"].keys()
        and all(torch.equal(value, other["state_dict"][name]) for name, value in one["state_dict"].items())
    )


def test_round_trip(path, checkpoint):
    assert same(SafeCheckpointIO().load_checkpoint(path), checkpoint)
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]
    weights = read_model_weights(path)
    assert set(weights) == {"weight", "steps"}
    assert torch.equal(weights["weight"], checkpoint["state_dict"]["model.weight"])
    SafeCheckpointIO().remove_checkpoint(path)
    assert not path.exists()


def test_failed_write_leaves_the_old_file(path, checkpoint):
    before = path.read_bytes()
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        SafeCheckpointIO().save_checkpoint(checkpoint | {"callback": lambda: None}, path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("size", [0, 1000, 10_000])
def test_full_disk_names_the_file_and_leaves_the_old_one(path, checkpoint, size):
    before = path.read_bytes()
    with small_disk(size), pytest.raises(OSError, match=rf"File too large: '{path}'"):
        SafeCheckpointIO().save_checkpoint(checkpoint, path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def _write_for_ever(path: Path, sizes: tuple[int, int], number: int) -> None:
    torch.set_num_threads(1)
    while True:
        number += 1
        state = {f"part{i}": torch.full((sizes[number % 2],), float(number)) for i in range(4)}
        SafeCheckpointIO().save_checkpoint(PROGRESS | {"state_dict": state}, path)


def test_kill_leaves_the_old_or_the_new(tmp_path):
    path = tmp_path / "last.ckpt"
    context = multiprocessing.get_context("fork")
    dice = random.Random(5)
    seen = []
    sizes = (200_000, 60_000)
    for kill in range(25):
        before = path.stat().st_ino if seen else None
        writer = context.Process(target=_write_for_ever, args=(path, sizes, 1000 * kill))
        writer.start()
        deadline = time.monotonic() + 20
        # on a busy machine a process takes its time to begin
        while (not path.exists() or path.stat().st_ino == before) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(dice.uniform(0.02, 0.1))
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        state = read_checkpoint(path)["state_dict"]
        (number,) = {value.unique().item() for value in state.values()}
        assert [len(value) for value in state.values()] == [sizes[int(number) % 2]] * 4
        seen.append(number)
    assert len(set(seen)) > 12, "the kills came before the writer did anything"


def test_changed_bit_is_refused_or_harmless(path, checkpoint):
    content = path.read_bytes()
    dice = random.Random(3)
    refused = 0
    for _ in range(200):
        damaged = bytearray(content)
        bit = dice.randrange(8 * len(content))
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            read = read_checkpoint(path)
        except CheckpointError:
            refused += 1
        else:
            assert same(read, checkpoint)
    assert refused > 150


def test_changed_weight_is_refused(path, checkpoint):
    content = path.read_bytes()
    stored = checkpoint["state_dict"]["model.weight"].numpy().tobytes()
    start = content.index(stored)
    path.write_bytes(content[: start + 100] + bytes([content[start + 100] ^ 1]) + content[start + 101 :])
    with pytest.raises(CheckpointError, match=r"last\.ckpt: wrong checksum .* restore a copy"):
        read_checkpoint(path)


def test_compressed_zeros_do_not_fill_the_memory(path):
    """As of a small file that unpacks to gigabytes, which the sizes alone tell."""
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("last/data/0x", bytes(1_000_000))
    assert path.stat().st_size < 100_000
    with pytest.raises(CheckpointError, match=r"last\.ckpt: unpacks to 1,\d+,\d+ bytes, more than the .* of the file"):
        read_checkpoint(path)


@pytest.mark.parametrize("part", [0.0, 0.001, 0.5, 0.999])
def test_truncated(path, part):
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(CheckpointError, match=r"last\.ckpt: not readable .* restore a copy"):
        read_checkpoint(path)


@pytest.mark.parametrize("forced", [False, True])
def test_pickles_never_run(tmp_path, monkeypatch, forced):
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    trace = tmp_path / "code_ran"
    torch.save(PROGRESS | {"state_dict": {}, "extra": RunsCode(trace)}, tmp_path / "zip.ckpt")
    (tmp_path / "bare.ckpt").write_bytes(pickle.dumps(RunsCode(trace)))
    torch.save({"state_dict": RunsCode(trace)}, tmp_path / "legacy.ckpt", _use_new_zipfile_serialization=False)
    for name in ("zip.ckpt", "bare.ckpt", "legacy.ckpt"):
        with pytest.raises(CheckpointError, match=name):
            read_checkpoint(tmp_path / name)
        with pytest.raises(CheckpointError, match=name):
            SafeCheckpointIO().load_checkpoint(tmp_path / name, weights_only=False)
    assert not trace.exists()


def test_other_files_are_refused(tmp_path, path):
    with pytest.raises(CheckpointError, match="only local files"):
        read_checkpoint("https://example.org/last.ckpt")
    with pytest.raises(CheckpointError, match=r"none\.ckpt: no such file"):
        read_checkpoint(tmp_path / "none.ckpt")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(CheckpointError, match=r"other\.zip: not readable"):
        read_checkpoint(tmp_path / "other.zip")
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(CheckpointError, match="has no callbacks, epoch, global_step, state_dict; give"):
        read_checkpoint(tmp_path / "list.ckpt")
    torch.save(PROGRESS | {"state_dict": {"weight": torch.ones(1)}}, tmp_path / "bare.ckpt")
    with pytest.raises(CheckpointError, match="no weights under"):
        read_model_weights(tmp_path / "bare.ckpt")


def test_a_checkpoint_of_older_names_is_of_the_same_model():
    """From when the head was called ``decoder``; control: another width is another model."""
    module = torch.nn.ModuleDict({"model": LorentzNet(num_classes=2, embed_dim=8, num_layers=1)})
    state = {name.replace("head.", "decoder."): value for name, value in module.state_dict().items()}
    require_same_model(module, {"state_dict": state}, "last.ckpt")
    module.load_state_dict(state)
    wider = torch.nn.ModuleDict({"model": LorentzNet(num_classes=2, embed_dim=9, num_layers=1)})
    with pytest.raises(CheckpointError, match=r"last\.ckpt: is of another model.* with shape"):
        require_same_model(wider, {"state_dict": state}, "last.ckpt")


def test_an_average_of_older_names_goes_on():
    """A resumed training draws the average of the checkpoint on, under the names of today."""
    module = torch.nn.ModuleDict({"model": LorentzNet(num_classes=2, embed_dim=8, num_layers=1)})
    saved = {name: torch.ones_like(value) for name, value in module.state_dict().items()}
    older = {name.replace("head.", "decoder."): value for name, value in saved.items()}
    average, trainer = WeightAverage(), SimpleNamespace(state=SimpleNamespace(fn="fit"))
    average.on_load_checkpoint(trainer, module, {"state_dict": older, "global_step": 7})
    average.on_train_start(trainer, module)
    average.on_train_end(trainer, module)
    torch.testing.assert_close(module.state_dict(), saved, rtol=0, atol=0)
