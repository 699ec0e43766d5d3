"""Batches as graphs of PyTorch Geometric, for its pooling, samplers and layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from zoo.data.batch import JetBatch

if TYPE_CHECKING:
    from torch_geometric.data import Batch


def to_graphs(batch: JetBatch) -> Batch:
    """The jets of a batch as graphs of their real particles, without edges.

    Args:
        batch: padded jets.

    Returns:
        A `torch_geometric.data.Batch`: ``x`` (node, feature), ``four_momenta`` (node, 4) as (E, px, py, pz) in GeV,
        ``y`` and ``weight`` (graph,), ``context`` (graph, context_feature); ``batch`` (node,) numbers the graphs.
    """
    from torch_geometric.data import Batch, Data

    return Batch.from_data_list(
        [
            Data(
                x=batch.features[jet, is_real],
                four_momenta=batch.four_momenta[jet, is_real],
                y=batch.label[jet : jet + 1],
                weight=batch.weight[jet : jet + 1],
                context=batch.context[jet : jet + 1],
                num_nodes=int(is_real.sum()),
            )
            for jet, is_real in enumerate(batch.mask)
        ]
    )


def from_graphs(graphs: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """The inputs of a model: features, four-momenta and mask of graphs with ``x`` and ``four_momenta``.

    Args:
        graphs: with any number of nodes.

    Returns:
        features (batch, particle, feature), four_momenta (batch, particle, 4) and mask (batch, particle), padded to the
        longest jet with zeros.
    """
    from torch_geometric.utils import to_dense_batch

    features, mask = to_dense_batch(graphs.x, graphs.batch, batch_size=graphs.num_graphs)
    four_momenta, _ = to_dense_batch(graphs.four_momenta, graphs.batch, batch_size=graphs.num_graphs)
    return features, four_momenta, mask
