"""Jet images (arXiv:1511.05190) and convolutional networks for them."""

from zoo.cnn_jetimage.cnn import JetImageCNN, cnn_jetimage, cnn_jetimage_40
from zoo.cnn_jetimage.image import JetImage
from zoo.cnn_jetimage.resnext import JetImageResNeXt, resnext50_jetimage

__all__ = [
    "JetImage",
    "JetImageCNN",
    "JetImageResNeXt",
    "cnn_jetimage",
    "cnn_jetimage_40",
    "resnext50_jetimage",
]
