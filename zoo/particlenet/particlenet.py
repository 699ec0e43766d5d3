"""ParticleNet: convolutions over the nearest neighbours of each particle, found again in every block.

References:
    ParticleNet: Jet Tagging via Particle Clouds (2019), arXiv:1902.08570.
    Dynamic Graph CNN for Learning on Point Clouds (2018), arXiv:1801.07829.
"""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import reduce
from torch import Tensor, nn

from zoo.kernels.building import join_context, stages_of
from zoo.kernels.cpu import Linear
from zoo.kernels.norms import RowBatchNorm, masked_batch_norm
from zoo.model import JetModel
from zoo.particlenet import fast
from zoo.particlenet.neighbors import Slots, nearest, nearest_of_weaver
from zoo.physics.kinematics import relative_to_axis
from zoo.registry import Paper, register_model


class ParticleNet(JetModel):
    r"""Edge convolutions, a mean over the particles, and a perceptron.

    .. math:: x_i \leftarrow \mathrm{EdgeConv}(x)_i, \quad \mathrm{logits} = \mathrm{MLP}\Big(\frac1N \sum_i x_i\Big)

    In the first block, neighbours are close in pseudorapidity and azimuth; in the others, they are close in the
    features of the block before.

    Note: departures from the reference implementation, each with a test.
        - A particle is never its own neighbour. The reference drops the nearest of k + 1 as the particle itself, which
          may be another one if several have the same direction, as from one calorimeter cell.
        - Only real particles are neighbours. In a jet with fewer than k + 1 particles each has all others as
          neighbours, and averages over those; a single particle has none, and keeps only its shortcut.
        - No batch normalisation sees padding, of particles or of edges.

    Args:
        input_dim: number of features of a particle.
        num_classes: number of logits.
        dropout: after the hidden layer of the head.
        num_neighbors: k.
        as_weaver: whether the neighbourhood is that of weaver-core (`nearest_of_weaver`): the nearest of k + 1 is
            dropped as the particle itself, and if there are fewer, particles without features fill up to k. Weights
            trained with weaver-core expect it.
        conv_dims: widths of the layers of each block.
        head_dim: width of the hidden layer before the logits.
        context_dim: number of event quantities, such as the missing transverse momentum, that join the mean over the
            particles.

    Shapes:
        features (batch, particle, feature), four_momenta (batch, particle, 4) as (E, px, py, pz) in GeV,
        mask (batch, particle), True for a real particle, context (batch, context_dim); logits (batch, class).
    """

    #: Of two particles at the same distance, either may be the last neighbour.
    jumps = True

    def __init__(
        self,
        input_dim: int,
        num_classes: int,
        *,
        dropout: float = 0.1,
        num_neighbors: int = 16,
        as_weaver: bool = False,
        conv_dims: Sequence[Sequence[int]] = ((64, 64, 64), (128, 128, 128), (256, 256, 256)),
        head_dim: int = 256,
        context_dim: int = 0,
    ) -> None:
        super().__init__()
        self.num_neighbors = num_neighbors
        self.as_weaver = as_weaver
        self.embed_dim = conv_dims[-1][-1]
        self.context_dim = context_dim
        self.norm = RowBatchNorm(input_dim)
        widths = [input_dim, *(dims[-1] for dims in conv_dims)]
        self.blocks = nn.ModuleList(EdgeConv(width, dims) for width, dims in zip(widths, conv_dims, strict=False))
        self.head = nn.Sequential(
            nn.Linear(widths[-1] + context_dim, head_dim),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(head_dim, num_classes),
        )

    def stages(self) -> dict[str, list[str]]:
        """Modules and parameters of each fine-tuning stage, from the input to the ``head``."""
        return {"input_norm": ["norm"], **stages_of("blocks", self.blocks), "head": ["head"]}

    def reference_forward(
        self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """Logits (batch, class); see the class for the shapes. A ``context`` left out counts as zero."""
        x = self.reference_encode(features, four_momenta, mask).where(mask[:, :, None], 0)
        number = mask.sum(1, keepdim=True).clamp(min=1)
        mean = reduce(x, "batch particle feature -> batch feature", "sum") / number
        return self.head(join_context(mean, context, self.context_dim))

    def reference_encode(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
        """Representation (batch, particle, embed_dim) of the particles after the last block."""
        particles = mask.shape[1]
        # Rows without a particle are appended, so that there are always enough for the neighbours.
        features, four_momenta = (F.pad(value, (0, 0, 0, self.num_neighbors + 1)) for value in (features, four_momenta))
        mask = F.pad(mask, (0, self.num_neighbors + 1))
        x = masked_batch_norm(self.norm, features, mask)
        axis = four_momenta.double().sum(1, keepdim=True)
        points = torch.stack(relative_to_axis(four_momenta, axis), dim=-1)
        points = points.to(x.dtype) if self.as_weaver else points
        find = nearest_of_weaver if self.as_weaver else nearest
        for block in self.blocks:
            x = points = block(x, find(points, mask, self.num_neighbors), mask)
        return x[:, :particles]

    def fast_forward(
        self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """The same logits, from packed particles and edges."""
        mean = fast.mean_of_particles(self, features, four_momenta, mask)
        return self.head(join_context(mean, context, self.context_dim))

    def fast_encode(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
        """Representation (node, embed_dim) of the real particles, from packed particles and edges."""
        x, jets = fast.particles(self, features, four_momenta, mask)
        return jets.unsort(x)


class EdgeConv(nn.Module):
    r"""Edge convolution with a shortcut.

    .. math::
        x_i \leftarrow \mathrm{ReLU}\Big( \mathrm{BN}(W x_i) + \frac{1}{|N_i|} \sum_{j \in N_i} h(x_i, x_j - x_i) \Big)

    with the neighbours :math:`N_i` of particle i, and h linear layers, each with a batch normalisation and a ReLU.
    """

    def __init__(self, input_dim: int, dims: Sequence[int]) -> None:
        super().__init__()
        widths = [2 * input_dim, *dims]
        self.layers = nn.ModuleList(Linear(*pair, bias=False) for pair in itertools.pairwise(widths))
        self.norms = nn.ModuleList(RowBatchNorm(dim) for dim in dims)
        self.shortcut = Linear(input_dim, dims[-1], bias=False)
        self.shortcut_norm = RowBatchNorm(dims[-1])

    def forward(self, x: Tensor, neighbors: Slots, mask: Tensor) -> Tensor:
        """Updated features (batch, particle, dims[-1]) of particles (batch, particle, input_dim)."""
        x = x.where(mask[:, :, None], 0)
        x_j = x[torch.arange(mask.shape[0], device=x.device)[:, None, None], neighbors.slot]
        x_i = x[:, :, None].expand_as(x_j)
        edge = torch.cat([x_i, x_j - x_i], dim=-1)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            edge = F.relu(masked_batch_norm(norm, layer(edge), neighbors.is_real))
        edge = edge.where(neighbors.is_real[..., None], 0)
        number = neighbors.is_real.sum(-1, keepdim=True).clamp(min=1)
        mean = reduce(edge, "batch particle neighbor feature -> batch particle feature", "sum") / number
        return F.relu(masked_batch_norm(self.shortcut_norm, self.shortcut(x), mask) + mean)


PAPER = Paper("arXiv:1902.08570", "ParticleNet: Jet Tagging via Particle Clouds")


@register_model(paper=PAPER, sees="jets")
def particlenet(input_dim: int, num_classes: int) -> ParticleNet:
    """ParticleNet of arXiv:1902.08570, 366,160 parameters with 7 features and 2 classes."""
    return ParticleNet(input_dim, num_classes)


@register_model(paper=PAPER, sees="jets", variant="for weights of weaver-core")
def particlenet_weaver(input_dim: int, num_classes: int) -> ParticleNet:
    """`particlenet` with the neighbours of weaver-core, for its weights; for new trainings, use `particlenet`."""
    return ParticleNet(input_dim, num_classes, as_weaver=True)


@register_model(paper=PAPER, sees="jets", variant="ParticleNet-Lite of the paper")
def particlenet_lite(input_dim: int, num_classes: int) -> ParticleNet:
    """ParticleNet-Lite of arXiv:1902.08570, 26,416 parameters with 7 features and 2 classes."""
    return ParticleNet(input_dim, num_classes, num_neighbors=7, conv_dims=((32, 32, 32), (64, 64, 64)), head_dim=128)


@register_model(paper=PAPER, sees="events")
def particlenet_for_events(input_dim: int, num_classes: int) -> ParticleNet:
    """`particlenet` for the objects of an event, with the missing transverse momentum as ``context``.

    With at most 17 objects, each has all others as neighbours.
    """
    return ParticleNet(input_dim, num_classes, context_dim=2)
