"""The interface of a model: what it computes, and what it says of itself."""

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

from zoo.kernels.cpu import keep_freed_memory
from zoo.kernels.mode import differentiable_once, use_reference
from zoo.kernels.packing import pack


class JetModel(nn.Module, ABC):
    """A model of jets or events, called as ``model(features, four_momenta, mask[, context])``.

    A model is written down twice with the same parameters: `reference_forward` is its page, in plain dense torch beside
    the formulas of its paper, and `fast_forward` what runs, packed and without work on padding. Which of them a call
    takes is decided by `zoo.kernels.mode.use_reference`. A model with one form only defines `reference_forward`. What
    stands in padding is zero when a reference is called by the model; the fast path must not read it.

    Shapes:
        features (batch, particle, feature), standardised; four_momenta (batch, particle, 4) as (E, px, py, pz) in GeV,
        metric (+, -, -, -); mask (batch, particle), True for a real particle; context (batch, context_dim), where one
        left out counts as zero; logits (batch, class).
    """

    #: Number of event quantities that it takes as ``context``.
    context_dim: int = 0
    #: Width of a representation; 0 where it has none of single particles. Above 0 `encode` gives it.
    embed_dim: int = 0
    #: Changes of the jets that leave its answers alone, beside what every model promises: ``beam rotation``,
    #: ``beam boost``, ``rotation``, ``boost``, ``collinear splitting``, ``soft emission``. `zoo.check` measures them.
    symmetries: frozenset[str] = frozenset()
    #: The gamma of a boost up to which ``boost`` is promised.
    largest_gamma: float = math.inf
    #: Momenta (beam, 4) in GeV that join each jet, float64, and are transformed along with it where a symmetry is
    #: measured: a plain attribute, since a buffer would follow the model's dtype.
    beams: Tensor | None = None
    #: Whether rounding may move an answer by a finite step, as it does where a cut decides.
    jumps: bool = False
    #: First names of the parts that `encode` does not use: what comes after the representation.
    readout: tuple[str, ...] = ("head",)

    @abstractmethod
    def stages(self) -> dict[str, list[str]]:
        """Modules and parameters of each stage that fine-tuning distinguishes, from the input to the ``head``."""

    @abstractmethod
    def reference_forward(
        self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """Logits (batch, class) as the paper has them, on padded jets."""

    def fast_forward(
        self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """The same logits, faster."""
        return self.reference_forward(*_without_rubbish(features, four_momenta, mask), mask, context)

    def reference_encode(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
        """Representation (batch, particle, embed_dim) as the paper has it, on padded jets; any number in padding."""
        raise NotImplementedError(f"{type(self).__name__} has no representation of single particles")

    def fast_encode(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
        """Representation (node, embed_dim) of the real particles."""
        return pack(self.reference_encode(*_without_rubbish(features, four_momenta, mask), mask), mask)

    def forward(self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None) -> Tensor:
        """Logits (batch, class); see the class for the shapes.

        Raises:
            ValueError: if ``context`` is not of the width that the model takes, or it takes none.
        """
        self._require_its_context(context, mask)
        if use_reference():
            return self.reference_forward(*_without_rubbish(features, four_momenta, mask), mask, context)
        keep_freed_memory()
        return self._fast(self.fast_forward(features, four_momenta, mask, context))

    def encode(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
        """Representation (node, embed_dim) of the real particles, in the order of the mask, jet after jet."""
        if use_reference():
            return pack(self.reference_encode(*_without_rubbish(features, four_momenta, mask), mask), mask)
        keep_freed_memory()
        return self._fast(self.fast_encode(features, four_momenta, mask))

    def _require_its_context(self, context: Tensor | None, mask: Tensor) -> None:
        taken = (mask.shape[0], self.context_dim)
        if context is not None and context.shape != taken:
            raise ValueError(
                f"context is {tuple(context.shape)}, but this model takes {taken}: build it with that context_dim, or "
                "give it the event quantities it was built for"
            )

    def _fast(self, values: Tensor) -> Tensor:
        is_reference = type(self).fast_forward is JetModel.fast_forward
        return values if is_reference else differentiable_once(values, type(self).__name__)


def _without_rubbish(features: Tensor, four_momenta: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Zeros where there is no particle: no factor of zero would take the gradient of a NaN away."""
    is_real = mask[..., None]
    return features.where(is_real, 0), four_momenta.where(is_real, 0)


class Declared(NamedTuple):
    """What a model says of itself; the fields are those attributes of `JetModel`."""

    context_dim: int
    embed_dim: int
    symmetries: frozenset[str]
    largest_gamma: float
    beams: Tensor | None
    jumps: bool
    readout: tuple[str, ...]


def declared(model: nn.Module) -> Declared:
    """What a model says of itself; of what a plain module does not say, what holds for a `JetModel` that is silent.

    Example:
        >>> declared(nn.Linear(4, 2)).context_dim
        0
    """
    return Declared(*(getattr(model, name, getattr(JetModel, name)) for name in Declared._fields))


#: What a model needs a method for.
_USES = {
    "stages": "fine-tuning finds no stages",
    "encode": "it cannot be pretrained",
    "reference_forward": "it cannot be exported",
}


def lacking(model: nn.Module) -> dict[str, str]:
    """The methods of `JetModel` that a plain module does not have -> what it cannot be used for without them.

    Such a module trains, is tested and checked like any other. Of a `JetModel` nothing is lacking but, where its
    ``embed_dim`` is 0, a representation, which not every model has.

    Example:
        >>> sorted(lacking(nn.Linear(4, 2)))
        ['encode', 'reference_forward', 'stages']
    """
    return {name: use for name, use in _USES.items() if not callable(getattr(model, name, None))}


def has_encode(model: nn.Module) -> bool:
    """Whether a model gives a representation of each particle, so that it can be pretrained: a backbone."""
    return "encode" not in lacking(model) and declared(model).embed_dim > 0


def is_readout(name: str, model: nn.Module) -> bool:
    """Whether a parameter or buffer of a backbone belongs to what comes after its `encode`."""
    return name.partition(".")[0] in declared(model).readout
