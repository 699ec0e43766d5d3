"""Names and builders."""

import io
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from rich.console import Console
from torch import nn

from zoo import create_model, list_models
from zoo.model import JetModel
from zoo.model_table import models_markdown, show_models, symmetries_text
from zoo.registry import Sees, model_facts, register_model


def test_an_unknown_name_is_answered_with_the_closest():
    with pytest.raises(KeyError, match="did you mean lorentznet"):
        create_model("lorenznet", input_dim=7, num_classes=2)
    with pytest.raises(KeyError, match=r"known models: .*lorentznet"):
        create_model("xyz", input_dim=7, num_classes=2)


def test_a_name_is_given_once():
    """Within a package: ``mypackage.lorentznet`` is another model."""

    def lorentznet(input_dim: int, num_classes: int) -> nn.Module:
        return nn.Identity()

    assert "lorentznet" in list_models()
    lorentznet.__module__ = "zoo.elsewhere"
    with pytest.raises(ValueError, match="taken by"):
        register_model(paper="unpublished", sees="jets")(lorentznet)


def test_facts_are_not_left_out():
    def mine(input_dim: int, num_classes: int) -> nn.Module:
        return nn.Identity()

    for incomplete in (lambda: register_model(mine), lambda: register_model(sees="jets")(mine)):
        with pytest.raises(TypeError, match=r'write @register_model\(paper="arXiv'):
            incomplete()
    assert "mine" not in list_models()


def test_the_facts_of_a_model_are_those_of_its_paper():
    assert [name for name in list_models() if not re.fullmatch(r"arXiv:\d{4}\.\d{5}", model_facts(name).paper.id)] == []
    assert [name for name in list_models() if not model_facts(name).paper.title] == []
    assert model_facts("lorentznet").paper.id == "arXiv:2201.08187"
    assert {name for name in list_models() if model_facts(name).sees == "events"} == {
        name for name in list_models() if name.partition("_for_")[2].startswith("events")
    }


@pytest.mark.parametrize("sees", get_args(Sees))
def test_the_page_of_the_models_is_made_of_their_facts(sees):
    page = (Path(__file__).resolve().parents[1] / "docs" / "models.md").read_text()
    lines = models_markdown(sees).splitlines()
    assert len(lines) == 2 + sum(model_facts(name).sees == sees for name in list_models())
    assert "\n".join(lines) in page, f"docs/models.md: write what zoo models --sees {sees} --markdown prints"


def test_symmetries_are_told_in_words():
    """Of the groups that the classes name: none is left out, and none told twice."""
    models = {name: create_model(name, input_dim=7, num_classes=2) for name in ("lorentznet", "egnn", "efn", "pfn")}
    told = {name: symmetries_text(model) for name, model in models.items()}
    assert told["lorentznet"] == "Lorentz transformations of jet and beams"
    assert told["egnn"] == "rotations"
    assert told["efn"].split(", ") == [
        "rotations about the beam and boosts along it",
        "collinear splittings",
        "soft emissions",
    ]
    assert told["pfn"] == ""
    models["egnn"].symmetries = frozenset({"reflection", "beam rotation"})
    assert symmetries_text(models["egnn"]) == "rotations about the beam, reflection"


def test_the_command_shows_paper_and_size(capsys):
    show_models("events")
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("pfn_for_events "))
    assert "arXiv:1810.05165" in row
    assert "84,738" in row


def test_a_narrow_terminal_shows_all_columns():
    console = Console(width=80, file=io.StringIO())
    show_models("jets", console=console)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    row = next(line for line in lines if line.startswith("lorentznet "))
    assert row.split() == ["lorentznet", "arXiv:2201.08187", "224,072", "Lorentz", "transformations"]


def test_a_model_without_a_page_is_not_built():
    """It would answer None."""

    class Unwritten(JetModel):
        def stages(self) -> dict[str, list[str]]:
            return {}

    with pytest.raises(TypeError, match=r"Unwritten.*reference_forward"):
        Unwritten()


WATCHED_IMPORT = """
import torch
from torch.utils._python_dispatch import TorchDispatchMode

class Watch(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.numel() > 10_000:
            print("made", tuple(result.shape), "by", function)
        return result

def state():
    probed = set(vars(torch.ops.mkldnn))
    return torch.get_rng_state().tolist(), torch.get_num_threads(), torch.get_default_dtype(), probed

before = state()
with Watch():
    import zoo.registry
    names = zoo.registry.list_models()
assert len(names) > 20
if state() != before:
    print("changed the state of torch")
"""


def test_importing_all_models_only_defines_them():
    """No memory is taken, no operator of torch probed, and nothing of torch's state set."""
    result = subprocess.run([sys.executable, "-c", WATCHED_IMPORT], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
