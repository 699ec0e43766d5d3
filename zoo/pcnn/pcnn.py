"""P-CNN: a one-dimensional residual network along the particles of a jet, sorted by transverse momentum.

References:
    Identification of heavy, energetic, hadronically decaying particles using machine-learning techniques (2020),
    arXiv:2004.08262, where it is the particle part of DeepAK8.
    Particle Transformer for Jet Tagging (2022), arXiv:2202.03772, for the form and size of `pcnn`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.kernels.building import stages_of
from zoo.kernels.cpu import Linear, linear
from zoo.kernels.norms import RowBatchNorm
from zoo.kernels.packing import falling_pt, pack
from zoo.kernels.segments import offsets, segment_mean
from zoo.registry import Paper, register_model


class PCNN(nn.Module):
    r"""Convolutions along the particles of a jet in the order of falling transverse momentum.

    A first convolution is followed by stages of residual units (`ResidualUnit`), each stage but the first at half the
    length of the one before, and the mean over what is left is classified.

    Note: departures from the published implementation, each with a test.
        - The particles are sorted here, so their order in the input does not matter. Equal transverse momenta are
          ordered by the other components and the features.
        - Jets are packed. Beyond the ends of a jet every convolution sees zeros, whatever lies in the padding; batch
          normalisations and the mean see real positions only. There, padding picks up the biases and is averaged too,
          so the answer depends on the length that a jet is padded to.

    Args:
        input_dim: number of features of a particle.
        num_classes: number of logits.
        embed_dim: width of the first convolution.
        stages: widths of the units of each stage.
        hidden_dim: width of the layer before the last.
        dropout: before the last layer.

    Shapes:
        features (batch, particle, feature), four_momenta (batch, particle, 4) as (E, px, py, pz) in GeV, for the order
        only, mask (batch, particle), True for a real particle; logits (batch, class).
    """

    def __init__(
        self,
        input_dim: int,
        num_classes: int,
        *,
        embed_dim: int = 32,
        stages: Sequence[Sequence[int]] = ((64, 64), (64, 64), (128, 128)),
        hidden_dim: int = 512,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.input_norm = RowBatchNorm(input_dim)
        self.conv = PackedConv(input_dim, embed_dim)
        self.norm = RowBatchNorm(embed_dim)
        self.units = nn.ModuleList()
        width = embed_dim
        for stage, widths in enumerate(stages):
            for unit, out_dim in enumerate(widths):
                stride = 2 if stage > 0 and unit == 0 else 1
                self.units.append(ResidualUnit(width, out_dim, stride))
                width = out_dim
        self.decoder = nn.Sequential(
            nn.Linear(width, hidden_dim), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden_dim, num_classes)
        )

    def stages(self) -> dict[str, list[str]]:
        """What fine-tuning tells apart, from the input to the ``head``: the modules and parameters of each stage."""
        embedding = ["input_norm", "conv", "norm"]
        return {"embedding": embedding, **stages_of("units", self.units), "head": ["decoder"]}

    def forward(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
        """Logits (batch, class) of the jets; see the class for the shapes."""
        counts = mask.sum(1)
        rows = pack(features, mask)
        rows = rows[falling_pt(rows, pack(four_momenta, mask), counts)]
        windows, _ = convolution_windows(counts)
        rows = functional.relu(self.norm(self.conv(self.input_norm(rows), windows)))
        for unit in self.units:
            entry = windows
            if unit.stride > 1:
                entry, counts = convolution_windows(counts, unit.stride)
                windows, _ = convolution_windows(counts)
            rows = unit(rows, entry, windows)
        # The mean and what follows once a jet cost next to nothing, and half precision would cost digits.
        with torch.autocast(rows.device.type, enabled=False):
            return self.decoder(segment_mean(rows.to(self.decoder[0].weight.dtype), offsets(counts)))


class ResidualUnit(nn.Module):
    r"""Two convolutions beside a shortcut.

    .. math:: x \leftarrow S x + \mathrm{ReLU}(\mathrm{BN}(C_2 \, \mathrm{ReLU}(\mathrm{BN}(C_1 x))))

    S is the identity if width and length stay, and otherwise a 1x1 convolution without bias, at the stride of C_1.
    """

    def __init__(self, in_dim: int, out_dim: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = PackedConv(in_dim, out_dim)
        self.norm1 = RowBatchNorm(out_dim)
        self.conv2 = PackedConv(out_dim, out_dim)
        self.norm2 = RowBatchNorm(out_dim)
        self.shortcut = None
        if stride > 1 or in_dim != out_dim:
            self.shortcut = Linear(in_dim, out_dim, bias=False)

    def forward(self, rows: Tensor, entry: Tensor, windows: Tensor) -> Tensor:
        """Rows (row, out_dim); ``entry`` are the windows of the first convolution, ``windows`` of the second."""
        hidden = functional.relu(self.norm1(self.conv1(rows, entry)))
        hidden = functional.relu(self.norm2(self.conv2(hidden, windows)))
        if self.stride > 1:
            rows = rows.index_select(0, entry[:, 1])
        if self.shortcut is not None:
            rows = self.shortcut(rows)
        return rows + hidden


class PackedConv(nn.Conv1d):
    """Convolution of kernel size 3 over packed rows, with zeros beyond the ends of each jet."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__(in_dim, out_dim, kernel_size=3, padding=1)

    def forward(self, rows: Tensor, windows: Tensor) -> Tensor:
        """Rows (out_row, out_dim) of rows (row, in_dim) and `convolution_windows` (out_row, 3)."""
        with_zero = functional.pad(rows, (0, 0, 0, 1))
        patches = functional.embedding(windows, with_zero, padding_idx=len(rows)).flatten(1)
        return linear(patches, self.weight.transpose(1, 2).flatten(1), self.bias)


def convolution_windows(counts: Tensor, stride: int = 1) -> tuple[Tensor, Tensor]:
    """The three packed rows that each output of a convolution sees.

    Args:
        counts: (jet,) rows of each jet.
        stride: every how many rows of a jet an output is centred, from the first one.

    Returns:
        Rows (out_row, 3) left of, at and right of the centre, the number of all rows standing for one beyond the ends
        of the jet; and the outputs of each jet (jet,).

    Example:
        >>> windows, out_counts = convolution_windows(torch.tensor([3, 2]), stride=2)
        >>> windows.tolist(), out_counts.tolist()
        ([[5, 0, 1], [1, 2, 5], [5, 3, 4]], [2, 1])
    """
    starts, out_counts = offsets(counts), (counts + stride - 1) // stride
    jet = torch.repeat_interleave(out_counts)
    rank = torch.arange(len(jet), device=counts.device) - offsets(out_counts)[jet]
    position = stride * rank[:, None] + torch.tensor([-1, 0, 1], device=counts.device)
    is_real = (position >= 0) & (position < counts[jet, None])
    return torch.where(is_real, position + starts[jet, None], starts[-1]), out_counts


PAPER = Paper(
    "arXiv:2004.08262",
    "Identification of heavy, energetic, hadronically decaying particles using machine-learning techniques",
)


@register_model(paper=PAPER, sees="jets", variant="in the form and size of arXiv:2202.03772")
def pcnn(input_dim: int, num_classes: int) -> PCNN:
    """P-CNN as in the JetClass study, arXiv:2202.03772; 354,540 parameters with 17 features and 10 classes.

    Args:
        input_dim: number of features of a particle.
        num_classes: number of logits.
    """
    return PCNN(input_dim, num_classes)
