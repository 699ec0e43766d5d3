"""ParticleNet on packed particles and edges: no layer works on padding, and edges are computed in blocks."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.kernels.cpu import linear
from zoo.kernels.norms import fold_norm
from zoo.kernels.packing import LengthGroup, SortedJets, sort_by_length
from zoo.kernels.segments import offsets, segment_mean
from zoo.particlenet.edge_conv import Neighbors, edge_blocks, edge_mean
from zoo.particlenet.neighbors import distance_of_weaver, nearest
from zoo.physics.kinematics import relative_to_jet


def mean_of_particles(model: nn.Module, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
    """Mean (batch, feature) over the particles of each jet after the last block of a `ParticleNet`."""
    x, jets = particles(model, features, four_momenta, mask)
    return segment_mean(x, offsets(jets.counts))[jets.place]


def particles(model: nn.Module, features: Tensor, four_momenta: Tensor, mask: Tensor) -> tuple[Tensor, SortedJets]:
    """Particles (node, embed_dim) after the last block, those of the longest jet first."""
    jets, features, four_momenta = sort_by_length(mask, features, four_momenta)
    x = model.norm(features)
    points = torch.stack(relative_to_jet(four_momenta, jets.counts), dim=1)
    points = points.to(x.dtype) if model.as_weaver else points
    for block in model.blocks:
        if model.as_weaver:
            neighbors = weaver_neighbors(points, jets.counts, model.num_neighbors)
        else:
            neighbors = nearest_neighbors(points, jets.groups, model.num_neighbors)
        x = points = _edge_convolution(block, x, neighbors)
    return x, jets


def _edge_convolution(block: nn.Module, x: Tensor, neighbors: Neighbors) -> Tensor:
    """Updated features (node, dims[-1]) of particles (node, input_dim) by an `EdgeConv`.

    Its first layer is linear in its two arguments, so it is the sum of a term of i and a term of j, which are computed
    once per particle and not per edge. The neighbour number ``len(x)``, which belongs to no particle, stands for one
    whose features are all zero.
    """
    if not (block.training or torch.is_grad_enabled()):
        return _infer(block, x, neighbors)
    first, *further = (layer.weight for layer in block.layers)
    of_i, of_difference = first.chunk(2, dim=1)
    receiver, sender = linear(x, of_i - of_difference), _with_none(linear(x, of_difference))
    mean = edge_mean(receiver, sender, further, list(block.norms), neighbors)
    return F.relu(block.shortcut_norm(block.shortcut(x)) + mean)


def _infer(block: nn.Module, x: Tensor, neighbors: Neighbors) -> Tensor:
    """The same with fixed statistics: they are factors of the weights, so one pass over the edges is enough."""
    (weight, bias), *layers = (fold_norm(layer, norm) for layer, norm in zip(block.layers, block.norms, strict=True))
    of_i, of_difference = weight.chunk(2, dim=1)
    receiver, sender = linear(x, of_i - of_difference, bias), _with_none(linear(x, of_difference))
    mean = linear(x, *fold_norm(block.shortcut, block.shortcut_norm))
    for edges in edge_blocks(neighbors, max(norm.num_features for norm in block.norms)):
        edge = edges.first_layer(receiver, sender).relu_()
        for weight, bias in layers:
            edge = linear(edge, weight, bias, activation="relu")
        mean[edges.nodes] += edges.mean(edge)
    return mean.relu_()


def _with_none(rows: Tensor) -> Tensor:
    """The rows with a row of zeros at the end, for a missing particle."""
    return F.pad(rows, (0, 0, 0, 1))


@torch.no_grad()
def nearest_neighbors(points: Tensor, groups: Sequence[LengthGroup], num_neighbors: int) -> Neighbors:
    """The nearest other particles of the same jet.

    Args:
        points: packed coordinates (node, coordinate), in which the Euclidean distance counts.
        groups: the jets of these particles, in their order.
        num_neighbors: of each particle; all others if the jet has fewer.
    """
    found, first = [], 0
    for group, rows in zip(groups, points.split([group.nodes for group in groups]), strict=True):
        slot, is_real = nearest(group.pad(rows), group.mask, min(num_neighbors, group.mask.shape[1]))
        first_of_jet = first + offsets(group.counts)[:-1]
        found.append(((slot + first_of_jet[:, None, None])[is_real], is_real.sum(-1)[group.mask]))
        first += group.nodes
    j, number = (torch.cat(parts) for parts in zip(*found, strict=True))
    return Neighbors(j, offsets(number))


@torch.no_grad()
def weaver_neighbors(points: Tensor, counts: Tensor, num_neighbors: int) -> Neighbors:
    """The neighbours of weaver-core: always ``num_neighbors``; ``len(points)`` stands for a missing particle.

    One more is found, and the nearest is dropped as the particle itself. Among particles at the same point it may be
    another one, and in weaver-core the choice depends on the rows to which the batch is padded; here the rows are those
    of a single jet.

    Args:
        points: packed coordinates (node, coordinate), those of jets of the same length one after the other.
        counts: (jet,) particles of each jet.
        num_neighbors: of each particle.
    """
    nothing, first, found = len(points), 0, [counts.new_zeros(0)]
    for count, jets in zip(*(run.tolist() for run in counts.unique_consecutive(return_counts=True)), strict=True):
        nodes = torch.arange(first, first + jets * count, device=points.device).view(jets, count)
        missing = (0, max(0, num_neighbors + 1 - count))
        distance = F.pad(distance_of_weaver(points[nodes]), missing, value=torch.inf)
        slot = distance.topk(num_neighbors + 1, largest=False).indices[..., 1:]
        of_jets = F.pad(nodes, missing, value=nothing)
        found.append(of_jets[:, None].expand(-1, count, -1).gather(2, slot).flatten())
        first += jets * count
    starts = torch.arange(nothing + 1, device=points.device) * num_neighbors
    return Neighbors(torch.cat(found), starts)
