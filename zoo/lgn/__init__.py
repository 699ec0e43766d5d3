"""The Lorentz Group Network of arXiv:2006.04780, whose activations are tensors of the Lorentz group."""

from zoo.lgn.lgn import LGN, lgn

__all__ = ["LGN", "lgn"]
