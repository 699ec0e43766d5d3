"""Layouts as YAML files: every key is known, has the right type, and stands once."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from zoo.data.columns import did_you_mean
from zoo.data.datasets import DATASETS
from zoo.data.layout import Layout

#: Keys that a file must have; ``units`` too, as nobody should guess them.
REQUIRED = ("units", "classes", "momenta", "label")


class _Loader(yaml.SafeLoader):
    """Plain values only, and no key twice."""


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"line {node.start_mark.line + 1}: the key {key!r} stands twice")
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)


def read_layout(path: str | Path) -> Layout:
    """The layout that a YAML file describes; its keys are the arguments of `zoo.data.layout.Layout`.

    ``name`` may be left out for the file's name without its ending; ``particles`` and ``fields`` may be lists of
    columns that keep their names.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no YAML, a key is missing, unknown or stands twice, or a value is wrong; the message
            names the file and the key.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            values = yaml.load(file, _Loader)
        return _to_layout(path.stem, values)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {error}") from error


def _to_layout(name: str, values: object) -> Layout:
    known = [field.name for field in dataclasses.fields(Layout)]
    if not isinstance(values, dict):
        raise ValueError(f"a layout is a mapping with the keys {', '.join(known)}, not {values!r}")
    for key in values:
        if key not in known:
            raise ValueError(f"there is no key {key!r}; {did_you_mean(str(key), known)}")
    for key in REQUIRED:
        if key not in values:
            raise ValueError(f"the key {key!r} is missing; a layout has at least {', '.join(REQUIRED)}")
    if values.get("name", name) in DATASETS:
        raise ValueError(f"name: {values.get('name', name)!r} is a data set of the zoo; add a 'name' of your own")
    return Layout(**{"name": name, **{key: _CONVERT[key](key, value) for key, value in values.items()}})


def _string(key: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key}: must be a string, not {value!r}; put quotes round it if it is meant as one")
    return value


def _strings(key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{key}: must be a list of strings, not {value!r}")
    return tuple(_string(key, item) for item in value)


def _names(key: str, value: object) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise ValueError(f"{key}: must be a mapping of names to columns, not {value!r}")
    return {_string(key, name): _string(f"{key}.{name}", column) for name, column in value.items()}


def _names_or_list(key: str, value: object) -> Mapping[str, str]:
    return {name: name for name in _strings(key, value)} if isinstance(value, list) else _names(key, value)


def _label(key: str, value: object) -> str | tuple[str, ...] | Mapping[str, str]:
    convert = {list: _strings, dict: _names}.get(type(value), _string)
    return convert(key, value)


def _integer(key: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{key}: must be a whole number, not {value!r}")
    return value


def _values(key: str, value: object) -> tuple[int, ...] | Mapping[int | str, str]:
    if isinstance(value, dict):
        return {
            known if isinstance(known, str) else _integer(key, known): _string(f"{key}.{known}", name)
            for known, name in value.items()
        }
    if not isinstance(value, list):
        raise ValueError(f"{key}: must be a list of whole numbers or a mapping of values to classes, not {value!r}")
    return tuple(_integer(key, item) for item in value)


#: What checks and converts the value of each key.
_CONVERT: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(("name", "units", "tree", "weight", "mask"), _string),
    **dict.fromkeys(("particles", "fields"), _names_or_list),
    "classes": _strings,
    "momenta": _names,
    "label": _label,
    "label_values": _values,
    "max_particles": _integer,
}
