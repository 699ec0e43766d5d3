"""Folders of simulated jets: shards written one by one, the same bytes after any interruption, and room to grow."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from zoo.data.datamodule import JetDataModule, Split
from zoo.data.manifest import read_manifest
from zoo.data.shards import open_shards, verify_shards
from zoo.simulate import chunks, folder, simulate
from zoo.simulate.chunks import Chunk, make_chunk, plan

pytest.importorskip("pythia8mc")
pytest.importorskip("fastjet")

SEED = 12
#: Small enough for a test: chunks of 4 jets, two of each class in a shard.
SMALL = (
    "from zoo.simulate import chunks, folder; chunks.JETS_PER_CHUNK = folder.JETS_PER_CHUNK = 4; "
    "chunks.EVENTS_PER_BATCH = 10; folder.JETS_PER_SHARD = 16; from zoo.cli import main; main()"
)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for module in (chunks, folder):
        monkeypatch.setattr(module, "JETS_PER_CHUNK", 4)
    monkeypatch.setattr(chunks, "EVENTS_PER_BATCH", 10)
    monkeypatch.setattr(folder, "JETS_PER_SHARD", 16)


def contents(path):
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def test_the_shards_are_whole_mixed_and_those_of_the_plan(tmp_path):
    out = simulate("top_tagging", jets=40, seed=SEED, out=tmp_path / "jets", processes=1)
    manifest = verify_shards(out)
    assert [shard.jets for shard in manifest.shards] == [16, 16, 8]
    assert manifest.class_jets == {"qcd": 20, "top": 20}
    assert manifest.metadata["source"] == f"zoo simulate top_tagging --seed {SEED}"
    tables = open_shards(out)
    assert [np.bincount(table.label).tolist() for table in tables] == [[8, 8], [8, 8], [4, 4]]
    made = make_chunk(Chunk(label=1, number=2, jets=4, seed=SEED))  # the first top jets of the second shard
    leading = made.four_momenta[np.cumsum(made.counts) - made.counts, 1]
    found = tables[1].particles["part_px"][tables[1].offsets[:-1]]
    assert np.isin(leading, found[tables[1].label == 1]).all()


def test_a_folder_that_grows_is_that_of_one_call(tmp_path):
    whole = simulate("top_tagging", jets=40, seed=SEED, out=tmp_path / "whole", processes=1)
    grown = tmp_path / "grown"
    for jets in (10, 24, 40):  # the last shard of 10 and of 24 jets is not full
        simulate("top_tagging", jets=jets, seed=SEED, out=grown, processes=1)
        assert read_manifest(grown).jets == jets
    assert contents(grown) == contents(whole)


def test_after_a_kill_the_same_call_goes_on_with_the_same_bytes(tmp_path):
    whole = simulate("top_tagging", jets=48, seed=SEED, out=tmp_path / "whole", processes=1)
    killed = tmp_path / "killed"
    command = [sys.executable, "-c", SMALL, "simulate", "top_tagging", "--jets", "48", "--seed", str(SEED)]
    run = subprocess.Popen([*command, "--processes", "1", "--out", str(killed)], stderr=subprocess.DEVNULL)
    for _ in range(6000):
        if (killed / "manifest.json").exists() or run.poll() is not None:
            break
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    assert 16 <= read_manifest(killed).jets < 48
    verify_shards(killed)  # what is there can be trained on
    simulate("top_tagging", jets=48, seed=SEED, out=killed, processes=1)
    assert contents(killed) == contents(whole)


def test_trainings_read_the_folder(tmp_path):
    out = simulate("top_tagging", jets=20, seed=SEED, out=tmp_path / "jets", processes=1)
    split = Split([str(out)])
    data = JetDataModule(dataset="top_tagging", features="kin", train=split, batch_size=5)
    data.setup("fit")
    assert sum(len(batch.label) for batch in data.train_dataloader()) == 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": SEED + 1}, f"jets holds jets of seed {SEED}, not {SEED + 1}"),
        ({"multiple_interactions": False}, "jets holds jets of source .* not .*--no-multiple-interactions"),
        ({"jets": 4}, "holds 8 jets already"),
    ],
)
def test_other_jets_are_refused(tmp_path, changes, message):
    arguments = {"dataset": "top_tagging", "jets": 8, "seed": SEED, "out": tmp_path / "jets", "processes": 1}
    simulate(**arguments)
    before = contents(tmp_path / "jets")
    with pytest.raises(ValueError, match=message):
        simulate(**arguments | changes)
    assert contents(tmp_path / "jets") == before


def test_other_files_are_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match=r"holds other files, such as thesis\.tex"):
        simulate("top_tagging", jets=4, out=tmp_path, processes=1)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(NotADirectoryError, match=r"ends with \.arrow"):
        simulate("top_tagging", jets=4, out=tmp_path / "thesis.tex", processes=1)


def test_a_damaged_shard_is_named(tmp_path):
    out = simulate("top_tagging", jets=8, seed=SEED, out=tmp_path / "jets", processes=1)
    shard = out / "shard-000000.arrow"
    whole = shard.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 16
    for damaged in (whole[:-1], bytes(flipped)):
        shard.write_bytes(damaged)
        with pytest.raises(ValueError, match="shard-000000"):
            simulate("top_tagging", jets=40, seed=SEED, out=out, processes=1)


def test_plans_of_shards_share_no_chunk():
    first, second = plan(16, 1, first=0), plan(16, 1, first=2)
    assert not set(first) & set(second)
