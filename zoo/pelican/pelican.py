r"""PELICAN: a network on all pairs of particles that sees only their Minkowski products.

References:
    PELICAN: Permutation Equivariant and Lorentz Invariant or Covariant Aggregator Network for Particle Physics
    (2022), arXiv:2211.00454.
    Explainable Equivariant Neural Networks for Particle Physics: PELICAN (2023), arXiv:2307.16506.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.kernels.building import stages_of
from zoo.kernels.norms import RowBatchNorm, masked_batch_norm
from zoo.model import JetModel
from zoo.pelican import fast
from zoo.physics.lorentz import METRIC, resolve_masses
from zoo.registry import Paper, register_model

#: Where the model and its small sizes are described.
PAPER = Paper(
    "arXiv:2211.00454",
    "PELICAN: Permutation Equivariant and Lorentz Invariant or Covariant Aggregator Network for Particle Physics",
)
SMALL = Paper("arXiv:2307.16506", "Explainable Equivariant Neural Networks for Particle Physics: PELICAN")

#: Particles and beams of a jet at which a learnt power of their number is one, about the mean of top tagging.
MEAN_COUNT = 49


class Pelican(JetModel):
    r"""Blocks on the matrix of all pairs of particles and beams, each equivariant under permutations of them.

    The products :math:`d_{ij} = \langle p_i, p_j \rangle` are compressed by learnt powers (`compress`). A block is a
    layer on each pair separately, then a linear map that mixes the pairs in all 15 ways that permutations allow
    (`Equivariant2To2`). Sums over all pairs and over the pairs of each particle with itself are classified.

    Note: departures from the reference implementation, each with a test.
        - A mass that the precision of the input cannot resolve is zero (`resolve_masses`), and the products are
          computed in float64.
        - All particles are seen, not the 80 hardest.

    Args:
        input_dim: accepted for a common interface and not used: the model sees only the four-momenta.
        num_classes: number of logits.
        embed_dim: width after the aggregation, the input of the layer on each pair.
        pair_dim: output width of this layer, the input of the aggregation.
        num_layers: blocks.
        dropout: after the layer on each pair, and before the last layer.
        kind_dim: the part of the first width that says which of a pair are beams.

    Shapes:
        features (batch, particle, feature), four_momenta (batch, particle, 4) as (E, px, py, pz) in GeV,
        mask (batch, particle), True for a real particle; logits (batch, class).
    """

    symmetries = frozenset({"beam rotation", "beam boost", "rotation", "boost"})

    def __init__(
        self,
        input_dim: int,
        num_classes: int,
        *,
        embed_dim: int = 132,
        pair_dim: int = 78,
        num_layers: int = 5,
        dropout: float = 0.025,
        kind_dim: int = 10,
    ) -> None:
        super().__init__()
        #: (beam, 4), light-like; transform them with the jets to see the full symmetry. Not a buffer, as a module's
        #: ``float()`` would round it.
        self.beams = torch.tensor([[1.0, 0, 0, 1], [1.0, 0, 0, -1]], dtype=torch.float64)
        kinds = 1 + len(self.beams)
        self.powers = nn.Parameter(torch.linspace(0.05, 0.5, embed_dim - kind_dim))
        self.norm = RowBatchNorm(embed_dim - kind_dim)
        self.kinds = Equivariant1To2(kinds, kind_dim)
        self.blocks = nn.ModuleList(PelicanBlock(embed_dim, pair_dim, dropout) for _ in range(num_layers))
        self.pairs = PairLayer(embed_dim, pair_dim, dropout)
        self.pool = Equivariant2To0(pair_dim, embed_dim)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(embed_dim, num_classes))

    def stages(self) -> dict[str, list[str]]:
        """Modules and parameters of each fine-tuning stage, from the input to the ``head``."""
        return {
            "embedding": ["powers", "norm", "kinds"],
            **stages_of("blocks", self.blocks),
            "pool": ["pairs", "pool"],
            "head": ["head"],
        }

    def products(self, four_momenta: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Particles and beams: their products (batch, node, node) in float64, kinds (batch, node, kind), and mask."""
        momenta, _ = resolve_masses(four_momenta)
        batch, beams = mask.shape[0], self.beams.to(momenta)
        momenta = torch.cat([beams.expand(batch, -1, -1), momenta.masked_fill(~mask[..., None], 0.0)], dim=1)
        kinds = torch.eye(1 + len(beams), dtype=self.powers.dtype, device=mask.device)
        kinds = torch.cat([kinds[1:].expand(batch, -1, -1), kinds[0] * mask[..., None]], dim=1)
        products = torch.einsum("bim, bjm, m -> bij", momenta, momenta, momenta.new_tensor(METRIC))
        return products, kinds, F.pad(mask, (len(beams), 0), value=True)

    def compress(self, products: Tensor) -> Tensor:
        r"""Products (...) in GeV^2 compressed by learnt powers, (..., channel) of the dtype of the weights.

        .. math::
            f_a(x) = \operatorname{sgn}(x) \, \frac{(1 + |x|)^\epsilon - 1}{\epsilon}, \qquad
            \epsilon = a^2 + 10^{-6}
        """
        power, products = self.powers.double().square() + 1e-6, products[..., None]
        # in float64, as the derivative with respect to a small power is the difference of two large numbers
        grown = torch.expm1(power * products.abs().log1p()) / power
        return (products.sign() * grown).to(self.powers.dtype)

    def reference_forward(
        self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """Logits (batch, class) on the padded matrix of all pairs."""
        products, kinds, is_node = self.products(four_momenta, mask)
        nodes = NodeMask(is_node)
        x = masked_batch_norm(self.norm, self.compress(products), nodes.pairs)
        x = torch.cat([x, self.kinds(kinds, nodes)], dim=-1)
        for block in self.blocks:
            x = block(x, nodes)
        return self.head(self.pool(self.pairs(x, nodes), nodes))

    def fast_forward(
        self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """The same, packed."""
        return fast.logits(self, four_momenta, mask)


class NodeMask:
    """Which particles and beams are real, and their number per jet."""

    def __init__(self, nodes: Tensor) -> None:
        self.nodes = nodes  #: (batch, node)
        self.pairs = nodes[:, :, None] & nodes[:, None]  #: (batch, node, node)
        self.count = nodes.sum(1)  #: (batch,)


class PairLayer(nn.Module):
    """Linear layer, leaky ReLU and batch normalisation of each pair, then dropout."""

    def __init__(self, in_dim: int, out_dim: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(in_dim, out_dim)
        self.norm = RowBatchNorm(out_dim)
        self.dropout = nn.Dropout(dropout)
        nn.init.kaiming_normal_(self.linear.weight, a=0.01, nonlinearity="leaky_relu")
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor, nodes: NodeMask) -> Tensor:
        """Pairs (batch, node, node, channel), zero where one of the two is not real."""
        x = masked_batch_norm(self.norm, F.leaky_relu(self.linear(x)), nodes.pairs)
        return self.dropout(x).masked_fill(~nodes.pairs[..., None], 0.0)


class PelicanBlock(nn.Module):
    """A layer on each pair, then the equivariant map of all pairs, and a leaky ReLU."""

    def __init__(self, embed_dim: int, pair_dim: int, dropout: float) -> None:
        super().__init__()
        self.pairs = PairLayer(embed_dim, pair_dim, dropout)
        self.aggregate = Equivariant2To2(pair_dim, embed_dim)

    def forward(self, x: Tensor, nodes: NodeMask) -> Tensor:
        """Pairs (batch, node, node, channel); any number where one of the two is not real."""
        return F.leaky_relu(self.aggregate(self.pairs(x, nodes), nodes))


class Equivariant(nn.Module):
    """Common part of the equivariant maps: powers of the number of particles, one for each map and channel.

    Args:
        exponents: their initial values (map, channel).
    """

    def __init__(self, exponents: Tensor) -> None:
        super().__init__()
        self.exponents = nn.Parameter(exponents)

    def scales(self, count: Tensor) -> Tensor:
        r"""Factors between those of means and of sums, :math:`(N / \bar N)^\alpha`, (batch, map, channel).

        Args:
            count: N (batch,).
        """
        return torch.exp(self.exponents * (count.to(self.exponents.dtype) / MEAN_COUNT).log()[:, None, None])


class Equivariant2To2(Equivariant):
    r"""The general linear map of pairs to pairs that commutes with permutations of the particles.

    Besides the pair itself and its transpose, an entry (i, j) sees the diagonal :math:`d`, the means over columns
    :math:`c` and rows :math:`r`, the mean t of the diagonal and the mean T of all pairs, everywhere or on the diagonal:

    .. math::
        y_{ij} = {} & W_1 x_{ij} + W_2 x_{ji} + W_4 d_j + W_5 d_i + W_7 c_j + W_8 c_i + W_{10} r_j + W_{11} r_i
        + W_{12} t + W_{14} T + b \\
        & + \delta_{ij} (W_3 d_i + W_6 c_i + W_9 r_i + W_{13} t + W_{15} T + b')

    Each mean of each map is multiplied by its own learnt power of the number of particles (`scales`). The weights act
    on (node, channel) and (channel), and only two of the 15 maps need a product for every pair.

    The weights of map m are :math:`W_{m, ac} = A_{am} C_{ac} + B_{cm} D_{ac}`, for input channel a and output channel
    c.
    """

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__(torch.rand(10, in_dim))
        self.maps_in = nn.Parameter(torch.randn(15, in_dim) / math.sqrt(15))  # A
        self.maps_out = nn.Parameter(torch.randn(15, out_dim) / math.sqrt(15))  # B
        self.mix_in = nn.Parameter(torch.randn(in_dim, out_dim) / math.sqrt(in_dim))  # C
        self.mix_out = nn.Parameter(torch.randn(in_dim, out_dim) / math.sqrt(in_dim))  # D
        self.bias = nn.Parameter(torch.zeros(out_dim))
        self.diagonal_bias = nn.Parameter(torch.zeros(out_dim))

    @property
    def weights(self) -> Tensor:
        """Weights of the maps (map, in_dim, out_dim)."""
        return self.maps_in[:, :, None] * self.mix_in + self.maps_out[:, None] * self.mix_out

    def forward(self, x: Tensor, nodes: NodeMask) -> Tensor:
        """Pairs (batch, node, node, channel) of pairs, which must be zero where one of the two is not real."""
        weights, scale = self.weights, self.scales(nodes.count)
        count = nodes.count[:, None, None].to(x.dtype)
        diagonal = x.diagonal(dim1=1, dim2=2).transpose(1, 2)
        columns, rows = x.sum(1) / count, x.sum(2) / count
        of_i, of_j, of_node = self.node_terms(weights, scale[:, None], diagonal, columns, rows)
        of_jet, of_trace = self.jet_terms(weights, scale, diagonal.sum(1) / count[:, 0], rows.sum(1) / count[:, 0])
        y = x @ weights[0] + x.transpose(1, 2) @ weights[1]
        return y + spread(of_i, of_j, of_node + of_trace[:, None], of_jet)

    def node_terms(
        self, weights: Tensor, scale: Tensor, diagonal: Tensor, columns: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Terms of diagonal, columns and rows (..., channel) for all pairs of i, all pairs of j, and the diagonal.

        Args:
            weights: of `weights`.
            scale: (..., map, channel) of the maps 6 to 15.
            diagonal: d.
            columns: c.
            rows: r.
        """
        of_i = (
            diagonal @ weights[4] + (scale[..., 2, :] * columns) @ weights[7] + (scale[..., 5, :] * rows) @ weights[10]
        )
        of_j = (
            diagonal @ weights[3] + (scale[..., 1, :] * columns) @ weights[6] + (scale[..., 4, :] * rows) @ weights[9]
        )
        of_node = (
            diagonal @ weights[2] + (scale[..., 0, :] * columns) @ weights[5] + (scale[..., 3, :] * rows) @ weights[8]
        )
        return of_i, of_j, of_node

    def jet_terms(self, weights: Tensor, scale: Tensor, trace: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        """Terms of t and T (batch, channel) and the biases for all pairs of a jet, and for its diagonal."""
        of_jet = (scale[:, 6] * trace) @ weights[11] + (scale[:, 8] * total) @ weights[13] + self.bias
        of_trace = (scale[:, 7] * trace) @ weights[12] + (scale[:, 9] * total) @ weights[14] + self.diagonal_bias
        return of_jet, of_trace


class Equivariant1To2(Equivariant):
    r"""The general linear map of particles to pairs that commutes with permutations of the particles.

    .. math:: y_{ij} = W_2 x_j + W_3 x_i + W_5 m + b + \delta_{ij} (W_1 x_i + W_4 m)

    Here m is the mean over the particles, and each map has a learnt power of their number, see `scales`.
    """

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__(torch.zeros(5, in_dim))
        self.weights = nn.Parameter(torch.randn(5, in_dim, out_dim) * math.sqrt(2 / (5 * in_dim)))
        self.bias = nn.Parameter(torch.zeros(out_dim))

    def forward(self, x: Tensor, nodes: NodeMask) -> Tensor:
        """Pairs (batch, node, node, channel) of particles (batch, node, channel), zero where there is none."""
        scale = self.scales(nodes.count)
        of_i, of_j, of_node = self.node_terms(scale[:, None], x)
        of_jet, of_trace = self.jet_terms(scale, x.sum(1) / nodes.count[:, None].to(x.dtype))
        return spread(of_i, of_j, of_node + of_trace[:, None], of_jet)

    def node_terms(self, scale: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Terms of particles x (..., channel) for all pairs of i, all pairs of j, and the diagonal."""
        of_node, of_j, of_i = ((scale[..., m, :] * x) @ self.weights[m] for m in range(3))
        return of_i, of_j, of_node

    def jet_terms(self, scale: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Terms of the mean (batch, channel) and the bias for all pairs of a jet, and for its diagonal."""
        of_trace, of_jet = ((scale[:, m] * mean) @ self.weights[m] for m in (3, 4))
        return of_jet + self.bias, of_trace


class Equivariant2To0(Equivariant):
    r"""Permutation invariants of pairs, from their mean T and the mean t of the diagonal.

    .. math:: y = W_1 \phi(T) + W_2 \phi(t) + b

    Both are multiplied by learnt powers of the number of particles (`scales`); :math:`\phi` is the leaky ReLU.
    """

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__(torch.rand(2, in_dim))
        self.weights = nn.Parameter(torch.randn(2, in_dim, out_dim) * math.sqrt(2 / in_dim))
        self.bias = nn.Parameter(torch.zeros(out_dim))

    def forward(self, x: Tensor, nodes: NodeMask) -> Tensor:
        """(batch, channel) of pairs (batch, node, node, channel), zero where one of the two is not real."""
        count = nodes.count[:, None].to(x.dtype)
        return self.of_means(x.sum((1, 2)) / count.square(), x.diagonal(dim1=1, dim2=2).sum(-1) / count, nodes.count)

    def of_means(self, total: Tensor, trace: Tensor, count: Tensor) -> Tensor:
        """(batch, channel) of T and t (batch, channel)."""
        scale = self.scales(count)
        total, trace = F.leaky_relu(scale[:, 0] * total), F.leaky_relu(scale[:, 1] * trace)
        return total @ self.weights[0] + trace @ self.weights[1] + self.bias


def spread(of_i: Tensor, of_j: Tensor, of_node: Tensor, of_jet: Tensor) -> Tensor:
    """Terms of i, j and the diagonal (batch, node, channel) and of jets (batch, channel), on the matrix of pairs."""
    is_diagonal = torch.eye(of_i.shape[1], dtype=of_i.dtype, device=of_i.device)[..., None]
    return of_i[:, :, None] + of_j[:, None] + of_jet[:, None, None] + is_diagonal * of_node[:, :, None]


def _pelican(input_dim: int, num_classes: int, embed_dim: int, pair_dim: int, kind_dim: int = 10) -> Pelican:
    return Pelican(input_dim, num_classes, embed_dim=embed_dim, pair_dim=pair_dim, kind_dim=kind_dim)


@register_model(paper=PAPER, sees="jets")
def pelican(input_dim: int, num_classes: int) -> Pelican:
    """PELICAN of the paper, 208,797 parameters with 2 classes.

    Args:
        input_dim: accepted for a common interface and not used: the model sees only the four-momenta.
        num_classes: number of logits.
    """
    return _pelican(input_dim, num_classes, 132, 78)


@register_model(paper=SMALL, sees="jets", variant="widths of 60 and 35")
def pelican_48k(input_dim: int, num_classes: int) -> Pelican:
    """PELICAN with widths of 60 and 35.

    Args:
        input_dim: accepted for a common interface and not used: the model sees only the four-momenta.
        num_classes: number of logits.
    """
    return _pelican(input_dim, num_classes, 60, 35)


@register_model(paper=SMALL, sees="jets", variant="widths of 25 and 15")
def pelican_11k(input_dim: int, num_classes: int) -> Pelican:
    """PELICAN with widths of 25 and 15.

    Args:
        input_dim: accepted for a common interface and not used: the model sees only the four-momenta.
        num_classes: number of logits.
    """
    return _pelican(input_dim, num_classes, 25, 15)


@register_model(paper=SMALL, sees="jets", variant="widths of 11 and 7")
def pelican_3k(input_dim: int, num_classes: int) -> Pelican:
    """PELICAN with widths of 11 and 7.

    Args:
        input_dim: accepted for a common interface and not used: the model sees only the four-momenta.
        num_classes: number of logits.
    """
    return _pelican(input_dim, num_classes, 11, 7, kind_dim=7)
