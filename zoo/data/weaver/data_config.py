"""The YAML data files of weaver-core, used unchanged: what to select, compute, feed, label, observe and reweight."""

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from zoo.data.expressions import Expression, parse
from zoo.data.hints import did_you_mean
from zoo.data.weaver.functions import weaver_language
from zoo.data.yaml_values import (
    boolean,
    check_keys,
    integer,
    mapping,
    names,
    number,
    numbers,
    read_yaml,
    string,
    strings,
)

if TYPE_CHECKING:  # it needs torch, which takes seconds to import and is not needed to read files
    from zoo.data.features import Feature, FeatureTable

#: Variables that weaver itself sets: whether jets are read for training.
IS_TRAINING = "aux_training_"

#: Prefix of the particle columns of a table that hold the raw values of weaver's variables.
PREFIX = "weaver_"

#: The command that writes the numbers that an expression in this file would otherwise fit while reading.
FIT_COMMAND = "zoo data fit-scaling FILE... --weaver-yaml {path} --out scaled.yaml"

Split = Literal["train", "val", "test"]


@dataclasses.dataclass(frozen=True)
class Input:
    """A variable of the inputs.

    Args:
        name: of the variable.
        length: largest number of particles.
        pad_mode: ``constant`` or ``wrap``; the zoo pads with zeros in either case, as no model sees padding.
        centre: subtracted; None leaves the variable as it is, without scale and limits; ``auto`` requests a fit.
        scale: multiplies the difference.
        smallest: lower limit of the product.
        largest: upper limit.
        pad_value: of padded entries in weaver.
    """

    name: str
    length: int
    pad_mode: str
    centre: float | Literal["auto"] | None
    scale: float
    smallest: float
    largest: float
    pad_value: float = 0.0

    @property
    def column(self) -> str:
        """Particle column of a table that holds the raw values."""
        return PREFIX + re.sub(r"\W", "_", self.name)

    @property
    def feature(self) -> "Feature":
        """The feature that scales the raw values."""
        from zoo.data.features import Feature

        if self.centre is None:
            return Feature(self.name, self.column)
        return Feature(self.name, self.column, self.centre, self.scale, (self.smallest, self.largest))


@dataclasses.dataclass(frozen=True)
class Reweighting:
    """Weights that make the distribution of two variables the same in all classes.

    Args:
        method: ``flat``, or ``ref`` for the distribution of the first class.
        bins: edges of the bins of the two variables, by their names.
        classes: columns that are 1 for the jets of a class.
        class_weights: one per class.
        threshold: percentile of the bins that sets the scale of the weights.
        discard_outside: whether jets outside the bins get the weight 0; if not, they count in the outermost bins.
        base_weight: expression of a weight for each jet before the reweighting; None: 1.
        histograms: (bin, bin) of each class, float32; None if they are yet to be made.
    """

    method: Literal["flat", "ref"]
    bins: Mapping[str, tuple[float, ...]]
    classes: tuple[str, ...]
    class_weights: tuple[float, ...]
    threshold: float
    discard_outside: bool
    base_weight: str | None
    histograms: Mapping[str, np.ndarray] | None

    @property
    def names(self) -> tuple[str, ...]:
        """The two variables and the flags of the classes."""
        return tuple(dict.fromkeys((*self.bins, *self.classes, *(self.histograms or ()))))


@dataclasses.dataclass(frozen=True)
class WeaverYaml:
    """The contents of weaver's data file; `read_weaver_yaml` makes it.

    Args:
        path: the file.
        split: what the jets are read for: ``train`` and ``val`` use weaver's ``selection`` and its weights, ``test``
            its ``test_time_selection``, the observers, and the weight 1.
        classes: class names; a jet's label is an index into them.
        labels: expressions: one per class that is 1 for its jets, or, if ``is_custom``, the index and further labels.
        is_custom: whether the labels are of the type ``custom``.
        tree: tree of a ROOT file; None: the only one.
        selection: expression; None selects all.
        test_selection: the same for ``test``.
        variables: expressions by name, custom labels among them.
        branch_magic: parts of names, and their replacements in the files of jets.
        file_magic: variables that depend on the file's name: values by patterns.
        features: inputs of a model.
        vectors: px, py, pz and energy of the particles.
        mask: variable that is 0 for padding; None: all entries are particles.
        points: coordinates of the particles, which no model of the zoo takes.
        observers: one number per jet each, read for ``test``.
        monitors: the same, read for all splits.
        weights: expression of existing weights; or how to make them; None: 1.
        data_fraction: fraction of each file that scales are fitted to.
        parsed: every checked expression, by its text.
        kept: further particle columns of the file that a table keeps under their names, together with the momentum of
            the jets, `JET_COLUMNS`, where the file has it. None: neither.
        is_labelled: whether jets must have a class; if not, it is -1 where a file does not give it, and missing
            observers are left out.
        source: the file as plain values.
    """

    path: Path
    split: Split
    classes: tuple[str, ...]
    labels: Mapping[str, str]
    is_custom: bool
    tree: str | None
    selection: str | None
    test_selection: str | None
    variables: Mapping[str, str]
    branch_magic: Mapping[str, str]
    file_magic: Mapping[str, Mapping[str, float]]
    features: tuple[Input, ...]
    vectors: tuple[Input, ...]
    mask: Input | None
    points: tuple[Input, ...]
    observers: tuple[str, ...]
    monitors: tuple[str, ...]
    weights: str | Reweighting | None
    data_fraction: float
    parsed: Mapping[str, Expression]
    kept: tuple[str, ...] | None = None
    is_labelled: bool = True
    source: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __reduce__(self) -> tuple[Callable[..., "WeaverYaml"], tuple[Any, ...]]:
        """Other processes parse the expressions again."""
        return _restore, (self.path, self.source, self.classes, self.split, self.kept, self.is_labelled)

    @property
    def values(self) -> dict[str, Any]:
        """Everything that tables depend on, as plain JSON values."""
        values = {"weaver_yaml": self.source, "classes": self.classes, "split": self.split}
        return json.loads(json.dumps(values))

    @property
    def name(self) -> str:
        """Name of the data set, for the metadata of a table."""
        return self.path.name

    @property
    def rows(self) -> str:
        """What the rows are, as reports call them."""
        return "jets"

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of a table of these jets."""
        return {"dataset": self.name, "classes": list(self.classes), "units": "GeV"}

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The variables that models take: the features, the vectors and the mask."""
        return (*self.features, *self.vectors, *(() if self.mask is None else (self.mask,)))

    @property
    def selects(self) -> str | None:
        """Expression that selects the jets of the split."""
        return self.test_selection if self.split == "test" else self.selection

    @property
    def unfitted(self) -> tuple[str, ...]:
        """Variables whose centre and scale are yet to be fitted."""
        variables = (*self.inputs, *self.points)
        return tuple(dict.fromkeys(variable.name for variable in variables if variable.centre == "auto"))

    @property
    def feature_table(self) -> "FeatureTable":
        """The features of a model in order, from the columns that reading with this file gives.

        Raises:
            ValueError: if a centre is yet to be fitted; the message names the command that fits it.
        """
        from zoo.data.features import FeatureTable

        self.require_scaling()
        return FeatureTable(tuple(variable.feature for variable in self.features))

    def require_scaling(self) -> None:
        """Refuse a file whose numbers would have to be fitted while jets are read.

        Raises:
            ValueError: naming the command that fits them.
        """
        missing = [f"centre and scale of {name!r}" for name in self.unfitted[:1]]
        if isinstance(self.weights, Reweighting) and self.weights.histograms is None and self.split != "test":
            missing.append("the histograms of 'weights'")
        if missing:
            raise ValueError(
                f"{self.path}: {' and '.join(missing)} are yet to be fitted, which the zoo never does while it reads; "
                f"write them with '{FIT_COMMAND.format(path=self.path)}' and use that file"
            )

    def keeping(self, columns: Iterable[str]) -> "WeaverYaml":
        """The same with further columns of the file, see ``kept``."""
        made = {variable.column for variable in self.features}
        return dataclasses.replace(self, kept=tuple(name for name in columns if name not in made))

    @property
    def kept_fields(self) -> tuple[str, ...]:
        """The fields that weaver writes beside its scores: monitors and observers."""
        return self.monitors + self.observers

    def for_split(self, split: Split) -> "WeaverYaml":
        """The same for another split."""
        return dataclasses.replace(self, split=split)


def read_weaver_yaml(
    path: str | Path,
    classes: tuple[str, ...] | list[str] | None = None,
    split: Split = "test",
    *,
    labelled: bool = True,
) -> WeaverYaml:
    """Read a data file of weaver-core, as version 0.5.3 understands it.

    The name of a class is its label without ``label_``. ``bucketing`` is checked but not used, as the zoo pads only to
    the longest jet of a batch; nor are ``pf_points``, which models compute from the momenta.

    Args:
        path: YAML file.
        classes: names of the classes if the labels are of the type ``custom``, which gives no names.
        split: what jets are read for, see `WeaverYaml`.
        labelled: whether jets must have a class; False: custom labels need no names, and are not read without them.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not YAML, a key is missing, unknown or given twice, a value is wrong, or an
            expression contains something that is not allowed; the message names the file, the key and the expression.
    """
    if split not in ("train", "val", "test"):
        raise ValueError(f"split: must be train, val or test, not {split!r}")
    description = dataclasses.replace(read_without_classes(path), split=split, is_labelled=labelled)
    if description.is_custom and classes is None and not labelled:
        return description
    try:
        known = _name_classes(description, None if classes is None else tuple(classes))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return dataclasses.replace(description, classes=known)


def read_without_classes(path: str | Path) -> WeaverYaml:
    """As `read_weaver_yaml`, without names of the classes, which fitting does not need."""
    path = Path(path)
    return read_yaml(path, lambda values: _Parser(path, values).parse())


def _restore(path: Path, source: Mapping[str, Any], *others: Any) -> WeaverYaml:
    names = ("classes", "split", "kept", "is_labelled")
    return dataclasses.replace(_Parser(path, source).parse(), **dict(zip(names, others, strict=True)))


#: Keys of a file.
KEYS = (
    "treename branch_magic file_magic selection test_time_selection preprocess new_variables inputs labels observers "
    "monitor_variables weights bucketing"
)
_WEIGHT_KEYS = (
    "use_precomputed_weights weight_branches reweight_method reweight_basewgt reweight_vars reweight_classes "
    "class_weights reweight_threshold reweight_discard_under_overflow reweight_hists"
)
_GROUPS = ("features", "vectors", "mask", "points")
_PARAMETERS = ("length", "pad_mode", "center", "scale", "min", "max", "pad_value")


class _Parser:
    """Checks the values of a file, key by key."""

    def __init__(self, path: Path, values: object) -> None:
        self.path = path
        known = check_keys("weaver's data file", values, KEYS.split(), ("inputs", "labels"))
        self.values = {key: value for key, value in known.items() if value is not None}
        self.parsed: dict[str, Expression] = {}

    def parse(self) -> WeaverYaml:
        is_custom, labels = self._labels()
        variables = self._variables(labels if is_custom else {})
        inputs = self._inputs()
        observers, monitors = (self._get(key, strings, ()) for key in ("observers", "monitor_variables"))
        if observers and monitors:
            raise ValueError("observers and monitor_variables: weaver takes one of them; leave the other out")
        selection = self._expression_at("selection")
        self._check_bucketing()
        return WeaverYaml(
            path=self.path,
            split="train",
            classes=(),
            labels=labels,
            is_custom=is_custom,
            tree=self._get("treename", string, None),
            selection=selection,
            test_selection=self._expression_at("test_time_selection") or selection,
            variables=variables,
            branch_magic=self._get("branch_magic", names, {}),
            file_magic=self._file_magic(),
            features=inputs["features"],
            vectors=inputs["vectors"],
            mask=next(iter(inputs["mask"]), None),
            points=inputs["points"],
            observers=observers,
            monitors=monitors,
            weights=self._weights(),
            data_fraction=self._preprocess()[1],
            parsed=MappingProxyType(self.parsed),
            source=self.values,
        )

    def _get(self, key: str, convert: Callable[[str, Any], Any], default: Any) -> Any:
        return convert(key, self.values[key]) if key in self.values else default

    def _expression(self, key: str, text: object) -> str:
        text = string(key, text)
        try:
            self.parsed[text] = parse(text, weaver_language())
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
        return text

    def _expression_at(self, key: str) -> str | None:
        return self._get(key, self._expression, None)

    def _variables(self, labels: Mapping[str, str]) -> Mapping[str, str]:
        """New variables and custom labels, which are variables too, by their expressions."""
        given = self._get("new_variables", mapping, {})
        variables = {name: self._expression(f"new_variables.{name}", text) for name, text in given.items()}
        variables = {name: text for name, text in (variables | labels).items() if name != text}
        known: set[str] = set()
        for name in variables:
            self._check_cycle(name, variables, (), known)
        return variables

    def _check_cycle(self, name: str, variables: Mapping[str, str], users: tuple[str, ...], known: set[str]) -> None:
        """Refuse a variable that needs itself; ``known`` are those that do not."""
        if name in users:
            circle = " -> ".join((*users[users.index(name) :], name))
            raise ValueError(f"new_variables: {name!r} needs itself ({circle}); give the result another name")
        if name in variables and name not in known:
            for needed in self.parsed[variables[name]].names:
                self._check_cycle(needed, variables, (*users, name), known)
            known.add(name)

    def _file_magic(self) -> Mapping[str, Mapping[str, float]]:
        return {
            name: {
                _pattern(f"file_magic.{name}", pattern): number(f"file_magic.{name}.{pattern}", value)
                for pattern, value in mapping(f"file_magic.{name}", values).items()
            }
            for name, values in self._get("file_magic", mapping, {}).items()
        }

    def _preprocess(self) -> tuple[bool, float, Mapping[str, Any] | None]:
        """Whether missing centres are fitted, to which fraction of the files, and what was fitted."""
        known = check_keys("preprocess", self.values.get("preprocess", {}), ("method", "data_fraction", "params"))
        values = {key: value for key, value in known.items() if value is not None}
        method = string("preprocess.method", values.get("method", "manual"))
        if method.lower() not in ("manual", "auto"):
            raise ValueError(f"preprocess.method: must be manual or auto, not {method!r}")
        fraction = number("preprocess.data_fraction", values.get("data_fraction", 0.1))
        if not 0 < fraction <= 1:
            raise ValueError(f"preprocess.data_fraction: must be above 0 and at most 1, not {fraction}")
        fitted = mapping("preprocess.params", values["params"]) if "params" in values else None
        return method.lower() == "auto", fraction, fitted

    def _inputs(self) -> dict[str, tuple[Input, ...]]:
        groups = mapping("inputs", self.values["inputs"])
        found: dict[str, tuple[Input, ...]] = dict.fromkeys(_GROUPS, ())
        prefixes = {}
        for name, group in groups.items():
            prefix, _, kind = name.rpartition("_")
            if kind not in _GROUPS:
                raise ValueError(
                    f"inputs: {name!r} is no group that the zoo's models take; they take one set of particles, such as "
                    "pf_features, pf_vectors and pf_mask; leave the group out"
                )
            prefixes[prefix] = name
            found[kind] = self._group(f"inputs.{name}", group)
        if len(prefixes) > 1:
            raise ValueError(
                f"inputs: {' and '.join(map(repr, prefixes.values()))} are of different sets of particles; the zoo's "
                "models take one; leave the others out"
            )
        self._check_inputs(found)
        return found

    def _check_inputs(self, found: Mapping[str, tuple[Input, ...]]) -> None:
        if not found["features"]:
            raise ValueError("inputs: there is no group of features, such as pf_features; add one")
        if len(found["vectors"]) != 4:
            raise ValueError(
                "inputs: a group of vectors, such as pf_vectors, must have the 4 vars px, py, pz and energy in GeV in "
                f"this order, has {[variable.name for variable in found['vectors']]}; add it, as the zoo's models need "
                "the momenta"
            )
        if len(found["mask"]) > 1:
            raise ValueError("inputs: a group of a mask has one variable")
        for variable in (*found["vectors"], *found["mask"]):
            if variable.centre is not None:
                raise ValueError(f"inputs: {variable.name!r} must not be scaled; write [{variable.name}, null]")
        used = [variable for kind in ("features", "vectors", "mask") for variable in found[kind]]
        if len({variable.length for variable in used}) > 1:
            raise ValueError("inputs: features, vectors and mask must have the same length; give them one")
        by_name: dict[str, Input] = {}
        for variable in (variable for variables in found.values() for variable in variables):
            if by_name.setdefault(variable.name, variable) != variable:
                raise ValueError(
                    f"inputs: {variable.name!r} stands in two groups with different numbers; give it the same"
                )
        columns = [variable.column for variable in found["features"]]
        for variable in found["features"]:
            if columns.count(variable.column) > 1:
                raise ValueError(
                    f"inputs: the feature {variable.name!r} is given twice; give it one name and one place"
                )

    def _group(self, key: str, group: object) -> tuple[Input, ...]:
        values = check_keys(key, group, ("length", "pad_mode", "vars"), ("length", "vars"))
        length = integer(f"{key}.length", values["length"])
        if length < 1:
            raise ValueError(f"{key}.length: must be at least 1, not {length}")
        mode = string(f"{key}.pad_mode", values.get("pad_mode", "constant")).lower()
        if mode not in ("constant", "wrap") or (mode == "wrap" and key.endswith("_mask")):
            raise ValueError(f"{key}.pad_mode: must be constant, or wrap where it is no mask, not {mode!r}")
        if not isinstance(values["vars"], list) or not values["vars"]:
            raise ValueError(f"{key}.vars: must be a list of variables, not {values['vars']!r}")
        is_mask = key.endswith("_mask")
        return tuple(self._input(f"{key}.vars", length, mode, item, is_mask=is_mask) for item in values["vars"])

    def _input(self, key: str, length: int, mode: str, item: object, *, is_mask: bool) -> Input:
        is_auto, _, fitted = self._preprocess()
        name, *given = item if isinstance(item, list) and item else [item]
        name = string(key, name)
        key = f"{key}.{name}"
        if len(given) > 5:
            raise ValueError(f"{key}: has more than [name, subtract_by, multiply_by, clip_min, clip_max, pad_value]")
        if fitted is not None:
            if name not in fitted:
                raise ValueError(f"preprocess.params: {name!r} is missing; {did_you_mean(name, fitted)}")
            key = f"preprocess.params.{name}"
            params = check_keys(key, fitted[name], _PARAMETERS, _PARAMETERS[:-1])
            length, mode = integer(f"{key}.length", params["length"]), string(f"{key}.pad_mode", params["pad_mode"])
            given = [params.get(parameter, 0) for parameter in _PARAMETERS[2:]]
        defaults = ["auto" if is_auto else None, 1, -5, 5, 0]
        centre, *others = (*given, *defaults[len(given) :])
        scale, smallest, largest, pad_value = (number(key, value) for value in others)
        if centre == "auto" and (name.endswith("_mask") or is_mask):
            centre = None  # as in weaver, which does not fit masks
        if centre is not None and centre != "auto":
            number(key, centre)
        if smallest > largest:
            raise ValueError(f"{key}: the limits {smallest} and {largest} must rise")
        return Input(name, length, mode, centre, scale, smallest, largest, pad_value)

    def _labels(self) -> tuple[bool, Mapping[str, str]]:
        values = check_keys("labels", self.values["labels"], ("type", "value"), ("type", "value"))
        if values["type"] not in ("simple", "custom"):
            raise ValueError(f"labels.type: must be simple or custom, not {values['type']!r}")
        if values["type"] == "custom":
            given = mapping("labels.value", values["value"])
            if not given:
                raise ValueError("labels.value: must be a mapping of at least one label to its expression")
            return True, {name: self._expression(f"labels.value.{name}", text) for name, text in given.items()}
        given = strings("labels.value", values["value"])
        if len(set(given)) < len(given):
            raise ValueError(f"labels.value: a label is given twice in {list(given)}")
        return False, {text: self._expression("labels.value", text) for text in given}

    def _weights(self) -> str | Reweighting | None:
        if "weights" not in self.values:
            return None
        known = check_keys("weights", self.values["weights"], _WEIGHT_KEYS.split(), ("use_precomputed_weights",))
        values = {key: value for key, value in known.items() if value is not None}
        if boolean("weights.use_precomputed_weights", values["use_precomputed_weights"]):
            check_keys("weights with use_precomputed_weights", values, values, ("weight_branches",))
            branches = strings("weights.weight_branches", values["weight_branches"])
            return self._expression("weights.weight_branches", "*".join(branches))
        return self._reweighting(values)

    def _reweighting(self, values: Mapping[str, Any]) -> Reweighting:
        check_keys("weights", values, values, ("reweight_method", "reweight_vars", "reweight_classes"))
        method = values["reweight_method"]
        if method not in ("flat", "ref"):
            raise ValueError(f"weights.reweight_method: must be flat or ref, not {method!r}")
        classes = strings("weights.reweight_classes", values["reweight_classes"])
        class_weights = numbers("weights.class_weights", values.get("class_weights", [1] * len(classes)))
        if len(class_weights) != len(classes) or min(class_weights, default=0) <= 0:
            raise ValueError(f"weights.class_weights: must be a positive number for each of {list(classes)}")
        bins = self._bins(values["reweight_vars"])
        return Reweighting(
            method=method,
            bins=bins,
            classes=classes,
            class_weights=class_weights,
            threshold=number("weights.reweight_threshold", values.get("reweight_threshold", 10)),
            discard_outside=boolean(
                "weights.reweight_discard_under_overflow", values.get("reweight_discard_under_overflow", True)
            ),
            base_weight=self._expression("weights.reweight_basewgt", values["reweight_basewgt"])
            if "reweight_basewgt" in values
            else None,
            histograms=_histograms(values["reweight_hists"], bins) if "reweight_hists" in values else None,
        )

    def _bins(self, given: object) -> Mapping[str, tuple[float, ...]]:
        key = "weights.reweight_vars"
        bins = {name: numbers(f"{key}.{name}", edges) for name, edges in mapping(key, given).items()}
        if len(bins) != 2:
            raise ValueError(f"{key}: must be two variables with the edges of their bins, not {list(bins)}")
        for name, edges in bins.items():
            if len(edges) < 2 or list(edges) != sorted(set(edges)):
                raise ValueError(f"{key}.{name}: must be at least two rising edges, not {list(edges)}")
        return bins

    def _check_bucketing(self) -> None:
        if "bucketing" in self.values:
            check_keys("bucketing", self.values["bucketing"], ("var", "bins"), ("var", "bins"))


def _pattern(key: str, text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{key}: {text!r} is no regular expression ({error}); correct it") from None
    return text


def _name_classes(description: WeaverYaml, given: tuple[str, ...] | None) -> tuple[str, ...]:
    labels = description.labels
    if description.is_custom and given is None:
        raise ValueError(
            "labels: those of the type custom name no classes; give the names in 'classes', in the order of the "
            f"values of {next(iter(labels))!r}"
        )
    if not description.is_custom and given is not None:
        raise ValueError("classes: labels of the type simple name them; leave 'classes' out")
    found = given if description.is_custom else tuple(text.removeprefix("label_") for text in labels)
    if len(found) < 2 or len(set(found)) < len(found):
        raise ValueError(f"labels: must be at least two classes, none twice, not {list(found)}")
    return found


def _histograms(given: object, bins: Mapping[str, tuple[float, ...]]) -> Mapping[str, np.ndarray]:
    shape = tuple(len(edges) - 1 for edges in bins.values())
    histograms = {}
    for name, rows in mapping("weights.reweight_hists", given).items():
        key = f"weights.reweight_hists.{name}"
        if not isinstance(rows, list):
            raise ValueError(f"{key}: must be a list of lists of numbers")
        values = [numbers(key, row) for row in rows]
        if {(len(values), len(row)) for row in values} != {shape}:
            raise ValueError(f"{key}: must have {shape[0]} rows of {shape[1]} numbers, as the bins of 'reweight_vars'")
        histograms[name] = np.array(values, dtype=np.float32)
    return histograms
