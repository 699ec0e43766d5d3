"""A fully connected network on the ordered objects of an event, as in arXiv:2211.05143; the sizes are our choice."""

import itertools
from collections.abc import Sequence

from einops import rearrange
from torch import Tensor, nn

from zoo.baselines import fast
from zoo.baselines.hardest import MAX_OBJECTS, hardest_objects
from zoo.kernels.building import join_context, renamed_weights, stages_of
from zoo.kernels.cpu import Dropout, Linear
from zoo.model import JetModel
from zoo.registry import Paper, register_model


class FullyConnected(JetModel):
    """Linear layers on the features of the hardest objects, one object after the other.

    Args:
        input_dim: number of features per object.
        num_classes: number of logits.
        num_objects: number of objects used (`hardest_objects`); the places of absent ones are zero, which the one-hot
            type of a real object never is.
        hidden_dims: widths of the hidden layers, each with a ReLU and dropout.
        dropout: after each of them.
        context_dim: event quantities, such as the missing transverse momentum, appended to the objects.

    Shapes:
        features (batch, particle, feature), four_momenta (batch, particle, 4) as (E, px, py, pz) in GeV, for the order
        only, mask (batch, particle), True for a real object, context (batch, context_dim); logits (batch, class).
    """

    def __init__(
        self,
        input_dim: int,
        num_classes: int,
        *,
        num_objects: int = MAX_OBJECTS,
        hidden_dims: Sequence[int] = (256, 256, 128),
        dropout: float = 0.1,
        context_dim: int = 0,
    ) -> None:
        super().__init__()
        self.num_objects = num_objects
        self.context_dim = context_dim
        layers = []
        widths = [num_objects * input_dim + context_dim, *hidden_dims]
        for before, after in itertools.pairwise(widths):
            layers += [Linear(before, after), nn.ReLU(), Dropout(dropout)]
        self.layers = nn.Sequential(*layers)
        self.head = Linear(widths[-1], num_classes)
        renamed_weights(self, {f"layers.{len(layers)}": "head"})

    def stages(self) -> dict[str, list[str]]:
        """Modules and parameters of each fine-tuning stage, from the input to the ``head``."""
        return {**stages_of("layers", self.layers), "head": ["head"]}

    def reference_forward(
        self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """Logits (batch, class); see the class for the shapes. A ``context`` left out counts as zero."""
        return self._classify(hardest_objects(features, four_momenta, mask, self.num_objects), context)

    def fast_forward(
        self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """The same logits, from packed objects."""
        return self._classify(fast.hardest_objects(features, four_momenta, mask, self.num_objects), context)

    def _classify(self, table: Tensor, context: Tensor | None) -> Tensor:
        """Logits of tables (batch, object, feature)."""
        row = rearrange(table, "batch object feature -> batch (object feature)")
        return self.head(self.layers(join_context(row, context, self.context_dim)))


PAPER = Paper("arXiv:2211.05143", "Attention to the strengths of physical interactions")


@register_model(paper=PAPER, sees="events", variant="baseline: linear layers on the hardest objects; sizes chosen here")
def fully_connected_for_events(input_dim: int, num_classes: int) -> FullyConnected:
    """Fully connected network for events, with the missing transverse momentum as ``context``."""
    return FullyConnected(input_dim, num_classes, context_dim=2)
