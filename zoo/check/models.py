"""Models to check: registered ones, pretrained ones, and those of a user."""

import difflib
import importlib
import inspect
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from zoo.hub import Pretrained, list_pretrained, load_pretrained
from zoo.kernels.segments import offsets, segment_mean
from zoo.model import JetModel, declared, is_readout
from zoo.registry import create_model, list_models


def find_model(name: str, *, input_dim: int, num_classes: int) -> nn.Module:
    """A registered model, or a user's own.

    Args:
        name: one of `zoo.list_models`, or the import path of a class or function, such as ``my_package.MyModel``, which
            is called with ``input_dim`` and ``num_classes`` as far as it takes them.
        input_dim: number of features of a particle.
        num_classes: number of logits.

    Raises:
        KeyError: if no model is registered under a name without dots.
        ValueError: if an import path leads nowhere or to something else, or its target needs further arguments.
    """
    if "." not in name or name in list_models():
        return create_model(name, input_dim=input_dim, num_classes=num_classes)
    module, _, attribute = name.rpartition(".")
    try:
        builder = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, SyntaxError) as error:
        close = difflib.get_close_matches(name, list_pretrained(), n=1, cutoff=0.8)
        hint = f"did you mean {close[0]}?" if close else "is its folder on PYTHONPATH?"
        raise ValueError(f"{name}: cannot be imported ({error}); {hint}") from error
    model = _build(name, builder, {"input_dim": input_dim, "num_classes": num_classes})
    if not isinstance(model, nn.Module):
        raise ValueError(f"{name}: gives {type(model).__name__}, not a torch module")
    return model


def _build(name: str, builder: object, arguments: dict[str, int]) -> object:
    if not callable(builder):
        raise ValueError(f"{name}: is {type(builder).__name__}, not a class or function that gives a model")
    try:
        signature = inspect.signature(builder)
    except ValueError:  # for built-in functions and classes
        return builder(**arguments)
    takes = signature.parameters.values()
    takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in takes)
    given = {key: value for key, value in arguments.items() if takes_all or key in signature.parameters}
    try:
        signature.bind(**given)
    except TypeError as error:
        raise ValueError(
            f"{name}: cannot be built of {', '.join(given) or 'no arguments'} ({error}); name a function that takes "
            "input_dim and num_classes and chooses the rest"
        ) from error
    return builder(**given)


def find_pretrained_model(name: str) -> Pretrained | None:
    """The pretrained model of that name, folder or address; None if the name is that of another kind of model.

    Raises:
        FileNotFoundError: if it is a path that leads nowhere.
        PretrainedError: if the folder is damaged.
    """
    is_path = Path(name).is_dir() or "/" in name
    return load_pretrained(name) if is_path or name in list_pretrained() else None


class MeanRepresentation(nn.Module):
    """A backbone as a model, whose answers (batch, embed_dim) are the means of its representations over particles."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.symmetries = declared(backbone).symmetries
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(not is_readout(name, backbone))

    @property
    def beams(self) -> Tensor | None:
        """The beams of the backbone."""
        return declared(self.backbone).beams

    @beams.setter
    def beams(self, beams: Tensor) -> None:
        self.backbone.beams = beams

    def forward(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
        """Means (batch, embed_dim); zero for an empty jet."""
        return segment_mean(cast(JetModel, self.backbone).encode(features, four_momenta, mask), offsets(mask.sum(1)))


def checkable(pretrained: Pretrained) -> nn.Module:
    """The model of a pretrained folder as one that gives a row of answers for each jet."""
    model = (pretrained.network or pretrained.model).to(torch.float32)
    return model if pretrained.names else MeanRepresentation(model)
