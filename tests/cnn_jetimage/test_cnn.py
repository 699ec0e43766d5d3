"""Networks on jet images: their sizes, and what they do not see."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from zoo import create_model
from zoo.cnn_jetimage import JetImage, JetImageCNN, JetImageResNeXt
from zoo.cnn_jetimage.resnext import ResNeXtBlock

NAMES = ("cnn_jetimage", "cnn_jetimage_40", "resnext50_jetimage")


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_full_width_is_the_published_network():
    """torchvision's resnext50_32x4d has 25,028,904 parameters, of them two more input channels of 64 7x7 filters."""
    assert count(JetImageResNeXt(JetImage(), num_classes=1000)) == 25_028_904 - 2 * 64 * 7 * 7


def test_a_block_by_hand():
    """Weights of the 1x1, the grouped 3x3, the 1x1 convolution and the projection, and two a channel of each norm."""
    weights = 64 * 32 + 32 * 9 * (32 // 32) + 32 * 64 + 64 * 64
    norms = 2 * (32 + 32 + 64 + 64)
    assert count(ResNeXtBlock(64, 32, groups=32, stride=1, has_projection=True)) == weights + norms
    assert count(ResNeXtBlock(64, 32, groups=32, stride=1, has_projection=False)) == weights + norms - 64 * 64 - 2 * 64


def test_stages_halve_the_image():
    model = create_model("resnext50_jetimage", input_dim=7, num_classes=2)
    maps = model.stem(torch.zeros(1, 1, 64, 64))
    shapes = [maps.shape[1:]]
    for block in model.blocks:
        maps = block(maps)
        if maps.shape[1:] != shapes[-1]:
            shapes.append(maps.shape[1:])
    # The first stage widens nothing: the stem is not narrowed with the rest.
    assert shapes == [(64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2)]
    assert len(model.blocks) == 16


def test_other_sizes_of_images():
    with pytest.raises(ValueError, match="8x8 or more, got pixels = 7"):
        JetImageCNN(JetImage(pixels=7), num_classes=2)
    momenta, mask = torch.ones(3, 2, 4), torch.ones(3, 2, dtype=torch.bool)
    for network in (JetImageCNN, JetImageResNeXt):
        model = network(JetImage(pixels=13, pixel_size=0.1), num_classes=4).eval()
        assert model(torch.zeros(3, 2, 7), momenta, mask).shape == (3, 4)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_one_jet_trains(name, jets):
    """Batch normalisation then has the pixels of one image, at least 2x2."""
    model = create_model(name, input_dim=7, num_classes=2)
    logits = model(*(value[:1] for value in jets[:3]))
    cross_entropy(logits, jets.label[:1]).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_scale_of_pt_does_not_matter(name, jets):
    model = create_model(name, input_dim=7, num_classes=2).double().eval()
    features, four_momenta = jets.features.double(), jets.four_momenta.double()
    logits = model(features, four_momenta, jets.mask)
    assert (model(features, 3 * four_momenta, jets.mask) - logits).abs().max() < 1e-9
    model.image.normalise = False
    in_gev = model(features, four_momenta, jets.mask)
    assert (model(features, 3 * four_momenta, jets.mask) - in_gev).abs().max() > 1e-3


def test_features_are_not_seen(jets):
    model = create_model("cnn_jetimage", input_dim=7, num_classes=2).eval()
    logits = model(jets.features, jets.four_momenta, jets.mask)
    assert torch.equal(model(torch.zeros_like(jets.features), jets.four_momenta, jets.mask), logits)
