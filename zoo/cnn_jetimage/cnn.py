"""A plain convolutional network on jet images.

References:
    Jet-Images -- Deep Learning Edition (2015), arXiv:1511.05190.
    Deep-learning Top Taggers or The End of QCD? (2017), arXiv:1701.08784, on images of 40x40.
"""

from torch import Tensor, nn

from zoo.cnn_jetimage.image import PERCENT, JetImage
from zoo.kernels.building import renamed_weights, stages_of
from zoo.model import JetModel
from zoo.registry import Paper, register_model


class JetImageCNN(JetModel):
    """Three convolutions, each with a maximum over 2x2 pixels, and two fully connected layers.

    As in arXiv:1511.05190 the first filters are wide, 11x11, as most pixels of a jet image are empty; the others are
    3x3, and a layer of width 64 reads them out.

    The logits are twice differentiable in the weights and in the particles' pT, and piecewise constant in their
    positions, like the image.

    Note: departures from the paper.
        - Batch normalisation follows each convolution, instead of a local response normalisation after the last.
        - The image is finer (the paper's is 25x25), so the later convolutions have 64 filters instead of 32, and all
          maxima are over 2x2 pixels.

    Args:
        image: from four-momenta to images of at least 8x8 pixels.
        num_classes: number of logits.
        dropout: before each of the last two layers.

    Shapes:
        features (batch, particle, feature) are used only for their dtype; four_momenta (batch, particle, 4) as
        (E, px, py, pz) in GeV, mask (batch, particle), True for a real particle; logits (batch, class).

    Raises:
        ValueError: if the image has too few pixels.
    """

    #: Changes that leave the image, and so the logits, unchanged, by their names in `zoo.check`.
    symmetries = frozenset({"beam rotation", "beam boost"})
    #: A particle on the edge of a pixel may be counted in either.
    jumps = True

    def __init__(self, image: JetImage, num_classes: int, *, dropout: float = 0.2) -> None:
        super().__init__()
        if image.pixels < 8:
            raise ValueError(f"three maxima over 2x2 pixels need an image of 8x8 or more, got pixels = {image.pixels}")
        self.image = image
        self.convolutions = nn.Sequential(_conv_pool(1, 32, 11), _conv_pool(32, 64, 3), _conv_pool(64, 64, 3))
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(64 * (image.pixels // 8) ** 2, 64),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(64, num_classes),
        )
        renamed_weights(self, {"decoder": "head"})

    def stages(self) -> dict[str, list[str]]:
        """Modules and parameters of each fine-tuning stage, from the input to the ``head``."""
        return {**stages_of("convolutions", self.convolutions), "head": ["head"]}

    def reference_forward(
        self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """Logits (batch, class) of the jets; see the class for the shapes."""
        image = PERCENT * self.image(four_momenta, mask)
        return self.head(self.convolutions(image.to(features.dtype)))


def _conv_pool(channels_in: int, channels_out: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )


PAPER = Paper("arXiv:1511.05190", "Jet-Images -- Deep Learning Edition")


@register_model(paper=PAPER, sees="jets", variant="on 64x64 pixels")
def cnn_jetimage(input_dim: int, num_classes: int) -> JetImageCNN:
    """CNN on 64x64 pixels of 0.025, 321,826 parameters with 2 classes.

    Args:
        input_dim: accepted for a common interface and not used: the model sees only the image of a jet.
        num_classes: number of logits.
    """
    return JetImageCNN(JetImage(pixels=64, pixel_size=0.025), num_classes)


@register_model(paper=PAPER, sees="jets", variant="on 40x40 pixels, as in arXiv:1701.08784")
def cnn_jetimage_40(input_dim: int, num_classes: int) -> JetImageCNN:
    """CNN on 40x40 pixels of 0.04, which cover the same region; 162,082 parameters with 2 classes.

    Args:
        input_dim: accepted for a common interface and not used: the model sees only the image of a jet.
        num_classes: number of logits.
    """
    return JetImageCNN(JetImage(pixels=40, pixel_size=0.04), num_classes)
