"""The edges of ParticleNet, computed in cache-sized blocks.

An edge convolution applies layers to every edge and keeps only their mean at each node. A batch normalisation must see
all edges before the next layer can start, so there is one pass over the edges per layer. It reads the stored product of
the layer before, and does everything else while a block of edges is in the cache.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from zoo.kernels.block_norms import Affine, BlockSums, NormGradient
from zoo.kernels.cpu import linear, outer_sum
from zoo.kernels.norms import RowBatchNorm, track_statistics
from zoo.kernels.segments import segment_mean, segment_sum


class Neighbors(NamedTuple):
    """The neighbours j of all particles, sorted by particle, then by distance."""

    j: Tensor  #: (edge,) node
    starts: Tensor  #: (node + 1,) first edge of each node, and the end


class EdgeBlock(NamedTuple):
    """The edges of some consecutive nodes."""

    nodes: slice
    edges: slice
    j: Tensor  #: (edge,) neighbour
    starts: Tensor  #: (node + 1,) first edge of each of these nodes, counted from the first edge of the block

    def first_layer(self, receiver: Tensor, sender: Tensor) -> Tensor:
        """Sum of the terms of a node and of its neighbour, (edge, feature)."""
        return sender.index_select(0, self.j).add_(self.repeat(receiver[self.nodes]))

    def repeat(self, of_nodes: Tensor) -> Tensor:
        """A row for each edge of these nodes, (node, feature) -> (edge, feature)."""
        return of_nodes.repeat_interleave(self.starts.diff(), dim=0, output_size=len(self.j))

    def mean(self, edge: Tensor) -> Tensor:
        """Mean over the edges of each node, zero where there are none, (edge, feature) -> (node, feature)."""
        return segment_mean(edge, self.starts)


#: Size of an (edge, feature) array that stays in the cache of a core, together with those before and after it.
CACHED_NUMBERS = 1 << 18


def edge_blocks(neighbors: Neighbors, width: int) -> list[EdgeBlock]:
    """Blocks of about `CACHED_NUMBERS` numbers if each edge has ``width``; on a GPU a single one."""
    nodes, edges = len(neighbors.starts) - 1, len(neighbors.j)
    step = max(nodes, 1)
    if neighbors.j.device.type == "cpu" and edges:
        step = max(1, nodes * (CACHED_NUMBERS // width) // edges)
    firsts = [*range(0, nodes, step), nodes]
    positions = neighbors.starts[firsts].tolist()
    return [
        EdgeBlock(
            slice(firsts[k], firsts[k + 1]),
            slice(positions[k], positions[k + 1]),
            neighbors.j[positions[k] : positions[k + 1]],
            neighbors.starts[firsts[k] : firsts[k + 1] + 1] - positions[k],
        )
        for k in range(len(firsts) - 1)
    ]


def edge_mean(
    receiver: Tensor, sender: Tensor, weights: Sequence[Tensor], norms: Sequence[RowBatchNorm], neighbors: Neighbors
) -> Tensor:
    r"""Mean over the neighbours of each node of layers applied to each edge.

    .. math::
        z^1_{ij} = r_i + s_j, \quad z^{l}_{ij} = W_l \, \mathrm{ReLU}(\mathrm{BN}_{l-1}(z^{l-1}_{ij})), \quad
        m_i = \frac{1}{|N_i|} \sum_{j \in N_i} \mathrm{ReLU}(\mathrm{BN}_L(z^L_{ij}))

    Args:
        receiver: r, (node, feature).
        sender: s, (node, feature).
        weights: W of the second and all further layers, (out, in).
        norms: batch normalisations of all layers; in training their running statistics move.
        neighbors: of the nodes.

    Returns:
        m, (node, feature), zero for a node without neighbours.
    """
    blocks = edge_blocks(neighbors, max(norm.num_features for norm in norms))
    has_batch = norms[0].training and len(neighbors.j) > 1
    statistics = None if has_batch else [(norm.running_mean, norm.running_var) for norm in norms]
    scales, shifts = [norm.weight for norm in norms], [norm.bias for norm in norms]
    with torch.autocast(receiver.device.type, enabled=False):
        mean, *moments = _EdgeMean.apply(receiver, sender, blocks, statistics, norms[0].eps, *weights, *scales, *shifts)
    if has_batch:
        for norm, average, variance in zip(norms, moments[::2], moments[1::2], strict=True):
            track_statistics(norm, average, variance, len(neighbors.j))
    return mean


class _Layers(NamedTuple):
    """The layers and their stored outputs z: all but that of the first, a sum of two rows."""

    receiver: Tensor
    sender: Tensor
    weights: list[Tensor]
    outputs: list[Tensor]
    affines: list[Affine]

    def output(self, layer: int, block: EdgeBlock) -> Tensor:
        """z of a block."""
        return self.outputs[layer - 1][block.edges] if layer else block.first_layer(self.receiver, self.sender)

    def activate(self, layer: int, block: EdgeBlock) -> Tensor:
        """ReLU of the normalised z of a block, of the same type."""
        z = self.output(layer, block)
        return self.affines[layer].apply(z).relu_().to(z.dtype)

    def compute(self, layer: int, block: EdgeBlock) -> Tensor:
        """z of a block from the stored output of the layer before."""
        if layer:
            before = self.activate(layer - 1, block)
            self.outputs[layer - 1][block.edges] = linear(before, self.weights[layer - 1])
        return self.output(layer, block)


class _EdgeMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx, receiver, sender, blocks, statistics, eps, *parameters):
        num_layers = (len(parameters) + 1) // 3
        weights = [weight.to(receiver.dtype) for weight in parameters[: num_layers - 1]]
        scales, shifts = parameters[num_layers - 1 : -num_layers], parameters[-num_layers:]
        edges = blocks[-1].edges.stop if blocks else 0
        outputs = [receiver.new_empty(edges, len(weight)) for weight in weights]
        layers = _Layers(receiver, sender, weights, outputs, [])
        moments = []
        for layer, (scale, shift) in enumerate(zip(scales, shifts, strict=True)):
            sums = BlockSums(scale)
            for block in blocks if layer or statistics is None else ():
                z = layers.compute(layer, block)
                if statistics is None:
                    sums.add(z, z)
            mean, variance = sums.moments(edges) if statistics is None else statistics[layer]
            layers.affines.append(Affine.of(mean, variance, eps, scale, shift))
            moments += [mean.clone(), variance.clone()]
        total = receiver.new_zeros(len(receiver), len(scales[-1]))
        for block in blocks:
            total[block.nodes] = block.mean(layers.activate(num_layers - 1, block))
        ctx.save_for_backward(receiver, sender, *weights, *outputs, *(part for of in layers.affines for part in of))
        ctx.blocks, ctx.edges_of_statistics = blocks, edges if statistics is None else None
        ctx.mark_non_differentiable(*moments)
        return total, *moments

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_mean, *_):
        with torch.autocast(grad_mean.device.type, enabled=False):
            return _backward(ctx, grad_mean)


def _backward(ctx, grad_mean: Tensor) -> tuple[Tensor | None, ...]:
    layers = _saved_layers(ctx.saved_tensors)
    top = len(layers.affines) - 1
    grad_receiver, grad_sender = torch.zeros_like(layers.receiver), torch.zeros_like(layers.sender)
    grad_weights = [torch.zeros_like(weight, dtype=layers.affines[0].factor.dtype) for weight in layers.weights]
    grad_scales, grad_shifts = [], []

    def at_top(block: EdgeBlock) -> Tensor:
        of_edge = block.repeat(grad_mean[block.nodes] / block.starts.diff().clamp(min=1)[:, None])
        return of_edge.mul_(layers.activate(top, block) > 0)

    # Gradients of the normalised values, masked by the ReLU; those of the last layer are made when needed.
    masked, sums = None, BlockSums(layers.affines[top].factor)
    for block in ctx.blocks:
        sums.add(at_top(block), layers.output(top, block))
    for layer in range(top, -1, -1):
        rule = NormGradient.of(layers.affines[layer], sums, ctx.edges_of_statistics)
        grad_scales.append(rule.of_scale)
        grad_shifts.append(sums.values.to(sums.dtype))
        if layer:
            sums = BlockSums(layers.affines[layer - 1].factor)
            below = layers.receiver.new_empty(len(layers.outputs[layer - 1]), len(sums.values))
        for block in ctx.blocks:
            gradient = at_top(block) if masked is None else masked[block.edges]
            gradient = rule.apply(gradient, layers.output(layer, block))
            if layer:
                before = layers.activate(layer - 1, block)
                grad_weights[layer - 1] += outer_sum(gradient, before)
                gradient = linear(gradient, layers.weights[layer - 1].T).mul_(before > 0)
                sums.add(gradient, layers.output(layer - 1, block))
                below[block.edges] = gradient
            else:
                grad_receiver[block.nodes] = segment_sum(gradient, block.starts)
                grad_sender.index_add_(0, block.j, gradient)
        masked = below if layer else None
    return grad_receiver, grad_sender, None, None, None, *grad_weights, *grad_scales[::-1], *grad_shifts[::-1]


def _saved_layers(saved: Sequence[Tensor]) -> _Layers:
    """The layers as `_EdgeMean` saved them: two terms, L - 1 weights, L - 1 outputs, and L affine maps of 4 tensors."""
    num_layers = len(saved) // 6
    receiver, sender, *rest = saved
    weights, outputs, parts = (
        rest[: num_layers - 1],
        rest[num_layers - 1 : 2 * num_layers - 2],
        rest[2 * num_layers - 2 :],
    )
    affines = [Affine(*parts[k : k + 4]) for k in range(0, len(parts), 4)]
    return _Layers(receiver, sender, weights, outputs, affines)
