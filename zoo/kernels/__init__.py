"""What makes models fast: packed jets, pairs in blocks, products for the processor at hand; knows no model."""

from zoo.kernels.mode import reference, use_reference

__all__ = ["reference", "use_reference"]
