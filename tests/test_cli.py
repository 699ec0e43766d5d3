"""The ``zoo`` command."""

import pytest

from zoo.cli import main


def test_help_names_the_commands(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    shown = capsys.readouterr().out
    assert "simulate" in shown
    assert "report" in shown


def test_a_user_error_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["report", str(tmp_path / "no_run"), "--out", str(tmp_path / "out")])
    shown = capsys.readouterr().err
    assert shown.startswith("zoo: error: ")
    assert "no_run" in shown
    assert "Traceback" not in shown
    assert not (tmp_path / "out").exists()


def test_an_unknown_command_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["simulat"])
    assert "simulate" in capsys.readouterr().err
