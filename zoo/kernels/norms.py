"""Batch normalisation of packed rows."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RowBatchNorm(nn.BatchNorm1d):
    """Batch normalisation of packed rows (row, feature), so that no statistic sees padding.

    In training, fewer than two rows have no variance; they are normalised by the running statistics.
    """

    def forward(self, rows: Tensor) -> Tensor:
        """Normalised rows, of the same shape."""
        if self.training and len(rows) < 2:
            return F.batch_norm(rows, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(rows)


@torch.no_grad()
def track_statistics(norm: nn.BatchNorm1d, mean: Tensor, variance: Tensor, rows: int) -> None:
    """Move running statistics by the mean and the biased variance (feature,) of a batch of ``rows``."""
    norm.num_batches_tracked += 1
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance * rows / max(rows - 1, 1), norm.momentum)


def fold_norm(layer: nn.Linear, norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer and of the normalisation after it, with fixed statistics, in one."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    mean = norm.running_mean if layer.bias is None else norm.running_mean - layer.bias
    return layer.weight * scale[:, None], norm.bias - mean * scale
