r"""LGN on packed jets, the form that runs: the same parameters and numbers as on its page.

Only the radial functions f are computed for pairs, since

.. math:: \sum_j f_{ij} \, p_{ij} \otimes F_j = p_i \otimes \sum_j f_{ij} F_j - \sum_j f_{ij} \, (p_j \otimes F_j)
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from zoo.kernels.building import psi
from zoo.kernels.packing import pack
from zoo.kernels.pairs import Pairs, complete_pairs, pair_dot, pair_sum
from zoo.kernels.segments import offsets, segment_sum
from zoo.lgn.irreps import Irreps, couple
from zoo.physics.lorentz import METRIC, squared_mass


class JetGraph(NamedTuple):
    """What stays the same through all layers."""

    momenta: Tensor  #: (node, 4) in units of the network
    pairs: Pairs
    distances: Tensor  #: (pair,) psi of the squared momentum difference in GeV^2


def jet_graph(x: Tensor, pairs: Pairs, unit: float) -> JetGraph:
    """The graph of momenta (node, 4) in GeV, float64; the network takes them in ``unit`` GeV."""
    mass2 = squared_mass(x)
    dot = pair_dot(x, x * x.new_tensor(METRIC), pairs)
    distances = psi(mass2.index_select(0, pairs.i) + mass2.index_select(0, pairs.j) - 2 * dot)
    return JetGraph(x / unit, pairs, distances)


def total_invariants(
    embedding: nn.Module, layers: Iterable[nn.Module], x: Tensor, scalars: Tensor, is_node: Tensor, unit: float
) -> Tensor:
    """Sums (jet, channel) over the nodes of each jet of the scalars of all layers.

    Args:
        embedding: of scalars and momenta.
        layers: `ClebschGordanLayer`, one after the other.
        x: momenta (batch, node, 4) in GeV, float64.
        scalars: (batch, node, 2).
        is_node: (batch, node).
        unit: of momenta in the network, in GeV.
    """
    counts = is_node.sum(1)
    graph = jet_graph(pack(x, is_node), complete_pairs(counts), unit)
    activations = embedding({"scalar": pack(scalars, is_node).T[..., None], "vector": graph.momenta[None]})
    invariants = [activations["scalar"]]
    for layer in layers:
        activations = update(layer, activations, graph)
        invariants.append(activations["scalar"])
    return segment_sum(torch.cat(invariants).squeeze(-1).T, offsets(counts))


def update(layer: nn.Module, activations: Irreps, graph: JetGraph) -> Irreps:
    """The update of a `ClebschGordanLayer` on activations (channel, node, component)."""
    return layer.mixed(terms(layer, activations, graph))


def terms(layer: nn.Module, activations: Irreps, graph: JetGraph) -> list[Tensor]:
    """The terms that the layer mixes, (channel, node, component) each."""
    carried = [activations[name] for name in layer.carried]
    squares = couple(activations, activations, layer.squares)
    plain_weight, moment_weight = layer.radial(graph.distances).chunk(2)
    plain = _sum_partners(carried, plain_weight, graph.pairs)
    momenta = {"vector": graph.momenta[None]}
    moment_inputs = [activations[name] for name in layer.moment_inputs]
    at_j = couple(momenta, activations, layer.moments)
    sums = _sum_partners([*moment_inputs, *at_j], moment_weight, graph.pairs)
    sum_of_inputs = dict(zip(layer.moment_inputs, sums[: len(moment_inputs)], strict=True))
    at_i = couple(momenta, sum_of_inputs, layer.moments)
    moments = [one - two for one, two in zip(at_i, sums[len(moment_inputs) :], strict=True)]
    return [*carried, *squares, *plain, *moments]


def _sum_partners(values: list[Tensor], weight: Tensor, pairs: Pairs) -> list[Tensor]:
    """Weighted sums over partners of values (channel, node, component) with weights (channel, pair)."""
    columns = torch.cat(values, dim=-1)
    total = torch.stack([pair_sum(*channel, pairs) for channel in zip(columns, weight, strict=True)])
    return list(total.split([value.shape[-1] for value in values], dim=-1))
