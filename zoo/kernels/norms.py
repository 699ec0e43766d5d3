"""Batch normalisation over real rows only, of packed and of padded values."""

from collections.abc import Iterable

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


def masked_batch_norm(norm: nn.Module, values: Tensor, mask: Tensor) -> Tensor:
    r"""`RowBatchNorm` for padded rows: only real rows enter and move the statistics.

    .. math:: y = \gamma \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

    Here :math:`\mu` and :math:`\sigma^2` are mean and biased variance of the real rows in training, and the running
    statistics in evaluation or with fewer than two real rows. No size depends on the data.

    Args:
        norm: a ``BatchNorm1d`` or ``BatchNorm2d``, whose weights and running statistics are used and, in training,
            updated as torch does.
        values: x, (..., feature), for instance (batch, particle, feature).
        mask: (...), True for a real row.

    Returns:
        (..., feature) of the dtype of ``values``; any finite number where there is no real row.
    """
    dtype = torch.promote_types(values.dtype, norm.running_mean.dtype)  # sums in half precision would overflow
    is_real = mask[..., None]
    x = values.to(dtype).where(is_real, 0)
    mean, variance = norm.running_mean, norm.running_var
    if norm.training:
        every_row = tuple(range(mask.ndim))
        rows = is_real.sum(every_row)
        batch_mean = x.sum(every_row) / rows.clamp(min=1)
        batch_variance = (x - batch_mean).square().where(is_real, 0).sum(every_row) / rows.clamp(min=1)
        has_variance = rows > 1
        # copies, as the running statistics change in place
        mean = batch_mean.where(has_variance, mean.clone())
        variance = batch_variance.where(has_variance, variance.clone())
        _track_if(has_variance, norm, batch_mean.detach(), batch_variance.detach(), rows)
    y = (x - mean) * (variance + norm.eps).rsqrt() * norm.weight + norm.bias
    return y.to(values.dtype)


def apply_masked(layers: Iterable[nn.Module], values: Tensor, mask: Tensor) -> Tensor:
    """Apply layers in turn, batch normalisations among them as `masked_batch_norm`.

    Args:
        layers: such as an ``nn.Sequential``.
        values: (..., feature).
        mask: (...), True for a real row.
    """
    for layer in layers:
        values = masked_batch_norm(layer, values, mask) if isinstance(layer, nn.BatchNorm1d) else layer(values)
    return values


@torch.no_grad()
def _track_if(condition: Tensor, norm: nn.Module, mean: Tensor, variance: Tensor, rows: Tensor) -> None:
    """`track_statistics` where the ``condition`` (1,) holds."""
    unbiased = variance * rows / (rows - 1).clamp(min=1)
    norm.num_batches_tracked += condition.squeeze(0)
    norm.running_mean.copy_(norm.running_mean.lerp(mean, norm.momentum).where(condition, norm.running_mean))
    norm.running_var.copy_(norm.running_var.lerp(unbiased, norm.momentum).where(condition, norm.running_var))


@torch.no_grad()
def track_statistics(norm: nn.BatchNorm1d, mean: Tensor, variance: Tensor, rows: int) -> None:
    """Update running statistics with the mean and the biased variance (feature,) of a batch of ``rows``."""
    norm.num_batches_tracked += 1
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance * rows / max(rows - 1, 1), norm.momentum)


def fold_norm(layer: nn.Linear, norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer combined with the normalisation after it, with fixed statistics."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    mean = norm.running_mean if layer.bias is None else norm.running_mean - layer.bias
    return layer.weight * scale[:, None], norm.bias - mean * scale
