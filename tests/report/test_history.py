"""The history of a training loses no row to a kill, a full disk or a resumption, and a damaged line is named."""

import csv
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.test_files import small_disk
from zoo.report.history import History, read_rows
from zoo.training.loggers import BoardLogger, HistoryLogger


def rows_of(path: Path) -> list[dict[str, str]]:
    """As any other program reads them."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def path(tmp_path) -> Path:
    """A history of ten steps, with an epoch after every fifth."""
    history = History(tmp_path / "run" / "metrics.csv")
    for step in range(10):
        history.append({"step": step, "loss": 1 / (1 + step)})
        if step % 5 == 4:
            history.append({"step": step, "epoch": step // 5, "auc": 0.5 + step / 100})
    history.sync()
    return tmp_path / "run" / "metrics.csv"


def test_rows_are_what_was_logged(path):
    rows = rows_of(path)
    assert [float(row["loss"]) for row in rows if row["loss"]] == [1 / (1 + step) for step in range(10)]
    assert [(row["step"], row["epoch"], row["auc"]) for row in rows if row["epoch"]] == [
        ("4", "0", "0.54"),
        ("9", "1", "0.59"),
    ]
    assert read_rows(path) == rows


def test_a_resumed_run_keeps_the_rows_before_its_checkpoint(path):
    before = path.read_bytes()
    history = History(path, first_step=5)
    assert path.read_bytes() == before, "a run that cannot begin changes nothing"
    history.append({"step": 5, "loss": 7.0, "rate": 0.1})
    rows = rows_of(path)
    assert [(row["step"], row["loss"]) for row in rows[-2:]] == [("4", ""), ("5", "7.0")]
    assert len(rows) == 7
    History(path).append({"step": 0, "loss": 8.0})
    assert rows_of(path) == [{"loss": "8.0", "step": "0"}], "a new run begins with an empty file"


def _write_for_ever(path: Path, first_step: int) -> None:
    history = History(path, first_step)
    for step in range(first_step, 10**9):
        history.append({"step": step, f"figure_{step // 20}": step / 3})


def test_a_kill_costs_the_row_that_is_being_written(tmp_path):
    """Every 20 rows there is a new column, for which the file is rewritten."""
    path = tmp_path / "metrics.csv"
    dice, first_step = random.Random(2), 0
    for _ in range(12):
        writer = multiprocessing.get_context("fork").Process(target=_write_for_ever, args=(path, first_step))
        writer.start()
        deadline = time.monotonic() + 20
        while (not path.exists() or len(read_rows(path)) <= first_step) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(dice.uniform(0, 0.05))
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        rows = read_rows(path)
        assert [int(row["step"]) for row in rows] == list(range(len(rows)))
        assert all(float(row[f"figure_{step // 20}"]) == step / 3 for step, row in enumerate(rows))
        assert len(rows) >= first_step
        first_step = max(0, len(rows) - dice.randrange(5))
    assert first_step > 20, "the kills came before the writer did anything"


def test_half_a_line_is_left_out(path):
    whole, history = rows_of(path), History(path, first_step=10)
    with small_disk(path.stat().st_size + 5), pytest.raises(OSError, match=rf"File too large: '{path}'"):
        history.append({"step": 10, "loss": 0.123456789})
    assert not path.read_bytes().endswith(b"\n")
    assert read_rows(path) == whole
    history = History(path, first_step=10)
    history.append({"step": 10, "loss": 0.5})
    assert rows_of(path) == [*whole, {"auc": "", "epoch": "", "loss": "0.5", "step": "10"}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((b",0.5,", b",0.\xff,"), r"metrics\.csv, line 3: is damaged \(.*codec can't decode"),
        ((b",0.5,", b",0.x,"), r"metrics\.csv, line 3: is damaged \(column 'loss' holds '0\.x', no number\)"),
        ((b",0.5,", b",0,5,"), r"metrics\.csv, line 3: is damaged \(5 columns instead of 4\)"),
        ((b"step", b"stop"), r"metrics\.csv, line 1: .*'step' among them, and has auc, epoch, loss, stop"),
        ((b"\r\n", b"\r\r"), r"metrics\.csv, line 1: is damaged .* correct or delete this line"),
    ],
)
def test_a_damaged_line_is_named(path, change, message):
    path.write_bytes(path.read_bytes().replace(*change, 1))
    with pytest.raises(ValueError, match=message):
        History(path, first_step=5)


def test_logger_takes_what_lightning_gives(tmp_path):
    logger = HistoryLogger(tmp_path / "run", 0)
    logger.log_metrics({"loss": torch.tensor(0.25), "epoch": 0}, step=3)
    logger.log_metrics({"loss": 0.5})
    logger.save()
    assert rows_of(tmp_path / "run" / "metrics.csv") == [
        {"epoch": "0", "loss": "0.25", "step": "3"},
        {"epoch": "", "loss": "0.5", "step": "3"},
    ]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of the board's own thread
def test_a_full_disk_names_the_board(tmp_path):
    logger = BoardLogger(tmp_path / "run", 0)
    with small_disk(0), pytest.raises(OSError, match=rf"File too large: '{tmp_path}/run/tensorboard'"):
        _ = logger.experiment
