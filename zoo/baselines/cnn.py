"""Convolutions along the ordered objects of an event, as in arXiv:2211.05143; the sizes are our choice."""

import itertools
from collections.abc import Sequence

from einops import rearrange
from torch import Tensor, nn

from zoo.baselines import fast
from zoo.baselines.hardest import MAX_OBJECTS, hardest_objects
from zoo.kernels.building import join_context, stages_of
from zoo.kernels.cpu import Dropout, Linear
from zoo.model import JetModel
from zoo.registry import Paper, register_model


class ObjectCNN(JetModel):
    """Convolutions of kernel size 3 along the hardest objects, and a hidden layer on all of their output.

    There is no batch normalisation, so the places of absent objects enter no statistics. Unlike `zoo.pcnn.PCNN`, which
    takes the mean over any number of particles, it keeps the positions of the objects separate.

    Args:
        input_dim: number of features per object.
        num_classes: number of logits.
        num_objects: number of objects used (`hardest_objects`); the places of absent ones are zero.
        conv_dims: widths of the convolutions, each with a ReLU.
        hidden_dim: width of the layer before the last.
        dropout: after it.
        context_dim: event quantities, such as the missing transverse momentum, appended to the convolutions' output.

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
        conv_dims: Sequence[int] = (64, 64, 32),
        hidden_dim: int = 128,
        dropout: float = 0.1,
        context_dim: int = 0,
    ) -> None:
        super().__init__()
        self.num_objects = num_objects
        self.context_dim = context_dim
        layers = []
        for before, after in itertools.pairwise([input_dim, *conv_dims]):
            layers += [nn.Conv1d(before, after, kernel_size=3, padding=1), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        self.head = nn.Sequential(
            Linear(conv_dims[-1] * num_objects + context_dim, hidden_dim),
            nn.ReLU(),
            Dropout(dropout),
            Linear(hidden_dim, num_classes),
        )

    def stages(self) -> dict[str, list[str]]:
        """Modules and parameters of each fine-tuning stage, from the input to the ``head``."""
        return {**stages_of("convolutions", self.convolutions), "head": ["head"]}

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
        rows = self.convolutions(rearrange(table, "batch object feature -> batch feature object"))
        rows = rearrange(rows, "batch feature object -> batch (feature object)")
        return self.head(join_context(rows, context, self.context_dim))


PAPER = Paper("arXiv:2211.05143", "Attention to the strengths of physical interactions")


@register_model(
    paper=PAPER, sees="events", variant="baseline: convolutions along the hardest objects; sizes chosen here"
)
def cnn_for_events(input_dim: int, num_classes: int) -> ObjectCNN:
    """Convolutional network for events, with the missing transverse momentum as ``context``."""
    return ObjectCNN(input_dim, num_classes, context_dim=2)
