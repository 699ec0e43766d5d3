"""Matrix products and dropout that are fast on a CPU."""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from zoo.kernels.mode import use_reference


class Linear(nn.Linear):
    """Affine map of rows, (row, in) -> (row, out), by `linear`."""

    def forward(self, rows: Tensor) -> Tensor:
        """Mapped rows."""
        return linear(rows, self.weight, self.bias)


#: What `linear` can apply to its result.
_ACTIVATIONS = {"none": lambda values: values, "relu": F.relu, "gelu": F.gelu}


def linear(values: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "none") -> Tensor:
    """Affine map of (row, in) by ``weight`` (out, in) and ``bias`` (out,), then an ``activation``: none, relu or gelu.

    On a CPU oneDNN does it if torch has it, which in float32 is twice as fast as MKL on processors not made by Intel;
    without gradients it includes the activation. In the reference form (`zoo.kernels.reference`) it is torch's own, for
    values (..., in).
    """
    if use_reference() or not _is_for_onednn(values, weight):
        return _ACTIVATIONS[activation](F.linear(values, weight, bias))
    if torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in (values, weight, bias)):
        return _ACTIVATIONS[activation](_OneDnnLinear.apply(values, weight, bias))
    if not weight.T.is_contiguous():
        weight = weight.contiguous()  # oneDNN has no fast product for, say, half of the columns of a matrix
    return torch.ops.mkldnn._linear_pointwise(values, weight, bias, activation, [], "none")


def _is_for_onednn(values: Tensor, weight: Tensor) -> bool:
    if values.device.type != "cpu" or values.dtype not in _onednn_dtypes() or not len(values):
        return False
    # autocast and other mixtures of types are torch's
    return values.dtype == weight.dtype and not (values.dtype == torch.float32 and torch.is_autocast_enabled("cpu"))


class _OneDnnLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(values, weight)
        return linear(values, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        values, weight = ctx.saved_tensors
        of_values, of_weight, of_bias = ctx.needs_input_grad
        gradient = gradient.contiguous()
        return (
            linear(gradient, weight.T) if of_values else None,
            outer_sum(gradient, values) if of_weight else None,
            gradient.sum(0) if of_bias else None,
        )


class Dropout(nn.Dropout):
    """Dropout at a third of the cost of torch's on a CPU, see `dropout`."""

    def forward(self, values: Tensor) -> Tensor:
        """The values; in training, some are set to zero and the others scaled."""
        return dropout(values, self.p) if self.training else values


def dropout(values: Tensor, p: float) -> Tensor:
    r"""Zero with probability ``p``, else the value times :math:`1 / (1 - p)`.

    Note:
        On a CPU one random number of 64 bits decides on four values, so ``p`` is rounded to a multiple of
        :math:`2^{-16}`; torch draws one number for each value, which is slower.
    """
    threshold = round(p * 2**16)
    if use_reference() or values.device.type != "cpu" or not 0 < threshold < 2**16:
        return F.dropout(values, p)
    bits = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    keep = values.new_empty(values.shape)
    # Written as numbers, as torch is slow at converting booleans.
    torch.ge(bits[: values.numel()].view(values.shape), threshold - 2**15, out=keep)
    return values * keep.mul_(1 / (1 - threshold / 2**16))


def outer_sum(left: Tensor, right: Tensor) -> Tensor:
    r"""Sum of outer products of rows, :math:`L^T R`, of (row, m) and (row, n): the gradient of a weight.

    On a CPU in float32 it is computed as the weight gradient of a 1x1 convolution, which torch passes to oneDNN without
    copies; with a single thread it does so only for a dilated one, and a kernel of one pixel is the same when dilated.
    oneDNN works on 16 columns at a time, so a narrower ``left`` goes to MKL.
    """
    if left.device.type == "cpu" and left.dtype == torch.float32 and len(left) and left.shape[1] >= 16:
        image, gradient = (rows[None, None].permute(0, 3, 1, 2) for rows in (right, left))
        weight = left.new_empty(left.shape[1], right.shape[1], 1, 1)
        dilation = 2 if left.shape[1] % 16 == 0 and right.shape[1] % 16 == 0 else 1
        return torch.ops.aten.convolution_backward(
            gradient, image, weight, None, [1, 1], [0, 0], [dilation] * 2, False, [0, 0], 1, [False, True, False]
        )[1].flatten(1)
    return left.T @ right


@cache
def _onednn_dtypes() -> tuple[torch.dtype, ...]:
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return ()
    return (torch.float32, torch.bfloat16) if torch.ops.mkldnn._is_mkldnn_bf16_supported() else (torch.float32,)


@cache
def keep_freed_memory() -> None:
    """Let the process keep up to 60 MB of freed memory; one call is enough.

    glibc returns freed memory to the system beyond twice the largest mapped piece freed so far, and each block of pairs
    would have to fault its pages in again, which takes a fifth of a training step. The piece freed here is never
    touched.
    """
    torch.empty(30 << 20, dtype=torch.uint8)
