"""How far a model's answers move under changes that should not move them, or do not according to its paper."""

from zoo.check.jets import read_some
from zoo.check.measure import Change, Requirement, check_changes, check_model, check_requirements, settle
from zoo.check.models import find_model

__all__ = [
    "Change",
    "Requirement",
    "check_changes",
    "check_model",
    "check_requirements",
    "find_model",
    "read_some",
    "settle",
]
