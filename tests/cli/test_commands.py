"""The ``zoo`` command."""

import argparse
import resource
import subprocess
import sys
from collections.abc import Iterator

import pytest

import zoo
from zoo.cli import build_parser, main


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


def parsers_below(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from [below, *parsers_below(below)]


def test_abbreviated_options_are_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["data", "info", "jets.h5", "--jet", "3"])
    assert "unrecognized arguments: --jet 3" in capsys.readouterr().err
    parsers = list(parsers_below(build_parser()))
    assert {"zoo predict", "zoo data info", "zoo hub pull"} <= {parser.prog for parser in parsers}
    assert not any(parser.allow_abbrev for parser in parsers)


def test_options_have_hyphens_and_are_taken_with_underscores(capsys):
    names = [name for parser in parsers_below(build_parser()) for name in parser._option_string_actions]
    assert "--weaver-yaml" in names
    assert not [name for name in names if "_" in name]
    with pytest.raises(SystemExit, match="2"):
        main(["data", "info", "sample:top_tagging/test", "--weaver_yaml=no_such_file.yaml"])
    assert "no_such_file.yaml: no such file" in capsys.readouterr().err


def test_errors_of_the_system_and_addresses_are_told_in_words(tmp_path, capsys):
    pytest.importorskip("lightgbm")
    run = ["--run-folder", str(tmp_path / "run")]
    with pytest.raises(SystemExit, match="2"):
        main(["baseline", "lightgbm", "--config", str(tmp_path / "missing.yaml"), *run])
    assert capsys.readouterr().err == f"zoo: error: {tmp_path / 'missing.yaml'}: No such file or directory\n"
    with pytest.raises(SystemExit, match="2"):
        main(["data", "info", "sample:top_tagging/test", "--layout", "https://host/layout.yaml"])
    assert "only files of this machine are read; download it first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["simulat"], "invalid choice: 'simulat'; did you mean 'simulate'? (see zoo --help)"),
        (["data", "inf"], "invalid choice: 'inf'; did you mean 'info'? (see zoo data --help)"),
        (["fit", "--run-foldr", "x"], "unrecognized arguments: --run-foldr x; did you mean '--run-folder'?"),
        (["fit", "--trainr.max_epochs", "3"], "unrecognized arguments: --trainr.max_epochs 3 (see zoo fit --help)"),
        (["convert", "a.h5"], "the following arguments are required: --out (see zoo convert --help)"),
    ],
)
def test_a_misspelt_word_is_one_line_with_the_closest(capsys, words, hint):
    with pytest.raises(SystemExit, match="2"):
        main(words)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("zoo: error: ")
    assert hint in line


def test_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"zoo {zoo.__version__}\n"


def test_every_command_has_its_help(capsys):
    """Of each command and of each of its options; none is formatted by accident."""
    for parser in parsers_below(build_parser()):
        with pytest.raises(SystemExit, match="0"):
            parser.parse_args(["--help"])
        shown = capsys.readouterr().out
        assert parser.description in shown
        assert not [action for action in parser._actions if not (action.help or action.metavar == "COMMAND")]


def test_help_is_quick():
    """Without torch, lightning, numpy and yaml, in 0.3 s of a processor, whatever else the machine has to do."""
    command = [sys.executable, "-X", "importtime", "-c", "from zoo.cli import main; main(['fit', '--help'])"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--run-folder" in done.stdout
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "zoo.cli.training" in loaded
    assert not loaded & {"torch", "lightning", "numpy", "yaml", "jsonargparse"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "zoo.cli", "--help"], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.3


def test_extract_and_fit_scaling_write_over_no_input_and_nothing_unasked(tmp_path, capsys):
    jets, features = tmp_path / "jets.arrow", tmp_path / "features.yaml"
    main(["data", "extract", "sample:top_tagging/test", "--rows", "0", "40", "--out", str(jets)])
    before = jets.read_bytes()
    features.write_text("features: [{name: pt_log, formula: log_pt, centre: auto}]\n")
    (tmp_path / "link.yaml").symlink_to(features)
    fit = ["data", "fit-scaling", str(jets), "--features", str(features), "--out"]
    extract = ["data", "extract", str(jets), "--rows", "0", "20", "--out"]
    for command, message in (
        ([*extract, str(jets), "--force"], "an input"),
        ([*fit, str(jets), "--force"], "an input"),
        ([*fit, str(tmp_path / "link.yaml"), "--force"], "an input"),
        ([*extract, str(features)], "exists; add --force"),
        ([*fit, str(tmp_path)], "is a folder"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(command)
        assert message in capsys.readouterr().err
    assert jets.read_bytes() == before
    assert "auto" in features.read_text()
    main([*fit, str(tmp_path / "scaled.yaml")])
    main([*fit, str(tmp_path / "scaled.yaml"), "--force"])
    assert "auto" not in (tmp_path / "scaled.yaml").read_text()
