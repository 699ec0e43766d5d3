"""Jet images (arXiv:1511.05190)."""

from zoo.cnn_jetimage.image import JetImage

__all__ = ["JetImage"]
