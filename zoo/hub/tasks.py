"""A task as it was trained: its model and all else that it needs for its answers, whatever the task is.

Nothing is imported because a folder says so: a task is one of the zoo's own, one that an installed package offers
through an entry point of the group ``zoo.tasks``, or one whose module this process has already imported.
"""

import importlib
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from zoo.data.features import FeatureTable
from zoo.hub.config import PretrainedConfig, PretrainedError
from zoo.hub.contents import CONFIG, WEIGHTS
from zoo.hub.kinds import Load, Network, Parts, parse_tensors, remedy_of, tables
from zoo.plugins import TASKS, fault_of, load_plugins
from zoo.registry import create_model


class _Task(Protocol):
    """The part of a `zoo.tasks.Task` that a folder needs."""

    model: nn.Module

    def answer(self, **inputs: Tensor) -> dict[str, Tensor]: ...


class UnknownTaskError(ValueError):
    """There is no task of the requested name."""


def find_task(name: str) -> type[nn.Module]:
    """The class of a task by its import path, such as ``zoo.tasks.Regression``.

    Raises:
        UnknownTaskError: if it is not one of the zoo's, of an installed package, or of a module imported before.
    """
    ours = importlib.import_module("zoo.tasks")  # by name, because tasks are built on the hub
    module, _, attribute = name.rpartition(".")
    if module == ours.__name__:
        found = getattr(ours, attribute, None) if attribute in ours.__all__ else None
    else:
        offered = [each for each in load_plugins(TASKS).values() if inspect.isclass(each)]
        found = next((each for each in offered if f"{each.__module__}.{each.__qualname__}" == name), None)
        found = found or getattr(sys.modules.get(module), attribute, None)
    if not inspect.isclass(found) or not issubclass(found, ours.Task):
        fault = fault_of(module.partition(".")[0])
        hint = f"its package cannot be imported ({fault})" if fault else f"the zoo's are {', '.join(ours.__all__)}"
        raise UnknownTaskError(f"no task is called {name!r}; {hint}")
    return cast(type[nn.Module], found)


def build_task(
    task: type[nn.Module], model: nn.Module, arguments: Mapping[str, Any], feature_table: FeatureTable
) -> nn.Module:
    """A task with random weights, in evaluation mode.

    Args:
        task: class of the task.
        model: model that it trained.
        arguments: other arguments of its class; a ``feature_table`` is added if it takes one.
        feature_table: feature table of its inputs.
    """
    takes = inspect.signature(task).parameters
    further = {"feature_table": feature_table} if "feature_table" in takes else {}
    return task(model, **arguments, **further).eval()


class TaskFolder(Network):
    """A task that gives named numbers per jet, such as a regression."""

    output = "answers"

    def build(self, folder: Path, config: PretrainedConfig, contents: Mapping[str, bytes], load: Load) -> Parts:
        """The task and its tables; see `zoo.hub.kinds.Kind`."""
        table, context_table = tables(folder, config)
        settings = config.task or {}
        try:
            found = find_task(settings["name"])
            model = create_model(config.model, input_dim=table.input_dim, num_classes=settings["num_outputs"])
            task = build_task(found, model, settings["arguments"], table)
        except (KeyError, ValueError, TypeError) as error:
            said = error.args[0] if error.args else error
            raise PretrainedError(f"{folder / CONFIG}: {said}; {remedy_of(config)}") from error
        self._load(folder / WEIGHTS, task, config, parse_tensors(folder / WEIGHTS, contents[WEIGHTS]))
        return Parts(task.eval(), table, context_table)

    def answer(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Its columns side by side, (batch, column); see `zoo.hub.kinds.Kind`."""
        return torch.stack(list(cast(_Task, model).answer(**inputs).values()), dim=1)

    def reply(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Its columns by name, (batch,) each; see `zoo.hub.kinds.Kind`."""
        return cast(_Task, model).answer(**inputs)

    def names(self, config: PretrainedConfig) -> tuple[str, ...]:
        """Names of its columns; see `zoo.hub.kinds.Kind`."""
        return tuple((config.task or {})["columns"])

    def network(self, model: nn.Module) -> nn.Module:
        """The model of the task; see `zoo.hub.kinds.Kind`."""
        return cast(_Task, model).model
