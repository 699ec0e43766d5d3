"""P-CNN on packed particles: no layer works on padding."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.kernels.cpu import linear
from zoo.kernels.packing import falling_pt, pack
from zoo.kernels.segments import offsets, segment_mean


def mean_of_positions(model: nn.Module, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
    """Mean (batch, feature) over the positions of each jet after the last unit of a `PCNN`."""
    counts = mask.sum(1)
    rows = pack(features, mask)
    rows = rows[falling_pt(rows, pack(four_momenta, mask), counts)]
    windows, _ = convolution_windows(counts)
    rows = F.relu(model.norm(_convolve(model.conv, model.input_norm(rows), windows)))
    for unit in model.units:
        entry = windows
        if unit.stride > 1:
            entry, counts = convolution_windows(counts, unit.stride)
            windows, _ = convolution_windows(counts)
        rows = _residual(unit, rows, entry, windows)
    # The mean costs next to nothing, and half precision would lose digits.
    with torch.autocast(rows.device.type, enabled=False):
        return segment_mean(rows.to(model.head[0].weight.dtype), offsets(counts))


def _residual(unit: nn.Module, rows: Tensor, entry: Tensor, windows: Tensor) -> Tensor:
    """Rows (row, out_dim) of a `ResidualUnit`, which sees ``entry`` windows first, ``windows`` in its second half."""
    hidden = F.relu(unit.norm1(_convolve(unit.conv1, rows, entry)))
    hidden = F.relu(unit.norm2(_convolve(unit.conv2, hidden, windows)))
    if unit.stride > 1:
        rows = rows.index_select(0, entry[:, 1])
    if unit.shortcut is not None:
        rows = unit.shortcut(rows)
    return rows + hidden


def _convolve(conv: nn.Conv1d, rows: Tensor, windows: Tensor) -> Tensor:
    """Rows (out_row, out_dim) of rows (row, in_dim) and `convolution_windows` (out_row, 3)."""
    with_zero = F.pad(rows, (0, 0, 0, 1))
    patches = F.embedding(windows, with_zero, padding_idx=len(rows)).flatten(1)
    return linear(patches, conv.weight.transpose(1, 2).flatten(1), conv.bias)


def convolution_windows(counts: Tensor, stride: int = 1) -> tuple[Tensor, Tensor]:
    """The three packed rows that each output of a convolution sees.

    Args:
        counts: (jet,) rows of each jet.
        stride: distance in rows between the centres of the outputs, from the first row of a jet.

    Returns:
        Rows (out_row, 3) left of, at and right of the centre, where the total number of rows stands for a row beyond
        the ends of the jet; and the number of outputs of each jet (jet,).

    Example:
        >>> windows, out_counts = convolution_windows(torch.tensor([3, 2]), stride=2)
        >>> windows.tolist(), out_counts.tolist()
        ([[5, 0, 1], [1, 2, 5], [5, 3, 4]], [2, 1])
    """
    starts, out_counts = offsets(counts), (counts + stride - 1) // stride
    jet = torch.repeat_interleave(out_counts)
    rank = torch.arange(len(jet), device=counts.device) - offsets(out_counts)[jet]
    position = stride * rank[:, None] + torch.tensor([-1, 0, 1], device=counts.device)
    is_real = (position >= 0) & (position < counts[jet, None])
    return torch.where(is_real, position + starts[jet, None], starts[-1]), out_counts
