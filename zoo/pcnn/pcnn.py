"""P-CNN: a one-dimensional residual network along the particles of a jet, sorted by transverse momentum.

References:
    Identification of heavy, energetic, hadronically decaying particles using machine-learning techniques (2020),
    arXiv:2004.08262, where it is the particle part of DeepAK8.
    Particle Transformer for Jet Tagging (2022), arXiv:2202.03772, for the form and size of `pcnn`.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn

from zoo.kernels.building import renamed_weights, stages_of
from zoo.kernels.cpu import Linear
from zoo.kernels.norms import RowBatchNorm, masked_batch_norm
from zoo.kernels.packing import hardest_first
from zoo.model import JetModel
from zoo.pcnn import fast
from zoo.registry import Paper, register_model


class PCNN(JetModel):
    r"""Convolutions along the particles of a jet in order of decreasing transverse momentum.

    A first convolution is followed by stages of residual units (`ResidualUnit`), each stage but the first at half the
    length of the one before, and the mean over the remaining positions is classified.

    Note: departures from the published implementation, each with a test.
        - The particles are sorted here, so their order in the input does not matter. Equal transverse momenta are
          ordered by the other components and the features.
        - Beyond the ends of a jet every convolution sees zeros; batch normalisations and the mean see only real
          positions. In the published implementation padding picks up the biases and is averaged too, so the answer
          depends on the length to which a jet is padded.

    Args:
        input_dim: number of features of a particle.
        num_classes: number of logits.
        embed_dim: width of the first convolution.
        dropout: before the last layer.
        stages: widths of the units of each stage.
        hidden_dim: width of the layer before the last.

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
        dropout: float = 0.2,
        stages: Sequence[Sequence[int]] = ((64, 64), (64, 64), (128, 128)),
        hidden_dim: int = 512,
    ) -> None:
        super().__init__()
        self.input_norm = RowBatchNorm(input_dim)
        self.conv = MaskedConv(input_dim, embed_dim)
        self.norm = RowBatchNorm(embed_dim)
        self.units = nn.ModuleList()
        width = embed_dim
        for stage, widths in enumerate(stages):
            for unit, out_dim in enumerate(widths):
                stride = 2 if stage > 0 and unit == 0 else 1
                self.units.append(ResidualUnit(width, out_dim, stride))
                width = out_dim
        self.head = nn.Sequential(
            nn.Linear(width, hidden_dim), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden_dim, num_classes)
        )
        renamed_weights(self, {"decoder": "head"})

    def stages(self) -> dict[str, list[str]]:
        """Modules and parameters of each fine-tuning stage, from the input to the ``head``."""
        embedding = ["input_norm", "conv", "norm"]
        return {"embedding": embedding, **stages_of("units", self.units), "head": ["head"]}

    def reference_forward(
        self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """Logits (batch, class) of the jets; see the class for the shapes."""
        # Padding that becomes one position, so that at least two are left: torch.export takes one for a constant.
        rows = math.prod(unit.stride for unit in self.units)
        features, four_momenta = (F.pad(values, (0, 0, 0, rows)) for values in (features, four_momenta))
        mask = F.pad(mask, (0, rows))
        order = hardest_first(features, four_momenta, mask)
        x, mask = features.gather(1, order[:, :, None].expand_as(features)), mask.gather(1, order)
        x = self.conv(masked_batch_norm(self.input_norm, x, mask), mask)
        x = F.relu(masked_batch_norm(self.norm, x, mask))
        for unit in self.units:
            x, mask = unit(x, mask)
        total = reduce(x.where(mask[:, :, None], 0), "batch particle feature -> batch feature", "sum")
        return self._classify(total / mask.sum(1, keepdim=True).clamp(min=1))

    def fast_forward(
        self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """The same logits, from packed particles."""
        return self._classify(fast.mean_of_positions(self, features, four_momenta, mask))

    def _classify(self, mean: Tensor) -> Tensor:
        # The layers after the mean cost next to nothing, and half precision would lose digits.
        with torch.autocast(mean.device.type, enabled=False):
            return self.head(mean.to(self.head[0].weight.dtype))


class ResidualUnit(nn.Module):
    r"""Two convolutions with a shortcut.

    .. math:: x \leftarrow S x + \mathrm{ReLU}(\mathrm{BN}(C_2 \, \mathrm{ReLU}(\mathrm{BN}(C_1 x))))

    S is the identity if width and length stay, and otherwise a 1x1 convolution without bias, at the stride of C_1.
    """

    def __init__(self, in_dim: int, out_dim: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = MaskedConv(in_dim, out_dim)
        self.norm1 = RowBatchNorm(out_dim)
        self.conv2 = MaskedConv(out_dim, out_dim)
        self.norm2 = RowBatchNorm(out_dim)
        self.shortcut = None
        if stride > 1 or in_dim != out_dim:
            self.shortcut = Linear(in_dim, out_dim, bias=False)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Positions (batch, out_particle, out_dim) from (batch, particle, in_dim), and which of them are real."""
        kept = torch.arange(0, mask.shape[1], self.stride, device=mask.device)
        hidden, x, real = (values[:, kept] for values in (self.conv1(x, mask), x, mask))
        hidden = F.relu(masked_batch_norm(self.norm1, hidden, real))
        hidden = F.relu(masked_batch_norm(self.norm2, self.conv2(hidden, real), real))
        return (x if self.shortcut is None else self.shortcut(x)) + hidden, real


class MaskedConv(nn.Conv1d):
    """Convolution of kernel size 3 along the particles, with zeros beyond the ends of each jet."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__(in_dim, out_dim, kernel_size=3, padding=1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Positions (batch, particle, out_dim) from (batch, particle, in_dim), the real ones first."""
        x = rearrange(x.where(mask[:, :, None], 0), "batch particle feature -> batch feature particle")
        return rearrange(super().forward(x), "batch feature particle -> batch particle feature")


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
