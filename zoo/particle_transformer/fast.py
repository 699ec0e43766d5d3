"""Particle Transformer on packed particles and pairs: only the attention itself works on padding.

Jets of similar length are padded to matrices for the attention; pairs are embedded in blocks that stay in the cache.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.kernels.cpu import dropout, linear
from zoo.kernels.packing import LengthGroup, SortedJets, sort_by_length
from zoo.kernels.pairs import unordered_pairs
from zoo.particle_transformer.pair_embedding import embed_pairs
from zoo.particle_transformer.pair_inputs import describe_pairs

#: Added to the score of a padded key: finite also in half precision, so that a jet without particles gives no NaN.
MASKED = -6e4


def class_tokens(model: nn.Module, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
    """Normalised class token (batch, feature) of each jet after the last block of a `ParticleTransformer`."""
    x, jets = particles(model, features, four_momenta, mask)
    token = model.class_token.expand(len(mask), -1)
    for block in model.class_blocks:
        token = _class_attention(block, token, x, jets.groups)
    return model.norm(token)[jets.place]


def particles(model: nn.Module, features: Tensor, four_momenta: Tensor, mask: Tensor) -> tuple[Tensor, SortedJets]:
    """Particles (node, embed_dim) after the last particle attention, those of the longest jet first."""
    jets, features, four_momenta = sort_by_length(mask, features, four_momenta)
    biases = _attention_biases(model, features, four_momenta, jets)
    x = features
    for layer in model.embedding:
        x = layer(x)
    for block in model.blocks:
        x = _particle_attention(block, x, jets.groups, biases)
    return x, jets


def _attention_biases(model: nn.Module, features: Tensor, four_momenta: Tensor, jets: SortedJets) -> list[Tensor]:
    """Bias of the scores of each group, broadcastable to (jet, head, particle, particle)."""
    dtype = model.class_token.dtype
    if model.pair_embedding is None:
        return [_key_bias(group.mask, dtype) for group in jets.groups]
    i, j = unordered_pairs(jets.counts)
    pairs = describe_pairs(model.pair_inputs, features, four_momenta, i, j, dtype)
    embedded = embed_pairs(model.pair_embedding, pairs).to(dtype)
    pairs_of_groups = [int((group.counts * (group.counts + 1) // 2).sum()) for group in jets.groups]
    parts = embedded.split(pairs_of_groups)
    return [_pair_bias(rows, group) for rows, group in zip(parts, jets.groups, strict=True)]


def _particle_attention(block: nn.Module, x: Tensor, groups: Sequence[LengthGroup], biases: Sequence[Tensor]) -> Tensor:
    """Updated particles (node, feature); ``biases`` are added to the scores (jet, head, particle, particle)."""
    projected = block.in_proj(block.norm_in(x)).split([group.nodes for group in groups])
    attended = [
        group.unpad(_attend(block, *group.pad(rows).chunk(3, dim=-1), bias))
        for group, rows, bias in zip(groups, projected, biases, strict=True)
    ]
    return _update(block, x, torch.cat(attended))


def _class_attention(block: nn.Module, token: Tensor, x: Tensor, groups: Sequence[LengthGroup]) -> Tensor:
    """Updated token (jet, feature) of particles ``x`` (node, feature)."""
    width = token.shape[1]
    # Only keys and values are normalised; the query is the bare token.
    queries = linear(token, block.in_proj.weight[:width], block.in_proj.bias[:width])
    of_token, of_particles = (
        linear(block.norm_in(rows), block.in_proj.weight[width:], block.in_proj.bias[width:]) for rows in (token, x)
    )
    attended = [
        _attend_to_group(block, group, *parts)
        for group, *parts in zip(
            groups,
            queries.split([len(group.mask) for group in groups]),
            of_token.split([len(group.mask) for group in groups]),
            of_particles.split([group.nodes for group in groups]),
            strict=True,
        )
    ]
    return _update(block, token, torch.cat(attended))


def _attend_to_group(
    block: nn.Module, group: LengthGroup, query: Tensor, of_token: Tensor, of_particles: Tensor
) -> Tensor:
    """Attention of the tokens of a group to themselves and to their particles, (jet, feature)."""
    key, value = torch.cat([of_token[:, None], group.pad(of_particles)], dim=1).chunk(2, dim=-1)
    bias = _key_bias(F.pad(group.mask, (1, 0), value=True), query.dtype)
    return _attend(block, query[:, None], key, value, bias)[:, 0]


def _attend(block: nn.Module, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Attention of (jet, particle, feature) tensors, with the same shape as ``query``."""
    query, key, value = (part.unflatten(-1, (block.num_heads, -1)).transpose(1, 2) for part in (query, key, value))
    p = block.dropout.p if block.training else 0.0
    return _attention(query, key, value, bias, p).transpose(1, 2).flatten(2)


def _attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, p: float) -> Tensor:
    """Attention of (jet, head, particle, feature) with a ``bias`` of its scores and dropout ``p`` of its weights."""
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=p)
    # The scores of a group stay in the cache, so torch's blocked attention gains nothing on a CPU; with gradients it
    # has only a general form there, which looks for rows without keys and has a slow dropout.
    scores = query @ (key * query.shape[-1] ** -0.5).mT + bias
    weights = scores.softmax(-1)
    return (dropout(weights, p) if p else weights) @ value


def _update(block: nn.Module, x: Tensor, attended: Tensor) -> Tensor:
    """The rest of a block, on rows (row, feature)."""
    scale = block.head_scale.repeat_interleave(x.shape[1] // block.num_heads)  # scales the weight: there are many rows
    heads = linear(attended, block.out_proj.weight * scale[:, None], block.out_proj.bias * scale)
    x = x + block.dropout(block.norm_out(heads))
    hidden = block.norm_hidden(
        block.dropout(linear(block.norm_mlp(x), block.fc1.weight, block.fc1.bias, activation="gelu"))
    )
    return block.residual_scale * x + block.dropout(block.fc2(hidden))


def _key_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Zero for a real key and `MASKED` for padding, (jet, 1, 1, particle)."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, MASKED)[:, None, None, :]


def _pair_bias(embedded: Tensor, group: LengthGroup) -> Tensor:
    """Matrices (jet, head, particle, particle) of the numbers (pair, head) of each pair of `unordered_pairs`."""
    jets, particles = group.mask.shape
    i, j = unordered_pairs(group.counts)
    bias = embedded.new_full((jets * particles * particles, embedded.shape[1]), MASKED)
    slot = group.cells % particles
    for one, other in ((i, j), (j, i)):
        bias.index_copy_(0, group.cells[one] * particles + slot[other], embedded)
    return bias.unflatten(0, (jets, particles, particles)).permute(0, 3, 1, 2).contiguous()
