"""The pair messages of LorentzNet, computed in cache-sized blocks and recomputed in the backward pass.

Arrays of size (pair, embed_dim) exist only here and only for one block of jets at a time, so memory does not grow with
the number of pairs, and matrix products find their operands in the cache.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from zoo.kernels.building import psi
from zoo.kernels.cpu import linear, outer_sum
from zoo.kernels.pairs import PairBlock, Pairs, pair_dot
from zoo.kernels.segments import gather_sum, segment_sum
from zoo.physics.lorentz import METRIC, squared_mass


def pair_invariants(x: Tensor, pairs: Pairs, dtype: torch.dtype) -> Tensor:
    r"""The two invariants of each pair, :math:`\psi(\|x_i - x_j\|^2)` and :math:`\psi(\langle x_i, x_j \rangle)`.

    Args:
        x: four-momenta (node, 4) in GeV, float64.
        pairs: of the nodes.
        dtype: of the result; the products themselves are formed in float64.

    Returns:
        (pair, 2).
    """
    return _PairInvariants.apply(x, pairs, dtype)


class MessageWeights(NamedTuple):
    """Weights of the layers after the first layer of phi_e, in torch's (out, in) order."""

    edge: Tensor  #: (embed_dim, embed_dim), second layer of phi_e
    edge_bias: Tensor  #: (embed_dim,)
    gate: Tensor | None = None  #: (1, embed_dim), phi_m; none where messages are not gated
    gate_bias: Tensor | None = None  #: (1,)
    shift: Tensor | None = None  #: (embed_dim, embed_dim), first layer of phi_x; none in the last block
    shift_bias: Tensor | None = None  #: (embed_dim,)
    shift_out: Tensor | None = None  #: (1, embed_dim), second layer of phi_x


class _Activations(NamedTuple):
    """Intermediate results of one block, each (pair, embed_dim) unless stated otherwise."""

    first: Tensor  # after the first layer of phi_e
    edge: Tensor  # after the second
    gate: Tensor | None  # (pair, 1)
    message: Tensor  # gate * edge, or the edge
    shift: Tensor | None  # after the first layer of phi_x


def pair_messages(
    receiver: Tensor,
    sender: Tensor,
    invariants: Tensor,
    invariant_weight: Tensor,
    weights: MessageWeights,
    blocks: list[PairBlock],
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    r"""Messages of all pairs summed over the senders, and the coordinate weight of each pair.

    .. math::
        a_{ij} &= \mathrm{ReLU}(r_i + s_j + W \, \mathrm{inv}_{ij}), \quad
        e_{ij} = \mathrm{ReLU}(W_e a_{ij} + b_e), \quad
        m_{ij} = \sigma(w_m e_{ij} + b_m) \, e_{ij} \\
        M_i &= \sum_j m_{ij}, \quad c_{ij} = w_x \mathrm{ReLU}(W_x m_{ij} + b_x)

    Args:
        receiver: r, (node, embed_dim).
        sender: s, (node, embed_dim).
        invariants: (pair, invariant).
        invariant_weight: W transposed, (invariant, embed_dim).
        weights: the other weights; without those of a gate, m is e.
        blocks: the pairs, cut into runs of jets.
        dtype: of the layers after the first; sums over pairs are returned in the dtype of ``receiver``.

    Returns:
        M (node, embed_dim), and c (pair,), of length zero if ``weights`` has no phi_x.
    """
    return _PairMessages.apply(receiver, sender, invariants, invariant_weight, blocks, dtype, *weights)


class _PairMessages(torch.autograd.Function):
    @staticmethod
    def forward(ctx, receiver, sender, invariants, invariant_weight, blocks, dtype, *weights):
        ctx.save_for_backward(receiver, sender, invariants, invariant_weight, *weights)
        ctx.blocks, ctx.dtype = blocks, dtype
        cast = _cast(weights, dtype)
        total = torch.zeros_like(receiver)
        coordinate = invariants.new_zeros(0 if cast.shift is None else len(invariants))
        for block in blocks:
            first = _first_layer(block, receiver, sender, invariants, invariant_weight)
            activations = _activate(first.to(dtype), cast, keep_edge=False)
            total[block.node_slice] = gather_sum(activations.message, block.rows, block.pairs.starts)
            if cast.shift is not None:
                coordinate[block.pair_slice] = linear(activations.shift, cast.shift_out).squeeze(-1)
        return total, coordinate

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_total, grad_coordinate):
        receiver, sender, invariants, invariant_weight, *weights = ctx.saved_tensors
        cast = _cast(weights, ctx.dtype)
        gradient = _Gradient(receiver, invariants, invariant_weight, weights, ctx.needs_input_grad[2])
        for block in ctx.blocks:
            first = _first_layer(block, receiver, sender, invariants, invariant_weight)
            activations = _activate(first.to(ctx.dtype), cast, keep_edge=True)
            grad_message = grad_total[block.node_slice].to(ctx.dtype).index_select(0, block.pairs.i)
            if cast.shift is not None:
                grad_out = grad_coordinate[block.pair_slice, None].to(ctx.dtype)
                grad_message = gradient.through_shift(block, activations, grad_message, grad_out, cast)
            if cast.gate is not None:
                grad_message = gradient.through_gate(block, activations, grad_message, cast)
            grad_first = gradient.through_edge(block, activations, grad_message, cast)
            gradient.through_first(block, grad_first, invariants[block.pair_slice], invariant_weight)
        return (*gradient.inputs, None, None, *gradient.weights)


class _PairInvariants(torch.autograd.Function):
    # By hand, since the gradient with respect to x_i is one weighted sum over the partners of i.
    @staticmethod
    def forward(ctx, x: Tensor, pairs: Pairs, dtype: torch.dtype) -> Tensor:
        dot = pair_dot(x, x * x.new_tensor(METRIC), pairs)
        mass2 = squared_mass(x)
        norm = mass2.index_select(0, pairs.i).add_(mass2.index_select(0, pairs.j)).sub_(dot, alpha=2)
        products = torch.stack([norm.to(dtype), dot.to(dtype)], dim=-1)
        ctx.save_for_backward(x, products)
        ctx.pairs = pairs
        return psi(products)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        x, products = ctx.saved_tensors
        pairs = ctx.pairs
        gradient = gradient / (1 + products.abs())
        # Both invariants are symmetric, so the pairs (i, j) and (j, i) act on x_i in the same way.
        grad_norm, grad_dot = (
            part.index_select(0, pairs.reverse).add_(part) for part in gradient.T.to(x.dtype).contiguous()
        )
        grad_x = gather_sum(x, pairs.j, pairs.starts, grad_dot - 2 * grad_norm)
        grad_x += 2 * segment_sum(grad_norm[:, None], pairs.starts) * x
        return grad_x * x.new_tensor(METRIC), None, None


class _Gradient:
    """Running sums of the gradients, and the backward pass of one block, last layer first."""

    def __init__(self, receiver, invariants, invariant_weight, weights, to_invariants):
        self.receiver = torch.zeros_like(receiver)
        self.sender = torch.zeros_like(receiver)
        self.invariants = torch.zeros_like(invariants) if to_invariants else None
        self.invariant_weight = torch.zeros_like(invariant_weight)
        self.weights = MessageWeights(*(None if weight is None else torch.zeros_like(weight) for weight in weights))

    @property
    def inputs(self):
        return self.receiver, self.sender, self.invariants, self.invariant_weight

    def through_shift(self, block, activations, grad_message, grad_out, cast):
        self.weights.shift_out.add_(_weighted_sum(activations.shift, grad_out, block))
        grad_shift = _relu_backward(grad_out @ cast.shift_out, activations.shift)
        self.weights.shift.add_(outer_sum(grad_shift, activations.message))
        self.weights.shift_bias.add_(grad_shift.sum(0))
        return grad_message.add_(linear(grad_shift, cast.shift.T))

    def through_gate(self, block, activations, grad_message, cast):
        gate = activations.gate
        grad_gate = torch.linalg.vecdot(grad_message, activations.edge)[:, None] * gate * (1 - gate)
        self.weights.gate.add_(_weighted_sum(activations.edge, grad_gate, block))
        self.weights.gate_bias.add_(grad_gate.sum(0))
        return grad_message.mul_(gate).addmm_(grad_gate, cast.gate)

    def through_edge(self, block, activations, grad_edge, cast):
        grad_edge = _relu_backward(grad_edge, activations.edge)
        self.weights.edge.add_(outer_sum(grad_edge, activations.first))
        self.weights.edge_bias.add_(grad_edge.sum(0))
        return _relu_backward(linear(grad_edge, cast.edge.T), activations.first)

    def through_first(self, block, grad_first, invariants, invariant_weight):
        starts, reverse = block.pairs.starts, block.pairs.reverse
        self.receiver[block.node_slice] = gather_sum(grad_first, block.rows, starts)
        self.sender[block.node_slice] = gather_sum(grad_first, reverse, starts)
        for row, invariant in zip(self.invariant_weight, invariants.to(grad_first.dtype).T, strict=True):
            row.add_(_weighted_sum(grad_first, invariant.contiguous(), block))
        if self.invariants is not None:
            self.invariants[block.pair_slice] = linear(grad_first, invariant_weight.to(grad_first.dtype))


def _cast(weights: Sequence[Tensor | None], dtype: torch.dtype) -> MessageWeights:
    return MessageWeights(*(None if weight is None else weight.to(dtype) for weight in weights))


def _first_layer(block, receiver, sender, invariants, invariant_weight):
    """ReLU(r_i + s_j + W inv_ij), in the precision of its inputs: half would blur the invariants by a per cent."""
    nodes = block.node_slice
    first = block.sum_ends(receiver[nodes], sender[nodes])
    return first.addmm_(invariants[block.pair_slice], invariant_weight).relu_()


def _activate(first, weights, *, keep_edge):
    edge = linear(first, weights.edge, weights.edge_bias, activation="relu")
    gate = shift = None
    message = edge
    if weights.gate is not None:
        gate = linear(edge, weights.gate, weights.gate_bias).sigmoid_()
        message = edge * gate if keep_edge else edge.mul_(gate)
    if weights.shift is not None:
        shift = linear(message, weights.shift, weights.shift_bias, activation="relu")
    return _Activations(first, edge, gate, message, shift)


def _weighted_sum(values: Tensor, weight: Tensor, block: PairBlock) -> Tensor:
    """Weighted sum of all rows; first per node, which unlike a product of vector and matrix runs in parallel."""
    return gather_sum(values, block.rows, block.pairs.starts, weight.flatten()).sum(0)


def _relu_backward(gradient: Tensor, output: Tensor) -> Tensor:
    """Gradient before a ReLU, written over the gradient after it."""
    return torch.ops.aten.threshold_backward.grad_input(gradient, output, 0, grad_input=gradient)
