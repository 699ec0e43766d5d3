"""Names and builders."""

from pathlib import Path

import pytest
from torch import nn

from zoo import create_model, list_models
from zoo.registry import register_model


def test_an_unknown_name_is_answered_with_the_closest():
    with pytest.raises(KeyError, match="did you mean lorentznet"):
        create_model("lorenznet", input_dim=7, num_classes=2)
    with pytest.raises(KeyError, match=r"known models: .*lorentznet"):
        create_model("xyz", input_dim=7, num_classes=2)


def test_a_name_is_given_once():
    def lorentznet(input_dim: int, num_classes: int) -> nn.Module:
        return nn.Identity()

    assert "lorentznet" in list_models()
    with pytest.raises(ValueError, match="taken by"):
        register_model(lorentznet)


def test_the_page_of_the_models_lists_them_all():
    page = (Path(__file__).resolve().parents[1] / "docs" / "models.md").read_text()
    assert [name for name in list_models() if f"| `{name}` |" not in page] == []
