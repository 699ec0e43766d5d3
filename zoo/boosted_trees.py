"""Boosted decision trees on objects or on substructure, which the networks have to beat (extra ``trees``).

References:
    LightGBM: A Highly Efficient Gradient Boosting Decision Tree (2017), Advances in Neural Information Processing
    Systems 30: the trees.
    Attention to the strengths of physical interactions (2022), arXiv:2211.05143: as baseline for events, with and
    without pairs. The settings below are not its.
"""

import csv
import dataclasses
import io
import time
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import yaml
from torch import Tensor

from zoo.baselines.trees import OF_JETS, TITLES, Inputs, flatten, input_names
from zoo.data.batch import JetBatch
from zoo.data.datamodule import JetDataModule
from zoo.files import atomic_write, only_one
from zoo.limits import parse_yaml
from zoo.metrics import SIGNAL_EFFICIENCIES, background_class
from zoo.old_configs import renew_settings
from zoo.report import Predictions, judge_classes, print_table, write_report
from zoo.report.pictures import SIGNAL_COLOURS, labelled_axes, render

if TYPE_CHECKING:
    from lightgbm import Booster
    from matplotlib.figure import Figure

#: Settings of LightGBM.
PARAMETERS = {
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 20,
    "feature_fraction": 0.8,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}
#: For many observables that are nearly redundant: many weak trees, with random cuts. After 6,055 jets their
#: validation AUC is .9791, with the settings above .9780.
OF_SUBJETS = {
    "learning_rate": 0.03,
    "num_leaves": 6,
    "feature_fraction": 0.3,
    "lambda_l2": 5.0,
    "extra_trees": True,
}
#: Maximum number of trees per class, and how many may follow the lowest validation loss before the training ends.
MAX_TREES = 2000
PATIENCE = 50

#: Number of inputs in the plot of the importances.
SHOWN_INPUTS = 20


@dataclasses.dataclass(frozen=True, eq=False)
class EventTable:
    """Events as rows of numbers.

    Shapes:
        inputs (event, input) float32, NaN where an object is absent; label, weight, index and source (event,), as of
        `zoo.data.batch.JetBatch`.
    """

    inputs: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    index: np.ndarray
    source: np.ndarray


def train_boosted_trees(
    config: Path,
    run_folder: Path,
    *,
    inputs: Inputs = "objects",
    seed: int | None = None,
    train_jets: int | None = None,
) -> None:
    """Train LightGBM on the data of a configuration, and write what a tested run of a network writes.

    The number of trees is that with the lowest loss on the validation split. The run folder gets ``model.txt`` (the
    trees as text), ``config.yaml``, ``metrics.csv``, ``importances.png`` and ``.pdf``, and ``report/``.

    Args:
        config: YAML file as for ``zoo fit``, of which ``data``, ``seed_everything``, ``model.signal`` and
            ``model.signal_efficiencies`` are read.
        run_folder: folder to write, which holds no run yet.
        inputs: what the trees see: the ``objects``; these and the kinematics of their ``pairs`` (`pair_features`);
            the `substructure` of jets; or substructure with the shapes of their ``subjets``.
        seed: seed of the trees; None: that of the configuration.
        train_jets: number of rows of the split to train on, the first of each file, instead of the fraction in the
            configuration; None: that fraction.

    Raises:
        ModuleNotFoundError: if LightGBM is not installed.
        ValueError: if the configuration has no data, a split is missing, the folder holds a run, weights are negative,
            or the substructure of events is requested.
    """
    lightgbm = import_lightgbm()
    with only_one(run_folder, "training"):
        _train(lightgbm, config, run_folder, inputs, seed, train_jets)


def _train(
    lightgbm: ModuleType, config: Path, run_folder: Path, inputs: Inputs, seed: int | None, train_jets: int | None
) -> None:
    """See `train_boosted_trees`."""
    if (run_folder / "config.yaml").exists():
        raise ValueError(f"run_folder {run_folder}: holds a run already; give another name or delete the folder")
    data, settings, judged = _read_config(config, seed, train_jets)
    parameters = PARAMETERS | (OF_SUBJETS if inputs == "subjets" else {})
    background = background_class(len(data.classes), judged["signal"], None)
    trees = {"class_path": "lightgbm", "inputs": inputs, **parameters}
    settings |= {"run_folder": str(run_folder), "model": trees | judged}
    for stage in ("fit", "validate", "test"):
        data.setup(stage)
    names = names_of_inputs(data, inputs)
    train, val = (_read_events(loader, inputs) for loader in (data.train_dataloader(), data.val_dataloader()))
    for events in (train, val):
        if (events.weight < 0).any():
            raise ValueError(
                f"{config}: {(events.weight < 0).sum()} weights are negative, of which no split of a tree has a gain; "
                "train on files without them, or leave the weight out of the layout"
            )
    start = time.monotonic()
    parameters |= {"seed": settings["seed_everything"]}
    booster, losses = _boost(lightgbm, parameters, train, val, names, len(data.classes))
    minutes = (time.monotonic() - start) / 60
    predictions = _predict(booster, _read_events(data.test_dataloader(), inputs), data)

    importances = booster.feature_importance("gain")
    picture = render(lambda figure: _draw_importances(figure, names, importances))
    files = {f"importances.{kind}": content for kind, content in picture.items()}
    files |= {"model.txt": booster.model_to_string().encode(), "metrics.csv": _history(losses)}
    files |= {"config.yaml": yaml.safe_dump(settings, sort_keys=False).encode()}
    for name, content in files.items():  # the configuration, which marks a run, comes last
        with atomic_write(run_folder / name) as file:
            file.write(content)
    facts = {
        "seed": settings["seed_everything"],
        "trees": booster.num_trees(),
        "inputs": len(names),
        "training_minutes": round(minutes, 2),
    }
    metrics = write_report(
        run_folder / "report",
        judge_classes(
            predictions, TITLES[inputs], background=background, signal_efficiencies=judged["signal_efficiencies"]
        ),
        history=run_folder / "metrics.csv",
        config=run_folder / "config.yaml",
        facts=facts,
    )
    print_table(metrics)
    print(f"report: {run_folder / 'report'}")


def names_of_inputs(data: JetDataModule, inputs: Inputs) -> list[str]:
    """Names of what the trees see.

    Raises:
        ValueError: if the substructure of events is requested.
    """
    if inputs in OF_JETS and not data.feature_table.is_relative_to_jet:
        raise ValueError("substructure is of jets; the features of this config are of events, so leave it out")
    return input_names(inputs, data.feature_table.names, data.context_table.names)


def import_lightgbm() -> ModuleType:
    """LightGBM.

    Raises:
        ModuleNotFoundError: if LightGBM, or its OpenMP library, is not installed; the message says how to install it.
    """
    try:
        import lightgbm
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("boosted trees need LightGBM: pip install 'hepzoo[trees]'") from error
    except OSError as error:
        raise ModuleNotFoundError(f"LightGBM needs the system's OpenMP ({error}): apt install libgomp1") from error
    return lightgbm


def _read_config(
    path: Path, seed: int | None, train_jets: int | None
) -> tuple[JetDataModule, dict[str, Any], dict[str, Any]]:
    """The data module of a configuration, the part of the file it uses, and the signal and where it is judged."""
    from jsonargparse import ArgumentError, ArgumentParser

    try:
        values = renew_settings(parse_yaml(path.read_text()))
    except ValueError as error:
        raise ValueError(f"{path}: {error}; correct the file") from None
    if not isinstance(values, dict) or not isinstance(values.get("data"), dict):
        raise ValueError(f"{path}: has no 'data', the section that says which events to read; give a config of zoo fit")
    seed = values.get("seed_everything", 1) if seed is None else seed
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ValueError(f"{path}: seed_everything must be a number of 0 or more, not {seed!r}")
    part = {} if train_jets is None else {"train_jets": train_jets, "train_fraction": None}
    settings = values["data"] | part
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(JetDataModule, "data")
    try:
        parsed = parser.parse_object({"data": settings | {"seed": seed}})
    except ArgumentError as error:
        raise ValueError(f"{path}: {error}") from None
    return parser.instantiate(parsed).data, {"seed_everything": seed, "data": settings}, _judged(path, values)


def _judged(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Signal class and signal efficiencies of a configuration; if it has none, those of `Classification`."""
    model = config.get("model") if isinstance(config.get("model"), dict) else {}
    model = model.get("init_args", model)
    signal = model.get("signal", 1)
    if not isinstance(signal, int) or isinstance(signal, bool):
        raise ValueError(f"{path}: model.signal must be the number of a class, not {signal!r}")
    return {"signal": signal, "signal_efficiencies": list(model.get("signal_efficiencies") or SIGNAL_EFFICIENCIES)}


def _read_events(batches: Any, inputs: Inputs) -> EventTable:
    parts = [(_flatten(batch, inputs), batch.label, batch.weight, batch.index, batch.source) for batch in batches]
    return EventTable(*(torch.cat(columns).numpy() for columns in zip(*parts, strict=True)))


def _flatten(batch: JetBatch, inputs: Inputs) -> Tensor:
    return flatten(inputs, batch.features, batch.four_momenta, batch.mask, batch.context)


def _boost(
    lightgbm: ModuleType,
    parameters: dict[str, Any],
    train: EventTable,
    val: EventTable,
    names: list[str],
    num_classes: int,
) -> tuple["Booster", list[float]]:
    """The trees up to the lowest validation loss, and that loss after each of them."""
    objective = {"objective": "binary", "metric": "binary_logloss"}
    if num_classes > 2:
        objective = {"objective": "multiclass", "metric": "multi_logloss", "num_class": num_classes}
    train_set, val_set = (
        lightgbm.Dataset(events.inputs, events.label, weight=events.weight, feature_name=names, free_raw_data=False)
        for events in (train, val)
    )
    history: dict[str, dict[str, list[float]]] = {}
    booster = lightgbm.train(
        parameters | objective,
        train_set,
        num_boost_round=MAX_TREES,
        valid_sets=[val_set],
        valid_names=["val"],
        callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False), lightgbm.record_evaluation(history)],
    )
    best = lightgbm.Booster(model_str=booster.model_to_string(num_iteration=booster.best_iteration))
    return best, history["val"][objective["metric"]]


def _predict(booster: "Booster", events: EventTable, data: JetDataModule) -> Predictions:
    logits = booster.predict(events.inputs, raw_score=True)
    if logits.ndim == 1:  # for two classes, the log-odds of the second
        logits = np.stack([np.zeros_like(logits), logits], axis=1)
    classes = data.merged_classes
    columns = [logits, events.label, events.weight, events.index, classes.names]
    merged = (events.source, classes.sources) if classes.is_merged else (None, ())
    return Predictions(*columns, *merged, data.description.rows, data.observed("test", events.index))


def _history(losses: list[float]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["step", "val_loss"])
    writer.writerows(enumerate(losses))
    return text.getvalue().encode()


def _draw_importances(figure: "Figure", names: list[str], importances: np.ndarray) -> None:
    order = np.argsort(importances)[-SHOWN_INPUTS:]
    heading = (f"{len(order)} of {len(names)} inputs", "LightGBM")
    axes = labelled_axes(figure, heading, "Part of the gain of all splits", "")
    axes.barh([names[place] for place in order], importances[order] / importances.sum(), color=SIGNAL_COLOURS[0])
    axes.tick_params(axis="y", labelsize="x-small")
    axes.minorticks_off()
