"""Golden outputs: some jets with their features and the outputs of the model, which every load checks again."""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from zoo.data.context import NO_CONTEXT
from zoo.data.datasets import JET_COLUMNS
from zoo.data.features import RELATIVE_TO_JET, Feature, FeatureTable
from zoo.hub.config import PretrainedError
from zoo.hub.kinds import Kind, Parts
from zoo.model import declared

#: Largest allowed change of a golden logit on another processor, relative to the largest golden logit.
TOLERANCE = 1e-4
#: The same for a golden feature, relative to its size or to 1.
FEATURE_TOLERANCE = 1e-5

#: Number of jets in a folder made from a run or from weights of another framework.
GOLDEN_JETS = 8

#: Largest number of jets, and of pairs of particle slots in all jets together, so that verification takes seconds.
MAX_JETS, MAX_PAIRS = 64, 1 << 22

#: Prefix of the name of a column or field of the golden jets.
_COLUMN = "column."

_MADE_WITH = "formulas, centres, scales and clips of config.json are not those it was made with, get the folder again"


def make_golden(
    parts: Parts, kind: Kind, four_momenta: Tensor, mask: Tensor, columns: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """What a folder stores for some jets; see `Parts.inputs` for the further arguments.

    Raises:
        ValueError: if a column is missing, or there are more or longer jets than a folder may hold.
    """
    if too_large := _too_large(mask.shape):
        raise ValueError(f"golden jets: {too_large}; give fewer or shorter jets")
    inputs = parts.inputs(four_momenta, mask, columns)
    needed = {*parts.columns, *(JET_COLUMNS if columns.keys() >= {*JET_COLUMNS} else ())}
    kept = {f"{_COLUMN}{name}": values for name, values in columns.items() if name in needed}
    with torch.no_grad():
        return {**inputs, **kept, kind.output: kind.answer(parts.model, inputs)}


@torch.no_grad()
def verify_golden(path: Path, parts: Parts, kind: Kind, version: int, golden: Mapping[str, Tensor]) -> None:
    """Compare features and outputs of the golden jets with the stored ones.

    Args:
        path: path of the file, for the messages.
        parts: the model, and the tables that make its inputs.
        kind: kind of the folder.
        version: version of the folder.
        golden: content of the file.

    Raises:
        PretrainedError: if they differ, something is missing, or there are more or longer jets than a folder may hold.
    """
    is_new = version >= 3
    given = columns_of(golden)
    needed = set(parts.columns) if is_new else set()
    wanted = {"features", "four_momenta", "mask", kind.output} | {f"{_COLUMN}{name}" for name in needed}
    wanted |= {"context"} if parts.context_table.context_dim else set()
    wanted |= {f"{_COLUMN}{name}" for name in JET_COLUMNS} if is_new and given.keys() >= {*JET_COLUMNS} else set()
    if golden.keys() != wanted:
        raise PretrainedError(f"{path}: must hold {sorted(wanted)}, holds {sorted(golden)}")
    _check_shapes(path, parts, golden)
    _verify_inputs(path, parts, golden, given, is_new)
    inputs = {name: golden[name] for name in ("features", "four_momenta", "mask", "context") if name in golden}
    found, expected = kind.answer(parts.model, inputs), golden[kind.output]
    if found.shape != expected.shape:
        raise PretrainedError(f"{path}: {kind.output} of shape {(*expected.shape,)}, the model's {(*found.shape,)}")
    deviation = largest_change(found, expected, jumps=declared(kind.network(parts.model) or parts.model).jumps)
    if not deviation < TOLERANCE:
        raise PretrainedError(
            f"{path}: the model's {kind.output} differ from the stored ones by {deviation:.1e} of the largest, more "
            f"than {TOLERANCE:.0e}; weights and code do not belong together, use the zoo version of the card"
        )


def columns_of(golden: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The columns and fields that a folder stores for its golden jets, by name."""
    return {name.removeprefix(_COLUMN): value for name, value in golden.items() if name.startswith(_COLUMN)}


def largest_change(found: Tensor, expected: Tensor, *, jumps: bool) -> float:
    """Largest change of outputs (jet, ...) relative to the largest of them, NaN if one is not finite.

    Args:
        found: outputs now.
        expected: stored outputs.
        jumps: whether to leave out the eighth of the jets that changed most, see `zoo.model.JetModel.jumps`.
    """
    if not (found.isfinite().all() and expected.isfinite().all()):
        return math.nan
    if not found.numel():
        return 0.0
    change = (found - expected).abs().flatten(1).amax(dim=1).sort().values
    left = len(change) - len(change) // 8 if jumps else len(change)
    return (change[left - 1] / expected.abs().max().clamp(min=1)).item()


def _verify_inputs(
    path: Path, parts: Parts, golden: Mapping[str, Tensor], given: Mapping[str, Tensor], is_new: bool
) -> None:
    """Compare the stored inputs with those that formulas, centres and scales give from momenta and columns.

    Folders before version 3 do not store columns, nor separate momenta of the jets, so only features that need neither
    are compared.
    """
    table, context_table = parts.feature_table, parts.context_table if is_new else NO_CONTEXT
    places = [i for i, feature in enumerate(table.features) if is_new or _is_of_momentum_alone(feature)]
    table = FeatureTable(tuple(table.features[i] for i in places))
    try:
        found = Parts(parts.model, table, context_table).inputs(golden["four_momenta"], golden["mask"], given)
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:  # any error that a formula may cause
        raise PretrainedError(f"{path}: the features of config.json cannot be computed: {error}") from error
    _compare(path, "features", table.names, found["features"], golden["features"][..., places])
    if context_table.context_dim:
        _compare(path, "context", context_table.names, found["context"], golden["context"])


def _compare(path: Path, what: str, names: tuple[str, ...], found: Tensor, stored: Tensor) -> None:
    change = (found.double() - stored.double()).abs() / stored.double().abs().clamp(min=1)
    for name, values in zip(names, change.flatten(0, -2).T, strict=True):
        if len(values) and not values.max().item() < FEATURE_TOLERANCE:
            raise PretrainedError(
                f"{path}: {name!r}, computed from the stored momenta and columns, differs from the stored {what} by "
                f"{values.max().item():.1e}, more than {FEATURE_TOLERANCE:.0e}; {_MADE_WITH}"
            )


def _is_of_momentum_alone(feature: Feature) -> bool:
    return not feature.columns and not RELATIVE_TO_JET.intersection(feature.quantities)


def _check_shapes(path: Path, parts: Parts, golden: Mapping[str, Tensor]) -> None:
    mask, jets = golden["mask"], len(golden["mask"]) if golden["mask"].ndim else 0
    if mask.ndim != 2 or mask.dtype != torch.bool:
        raise PretrainedError(f"{path}: mask must be boolean (jet, particle), is {mask.dtype} {(*mask.shape,)}")
    if too_large := _too_large(mask.shape):
        raise PretrainedError(f"{path}: {too_large}; get the folder again")
    if not mask.any():
        raise PretrainedError(f"{path}: has no particle, so nothing can be verified; get the folder again")
    for name in {"features", "four_momenta", "context"} & golden.keys():
        if golden[name].dtype != torch.float32:
            raise PretrainedError(f"{path}: {name} must be float32, is {golden[name].dtype}")
    shapes = {"four_momenta": (*mask.shape, 4), "features": (*mask.shape, parts.feature_table.input_dim)}
    shapes["context"] = (jets, parts.context_table.context_dim)
    of_jets = {*JET_COLUMNS, *parts.context_table.fields}
    for name in golden:
        if name.startswith(_COLUMN):
            shapes[name] = (jets,) if name.removeprefix(_COLUMN) in of_jets else (*mask.shape,)
    for name, shape in shapes.items():
        if name in golden and golden[name].shape != shape:
            raise PretrainedError(f"{path}: {name} must be {shape} like the mask, is {(*golden[name].shape,)}")


def _too_large(shape: tuple[int, ...]) -> str:
    jets, places = shape
    if jets > MAX_JETS or jets * places**2 > MAX_PAIRS:
        return (
            f"{jets:,} jets with places for {places:,} particles, of which at most {MAX_JETS} jets and {MAX_PAIRS:,} "
            "pairs of places are verified"
        )
    return ""
