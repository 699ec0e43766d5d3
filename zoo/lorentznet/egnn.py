"""EGNN: the Euclidean partner of LorentzNet, on three-momenta in place of four-momenta.

References:
    E(n) Equivariant Graph Neural Networks (2021), arXiv:2102.09844.
    An Efficient Lorentz Equivariant Graph Neural Network for Jet Tagging (2022), arXiv:2201.08187, which sets the two
    side by side.
"""

import torch
from torch import Tensor, nn

from zoo.kernels.building import psi, stages_of
from zoo.kernels.norms import RowBatchNorm
from zoo.kernels.packing import pack
from zoo.kernels.pairs import Pairs
from zoo.kernels.segments import segment_mean
from zoo.lorentznet.lorentznet import JetGraph, PairBatchNorm, jet_graph, move_apart
from zoo.lorentznet.messages import MessageWeights, pair_messages
from zoo.registry import Paper, register_model


class EGNN(nn.Module):
    r"""Network over all pairs of particles of a jet that commutes with rotations of their momenta.

    The particles' momenta are points of a Euclidean space, moved by every block (`EuclideanBlock`), and their energies
    are the input scalars.

    Note: departures from the paper.
        - Widths, batch normalisations, the logarithm of distances and the bounded update are LorentzNet's, so that
          nothing but the geometry sets the two apart.

    Args:
        num_classes: number of logits.
        embed_dim: width.
        num_layers: number of blocks.
        dropout: before the last layer.
        coordinate_scale: c of the coordinate update.

    Shapes:
        features (batch, particle, feature), not used, four_momenta (batch, particle, 4) as (E, px, py, pz) in GeV,
        mask (batch, particle), True for a real particle; logits (batch, class).
    """

    #: What the paper promises to leave the logits alone, in the words of `zoo.check`.
    symmetries = frozenset({"beam rotation", "rotation"})

    def __init__(
        self,
        num_classes: int,
        *,
        embed_dim: int = 72,
        num_layers: int = 6,
        dropout: float = 0.2,
        coordinate_scale: float = 5e-3,
    ) -> None:
        super().__init__()
        self.embedding = nn.Linear(1, embed_dim)
        self.blocks = nn.ModuleList(
            EuclideanBlock(embed_dim, coordinate_scale, is_last=layer == num_layers - 1) for layer in range(num_layers)
        )
        self.decoder = nn.Sequential(
            nn.Linear(embed_dim, embed_dim), nn.ReLU(), nn.Dropout(dropout), nn.Linear(embed_dim, num_classes)
        )

    def stages(self) -> dict[str, list[str]]:
        """What fine-tuning tells apart, from the input to the ``head``: the modules and parameters of each stage."""
        return {"embedding": ["embedding"], **stages_of("blocks", self.blocks), "head": ["decoder"]}

    def forward(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
        """Logits (batch, class) of the jets; see the class for the shapes."""
        momenta, counts = pack(four_momenta, mask).double(), mask.sum(1)
        graph = jet_graph(psi(momenta[:, :1]).to(self.embedding.weight.dtype), counts)
        # Only products of (pair, embed_dim) matrices gain from half precision; the rest would only lose digits.
        with torch.autocast(four_momenta.device.type, enabled=False):
            h, x = self.embedding(graph.scalars), momenta[:, 1:]
            for block in self.blocks:
                h, x = block(h, x, graph)
            return self.decoder(segment_mean(h, graph.jet_starts))


class EuclideanBlock(nn.Module):
    r"""Equivariant layer of EGNN.

    .. math::
        m_{ij} &= \phi_e(h_i, h_j, \psi(|x_i - x_j|^2)) \\
        x_i &\leftarrow x_i + c \, \mathrm{mean}_{j \ne i} \, \phi_x(m_{ij}) (x_i - x_j) \\
        h_i &\leftarrow h_i + \phi_h(h_i, \textstyle\sum_{j \ne i} m_{ij})
    """

    def __init__(self, embed_dim: int, coordinate_scale: float, is_last: bool) -> None:
        super().__init__()
        self.coordinate_scale = coordinate_scale
        self.phi_e = nn.Sequential(
            nn.Linear(2 * embed_dim + 1, embed_dim, bias=False),
            PairBatchNorm(embed_dim),
            nn.ReLU(),
            nn.Linear(embed_dim, embed_dim),
            nn.ReLU(),
        )
        self.phi_h = nn.Sequential(
            nn.Linear(2 * embed_dim, embed_dim),
            RowBatchNorm(embed_dim),
            nn.ReLU(),
            nn.Linear(embed_dim, embed_dim),
        )
        self.phi_x = None
        if not is_last:
            last = nn.Linear(embed_dim, 1, bias=False)
            nn.init.xavier_uniform_(last.weight, gain=1e-3)
            self.phi_x = nn.Sequential(nn.Linear(embed_dim, embed_dim), nn.ReLU(), last)

    def forward(self, h: Tensor, x: Tensor, graph: JetGraph) -> tuple[Tensor, Tensor]:
        """Updated scalars (node, embed_dim) and momenta (node, 3), the latter in float64 and GeV."""
        distance = psi(squared_distance(x, graph.pairs)).to(h.dtype)[:, None]
        weight_i, weight_j, weight_distance = self.phi_e[0].weight.T.split([h.shape[1], h.shape[1], 1])
        receiver, sender, weight_distance = self.phi_e[1](h @ weight_i, h @ weight_j, distance, weight_distance, graph)
        weights = MessageWeights(edge=self.phi_e[3].weight, edge_bias=self.phi_e[3].bias)
        if self.phi_x is not None:
            shift = self.phi_x[0]
            weights = weights._replace(shift=shift.weight, shift_bias=shift.bias, shift_out=self.phi_x[2].weight)
        total, weight = pair_messages(
            receiver, sender, distance, weight_distance, weights, graph.blocks, graph.message_dtype
        )
        if self.phi_x is not None:
            x = move_apart(x, weight, graph.pairs, self.coordinate_scale)
        return h + self.phi_h(torch.cat([h, total], dim=1)), x


def squared_distance(x: Tensor, pairs: Pairs) -> Tensor:
    """Squared Euclidean distance of each pair, (pair,), of points (node, coordinate)."""
    return (x.index_select(0, pairs.i) - x.index_select(0, pairs.j)).square().sum(-1)


PAPER = Paper("arXiv:2102.09844", "E(n) Equivariant Graph Neural Networks")


@register_model(paper=PAPER, sees="jets", variant="in the size of LorentzNet, arXiv:2201.08187")
def egnn(input_dim: int, num_classes: int) -> EGNN:
    """EGNN for top tagging, 222,266 parameters with 2 classes.

    Args:
        input_dim: accepted as by every model and not used: a jet is seen through its four-momenta only.
        num_classes: number of logits.
    """
    return EGNN(num_classes)
