"""A physics-informed deep-learning model zoo for particle physics."""

from typing import Any

from zoo.hub import list_pretrained, load_pretrained
from zoo.registry import create_model, list_models, register_model

__all__ = ["create_model", "list_models", "list_pretrained", "load_pretrained", "predict", "register_model"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # the readers of files are slow to import, and a model alone needs none
    if name == "predict":
        from zoo.inference import predict

        return predict
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
