"""Where no terminal shows a bar, long work says how far it is, a line a minute."""

import pytest

from zoo import progress


@pytest.fixture
def clock(monkeypatch):
    """Seconds that a test moves on by hand."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_a_minute_with_rate_and_time_left(clock, capsys):
    with progress.progress_bar("jets") as bar:
        task = bar.add_task("simulating corpus", total=1_200_000, completed=600_000)
        for _ in range(12):
            clock[0] += 15.0
            bar.update(task, advance=1500)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "simulating corpus: 606,000 of 1,200,000 jets, 100 jets/s, 1 h 39 min left",
        "simulating corpus: 612,000 of 1,200,000 jets, 100 jets/s, 1 h 38 min left",
        "simulating corpus: 618,000 of 1,200,000 jets, 100 jets/s, 1 h 37 min left",
    ]


def test_short_work_is_silent(clock, capsys):
    with progress.progress_bar("jets") as bar:
        task = bar.add_task("reading", total=10)
        clock[0] += 59.0
        bar.update(task, completed=10)
    assert capsys.readouterr().err == ""


def test_work_that_stands_still_promises_no_end(clock, capsys):
    with progress.progress_bar("bytes") as bar:
        task = bar.add_task("fetching", total=10)
        clock[0] += 61.0
        bar.update(task, advance=0)
    assert capsys.readouterr().err == "fetching: 0 of 10 bytes, 0 bytes/s\n"


def test_work_of_unknown_size_counts(clock, capsys):
    with progress.progress_bar("bytes") as bar:
        task = bar.add_task("fetching", total=None)
        clock[0] += 60.0
        bar.update(task, completed=6_000_000, total=None)
    assert capsys.readouterr().err == "fetching: 6,000,000 bytes, 100,000 bytes/s\n"


def test_a_terminal_has_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    with progress.progress_bar("jets") as bar:
        task = bar.add_task("reading", total=10)
        bar.update(task, advance=10)
    assert "reading" in capsys.readouterr().err
