"""Layouts as YAML files: every key is known, has the right type, and is given once."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from zoo.data.datasets import DATASETS
from zoo.data.formats.jets_of_events import KEYS, Grouping
from zoo.data.formats.layout import Layout
from zoo.data.yaml_values import check_keys, integer, mapping, names, number, read_yaml, string, strings

#: Keys that a file must have, including ``units``, which should not be guessed.
REQUIRED = ("units", "classes", "momenta", "label")

#: Keys that a file may leave out if no labels are needed, with their values then.
_UNLABELLED = {"classes": (), "label": None}


def read_layout(path: str | Path, *, labelled: bool = True) -> Layout:
    """The layout that a YAML file describes; its keys are the arguments of `zoo.data.formats.layout.Layout`.

    If ``name`` is left out, it is the file's name without its suffix; ``particles`` and ``fields`` may be lists of
    columns that keep their names.

    Args:
        path: of the file.
        labelled: whether the file must say what the classes are; False: ``classes`` and ``label`` may be left out.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not YAML, a key is missing, unknown or given twice, or a value is wrong; the message
            names the file and the key.
    """
    path = Path(path)
    return read_yaml(path, functools.partial(_to_layout, path.stem, labelled))


def _to_layout(name: str, labelled: bool, values: object) -> Layout:
    known = [field.name for field in dataclasses.fields(Layout)]
    required = [key for key in REQUIRED if labelled or key not in _UNLABELLED]
    if isinstance(values, dict) and "inputs" in values:
        raise ValueError(
            "a data file of weaver is no layout; give it as weaver_yaml (--weaver-yaml), or in Python as "
            "read_weaver_yaml(path, labelled=False) of zoo.data.weaver.data_config"
        )
    values = check_keys("a layout", values, known, required)
    if values.get("name", name) in DATASETS:
        raise ValueError(f"name: {values.get('name', name)!r} is a data set of the zoo; add a 'name' of your own")
    unlabelled = {} if labelled else _UNLABELLED
    return Layout(**{"name": name, **unlabelled, **{key: _CONVERT[key](key, value) for key, value in values.items()}})


def _names_or_list(key: str, value: object) -> Mapping[str, str]:
    return {name: name for name in strings(key, value)} if isinstance(value, list) else names(key, value)


def _numbers_by_name(key: str, value: object) -> Mapping[str, float]:
    return {name: number(f"{key}.{name}", item) for name, item in mapping(key, value).items()}


def _grouping(key: str, value: object) -> Grouping:
    return Grouping(**{known: string(f"{key}.{known}", name) for known, name in check_keys(key, value, KEYS).items()})


def _label(key: str, value: object) -> str | tuple[str, ...] | Mapping[str, str]:
    convert = {list: strings, dict: names}.get(type(value), string)
    return convert(key, value)


def _values(key: str, value: object) -> tuple[int, ...] | Mapping[int | str, str]:
    if isinstance(value, dict):
        return {
            known if isinstance(known, str) else integer(key, known): string(f"{key}.{known}", name)
            for known, name in value.items()
        }
    if not isinstance(value, list):
        raise ValueError(f"{key}: must be a list of whole numbers or a mapping of values to classes, not {value!r}")
    return tuple(integer(key, item) for item in value)


#: The function that checks and converts the value of each key.
_CONVERT: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(("name", "units", "tree", "weight", "mask", "rows", "bad_particles", "other_labels"), string),
    **dict.fromkeys(("particles", "fields"), _names_or_list),
    "classes": strings,
    "momenta": names,
    "label": _label,
    "label_values": _values,
    "max_particles": integer,
    "fill": _numbers_by_name,
    "momentum_tolerance": number,
    "jets": _grouping,
}
