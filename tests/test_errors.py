"""A user's mistake is one line, a bug is a traceback, and neither hides the other."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, Dataset

from zoo.cli import main
from zoo.data.datasets import describe_dataset
from zoo.errors import message_for_user
from zoo.registry import model_builder
from zoo.score_files import missing_values
from zoo.training.run_folder import checkpoint_to_resume

UNKNOWN = "dataset: no data set is called 'top_taging'; did you mean top_tagging?"


def raised(action: Callable, *arguments: object) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        action(*arguments)
    return caught.value


def library(action: Callable, *arguments: object) -> None:
    """A library that says in its own words what a call of the project raised."""
    try:
        action(*arguments)
    except Exception as error:
        raise RuntimeError("something failed") from error


class Rows(Dataset):
    """Fails in a loader process."""

    def __init__(self, action: Callable, *arguments: object) -> None:
        self.action, self.arguments = action, arguments

    def __len__(self) -> int:
        return 1

    def __getitem__(self, row: int) -> None:
        self.action(*self.arguments)


def load(action: Callable, *arguments: object) -> None:
    list(DataLoader(Rows(action, *arguments), num_workers=1))


def compute(action: Callable, *arguments: object) -> None:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        pool.submit(action, *arguments).result()


@pytest.mark.parametrize("place", [lambda action, *a: action(*a), library, load, compute])
def test_what_the_project_raises_is_for_the_user_wherever_it_ran(place):
    assert message_for_user(raised(place, describe_dataset, "top_taging")) == UNKNOWN


@pytest.mark.parametrize("place", [lambda action, *a: action(*a), library, load, compute])
def test_what_a_library_raises_is_a_bug_wherever_it_ran(place):
    """A ValueError like the one above, and from a call of the project too; but nobody said what to do about it."""
    error = raised(place, missing_values, -1, float)
    assert "negative dimensions" in str(error.__cause__ or error), "control: numpy's, below a function of the project"
    assert message_for_user(error) is None


def test_a_built_in_that_fails_in_a_line_of_the_project_is_a_bug(monkeypatch, tmp_path):
    """No frame stands below the project's for ``int("once")``; only its ``raise`` tells a told error from this one."""
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "once")
    error = raised(checkpoint_to_resume, str(tmp_path), None)
    assert isinstance(error, ValueError)
    assert message_for_user(error) is None


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "jets.h5"), "jets.h5: No such file or directory"),
        (OSError(errno.ENOSPC, "No space left on device"), "[Errno 28] No space left on device"),
        (OSError(errno.EBADF, "Bad file descriptor"), None),
        (
            ModuleNotFoundError("No module named 'yaml.x'", name="yaml.x"),
            "package 'yaml.x' is missing: pip install yaml",
        ),
        (ModuleNotFoundError("No module named 'zoo.x'", name="zoo.x"), None),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
            "CUDA out of memory; give a smaller data.batch_size",
        ),
        (MisconfigurationException("No such strategy"), "trainer: No such strategy"),
        (KeyError("pt"), None),
        (TypeError("f() takes no arguments"), None),
        (RecursionError("maximum recursion depth exceeded"), None),
    ],
)
def test_errors_of_the_system_and_of_libraries(error, message):
    assert message_for_user(error) == message


def test_the_command_ends_with_one_line_or_a_traceback(monkeypatch, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["check", "lorentzmet"])
    assert capsys.readouterr().err.startswith("zoo: error: no model is called 'lorentzmet'; did you mean lorentznet")
    assert isinstance(raised(model_builder, "lorentzmet"), KeyError), "control: of a class that is a bug's otherwise"
    for bug in (lambda: {}["pt"], lambda: missing_values(-1, float), lambda: json.loads("{")):
        monkeypatch.setattr("zoo.hub.sharing.show_pretrained", bug)
        with pytest.raises((KeyError, ValueError)):
            main(["hub", "list"])
    assert capsys.readouterr().err == ""


def test_a_message_of_several_lines_becomes_one(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("a: [")
    with pytest.raises(SystemExit, match="2"):
        main(["data", "info", "sample:top_tagging/test", "--layout", str(tmp_path / "mine.yaml")])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"zoo: error: {tmp_path / 'mine.yaml'}: ")


def test_an_interrupt_is_no_traceback(monkeypatch, capsys):
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("zoo.hub.sharing.show_pretrained", interrupt)
    with pytest.raises(SystemExit, match="130"):
        main(["hub", "list"])
    assert capsys.readouterr().err == "zoo: interrupted\n"


def test_a_reader_that_has_seen_enough_is_no_error():
    """As ``zoo data list | head``; in a process of its own, whose output nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "zoo.cli", "data", "list"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_broken_pipe_to_anything_else_is_a_bug(monkeypatch):
    def lose_worker() -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("zoo.hub.sharing.show_pretrained", lose_worker)
    with open(os.devnull, "w") as out:
        monkeypatch.setattr("sys.stdout", out)
        with pytest.raises(BrokenPipeError):
            main(["hub", "list"])
