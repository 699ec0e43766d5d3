import collections
import contextlib
import dataclasses
import itertools
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from zoo.cli import main
from zoo.data import JetDataModule
from zoo.data import convert as room
from zoo.data.convert import convert
from zoo.data.datamodule import Split
from zoo.data.datasets import DATASETS
from zoo.data.formats.layout_yaml import read_layout
from zoo.data.manifest import read_manifest, write_manifest
from zoo.data.readers import read_jets
from zoo.data.store import MOMENTUM_COLUMNS, JetTable, bad_jets, write_store
from zoo.files import only_one

JETS = (300, 500, 200)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Several parts a file and groups of shards, as of a large data set."""
    monkeypatch.setattr(room, "PART_ROWS", 128)
    monkeypatch.setattr(room, "SHARDS_AT_ONCE", 3)


def write_jetclass(path: Path, table: JetTable, label: int | None = None) -> None:
    """Write a table as a JetClass parquet file, all jets of one class if ``label`` is given."""
    offsets = pa.array(table.offsets.astype(np.int32))
    columns = {name: pa.ListArray.from_arrays(offsets, pa.array(table.particles[name])) for name in MOMENTUM_COLUMNS}
    labels = table.label if label is None else np.full(len(table), label)
    for i, name in enumerate(DATASETS["jetclass"].label_columns):
        columns[name] = pa.array(labels == i)
    parquet.write_table(pa.table(columns), path, write_page_checksum=True)


@pytest.fixture
def files(make_table, tmp_path) -> list[Path]:
    """Three files, each of one class."""
    paths = [tmp_path / f"{name}.parquet" for name in ("one", "two", "three")]
    for label, (path, jets) in enumerate(zip(paths, JETS, strict=True)):
        write_jetclass(path, make_table(jets, seed=label), label)
    return paths


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_jet_arrives_once_and_unchanged(files, make_table, tmp_path):
    manifest = convert(files, tmp_path / "out", jets_per_shard=150, processes=1)
    table = read_jets(tmp_path / "out")
    assert manifest.jets == len(table) == sum(JETS)
    assert manifest.class_jets == dict.fromkeys(DATASETS["jetclass"].classes, 0) | {
        "QCD": 300,
        "Hbb": 500,
        "Hcc": 200,
    }
    for number, jets in enumerate(JETS):
        mine = np.flatnonzero(table.fields["source_file"] == number)
        order = mine[np.argsort(table.fields["source_row"][mine])]
        assert table.fields["source_row"][order].tolist() == list(range(jets))
        assert set(table.label[order].tolist()) == {number}
        original = make_table(jets, seed=number)
        found = table.take(order)
        np.testing.assert_array_equal(found.offsets, original.offsets)
        for name in MOMENTUM_COLUMNS:
            np.testing.assert_array_equal(found.particles[name], original.particles[name])


def test_the_manifest_tells_what_was_made_of_what(files, tmp_path):
    convert(files, tmp_path / "out", jets_per_shard=150, processes=1, seed=5)
    manifest = read_manifest(tmp_path / "out")
    assert (manifest.seed, manifest.jets_per_shard, manifest.compression) == (5, 150, None)
    assert manifest.metadata == DATASETS["jetclass"].metadata
    assert manifest.particles == dict.fromkeys(MOMENTUM_COLUMNS, "<f4")
    assert manifest.fields == {"source_file": "<i4", "source_row": "<i8"}
    assert [(source.path, source.rows) for source in manifest.sources] == [
        (str(path), jets) for path, jets in zip(files, JETS, strict=True)
    ]
    assert [source.bytes for source in manifest.sources] == [path.stat().st_size for path in files]
    assert len(manifest.shards) == 7
    assert contents(tmp_path / "out").keys() == {"manifest.json", *(shard.file for shard in manifest.shards)}


def test_classes_and_files_are_mixed(make_table, tmp_path):
    files = [tmp_path / "one.parquet", tmp_path / "two.parquet"]
    for label, path in enumerate(files):
        write_jetclass(path, make_table(3000, seed=label), label)
    convert(files, tmp_path / "out", jets_per_shard=1000, processes=1)
    table = read_jets(tmp_path / "out")
    rank = table.fields["source_file"] * 3000 + table.fields["source_row"]
    assert abs(np.corrcoef(rank, np.arange(6000))[0, 1]) < 0.05
    # the class of neighbours is independent: as many changes as coin tosses have, within four standard deviations
    assert abs(np.mean(np.diff(table.label) != 0) - 0.5) < 4 * 0.5 / np.sqrt(6000)
    sizes = [shard.jets for shard in read_manifest(tmp_path / "out").shards]
    assert max(sizes) - min(sizes) < 8 * np.sqrt(1000)


def test_two_passes_make_every_order_alike(make_table, tmp_path):
    """All six orders of three jets in two shards, over many seeds."""
    write_store(tmp_path / "jets.arrow", make_table(3))
    seeds = range(60)
    orders = collections.Counter()
    for seed in seeds:
        convert([tmp_path / "jets.arrow"], tmp_path / str(seed), jets_per_shard=2, processes=1, seed=seed)
        orders[tuple(read_jets(tmp_path / str(seed)).fields["source_row"].tolist())] += 1
    assert len(orders) == 6
    expected = len(seeds) / 6
    chi_squared = sum((count - expected) ** 2 / expected for count in orders.values())
    assert chi_squared < 20.5  # exceeded once in a thousand with 5 degrees of freedom


def test_bytes_depend_on_the_seed_and_not_on_the_threads(files, tmp_path, monkeypatch):
    monkeypatch.setattr(room.os, "sched_getaffinity", lambda pid: range(8), raising=False)
    for name, threads, seed in (("one", 1, 1), ("four", 4, 1), ("other", 4, 2)):
        monkeypatch.setattr(room, "THREADS", threads)
        convert(files, tmp_path / name, jets_per_shard=150, processes=1, seed=seed)
    assert contents(tmp_path / "one") == contents(tmp_path / "four")
    assert contents(tmp_path / "one") != contents(tmp_path / "other")


@pytest.mark.slow
def test_dask_gives_the_same_bytes(files, tmp_path, monkeypatch):
    # workers are fresh processes, which know nothing of the small parts
    monkeypatch.undo()
    for processes in (1, 2):
        convert(files, tmp_path / str(processes), jets_per_shard=150, processes=processes)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster:
        convert(files, tmp_path / "cluster", jets_per_shard=150, scheduler=cluster.scheduler_address)
    assert contents(tmp_path / "1") == contents(tmp_path / "cluster")


@pytest.mark.slow
def test_an_error_in_a_worker_process_is_told(files, tmp_path):
    data = files[1].read_bytes()
    files[1].write_bytes(data[: len(data) // 3] + data[len(data) // 3 + 1 :])
    with pytest.raises(ValueError, match=r"two.parquet.* cannot be read"):
        convert(files, tmp_path / "out", processes=2)


@pytest.mark.slow
def test_a_worker_that_dies_is_an_error():
    from dask import config

    with (
        config.set({"distributed.scheduler.allowed-failures": 0}),
        room._workers(2, None) as run,
        pytest.raises(ChildProcessError, match="a conversion process died several times"),
    ):
        list(run(os._exit, [1]))


INTERRUPTED = """
import itertools, os, signal, sys
import zoo.files
from zoo.data import convert as room
room.PART_ROWS, room.SHARDS_AT_ONCE = 128, 3
stop, calls = int(sys.argv[1]), itertools.count(1)
def count(function):
    def counted(*arguments, **options):
        if next(calls) == stop:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return counted
os.replace, zoo.files.sync, os.rmdir = count(os.replace), count(zoo.files.sync), count(os.rmdir)
room.convert(sys.argv[3:], sys.argv[2], jets_per_shard=150, processes=1)
print(next(calls) - 1)
"""


@pytest.mark.slow
def test_killed_at_any_moment_and_run_again_gives_the_same_bytes(files, tmp_path):
    def run(stop: int, out: Path) -> subprocess.CompletedProcess:
        command = [sys.executable, "-c", INTERRUPTED, str(stop), str(out), *map(str, files)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    whole = run(0, tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    moments = int(whole.stdout)
    assert moments > 30
    for stop in [1, 2, 3, 8, 9, moments // 2, moments - 6, *range(moments - 3, moments + 1)]:
        out = tmp_path / str(stop)
        assert run(stop, out).returncode == -signal.SIGKILL
        convert(files, out, jets_per_shard=150, processes=1)
        assert contents(out) == contents(tmp_path / "whole"), stop


@pytest.mark.slow
def test_workers_of_a_killed_conversion_do_not_live_on(files, tmp_path):
    command = [sys.executable, "-m", "zoo.cli", "convert", *map(str, files), "--out", str(tmp_path / "out")]
    process = subprocess.Popen([*command, "--processes", "2"], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "out" / "parts").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    children = {int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()}
    process.kill()
    process.wait()
    while any(Path(f"/proc/{pid}").exists() for pid in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
    convert(files, tmp_path / "out", processes=1)
    assert read_manifest(tmp_path / "out").jets == sum(JETS)


def test_finished_parts_are_not_done_again(files, tmp_path, monkeypatch):
    begun, done = itertools.count(1), []
    deal_part = room.deal_part

    def fail_from_the_fourth_on(part):
        if next(begun) > 3:
            raise OSError(28, "No space left on device")
        deal_part(part)
        done.append(part.path)

    monkeypatch.setattr(room, "deal_part", fail_from_the_fourth_on)
    with pytest.raises(OSError, match="No space left"):
        convert(files, tmp_path / "out", jets_per_shard=150, processes=1)
    times = [path.stat().st_mtime_ns for path in done]
    monkeypatch.setattr(room, "deal_part", lambda part: done.append(part.path) or deal_part(part))
    monkeypatch.setattr(room, "_remove_scaffold", lambda folder: None)
    convert(files, tmp_path / "out", jets_per_shard=150, processes=1)
    assert len(done) == len(set(done)) == 3 + 4 + 2
    assert [path.stat().st_mtime_ns for path in done[:3]] == times


@pytest.fixture
def interrupted(make_table, tmp_path, monkeypatch):
    """A file of the zoo, a conversion of it that stopped after two of four parts, and what it would have made."""
    source, out = tmp_path / "jets.arrow", tmp_path / "out"
    write_store(source, make_table(500))
    expected = convert([source], tmp_path / "whole", jets_per_shard=150, processes=1)
    assert len(expected.shards) > 1
    deal_part, begun = room.deal_part, itertools.count(1)

    def stop(part):
        if next(begun) > 2:
            raise KeyboardInterrupt
        deal_part(part)

    with monkeypatch.context() as patch:
        patch.setattr(room, "deal_part", stop)
        patch.setattr(room, "THREADS", 1)
        with pytest.raises(KeyboardInterrupt):
            convert([source], out, jets_per_shard=150, processes=1)
    return source, out, contents(tmp_path / "whole")


def flip(path: Path, place: float, keep_time: bool = True) -> None:
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 16
    path.write_bytes(content)
    if keep_time:
        os.utime(path, ns=times)


@pytest.mark.parametrize("place", [0.3, 0.5, 0.7, 0.9])
def test_a_part_that_is_damaged_between_kill_and_resume_is_made_again(interrupted, place):
    source, out, expected = interrupted
    flip(sorted((out / "parts").glob("*.arrow"))[0], place)
    convert([source], out, jets_per_shard=150, processes=1)
    assert contents(out) == expected


def test_a_shard_that_is_damaged_between_kill_and_resume_is_made_again(interrupted, monkeypatch):
    source, out, expected = interrupted
    with monkeypatch.context() as patch:
        patch.setattr(room, "write_manifest", lambda *_: pytest.fail("stop here"))
        with pytest.raises(pytest.fail.Exception):
            convert([source], out, jets_per_shard=150, processes=1)
    flip(sorted(out.glob("shard-*.arrow"))[1], 0.6)
    convert([source], out, jets_per_shard=150, processes=1)
    assert contents(out) == expected


def test_a_source_that_is_damaged_between_kill_and_resume_is_told(interrupted):
    """Also though the first row, with which reading began, is done."""
    source, out, _ = interrupted
    assert (out / "parts" / "000000-000000000000.arrow").exists()
    flip(source, 0.6)
    with pytest.raises(ValueError, match=r"jets.arrow cannot be read .* does not match its checksum"):
        convert([source], out, jets_per_shard=150, processes=1)


@pytest.mark.parametrize("while_running", [True, False])
def test_a_source_that_is_written_again_meanwhile_is_told(interrupted, make_table, monkeypatch, while_running):
    """With the same size and time, other jets."""
    source, out, _ = interrupted
    times = source.stat().st_atime_ns, source.stat().st_mtime_ns

    def rewrite():
        table = make_table(500)
        write_store(source, dataclasses.replace(table, weight=table.weight + 1))
        os.utime(source, ns=times)

    if while_running:
        deal_part = room.deal_part
        monkeypatch.setattr(room, "deal_part", lambda part: (deal_part(part), rewrite()))
    else:
        rewrite()
    with pytest.raises(OSError, match=r"jets.arrow: was changed while it was converted; delete .*out"):
        convert([source], out, jets_per_shard=150, processes=1)
    assert not list((out / "parts").glob("*.arrow"))


def test_what_somebody_keeps_in_a_finished_folder_stays(files, tmp_path):
    convert(files, tmp_path / "out", processes=1)
    (tmp_path / "out" / "parts").mkdir()
    (tmp_path / "out" / "parts" / "thesis.tex").write_text("years of work")
    convert(files, tmp_path / "out", processes=1)
    assert (tmp_path / "out" / "parts" / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("name", ["../jets.arrow", "/tmp/jets.arrow", "..", "", "a/b.arrow"])
def test_a_manifest_names_files_of_its_folder_only(make_table, tmp_path, name):
    write_store(tmp_path / "jets.arrow", make_table(20))
    manifest = convert([tmp_path / "jets.arrow"], tmp_path / "out", processes=1)
    shard = dataclasses.replace(manifest.shards[0], file=name)
    write_manifest(tmp_path / "out", dataclasses.replace(manifest, shards=(shard,)))
    with pytest.raises(ValueError, match="is no file of the folder"):
        read_jets(tmp_path / "out")


def test_a_finished_conversion_is_left_alone(files, tmp_path, monkeypatch):
    first = convert(files, tmp_path / "out", processes=1)
    monkeypatch.setattr(room, "deal_part", lambda part: pytest.fail("read again"))
    assert convert(files, tmp_path / "out", processes=1) == first


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 2}, "seed 1, not 2"),
        ({"jets_per_shard": 10}, "jets_per_shard 100000, not 10"),
        ({"compression": "lz4"}, "compression None, not lz4"),
        ({"files": 2}, r"the file .*three.parquet of .*, not no further file"),
        ({"modified": 0}, r"the file .*one.parquet of .* changed at"),
    ],
)
def test_another_conversion_to_the_same_folder_is_refused(files, tmp_path, monkeypatch, finished, change, message):
    with monkeypatch.context() as patch:
        if not finished:
            patch.setattr(room, "deal_part", lambda part: 1 / 0)
        with contextlib.nullcontext() if finished else pytest.raises(ZeroDivisionError):
            convert(files, tmp_path / "out", processes=1)
    before = contents(tmp_path / "out")
    options = {key: value for key, value in change.items() if key not in ("files", "modified")}
    if "modified" in change:
        os.utime(files[0], ns=(0, 0))
    with pytest.raises(ValueError, match=f"out holds another conversion, with {message}.*name another folder"):
        convert(files[: change.get("files")], tmp_path / "out", processes=1, **options)
    assert contents(tmp_path / "out") == before


def test_a_folder_with_other_files_is_refused(files, tmp_path):
    with pytest.raises(ValueError, match="holds other files"):
        convert(files, tmp_path, processes=1)


def test_two_conversions_at_once(files, tmp_path):
    out = tmp_path / "out"
    with (
        only_one(out, "conversion"),
        pytest.raises(BlockingIOError, match=r"out: is in use by another conversion, process .* name another folder"),
    ):
        convert(files, out, processes=1)
    convert(files, out, processes=1)
    assert not (out / ".lock").exists()


def test_a_full_disk_leaves_nothing_half_written(files, tmp_path):
    """A limit on the size of files stands for a disk that fills up while a shard is written."""
    out = tmp_path / "out"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
        with pytest.raises(OSError, match="File too large"):
            convert(files, out, processes=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert contents(out).keys() >= {"conversion.json"}
    assert not [name for name in contents(out) if "shard" in name or "manifest" in name or "draft" in name]
    with pytest.raises(FileNotFoundError, match=r"out has no manifest.json: its conversion is unfinished"):
        read_jets(out)
    convert(files, out, processes=1)
    assert len(read_jets(out)) == sum(JETS)


def test_bad_jets_are_counted_by_file(files, make_table, tmp_path, capsys):
    table = make_table(500, seed=1)
    table.particles["part_px"][table.offsets[[3, 400]]] = np.nan
    table.particles["part_energy"][table.offsets[200]] = -1
    write_jetclass(files[1], table, 1)
    assert sum(mask.sum() for mask in bad_jets(table).values()) == 3
    main(["convert", *map(str, files), "--out", str(tmp_path / "out"), "--processes", "1", "--jets-per-shard", "400"])
    shown = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r".*out: 997 jets in \d shards: 300 QCD, 497 Hbb, 200 Hcc", shown[0])
    assert shown[1:] == [f"{files[1]}: left out 3 of 500 jets: 1 negative energy, 2 not finite"]
    sources = read_manifest(tmp_path / "out").sources
    assert [source.rejected for source in sources] == [{}, {"negative energy": 1, "not finite": 2}, {}]
    rows = read_jets(tmp_path / "out").fields
    assert not {3, 400, 200} & set(rows["source_row"][rows["source_file"] == 1].tolist())


def test_a_bad_jet_moves_no_other_jet_to_another_shard(files, make_table, tmp_path):
    convert(files, tmp_path / "good", jets_per_shard=150, processes=1)
    table = make_table(500, seed=1)
    table.particles["part_px"][table.offsets[3]] = np.nan
    write_jetclass(files[1], table, 1)
    convert(files, tmp_path / "bad", jets_per_shard=150, processes=1)

    def shards(folder: str) -> list[set[tuple[int, int]]]:
        fields = [read_jets(path).fields for path in sorted((tmp_path / folder).glob("shard-*"))]
        return [set(zip(f["source_file"].tolist(), f["source_row"].tolist(), strict=True)) for f in fields]

    assert [shard - {(1, 3)} for shard in shards("good")] == shards("bad")


def test_no_good_jet_at_all(make_table, tmp_path):
    table = make_table(5)
    table.particles["part_px"][:] = np.nan
    write_jetclass(tmp_path / "bad.parquet", table)
    with pytest.raises(ValueError, match="no good jet is left of 5; check the units and the columns; 5 not finite"):
        convert([tmp_path / "bad.parquet"], tmp_path / "out", processes=1)


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_shards(files, tmp_path, compression):
    convert(files, tmp_path / "plain", jets_per_shard=400, processes=1)
    convert(files, tmp_path / "small", jets_per_shard=400, processes=1, compression=compression)
    plain, small = read_jets(tmp_path / "plain"), read_jets(tmp_path / "small")
    for name in MOMENTUM_COLUMNS:
        np.testing.assert_array_equal(plain.particles[name], small.particles[name])
    assert read_manifest(tmp_path / "small").bytes < read_manifest(tmp_path / "plain").bytes


def test_files_that_do_not_fit_together(files, make_table, shared_data, tmp_path):
    write_store(tmp_path / "top.arrow", make_table(5))
    with pytest.raises(ValueError, match=r"top.arrow: dataset top_tagging differ.* from jetclass in .*one.parquet"):
        convert([files[0], tmp_path / "top.arrow"], tmp_path / "out", processes=1)
    extended = dataclasses.replace(make_table(5), fields={"jet_mass": np.ones(5)})
    write_store(tmp_path / "extended.arrow", extended)
    with pytest.raises(ValueError, match=r"extended.arrow: jet columns .*jet_mass.* to different folders"):
        convert([tmp_path / "top.arrow", tmp_path / "extended.arrow"], tmp_path / "out", processes=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metadata": {"classes": ["qcd", "top"]}}, r"jets.arrow does not say its dataset; write it again"),
        ({"label": np.array([0, 1, 2, 0, 1])}, r"jets.arrow: column 'label' must be 0 to 1; correct the labels"),
    ],
)
def test_files_of_the_zoo_that_are_no_data_set(make_table, tmp_path, changes, message):
    write_store(tmp_path / "jets.arrow", dataclasses.replace(make_table(5), **changes))
    with pytest.raises(ValueError, match=message):
        convert([tmp_path / "jets.arrow"], tmp_path / "out", processes=1)


LAYOUT = """
units: MeV
classes: [b, light]
momenta: {px: x, py: y, pz: z, energy: e}
label: flavour
label_values: {5: b, 0: light, 21: light}
"""


@pytest.fixture
def described(make_table, tmp_path) -> tuple[list[Path], Path]:
    """Two files in MeV with columns of other names, and their layout."""
    paths = [tmp_path / "one.parquet", tmp_path / "two.parquet"]
    for seed, path in enumerate(paths):
        table = make_table(100, seed)
        offsets = pa.array(table.offsets.astype(np.int32))
        columns = {
            name: pa.ListArray.from_arrays(offsets, pa.array(1000 * table.particles[column]))
            for name, column in zip("exyz", MOMENTUM_COLUMNS, strict=True)
        }
        parquet.write_table(pa.table(columns | {"flavour": np.array([5, 21])[table.label]}), path)
    (tmp_path / "mine.yaml").write_text(LAYOUT)
    return paths, tmp_path / "mine.yaml"


def test_files_with_a_layout(described, tmp_path, capsys):
    files, path = described
    layout = read_layout(path)
    command = ["convert", *map(str, files), "--out", str(tmp_path / "out"), "--processes", "1", "--layout", str(path)]
    main(command)
    shown = capsys.readouterr().out
    assert "200 jets in 1 shards: 100 b, 100 light" in shown
    manifest, table = read_manifest(tmp_path / "out"), read_jets(tmp_path / "out")
    assert manifest.metadata == layout.metadata == {"dataset": "mine", "classes": ["b", "light"], "units": "GeV"}
    assert manifest.layout["units"] == "MeV"
    assert manifest.layout["label_values"] == [[5, "b"], [0, "light"], [21, "light"]]
    for number, file in enumerate(files):
        mine = table.take(np.flatnonzero(table.fields["source_file"] == number))
        expected = read_jets(file, layout=layout).take(mine.fields["source_row"])
        for name in MOMENTUM_COLUMNS:
            np.testing.assert_array_equal(mine.particles[name], expected.particles[name])
        np.testing.assert_array_equal(mine.label, expected.label)
    before = contents(tmp_path / "out")
    main(command)
    assert contents(tmp_path / "out") == before
    datamodule = JetDataModule(layout=str(path), test=Split([str(tmp_path / "out")]))
    datamodule.setup("test")
    assert sum(len(batch.label) for batch in datamodule.test_dataloader()) == 200


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("units: MeV", "units: GeV", "layout.units MeV, not GeV"),
        ("5: b, 0: light", "5: light, 0: b", r"layout.label_values \[\[5, 'b'\], .*, not \[\[5, 'light'\], "),
        ("classes: [b, light]", "classes: [light, b]", r"layout.classes \['b', 'light'\], not \['light', 'b'\]"),
        (LAYOUT, None, "layout.name mine, not None"),
    ],
)
def test_another_layout_is_refused(described, tmp_path, monkeypatch, finished, old, new, message):
    files, path = described
    with monkeypatch.context() as patch:
        if not finished:
            patch.setattr(room, "deal_part", lambda part: 1 / 0)
        with contextlib.nullcontext() if finished else pytest.raises(ZeroDivisionError):
            convert(files, tmp_path / "out", processes=1, layout=read_layout(path))
    path.write_text(LAYOUT.replace(old, new or ""))
    layout = None if new is None else read_layout(path)
    with pytest.raises(ValueError, match=f"out holds another conversion, with {message}"):
        convert(files, tmp_path / "out", processes=1, layout=layout)


def test_an_interrupted_conversion_with_a_layout_goes_on(described, tmp_path, monkeypatch):
    files, path = described
    layout = read_layout(path)
    convert(files, tmp_path / "whole", processes=1, layout=layout)
    with monkeypatch.context() as patch:
        patch.setattr(room, "gather_shards", lambda work: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            convert(files, tmp_path / "out", processes=1, layout=layout)
    convert(files, tmp_path / "out", processes=1, layout=layout)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_file_of_the_zoo_needs_no_layout(described, make_table, tmp_path):
    write_store(tmp_path / "jets.arrow", make_table(5))
    with pytest.raises(ValueError, match=r"jets.arrow is a file of the zoo, which says itself .* without a layout"):
        convert([tmp_path / "jets.arrow"], tmp_path / "out", processes=1, layout=read_layout(described[1]))


def test_real_files_of_every_format(shared_data, tmp_path):
    folder = shared_data / "jetclass2"
    for suffix in ("root", "parquet"):
        convert([folder / f"JetClassII_example.{suffix}"], tmp_path / suffix, jets_per_shard=30, processes=1)
    one, two = read_jets(tmp_path / "root"), read_jets(tmp_path / "parquet")
    assert len(one) == 100
    for name, values in one.particles.items():
        np.testing.assert_array_equal(values, two.particles[name])
    original = read_jets(folder / "JetClassII_example.root").take(one.fields["source_row"])
    for name, values in one.particles.items():
        np.testing.assert_array_equal(values, original.particles[name])
    for name in original.fields:
        np.testing.assert_array_equal(one.fields[name], original.fields[name])
    np.testing.assert_array_equal(one.label, original.label)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jets_per_shard": 0}, "jets_per_shard: must be at least 1, not 0"),
        ({"seed": -1}, "seed: must be at least 0"),
        ({"processes": 0}, "processes: must be at least 1"),
        ({"compression": "gzip"}, "compression: must be lz4, zstd or none"),
    ],
)
def test_bad_arguments(files, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        convert(files, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_bad_files(files, tmp_path):
    with pytest.raises(ValueError, match="none twice"):
        convert([files[0], files[0]], tmp_path / "out")
    with pytest.raises(FileNotFoundError, match=r"absent.root is not a file"):
        convert([tmp_path / "absent.root"], tmp_path / "out")
    with pytest.raises(NotADirectoryError, match=r"one.parquet is a file"):
        convert(files, files[0])


def test_a_plan_of_another_version(files, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "conversion.json").write_text(json.dumps({"version": 0}))
    with pytest.raises(ValueError, match="begun by another version"):
        convert(files, tmp_path / "out", processes=1)
