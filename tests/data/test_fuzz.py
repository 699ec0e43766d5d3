"""At least 200 damaged files of each format: each is an error that names the file, or read with the damage counted."""

import itertools
import os
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet

from tests.data.damages import FORMATS, ROW, Files, Format, read_files, write_files
from zoo.data.read_report import ReadReport
from zoo.data.readers import read_jets
from zoo.data.store import JetTable

pytestmark = pytest.mark.fuzz

TRUNCATIONS = 60
FLIPS = 150

#: Seconds after which a read hangs; the slowest takes a fraction of one.
PATIENCE = 60

EVERY = bytes(range(256))

REASONS = ("not finite", "negative energy", "no particles", "momentum above energy")


class Reader:
    """A process that reads files, so that one that crashes or hangs is a failed test and not the end of all."""

    def __init__(self) -> None:
        self.process = None

    def read(self, path: Path) -> tuple[JetTable, ReadReport] | tuple[str, str] | str:
        """The jets of a file, or the message of its error, or the kind and message of one that no reader may raise."""
        if self.process is None:
            command = [sys.executable, str(Path(__file__).with_name("read_in_turn.py"))]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        timer = threading.Timer(PATIENCE, self.process.kill)
        timer.start()
        try:
            self.process.stdin.write(f"{path}\n".encode())
            self.process.stdin.flush()
            return pickle.load(self.process.stdout)
        except EOFError:
            self.close()
            return "crash or hang", "the process is gone"
        finally:
            timer.cancel()

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    reader = Reader()
    yield reader
    reader.close()


@pytest.fixture(scope="module")
def undamaged(tmp_path_factory) -> Callable[[str], tuple[Path, Files, JetTable]]:
    """Function from the name of a format to a path for damaged files, the undamaged ones, and their jets."""
    made = {}

    def make(name: str) -> tuple[Path, Files, JetTable]:
        if name not in made:
            # jets of the zoo's own file stay on the disk, so they are not read from the one that is damaged
            path, damaged = (tmp_path_factory.mktemp("fuzz") / FORMATS[name].name for _ in range(2))
            FORMATS[name].write(path, FORMATS[name].content())
            made[name] = damaged, read_files(path), read_jets(path)
        return made[name]

    return make


def same_jets(one: JetTable, two: JetTable) -> str | None:
    """The first column that differs."""
    columns = {name: (getattr(one, name), getattr(two, name)) for name in ("offsets", "label", "weight")}
    for group in ("particles", "fields"):
        found, expected = getattr(one, group), getattr(two, group)
        if found.keys() != expected.keys():
            return group
        columns |= {name: (found[name], expected[name]) for name in expected}
    if one.metadata != two.metadata:
        return "metadata"
    return next((name for name, (found, expected) in columns.items() if not equal(found, expected)), None)


def equal(found: np.ndarray, expected: np.ndarray) -> bool:
    return found.dtype == expected.dtype and np.array_equal(found, expected)


def judge(answer: Any, path: Path, expected: JetTable) -> str | None:
    """What is wrong with an answer to a damaged file; None if nothing is."""
    if isinstance(answer, str):
        return None if str(path) in answer else f"error without the name of the file: {answer}"
    if isinstance(answer[0], str):
        return ": ".join(answer)
    table, report = answer
    if report.rows != len(expected) or sum(report.rejected.values()) != len(expected) - len(table):
        return f"{len(table)} jets of {report.rows} rows, {report.rejected}"
    column = same_jets(table, expected.take(np.asarray(table.source_rows)))
    return column and f"other numbers in {column!r}"


def try_all(damaged: Iterator[tuple[str, Files]], path: Path, expected: JetTable, reader: Reader) -> list[str]:
    """Those damages of a file that are not told."""
    failures = []
    for name, files in damaged:
        write_files(path, files)
        fault = judge(reader.read(path), path, expected)
        if fault:
            failures.append(f"{name}: {fault}")
    return failures


def places(files: Files, number: int, seed: int, is_meant: Callable[[bytes, int], bool]) -> list[tuple[str, int]]:
    """Random positions in all files."""
    known = [(name, place) for name, content in files.items() for place in range(len(content))]
    order = (known[i] for i in np.random.default_rng(seed).permutation(len(known)))
    meant = ((name, place) for name, place in order if is_meant(files[name], place))
    return sorted(itertools.islice(meant, number))


def truncated(known: Format, files: Files) -> Iterator[tuple[str, Files]]:
    for name, place in places(files, TRUNCATIONS, 1, lambda content, place: not known.can_end(content[:place])):
        yield f"{name} cut after {place} bytes", {**files, name: files[name][:place]}


def flipped(known: Format, files: Files) -> Iterator[tuple[str, Files]]:
    random = np.random.default_rng(2)
    for name, place in places(files, FLIPS, 3, lambda content, place: content[place] in (known.flippable or EVERY)):
        mask = int(random.choice([1, 2, 4, 8, 16, 32, 64, 128, 255]))
        content = bytearray(files[name])
        content[place] ^= mask
        yield f"{name} byte {place} ^ {mask}", {**files, name: bytes(content)}


@pytest.mark.parametrize("damage", [truncated, flipped])
@pytest.mark.parametrize("name", FORMATS)
def test_damaged_bytes(undamaged, reader, name, damage):
    path, files, expected = undamaged(name)
    damaged = list(damage(FORMATS[name], files))
    assert len(damaged) == {truncated: TRUNCATIONS, flipped: FLIPS}[damage]
    failures = try_all(iter(damaged), path, expected, reader)
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("name", FORMATS)
def test_empty_file(undamaged, reader, name):
    path, files, expected = undamaged(name)
    damaged = [(f"{file} empty", {**files, file: b""}) for file in files]
    assert try_all(iter(damaged), path, expected, reader) == []


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("jetnet", "folder")])
def test_a_file_is_read_whatever_its_name(undamaged, reader, tmp_path, name):
    """The name of a JetNet file tells its class, that of a folder is no ending."""
    _, files, expected = undamaged(name)
    for ending in (".root", ".parquet", ".h5", ".npz", ".csv", ".arrow", ""):
        path = tmp_path / f"jets{ending}"
        write_files(path, files)
        table, _ = reader.read(path)
        assert same_jets(table, expected) is None


def test_damage_that_nothing_tells_is_found(undamaged, reader, tmp_path):
    """Control: parquet without the checksums of its pages."""
    path, files, expected = undamaged("parquet")
    write_files(path, files)
    parquet.write_table(parquet.read_table(path), tmp_path / "jets.parquet")
    failures = try_all(flipped(FORMATS["parquet"], read_files(tmp_path / "jets.parquet")), path, expected, reader)
    assert any("other numbers in" in failure for failure in failures)


def test_a_hang_is_found(undamaged, reader, tmp_path, monkeypatch):
    """Control: a pipe that nobody writes to."""
    path, files, _ = undamaged("store")
    write_files(path, files)
    assert len(reader.read(path)[0]) > 0
    monkeypatch.setattr(sys.modules[__name__], "PATIENCE", 1)
    os.mkfifo(tmp_path / "pipe")
    assert reader.read(tmp_path / "pipe")[0] == "crash or hang"


@pytest.mark.parametrize("name", FORMATS)
def test_there_are_enough(name):
    assert TRUNCATIONS + FLIPS + len(FORMATS[name].wrong) >= 200


@pytest.mark.parametrize(
    ("name", "change"), [(name, change) for name, known in FORMATS.items() for change in known.wrong]
)
def test_wrong_content(undamaged, reader, tmp_path, name, change):
    known = FORMATS[name]
    change, outcome = known.wrong[change]
    path = tmp_path / known.name
    known.write(path, change(known.content()))
    answer = reader.read(path)
    if outcome in REASONS:
        table, report = answer
        assert judge(answer, path, undamaged(name)[2]) is None
        assert {reason: count for reason, count in report.rejected.items() if count} == {outcome: 1}
        assert ROW not in table.source_rows
    elif isinstance(outcome, int):
        assert answer[0].counts[ROW] == outcome
    else:
        assert isinstance(answer, str), answer
        assert re.search(f"{re.escape(str(path))}.*{outcome}", answer, re.DOTALL), answer
