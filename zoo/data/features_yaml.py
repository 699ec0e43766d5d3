"""Features and context features as YAML files: name, formula, centre, scale and clip, as a user writes them."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

from zoo.data.context import NO_CONTEXT, ContextFeature, ContextTable, context_table
from zoo.data.features import Feature, FeatureTable, feature_table
from zoo.data.yaml_values import check_keys, mapping, number, numbers, read_yaml, string

#: The centre of a feature that is yet to be fitted.
AUTO = "auto"

#: The kinds of inputs that a file may list, by their key, which is also an option of ``zoo data fit-scaling``.
KINDS = {"features": Feature, "context": ContextFeature}


def read_features(path: str | Path) -> FeatureTable:
    """The features that a YAML file lists under ``features``, each with the keys of `zoo.data.features.Input`.

    Only ``name`` and ``formula`` are required.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not YAML, a key is missing, unknown or given twice, a formula is not allowed, a value
            is wrong, or a centre is ``auto``; the message names the file and the feature.
    """
    path = Path(path)
    return read_yaml(path, lambda values: FeatureTable.from_dict(_to_complete(path, "features", values)))


def read_context(path: str | Path) -> ContextTable:
    """The context features that a YAML file lists under ``context``; otherwise as `read_features`."""
    path = Path(path)
    return read_yaml(path, lambda values: ContextTable.from_dict(_to_complete(path, "context", values)))


def named_features(name: str) -> FeatureTable:
    """The features of a YAML file, or those of a name, see `zoo.data.features`; raises as these do."""
    return read_features(name) if _is_file(name) else feature_table(name)


def named_context(name: str | None) -> ContextTable:
    """The context features of a YAML file or of a name, see `zoo.data.context`; None: none. Raises as these do."""
    if name is None:
        return NO_CONTEXT
    return read_context(name) if _is_file(name) else context_table(name)


def _is_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def read_feature_values(path: str | Path, key: str) -> list[dict[str, Any]]:
    """What a file lists under a key of `KINDS` as plain values; a centre may be ``auto``."""
    return read_yaml(Path(path), functools.partial(_to_values, key))


def _to_complete(path: Path, key: str, values: object) -> dict[str, list[dict[str, Any]]]:
    """The same values, with defaults for those that the file leaves out."""
    features = _to_values(key, values)
    for feature in features:
        if feature.get("centre") == AUTO:
            raise ValueError(
                f"the centre and scale of {feature['name']!r} are yet to be fitted, which the zoo never does while it "
                f"reads; write them with 'zoo data fit-scaling FILE... --{key} {path} --out scaled.yaml'"
            )
    return {key: [dataclasses.asdict(KINDS[key](**feature)) for feature in features]}


def _to_values(key: str, values: object) -> list[dict[str, Any]]:
    listed = check_keys(f"a file of {KINDS[key].kind}s", values, (key,), (key,))[key]
    if not isinstance(listed, list):
        raise ValueError(f"{key}: must be a list, not {listed!r}")
    return [_to_feature(key, feature) for feature in listed]


def _to_feature(key: str, values: object) -> dict[str, Any]:
    known = [field.name for field in dataclasses.fields(KINDS[key])]
    values = mapping(key, check_keys(f"a {KINDS[key].kind}", values, known, ("name", "formula")))
    name = string("name", values["name"])
    for part, value in values.items():
        if part == "clip" and isinstance(value, list):
            numbers(f"{name}.clip", value)
        elif part in ("scale", "clip") or (part == "centre" and value != AUTO):
            number(f"{name}.{part}", value)
    return dict(values)
