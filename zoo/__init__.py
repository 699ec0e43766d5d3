"""A physics-informed deep-learning model zoo for particle physics."""

from zoo.hub import list_pretrained, load_pretrained
from zoo.registry import create_model, list_models, register_model

__all__ = ["create_model", "list_models", "list_pretrained", "load_pretrained", "register_model"]
__version__ = "0.1.0"
