"""Model names, the functions that build them, and what is known of each."""

import dataclasses
import difflib
import importlib
import sys
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeVar, get_args

from torch import nn

from zoo.plugins import MODELS, Distribution, fault_of, load_plugins, offered_by

#: What a model is built to see.
Sees = Literal["jets", "events"]
Builder = TypeVar("Builder", bound=Callable[..., nn.Module])

#: The packages that register models, imported on the first look-up.
PACKAGES = (
    "zoo.baselines",
    "zoo.cnn_jetimage",
    "zoo.deepsets",
    "zoo.lgatr",
    "zoo.lgn",
    "zoo.lorentznet",
    "zoo.particle_transformer",
    "zoo.particlenet",
    "zoo.pcnn",
    "zoo.pelican",
)

_facts: dict[str, "ModelFacts"] = {}


class Paper(NamedTuple):
    """Where a model is described."""

    id: str  #: such as ``arXiv:2201.08187``
    title: str = ""


@dataclasses.dataclass(frozen=True)
class ModelFacts:
    """What is known of a model beside its code. Symmetries, context and the like are said by its class.

    Args:
        name: of `list_models`: that of its function for the zoo's own, with the package before it for others.
        builder: ``(input_dim, num_classes) -> module``.
        paper: that describes it.
        sees: ``jets``, or ``events`` of some objects.
        variant: what sets it apart from the model of the paper; nothing if left empty.
        weights: where published weights are whose answers it reproduces; `zoo.importers` asks for their licence.
    """

    name: str
    builder: Callable[..., nn.Module]
    paper: Paper
    sees: Sees
    variant: str = ""
    weights: str = ""

    @property
    def package(self) -> str:
        """The package that it is imported from."""
        return _package(self.builder)

    @property
    def distribution(self) -> Distribution | None:
        """What to install for it; None for the zoo's own models, and if no installed package offers it."""
        return offered_by(self.package)


def register_model(
    bare: None = None, /, *, paper: str | Paper = "", sees: Sees | None = None, variant: str = "", weights: str = ""
) -> Callable[[Builder], Builder]:
    """Register a builder ``(input_dim, num_classes) -> module`` with what is known of it.

    Its name is that of the function, with the package before it unless the model is the zoo's own: the function
    ``mymodel`` of any module of ``mypackage`` is ``mypackage.mymodel``. It is found by that name in any process, if
    the package has an entry point for it, see `zoo.plugins`, else once its module is imported.

    Args:
        bare: nothing; what a decorator without facts would register.
        paper: that describes the model, such as ``arXiv:2201.08187``; ``unpublished`` if there is none.
        sees: ``jets``, or ``events`` of some objects.
        variant: what sets it apart from the model of the paper, in a few words.
        weights: where published weights are whose answers it reproduces.

    Raises:
        TypeError: if the facts are left out, as in a bare ``@register_model``.
        ValueError: if a fact is wrong, or another builder has that name already.

    Example:
        >>> @register_model(paper="arXiv:2201.08187", sees="jet")
        ... def mine(input_dim: int, num_classes: int) -> nn.Module:
        ...     return nn.Identity()
        Traceback (most recent call last):
        ...
        ValueError: register_model: sees must be jets or events, is 'jet'
    """
    paper = paper if isinstance(paper, Paper) else Paper(paper)
    if bare is not None or not paper.id or sees is None:
        raise TypeError(
            "register_model: what is known of a model is missing; write "
            '@register_model(paper="arXiv:2201.08187", sees="jets"), with paper="unpublished" if there is none'
        )
    if sees not in get_args(Sees):
        raise ValueError(f"register_model: sees must be {' or '.join(get_args(Sees))}, is {sees!r}")

    def register(builder: Builder) -> Builder:
        name = _name(builder)
        known = _facts[name].builder if name in _facts else builder
        if (known.__module__, known.__qualname__) != (builder.__module__, builder.__qualname__):
            raise ValueError(f"model name {name!r} is taken by {known.__module__}.{known.__qualname__}; rename yours")
        _facts[name] = ModelFacts(name, builder, paper, sees, variant, weights)
        return builder

    return register


class UnknownModelError(KeyError, ValueError):
    """No model has the name that was asked for; the message suggests the closest ones."""

    def __str__(self) -> str:
        return self.args[0]  # a KeyError would show the quoted key


def list_models() -> list[str]:
    """Names of all models, sorted; those of other packages with the package before, as ``mypackage.mymodel``.

    Example:
        >>> "lorentznet" in list_models()
        True
    """
    _open_packages()
    load_plugins(MODELS)
    return sorted(_facts)


def model_facts(name: str) -> ModelFacts:
    """What is known of the model that is registered under ``name``.

    Raises:
        UnknownModelError: if no model has that name.

    Example:
        >>> model_facts("lorentznet").paper.id
        'arXiv:2201.08187'
    """
    _open(name)
    if name not in _facts:
        raise UnknownModelError(f"no model is called {name!r}; {_hint(name)}")
    return _facts[name]


def model_builder(name: str) -> Callable[..., nn.Module]:
    """The function registered under ``name``.

    Raises:
        UnknownModelError: if no model has that name.
    """
    return model_facts(name).builder


def registered_name(class_path: str) -> str | None:
    """Name of the model that a builder's import path leads to; None if it is none of `list_models`.

    The last word says little: ``mypkg.particlenet_lite`` is not the zoo's. Nothing but registered models is imported
    for the comparison: the zoo's own, and those of installed packages with an entry point.

    Example:
        >>> registered_name("zoo.particlenet.particlenet_lite")
        'particlenet_lite'
        >>> registered_name("mypkg.particlenet_lite"), registered_name("zoo.particlenet.ParticleNet")
        (None, None)
    """
    _open(class_path)
    module, _, attribute = class_path.rpartition(".")
    builder = getattr(sys.modules.get(module), attribute, None)
    return next((facts.name for facts in _facts.values() if facts.builder is builder), None)


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


def _package(builder: Callable[..., nn.Module]) -> str:
    return builder.__module__.partition(".")[0]


def _name(builder: Callable[..., nn.Module]) -> str:
    package = _package(builder)
    return builder.__name__ if package == "zoo" else f"{package}.{builder.__name__}"


def _hint(name: str) -> str:
    """What somebody probably meant by a name that no model has."""
    known, (package, dot, _) = list_models(), name.partition(".")
    if close := difflib.get_close_matches(name, known, n=3):
        return f"did you mean {' or '.join(close)}?"
    if not dot:
        return f"known models: {', '.join(known)}"
    if fault := fault_of(package):
        return f"its package {package} cannot be imported ({fault})"
    offered = [model for model in known if model.startswith(f"{package}.")]
    return f"{package} offers {', '.join(offered)}" if offered else f"no installed package offers models of {package}"


def _open(name: str) -> None:
    """Import what may have registered a name: no other package for one of the zoo's own."""
    _open_packages()
    package, dot, _ = name.partition(".")
    if dot and package != "zoo":
        load_plugins(MODELS)


def _open_packages() -> None:
    for package in PACKAGES:
        importlib.import_module(package)
