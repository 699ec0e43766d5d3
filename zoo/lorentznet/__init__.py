"""LorentzNet, the Lorentz group equivariant graph network of arXiv:2201.08187."""

from zoo.lorentznet.lorentznet import LorentzNet, lorentznet

__all__ = ["LorentzNet", "lorentznet"]
