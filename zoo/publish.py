"""A tested run becomes a pretrained folder."""

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn

from zoo.card import write_card
from zoo.checkpoints import read_model_weights
from zoo.data.batch import JetBatch, batch_quantities, collate, gather, padded_columns
from zoo.data.classes import merge_classes
from zoo.data.context import ContextTable
from zoo.data.datamodule import Split, find_context, find_features
from zoo.data.datasets import describe_dataset
from zoo.data.description import read_description
from zoo.data.features import FeatureTable
from zoo.data.ranges import measure_ranges
from zoo.data.readers import Description, count_rows, read_jets
from zoo.data.split_tables import SplitTables
from zoo.data.store import JetTable
from zoo.data.weaver.data_config import WeaverYaml
from zoo.data.weaver.formulas import verified_table
from zoo.hub import MAX_PAIRS, PretrainedConfig, save_pretrained
from zoo.limits import parse_json, parse_yaml
from zoo.pretraining.backbone import backbone_names, read_backbone
from zoo.registry import create_model, registered_name
from zoo.report import Predictions

#: Jets whose logits are stored with the weights.
GOLDEN_JETS = 8

#: Jets whose logits are compared with the run's predictions.
COMPARED_JETS = 64

#: Rows that they are taken from, of which some may not be selected.
READ_ROWS = 1024

#: Training rows whose ranges a folder keeps, of all files together.
RANGE_ROWS = 65536

#: Largest change of a logit, relative to the largest of them, that another processor may cause in a test.
PREDICTION_TOLERANCE = 1e-3


def publish_run(run: Path, out: Path, *, licence: str, paper: str) -> None:
    """Write the best checkpoint of a run, with its features and its figures, as a pretrained folder.

    Args:
        run: run folder of a training that was tested; or of a pretraining, which becomes a folder of its backbone.
        out: folder to write; must not exist.
        licence: of the weights, such as ``MIT``.
        paper: of the architecture, such as ``arXiv:2201.08187``.

    Raises:
        FileNotFoundError: if the run has no configuration, report or checkpoint.
        FileExistsError: if ``out`` exists.
        ValueError: if the model is not one of `zoo.list_models`, such as boosted trees, if it does not give the
            predictions of the report, or if a file is damaged.
    """
    run, out = Path(run), Path(out)
    settings = _read(run / "config.yaml", parse_yaml, "train it with train.py")
    is_tagger = settings.get("task", "tagging") == "tagging"
    remedy = f"{'test' if is_tagger else 'validate'} it with train.py {'test' if is_tagger else 'validate'}"
    report = _read(run / "report" / "metrics.json", parse_json, remedy)
    try:
        data, builder = settings["data"], settings["model"]["model"]["class_path"]
    except (KeyError, TypeError):
        raise ValueError(
            f"{run / 'config.yaml'}: has no 'data', or no network under model.model.class_path; boosted trees "
            "cannot be published, give the run folder of a training with train.py"
        ) from None
    layout = read_description(data.get("layout"), data.get("weaver_yaml"), data.get("classes"))
    split = data["test" if is_tagger else "val"]
    table, context = find_features(data["features"], layout), find_context(data.get("context"))
    if isinstance(layout, WeaverYaml):  # the folder has to do without the data file
        table = verified_table(layout, *_first_rows(split, layout))
        layout = layout.keeping(table.columns)
    dataset = layout or describe_dataset(data["dataset"])
    classes = merge_classes(data.get("merge"), dataset.classes).names
    name = registered_name(builder)
    if name is None:
        raise ValueError(
            f"{run / 'config.yaml'}: model.model.class_path: {builder} is not the builder of a model of "
            "zoo.list_models(), and only those can be published"
        )
    model = create_model(name, input_dim=table.input_dim, num_classes=len(classes))
    jets, first_index = _first_jets(split, layout)
    if is_tagger:
        model.load_state_dict(read_model_weights(run / "checkpoints" / "best.ckpt"))
        compared = gather(jets, np.arange(min(len(jets), COMPARED_JETS)), table.columns, context.fields)
        compared = compared._replace(index=compared.index + first_index)
        batch = collate(compared, table, context)
        _require_same_predictions(model.eval(), batch, run / "report" / "predictions.arrow")
    else:
        _load_backbone(model, run)
    config = PretrainedConfig(
        model=name,
        classes=list(classes) if is_tagger else [],
        features=table.to_dict(),
        dataset=dataset.name,
        units=dataset.metadata["units"],
        metrics=report["metrics"],
        licence=licence,
        paper=paper,
        training={
            "command": "python train.py fit --config config.yaml",
            "jets" if is_tagger else "validation_jets": report["jets"],
            **{key: report[key] for key in ("settings", "facts", "versions")},
        },
        kind="tagger" if is_tagger else "backbone",
        context=context.to_dict() if context.context_dim else None,
        inputs=_measure_inputs(data, table, context, layout),
    )
    card = write_card(out.name, config)
    packed = gather(jets, _golden_rows(jets), table.columns, context.fields)
    golden = collate(packed, table, context)
    columns = padded_columns(packed, golden.mask)
    save_pretrained(out, model, config, golden.four_momenta, golden.mask, card, columns=columns)


def _load_backbone(model: nn.Module, run: Path) -> None:
    """Take the weights of a pretraining; what comes after ``encode``, which no folder holds, stays as it is."""
    weights = read_backbone(run)
    if differing := weights.keys() ^ set(backbone_names(model)):
        raise ValueError(
            f"{run}: best.ckpt is of another model than config.yaml: only one of them has {min(differing)}"
        )
    model.load_state_dict(weights, strict=False)


@torch.no_grad()
def _require_same_predictions(model: nn.Module, jets: JetBatch, path: Path) -> None:
    """Refuse a model that gives other logits than the test did, so that its figures would be those of another."""
    tested = Predictions.load(path)
    place = {row: i for i, row in enumerate(tested.index.tolist())}
    rows = jets.index.tolist()
    if absent := [row for row in rows if row not in place]:
        raise ValueError(f"{path}: has no row {absent[0]} of the test split of config.yaml; test the run again")
    expected = torch.from_numpy(tested.logits[[place[row] for row in rows]])
    inputs = (jets.features, jets.four_momenta, jets.mask)
    found = model(*inputs, jets.context) if jets.context.shape[1] else model(*inputs)
    deviation = ((found - expected).abs().max() / expected.abs().max().clamp(min=1)).item()
    if not deviation < PREDICTION_TOLERANCE:
        raise ValueError(
            f"{path}: best.ckpt and config.yaml give other logits for these jets, by {deviation:.1e} of the largest; "
            "the figures of the report are not those of these weights: test the run again with train.py test"
        )


def _read(path: Path, parse: Callable[[str], Any], remedy: str) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {remedy}")
    try:
        return parse(path.read_text())
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: is damaged ({error}); {remedy}") from error


def _first_rows(split: dict[str, Any], layout: Description | None) -> tuple[Path, tuple[int, int]]:
    path, (start, stop) = next(iter(Split(**split).ranges(layout).items()))
    return path, (start, min(start + READ_ROWS, stop))


def _measure_inputs(
    data: dict[str, Any], table: FeatureTable, context: ContextTable, layout: Description | None
) -> dict[str, Any] | None:
    """The ranges of the first training jets of each file; None, with a warning, if the files are not there any more."""
    found = SplitTables("train")
    try:
        ranges = Split(**data["train"]).ranges(layout)
        trained = sum(stop - start for start, stop in ranges.values()) * (data.get("train_fraction") or 1)
        most = max(1, int(min(RANGE_ROWS, data.get("train_jets") or trained) // len(ranges)))
        for path, (start, stop) in ranges.items():
            found.open(path, (start, min(start + most, stop)), layout, verify=None)
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


def _first_jets(split: dict[str, Any], layout: Description | None) -> tuple[JetTable, int]:
    """The first jets of a split, and the number of rows of the files before theirs."""
    first_index = 0
    for path, (start, stop) in Split(**split).ranges(layout).items():
        if start == stop:
            continue
        jets = read_jets(path, rows=(start, min(start + READ_ROWS, stop)), layout=layout)
        if len(jets):
            return jets, first_index
        first_index += count_rows(path, layout)
    raise ValueError(f"{', '.join(map(str, split['files']))}: hold no jets of the test or validation split")


def _golden_rows(jets: JetTable) -> np.ndarray:
    """The first jets that are short enough for a folder."""
    longest = math.isqrt(MAX_PAIRS // GOLDEN_JETS)
    rows = np.flatnonzero(jets.counts <= longest)[:GOLDEN_JETS]
    if not len(rows):
        raise ValueError(f"the first {len(jets)} jets have more than {longest} particles, too many for a folder")
    return rows
