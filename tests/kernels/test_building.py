"""Weights saved under the names that parts of a model once had."""

import copy

import pytest
import torch
from torch import nn

from zoo import create_model
from zoo.kernels.building import current_names, renamed_weights


class Renamed(nn.Module):
    """A model whose ``decoder`` has become its ``head``."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Linear(2, 3)
        self.head = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
        renamed_weights(self, {"decoder": "head"})


def older(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.replace("head.", "decoder."): value for name, value in weights.items()}


@pytest.mark.parametrize("wrap", [lambda model: model, nn.Sequential, copy.deepcopy])
def test_weights_load_under_old_names_and_new(wrap):
    """Of the model alone, inside another, and of a copy."""
    source, target = wrap(Renamed()), wrap(Renamed())
    for weights in (source.state_dict(), older(source.state_dict())):
        target.load_state_dict(wrap(Renamed()).state_dict())
        target.load_state_dict(weights)
        torch.testing.assert_close(target.state_dict(), source.state_dict(), rtol=0, atol=0)
    assert current_names(target, older(source.state_dict())).keys() == source.state_dict().keys()


def test_a_weight_of_no_name_is_still_told():
    weights = older(Renamed().state_dict())
    weights["decoders.0.weight"] = weights.pop("decoder.0.weight")
    with pytest.raises(RuntimeError, match=r'Missing key.*"head.0.weight"(.|\n)*Unexpected key.*"decoders.0.weight"'):
        Renamed().load_state_dict(weights)


@pytest.mark.parametrize(
    ("name", "old"),
    [("pfn", "f"), ("efn", "f"), ("cnn_jetimage", "decoder"), ("fully_connected_for_events", "layers.9")],
)
def test_models_load_the_weights_of_before(name, old):
    """The names that the parts had in files that exist."""
    source, target = (create_model(name, input_dim=7, num_classes=2) for _ in range(2))
    weights = source.state_dict()
    target.load_state_dict({key.replace("head.", f"{old}."): value for key, value in weights.items()})
    torch.testing.assert_close(target.state_dict(), weights, rtol=0, atol=0)
