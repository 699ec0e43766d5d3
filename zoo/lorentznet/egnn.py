"""EGNN: the Euclidean counterpart of LorentzNet, on three-momenta instead of four-momenta.

References:
    E(n) Equivariant Graph Neural Networks (2021), arXiv:2102.09844.
    An Efficient Lorentz Equivariant Graph Neural Network for Jet Tagging (2022), arXiv:2201.08187, which compares the
    two.
"""

import torch
from torch import Tensor, nn

from zoo.kernels.building import psi, renamed_weights, stages_of
from zoo.kernels.mode import without_autocast
from zoo.kernels.norms import RowBatchNorm, apply_masked
from zoo.lorentznet import fast
from zoo.lorentznet.lorentznet import all_pairs, mean_over_partners
from zoo.model import JetModel
from zoo.registry import Paper, register_model


class EGNN(JetModel):
    r"""Network over all pairs of particles of a jet that commutes with rotations of their momenta.

    The particles' momenta are points of a Euclidean space, moved by every block (`EuclideanBlock`), and their energies
    are the input scalars.

    Note: departures from the paper.
        - Widths, batch normalisations, the logarithm of distances and the bounded update are LorentzNet's, so that the
          two differ only in geometry.

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

    #: Changes that leave the logits unchanged according to the paper, by their names in `zoo.check`.
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
        self.head = nn.Sequential(
            nn.Linear(embed_dim, embed_dim), nn.ReLU(), nn.Dropout(dropout), nn.Linear(embed_dim, num_classes)
        )
        renamed_weights(self, {"decoder": "head"})

    def stages(self) -> dict[str, list[str]]:
        """The embedding, each block, and the head."""
        return {"embedding": ["embedding"], **stages_of("blocks", self.blocks), "head": ["head"]}

    def reference_forward(
        self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """Logits (batch, class) on padded jets; see `JetModel`."""
        with without_autocast(four_momenta):
            x, s = self.nodes(four_momenta)
            h = self.embedding(s)
            for block in self.blocks:
                h, x = block(h, x, mask)
            mean = h.where(mask[..., None], 0).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
            return self.head(mean)

    def fast_forward(
        self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """The same on packed jets."""
        nodes = self.nodes(four_momenta)
        h, counts = fast.node_scalars(fast.euclidean_block, self.embedding, self.blocks, *nodes, mask)
        with without_autocast(four_momenta):
            return self.head(fast.mean_scalars(h, counts))

    def nodes(self, four_momenta: Tensor) -> tuple[Tensor, Tensor]:
        """Momenta x (batch, particle, 3) in GeV, float64, and the scalar s (batch, particle, 1), psi of the energy."""
        momenta = four_momenta.double()
        return momenta[..., 1:], psi(momenta[..., :1]).to(self.embedding.weight.dtype)


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
            RowBatchNorm(embed_dim),
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
        self.phi_m = self.phi_x = None  # messages are not gated
        if not is_last:
            last = nn.Linear(embed_dim, 1, bias=False)
            nn.init.xavier_uniform_(last.weight, gain=1e-3)
            self.phi_x = nn.Sequential(nn.Linear(embed_dim, embed_dim), nn.ReLU(), last)

    def forward(self, h: Tensor, x: Tensor, is_node: Tensor) -> tuple[Tensor, Tensor]:
        """Updated scalars h (batch, node, embed_dim) and momenta x (batch, node, 3), float64 and GeV."""
        x_i, x_j, is_pair = all_pairs(x, is_node)
        h_i, h_j = torch.broadcast_tensors(h[:, :, None], h[:, None])
        distance = psi((x_i - x_j).square().sum(-1, keepdim=True)).to(h.dtype)
        m = apply_masked(self.phi_e, torch.cat([h_i, h_j, distance], dim=-1), is_pair).where(is_pair[..., None], 0)
        if self.phi_x is not None:
            weight = self.phi_x(m).double().clamp(-fast.MAX_COORDINATE_WEIGHT, fast.MAX_COORDINATE_WEIGHT)
            x = x + self.coordinate_scale * mean_over_partners(weight * (x_i - x_j), is_pair)
        return h + apply_masked(self.phi_h, torch.cat([h, m.sum(2)], dim=-1), is_node), x


PAPER = Paper("arXiv:2102.09844", "E(n) Equivariant Graph Neural Networks")


@register_model(paper=PAPER, sees="jets", variant="in the size of LorentzNet, arXiv:2201.08187")
def egnn(input_dim: int, num_classes: int) -> EGNN:
    """EGNN for top tagging, 222,266 parameters with 2 classes.

    Args:
        input_dim: accepted for a common interface and not used: the model sees only the four-momenta.
        num_classes: number of logits.
    """
    return EGNN(num_classes)
