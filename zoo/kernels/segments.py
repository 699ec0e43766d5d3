"""Sums over the particles or pairs of a jet, which are stored consecutively."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def offsets(counts: Tensor) -> Tensor:
    """Where each segment of a packed list starts, with the end of the list appended, (segment,) -> (segment + 1,)."""
    return F.pad(counts.cumsum(0), (1, 0))


def segment_sum(values: Tensor, starts: Tensor) -> Tensor:
    """Sum over the segments of a packed list.

    Args:
        values: (item, feature).
        starts: (segment + 1,) first item of each segment, and the end; an empty segment gives zero.

    Returns:
        (segment, feature).
    """
    return _SegmentSum.apply(values, starts)


def segment_mean(values: Tensor, starts: Tensor) -> Tensor:
    """Mean over the segments of a packed list, as `segment_sum`; an empty segment gives zero."""
    return segment_sum(values, starts) / starts.diff().clamp(min=1)[:, None]


def gather_sum(values: Tensor, index: Tensor, starts: Tensor, weight: Tensor | None = None) -> Tensor:
    r"""Weighted sum of indexed rows in one pass without copies.

    .. math:: y_s = \sum_{k \in s} w_k \, x_{\mathrm{index}_k}

    Args:
        values: (row, feature).
        index: (item,) row of each item, of the dtype of ``starts``.
        starts: (segment + 1,) first item of each segment, and the end.
        weight: (item,) of the dtype of ``values``; by default one.

    Returns:
        (segment, feature).
    """
    return F.embedding_bag(index, values, starts, mode="sum", per_sample_weights=weight, include_last_offset=True)


class _SegmentSum(torch.autograd.Function):
    # The gradient only repeats rows; that of a general embedding bag would sort and scatter.
    @staticmethod
    def forward(ctx: Any, values: Tensor, starts: Tensor) -> Tensor:
        ctx.save_for_backward(starts)
        return gather_sum(values, torch.arange(len(values), dtype=starts.dtype, device=values.device), starts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (starts,) = ctx.saved_tensors
        return gradient.repeat_interleave(starts.diff(), dim=0), None
