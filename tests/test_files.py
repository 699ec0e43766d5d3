"""Files are whole or absent, whoever is killed, and a folder has one writer at a time."""

import errno
import itertools
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from zoo.files import atomic_folder, atomic_write, only_one, remove_drafts, require_output, write_together

HOLD = """
import sys, time
from pathlib import Path
from zoo.files import atomic_folder, atomic_write, only_one
folder = Path(sys.argv[2])
opened = {
    "lock": lambda: only_one(folder, "training"),
    "draft": lambda: atomic_write(folder / "a.txt"),
    "folder": lambda: atomic_folder(folder / "my.tagger"),
}
with opened[sys.argv[1]]() as file:
    if sys.argv[1] == "folder":
        (file / "weights").touch()
    if sys.argv[1] == "draft":
        file.write(b"half of it")
        file.flush()
    print("ready", flush=True)
    time.sleep(60)
"""


@contextmanager
def holder(what: str, folder: Path):
    """Another process that holds a lock or a draft."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, what, folder], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextmanager
def small_disk(size: int):
    """No file may grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write(path: Path, content: bytes) -> None:
    with atomic_write(path) as file:
        file.write(content)


def test_threads_and_processes_of_one_number_do_not_tear_a_file(tmp_path, monkeypatch):
    """As in two containers, whose processes all have the number 1."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    path, failures = tmp_path / "a.txt", []

    def write_often(number: int) -> None:
        try:
            for _ in range(20):
                write(path, bytes([number]) * 100_000)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write_often, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            content = path.read_bytes()
            assert len(content) == 100_000
            assert len(set(content)) == 1
    assert not failures
    assert os.listdir(tmp_path) == ["a.txt"]


def test_draft_of_a_kill_goes_and_that_of_a_writer_stays(tmp_path):
    with holder("draft", tmp_path) as process:
        write(tmp_path / "a.txt", b"new")
        remove_drafts(tmp_path)
        assert len(list(tmp_path.glob(".a.txt.*.draft"))) == 1, "its writer lives"
        process.kill()
        process.wait()
        write(tmp_path / "a.txt.gz", b"of another name")
        assert len(list(tmp_path.glob(".*.draft"))) == 1
        write(tmp_path / "a.txt", b"newer")
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "a.txt.gz"]
    (tmp_path / ".b.1234.draft").write_bytes(b"of an older version")
    remove_drafts(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "a.txt.gz"]


def test_a_folder_that_a_killed_process_was_making_goes(tmp_path):
    def make(name: str) -> None:
        with atomic_folder(tmp_path / name) as folder:
            (folder / "weights").touch()

    with holder("folder", tmp_path) as process:
        make("other")
        with pytest.raises(RuntimeError, match="does not load"), atomic_folder(tmp_path / "my.tagger"):
            raise RuntimeError("does not load")
        assert len(list(tmp_path.glob(".my.tagger.*.draft/weights"))) == 1, "its maker lives"
        process.kill()
        process.wait()
        make("my.tagger")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "my.tagger",
        "my.tagger/weights",
        "other",
        "other/weights",
    ]


def test_a_full_disk_names_the_file_and_keeps_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write(path, b"old")
    with small_disk(1000), pytest.raises(OSError, match=rf"File too large: '{path}'"):
        write(path, bytes(100_000))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=rf"No space left on device: '{path}'"):
        write(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="nobody can write to /proc, not even root")
def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    with pytest.raises(PermissionError, match=r"^/proc/new/a\.txt: /proc cannot be written; choose another place"):
        require_output(Path("/proc/new/a.txt"), force=True)
    require_output(tmp_path / "new" / "a.txt")
    assert not os.listdir(tmp_path)


def test_an_error_of_a_library_names_the_file_that_it_could_not_write(tmp_path):
    """torch answers a full disk with numbers of its own, depending on where it happens."""
    path = tmp_path / "a.ckpt"

    def save_like_torch() -> None:
        with atomic_write(path) as file:
            try:
                file.write(bytes(100_000))
            except OSError as error:
                raise RuntimeError("unexpected pos 64 vs 0") from error

    with small_disk(1000), pytest.raises(OSError, match=rf"File too large: '{path}'"):
        save_like_torch()
    with pytest.raises(RuntimeError, match="of another kind"), atomic_write(path):
        raise RuntimeError("of another kind")
    assert not os.listdir(tmp_path)


def test_a_folder_that_is_none_names_the_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"'.*/file/a\.txt'"):
        write(tmp_path / "file" / "a.txt", b"new")


OLD, NEW = ({name: f"{age} {name}".encode() * 50 for name in ("a", "b", "seal")} for age in ("old", "new"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_are_replaced_together_or_not_at_all(tmp_path):
    write_together(tmp_path / "new" / "folder", OLD)
    folder = tmp_path / "new" / "folder"
    assert contents(folder) == OLD
    with small_disk(1000), pytest.raises(OSError, match=rf"File too large: '{folder}/b'"):
        write_together(folder, NEW | {"b": bytes(10_000)})
    assert contents(folder) == OLD
    with small_disk(1000), pytest.raises(OSError, match=rf"File too large: '{folder}/seal'"):
        write_together(folder, NEW | {"seal": bytes(10_000)})
    assert contents(folder) == OLD
    write_together(folder, NEW)
    assert contents(folder) == NEW


def _write_and_die(folder: Path, call: int) -> None:
    """Dies of the n-th of all calls that reach the disk."""
    calls = itertools.count()

    def counted(function):
        def count_and_call(*arguments):
            if next(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments)

        return count_and_call

    os.fsync, os.replace, os.unlink = counted(os.fsync), counted(os.replace), counted(os.unlink)
    write_together(folder, NEW)


def test_a_kill_never_leaves_old_and_new_files_under_one_seal(tmp_path):
    found = []
    for call in range(40):
        write_together(tmp_path, OLD)
        writer = multiprocessing.get_context("fork").Process(target=_write_and_die, args=(tmp_path, call))
        writer.start()
        writer.join()
        assert writer.exitcode in (0, -signal.SIGKILL)
        left = {name: content for name, content in contents(tmp_path).items() if not name.startswith(".")}
        found.append("old" if left == OLD else "new" if left == NEW else "no seal" if "seal" not in left else "mixed")
        if writer.exitcode == 0:
            break
    assert "mixed" not in found
    assert found.count("old") > 3
    assert found[-1] == "new"
    assert not [name for name in contents(tmp_path) if name.startswith(".")], "what kills had left is gone"


def test_second_process_is_refused_and_a_killed_one_forgotten(tmp_path):
    folder = tmp_path / "run"
    with holder("lock", folder) as process:
        os.kill(process.pid, signal.SIGSTOP)  # it is no less in use
        with (
            pytest.raises(
                BlockingIOError, match=rf"run: is in use by another training, process {process.pid} on .*wait"
            ),
            only_one(folder, "training"),
        ):
            pass
        process.kill()
        process.wait()
        assert (folder / ".lock").exists()
        with only_one(folder, "training"):
            (folder / "metrics.csv").touch()
    assert os.listdir(folder) == ["metrics.csv"]


def test_a_folder_that_stays_empty_is_not_left_behind(tmp_path):
    with only_one(tmp_path / "new", "training"):
        pass
    (tmp_path / "old").mkdir()
    with only_one(tmp_path / "old", "training"):
        pass
    assert os.listdir(tmp_path) == ["old"]


def test_a_process_forked_under_the_lock_does_not_keep_it(tmp_path):
    """Such as a loader's, which may outlive a killed training for some seconds."""
    with only_one(tmp_path, "training"):
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
    try:
        with only_one(tmp_path, "training"):
            assert child.is_alive()
    finally:
        child.kill()
        child.join()


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch):
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("zoo.files.fcntl.flock", no_locks)
    with pytest.warns(UserWarning, match="has no locks; start one training at a time"), only_one(tmp_path, "training"):
        write(tmp_path / "a.txt", b"new")
    assert os.listdir(tmp_path) == ["a.txt"]


def test_links_and_modes_survive(tmp_path):
    target, link = tmp_path / "elsewhere" / "a.txt", tmp_path / "link.txt"
    target.parent.mkdir()
    target.write_bytes(b"old")
    target.chmod(0o640)
    link.symlink_to(target)
    write(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o640
    (tmp_path / "dangling.txt").symlink_to(tmp_path / "elsewhere" / "b.txt")
    write(tmp_path / "dangling.txt", b"new")
    assert (tmp_path / "elsewhere" / "b.txt").read_bytes() == b"new"


def test_an_output_is_never_an_input(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    given = folder / "in.h5"
    given.write_bytes(b"jets")
    (tmp_path / "soft.h5").symlink_to(given)
    (tmp_path / "hard.h5").hardlink_to(given)
    (tmp_path / "linked").symlink_to(folder)
    monkeypatch.chdir(folder)
    names = [given, tmp_path / "soft.h5", tmp_path / "hard.h5", tmp_path / "linked" / "in.h5", Path("in.h5")]
    for name in [*names, Path("..") / "folder" / "in.h5"]:
        with pytest.raises(ValueError, match=r"in.h5, an input"):
            require_output(name, [None, given], force=True)
    with pytest.raises(ValueError, match=r"lies in .*folder, an input"):
        require_output(tmp_path / "linked" / "new.h5", [folder], force=True)
    require_output(tmp_path / "new.h5", [given])
    with pytest.raises(FileExistsError, match="add --force"):
        require_output(tmp_path / "soft.h5", [tmp_path / "other.h5"])
    require_output(tmp_path / "soft.h5", [tmp_path / "other.h5"], force=True)
    with pytest.raises(IsADirectoryError):
        require_output(folder, force=True)
