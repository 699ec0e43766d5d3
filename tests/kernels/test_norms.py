"""Batch normalisation of padded values beside that of packed ones."""

import copy

import pytest
import torch
from torch import Tensor

from zoo.kernels.norms import RowBatchNorm, masked_batch_norm


def both(norm: RowBatchNorm, values: Tensor, mask: Tensor) -> list[tuple[Tensor, Tensor, dict[str, Tensor]]]:
    """Normalised real rows, gradient of the values, and the state afterwards, packed and padded."""
    weight = torch.randn_like(values)
    results = []
    for is_packed in (True, False):
        ours, leaf = copy.deepcopy(norm), values.clone().requires_grad_()
        rows = ours(leaf[mask]) if is_packed else masked_batch_norm(ours, leaf, mask)[mask]
        (rows * weight[mask]).sum().backward()
        results.append((rows.detach(), leaf.grad, ours.state_dict() | {"gradient": ours.weight.grad}))
    return results


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 2, 9])
def test_padded_rows_are_normalised_as_packed_ones(train, rows):
    """Also on jets of no particle, and in a batch of fewer than two."""
    norm = RowBatchNorm(3).double()
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.uniform_(-1, 1)
    norm(3 * torch.randn(20, 3, dtype=torch.float64) + 1)
    mask = (torch.arange(20) < rows)[torch.randperm(20)].view(4, 5)
    values = torch.randn(4, 5, 3, dtype=torch.float64) * 2 - 5
    packed, padded = both(norm.train(train), values, mask)
    torch.testing.assert_close(padded, packed, rtol=1e-12, atol=1e-12)
    assert padded[2]["num_batches_tracked"] == 1 + (train and rows > 1)


def test_rubbish_in_padding_moves_nothing():
    norm = RowBatchNorm(3)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    values = torch.randn(2, 3, 3)
    expected = masked_batch_norm(copy.deepcopy(norm), values, mask)
    changed = masked_batch_norm(norm, values.masked_fill(~mask[..., None], torch.inf), mask)
    assert torch.equal(changed[mask], expected[mask])


def test_sums_of_half_precision_do_not_overflow():
    values = torch.full((100, 50, 2), 1000.0, dtype=torch.float16)
    values[::2] = 900
    normal = masked_batch_norm(RowBatchNorm(2), values, torch.ones(100, 50, dtype=torch.bool))
    assert normal.dtype == torch.float16
    torch.testing.assert_close(normal.abs(), torch.ones_like(normal), rtol=0, atol=2e-3)
