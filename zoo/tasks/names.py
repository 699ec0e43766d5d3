"""Tasks by name: the zoo's own, and those of other packages with the package before."""

import inspect
from types import ModuleType

import zoo.tasks
from zoo.plugins import TASKS, fault_of, load_plugins
from zoo.tasks.task import Task


def list_tasks() -> list[str]:
    """Names of all tasks, sorted: ``Classification``, and of other packages ``mypackage.MyTask``.

    Example:
        >>> "Classification" in list_tasks()
        True
    """
    return sorted(_known())


def find_task(name: str) -> type[Task]:
    """The task of that name; nothing is imported but what installed packages offer.

    Raises:
        ValueError: if no task has the name.
    """
    known = _known()
    if name not in known:
        package, dot, _ = name.rpartition(".")
        fault = fault_of(package.partition(".")[0]) if dot else None
        reason = f"its package cannot be imported ({fault})" if fault else f"known tasks: {', '.join(sorted(known))}"
        raise ValueError(f"no task is called {name!r}; {reason}")
    return known[name]


def task_name(task: type[Task]) -> str:
    """The name that leads to a task, as far as its package offers it.

    Example:
        >>> task_name(zoo.tasks.Classification)
        'Classification'
    """
    package = task.__module__.partition(".")[0]
    return task.__name__ if package == "zoo" else f"{package}.{task.__name__}"


def _known() -> dict[str, type[Task]]:
    offered = [zoo.tasks, *load_plugins(TASKS).values()]
    return {task_name(task): task for each in offered for task in _tasks_of(each)}


def _tasks_of(offered: object) -> list[type[Task]]:
    """The tasks that a module holds, or the one that was offered itself, but for those that it only builds upon."""
    values = list(vars(offered).values()) if isinstance(offered, ModuleType) else [offered]
    tasks = [value for value in values if inspect.isclass(value) and issubclass(value, Task) and value is not Task]
    if not isinstance(offered, ModuleType):
        return tasks
    package = offered.__name__.partition(".")[0]
    return [task for task in tasks if task.__module__.partition(".")[0] == package]
