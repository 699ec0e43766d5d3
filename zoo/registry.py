"""Model names and the functions that build them."""

import difflib
import importlib
import sys
from collections.abc import Callable

from torch import nn

#: The rooms that register models, imported on the first look-up.
ROOMS = (
    "zoo.baselines",
    "zoo.cnn_jetimage",
    "zoo.deepsets",
    "zoo.lgn",
    "zoo.lorentznet",
    "zoo.particle_transformer",
    "zoo.particlenet",
    "zoo.pcnn",
)

_builders: dict[str, Callable[..., nn.Module]] = {}


def register_model(builder: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Register a builder ``(input_dim, num_classes) -> module`` under its own function name.

    Raises:
        ValueError: if another builder has that name already.
    """
    name = builder.__name__
    known = _builders.setdefault(name, builder)
    if (known.__module__, known.__qualname__) != (builder.__module__, builder.__qualname__):
        raise ValueError(f"model name {name!r} is taken by {known.__module__}.{known.__qualname__}; rename yours")
    return builder


class UnknownModelError(KeyError, ValueError):
    """No model has the name that was asked for; the message suggests the closest ones."""

    def __str__(self) -> str:
        return self.args[0]  # a KeyError would show the quoted key


def list_models() -> list[str]:
    """Names of all models, sorted.

    Example:
        >>> "lorentznet" in list_models()
        True
    """
    _open_rooms()
    return sorted(_builders)


def model_builder(name: str) -> Callable[..., nn.Module]:
    """The function registered under ``name``.

    Raises:
        UnknownModelError: if no model has that name.
    """
    _open_rooms()
    if name not in _builders:
        close = difflib.get_close_matches(name, _builders, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known models: {', '.join(list_models())}"
        raise UnknownModelError(f"no model is called {name!r}; {hint}")
    return _builders[name]


def registered_name(class_path: str) -> str | None:
    """Name of the model that a builder's import path leads to; None if it is none of `list_models`.

    The last word says little: ``mypkg.particlenet_lite`` is not the zoo's. Nothing but the zoo's own models is imported
    for the comparison.

    Example:
        >>> registered_name("zoo.particlenet.particlenet_lite")
        'particlenet_lite'
        >>> registered_name("mypkg.particlenet_lite"), registered_name("zoo.particlenet.ParticleNet")
        (None, None)
    """
    _open_rooms()
    module, _, name = class_path.rpartition(".")
    builder = _builders.get(name)
    return name if builder is not None and getattr(sys.modules.get(module), name, None) is builder else None


def create_model(name: str, *, input_dim: int, num_classes: int) -> nn.Module:
    """Build a model with the numbers of its paper and random weights.

    Args:
        name: one of `list_models`.
        input_dim: number of features of a particle.
        num_classes: number of logits.

    Returns:
        A module called as ``model(features, four_momenta, mask)`` with shapes (batch, particle, feature),
        (batch, particle, 4) as (E, px, py, pz) in GeV, and (batch, particle), True for a real particle;
        it gives logits (batch, class). Where its attribute ``context_dim`` is not zero, it takes event quantities
        (batch, context_dim) as a fourth argument.

    Raises:
        UnknownModelError: if no model has that name.

    Example:
        >>> model = create_model("lorentznet", input_dim=7, num_classes=2)
        >>> sum(parameter.numel() for parameter in model.parameters())
        224072
    """
    return model_builder(name)(input_dim=input_dim, num_classes=num_classes)


def has_encode(model: nn.Module) -> bool:
    """Whether a model gives a representation of each particle, so that it can be pretrained: a backbone."""
    return hasattr(model, "encode") and getattr(model, "embed_dim", 0) > 0


def is_readout(name: str, model: nn.Module) -> bool:
    """Whether a parameter or buffer of a backbone belongs to what comes after its `encode`."""
    return name.partition(".")[0] in model.readout


def _open_rooms() -> None:
    for room in ROOMS:
        importlib.import_module(room)
