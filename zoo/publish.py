"""Turns a tested run into a pretrained folder."""

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from torch import nn

from zoo.baselines.trees import OF_JETS, TITLES, BoostedTrees, ForestError
from zoo.card import write_card
from zoo.data.batch import batch_quantities, collate, gather, padded_columns
from zoo.data.classes import merge_classes
from zoo.data.context import ContextTable
from zoo.data.datamodule import Split, find_features
from zoo.data.datasets import describe_dataset
from zoo.data.description import read_description
from zoo.data.features import FeatureTable
from zoo.data.features_yaml import named_context
from zoo.data.formats.known import Description
from zoo.data.packed import PackedJets
from zoo.data.ranges import measure_ranges
from zoo.data.read_report import warn_of
from zoo.data.source import Sources
from zoo.data.split_tables import SplitTables
from zoo.data.store import JetTable
from zoo.data.weaver.data_config import WeaverYaml
from zoo.data.weaver.formulas import verified_table
from zoo.hub import (
    GOLDEN_JETS,
    KIND,
    MAX_PAIRS,
    Kind,
    Parts,
    PretrainedConfig,
    build_task,
    find_task,
    largest_change,
    save_parts,
)
from zoo.limits import parse_json, parse_yaml
from zoo.old_configs import renew_settings
from zoo.plugins import offered_by
from zoo.registry import create_model, model_facts, registered_name
from zoo.report import Answers, Predictions
from zoo.tasks import Task
from zoo.tasks.pretraining.backbone import backbone_names, read_backbone
from zoo.training.checkpoints import read_checkpoint, read_model_weights, require_same_model

#: Number of jets whose logits are compared with the predictions of the run.
COMPARED_JETS = 64

#: Number of rows that they are taken from, as some may not be selected.
READ_ROWS = 1024

#: Number of training rows, of all files together, whose ranges a folder stores.
RANGE_ROWS = 65536

#: Largest allowed change of a logit on another processor, relative to the largest logit.
PREDICTION_TOLERANCE = 1e-3

#: Defaults of keys that a config of ``zoo baseline`` may omit; a training always writes them.
_DATA_DEFAULTS = {
    "dataset": "top_tagging", "features": "kin", "layout": None, "weaver_yaml": None, "classes": None, "context": None,
    "merge": None,
}  # fmt: skip

#: Arguments of a task that only a training needs.
_OF_TRAINING = {"model", "learning_rate", "weight_decay", "warmup", "final_learning_rate", "fine_tuning"}

_TREES_REMEDY = "train the trees again with zoo baseline"


class Subject(NamedTuple):
    """The kind of folder that a run becomes, and what that needs.

    Args:
        kind: kind of the folder.
        split: split that the report covers.
        needs_labels: whether its jets have classes.
        remedy: how to make the report.
        task: task that was trained; None for trees.
    """

    kind: str
    split: Literal["test", "val"]
    needs_labels: bool
    remedy: str
    task: type[Task] | None = None


def publish_run(run: Path, out: Path, *, licence: str, paper: str | None = None) -> None:
    """Write the best checkpoint of a run, or its trees, with features and metrics, as a pretrained folder.

    Args:
        run: folder of a tested training of any task; of a pretraining, which becomes a folder of its backbone; or of
            boosted trees.
        out: folder to write; must not exist.
        licence: licence of the weights, such as ``MIT``.
        paper: paper of the architecture, such as ``arXiv:2201.08187``; None: the one that its builder names, which
            boosted trees do not have.

    Raises:
        FileNotFoundError: if the run has no configuration, report or checkpoint.
        FileExistsError: if ``out`` exists.
        ValueError: if the model is neither one of `zoo.list_models` nor boosted trees, if no installable package offers
            it, if it does not reproduce the predictions of the report, or if a file is damaged.
    """
    run, out = Path(run), Path(out)
    settings = renew_settings(_read(run / "config.yaml", parse_yaml, "train it with zoo fit"))
    subject = _subject(run, settings)
    kind, labelled = subject.kind, subject.needs_labels
    report = _read(run / "report" / "metrics.json", parse_json, subject.remedy)
    data = _DATA_DEFAULTS | settings["data"]
    layout = read_description(data["layout"], data["weaver_yaml"], data["classes"], labelled=labelled)
    split = data[subject.split]
    table, context = find_features(data["features"], layout), named_context(data["context"])
    if isinstance(layout, WeaverYaml):  # the folder must work without the data file
        table = verified_table(layout, *_first_rows(split, layout))
        layout = layout.keeping(table.columns)
    dataset = layout or describe_dataset(data["dataset"])
    classes = merge_classes(data["merge"], dataset.classes).names
    build = {"tagger": _network, "backbone": _backbone, "trees": _trees, "task": _task}[kind]
    name, parts = build(run, settings["model"], Parts(nn.Identity(), table, context), len(classes))
    jets, first_index = _first_jets(split, layout, labelled)
    columns = (parts.feature_table.columns, parts.context_table.fields)
    described = (
        None if kind != "task" else _describe_task(settings["model"], parts, gather(jets, np.arange(1), *columns))
    )
    if subject.split == "test":
        compared = gather(jets, np.arange(min(len(jets), COMPARED_JETS)), *columns)
        compared = compared._replace(index=compared.index + first_index)
        tested = _tested(run / "report" / "predictions.arrow", described)
        _require_same_predictions(parts, KIND[kind], compared, run / "report" / "predictions.arrow", *tested)
    config = PretrainedConfig(
        model=name,
        classes=list(classes) if labelled else [],
        features=parts.feature_table.to_dict(),
        dataset=dataset.name,
        units=dataset.metadata["units"],
        metrics=report["metrics"],
        licence=licence,
        paper=paper or _paper(kind, name),
        training={
            "command": _command(kind, settings["model"]),
            "jets" if subject.split == "test" else "validation_jets": report["jets"],
            **{key: report[key] for key in ("settings", "facts", "versions")},
        },
        kind=kind,
        context=context.to_dict() if context.context_dim else None,
        inputs=_measure_inputs(data, parts.feature_table, context, layout, labelled),
        observables=list(parts.model.forest.names) if isinstance(parts.model, BoostedTrees) else None,
        package=None if subject.task is None else _package(run, name) or _package_of_task(run, subject.task),
        task=described,
    )
    card = write_card(out.name, config)
    packed = gather(jets, _golden_rows(jets), *columns)
    golden = collate(packed, parts.feature_table, context)
    save_parts(out, parts, config, golden.four_momenta, golden.mask, card, padded_columns(packed, golden.mask))


def _subject(run: Path, settings: dict[str, Any]) -> Subject:
    """The kind of folder that a run becomes, as its task says.

    Raises:
        ValueError: if its configuration has no model or no data, or its task cannot be found.
    """
    model = settings.get("model")
    if isinstance(model, dict) and isinstance(settings.get("data"), dict):
        if model.get("class_path") == "lightgbm" and model.get("inputs") in TITLES:
            return Subject("trees", "test", True, _TREES_REMEDY)
        network = (model.get("init_args") or {}).get("model")
        if isinstance(network, dict) and isinstance(network.get("class_path"), str):
            try:
                task = cast(type[Task], find_task(model["class_path"]))
            except ValueError as error:
                raise ValueError(
                    f"{run / 'config.yaml'}: model.class_path: {error}; give the package of a task of yours an entry "
                    "point of the group zoo.tasks, see docs/training.md"
                ) from None
            remedy = {"test": "test it with zoo test", "val": "validate it with zoo validate"}[task.judged_split]
            return Subject(task.folder_kind, task.judged_split, task.needs_labels, remedy, task)
    raise ValueError(
        f"{run / 'config.yaml'}: has no 'data', or neither a task with a network under model nor boosted trees; "
        "give the run folder of zoo fit or of zoo baseline"
    )


def _command(kind: str, model: dict[str, Any]) -> str:
    if kind == "trees":
        return f"zoo baseline lightgbm --config config.yaml --inputs {model['inputs']} --run-folder runs/trees"
    return "zoo fit --config config.yaml"


def _network(run: Path, model: dict[str, Any], inputs: Parts, num_classes: int) -> tuple[str, Parts]:
    """Name and parts of the network with the weights of the best checkpoint."""
    name, network = _registered(run, model, inputs, num_classes)
    network.load_state_dict(read_model_weights(run / "checkpoints" / "best.ckpt"))
    return name, inputs._replace(model=network.eval())


def _backbone(run: Path, model: dict[str, Any], inputs: Parts, num_classes: int) -> tuple[str, Parts]:
    """The same for a pretraining; what comes after ``encode`` stays random, as no folder holds it."""
    name, network = _registered(run, model, inputs, num_classes or 2)  # without labels any size will do
    weights = read_backbone(run)
    if differing := weights.keys() ^ set(backbone_names(network)):
        raise ValueError(
            f"{run}: best.ckpt is of another model than config.yaml: only one of them has {min(differing)}"
        )
    network.load_state_dict(weights, strict=False)
    return name, inputs._replace(model=network.eval())


def _task(run: Path, model: dict[str, Any], inputs: Parts, num_classes: int) -> tuple[str, Parts]:
    """Name of the model, and the task with all that it trained."""
    name, network = _registered(run, model, inputs, _num_outputs(model))
    task = build_task(find_task(model["class_path"]), network, _arguments(model), inputs.feature_table)
    checkpoint = run / "checkpoints" / "best.ckpt"
    found = read_checkpoint(checkpoint)
    require_same_model(task, found, checkpoint)
    task.load_state_dict(found["state_dict"])
    return name, inputs._replace(model=task.eval())


def _num_outputs(model: dict[str, Any]) -> int:
    return (model["init_args"]["model"].get("init_args") or {}).get("num_classes", 2)


def _arguments(model: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a task besides its model, without those that only a training needs."""
    return {name: value for name, value in model["init_args"].items() if name not in _OF_TRAINING}


@torch.no_grad()
def _describe_task(model: dict[str, Any], parts: Parts, jets: PackedJets) -> dict[str, Any]:
    """The description of a task in a folder; the names of its answers are read from its answers for some jets."""
    batch = collate(jets, parts.feature_table, parts.context_table)
    return {
        "name": model["class_path"],
        "arguments": _arguments(model),
        "num_outputs": _num_outputs(model),
        "columns": list(cast(Task, parts.model).answer(*batch.inputs)),
    }


def _registered(run: Path, model: dict[str, Any], inputs: Parts, num_classes: int) -> tuple[str, nn.Module]:
    builder = model["init_args"]["model"]["class_path"]
    name = registered_name(builder)
    if name is None:
        raise ValueError(
            f"{run / 'config.yaml'}: model.model: {builder} is not the builder of a model of "
            "zoo.list_models(), and only those can be published; a model of yours is one of them with "
            "@zoo.register_model and an entry point of its package, see docs/models.md"
        )
    return name, create_model(name, input_dim=inputs.feature_table.input_dim, num_classes=num_classes)


def _paper(kind: str, name: str) -> str:
    if kind == "trees":
        raise ValueError(
            "--paper: boosted trees have no paper of their own; name the one of the inputs or of the study"
        )
    return model_facts(name).paper.id


def _package(run: Path, name: str) -> dict[str, str] | None:
    """What to install for the model of another package."""
    facts = model_facts(name)
    if facts.package == "zoo":
        return None
    if facts.distribution is None:
        raise ValueError(
            f"{run / 'config.yaml'}: model.model: no installed package offers {name}, so nobody could load the folder; "
            f"give {facts.package} an entry point of the group zoo.models, see docs/models.md, and pip install it"
        )
    return facts.distribution._asdict()


def _package_of_task(run: Path, task: type[Task]) -> dict[str, str] | None:
    """What to install for the task of another package."""
    package = task.__module__.partition(".")[0]
    if package == "zoo":
        return None
    distribution = offered_by(package)
    if distribution is None:
        raise ValueError(
            f"{run / 'config.yaml'}: model.class_path: no installed package offers {task.__name__}, so nobody could "
            f"load the folder; give {package} an entry point of the group zoo.tasks (docs/training.md), and install it"
        )
    return distribution._asdict()


def _trees(run: Path, model: dict[str, Any], inputs: Parts, num_classes: int) -> tuple[str, Parts]:
    """Name and parts of boosted trees; trees on observables of jets need no features."""
    if model["inputs"] in OF_JETS:
        inputs = inputs._replace(feature_table=FeatureTable(()))
    text = _read(run / "model.txt", str, _TREES_REMEDY)
    try:
        trees = BoostedTrees(text, model["inputs"], inputs.feature_table.names, inputs.context_table.names)
    except ForestError as error:
        raise ValueError(f"{run / 'model.txt'}: {error}; {_TREES_REMEDY}") from error
    return TITLES[model["inputs"]], inputs._replace(model=trees.eval())


def _tested(path: Path, task: dict[str, Any] | None) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the tested jets, and the answers of the model for them, (jet, answer)."""
    if task is None:
        predictions = Predictions.load(path)
        return predictions.index, predictions.logits
    answers = Answers.load(path)
    if absent := [name for name in task["columns"] if name not in answers.columns]:
        raise ValueError(f"{path}: has no column {absent[0]!r}; test the run again with zoo test")
    return answers.index, np.stack([answers.columns[name] for name in task["columns"]], axis=1)


@torch.no_grad()
def _require_same_predictions(
    parts: Parts, kind: Kind, jets: PackedJets, path: Path, index: np.ndarray, answers: np.ndarray
) -> None:
    """Refuse a model whose answers differ from those of the test: the metrics would be those of another model."""
    place = {row: i for i, row in enumerate(index.tolist())}
    rows = jets.index.tolist()
    if absent := [row for row in rows if row not in place]:
        raise ValueError(f"{path}: has no row {absent[0]} of the test split of config.yaml; test the run again")
    expected = torch.from_numpy(answers[[place[row] for row in rows]])
    batch = collate(jets, parts.feature_table, parts.context_table)
    named = dict(zip(("features", "four_momenta", "mask", "context"), batch.inputs, strict=False))
    deviation = largest_change(kind.answer(parts.model, named), expected, jumps=True)
    if not deviation < PREDICTION_TOLERANCE:
        raise ValueError(
            f"{path}: the weights and config.yaml give other {kind.output} for these jets, by {deviation:.1e} of the "
            "largest; the metrics of the report are not those of these weights: test the run again with zoo test"
        )


def _read(path: Path, parse: Callable[[str], Any], remedy: str) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {remedy}")
    try:
        return parse(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: is damaged ({error}); {remedy}") from error


def _first_rows(split: dict[str, Any], layout: Description | None) -> tuple[Path, tuple[int, int]]:
    with Sources() as sources:
        path, (start, stop) = next(iter(Split(**split).ranges(sources, layout).items()))
    return path, (start, min(start + READ_ROWS, stop))


def _measure_inputs(
    data: dict[str, Any], table: FeatureTable, context: ContextTable, layout: Description | None, labelled: bool
) -> dict[str, Any] | None:
    """The ranges of the first training jets of each file; None, with a warning, if the files no longer exist."""
    found = SplitTables("train")
    try:
        with Sources() as sources:
            ranges = Split(**data["train"]).ranges(sources, layout, labelled=labelled)
            trained = sum(stop - start for start, stop in ranges.values()) * (data.get("train_fraction") or 1)
            most = max(1, int(min(RANGE_ROWS, data.get("train_jets") or trained) // len(ranges)))
            for path, (start, stop) in ranges.items():
                found.open(sources.get(path, layout, labelled=labelled), (start, min(start + most, stop)))
    except FileNotFoundError as error:
        warnings.warn(f"the folder will not know the ranges of its training jets: {error}", stacklevel=3)
        return None
    batches = (
        collate(gather(jets, rows, table.columns, context.fields), table, context)
        for _, jets in found.tables
        for rows in np.split(np.arange(len(jets)), range(READ_ROWS, len(jets), READ_ROWS))
    )
    parts = (batch_quantities(batch, table, context) for batch in batches)
    return measure_ranges(found.jets, parts).to_dict()


def _first_jets(split: dict[str, Any], layout: Description | None, labelled: bool) -> tuple[JetTable, int]:
    """The first jets of a split, and the number of rows in the files before theirs."""
    first_index = 0
    with Sources(verify=True) as sources:
        for path, (start, stop) in Split(**split).ranges(sources, layout, labelled=labelled).items():
            if start == stop:
                continue
            source = sources.get(path, layout, labelled=labelled)
            jets, report = source.read((start, min(start + READ_ROWS, stop)))
            warn_of(report, stacklevel=2)
            if len(jets):
                return jets, first_index
            first_index += len(source)
    raise ValueError(f"{', '.join(map(str, split['files']))}: hold no jets of the test or validation split")


def _golden_rows(jets: JetTable) -> np.ndarray:
    """The first jets that are short enough for a folder."""
    longest = math.isqrt(MAX_PAIRS // GOLDEN_JETS)
    rows = np.flatnonzero(jets.counts <= longest)[:GOLDEN_JETS]
    if not len(rows):
        raise ValueError(f"the first {len(jets)} jets have more than {longest} particles, too many for a folder")
    return rows
