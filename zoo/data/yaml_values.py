"""Plain values of YAML files that users write: no key twice, and every value of the right type."""

import math
from collections.abc import Callable, Collection, Hashable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from zoo.data.hints import did_you_mean
from zoo.limits import parse_yaml

Converted = TypeVar("Converted")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """Plain values only, and no key twice."""


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = set()
    for key in (loader.construct_object(key) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"):
        if isinstance(key, Hashable):  # else it is refused below
            if key in keys:
                raise ValueError(f"line {node.start_mark.line + 1}: the key {key!r} is given twice")
            keys.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)


def read_yaml(path: Path, convert: Callable[[Any], Converted]) -> Converted:
    """What ``convert`` makes of the values in a file.

    Raises:
        FileNotFoundError: if there is no such file; the message says which one may have been meant.
        ValueError: if the file is not YAML, has a key twice, or ``convert`` raises; the message names the file.
    """
    if not path.exists() or path.is_dir():  # a pipe counts as a file
        if ":/" in str(path):  # a path keeps one of the two slashes of an address
            raise FileNotFoundError(f"{path}: only files of this machine are read; download it first")
        beside = [other.name for other in path.absolute().parent.glob("[!.]*.y*ml")]
        raise FileNotFoundError(f"{path}: no such file; {did_you_mean(path.name, beside)}")
    try:
        return convert(parse_yaml(path.read_bytes(), _Loader))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def check_keys(what: str, values: object, known: Collection[str], required: Collection[str] = ()) -> dict[str, Any]:
    """A mapping whose keys are all known and include the required ones; ``what`` is its name with an article.

    Raises:
        ValueError: if it is not such a mapping.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{what} is a mapping with the keys {', '.join(known)}, not {values!r}")
    for key in values:
        if key not in known:
            raise ValueError(f"there is no key {key!r}; {did_you_mean(str(key), known)}")
    for key in required:
        if key not in values:
            raise ValueError(f"the key {key!r} is missing; {what} has at least {', '.join(required)}")
    return values


def string(key: str, value: object) -> str:
    """A string that is not empty; ``key`` is its name in errors, here and below."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key}: must be a string, not {value!r}; put quotes round it if it is meant as one")
    return value


def strings(key: str, value: object) -> tuple[str, ...]:
    """A list of strings."""
    if not isinstance(value, list):
        raise ValueError(f"{key}: must be a list of strings, not {value!r}")
    return tuple(string(key, item) for item in value)


def names(key: str, value: object) -> Mapping[str, str]:
    """A mapping of strings to strings."""
    return {name: string(f"{key}.{name}", column) for name, column in mapping(key, value).items()}


def mapping(key: str, value: object) -> Mapping[str, Any]:
    """A mapping of strings to anything."""
    if not isinstance(value, dict):
        raise ValueError(f"{key}: must be a mapping of names to columns or values, not {value!r}")
    return {string(key, name): item for name, item in value.items()}


def integer(key: str, value: object) -> int:
    """A whole number."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{key}: must be a whole number, not {value!r}")
    return value


def number(key: str, value: object) -> float:
    """A finite number; YAML reads ``1e3`` as a string, as it has no decimal point."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        hint = "; write a number like 1e3 as 1.0e+3" if isinstance(value, str) else ""
        raise ValueError(f"{key}: must be a finite number, not {value!r}{hint}")
    return value


def numbers(key: str, value: object) -> tuple[float, ...]:
    """A list of finite numbers."""
    if not isinstance(value, list):
        raise ValueError(f"{key}: must be a list of numbers, not {value!r}")
    return tuple(number(key, item) for item in value)


def boolean(key: str, value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{key}: must be true or false, not {value!r}")
    return value
