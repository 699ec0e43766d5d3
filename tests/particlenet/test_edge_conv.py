"""Edges in blocks against the same layers one after the other, in torch's own modules."""

import itertools
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zoo.kernels.norms import RowBatchNorm
from zoo.kernels.segments import offsets
from zoo.particlenet.edge_conv import Neighbors, edge_blocks, edge_mean

WIDTHS = [6, 5, 7]
NUMBERS = [3, 0, 2, 4, 1, 3]  # of neighbours; one node has none


def make_neighbors(numbers=NUMBERS):
    torch.manual_seed(1)
    return Neighbors(torch.randint(len(numbers), (sum(numbers),)), offsets(torch.tensor(numbers)))


def make_layers(dtype=torch.float64):
    torch.manual_seed(2)
    weights = [torch.randn(after, before, dtype=dtype) for before, after in itertools.pairwise(WIDTHS)]
    norms = nn.ModuleList(RowBatchNorm(width) for width in WIDTHS).to(dtype)
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.normal_(norm.bias)
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    return [weight.requires_grad_() for weight in weights], norms


def make_terms(dtype=torch.float64):
    torch.manual_seed(3)
    return [torch.randn(len(NUMBERS), WIDTHS[0], dtype=dtype, requires_grad=True) for _ in range(2)]


def one_after_the_other(receiver, sender, weights, norms, neighbors):
    numbers = neighbors.starts.diff()
    i = torch.arange(len(numbers)).repeat_interleave(numbers)
    edge = norms[0](receiver[i] + sender[neighbors.j]).relu()
    for weight, norm in zip(weights, norms[1:], strict=True):
        edge = norm(F.linear(edge, weight)).relu()
    total = torch.zeros(len(numbers), edge.shape[1], dtype=edge.dtype).index_add(0, i, edge)
    return total / numbers.clamp(min=1)[:, None]


@pytest.fixture(params=[1, 30, 1 << 17])
def block_size(request, monkeypatch):
    monkeypatch.setattr(sys.modules["zoo.particlenet.edge_conv"], "CACHED_NUMBERS", request.param)


@pytest.mark.usefixtures("block_size")
@pytest.mark.parametrize("training", [True, False])
def test_mean_gradient_and_statistics(training):
    results = []
    for function in (edge_mean, one_after_the_other):
        (receiver, sender), (weights, norms) = make_terms(), make_layers()
        norms.train(training)
        mean = function(receiver, sender, weights, list(norms), make_neighbors())
        leaves = [receiver, sender, *weights, *norms.parameters()]
        torch.manual_seed(4)
        results.append((mean, torch.autograd.grad(mean, leaves, torch.randn_like(mean)), norms.state_dict()))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    assert results[0][2]["0.num_batches_tracked"] == int(training)


@pytest.mark.parametrize("numbers", [[0, 0], [1, 0]])
def test_too_few_edges_for_statistics_are_normalised_by_the_running_ones(numbers):
    weights, norms = make_layers()
    terms = [torch.randn(2, WIDTHS[0], dtype=torch.float64) for _ in range(2)]
    neighbors = make_neighbors(numbers)
    mean = edge_mean(*terms, weights, list(norms.train()), neighbors)
    torch.testing.assert_close(mean, one_after_the_other(*terms, weights, list(norms.eval()), neighbors))
    assert norms[0].num_batches_tracked == 0


def test_half_precision_is_near_and_its_statistics_are_not_half():
    (receiver, sender), (weights, norms) = make_terms(torch.float32), make_layers(torch.float32)
    exact = edge_mean(receiver, sender, weights, list(norms), make_neighbors())
    variance = norms[0].running_var.clone()
    weights, norms = make_layers(torch.float32)
    half = edge_mean(receiver.bfloat16(), sender.bfloat16(), weights, list(norms), make_neighbors())
    half.float().sum().backward()
    assert half.dtype == torch.bfloat16
    assert (half - exact).abs().max() < 0.05 * exact.abs().max()
    torch.testing.assert_close(norms[0].running_var, variance, rtol=0.01, atol=0)
    assert all(weight.grad.dtype == torch.float32 for weight in weights)


@pytest.mark.usefixtures("block_size")
def test_blocks_cover_all_edges():
    blocks = edge_blocks(make_neighbors(), 7)
    assert [node for block in blocks for node in range(len(NUMBERS))[block.nodes]] == list(range(len(NUMBERS)))
    assert [edge for block in blocks for edge in range(sum(NUMBERS))[block.edges]] == list(range(sum(NUMBERS)))
