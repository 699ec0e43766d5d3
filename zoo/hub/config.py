"""What ``config.json`` of a pretrained folder says."""

import dataclasses
import re
import types
import typing
from pathlib import Path
from typing import Any

from zoo.limits import parse_json

FORMAT_VERSION = 3

#: Kinds of folders.
KINDS = ("tagger", "backbone", "trees", "ensemble", "task")

#: Largest number of members of an ensemble.
MAX_MEMBERS = 16

#: Largest number of classes of a model, and of features of a particle or of an event.
MAX_CLASSES = MAX_FEATURES = 1000


class PretrainedError(ValueError):
    """A pretrained folder cannot be trusted; the message names the file and the remedy."""


@dataclasses.dataclass(frozen=True)
class PretrainedConfig:
    """What ``config.json`` says.

    Args:
        model: registered name, see `zoo.list_models`; for trees, one of `zoo.baselines.trees.TITLES`; or ``ensemble``.
        classes: class names, in the order of the logits; none for a backbone.
        features: the feature table, with every centre and scale; none for trees on observables of jets, and none for
            an ensemble, whose members have their own.
        dataset: data set that it was trained on.
        units: units of energies and momenta.
        metrics: measured metrics with their errors.
        licence: licence of the weights.
        paper: paper of the architecture.
        training: how it was trained, as far as known, see `zoo.card`.
        kind: ``tagger``; ``backbone``: the model up to its ``encode``, without its ``readout``; ``trees``: boosted
            decision trees; ``ensemble`` of other folders; or ``task``: a model of a task other than classification.
        format_version: version of the folder. Folders of version 1 have no ``training``, ``kind`` and ``context``;
            those before version 3 do not hold the columns from which the golden features are computed.
        context: the table of context features, with every centre and scale; None: the model takes no context.
        inputs: the ranges of its training data, see `zoo.data.ranges.InputRanges`; None: unknown.
        observables: names of the inputs of trees, in order; None for all other kinds.
        members: names of the folders of an ensemble; None for all other kinds.
        task: for the kind ``task``: the ``name`` of its class, the ``arguments`` that it is built with besides its
            model, ``num_outputs`` of the model, and the names of the ``columns`` of its answers; None for all other
            kinds.
        package: for a model or task of another package: ``name`` and ``version`` of the distribution that offers it.
            Messages name it; nothing is imported or installed because a folder says so.
    """

    model: str
    classes: list[str]
    features: dict[str, Any]
    dataset: str
    units: str
    metrics: dict[str, Any]
    licence: str
    paper: str
    training: dict[str, Any] = dataclasses.field(default_factory=dict)
    kind: str = "tagger"
    format_version: int = FORMAT_VERSION
    context: dict[str, Any] | None = None
    inputs: dict[str, Any] | None = None
    observables: list[str] | None = None
    members: list[str] | None = None
    package: dict[str, Any] | None = None
    task: dict[str, Any] | None = None


#: Keys of ``config.json`` that may be missing, as in older folders.
_OPTIONAL = {"training", "kind", "context", "inputs", "observables", "members", "package", "task"}

#: Names and versions of distributions, which messages quote.
_DISTRIBUTION = re.compile(r"\w[\w.+!-]{0,99}", re.ASCII)

#: Names of the folders in an ensemble, which cannot lead out of it.
_MEMBER = re.compile(r"\w[\w.-]*")


def parse_config(path: Path, content: bytes) -> PretrainedConfig:
    """Parse the content of ``config.json``; ``path`` is for the messages.

    Raises:
        PretrainedError: if a key is missing, unknown or of the wrong type, or the version is unknown.
    """
    try:
        values = parse_json(content)
    except ValueError as error:
        raise PretrainedError(f"{path}: is not JSON ({error})") from error
    version = values.get("format_version") if isinstance(values, dict) else None
    if isinstance(version, int) and not 1 <= version <= FORMAT_VERSION:
        raise PretrainedError(f"{path}: format_version {version} is not 1 to {FORMAT_VERSION}; update zoo")
    fields = typing.get_type_hints(PretrainedConfig)
    odd = values if not isinstance(values, dict) else sorted((fields.keys() - _OPTIONAL ^ values.keys()) - _OPTIONAL)
    if odd or not isinstance(values, dict):
        raise PretrainedError(f"{path}: keys must be exactly {sorted(fields)}; missing or unknown: {odd}")
    for name in values:
        kinds = _kinds(fields[name])
        if not isinstance(values[name], kinds):
            told = " or ".join(kind.__name__ for kind in kinds)
            raise PretrainedError(f"{path}: {name!r} must be {told}, is {values[name]!r}")
    config = PretrainedConfig(**values)
    if config.kind not in KINDS:
        raise PretrainedError(f"{path}: 'kind' must be one of {', '.join(KINDS)}, is {config.kind!r}; update zoo")
    has_none = config.kind in ("backbone", "task")
    if bool(config.classes) == has_none or not all(isinstance(name, str) for name in config.classes):
        expected = f"empty for a {config.kind}" if has_none else "a list of names"
        raise PretrainedError(f"{path}: 'classes' must be {expected}, is {config.classes!r}")
    _limit(path, "classes", config.classes, MAX_CLASSES)
    _limit(path, "features", config.features.get("features"), MAX_FEATURES)
    _limit(path, "context", (config.context or {}).get("context"), MAX_FEATURES)
    _check_lists(path, config)
    _check_package(path, config.package)
    _check_task(path, config)
    return config


def _kinds(annotation: Any) -> tuple[type, ...]:
    """The classes that an annotation allows: those of a union, without the types inside lists and tables."""
    parts = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    return tuple(typing.get_origin(part) or part for part in parts)


def _check_package(path: Path, package: dict[str, Any] | None) -> None:
    if package is None:
        return
    texts = [value for value in package.values() if isinstance(value, str)]
    if package.keys() != {"name", "version"} or len(texts) < 2 or not all(map(_DISTRIBUTION.fullmatch, texts)):
        raise PretrainedError(f"{path}: 'package' must have the name and the version of a distribution, is {package!r}")


def _check_task(path: Path, config: PretrainedConfig) -> None:
    task = config.task
    if (task is not None) != (config.kind == "task"):
        raise PretrainedError(f"{path}: 'task' belongs to the kind 'task' and to no other, kind is {config.kind!r}")
    if task is None:
        return
    kinds = {"name": str, "arguments": dict, "num_outputs": int, "columns": list}
    if task.keys() != kinds.keys() or not all(isinstance(task[key], kind) for key, kind in kinds.items()):
        raise PretrainedError(f"{path}: 'task' must have {', '.join(kinds)}, is {task!r}")
    _limit(path, "task.columns", task["columns"], MAX_CLASSES)
    names = all(isinstance(name, str) for name in task["columns"])
    if not names or not task["columns"] or not 1 <= task["num_outputs"] <= MAX_CLASSES:
        raise PretrainedError(f"{path}: 'task' must have names of columns and 1 to {MAX_CLASSES} num_outputs")


def _check_lists(path: Path, config: PretrainedConfig) -> None:
    """Check the keys that only trees or only ensembles have."""
    for kind, key, values in (("trees", "observables", config.observables), ("ensemble", "members", config.members)):
        if (values is not None) != (config.kind == kind):
            raise PretrainedError(
                f"{path}: {key!r} belongs to the kind {kind!r} and to no other, kind is {config.kind!r}"
            )
        if values is not None and not all(isinstance(value, str) for value in values):
            raise PretrainedError(f"{path}: {key!r} must be a list of names, is {values!r}")
    members = config.members or []
    _limit(path, "members", members, MAX_MEMBERS)
    if len(set(members)) != len(members) or not all(map(_MEMBER.fullmatch, members)):
        raise PretrainedError(f"{path}: 'members' must be different names of folders, is {members!r}")


def _limit(path: Path, key: str, values: object, most: int) -> None:
    if isinstance(values, list) and len(values) > most:
        raise PretrainedError(f"{path}: {key!r} has {len(values):,} entries, more than {most:,}; get the folder again")
