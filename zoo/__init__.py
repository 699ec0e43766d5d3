"""A physics-informed deep-learning model zoo for particle physics."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.hub import list_pretrained, load_pretrained
    from zoo.inference import predict
    from zoo.registry import create_model, list_models, register_model

__all__ = ["create_model", "list_models", "list_pretrained", "load_pretrained", "predict", "register_model"]
__version__ = "0.1.0"

#: Where the functions above are.
_MODULES = {
    **dict.fromkeys(("create_model", "list_models", "register_model"), "zoo.registry"),
    **dict.fromkeys(("list_pretrained", "load_pretrained"), "zoo.hub"),
    "predict": "zoo.inference",
}


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, which a program or a worker process that only reads files can do without
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
