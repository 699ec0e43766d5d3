"""Pairs embedded in blocks: what the layers one after the other would give, values, gradients and statistics."""

import copy
import sys

import pytest
import torch
from torch import nn

from zoo.particle_transformer.pair_embedding import embed_pairs
from zoo.particle_transformer.particle_transformer import PairEmbedding


@pytest.fixture(params=[7, 64, 1 << 20])
def pairs_per_block(request, monkeypatch):
    monkeypatch.setattr(sys.modules["zoo.particle_transformer.pair_embedding"], "PAIRS_PER_BLOCK", request.param)


@pytest.fixture
def embeddings() -> tuple[PairEmbedding, PairEmbedding]:
    """The same weights twice, none of them trivial, for one to go through its layers one by one."""
    embedding = PairEmbedding(4, (16, 24, 3)).double()
    for parameter in embedding.parameters():
        nn.init.normal_(parameter)
    return embedding, copy.deepcopy(embedding)


def test_training_is_that_of_the_layers(embeddings, pairs_per_block):
    ours, layers = embeddings
    pairs, upstream = torch.randn(100, 4).double() * 3 + 1, torch.randn(100, 3).double()
    mine, theirs = pairs.clone().requires_grad_(), pairs.clone().requires_grad_()
    result, expected = embed_pairs(ours, mine), nn.Sequential.forward(layers, theirs)
    torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-10)
    result.backward(upstream)
    expected.backward(upstream)
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-9, atol=1e-9)
    for (name, one), other in zip(ours.named_parameters(), layers.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-9, atol=1e-9, msg=name)
    for (name, one), other in zip(ours.named_buffers(), layers.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10, msg=name)


def test_inference_is_that_of_the_layers(embeddings, pairs_per_block):
    ours, layers = (embedding.eval() for embedding in embeddings)
    pairs = torch.randn(100, 4).double() * 3 + 1
    with torch.no_grad():
        torch.testing.assert_close(
            embed_pairs(ours, pairs), nn.Sequential.forward(layers, pairs), rtol=1e-10, atol=1e-10
        )


@pytest.mark.parametrize("pairs", [0, 1])
def test_too_few_pairs_for_statistics(embeddings, pairs):
    ours, _ = embeddings
    result = embed_pairs(ours, torch.randn(pairs, 4).double())
    assert result.shape == (pairs, 3)
    assert result.isfinite().all()
