"""PELICAN on packed pairs: what `zoo.pelican.pelican` computes, without padding."""

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.kernels.cpu import linear
from zoo.kernels.segments import offsets, segment_sum

if TYPE_CHECKING:
    from zoo.pelican.pelican import Equivariant2To2, PairLayer, Pelican


class Squares(NamedTuple):
    """All ordered pairs of the nodes of each jet, each with itself included, sorted by jet, then i, then j."""

    count: Tensor  #: (jet,) nodes of each jet
    jet: Tensor  #: (node,) jet of each node
    node_starts: Tensor  #: (jet + 1,) first node of each jet, and the end
    starts: Tensor  #: (node + 1,) first pair of each node i, and the end
    reverse: Tensor  #: (pair,) position of the pair (j, i)
    diagonal: Tensor  #: (node,) position of each node's pair with itself
    i: Tensor  #: (pair,) node i
    j: Tensor  #: (pair,) node j


def squares(count: Tensor) -> Squares:
    """The pairs of jets with ``count`` (jet,) nodes."""
    node_starts = offsets(count)
    jet = torch.repeat_interleave(count)
    partners = count[jet]
    starts = offsets(partners)
    i = torch.repeat_interleave(partners)
    first = node_starts[jet]
    in_jet = torch.arange(len(jet), device=count.device) - first
    j_in_jet = torch.arange(len(i), device=count.device) - starts[i]
    j = first[i] + j_in_jet
    return Squares(count, jet, node_starts, starts, starts[j] + in_jet[i], starts[:-1] + in_jet, i, j)


def logits(model: "Pelican", four_momenta: Tensor, mask: Tensor) -> Tensor:
    """Logits (batch, class)."""
    products, kinds, is_node = model.products(four_momenta, mask)
    pairs = squares(is_node.sum(1))
    x = model.norm(model.compress(products[is_node[:, :, None] & is_node[:, None]]))
    layer = model.kinds
    scale, kinds = layer.scales(pairs.count), kinds[is_node]
    of_jet, of_trace = layer.jet_terms(scale, _jet_means(kinds, pairs))
    of_i, of_j, of_node = layer.node_terms(scale[pairs.jet], kinds)
    x = torch.cat([x, _spread(of_i + of_jet[pairs.jet], of_j, of_node + of_trace[pairs.jet], pairs)], dim=1)
    for block in model.blocks:
        x = F.leaky_relu(_aggregate(block.aggregate, _pair_layer(block.pairs, x), pairs))
    x = _pair_layer(model.pairs, x)
    rows = segment_sum(x, pairs.starts) / pairs.count[pairs.jet][:, None]
    return model.head(model.pool.of_means(_jet_means(rows, pairs), _jet_means(x[pairs.diagonal], pairs), pairs.count))


def _pair_layer(layer: "PairLayer", x: Tensor) -> Tensor:
    return layer.dropout(layer.norm(F.leaky_relu(linear(x, layer.linear.weight, layer.linear.bias))))


def _aggregate(layer: "Equivariant2To2", x: Tensor, pairs: Squares) -> Tensor:
    weights, scale = layer.weights, layer.scales(pairs.count)
    transposed = _Transpose.apply(x, pairs.reverse)
    partners = pairs.count[pairs.jet][:, None]
    columns, rows = (segment_sum(values, pairs.starts) / partners for values in (transposed, x))
    diagonal = x[pairs.diagonal]
    of_jet, of_trace = layer.jet_terms(weights, scale, _jet_means(diagonal, pairs), _jet_means(rows, pairs))
    of_i, of_j, of_node = layer.node_terms(weights, scale[pairs.jet], diagonal, columns, rows)
    y = linear(torch.cat([x, transposed], dim=1), torch.cat([weights[0], weights[1]]).T.contiguous())
    return y + _spread(of_i + of_jet[pairs.jet], of_j, of_node + of_trace[pairs.jet], pairs)


def _spread(of_i: Tensor, of_j: Tensor, of_node: Tensor, pairs: Squares) -> Tensor:
    """Terms of i, of j and of the diagonal (node, channel), on pairs (pair, channel)."""
    y = of_i[pairs.i] + of_j[pairs.j]
    return y.index_add(0, pairs.diagonal, of_node.to(y.dtype))


def _jet_means(values: Tensor, pairs: Squares) -> Tensor:
    return segment_sum(values, pairs.node_starts) / pairs.count[:, None]


class _Transpose(torch.autograd.Function):
    # The pair (j, i) in the place of (i, j): its own inverse, so the gradient is no scatter.
    @staticmethod
    def forward(ctx, x: Tensor, reverse: Tensor) -> Tensor:
        ctx.save_for_backward(reverse)
        return x.index_select(0, reverse)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        (reverse,) = ctx.saved_tensors
        return gradient.index_select(0, reverse), None
