"""ParticleNet: convolutions over the nearest neighbours of each particle, which are found anew in every block.

References:
    ParticleNet: Jet Tagging via Particle Clouds (2019), arXiv:1902.08570.
    Dynamic Graph CNN for Learning on Point Clouds (2018), arXiv:1801.07829.
"""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.kernels.building import join_context, stages_of
from zoo.kernels.cpu import Linear, linear
from zoo.kernels.norms import RowBatchNorm, fold_norm
from zoo.kernels.packing import LengthGroup, SortedJets, sort_by_length
from zoo.kernels.segments import offsets, segment_mean
from zoo.particlenet.edge_conv import Neighbors, edge_blocks, edge_mean
from zoo.physics.kinematics import relative_to_jet
from zoo.registry import Paper, register_model


class ParticleNet(nn.Module):
    r"""Edge convolutions, a mean over the particles, and a perceptron.

    Neighbours are near in the plane of pseudorapidity and azimuth in the first block, and near in the features that
    the block before has made in the others.

    Note: departures from the reference implementation, each with a test.
        - A particle is never its own neighbour. The reference drops the nearest of k + 1 as the particle itself, which
          among particles in the same direction, as of one calorimeter cell, may be another.
        - Only real particles are neighbours. In a jet with fewer than k + 1 particles each has all others as
          neighbours, and averages over as many as there are; a lone particle has none, and keeps its shortcut only.
        - Particles and edges are packed, so no batch normalisation sees padding.

    Args:
        input_dim: number of features of a particle.
        num_classes: number of logits.
        num_neighbors: k.
        as_weaver: whether the neighbourhood is that of weaver-core (`weaver_neighbors`): the nearest of k + 1 is
            dropped as the particle itself, and where there are fewer, particles without features fill up to k. Weights
            of weaver-core are used to that.
        conv_dims: widths of the layers of each block.
        head_dim: width of the hidden layer before the logits.
        dropout: after it.
        context_dim: event quantities, such as the missing transverse momentum, that join the mean over the particles.

    Shapes:
        features (batch, particle, feature), four_momenta (batch, particle, 4) as (E, px, py, pz) in GeV,
        mask (batch, particle), True for a real particle, context (batch, context_dim); logits (batch, class).
    """

    #: Parts that `encode` does not use.
    readout = ("head",)

    def __init__(
        self,
        input_dim: int,
        num_classes: int,
        *,
        num_neighbors: int = 16,
        as_weaver: bool = False,
        conv_dims: Sequence[Sequence[int]] = ((64, 64, 64), (128, 128, 128), (256, 256, 256)),
        head_dim: int = 256,
        dropout: float = 0.1,
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
        """What fine-tuning tells apart, from the input to the ``head``: the modules and parameters of each stage."""
        return {"input_norm": ["norm"], **stages_of("blocks", self.blocks), "head": ["head"]}

    def forward(self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None) -> Tensor:
        """Logits (batch, class); see the class for the shapes. A ``context`` left out counts as zero."""
        x, jets = self._particles(features, four_momenta, mask)
        mean = segment_mean(x, offsets(jets.counts))
        return self.head(join_context(mean[jets.place], context, self.context_dim))

    def encode(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
        """Representation (node, embed_dim) of the real particles after the last block, packed as by `pack`."""
        x, jets = self._particles(features, four_momenta, mask)
        return jets.unsort(x)

    def _particles(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> tuple[Tensor, SortedJets]:
        """Particles (node, embed_dim) after the last block, those of the longest jet first."""
        jets, features, four_momenta = sort_by_length(mask, features, four_momenta)
        x = self.norm(features)
        points = torch.stack(relative_to_jet(four_momenta, jets.counts), dim=1)
        points = points.to(x.dtype) if self.as_weaver else points
        for block in self.blocks:
            x = points = block(x, self._neighbors(points, jets))
        return x, jets

    def _neighbors(self, points: Tensor, jets: SortedJets) -> Neighbors:
        if self.as_weaver:
            return weaver_neighbors(points, jets.counts, self.num_neighbors)
        return nearest_neighbors(points, jets.groups, self.num_neighbors)


class EdgeConv(nn.Module):
    r"""Edge convolution with a shortcut.

    .. math::
        x_i \leftarrow \mathrm{ReLU}\Big( W_s x_i + \frac{1}{|N_i|} \sum_{j \in N_i} h(x_i, x_j - x_i) \Big)

    The first layer of h is linear in its two arguments, so it is the sum of a term of i and a term of j, which are
    formed once a particle and not once an edge. Every layer is followed by a batch normalisation.
    """

    def __init__(self, input_dim: int, dims: Sequence[int]) -> None:
        super().__init__()
        widths = [2 * input_dim, *dims]
        self.layers = nn.ModuleList(Linear(*pair, bias=False) for pair in itertools.pairwise(widths))
        self.norms = nn.ModuleList(RowBatchNorm(dim) for dim in dims)
        self.shortcut = Linear(input_dim, dims[-1], bias=False)
        self.shortcut_norm = RowBatchNorm(dims[-1])

    def forward(self, x: Tensor, neighbors: Neighbors) -> Tensor:
        """Updated features (node, dims[-1]) of particles (node, input_dim).

        A neighbour with the number of no particle, ``len(x)``, counts as one whose features are all zero.
        """
        if not (self.training or torch.is_grad_enabled()):
            return self._infer(x, neighbors)
        first, *further = (layer.weight for layer in self.layers)
        of_i, of_difference = first.chunk(2, dim=1)
        receiver, sender = linear(x, of_i - of_difference), _with_none(linear(x, of_difference))
        mean = edge_mean(receiver, sender, further, list(self.norms), neighbors)
        return F.relu(self.shortcut_norm(self.shortcut(x)) + mean)

    def _infer(self, x: Tensor, neighbors: Neighbors) -> Tensor:
        """The same with fixed statistics, which are factors of the weights, so one pass over the edges is enough."""
        (weight, bias), *layers = (fold_norm(layer, norm) for layer, norm in zip(self.layers, self.norms, strict=True))
        of_i, of_difference = weight.chunk(2, dim=1)
        receiver, sender = linear(x, of_i - of_difference, bias), _with_none(linear(x, of_difference))
        mean = linear(x, *fold_norm(self.shortcut, self.shortcut_norm))
        for block in edge_blocks(neighbors, max(norm.num_features for norm in self.norms)):
            edge = block.first_layer(receiver, sender).relu_()
            for weight, bias in layers:
                edge = linear(edge, weight, bias, activation="relu")
            mean[block.nodes] += block.mean(edge)
        return mean.relu_()


def _with_none(rows: Tensor) -> Tensor:
    """A row of zeros at the end, for what is no particle."""
    return F.pad(rows, (0, 0, 0, 1))


@torch.no_grad()
def nearest_neighbors(points: Tensor, groups: Sequence[LengthGroup], num_neighbors: int) -> Neighbors:
    """The nearest other particles of the same jet.

    Args:
        points: packed coordinates (node, coordinate), in which the Euclidean distance counts.
        groups: the jets of these particles, in their order.
        num_neighbors: of each particle; all others where the jet has not so many.
    """
    if points.dtype in (torch.float16, torch.bfloat16):
        points = points.float()
    found, first = [], 0
    for group, rows in zip(groups, points.split([group.nodes for group in groups]), strict=True):
        slot, is_real = _nearest_slots(group.pad(rows), group.mask, num_neighbors)
        first_of_jet = first + offsets(group.counts)[:-1]
        found.append(((slot + first_of_jet[:, None, None])[is_real], is_real.sum(-1)[group.mask]))
        first += group.nodes
    j, number = (torch.cat(parts) for parts in zip(*found, strict=True))
    return Neighbors(j, offsets(number))


def _nearest_slots(points: Tensor, mask: Tensor, num_neighbors: int) -> tuple[Tensor, Tensor]:
    """Neighbours (jet, particle, neighbour) of padded points (jet, particle, coordinate), and which there are."""
    with torch.autocast(points.device.type, enabled=False):
        square = points.square().sum(-1)
        distance = torch.baddbmm(square[:, None, :], points, points.mT, alpha=-2)  # less the square of the point itself
    distance.masked_fill_(~mask[:, None, :], torch.inf)
    distance.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    distance, slot = distance.topk(min(num_neighbors, mask.shape[1]), largest=False)
    return slot, distance.isfinite() & mask[:, :, None]


@torch.no_grad()
def weaver_neighbors(points: Tensor, counts: Tensor, num_neighbors: int) -> Neighbors:
    """The neighbours of weaver-core: always ``num_neighbors``; ``len(points)`` stands for what is no particle.

    The nearest of one more is dropped as the particle itself. Among particles at the same point it may be another, and
    which one depends there on the rows that the batch is padded to; here they are those of a jet alone.

    Args:
        points: packed coordinates (node, coordinate), those of jets of the same length one after the other.
        counts: (jet,) particles of each jet.
        num_neighbors: of each particle.
    """
    if points.dtype in (torch.float16, torch.bfloat16):
        points = points.float()
    nothing, first, found = len(points), 0, [counts.new_zeros(0)]
    for count, jets in zip(*(run.tolist() for run in counts.unique_consecutive(return_counts=True)), strict=True):
        nodes = torch.arange(first, first + jets * count, device=points.device).view(jets, count)
        slot = _slots_of_weaver(points[nodes], num_neighbors)
        of_jets = F.pad(nodes, (0, max(0, num_neighbors + 1 - count)), value=nothing)
        found.append(of_jets[:, None].expand(-1, count, -1).gather(2, slot).flatten())
        first += jets * count
    starts = torch.arange(nothing + 1, device=points.device) * num_neighbors
    return Neighbors(torch.cat(found), starts)


def _slots_of_weaver(points: Tensor, num_neighbors: int) -> Tensor:
    """Neighbours (jet, particle, neighbour) of points (jet, particle, coordinate); further ones are no particles."""
    columns = points.mT.contiguous()
    with torch.autocast(points.device.type, enabled=False):
        square = columns.square().sum(1, keepdim=True)
        # as it is written there, which decides between particles at the same point
        distance = (square.mT - 2 * (columns.mT @ columns) + square).clamp(min=0)
    distance = F.pad(distance, (0, max(0, num_neighbors + 1 - points.shape[1])), value=torch.inf)
    return distance.topk(num_neighbors + 1, largest=False).indices[..., 1:]


PAPER = Paper("arXiv:1902.08570", "ParticleNet: Jet Tagging via Particle Clouds")


@register_model(paper=PAPER, sees="jets")
def particlenet(input_dim: int, num_classes: int) -> ParticleNet:
    """ParticleNet of arXiv:1902.08570, 366,160 parameters with 7 features and 2 classes."""
    return ParticleNet(input_dim, num_classes)


@register_model(paper=PAPER, sees="jets", variant="for weights of weaver-core")
def particlenet_weaver(input_dim: int, num_classes: int) -> ParticleNet:
    """`particlenet` for weights that weaver-core trained, with its neighbourhoods; train `particlenet` instead."""
    return ParticleNet(input_dim, num_classes, as_weaver=True)


@register_model(paper=PAPER, sees="jets", variant="ParticleNet-Lite of the paper")
def particlenet_lite(input_dim: int, num_classes: int) -> ParticleNet:
    """ParticleNet-Lite of arXiv:1902.08570, 26,416 parameters with 7 features and 2 classes."""
    return ParticleNet(input_dim, num_classes, num_neighbors=7, conv_dims=((32, 32, 32), (64, 64, 64)), head_dim=128)


@register_model(paper=PAPER, sees="events")
def particlenet_for_events(input_dim: int, num_classes: int) -> ParticleNet:
    """`particlenet` for the objects of an event, with the missing transverse momentum as ``context``.

    With at most 17 objects each has all others as neighbours.
    """
    return ParticleNet(input_dim, num_classes, context_dim=2)
