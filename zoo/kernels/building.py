"""Building blocks that several models share."""

from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn


def join_context(pooled: Tensor, context: Tensor | None, context_dim: int) -> Tensor:
    """The pooled particles of each jet, with the event quantities appended.

    Args:
        pooled: (batch, feature).
        context: (batch, context_dim); None counts as zero. `JetModel` has already refused any other width.
        context_dim: number of event quantities that the model was built for.

    Returns:
        (batch, feature + context_dim), of the dtype of ``pooled``.
    """
    if context is None:
        context = pooled.new_zeros(pooled.shape[0], context_dim)
    return torch.cat([pooled, context.to(pooled.dtype)], dim=1) if context_dim else pooled


def stages_of(name: str, modules: Iterable[nn.Module]) -> dict[str, list[str]]:
    """A stage of fine-tuning for each module of the list ``name`` that has weights: ``name.0``, ``name.1``, ..."""
    return {f"{name}.{n}": [f"{name}.{n}"] for n, module in enumerate(modules) if module.state_dict()}


def renamed_weights(module: nn.Module, names: Mapping[str, str]) -> None:
    """Let a module load weights that were saved when parts of it had other names.

    Args:
        module: its ``load_state_dict`` accepts the old names, also as a part of a larger module.
        names: old name -> current name of each part, such as ``{"decoder": "head"}``.
    """
    module.renamed_parts = dict(names)
    module.register_load_state_dict_pre_hook(_rename)


def current_names(module: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the current names of the parts of the module, where `renamed_weights` knows older ones."""
    renamed = dict(weights)
    for path, part in module.named_modules():
        if hasattr(part, "renamed_parts"):
            _rename(part, renamed, f"{path}." if path else "")
    return renamed


def _rename(module: nn.Module, weights: MutableMapping[str, Tensor], prefix: str, *_: Any) -> None:
    for old, new in module.renamed_parts.items():
        for name in [name for name in weights if name.startswith(f"{prefix}{old}.")]:
            weights[f"{prefix}{new}.{name.removeprefix(f'{prefix}{old}.')}"] = weights.pop(name)


def psi(value: Tensor) -> Tensor:
    r"""Compress the range of a Minkowski product, :math:`\psi(v) = \operatorname{sgn}(v) \ln(1 + |v|)`."""
    return value.sign() * value.abs().log1p()
