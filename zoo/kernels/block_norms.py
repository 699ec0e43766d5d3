"""Batch normalisation of rows computed block by block, so that each block stays in the cache.

All rows are needed before the first of them can be normalised, and again before the gradient of the first is known. So
a layer collects the sums while it makes its rows (`BlockSums`), and the next one applies them (`Affine`,
`NormGradient`).
"""

from typing import NamedTuple

import torch
from torch import Tensor


class BlockSums:
    """Sums over rows of an array and of its product with another, block by block, each (feature,) in float64."""

    def __init__(self, like: Tensor) -> None:
        self.values = torch.zeros_like(like, dtype=torch.float64)
        self.products = torch.zeros_like(self.values)
        self.dtype = like.dtype

    def add(self, values: Tensor, others: Tensor) -> None:
        """Add a block of both, (row, feature) each."""
        values, others = values.to(self.dtype), others.to(self.dtype)
        self.values += values.sum(0)
        self.products += (values * others).sum(0)

    def moments(self, rows: int) -> tuple[Tensor, Tensor]:
        """Mean and biased variance over the number of ``rows``, if the array was summed with itself."""
        mean = self.values / rows
        return mean.to(self.dtype), (self.products / rows - mean**2).clamp(min=0).to(self.dtype)


class Affine(NamedTuple):
    """A batch normalisation as a factor and a shift of each feature, (feature,) each."""

    factor: Tensor
    shift: Tensor
    mean: Tensor
    inverse_spread: Tensor

    @classmethod
    def of(cls, mean: Tensor, variance: Tensor, eps: float, scale: Tensor, shift: Tensor) -> "Affine":
        """The normalisation by these statistics, with the learnt ``scale`` and ``shift``."""
        inverse_spread = (variance + eps).rsqrt()
        factor = scale * inverse_spread
        return cls(factor, shift - mean * factor, mean, inverse_spread)

    def apply(self, rows: Tensor) -> Tensor:
        """Normalised rows, of the type of the factor."""
        return torch.addcmul(self.shift, rows.to(self.factor.dtype), self.factor)


class NormGradient(NamedTuple):
    """Gradient before a batch normalisation, f g - p - q z for the gradient g after it, and that of its scale."""

    f: Tensor
    p: Tensor
    q: Tensor
    of_scale: Tensor

    @classmethod
    def of(cls, affine: Affine, sums: BlockSums, rows: int | None) -> "NormGradient":
        """The rule, from sums of g and of g z over all ``rows``; None: the statistics are constants."""
        mean, inverse = affine.mean.double(), affine.inverse_spread.double()
        of_scale = inverse * (sums.products - mean * sums.values)
        if rows is None:
            p = q = torch.zeros_like(affine.factor)
        else:
            factor = affine.factor.double()
            q = factor * inverse * of_scale / rows
            p = factor * sums.values / rows - q * mean
        return cls(affine.factor, p.to(sums.dtype), q.to(sums.dtype), of_scale.to(sums.dtype))

    def apply(self, gradient: Tensor, z: Tensor) -> Tensor:
        """The gradient of rows z, of its own type."""
        wide = torch.addcmul(self.p, z.to(self.q.dtype), self.q)
        return torch.addcmul(-wide, gradient.to(self.f.dtype), self.f).to(gradient.dtype)
