"""Features as YAML files: name, formula, centre, scale and clip of each, as a user writes them."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

from zoo.data.features import Feature, FeatureTable
from zoo.data.yaml_values import check_keys, mapping, number, numbers, read_yaml, string

#: The centre of a feature that is yet to be fitted.
AUTO = "auto"


def read_features(path: str | Path) -> FeatureTable:
    """The features that a YAML file lists under ``features``, each with the keys of `zoo.data.features.Feature`.

    Only ``name`` and ``formula`` must be there.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no YAML, a key is missing, unknown or stands twice, a formula is not allowed, a value
            is wrong, or a centre is ``auto``; the message names the file and the feature.
    """
    path = Path(path)
    return read_yaml(path, functools.partial(_to_table, path))


def read_feature_values(path: str | Path) -> list[dict[str, Any]]:
    """The same as plain values, among which a centre may be ``auto``."""
    return read_yaml(Path(path), _to_values)


def _to_table(path: Path, values: object) -> FeatureTable:
    features = _to_values(values)
    for feature in features:
        if feature.get("centre") == AUTO:
            raise ValueError(
                f"the centre and scale of {feature['name']!r} are yet to be fitted, which the zoo never does while it "
                f"reads; write them with 'zoo data fit-scaling FILE... --features {path} --out scaled.yaml'"
            )
    return FeatureTable.from_dict({"features": [dataclasses.asdict(Feature(**feature)) for feature in features]})


def _to_values(values: object) -> list[dict[str, Any]]:
    listed = check_keys("a file of features", values, ("features",), ("features",))["features"]
    if not isinstance(listed, list):
        raise ValueError(f"features: must be a list, not {listed!r}")
    return [_to_feature(feature) for feature in listed]


def _to_feature(values: object) -> dict[str, Any]:
    known = [field.name for field in dataclasses.fields(Feature)]
    values = mapping("features", check_keys("a feature", values, known, ("name", "formula")))
    name = string("name", values["name"])
    for key, value in values.items():
        if key == "clip" and isinstance(value, list):
            numbers(f"{name}.clip", value)
        elif key in ("scale", "clip") or (key == "centre" and value != AUTO):
            number(f"{name}.{key}", value)
    return dict(values)
