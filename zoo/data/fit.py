"""Centres, scales and reweighting histograms, fitted to files on demand and written to readable files."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import yaml

from zoo.data.batch import collate, gather
from zoo.data.context import ContextTable
from zoo.data.datasets import resolve_files
from zoo.data.features import FeatureTable
from zoo.data.features_yaml import AUTO, KINDS, read_feature_values
from zoo.data.formats.columns import first_bytes
from zoo.data.formats.layout_yaml import read_layout
from zoo.data.read_report import warn_of
from zoo.data.source import CHUNK_JETS, open_source
from zoo.data.store import JetTable
from zoo.data.weaver.data_config import Reweighting, WeaverYaml, read_without_classes
from zoo.data.weaver.reader import VariableReader, Variables, open_weaver_columns, wanted_by_weights, weight_inputs
from zoo.data.weaver.weights import make_histograms
from zoo.data.yaml_values import read_yaml
from zoo.files import atomic_write, require_output

#: One standard deviation of a normal distribution on either side of its middle, and the middle, in percent.
PERCENTILES = (16, 50, 84)


def centre_and_scale(values: np.ndarray) -> tuple[float, float]:
    """The median, and the inverse of the larger distance from it to the 16 % and 84 % quantiles; 1 if that is 0.

    NaN counts as 0, as it does in weaver, and flags as 0 and 1.

    Example:
        >>> centre_and_scale(np.arange(101.0))
        (50.0, 0.029411764705882353)
    """
    values = values.astype(np.float32) if values.dtype == bool else values
    low, centre, high = np.percentile(np.nan_to_num(values) if np.isnan(values).any() else values, PERCENTILES)
    width = max(high - centre, centre - low)
    return float(centre), float(1.0 if width == 0 else 1.0 / width)


def fit_weaver_yaml(
    files: Sequence[str | Path], weaver_yaml: str | Path, out: str | Path, *, force: bool = False
) -> None:
    """Write a copy of weaver's data file with the numbers that weaver would fit when it loads jets.

    Centres and scales come from the first fraction (``data_fraction``) of each file, histograms for the reweighting
    from whole files, in both cases from the jets that ``selection`` selects. Existing values stay. weaver reads the
    result as it reads its own ``.auto.yaml``.

    Args:
        files: the jets to train on.
        weaver_yaml: data file.
        out: file to write.
        force: whether an older file is replaced.

    Raises:
        FileExistsError: if ``out`` exists, and ``force`` was not given.
        ValueError: if there is nothing to fit, or a file is bad.
    """
    paths = resolve_files(files)
    require_output(out, (*paths, weaver_yaml), force=force)
    description = read_without_classes(weaver_yaml)
    weights = description.weights
    needs_histograms = isinstance(weights, Reweighting) and weights.histograms is None
    if not description.unfitted and not needs_histograms:
        raise ValueError(f"{weaver_yaml}: there is nothing to fit, all numbers are given; use it as it is")
    values = read_yaml(Path(weaver_yaml), dict)
    if description.unfitted:
        values["preprocess"] = {**values.get("preprocess", {}), "params": _fit_inputs(paths, description)}
    if needs_histograms:
        histograms = _fit_histograms(paths, description, weights)
        values["weights"] = {**values["weights"], "reweight_hists": {k: v.tolist() for k, v in histograms.items()}}
    _write(out, values)


def fit_features(
    files: Sequence[str | Path],
    features: str | Path,
    out: str | Path,
    layout: str | Path | None = None,
    max_rows: int = 100_000,
    *,
    force: bool = False,
) -> None:
    """Write a copy of a file of features, with a fitted centre and scale in place of every centre that is ``auto``.

    Args:
        files: the jets to train on.
        features: YAML file, see `zoo.data.features_yaml`.
        out: file to write.
        layout: YAML file that describes the files of jets, see `zoo.data.formats.layout_yaml`.
        max_rows: largest number of rows to read from each file.
        force: whether an older file is replaced.

    Raises:
        FileExistsError: if ``out`` exists, and ``force`` was not given.
        ValueError: if there is nothing to fit, or a file is bad.
    """

    def raw_values(jets: JetTable, table: FeatureTable) -> np.ndarray:
        batch = collate(gather(jets, np.arange(len(jets)), table.columns), table)
        return batch.features[batch.mask].numpy()

    _fit("features", FeatureTable, raw_values, files, features, out, layout, max_rows, force)


def fit_context(
    files: Sequence[str | Path],
    context: str | Path,
    out: str | Path,
    layout: str | Path | None = None,
    max_rows: int = 100_000,
    *,
    force: bool = False,
) -> None:
    """As `fit_features`, for a file of context features, see `zoo.data.context`.

    Raises:
        FileExistsError: if ``out`` exists, and ``force`` was not given.
        ValueError: if there is nothing to fit, a field is missing, or a file is bad.
    """

    def raw_values(jets: JetTable, table: ContextTable) -> np.ndarray:
        table.check_fields(jets.fields)
        fields = {name: torch.from_numpy(jets.fields[name]) for name in table.fields}
        return table.standardise(len(jets), fields).numpy()

    _fit("context", ContextTable, raw_values, files, context, out, layout, max_rows, force)


AnyTable = TypeVar("AnyTable", FeatureTable, ContextTable)


def _fit(
    key: str,
    kind: type[AnyTable],
    raw_values: Callable[[JetTable, AnyTable], np.ndarray],
    files: Sequence[str | Path],
    description: str | Path,
    out: str | Path,
    layout: str | Path | None,
    max_rows: int,
    force: bool,
) -> None:
    """Fit what a file lists under ``key`` to the raw values (value, feature) of jets."""
    paths = resolve_files(files)
    require_output(out, (*paths, description, layout), force=force)
    values = read_feature_values(description, key)
    unfitted = [feature for feature in values if feature.get("centre") == AUTO]
    if not unfitted:
        raise ValueError(f"{description}: there is nothing to fit, no centre is {AUTO!r}; use it as it is")
    table = kind(tuple(KINDS[key](feature["name"], feature["formula"]) for feature in unfitted))
    described = None if layout is None else read_layout(layout, labelled=False)
    parts = []
    for path in paths:
        with open_source(path, described, labelled=False, verify=True) as source:
            if not len(source):
                warnings.warn(f"skipped {path}: it holds no row", stacklevel=3)
                continue
            jets, report = source.read((0, min(len(source), max_rows)))
        warn_of(report)
        parts.append(raw_values(jets, table))
    if not parts:
        raise ValueError(f"files: none of {len(files)} holds a row; give files of jets")
    for feature, column in zip(unfitted, np.concatenate(parts).T, strict=True):
        feature["centre"], feature["scale"] = centre_and_scale(column)
    _write(out, {key: values})


def _write(out: str | Path, values: dict[str, Any]) -> None:
    with atomic_write(Path(out)) as file:
        file.write(yaml.safe_dump(values, sort_keys=False).encode())


def _fit_inputs(paths: Sequence[Path], description: WeaverYaml) -> dict[str, dict[str, Any]]:
    found: dict[str, list[np.ndarray]] = {name: [] for name in description.unfitted}
    for variables in _read(paths, description, description.unfitted, description.data_fraction):
        for name, parts in found.items():
            parts.append(variables.lists(name).values)
    params = {}
    for variable in (*description.inputs, *description.points):
        centre, scale = variable.centre, variable.scale
        if centre == "auto":
            values = np.concatenate(found[variable.name])
            if not len(values):
                raise ValueError(
                    f"{description.path}: no jet is left to fit {variable.name!r} to; change the selection"
                )
            centre, scale = centre_and_scale(values)
        params[variable.name] = {
            "length": variable.length,
            "pad_mode": variable.pad_mode,
            "center": centre,
            "scale": scale,
            "min": variable.smallest,
            "max": variable.largest,
            "pad_value": variable.pad_value,
        }
    return params


def _fit_histograms(paths: Sequence[Path], description: WeaverYaml, weights: Reweighting) -> dict[str, np.ndarray]:
    blocks = [weight_inputs(weights, variables) for variables in _read(paths, description, wanted_by_weights(weights))]
    values = {name: np.concatenate([block[name] for block, _ in blocks]) for name in weights.names}
    base = None if weights.base_weight is None else np.concatenate([part for _, part in blocks])
    try:
        return make_histograms(weights, values, base)
    except ValueError as error:
        raise ValueError(f"{description.path}: {error}") from None


def _read(
    paths: Sequence[Path], description: WeaverYaml, wanted: Sequence[str], fraction: float = 1.0
) -> Iterator[Variables]:
    for path in paths:
        with open_weaver_columns(path, first_bytes(path), description) as columns:
            reader = VariableReader(path, columns, description, wanted)
            if not len(reader):
                warnings.warn(f"skipped {path}: it holds no row", stacklevel=4)
                continue
            stop = max(1, math.trunc(fraction * len(reader)))
            yield from reader.blocks(0, stop, CHUNK_JETS)
