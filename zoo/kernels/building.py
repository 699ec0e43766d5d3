"""What several models are built of."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def join_context(pooled: Tensor, context: Tensor | None, context_dim: int) -> Tensor:
    """What a model made of the particles of each jet, and event quantities beside it.

    Args:
        pooled: (batch, feature).
        context: (batch, context_dim); None counts as zero.
        context_dim: number of event quantities that the model was built for.

    Returns:
        (batch, feature + context_dim), of the dtype of ``pooled``.

    Raises:
        ValueError: if ``context`` has another width.
    """
    if context is None:
        context = pooled.new_zeros(len(pooled), context_dim)
    if context.shape != (len(pooled), context_dim):
        raise ValueError(
            f"context is {tuple(context.shape)}, but this model takes ({len(pooled)}, {context_dim}): "
            "build it with that context_dim, or give it the event quantities it was built for"
        )
    return torch.cat([pooled, context.to(pooled.dtype)], dim=1) if context_dim else pooled


def stages_of(name: str, modules: Iterable[nn.Module]) -> dict[str, list[str]]:
    """A stage of fine-tuning for each module of the list ``name`` that has weights: ``name.0``, ``name.1``, ..."""
    return {f"{name}.{n}": [f"{name}.{n}"] for n, module in enumerate(modules) if module.state_dict()}


def psi(value: Tensor) -> Tensor:
    r"""Compress the range of a Minkowski product, :math:`\psi(v) = \operatorname{sgn}(v) \ln(1 + |v|)`."""
    return value.sign() * value.abs().log1p()
