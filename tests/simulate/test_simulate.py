"""The whole chain with the real Pythia 8 and FastJet."""

import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from zoo.data.datasets import resolve_file
from zoo.data.store import open_store
from zoo.simulate import simulate
from zoo.simulate.chunks import JETS_PER_CHUNK, Chunk, make_chunk, plan
from zoo.simulate.generator import Generator

pytest.importorskip("pythia8mc")
pytest.importorskip("fastjet")

JETS, SEED = 40, 11


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return simulate("top_tagging", jets=JETS, seed=SEED, out=tmp_path_factory.mktemp("jets") / "one.arrow", processes=1)


def jet_sums(table):
    columns = [table.particles[name].astype(np.float64) for name in ("part_energy", "part_px", "part_py", "part_pz")]
    return [np.add.reduceat(column, table.offsets[:-1]) for column in columns]


def test_jets_pass_the_selection(sample):
    table = open_store(sample)
    energy, px, py, pz = jet_sums(table)
    pt = np.hypot(px, py)
    assert ((pt > 549.99) & (pt < 650.01)).all()
    assert (np.abs(np.arcsinh(pz / pt)) < 2.0).all()
    assert (np.diff(table.offsets) <= 200).all()
    mass = np.sqrt(energy**2 - px**2 - py**2 - pz**2)
    assert 150 < np.median(mass[table.label == 1]) < 200
    assert np.median(mass[table.label == 0]) < 130


def test_half_of_the_jets_are_tops_and_classes_are_mixed(sample):
    table = open_store(sample)
    assert np.bincount(table.label).tolist() == [JETS // 2, JETS // 2]
    assert np.abs(np.diff(table.label)).sum() > 5
    assert (table.weight == 1).all()
    assert table.metadata["dataset"] == "top_tagging"
    assert table.metadata["classes"] == ["qcd", "top"]
    assert table.metadata["units"] == "GeV"


def test_constituents_are_massless_and_sorted(sample):
    table = open_store(sample)
    energy, px, py, pz = (table.particles[f"part_{name}"].astype(np.float64) for name in ("energy", "px", "py", "pz"))
    np.testing.assert_allclose(np.sqrt(px**2 + py**2 + pz**2), energy, rtol=1e-7)
    pt = np.hypot(px, py)
    steps = np.diff(pt)
    steps[table.offsets[1:-1] - 1] = 0.0
    assert (steps <= 0).all()


def test_the_number_of_processes_changes_no_byte(sample, tmp_path):
    two = simulate("top_tagging", jets=JETS, seed=SEED, out=tmp_path / "two.arrow", processes=2)
    assert two.read_bytes() == Path(sample).read_bytes()


def test_without_multiple_interactions_there_are_fewer_constituents(sample, tmp_path):
    """The underlying event adds soft constituents to every jet."""
    out = tmp_path / "none.arrow"
    simulate("top_tagging", jets=JETS, seed=SEED, out=out, processes=1, multiple_interactions=False)
    without, usual = open_store(out), open_store(sample)
    assert without.metadata["source"].endswith("--no-multiple-interactions")
    assert "multiple" not in usual.metadata["source"]
    assert without.counts.mean() < usual.counts.mean()


def test_another_seed_gives_other_jets(sample, tmp_path):
    other = open_store(simulate("top_tagging", jets=4, seed=SEED + 1, out=tmp_path / "other.arrow", processes=1))
    known = set(open_store(sample).particles["part_px"].tolist())
    assert not known & set(other.particles["part_px"].tolist())


def test_an_odd_number_of_jets_and_full_chunks():
    chunks = plan(2 * JETS_PER_CHUNK + 3, seed=1)
    assert sum(chunk.jets for chunk in chunks if chunk.label == 0) == JETS_PER_CHUNK + 2
    assert sum(chunk.jets for chunk in chunks if chunk.label == 1) == JETS_PER_CHUNK + 1
    assert max(chunk.jets for chunk in chunks) == JETS_PER_CHUNK
    assert len(set(chunks)) == len(chunks) == 4


def test_the_shipped_sample_is_what_the_command_makes():
    # The first jets of a chunk do not depend on how many follow; 3 is the seed of the test sample.
    shipped = open_store(resolve_file("sample:top_tagging/test"))
    installed = {name: version(name) for name in shipped.metadata["software"]}
    if installed != shipped.metadata["software"]:
        pytest.skip(f"the sample was made with {shipped.metadata['software']}, here is {installed}")
    made = make_chunk(Chunk(label=1, number=0, jets=5, seed=3))
    leading = shipped.particles["part_px"][shipped.offsets[:-1]]
    first = np.cumsum(made.counts) - made.counts
    for start, count in zip(first, made.counts, strict=True):
        jet = np.flatnonzero(np.isclose(leading, made.four_momenta[start, 1], rtol=1e-5))
        assert len(jet) >= 1
        rows = slice(shipped.offsets[jet[0]], shipped.offsets[jet[0] + 1])
        assert shipped.label[jet[0]] == 1
        expected = made.four_momenta[start : start + count, 3]
        np.testing.assert_allclose(shipped.particles["part_pz"][rows], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "jetclass"}, "top_tagging"),
        ({"jets": 0}, "jets = 0"),
        ({"jets": -5}, "jets = -5"),
        ({"seed": -1}, "seed = -1"),
        ({"processes": 0}, "processes = 0"),
    ],
)
def test_bad_arguments_are_named(changes, message, tmp_path):
    arguments = {"dataset": "top_tagging", "jets": 4, "seed": 1, "processes": 1} | changes
    with pytest.raises(ValueError, match=message):
        simulate(arguments.pop("dataset"), out=tmp_path / "x.arrow", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_bad_places_are_refused_before_the_work(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        simulate("top_tagging", jets=4, out=tmp_path / "nowhere" / "x.arrow")
    (tmp_path / "x.arrow").mkdir()
    with pytest.raises(IsADirectoryError, match="folder"):
        simulate("top_tagging", jets=4, out=tmp_path / "x.arrow")


def test_a_refused_setting_is_named():
    with pytest.raises(ValueError, match="No:such = setting"):
        Generator(0, 1, (500.0, 2000.0), ("No:such = setting",))


def start_long_run(folder: Path) -> tuple[subprocess.Popen, list[int]]:
    """A run of minutes in the terminal's way; returns once its workers are alive."""
    command = [sys.executable, "-m", "zoo.cli", "simulate", "top_tagging", "--jets", "2000", "--processes", "2"]
    run = subprocess.Popen(
        [*command, "--out", str(folder / "x.arrow")],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        # tests that a shell started in the background ignore interrupts, and so would all that they start
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    for _ in range(600):
        workers = [int(pid) for pid in children.read_text().split()]
        workers = [pid for pid in workers if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        if len(workers) == 2:
            return run, workers
        time.sleep(0.1)
    run.kill()
    raise AssertionError("no workers after a minute")


def is_running(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_an_interrupt_leaves_no_file_and_no_process(tmp_path):
    run, workers = start_long_run(tmp_path)
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=300)
    assert run.returncode != 0
    assert list(tmp_path.iterdir()) == []
    for _ in range(100):  # one that has just ended stays in /proc until its parent has taken note of it
        running = [pid for pid in workers if is_running(pid)]
        if not running:
            return
        time.sleep(0.1)
    raise AssertionError(f"ten seconds after the interrupt {running} still run")


@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_a_dead_worker_is_an_error(tmp_path):
    run, workers = start_long_run(tmp_path)
    os.kill(workers[0], signal.SIGKILL)
    _, errors = run.communicate(timeout=300)
    assert run.returncode == 2
    assert b"a simulation process died" in errors
    assert list(tmp_path.iterdir()) == []


def test_the_missing_extra_is_named(tmp_path):
    # A Python without the extra: both packages are hidden from the import system before zoo is asked.
    script = (
        "import sys; sys.modules['pythia8mc'] = None\n"
        "from zoo.cli import main\n"
        f"main(['simulate', 'top_tagging', '--jets', '4', '--out', {str(tmp_path / 'x.arrow')!r}])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "pip install 'hepzoo[sim]'" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_pythia_without_its_data_files_is_told(monkeypatch):
    monkeypatch.setenv("PYTHIA8DATA", "/nowhere")
    with pytest.raises(FileNotFoundError, match="PYTHIA8DATA=/nowhere names no such folder"):
        Generator(0, 1, (500.0, 2000.0))
