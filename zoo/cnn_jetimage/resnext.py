"""ResNeXt-50 on jet images.

References:
    Aggregated Residual Transformations for Deep Neural Networks (2016), arXiv:1611.05431.
    Jet Tagging via Particle Clouds (2019), arXiv:1902.08570, which compares this network with ParticleNet.
"""

from torch import Tensor, nn

from zoo.cnn_jetimage.image import PERCENT, JetImage
from zoo.kernels.building import renamed_weights, stages_of
from zoo.model import JetModel
from zoo.registry import Paper, register_model


class JetImageResNeXt(JetModel):
    """ResNeXt on jet images: a stem, four stages of residual blocks (`ResNeXtBlock`), and their mean over the image.

    Each stage but the first halves the image and doubles the width. The stem, a 7x7 convolution of stride 2 and a
    maximum, always has 64 channels.

    Args:
        image: from four-momenta to images.
        num_classes: number of logits.
        embed_dim: channels of the bottleneck in the first stage; 128 in the paper's 32x4d.
        num_layers: blocks of each stage.
        groups: of the grouped convolutions, the cardinality of the paper.
        dropout: before the last layer.

    Shapes:
        features (batch, particle, feature) are used only for their dtype; four_momenta (batch, particle, 4) as
        (E, px, py, pz) in GeV, mask (batch, particle), True for a real particle; logits (batch, class).
    """

    #: Changes that leave the image, and so the logits, unchanged, by their names in `zoo.check`.
    symmetries = frozenset({"beam rotation", "beam boost"})
    #: A particle on the edge of a pixel may be counted in either.
    jumps = True

    def __init__(
        self,
        image: JetImage,
        num_classes: int,
        *,
        embed_dim: int = 128,
        num_layers: tuple[int, ...] = (3, 4, 6, 3),
        groups: int = 32,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.image = image
        self.stem = nn.Sequential(*_conv_norm(1, 64, 7, stride=2), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1))
        blocks, channels = [], 64
        for stage, num_blocks in enumerate(num_layers):
            width = embed_dim * 2**stage
            for block in range(num_blocks):
                stride = 2 if block == 0 and stage > 0 else 1
                blocks.append(ResNeXtBlock(channels, width, groups, stride, has_projection=block == 0))
                channels = 2 * width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(channels, num_classes)
        )
        renamed_weights(self, {"decoder": "head"})
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stages(self) -> dict[str, list[str]]:
        """Modules and parameters of each fine-tuning stage, from the input to the ``head``."""
        return {"stem": ["stem"], **stages_of("blocks", self.blocks), "head": ["head"]}

    def reference_forward(
        self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """Logits (batch, class) of the jets; see the class for the shapes."""
        image = PERCENT * self.image(four_momenta, mask)
        return self.head(self.blocks(self.stem(image.to(features.dtype))))


class ResNeXtBlock(nn.Module):
    r"""Residual block of a grouped bottleneck, form (c) of figure 3 in arXiv:1611.05431.

    .. math:: y = \mathrm{ReLU}(P x + F(x))

    F is a 1x1 convolution to ``width`` channels, a 3x3 convolution in ``groups`` and a 1x1 convolution to twice the
    width, each with batch normalisation, and with ReLU between them. P is a 1x1 convolution with batch normalisation
    in the first block of a stage, and the identity in the others.
    """

    def __init__(self, channels_in: int, width: int, groups: int, stride: int, *, has_projection: bool) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *_conv_norm(channels_in, width, 1),
            nn.ReLU(),
            *_conv_norm(width, width, 3, stride=stride, groups=groups),
            nn.ReLU(),
            *_conv_norm(width, 2 * width, 1),
        )
        self.shortcut = nn.Identity()
        if has_projection:
            self.shortcut = nn.Sequential(*_conv_norm(channels_in, 2 * width, 1, stride=stride))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """From (batch, channels_in, pixel, pixel) to (batch, 2 * width, pixel / stride, pixel / stride)."""
        return self.relu(self.shortcut(x) + self.residual(x))


def _conv_norm(
    channels_in: int, channels_out: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    conv = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return conv, nn.BatchNorm2d(channels_out)


PAPER = Paper("arXiv:1611.05431", "Aggregated Residual Transformations for Deep Neural Networks")


@register_model(
    paper=PAPER, sees="jets", variant="a quarter as wide, as in arXiv:1902.08570, on images of 64x64 pixels"
)
def resnext50_jetimage(input_dim: int, num_classes: int) -> JetImageResNeXt:
    """ResNeXt-50 32x4d on 64x64 pixels of 0.025, with every convolution but the first a quarter as wide.

    1,457,314 parameters with 2 classes.

    Args:
        input_dim: accepted for a common interface and not used: the model sees only the image of a jet.
        num_classes: number of logits.
    """
    return JetImageResNeXt(JetImage(pixels=64, pixel_size=0.025), num_classes, embed_dim=32)
