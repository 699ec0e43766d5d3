"""L-GATr-slim on packed tokens: what `zoo.lgatr.slim` computes, with padding only in the attention."""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.kernels.cpu import linear
from zoo.kernels.packing import LengthGroup, SortedJets, sort_by_length
from zoo.kernels.segments import offsets
from zoo.physics.lorentz import METRIC

#: Added to a mean square before its root.
EPSILON = 0.01

#: A Minkowski square below this fraction of the Euclidean one is that of a light-like vector up to rounding.
LIGHT_LIKE = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 0.03, torch.float16: 0.004}

if TYPE_CHECKING:
    from zoo.lgatr.slim import LGATrSlim, SlimBlock, SlimNorm, VectorLinear


def tokens_after_blocks(
    model: "LGATrSlim", features: Tensor, four_momenta: Tensor, mask: Tensor
) -> tuple[Tensor, SortedJets, Tensor]:
    """Scalars (node, embed_dim) of the tokens of all jets, the longest jet first, and the first token of each jet."""
    vectors, scalars, is_token = model.tokens(features, four_momenta, mask)
    jets, vectors, scalars = sort_by_length(is_token, vectors, scalars)
    vectors, scalars = _linear(model.embedding, vectors, scalars)
    biases = [_key_bias(group.mask, scalars.dtype) for group in jets.groups]
    for block in model.blocks:
        vectors, scalars = _block(block, vectors, scalars, jets.groups, biases)
    return scalars, jets, offsets(jets.counts)[:-1]


def without_leading(rows: Tensor, counts: Tensor, number: int) -> Tensor:
    """The rows (node, feature) of jets without the first ``number`` of each, which precede its ``counts`` (jet,)."""
    of_jets = counts + number
    rank = torch.arange(len(rows), device=rows.device) - offsets(of_jets)[:-1].repeat_interleave(of_jets)
    return rows[rank >= number]


def _key_bias(mask: Tensor, dtype: torch.dtype) -> Tensor | None:
    """Bias of the scores (jet, head, token, token); None if there is no padding."""
    if mask.all():
        return None
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, -torch.inf)[:, None, None]


def _block(
    block: "SlimBlock", vectors: Tensor, scalars: Tensor, groups: list[LengthGroup], biases: list[Tensor | None]
) -> tuple[Tensor, Tensor]:
    of_vectors, of_scalars = _attend(block, *_norm(block.norm_attention, vectors, scalars), groups, biases)
    vectors, scalars = vectors + block.drop(of_vectors, dim=-2), scalars + block.drop(of_scalars)
    normed = _norm(block.norm_mlp, vectors, scalars)
    of_vectors, of_scalars = _feed_forward(block, *normed)
    return vectors if block.is_last else vectors + of_vectors, scalars + of_scalars


def _attend(
    block: "SlimBlock", vectors: Tensor, scalars: Tensor, groups: list[LengthGroup], biases: list[Tensor | None]
) -> tuple[Tensor, Tensor]:
    vectors, scalars = _linear(block.in_proj, vectors, scalars)
    vectors = vectors.unflatten(-1, (3, block.num_heads, -1))  # node, 4, 3, head, c
    scalars = scalars.unflatten(-1, (3, block.num_heads, -1))  # node, 3, head, c
    squares = lengths(vectors, 1).sum(-1) + scalars.square().sum(-1)
    width = vectors.shape[-1] + scalars.shape[-1]
    scale = (squares / width + EPSILON).rsqrt()[..., None]
    parts = torch.cat([vectors.permute(0, 2, 3, 1, 4).flatten(-2), scalars], dim=-1) * scale
    metric = F.pad(vectors.new_tensor(METRIC).repeat_interleave(vectors.shape[-1]), (0, scalars.shape[-1]), value=1.0)
    attended = []
    start = 0
    for group, bias in zip(groups, biases, strict=True):
        rows = parts[start : start + group.nodes]
        start += group.nodes
        padded = group.pad(rows.flatten(1)).unflatten(-1, (3, block.num_heads, -1))  # jet, token, 3, head, d
        query, key, value = padded.permute(2, 0, 3, 1, 4)
        answer = F.scaled_dot_product_attention(query * metric, key, value, attn_mask=bias)
        attended.append(group.unpad(answer.transpose(1, 2).flatten(2)))
    rows = torch.cat(attended).unflatten(-1, (block.num_heads, -1))  # node, head, d
    of_vectors, of_scalars = rows.split([4 * vectors.shape[-1], scalars.shape[-1]], dim=-1)
    of_vectors = of_vectors.unflatten(-1, (4, -1)).transpose(1, 2).flatten(-2)
    return _linear(block.out_proj, of_vectors, of_scalars.flatten(1))


def _feed_forward(block: "SlimBlock", vectors: Tensor, scalars: Tensor) -> tuple[Tensor, Tensor]:
    if block.is_last:
        scalars, gate = linear(scalars, block.gates.scalars.weight, block.gates.scalars.bias).chunk(2, dim=-1)
        return vectors, linear(
            block.drop(F.gelu(gate, approximate="tanh") * scalars),
            block.mlp_out.scalars.weight,
            block.mlp_out.scalars.bias,
        )
    vectors, scalars = _linear(block.gates, vectors, scalars)
    scalars, gate = scalars.chunk(2, dim=-1)
    vectors, left, right = vectors.chunk(3, dim=-1)
    of_products = (0.5 * (left * right * vectors.new_tensor(METRIC)[:, None]).sum(1, keepdim=True)).sigmoid()
    return _linear(
        block.mlp_out, block.drop(of_products * vectors, dim=-2), block.drop(F.gelu(gate, approximate="tanh") * scalars)
    )


def lengths(vectors: Tensor, dim: int) -> Tensor:
    """Absolute Minkowski squares of vectors with components along ``dim``; zero where rounding may have made them."""
    time, *space = vectors.square().unbind(dim)
    space = sum(space)
    square = time - space
    return torch.where(square.detach().abs() <= LIGHT_LIKE[square.dtype] * (time + space).detach(), 0.0, square.abs())


def _norm(norm: "SlimNorm", vectors: Tensor, scalars: Tensor) -> tuple[Tensor, Tensor]:
    width = vectors.shape[-1] + scalars.shape[-1]
    mean = (lengths(vectors, 1).sum(-1) + scalars.square().sum(-1)) / width
    scale = (mean + EPSILON).rsqrt()[:, None]
    if norm.vectors is not None:
        vectors = vectors * (scale[..., None] * norm.vectors)
    return vectors, scalars * (scale * norm.scalars)


def _linear(layer: "VectorLinear", vectors: Tensor, scalars: Tensor) -> tuple[Tensor, Tensor]:
    scalars = linear(scalars, layer.scalars.weight, layer.scalars.bias)
    of_vectors: nn.Linear | None = layer.vectors
    if of_vectors is None:
        return vectors, scalars
    return linear(vectors.flatten(0, 1), of_vectors.weight).unflatten(0, (-1, 4)), scalars
