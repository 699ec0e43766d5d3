"""Which of its two forms a model computes: the fast one, or the one of its page."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import torch

_is_asked_for: ContextVar[bool] = ContextVar("reference", default=False)


@contextlib.contextmanager
def reference() -> Iterator[None]:
    """Models compute as on their page, in plain dense torch: to export, differentiate twice, or compare.

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

    That one has sizes that depend on the data and gradients written by hand, which neither `torch.export`,
    `torch.compile` and `torch.jit.trace` nor the transforms of `torch.func` can look into.
    """
    return (
        torch.compiler.is_compiling()  # of torch.export, too
        or torch.jit.is_tracing()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or _is_asked_for.get()
    )
