"""Folders of simulated jets: shards written one by one, the same bytes after any interruption, and room to grow."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from zoo.data.datamodule import JetDataModule, Split
from zoo.data.manifest import read_manifest
from zoo.data.shards import ShardFolder
from zoo.data.source import open_source
from zoo.simulate import chunks, folder, simulate
from zoo.simulate.chunks import Chunk, make_chunk, plan

pytest.importorskip("pythia8mc")
pytest.importorskip("fastjet")

SEED = 12
#: Small enough for a test: chunks of 4 jets, one of each class in a shard.
SMALL = (
    "from zoo.simulate import chunks, folder; chunks.JETS_PER_CHUNK = folder.JETS_PER_CHUNK = 4; "
    "chunks.EVENTS_PER_BATCH = 10; folder.JETS_PER_SHARD = 8; from zoo.cli import main; main()"
)


@pytest.fixture(autouse=True, scope="module")
def small():
    with pytest.MonkeyPatch.context() as patch:
        for module in (chunks, folder):
            patch.setattr(module, "JETS_PER_CHUNK", 4)
        patch.setattr(chunks, "EVENTS_PER_BATCH", 10)
        patch.setattr(folder, "JETS_PER_SHARD", 8)
        yield


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    return simulate("top_tagging", jets=20, seed=SEED, out=tmp_path_factory.mktemp("simulated") / "whole", processes=1)


def contents(path):
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def test_the_shards_are_whole_mixed_and_those_of_the_plan(whole):
    shards = ShardFolder(whole)
    shards.verify()
    manifest = shards.manifest
    assert [shard.jets for shard in manifest.shards] == [8, 8, 4]
    assert manifest.class_jets == {"qcd": 10, "top": 10}
    assert manifest.metadata["source"] == f"zoo simulate top_tagging --seed {SEED}"
    tables, _ = open_source(whole).tables()
    assert [np.bincount(table.label).tolist() for table in tables] == [[4, 4], [4, 4], [2, 2]]
    made = make_chunk(Chunk(label=1, number=1, jets=4, seed=SEED))  # the top jets of the second shard
    leading = made.four_momenta[np.cumsum(made.counts) - made.counts, 1]
    found = tables[1].particles["part_px"][tables[1].offsets[:-1]]
    assert set(leading) == set(found[tables[1].label == 1])


def test_a_folder_that_grows_is_that_of_one_call(whole, tmp_path):
    for jets in (6, 20):  # the only shard of 6 jets is not full
        simulate("top_tagging", jets=jets, seed=SEED, out=tmp_path / "grown", processes=1)
        assert read_manifest(tmp_path / "grown").jets == jets
    assert contents(tmp_path / "grown") == contents(whole)


@pytest.mark.parametrize("jets", [6, 12])  # the first shard has to grow, and the second
def test_a_kill_while_the_last_shard_grows_spoils_nothing(jets, whole, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    out = simulate("top_tagging", jets=jets, seed=SEED, out=tmp_path / "grown", processes=1)
    with monkeypatch.context() as patch:
        patch.setattr(folder, "describe_shard", killed)  # the shard is replaced, the manifest not yet
        with pytest.raises(KeyboardInterrupt):
            simulate("top_tagging", jets=20, seed=SEED, out=out, processes=1)
    simulate("top_tagging", jets=20, seed=SEED, out=out, processes=1)
    assert contents(out) == contents(whole)


@pytest.mark.slow
def test_after_a_kill_the_same_call_goes_on_with_the_same_bytes(whole, tmp_path):
    killed = tmp_path / "killed"
    command = [sys.executable, "-c", SMALL, "simulate", "top_tagging", "--jets", "20", "--seed", str(SEED)]
    run = subprocess.Popen([*command, "--processes", "1", "--out", str(killed)], stderr=subprocess.DEVNULL)
    for _ in range(6000):
        if (killed / "manifest.json").exists() or run.poll() is not None:
            break
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    assert 8 <= read_manifest(killed).jets < 20
    ShardFolder(killed).verify()  # what is there can be trained on
    simulate("top_tagging", jets=20, seed=SEED, out=killed, processes=1)
    assert contents(killed) == contents(whole)


def test_trainings_read_the_folder(whole):
    split = Split([str(whole)])
    data = JetDataModule(dataset="top_tagging", features="kin", train=split, batch_size=5)
    data.setup("fit")
    assert sum(len(batch.label) for batch in data.train_dataloader()) == 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": SEED + 1}, f"whole holds jets of seed {SEED}, not {SEED + 1}"),
        ({"multiple_interactions": False}, "whole holds jets of source .* not .*--no-multiple-interactions"),
        ({"jets": 16}, "holds 20 jets already"),
    ],
)
def test_other_jets_are_refused(whole, changes, message):
    arguments = {"dataset": "top_tagging", "jets": 20, "seed": SEED, "out": whole, "processes": 1}
    before = contents(whole)
    with pytest.raises(ValueError, match=message):
        simulate(**arguments | changes)
    assert contents(whole) == before


def test_other_files_are_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match=r"holds other files, such as thesis\.tex"):
        simulate("top_tagging", jets=4, out=tmp_path, processes=1)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(NotADirectoryError, match=r"ends with \.arrow"):
        simulate("top_tagging", jets=4, out=tmp_path / "thesis.tex", processes=1)


def test_a_damaged_shard_is_named(whole, tmp_path):
    out = Path(shutil.copytree(whole, tmp_path / "copy"))
    shard = out / "shard-000000.arrow"
    good = shard.read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 3] ^= 16
    for damaged in (good[:-1], bytes(flipped)):
        shard.write_bytes(damaged)
        with pytest.raises(ValueError, match="shard-000000"):
            simulate("top_tagging", jets=40, seed=SEED, out=out, processes=1)


def test_plans_of_shards_share_no_chunk():
    first, second = plan(16, 1, first=0), plan(16, 1, first=2)
    assert not set(first) & set(second)
