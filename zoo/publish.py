"""A tested run becomes a pretrained folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from zoo.card import write_card
from zoo.checkpoints import read_model_weights
from zoo.data.batch import JetBatch, collate, gather
from zoo.data.classes import merge_classes
from zoo.data.context import ContextTable
from zoo.data.datamodule import Split, find_context, find_features, read_description
from zoo.data.datasets import describe_dataset
from zoo.data.features import FeatureTable
from zoo.data.readers import Description, read_jets
from zoo.hub import PretrainedConfig, save_pretrained
from zoo.pretraining import read_backbone
from zoo.registry import create_model

#: Jets whose logits are stored with the weights.
GOLDEN_JETS = 8

#: Rows that they are taken from, of which some may not be selected.
GOLDEN_ROWS = 1024


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
        ValueError: if the model is not one of `zoo.list_models`, such as boosted trees, or a file is damaged.
    """
    run, out = Path(run), Path(out)
    settings = _read(run / "config.yaml", yaml.safe_load, "train it with train.py")
    is_tagger = settings.get("task", "tagging") == "tagging"
    remedy = f"{'test' if is_tagger else 'validate'} it with train.py {'test' if is_tagger else 'validate'}"
    report = _read(run / "report" / "metrics.json", json.loads, remedy)
    try:
        data, builder = settings["data"], settings["model"]["model"]["class_path"]
    except (KeyError, TypeError):
        raise ValueError(
            f"{run / 'config.yaml'}: has no 'data', or no network under model.model.class_path; boosted trees "
            "cannot be published, give the run folder of a training with train.py"
        ) from None
    layout = read_description(data.get("layout"), data.get("weaver_yaml"), data.get("classes"))
    table, context = find_features(data["features"], layout), find_context(data.get("context"))
    dataset = layout or describe_dataset(data["dataset"])
    classes = merge_classes(data.get("merge"), dataset.classes).names
    name = builder.rpartition(".")[2]
    try:
        model = create_model(name, input_dim=table.input_dim, num_classes=len(classes))
    except KeyError as error:
        raise ValueError(f"{run / 'config.yaml'}: model.model: {error.args[0]}; only those can be published") from None
    if is_tagger:
        model.load_state_dict(read_model_weights(run / "checkpoints" / "best.ckpt"))
    else:
        model.load_state_dict(read_backbone(run), strict=False)  # the folder holds nothing else
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
    )
    jets = _first_jets(data["test" if is_tagger else "val"], table, context, layout)
    card = write_card(out.name, config)
    save_pretrained(
        out, model, config, jets.four_momenta, jets.mask, card, features=jets.features, context=jets.context
    )


def _read(path: Path, parse: Callable[[str], Any], remedy: str) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {remedy}")
    try:
        return parse(path.read_text())
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: is damaged ({error}); {remedy}") from error


def _first_jets(
    split: dict[str, Any], table: FeatureTable, context: ContextTable, layout: Description | None
) -> JetBatch:
    path, (start, stop) = next(iter(Split(**split).ranges(layout).items()))
    jets = read_jets(path, rows=(start, min(start + GOLDEN_ROWS, stop)), layout=layout)
    rows = np.arange(min(len(jets), GOLDEN_JETS))
    return collate(gather(jets, rows, table.columns, context.fields), table, context)
