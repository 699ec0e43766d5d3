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
from zoo.data.datamodule import Split, find_features, read_description
from zoo.data.datasets import describe_dataset
from zoo.data.features import FeatureTable
from zoo.data.readers import Description, read_jets
from zoo.hub import PretrainedConfig, save_pretrained
from zoo.registry import create_model

#: Jets whose logits are stored with the weights.
GOLDEN_JETS = 8

#: Rows that they are taken from, of which some may not be selected.
GOLDEN_ROWS = 1024


def publish_run(run: Path, out: Path, *, licence: str, paper: str) -> None:
    """Write the best checkpoint of a run, with its features and its tested figures, as a pretrained folder.

    Args:
        run: run folder of a training that was tested.
        out: folder to write; must not exist.
        licence: of the weights, such as ``MIT``.
        paper: of the architecture, such as ``arXiv:2201.08187``.

    Raises:
        FileNotFoundError: if the run has no configuration, report or checkpoint.
        FileExistsError: if ``out`` exists.
        ValueError: if the model is not one of `zoo.list_models`, or a file is damaged.
    """
    run, out = Path(run), Path(out)
    settings = _read(run / "config.yaml", yaml.safe_load, "train it with train.py")
    if settings.get("task", "tagging") != "tagging":
        raise ValueError(
            f"{run}: is a pretraining, whose read-out is untrained; fine-tune it and publish that, or take its "
            "backbone with zoo.pretraining.read_backbone"
        )
    report = _read(run / "report" / "metrics.json", json.loads, "test it with train.py test")
    data, builder = settings["data"], settings["model"]["model"]
    layout = read_description(data.get("layout"), data.get("weaver_yaml"), data.get("classes"))
    table = find_features(data["features"], layout)
    dataset = layout or describe_dataset(data["dataset"])
    name = builder["class_path"].rpartition(".")[2]
    try:
        model = create_model(name, input_dim=table.input_dim, num_classes=len(dataset.classes))
    except KeyError as error:
        raise ValueError(f"{run / 'config.yaml'}: model.model: {error.args[0]}; only those can be published") from None
    model.load_state_dict(read_model_weights(run / "checkpoints" / "best.ckpt"))
    config = PretrainedConfig(
        model=name,
        classes=list(dataset.classes),
        features=table.to_dict(),
        dataset=dataset.name,
        units=dataset.metadata["units"],
        metrics=report["metrics"],
        licence=licence,
        paper=paper,
        training={
            "command": "python train.py fit --config config.yaml",
            **{key: report[key] for key in ("settings", "facts", "versions", "jets")},
        },
    )
    jets = _first_jets(data["test"], table, layout)
    card = write_card(out.name, config)
    save_pretrained(out, model, config, jets.four_momenta, jets.mask, card, features=jets.features)


def _read(path: Path, parse: Callable[[str], Any], remedy: str) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {remedy}")
    try:
        return parse(path.read_text())
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: is damaged ({error}); {remedy}") from error


def _first_jets(split: dict[str, Any], table: FeatureTable, layout: Description | None) -> JetBatch:
    path, (start, stop) = next(iter(Split(**split).ranges(layout).items()))
    jets = read_jets(path, rows=(start, min(start + GOLDEN_ROWS, stop)), layout=layout)
    return collate(gather(jets, np.arange(min(len(jets), GOLDEN_JETS)), table.columns), table)
