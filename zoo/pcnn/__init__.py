"""P-CNN, the particle-level convolutional network of arXiv:2004.08262 in the form of arXiv:2202.03772."""

from zoo.pcnn.pcnn import PCNN, pcnn

__all__ = ["PCNN", "pcnn"]
