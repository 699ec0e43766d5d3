r"""LorentzNet and EGNN on packed jets, the form that runs: the same parameters and numbers as on their pages.

The first layer of :math:`\phi_e` acts on concatenated inputs, so it is the sum of a term of i, a term of j and a term
of the invariants. The first two are computed once per node, and the statistics of its batch normalisation follow from
sums over nodes (`normalised_terms`). `pair_messages` does what remains for each pair.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from zoo.kernels.building import psi
from zoo.kernels.mode import without_autocast
from zoo.kernels.norms import track_statistics
from zoo.kernels.packing import pack
from zoo.kernels.pairs import PairBlock, Pairs, complete_pairs, pair_blocks, pair_sum
from zoo.kernels.segments import offsets, segment_sum
from zoo.lorentznet.messages import MessageWeights, pair_invariants, pair_messages

#: Pairs per block: on a CPU few enough for the cache, elsewhere enough to fill the device.
PAIRS_PER_BLOCK = {"cpu": 12288, "default": 1 << 20}


class JetGraph(NamedTuple):
    """What stays the same through all blocks."""

    scalars: Tensor  #: (node, scalar), the input scalars
    jet_starts: Tensor  #: (jet + 1,) first node of each jet, and the end
    pairs: Pairs
    blocks: list[PairBlock]
    message_dtype: torch.dtype


def jet_graph(scalars: Tensor, counts: Tensor) -> JetGraph:
    """The graph of all pairs of the nodes of each jet; under autocast, messages are of its dtype.

    Args:
        scalars: input scalars (node, scalar).
        counts: (jet,) nodes of each jet.
    """
    device = scalars.device.type
    message_dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else scalars.dtype
    pairs = complete_pairs(counts)
    blocks = pair_blocks(pairs, counts, PAIRS_PER_BLOCK.get(device, PAIRS_PER_BLOCK["default"]))
    return JetGraph(scalars, offsets(counts), pairs, blocks, message_dtype)


#: The update of a block: (block, h (node, embed_dim), x (node, coordinate), graph) to the next h and x.
Update = Callable[[nn.Module, Tensor, Tensor, JetGraph], tuple[Tensor, Tensor]]


def node_scalars(
    update: Update, embedding: nn.Module, blocks: Iterable[nn.Module], x: Tensor, s: Tensor, is_node: Tensor
) -> tuple[Tensor, Tensor]:
    """Scalars (node, embed_dim) of packed nodes after the last block, and the number of nodes (jet,) of each jet.

    Args:
        update: `lorentz_block` or `euclidean_block`.
        embedding: of the input scalars.
        blocks: one after the other.
        x: coordinates (batch, node, coordinate) in GeV, float64.
        s: input scalars (batch, node, scalar).
        is_node: (batch, node).
    """
    x, s, counts = pack(x, is_node), pack(s, is_node), is_node.sum(1)
    graph = jet_graph(s, counts)
    # Only products of (pair, embed_dim) matrices gain from half precision; everything else would only lose digits.
    with without_autocast(x):
        h = embedding(s)
        for block in blocks:
            h, x = update(block, h, x, graph)
    return h, counts


def mean_scalars(h: Tensor, counts: Tensor, rows: int | None = None) -> Tensor:
    """Sum (jet, feature) of the scalars (node, feature) of each jet, divided by ``rows`` or by their number."""
    return segment_sum(h, offsets(counts)) / (counts.clamp(min=1)[:, None] if rows is None else rows)


def leading_rows(h: Tensor, counts: Tensor, wanted: Tensor) -> Tensor:
    """The first ``wanted`` (jet,) of the ``counts`` (jet,) rows of each jet."""
    rank = torch.arange(len(h), device=h.device) - offsets(counts)[:-1].repeat_interleave(counts)
    return h[rank < wanted.repeat_interleave(counts)]


def lorentz_block(block: nn.Module, h: Tensor, x: Tensor, graph: JetGraph) -> tuple[Tensor, Tensor]:
    """The update of a `LorentzGroupBlock` on h (node, embed_dim) and x (node, 4)."""
    invariants = pair_invariants(x, graph.pairs, h.dtype)
    total, weight = summed_messages(block, h, invariants, graph)
    if block.phi_x is not None and block.as_released:
        x = move_apart_by_components(x, weight, graph.blocks, block.coordinate_scale)
    elif block.phi_x is not None:
        x = move_apart(x, weight, graph.pairs, block.coordinate_scale)
    return h + block.phi_h(torch.cat([h, total, graph.scalars], dim=1)), x


def euclidean_block(block: nn.Module, h: Tensor, x: Tensor, graph: JetGraph) -> tuple[Tensor, Tensor]:
    """The update of a `EuclideanBlock` on h (node, embed_dim) and x (node, 3)."""
    distance = psi(squared_distance(x, graph.pairs)).to(h.dtype)[:, None]
    total, weight = summed_messages(block, h, distance, graph)
    if block.phi_x is not None:
        x = move_apart(x, weight, graph.pairs, block.coordinate_scale)
    return h + block.phi_h(torch.cat([h, total], dim=1)), x


def summed_messages(block: nn.Module, h: Tensor, invariants: Tensor, graph: JetGraph) -> tuple[Tensor, Tensor]:
    """Sums (node, embed_dim) of the messages of a block, and its coordinate weights (pair,) if it has any."""
    weight_i, weight_j, weight_invariants = block.phi_e[0].weight.T.split([h.shape[1], h.shape[1], invariants.shape[1]])
    receiver, sender, weight_invariants = normalised_terms(
        block.phi_e[1], h @ weight_i, h @ weight_j, invariants, weight_invariants, graph
    )
    weights = message_weights(block)
    return pair_messages(receiver, sender, invariants, weight_invariants, weights, graph.blocks, graph.message_dtype)


def message_weights(block: nn.Module) -> MessageWeights:
    """The weights of a block after its first layer."""
    weights = MessageWeights(edge=block.phi_e[3].weight, edge_bias=block.phi_e[3].bias)
    if block.phi_m is not None:
        weights = weights._replace(gate=block.phi_m[0].weight, gate_bias=block.phi_m[0].bias)
    if block.phi_x is not None:
        shift = block.phi_x[0]
        weights = weights._replace(shift=shift.weight, shift_bias=shift.bias, shift_out=block.phi_x[2].weight)
    return weights


def squared_distance(x: Tensor, pairs: Pairs) -> Tensor:
    """Squared Euclidean distance of each pair, (pair,), of points (node, coordinate)."""
    return (x.index_select(0, pairs.i) - x.index_select(0, pairs.j)).square().sum(-1)


#: Bound on the weight of a pair, so that no update exceeds 10 c times the largest difference of coordinates.
MAX_COORDINATE_WEIGHT = 10.0


def move_apart(x: Tensor, weight: Tensor, pairs: Pairs, scale: float) -> Tensor:
    r"""Coordinate update :math:`x_i + c \, \mathrm{mean}_{j \ne i} \, w_{ij} (x_i - x_j)`, the weights bounded.

    Args:
        x: (node, coordinate) in float64.
        weight: w, (pair,).
        pairs: of the nodes.
        scale: c.
    """
    weight = weight.double().clamp(-MAX_COORDINATE_WEIGHT, MAX_COORDINATE_WEIGHT)
    # With a one appended to the coordinates, one pass gives both sum_j w_ij x_j and sum_j w_ij.
    total = pair_sum(nn.functional.pad(x, (0, 1), value=1.0), weight, pairs)
    partners = pairs.starts.diff().clamp(min=1)[:, None]
    return x + scale * (total[:, -1:] * x - total[:, :-1]) / partners


#: Bound of the reference implementation on each component of the update of a pair, in GeV.
MAX_COMPONENT = 100.0


def move_apart_by_components(x: Tensor, weight: Tensor, blocks: Sequence[PairBlock], scale: float) -> Tensor:
    r"""Coordinate update :math:`x_i + c \, \mathrm{mean}_{j \ne i} \, b(w_{ij} (x_i - x_j))` of the reference
    implementation: b bounds each component by `MAX_COMPONENT`, which depends on the frame.

    Args:
        x: (node, coordinate) in GeV, float64.
        weight: w, (pair,).
        blocks: the pairs, cut into runs of jets.
        scale: c.
    """
    moved = [x.new_zeros(0, x.shape[1])]
    for block in blocks:
        nodes, pairs = x[block.node_slice], block.pairs
        difference = nodes.index_select(0, pairs.i) - nodes.index_select(0, pairs.j)
        update = weight[block.pair_slice, None].double() * difference
        total = segment_sum(update.clamp(-MAX_COMPONENT, MAX_COMPONENT), pairs.starts)
        moved.append(nodes + scale * total / pairs.starts.diff().clamp(min=1)[:, None])
    return torch.cat(moved)


def normalised_terms(
    norm: nn.BatchNorm1d, receiver: Tensor, sender: Tensor, invariants: Tensor, weight: Tensor, graph: JetGraph
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Batch normalisation of :math:`r_i + s_j + W e_{ij}` over all pairs, without forming the sum.

    Its mean and variance over pairs follow from sums over nodes, since within a jet
    :math:`\sum_{i \ne j} r_i s_j = (\sum_i r_i)(\sum_j s_j) - \sum_i r_i s_i`. The affine map that results is
    applied to the three terms.

    Args:
        norm: the layer, whose running statistics move in training.
        receiver: r, (node, embed_dim).
        sender: s, (node, embed_dim).
        invariants: e, (pair, invariant).
        weight: W transposed, (invariant, embed_dim).
        graph: of the nodes.

    Returns:
        r, s and W for the normalised sum.
    """
    if norm.training and len(invariants):
        mean, variance = _pair_moments(receiver, sender, invariants, weight, graph)
        track_statistics(norm, mean, variance, len(invariants))
    else:
        mean, variance = norm.running_mean, norm.running_var
    scale = norm.weight * (variance + norm.eps).rsqrt()
    return receiver * scale + (norm.bias - mean * scale), sender * scale, weight * scale


def _pair_moments(
    receiver: Tensor, sender: Tensor, invariants: Tensor, weight: Tensor, graph: JetGraph
) -> tuple[Tensor, Tensor]:
    """Mean and variance over all pairs of r_i + s_j + W e_ij, each (embed_dim,)."""
    num_pairs = len(invariants)
    partners = graph.pairs.starts.diff()[:, None].to(receiver.dtype)
    mean_r, mean_s = ((partners * term).sum(0) / num_pairs for term in (receiver, sender))
    mean_e = invariants.mean(0)
    # Centred terms, so that nothing is lost to cancellation.
    r, s, e = receiver - mean_r, sender - mean_s, invariants - mean_e
    same_jet = segment_sum(r, graph.jet_starts) * segment_sum(s, graph.jet_starts)
    # The invariants are symmetric, so a node's sum over partners is the same whether it receives or sends.
    node_e = segment_sum(e, graph.pairs.starts) @ weight
    variance = (
        (partners * (r.square() + s.square())).sum(0)
        + 2 * (same_jet.sum(0) - (r * s).sum(0) + ((r + s) * node_e).sum(0))
        + (weight * (e.T @ e @ weight)).sum(0)
    ) / num_pairs
    return mean_r + mean_s + mean_e @ weight, variance.clamp(min=0)
