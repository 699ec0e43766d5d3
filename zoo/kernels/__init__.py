"""Fast building blocks of models: packed jets, pairs in blocks, products for the given processor; knows no model."""

from zoo.kernels.mode import reference, use_reference

__all__ = ["reference", "use_reference"]
