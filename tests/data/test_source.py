"""A source is opened once, whatever is at the path, and answers again after it was closed."""

import ctypes
import os
import struct
import sys
import warnings

import awkward as ak
import numpy as np
import pytest

from tests.data.test_split_tables import LAYOUT
from tests.data.writers import top_tagging_rows, write_parquet, write_root
from zoo.data import JetDataModule, source
from zoo.data.convert import convert
from zoo.data.datamodule import Split
from zoo.data.formats.layout_yaml import read_layout
from zoo.data.source import Sources, open_source
from zoo.data.store import write_store

JETS = 60


class Opens:
    """How often the system opens some files, as its kernel counts."""

    def __init__(self, paths):
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.watch = self.libc.inotify_init1(os.O_NONBLOCK)
        self.path_of = {self.libc.inotify_add_watch(self.watch, os.fsencode(path), 0x20): path for path in paths}

    def count(self):
        counts = dict.fromkeys(self.path_of.values(), 0)
        while True:
            try:
                events = os.read(self.watch, 65536)
            except BlockingIOError:
                return counts
            while events:
                number, mask, _, length = struct.unpack("iIII", events[:16])
                counts[self.path_of[number]] += bool(mask & 0x20)
                events = events[16 + length :]


@pytest.fixture
def layout(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(LAYOUT)
    return str(path)


@pytest.fixture
def columns(make_table):
    table = make_table(JETS)
    lists = {name.removeprefix("part_"): ak.unflatten(values, table.counts) for name, values in table.particles.items()}
    return {name: lists[name] for name in ("px", "py", "pz", "energy")} | {"label": table.label}


@pytest.fixture
def opens():
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux tells when a file is opened")
    return Opens


def fit(files, **options):
    """A fit as the trainer sets it up: training, validation and a test that must not overlap."""
    parts = {"train": (0.0, 0.5), "val": (0.5, 0.75), "test": (0.75, 1.0)}
    splits = {name: Split([str(file) for file in files], fraction=part) for name, part in parts.items()}
    datamodule = JetDataModule(**splits, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        datamodule.setup("fit")
    return datamodule


#: Once to see what it is and once to read it, which uproot does twice; a manifest says what its shards are.
OPENED = {"arrow": 2, "parquet": 2, "root": 3, "h5": 2, "folder": 1}


@pytest.mark.parametrize("kind", OPENED)
def test_a_fit_opens_each_file_once(kind, opens, tmp_path, make_table, columns, layout, write_hdf5):
    options = {"layout": layout} if kind in ("parquet", "root") else {}
    if kind == "h5":
        paths = files = [write_hdf5(top_tagging_rows(JETS))]
    elif kind in ("parquet", "root"):
        write = {"parquet": write_parquet, "root": write_root}[kind]
        paths = files = [write(tmp_path / f"{name}.{kind}", columns) for name in "ab"]
    else:
        paths = files = [tmp_path / "a.arrow", tmp_path / "b.arrow"]
        for path in paths:
            write_store(path, make_table(JETS))
    if kind == "folder":
        convert(paths, tmp_path / "out", jets_per_shard=10, processes=1)
        files, paths = [tmp_path / "out"], list((tmp_path / "out").glob("*.arrow"))
    counted = opens(paths)
    datamodule = fit(files, **options)
    assert len(datamodule._datasets["train"]) + len(datamodule._datasets["val"]) > JETS / 2
    assert 1 <= max(counted.count().values()) <= OPENED[kind]


def test_a_file_that_was_closed_is_opened_again(tmp_path, columns, layout, monkeypatch):
    """A process may hold few files; those that were used longest ago are closed."""
    monkeypatch.setattr(source, "OPEN_FILES", 2)
    paths = [write_parquet(tmp_path / f"{number}.parquet", columns) for number in range(4)]
    described = read_layout(layout)
    with Sources() as sources:
        assert [len(sources.get(path, described)) for path in paths] == [JETS] * 4
        first, last = sources.get(paths[0], described), sources.get(paths[3], described)
        assert (first._file is None, last._file is None) == (True, False)
        table, _ = first.read((3, 9))
    expected, _ = last.read((3, 9))
    np.testing.assert_array_equal(table.particles["part_px"], expected.particles["part_px"])


def test_rows_that_are_not_there_leave_a_source_as_it_is(tmp_path, columns, layout):
    with open_source(write_parquet(tmp_path / "jets.parquet", columns), read_layout(layout)) as opened:
        with pytest.raises(ValueError, match=f"rows 3 to 99 are not within its {JETS} rows"):
            opened.read((3, 99))
        assert len(opened.read((3, JETS))[0]) == JETS - 3


def test_what_is_mended_is_counted_for_the_rows_that_were_asked_for(tmp_path, columns, layout):
    """The file stays open between the two readings, and its notes go on."""
    zero = ak.values_astype(ak.Array([[0.0]] + [[]] * (JETS - 1)), np.float32)
    padded = {name: ak.concatenate([values, zero], axis=1) for name, values in columns.items() if name != "label"}
    padded["label"] = columns["label"]
    with open_source(write_parquet(tmp_path / "jets.parquet", padded), read_layout(layout)) as opened:
        (_, first), (_, second) = opened.read((0, 5)), opened.read((5, 10))
        _, again = opened.read((0, 5))
    assert sum(first.mended.values()) == sum(again.mended.values()) == 1
    assert not any(second.mended.values())
