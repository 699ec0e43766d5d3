"""The embedding of the pairs of Particle Transformer, computed in cache-sized blocks.

There are thirty times as many pairs as particles, so their stored activations would be most of the memory of a training
step, and reading them most of the time of the embedding. Only the output of each affine map is stored: normalisation
and activation are computed while a block of pairs is in the cache, and again in the backward pass.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from zoo.kernels.block_norms import Affine, BlockSums, NormGradient
from zoo.kernels.cpu import linear, outer_sum
from zoo.kernels.norms import fold_norm, track_statistics

#: Pairs per block.
PAIRS_PER_BLOCK = 4096


def embed_pairs(layers: nn.Sequential, pairs: Tensor) -> Tensor:
    """The output (pair, feature) of a `PairEmbedding` for packed pairs (pair, number)."""
    training = layers.training
    if pairs.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
        if training and len(pairs) > 1:
            return _by_statistics_of_batch(layers, pairs)
        if not training and not torch.is_grad_enabled():
            return _by_fixed_statistics(layers, pairs)
    for layer in layers:
        pairs = layer(pairs)
    return pairs


def _by_fixed_statistics(layers: nn.Sequential, pairs: Tensor) -> Tensor:
    """Fixed statistics are factors of the weights, so each block of pairs goes through all layers in the cache."""
    norm, *rest = layers
    *hidden, last = (fold_norm(layer, after) for layer, after in zip(rest[::3], rest[1::3], strict=True))
    blocks = []
    for block in pairs.split(PAIRS_PER_BLOCK):
        block = norm(block)
        for weight, bias in hidden:
            block = linear(block, weight, bias, activation="gelu")
        blocks.append(linear(block, *last, activation="gelu" if layers.last_activation else "none"))
    return torch.cat(blocks)


def _by_statistics_of_batch(layers: nn.Sequential, pairs: Tensor) -> Tensor:
    """All pairs go through one layer after the other, each in blocks."""
    norm, first, *rest = layers
    *norms, last = rest[::3]
    z = first(norm(pairs))
    mean, variance = _moments(z)
    for norm, layer in zip(norms, rest[2::3], strict=True):
        track_statistics(norm, mean, variance, len(z))
        z, mean, variance = _NormGeluLinear.apply(
            z, mean, variance, norm.eps, norm.weight, norm.bias, layer.weight, layer.bias
        )
    return F.gelu(last(z)) if layers.last_activation else last(z)


@torch.no_grad()
def _moments(z: Tensor) -> tuple[Tensor, Tensor]:
    sums = BlockSums(z[0])
    for rows in z.split(PAIRS_PER_BLOCK):
        sums.add(rows, rows)
    return sums.moments(len(z))


class _NormGeluLinear(torch.autograd.Function):
    r""":math:`W \, \mathrm{GELU}(\mathrm{BN}(z)) + b`, and its mean and variance over the rows.

    The given mean and variance are those of z: they have no gradient of their own, as that of z includes it.
    """

    @staticmethod
    def forward(ctx, z, mean, variance, eps, scale, shift, weight, bias):
        affine = Affine.of(mean, variance, eps, scale, shift)
        result, sums = z.new_empty(len(z), len(weight)), BlockSums(bias)
        for rows, made in zip(z.split(PAIRS_PER_BLOCK), result.split(PAIRS_PER_BLOCK), strict=True):
            made.copy_(linear(F.gelu(affine.apply(rows)), weight, bias))
            sums.add(made, made)
        moments = sums.moments(len(z))
        ctx.save_for_backward(z, weight, *affine)
        ctx.mark_non_differentiable(*moments)
        return result, *moments

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient, *_):
        z, weight, *parts = ctx.saved_tensors
        affine = Affine(*parts)
        of_z, of_weight, sums = torch.empty_like(z), torch.zeros_like(weight), BlockSums(affine.factor)
        blocks = list(zip(z.split(PAIRS_PER_BLOCK), of_z.split(PAIRS_PER_BLOCK), strict=True))
        for (rows, of_rows), above in zip(blocks, gradient.split(PAIRS_PER_BLOCK), strict=True):
            normal = affine.apply(rows)
            of_weight += outer_sum(above, F.gelu(normal))
            of_rows.copy_(torch.ops.aten.gelu_backward(linear(above, weight.T), normal))
            sums.add(of_rows, rows)
        rule = NormGradient.of(affine, sums, len(z))
        for rows, of_rows in blocks:
            of_rows.copy_(rule.apply(of_rows, rows))
        return of_z, None, None, None, rule.of_scale, sums.values.to(sums.dtype), of_weight, gradient.sum(0)
