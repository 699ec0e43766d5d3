import dataclasses
import json
import multiprocessing
import os
import pickle
import signal
import warnings
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

from zoo.cli import main
from zoo.data import JetDataModule
from zoo.data.convert import convert
from zoo.data.datamodule import Split
from zoo.data.datasets import resolve_file
from zoo.data.features import feature_table
from zoo.data.loader import JetDataset
from zoo.data.manifest import read_manifest, write_manifest
from zoo.data.readers import read_jets
from zoo.data.source import open_source
from zoo.data.store import JetTable, write_store

JETS = 500


@pytest.fixture
def folder(make_table, tmp_path) -> Path:
    """Five hundred jets in about five shards."""
    write_store(tmp_path / "jets.arrow", make_table(JETS))
    convert([tmp_path / "jets.arrow"], tmp_path / "out", jets_per_shard=100, processes=1)
    return tmp_path / "out"


def shard_path(folder: Path, number: int = 1) -> Path:
    return folder / read_manifest(folder).shards[number].file


def change_manifest(folder: Path, **changes: object) -> None:
    write_manifest(folder, dataclasses.replace(read_manifest(folder), **changes))


def damage(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def assert_same_jets(one: JetTable, two: JetTable) -> None:
    np.testing.assert_array_equal(one.offsets, two.offsets)
    np.testing.assert_array_equal(one.label, two.label)
    np.testing.assert_array_equal(one.rows_in_source(np.arange(len(one))), two.rows_in_source(np.arange(len(two))))
    for name in one.particles:
        np.testing.assert_array_equal(one.particles[name], two.particles[name])


def open_tables(folder, rows=None, verify=None):
    with open_source(folder, verify=verify) as source:
        return source.tables(rows)[0]


@pytest.mark.parametrize("name", ["", "manifest.json"])
def test_a_folder_is_read_like_a_file(folder, make_table, name):
    table = read_jets(folder / name)
    assert len(open_source(folder / name)) == len(table) == JETS
    original = make_table(JETS).take(table.fields["source_row"])
    np.testing.assert_array_equal(table.particles["part_py"], original.particles["part_py"])
    np.testing.assert_array_equal(table.weight, original.weight)
    np.testing.assert_array_equal(table.source_rows, np.arange(JETS))


@pytest.mark.parametrize("rows", [(0, 1), (37, 205), (120, 130), (499, 500)])
def test_rows_of_a_folder(folder, rows):
    assert_same_jets(read_jets(folder, rows), read_jets(folder).slice(*rows))


@pytest.mark.parametrize("rows", [(0, 501), (3, 3), (-1, 2)])
def test_rows_outside_the_folder(folder, rows):
    with pytest.raises(ValueError, match=rf"out: rows .* are not within its {JETS} rows"):
        read_jets(folder, rows)


def test_shards_stay_on_the_disk_and_hold_no_open_file(folder):
    before = len(os.listdir("/proc/self/fd"))
    tables = open_tables(folder)
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(tables) == len(read_manifest(folder).shards)
    maps = Path("/proc/self/maps").read_text().splitlines()
    for number, table in enumerate(tables):
        mine = [line.split()[0].split("-") for line in maps if line.endswith(str(shard_path(folder, number)))]
        address = table.particles["part_px"].ctypes.data
        assert any(int(first, 16) <= address < int(last, 16) for first, last in mine)


def test_other_processes_are_told_where_the_jets_lie(folder):
    for table in open_tables(folder, rows=(50, 300)):
        sent = pickle.dumps(table)
        assert len(sent) < 1000
        assert_same_jets(pickle.loads(sent), table)


@pytest.mark.slow
def test_spawned_loader_processes_open_the_shards_themselves(folder):
    dataset = JetDataset(open_tables(folder), [0] * len(read_manifest(folder).shards), feature_table("kin"))
    options = {"batch_size": None, "num_workers": 1, "multiprocessing_context": "spawn"}
    (batch,) = DataLoader(dataset, sampler=[np.arange(JETS)], **options)
    assert sorted(batch.index.tolist()) == list(range(JETS))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
def test_a_loader_process_that_dies_is_an_error(folder):
    datamodule = JetDataModule(train=Split([str(folder)]), num_workers=2, batch_size=1)
    datamodule.setup("fit")
    batches = iter(datamodule.train_dataloader())
    next(batches)
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    with pytest.raises(ChildProcessError, match=r"a loader process died with status -9"):
        list(batches)


def test_a_missing_shard(folder):
    shard_path(folder).unlink()
    with pytest.raises(FileNotFoundError, match=r"shard-000001.arrow is missing, which the manifest names"):
        open_tables(folder)
    assert len(open_tables(folder, rows=(0, 10))[0]) == 10


def test_a_truncated_shard(folder):
    path = shard_path(folder)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"shard-000001.arrow has \d+ bytes instead of \d+; copy it again"):
        open_tables(folder, verify=False)


def test_a_shard_of_another_conversion(folder, tmp_path):
    """As long as the right one, and a file of the zoo, but with other jets."""
    path = shard_path(folder)
    table = dataclasses.replace(read_jets(path), weight=read_jets(path).weight + 1)
    write_store(path, table)
    first, second, *others = read_manifest(folder).shards
    change_manifest(folder, shards=(first, dataclasses.replace(second, bytes=path.stat().st_size), *others))
    with pytest.raises(ValueError, match=r"shard-000001.arrow is not the shard that the manifest names"):
        open_tables(folder, verify=False)


def test_a_flipped_bit_is_found_by_verification(folder, capsys):
    main(["data", "verify", str(folder)])
    assert f"with {JETS} jets match their checksums" in capsys.readouterr().out
    path = shard_path(folder)
    values = read_jets(path).particles["part_px"].tobytes()
    damage(path, path.read_bytes().find(values) + 100)
    with pytest.raises(SystemExit, match="2"):
        main(["data", "verify", str(folder)])
    assert "shard-000001.arrow" in (shown := capsys.readouterr().err)
    assert "column 'particles.part_px' does not match its checksum" in shown
    for read in (open_tables, read_jets):
        with pytest.raises(ValueError, match="does not match its checksum"):
            read(folder)
    open_tables(folder, verify=False)


def test_large_folders_are_verified_when_asked_to(folder, monkeypatch):
    path = shard_path(folder)
    damage(path, path.read_bytes().find(read_jets(path).particles["part_px"].tobytes()))
    monkeypatch.setattr("zoo.data.shards.VERIFIED_BYTES", 1000)
    splits = {"test": Split([str(folder)])}
    JetDataModule(**splits).setup("test")
    with pytest.raises(ValueError, match="does not match its checksum"):
        JetDataModule(**splits, verify=True).setup("test")


def test_an_unfinished_folder(folder):
    (folder / "manifest.json").unlink()
    for read in (read_jets, open_source, resolve_file):
        with pytest.raises(FileNotFoundError, match=r"out has no manifest.json: its conversion is unfinished"):
            read(folder)


def test_a_manifest_of_another_version(folder):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 1}))
    with pytest.raises(ValueError, match="zoo-jet-folder version 1, this zoo reads zoo-jet-folder version 2"):
        read_jets(folder)


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"format": "zoo-jet-folder", "version": 2, "jets": 3}'])
def test_a_damaged_manifest(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest.json cannot be read: .* convert the files again"):
        read_jets(folder)


def test_a_changed_number_in_a_manifest(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"seed": 1', '"seed": 3'))
    with pytest.raises(ValueError, match=r"manifest.json cannot be read: it does not match its checksum; .* again"):
        read_manifest(folder)


def test_a_manifest_whose_numbers_do_not_agree(folder):
    change_manifest(folder, jets=JETS + 1)
    with pytest.raises(ValueError, match="its shards do not have 501 jets"):
        read_manifest(folder)


def test_splits_of_a_folder(folder):
    def index(split: Split) -> list[int]:
        datamodule = JetDataModule(test=split)
        datamodule.setup("test")
        return sorted(i for batch in datamodule.test_dataloader() for i in batch.index.tolist())

    assert index(Split([str(folder)])) == list(range(JETS))
    assert index(Split([str(folder / "manifest.json")], rows=(90, 210))) == list(range(90, 210))
    parts = [index(Split([str(folder)], fraction=part)) for part in ((0.0, 0.35), (0.35, 1.0))]
    assert [*parts[0], *parts[1]] == list(range(JETS))
    files = [str(folder), str(folder.parent / "jets.arrow")]
    assert index(Split(files, rows=(10, 12))) == [10, 11, JETS + 10, JETS + 11]


def test_a_folder_and_its_manifest_are_the_same_jets(folder):
    splits = {"train": Split([str(folder)]), "test": Split([str(folder / "manifest.json")])}
    with pytest.raises(ValueError, match=rf"train and test share rows 0 to {JETS} of .*out"):
        JetDataModule(**splits).setup("fit")


@pytest.mark.parametrize("workers", [0, 2])
def test_training_batches_are_the_jets_of_the_folder(folder, make_table, workers):
    datamodule = JetDataModule(train=Split([str(folder)]), batch_size=64, num_workers=workers)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork")
        datamodule.setup("fit")
        batches = list(datamodule.train_dataloader())
    table, original = read_jets(folder), make_table(JETS)
    assert sorted(i for batch in batches for i in batch.index.tolist()) == list(range(JETS))
    for batch in batches:
        rows = table.fields["source_row"][batch.index]
        for jet, row in enumerate(rows):
            particles = slice(original.offsets[row], original.offsets[row + 1])
            np.testing.assert_array_equal(
                batch.four_momenta[jet, batch.mask[jet], 0], original.particles["part_energy"][particles]
            )
        assert batch.label.tolist() == original.label[rows].tolist()
