"""The interface of a model: what it computes, and what it says of itself."""

from abc import abstractmethod

from torch import Tensor, nn

from zoo.kernels.cpu import keep_freed_memory
from zoo.kernels.mode import differentiable_once, use_reference
from zoo.kernels.packing import pack


class JetModel(nn.Module):
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
    #: Width of a representation; 0 where it has none of single particles.
    embed_dim: int = 0
    #: Changes that leave its answers alone, in the words of `zoo.check`.
    symmetries: frozenset[str] = frozenset()
    #: Parts that a representation does not use.
    readout: tuple[str, ...] = ("head",)

    @abstractmethod
    def stages(self) -> dict[str, list[str]]:
        """What fine-tuning tells apart, from the input to the ``head``: the modules and parameters of each stage."""

    @abstractmethod
    def reference_forward(
        self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """Logits (batch, class) as the paper has them, on padded jets."""

    def fast_forward(
        self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """The same logits, faster."""
        return self.reference_forward(features, four_momenta, mask, context)

    def reference_encode(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
        """Representation (batch, particle, embed_dim) as the paper has it, on padded jets; any number in padding."""
        raise NotImplementedError(f"{type(self).__name__} has no representation of single particles")

    def fast_encode(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
        """Representation (node, embed_dim) of the real particles."""
        return pack(self.reference_encode(features, four_momenta, mask), mask)

    def forward(self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None) -> Tensor:
        """Logits (batch, class); see the class for the shapes."""
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

    def _fast(self, values: Tensor) -> Tensor:
        is_reference = type(self).fast_forward is JetModel.fast_forward
        return values if is_reference else differentiable_once(values, type(self).__name__)

    @property
    def has_encode(self) -> bool:
        """Whether it gives a representation of each particle, so that it can be pretrained."""
        return self.embed_dim > 0


def _without_rubbish(features: Tensor, four_momenta: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Zeros where there is no particle: no factor of zero would take the gradient of a NaN away."""
    is_real = mask[..., None]
    return features.where(is_real, 0), four_momenta.where(is_real, 0)
