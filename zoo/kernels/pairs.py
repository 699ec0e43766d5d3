"""Pairs of the particles of a jet, packed and cut into blocks that fit into the cache."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from zoo.kernels.segments import gather_sum, offsets


@dataclass(frozen=True)
class Pairs:
    """Ordered pairs i != j of particles of the same jet, sorted by jet, then i, then j.

    Only real pairs are listed, so no computation on this list is spent on padding.
    """

    i: Tensor  #: (pair,) receiving node
    j: Tensor  #: (pair,) sending node
    reverse: Tensor  #: (pair,) position of the pair (j, i)
    starts: Tensor  #: (node + 1,) first pair of each node i, and the end


@dataclass(frozen=True)
class PairBlock:
    """The pairs of consecutive whole jets, few enough to stay in the cache; indices count from the block's start."""

    node_slice: slice
    pair_slice: slice
    pairs: Pairs
    rows: Tensor  #: (pair,) 0, 1, 2, ...
    ends: Tensor  #: (2 * pair,) i and j of each pair in turn, j counted from the number of nodes of the block
    end_starts: Tensor  #: (pair + 1,) 0, 2, 4, ...

    def sum_ends(self, at_i: Tensor, at_j: Tensor) -> Tensor:
        """A term of i and a term of j, (node, feature) each, added for each pair, (pair, feature)."""
        return gather_sum(torch.cat([at_i, at_j]), self.ends, self.end_starts)


def complete_pairs(counts: Tensor) -> Pairs:
    """All pairs of jets with ``counts`` (jet,) particles each.

    Example:
        >>> pairs = complete_pairs(torch.tensor([1, 3]))
        >>> list(zip(pairs.i.tolist(), pairs.j.tolist()))
        [(1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2)]
    """
    first_node = offsets(counts)
    jet = torch.repeat_interleave(counts)
    partners = counts[jet] - 1
    starts = offsets(partners)
    i = torch.repeat_interleave(partners)
    first_of_jet = first_node[jet[i]]
    i_in_jet = i - first_of_jet
    rank = torch.arange(len(i), device=i.device) - starts[i]
    j_in_jet = rank + (rank >= i_in_jet)
    j = first_of_jet + j_in_jet
    reverse = starts[j] + i_in_jet - (i_in_jet > j_in_jet).long()
    return Pairs(i, j, reverse, starts)


def unordered_pairs(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs i >= j of jets with ``counts`` (jet,) particles each, including each particle with itself.

    Example:
        >>> i, j = unordered_pairs(torch.tensor([1, 2]))
        >>> list(zip(i.tolist(), j.tolist()))
        [(0, 0), (1, 1), (2, 1), (2, 2)]
    """
    first_of_jet = torch.repeat_interleave(offsets(counts)[:-1], counts)
    rank = torch.arange(len(first_of_jet), device=counts.device) - first_of_jet
    i = torch.repeat_interleave(rank + 1)
    j = torch.arange(len(i), device=counts.device) - offsets(rank + 1)[i] + first_of_jet[i]
    return i, j


def pair_blocks(pairs: Pairs, counts: Tensor, max_pairs: int) -> list[PairBlock]:
    """Cut the pairs of jets with ``counts`` (jet,) particles into runs of at most ``max_pairs``, or of one jet."""
    starts = offsets(counts)
    pair_edges, node_edges = pairs.starts[starts].tolist(), starts.tolist()
    blocks, begin = [], 0
    for end in range(1, len(node_edges)):
        if end + 1 < len(node_edges) and pair_edges[end + 1] - pair_edges[begin] <= max_pairs:
            continue
        if pair_edges[end] > pair_edges[begin]:
            nodes = slice(node_edges[begin], node_edges[end])
            blocks.append(_block(pairs, nodes, slice(pair_edges[begin], pair_edges[end])))
        begin = end
    return blocks


def _block(pairs: Pairs, nodes: slice, rows: slice) -> PairBlock:
    # Half the index bytes make the gathers measurably faster.
    i = (pairs.i[rows] - nodes.start).int()
    j = (pairs.j[rows] - nodes.start).int()
    reverse = (pairs.reverse[rows] - rows.start).int()
    starts = (pairs.starts[nodes.start : nodes.stop + 1] - rows.start).int()
    ends = torch.stack([i, j + (nodes.stop - nodes.start)], dim=1).flatten()
    counting = torch.arange(2 * len(i) + 1, dtype=i.dtype, device=i.device)
    return PairBlock(nodes, rows, Pairs(i, j, reverse, starts), counting[: len(i)], ends, counting[::2].contiguous())


def pair_sum(values: Tensor, weight: Tensor, pairs: Pairs) -> Tensor:
    r"""Weighted sum over the partners of each particle, :math:`\sum_{j \ne i} w_{ij} v_j`.

    Args:
        values: v, (node, feature).
        weight: w, (pair,) of the same dtype.
        pairs: of the nodes.

    Returns:
        (node, feature).
    """
    return _PairSum.apply(values, weight, pairs)


def pair_dot(left: Tensor, right: Tensor, pairs: Pairs) -> Tensor:
    r"""Product of the rows of each pair, :math:`\sum_c l_{ic} r_{jc}`.

    Args:
        left: l, (node, column).
        right: r, (node, column) of the same dtype.
        pairs: of the nodes.

    Returns:
        (pair,).
    """
    # By columns, as gathers of single numbers are faster than those of short rows.
    total = left.new_zeros(len(pairs.i))
    for left_column, right_column in zip(left.T.contiguous(), right.T.contiguous(), strict=True):
        total.addcmul_(left_column.index_select(0, pairs.i), right_column.index_select(0, pairs.j))
    return total


class _PairSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, pairs: Pairs) -> Tensor:
        ctx.save_for_backward(values, weight)
        ctx.pairs = pairs
        return gather_sum(values, pairs.j, pairs.starts, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        values, weight = ctx.saved_tensors
        pairs = ctx.pairs
        grad_values = gather_sum(gradient, pairs.j, pairs.starts, weight.index_select(0, pairs.reverse))
        return grad_values, pair_dot(gradient, values, pairs), None
