"""Transformers of Lorentz scalars and vectors."""

from zoo.lgatr.slim import LGATrSlim, lgatr_slim, lgatr_slim_small, lgatr_slim_tiny

__all__ = ["LGATrSlim", "lgatr_slim", "lgatr_slim_small", "lgatr_slim_tiny"]
