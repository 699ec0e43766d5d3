"""Which of its two forms a model uses: the fast one, or the reference form on its page."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from functools import partial

import torch
import torch.autograd.forward_ad
from torch import Tensor

_is_asked_for: ContextVar[bool] = ContextVar("reference", default=False)


@contextlib.contextmanager
def reference() -> Iterator[None]:
    """Models use their reference form, in plain dense torch: to export, differentiate twice, or compare.

    Example:
        >>> with reference():
        ...     use_reference()
        True
        >>> use_reference()
        False
    """
    token = _is_asked_for.set(True)
    try:
        yield
    finally:
        _is_asked_for.reset(token)


def use_reference() -> bool:
    """Whether a model must not take the fast path.

    The fast path has sizes that depend on the data and gradients written by hand, which `torch.export`,
    `torch.compile`, `torch.jit.trace`, the transforms of `torch.func` and forward differentiation cannot handle.
    """
    return (
        torch.compiler.is_compiling()  # of torch.export, too
        or torch.jit.is_tracing()  # type: ignore[attr-defined] # of torch.jit._trace
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
        or _is_asked_for.get()
    )


def without_autocast(values: Tensor) -> contextlib.AbstractContextManager[object]:
    """Full precision on the device of the values; nothing if autocast is off, so that no export contains it."""
    device = values.device.type
    is_on = torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if is_on else contextlib.nullcontext()


def differentiable_once(values: Tensor, name: str) -> Tensor:
    """The values of a fast path, marked so that their gradient cannot be differentiated again.

    Its gradients are written by hand, and torch would omit their own derivatives without a warning.

    Args:
        values: logits or a representation.
        name: of the model, for the message.

    Returns:
        The same tensor; a backward pass with ``create_graph=True`` raises a ``RuntimeError``.
    """
    if values.requires_grad:
        values.register_hook(partial(_require_first_derivative, name))
    return values


def _require_first_derivative(name: str, gradient: Tensor) -> None:
    if torch.is_grad_enabled():  # in a backward pass only if that is to be differentiated too
        raise RuntimeError(
            f"{name}: the fast path can be differentiated once only; to differentiate twice (create_graph=True), call "
            "the model inside `with zoo.kernels.reference():`"
        )
