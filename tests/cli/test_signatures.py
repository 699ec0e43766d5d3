"""Commands from functions."""

from pathlib import Path
from typing import Annotated, Literal

import pytest

from zoo.cli.signatures import Option, Parser, add_commands


def weigh(
    files: Annotated[list[str], Option("FILE")],
    *,
    out: Path,
    rows: Annotated[tuple[int, int] | None, Option(("FIRST", "STOP"), "only these rows")] = None,
    mass: float = 1.5,
    unit: Literal["GeV", "MeV"] | None = None,
    force: Annotated[bool, Option(before=("--anew",))] = False,
    jet_energies: bool = True,
    config: Annotated[list[Path] | None, Option(names=("-c",), is_repeated=True)] = None,
    keys: Annotated[tuple[str, ...], Option(accepts=lambda name: name.startswith("model"))] = (),
) -> None:
    """Weigh jets.

    On scales of 100%.

    Args:
        files: what to
            weigh.
        mass: of the weights, 5% of which are wrong.
    """


@pytest.fixture
def parser() -> Parser:
    parser = Parser(prog="scales", description="")
    add_commands(parser, {"weigh": weigh, "many": ("more", {"weigh": weigh})})
    return parser


def options(parser: Parser, *words: str) -> dict:
    found = vars(parser.parse_args(words))
    assert found.pop("run") is weigh
    return found


def test_values_have_the_types_of_the_signature(parser):
    words = ["a", "b", "--out", "o.h5", "--rows", "1", "2", "--mass=2", "--unit", "MeV", "--force", "--no-jet-energies"]
    assert options(parser, "many", "weigh", *words, "-c", "one", "--config", "two") == {
        "files": ["a", "b"],
        "out": Path("o.h5"),
        "rows": [1, 2],
        "mass": 2.0,
        "unit": "MeV",
        "force": True,
        "jet_energies": False,
        "config": [Path("one"), Path("two")],
        "keys": [],
    }


def test_defaults_are_those_of_the_signature(parser):
    found = options(parser, "weigh", "a", "--out", "o.h5")
    assert found["rows"] is found["unit"] is found["config"] is None
    assert (found["mass"], found["force"], found["jet_energies"]) == (1.5, False, True)


def test_help_is_that_of_the_docstring(parser, capsys):
    with pytest.raises(SystemExit, match="0"):
        parser.parse_args(["weigh", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "Weigh jets. On scales of 100%." in shown
    assert "FILE what to weigh" in shown
    assert "--mass MASS of the weights, 5% of which are wrong (default: 1.5)" in shown
    assert "--rows FIRST STOP only these rows" in shown
    assert "--unit {GeV,MeV}" in shown
    assert "anew" not in shown
    assert "--keys" not in shown


def test_older_spellings_are_taken_with_a_hint(parser, capsys):
    found = options(parser, "weigh", "--out=x_y", "--no-jet_energies", "--anew", "--", "a", "--jet_energies")
    assert (found["jet_energies"], found["force"], str(found["out"])) == (False, True, "x_y")
    assert found["files"] == ["a", "--jet_energies"]
    assert capsys.readouterr().err.splitlines() == [
        "zoo: --no-jet_energies is spelt --no-jet-energies now",
        "zoo: --anew is spelt --force now",
    ]


def test_one_of_several_processes_gives_the_hint(parser, capsys, monkeypatch):
    for rank, hints in (("0", 1), ("1", 0)):
        monkeypatch.setenv("LOCAL_RANK", rank)
        options(parser, "weigh", "--out=x", "--anew", "a")
        assert len(capsys.readouterr().err.splitlines()) == hints


def test_further_options_are_handed_on_as_they_are(parser, capsys):
    words = ["--model.lr", "-1", "--model.a_b=[1, 2]", "--model-x", "--out", "o.h5", "--model.files", "[a]", "b"]
    found = options(parser, "weigh", *words)
    assert found["keys"] == ["--model.lr", "-1", "--model.a_b=[1, 2]", "--model_x", "--model.files", "[a]"]
    assert found["files"] == ["b"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["weigh", "--out", "o"], "the following arguments are required: FILE"),
        (["weigh", "a", "--out", "o", "--mass", "much"], "argument --mass: invalid float value: 'much'"),
        (["weigh", "a", "--out", "o", "--unit", "gev"], "argument --unit: invalid choice: 'gev'; did you mean 'GeV'?"),
        (["weigh", "a", "--out", "o", "--mas", "1"], "unrecognized arguments: --mas 1; did you mean '--mass'?"),
    ],
)
def test_mistakes_are_one_line(parser, capsys, words, message):
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(words)
    assert capsys.readouterr().err == f"zoo: error: {message} (see scales weigh --help)\n"
