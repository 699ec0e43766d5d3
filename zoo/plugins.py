"""Models and tasks of other installed packages, found by the entry points that they declare.

A package offers in its ``pyproject.toml`` the module that registers its models, and the one that defines its tasks::

    [project.entry-points."zoo.models"]
    mypackage = "mypackage.models"

    [project.entry-points."zoo.tasks"]
    mypackage = "mypackage.tasks"

Nothing is imported before somebody asks for a name that is not the zoo's own, and a package that cannot be imported
is a warning that names it.
"""

import importlib.metadata
import warnings
from typing import NamedTuple, cast

#: Entry-point groups.
MODELS, TASKS = "zoo.models", "zoo.tasks"


class Distribution(NamedTuple):
    """An installed distribution: the name for ``pip install``, which need not be the name that is imported."""

    name: str
    version: str


class BrokenPluginWarning(UserWarning):
    """A package that offers models or tasks cannot be imported."""


_loaded: dict[str, dict[str, object]] = {}
#: Package -> what was wrong with it.
_broken: dict[str, str] = {}


def load_plugins(group: str) -> dict[str, object]:
    """What the entry points of a group lead to, by their names, imported once a process.

    Warns:
        BrokenPluginWarning: for each that cannot be imported; the others are not affected.
    """
    if group in _loaded:
        return _loaded[group]
    found = _loaded[group] = {}  # before anything is imported, which may ask for a name itself
    for entry in importlib.metadata.entry_points(group=group):
        try:
            found[entry.name] = entry.load()
        except Exception as error:  # whatever is wrong with one package, the others are there
            said = f"{type(error).__name__}: {error}"
            _broken[_package(entry)] = said
            warnings.warn(
                BrokenPluginWarning(
                    f"{' '.join(_distribution(entry))}: its entry point {entry.name} = {entry.value} of {group} cannot "
                    f"be imported ({said}), so what it offers is missing; repair or uninstall it"
                ),
                stacklevel=3,
            )
    return found


def offered_by(package: str) -> Distribution | None:
    """The installed distribution that offers models or tasks of an importable package; nothing is imported.

    Example:
        >>> offered_by("json") is None
        True
    """
    entries = (entry for group in (MODELS, TASKS) for entry in importlib.metadata.entry_points(group=group))
    return next((_distribution(entry) for entry in entries if _package(entry) == package), None)


def fault_of(package: str) -> str | None:
    """Why a package could not be imported; None if it could, or was not asked for."""
    return _broken.get(package)


def _package(entry: importlib.metadata.EntryPoint) -> str:
    return entry.value.partition(":")[0].partition(".")[0].strip()


def _distribution(entry: importlib.metadata.EntryPoint) -> Distribution:
    found = cast(importlib.metadata.Distribution, entry.dist)  # of what `entry_points` gives, it is there
    return Distribution(found.name, found.version)
