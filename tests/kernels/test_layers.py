"""Packing, pairs and the products that oneDNN does."""

import itertools

import pytest
import torch

from zoo.kernels.cpu import dropout, linear, outer_sum
from zoo.kernels.norms import RowBatchNorm, fold_norm
from zoo.kernels.packing import leading_mask, length_groups, pack
from zoo.kernels.pairs import complete_pairs, pair_blocks, unordered_pairs
from zoo.kernels.segments import gather_sum, offsets, segment_mean, segment_sum

COUNTS = [0, 1, 5, 2, 0, 3]


def pairs_by_hand(counts):
    start, pairs = 0, []
    for count in counts:
        pairs += [pair for pair in itertools.product(range(start, start + count), repeat=2) if pair[0] != pair[1]]
        start += count
    return pairs


def test_pack_keeps_jets_in_order():
    values = torch.arange(6).reshape(2, 3)
    mask = torch.tensor([[True, False, True], [False, True, False]])
    assert pack(values, mask).tolist() == [0, 2, 4]


@pytest.mark.parametrize("rows", [0, 1])
def test_rows_too_few_for_a_variance_are_normalised_by_the_running_statistics(rows):
    norm = RowBatchNorm(3)
    norm(torch.randn(10, 3))
    before = norm.running_mean.clone()
    values = torch.randn(rows, 3)
    torch.testing.assert_close(norm(values), norm.eval()(values))
    torch.testing.assert_close(norm.running_mean, before)


def test_pairs_are_all_real_pairs_and_no_other():
    pairs = complete_pairs(torch.tensor(COUNTS))
    expected = pairs_by_hand(COUNTS)
    assert list(zip(pairs.i.tolist(), pairs.j.tolist(), strict=True)) == expected
    assert [expected[position] for position in pairs.reverse.tolist()] == [(j, i) for i, j in expected]
    for node, (start, stop) in enumerate(itertools.pairwise(pairs.starts.tolist())):
        assert {i for i, _ in expected[start:stop]} <= {node}


def test_unordered_pairs_are_all_pairs_once():
    i, j = unordered_pairs(torch.tensor(COUNTS))
    pairs = set(zip(i.tolist(), j.tolist(), strict=True))
    assert len(pairs) == len(i)
    mirrored = {(a, b) for one, other in pairs for a, b in ((one, other), (other, one)) if a != b}
    assert mirrored == set(pairs_by_hand(COUNTS))
    assert {one for one, other in pairs if one == other} == set(range(sum(COUNTS)))


def test_leading_mask():
    assert leading_mask(torch.tensor([1, 0, 2])).tolist() == [[True, False], [False, False], [True, True]]
    assert leading_mask(torch.tensor([0, 0])).shape == (2, 0)


@pytest.mark.parametrize("max_pairs", [1, 3, 22, 1000])
def test_blocks_cover_every_pair_once(max_pairs):
    counts = torch.tensor(COUNTS)
    pairs, expected = complete_pairs(counts), pairs_by_hand(COUNTS)
    covered = []
    for block in pair_blocks(pairs, counts, max_pairs):
        rows = expected[block.pair_slice]
        senders = {frozenset(j for i, j in rows if i == node) | {node} for node, _ in rows}
        assert len(rows) <= max_pairs or len(senders) == 1  # a single jet may be larger than the limit
        first = block.node_slice.start
        covered += [(i + first, j + first) for i, j in zip(block.pairs.i.tolist(), block.pairs.j.tolist(), strict=True)]
    assert covered == expected


def test_no_pairs_no_blocks():
    counts = torch.tensor([1, 0, 1])
    assert pair_blocks(complete_pairs(counts), counts, 10) == []


def test_segment_sums_and_their_gradient():
    values = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    starts = offsets(torch.tensor([2, 0, 3, 1]))
    expected = torch.stack([values[:2].sum(0), torch.zeros(2), values[2:5].sum(0), values[5]])
    torch.testing.assert_close(segment_sum(values, starts), expected)
    counts = torch.tensor([[2.0], [1.0], [3.0], [1.0]], dtype=torch.float64)
    torch.testing.assert_close(segment_mean(values, starts), expected / counts)
    assert torch.autograd.gradcheck(lambda v: segment_sum(v, starts), values)


def test_gather_sum_by_hand():
    values = torch.tensor([[1.0], [10.0], [100.0]])
    total = gather_sum(values, torch.tensor([2, 0, 0]), torch.tensor([0, 2, 2, 3]), torch.tensor([1.0, 2.0, 3.0]))
    assert total.tolist() == [[102.0], [0.0], [3.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("rows", [0, 1, 37])
def test_linear_equals_the_sum_of_products(dtype, rows):
    values, weight, bias = torch.randn(rows, 5).to(dtype), torch.randn(3, 5).to(dtype), torch.randn(3).to(dtype)
    exact = values.double() @ weight.double().T + bias.double()
    tolerance = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(linear(values, weight, bias).double(), exact, rtol=tolerance, atol=tolerance)
    positive = linear(values, weight, bias, "relu").double()
    torch.testing.assert_close(positive, exact.clamp(min=0), rtol=tolerance, atol=tolerance)
    smooth = linear(values, weight, bias, "gelu").double()  # oneDNN has the error function to 1e-6
    torch.testing.assert_close(smooth, torch.nn.functional.gelu(exact), rtol=tolerance, atol=max(tolerance, 2e-6))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_outer_sum_equals_the_sum_of_outer_products(dtype):
    left, right = torch.randn(40, 3).to(dtype), torch.randn(40, 5).to(dtype)
    exact = torch.einsum("ri,rj->ij", left.double(), right.double())
    tolerance = 40 * torch.finfo(dtype).eps
    torch.testing.assert_close(outer_sum(left, right).double(), exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("has_bias", [False, True])
def test_gradient_of_linear_equals_torchs(has_bias):
    """Also for a weight that is a part of a larger matrix."""
    values, matrix = torch.randn(40, 16), torch.randn(32, 48)
    bias = torch.randn(32) if has_bias else None
    leaves = [leaf.requires_grad_() for leaf in (values, matrix, bias) if leaf is not None]
    outputs = [function(values, matrix[:, 16:32], bias) for function in (linear, torch.nn.functional.linear)]
    gradient = torch.randn(40, 32)
    ours, theirs = (torch.autograd.grad(output, leaves, gradient) for output in outputs)
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(400_003,), (3, 7, 20_000), (0,)])
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_keeps_the_mean_and_drops_the_fraction(shape, p):
    values = torch.ones(shape, requires_grad=True)
    dropped = dropout(values, p)
    gradient = torch.autograd.grad(dropped.sum(), values)[0]
    assert torch.equal(gradient, dropped)
    assert set(dropped.unique().tolist()) <= {0.0, torch.tensor(1 / (1 - round(p * 2**16) / 2**16)).item()}
    if values.numel():
        error = (p * (1 - p) / values.numel()) ** 0.5
        assert (dropped == 0).double().mean().item() == pytest.approx(p, abs=5 * error)


def test_dropout_of_neighbours_is_independent():
    """Four values share a random number; the correlation of each pair of them vanishes within its error."""
    dropped = (dropout(torch.ones(1_000_000), 0.5) == 0).double().view(-1, 4)
    correlation = torch.corrcoef(dropped.T) - torch.eye(4)
    assert correlation.abs().max() < 5 / len(dropped) ** 0.5


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_dropout_of_nothing_and_of_all(p):
    assert torch.equal(dropout(torch.ones(5), p), torch.full((5,), 1 - p))


def test_length_groups_cover_all_jets_and_waste_little():
    counts = torch.randint(0, 120, (300,)).sort(descending=True).values
    groups = length_groups(counts)
    assert torch.equal(torch.cat([group.counts for group in groups]), counts)
    assert [group.nodes for group in groups] == [int(group.counts.sum()) for group in groups]
    cells = sum(group.mask.shape[0] * group.mask.shape[1] ** 2 for group in groups)
    assert cells < 1.3 * counts.square().sum()
    assert cells < 0.5 * len(counts) * counts.max() ** 2  # control: what padding to the longest jet would take


def test_groups_pad_and_unpad():
    counts = torch.tensor([3, 3, 1, 0])
    rows = torch.arange(14.0).view(7, 2)
    groups = length_groups(counts)
    parts = rows.split([group.nodes for group in groups])
    padded = [group.pad(part) for group, part in zip(groups, parts, strict=True)]
    assert padded[0].tolist() == [[[0, 1], [2, 3], [4, 5]], [[6, 7], [8, 9], [10, 11]]]
    back = torch.cat([group.unpad(part) for group, part in zip(groups, padded, strict=True)])
    assert torch.equal(back, rows)


@pytest.mark.parametrize("has_bias", [False, True])
def test_a_folded_normalisation_equals_the_two_layers(has_bias):
    layer, norm = torch.nn.Linear(4, 3, bias=has_bias).double(), RowBatchNorm(3).double()
    torch.nn.init.uniform_(norm.weight, 0.5, 2)
    norm(torch.randn(50, 3, dtype=torch.float64) * 3 + 1)
    rows = torch.randn(5, 4, dtype=torch.float64)
    torch.testing.assert_close(linear(rows, *fold_norm(layer, norm)), norm.eval()(layer(rows)))
