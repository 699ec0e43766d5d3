"""Features of weaver's data files as formulas of momenta and particle columns, which do not need the data file."""

import ast
import dataclasses
import math
import warnings
from pathlib import Path

import numpy as np
import torch

from zoo.data.batch import gather
from zoo.data.expressions import LONGEST
from zoo.data.features import COLUMN_OF_FORMULA, FORMULAS, FUNCTIONS, Feature, FeatureTable, agree, made_up_particles
from zoo.data.readers import read_jets
from zoo.data.store import MOMENTUM_COLUMNS
from zoo.data.weaver.data_config import IS_TRAINING, PREFIX, Input, WeaverYaml
from zoo.physics.quantities import QUANTITIES

#: Columns of public files that follow from the momenta, with their formulas.
_KNOWN = {name: quantity.same_as for name, quantity in QUANTITIES.items() if quantity.same_as}

#: Functions of weaver's language that have other names in formulas.
_OTHERWISE = {
    "absolute": "abs",
    "fabs": "abs",
    "atan": "arctan",
    "atan2": "arctan2",
    "_clip": "clip",
}

#: Functions of one argument that formulas write in another way.
_TEMPLATES = {
    "float32": "{0}",
    "float64": "{0}",
    "square": "({0}) ** 2",
    "ones_like": "1 + 0 * ({0})",
    "zeros_like": "0 * ({0})",
    "nan_to_num": "clip(nan_to({0}, 0), -3.4028234e+38, 3.4028234e+38)",
}

#: Operations that can give NaN for finite numbers.
_MAY_BE_NAN = {"log", "log1p", "log2", "log10", "sqrt"}

#: Largest difference between a feature by its formula and by the data file; both are standardised.
TOLERANCE = 1e-4


class _Untranslatable(ValueError):
    """A part of an expression that formulas do not support."""


def formula_table(description: WeaverYaml) -> FeatureTable:
    """The features of a data file as formulas, as far as possible.

    Variables are replaced by their definitions until only momenta, jets' momenta and particle columns are left. A
    feature that needs more than formulas offer, such as sorting of particles, keeps its raw values as the column
    ``weaver_...``.

    Raises:
        ValueError: if a centre is yet to be fitted.
    """
    description.require_scaling()
    translator = _Translator(description)
    return FeatureTable(tuple(_as_formula(translator, variable) for variable in description.features))


def reading_table(description: WeaverYaml, table: FeatureTable) -> FeatureTable:
    """The features to read with a data file for a model that takes ``table``.

    They are those of the data file if each agrees with that of the table, by its formula or by its column; otherwise
    they are those of the table itself.
    """
    ours, formulas = description.feature_table, formula_table(description)
    if len(ours.features) != len(table.features):
        return table
    triples = zip(ours.features, formulas.features, table.features, strict=True)
    return ours if all(agree(mine, theirs) or agree(formula, theirs) for mine, formula, theirs in triples) else table


def verified_table(description: WeaverYaml, path: Path, rows: tuple[int, int]) -> FeatureTable:
    """The `formula_table`, as far as it gives the same features as the data file for some rows of a file.

    A feature that differs by more than `TOLERANCE`, for instance because ``part_deta`` has another sign in this file,
    keeps its raw values as the column ``weaver_...``, with a warning.

    Raises:
        ValueError: if the rows cannot be read.
    """
    found = []
    for of_column, formula in zip(description.feature_table.features, formula_table(description).features, strict=True):
        is_verified = formula != of_column and _is_same(description, of_column, formula, path, rows)
        found.append(formula if is_verified else of_column)
    table = FeatureTable(tuple(found))
    warn_of_columns(description, table, stacklevel=3)
    return table


def warn_of_columns(description: WeaverYaml, table: FeatureTable, stacklevel: int = 1) -> None:
    """Warn of features that are still columns, so that the model needs the data file whenever it is used."""
    left = [feature.name for feature in table.features if feature.formula.startswith(PREFIX)]
    if left:
        warnings.warn(
            f"{description.path}: {', '.join(left)} cannot be written as formulas of momenta and particle columns; the "
            "model takes jets that are read with this file only (--weaver-yaml), so publish it too",
            stacklevel=stacklevel + 1,
        )


def _is_same(description: WeaverYaml, one: Feature, other: Feature, path: Path, rows: tuple[int, int]) -> bool:
    try:
        jets = read_jets(path, rows, description.keeping(other.columns))
    except ValueError:  # not a list of numbers, such as a quantity of the jet
        return False
    table = FeatureTable((dataclasses.replace(one, name="one"), dataclasses.replace(other, name="other")))
    packed = gather(jets, np.arange(len(jets)), table.columns)
    columns = {name: torch.from_numpy(values) for name, values in packed.columns.items()}
    values = table.packed(torch.from_numpy(packed.four_momenta), torch.from_numpy(packed.counts), columns)
    return torch.allclose(*values.T, rtol=TOLERANCE, atol=TOLERANCE)


def _as_formula(translator: "_Translator", variable: Input) -> Feature:
    of_column = variable.feature
    try:
        formula = dataclasses.replace(of_column, formula=translator.translate(variable.name))
        return _shortened(formula) or _without_nan(formula)
    except (ValueError, TypeError, RuntimeError):  # an expression that formulas or torch do not support
        return of_column


#: Columns of the momenta in the order of weaver's vectors.
_VECTORS = (*MOMENTUM_COLUMNS[1:], MOMENTUM_COLUMNS[0])


def _shortened(feature: Feature) -> Feature | None:
    """The feature with a key of `FORMULAS` that has the same values, None if there is none."""
    columns, raw = set(feature.columns), Feature(feature.name, feature.formula)
    raw.standardise(made_up_particles(raw.columns, raw.numbers))  # or an error of torch
    for name in FORMULAS:
        needed = {COLUMN_OF_FORMULA[name]} if name in COLUMN_OF_FORMULA else set()
        if columns == needed and agree(Feature(feature.name, name), raw):
            return dataclasses.replace(feature, formula=name)
    return None


def _without_nan(feature: Feature) -> Feature:
    """The feature with NaN replaced so that it is 0 after scaling, as in weaver."""
    nodes = list(ast.walk(_parse(feature.formula)))
    calls = {node.func.id for node in nodes if isinstance(node, ast.Call)}
    divides = any(isinstance(node, ast.Div | ast.Mod | ast.FloorDiv | ast.Pow) for node in nodes)
    if not divides and not calls & _MAY_BE_NAN:
        return feature
    return dataclasses.replace(feature, formula=f"nan_to({feature.formula}, {feature.centre})")


class _Translator(ast.NodeTransformer):
    """Turns an expression of weaver's language into one of formulas, with variables replaced by their definitions."""

    def __init__(self, description: WeaverYaml) -> None:
        self.description = description
        self.vectors = dict(zip((variable.name for variable in description.vectors), _VECTORS, strict=True))
        self._texts: dict[str, str] = {}

    def translate(self, name: str) -> str:
        """A variable as a formula."""
        if name not in self._texts:
            self._texts[name] = text = self._translate(name)
            if len(text) > LONGEST:  # nested variables can double the length each time
                raise _Untranslatable(name)
        return self._texts[name]

    def _translate(self, name: str) -> str:
        if name in self.vectors:
            return self.vectors[name]
        if name in self.description.file_magic or name == IS_TRAINING:
            raise _Untranslatable(name)
        if name not in self.description.variables:
            return _KNOWN.get(name, name)
        return ast.unparse(self.visit(_parse(self.description.variables[name])))

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return _parse(self.translate(node.id))

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Attribute) and not _is_module(node.func.value):
            raise _Untranslatable(node.func.attr)
        name = ast.unparse(node.func).rpartition(".")[2]
        name, arguments = _OTHERWISE.get(name, name), [ast.unparse(self.visit(argument)) for argument in node.args]
        if len(arguments) == 1 and name in _TEMPLATES and not node.keywords:
            return _parse(_TEMPLATES[name].format(*arguments))
        if name not in FUNCTIONS or node.keywords:
            raise _Untranslatable(name)
        return _parse(f"{name}({', '.join(arguments)})")

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if _is_module(node.value) and node.attr in ("pi", "e"):
            return ast.Constant(getattr(math, node.attr))
        raise _Untranslatable(node.attr)

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        raise _Untranslatable(ast.unparse(node))

    def visit_List(self, node: ast.List) -> ast.AST:
        raise _Untranslatable(ast.unparse(node))


def _parse(text: str) -> ast.AST:
    return ast.parse(text.strip(), mode="eval").body


def _is_module(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in ("np", "numpy", "ak", "awkward", "math")
