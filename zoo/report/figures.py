"""Metrics and curves of predictions, as plain numbers."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo.metrics import (
    MINIMUM_PASS,
    RocCurve,
    pair_score,
    roc_curve,
    significance_improvement,
    tagging_metrics,
)
from zoo.report.predictions import Predictions

#: Curves are dotted where fewer background jets than this pass the cut, and end where none does.
FEW_JETS = 10


def figures_of(
    predictions: Predictions, background: int, signal_efficiencies: Sequence[float]
) -> dict[str, dict[str, Any]]:
    """Every metric in plain JSON: value, error, counts."""
    tested = f"{len(predictions)} {predictions.rows}"
    if len(predictions) and predictions.label.min() < 0:
        unknown = int((predictions.label < 0).sum())
        raise ValueError(f"{unknown} of {tested} have no label: a report needs the labels of all")
    bad = predictions.index[~np.isfinite(predictions.logits).all(axis=1)]
    if len(bad):
        raise ValueError(
            f"logits of {len(bad)} of {tested} are NaN or infinite (index {bad[:5].tolist()}): look at "
            f"these {predictions.rows} of the input and at the loss of the training"
        )
    signal = 1 - background if len(predictions.classes) == 2 else 1
    judged = tagging_metrics(
        predictions.logits,
        predictions.label,
        predictions.weight,
        signal=signal,
        background=background,
        classes=predictions.classes,
        signal_efficiencies=signal_efficiencies,
    )
    figures = {name: plain(dataclasses.asdict(figure)) for name, figure in judged.items()}
    for name, curve in curves_of(predictions, background).items():
        suffix = f"_{name}" if len(predictions.classes) > 2 else ""
        if effective_background(curve) >= MINIMUM_PASS:
            best = significance_improvement(curve)
            figures[f"significance_improvement{suffix}"] = plain(dataclasses.asdict(best))
    return figures


def curves_of(predictions: Predictions, background: int) -> dict[str, RocCurve]:
    """ROC curve of each signal class against the background."""
    curves = {}
    for signal, name in enumerate(predictions.classes):
        if signal != background:
            chosen = np.isin(predictions.label, (signal, background))
            score = pair_score(predictions.logits[chosen], signal, background)
            curves[name] = roc_curve(score, predictions.label[chosen] == signal, predictions.weight[chosen])
    return curves


def count_jets(numbers: np.ndarray, names: Sequence[str]) -> dict[str, int]:
    """Number of jets of each class."""
    return {name: int((numbers == number).sum()) for number, name in enumerate(names)}


def effective_background(curve: RocCurve) -> float:
    """Number of unweighted background jets with the same statistical error."""
    return curve.background_pass[-1].item() ** 2 / curve.background_squares[-1].item()


def plain(value: Any) -> Any:
    """The same as JSON knows it: NaN and infinity become null, and what JSON cannot hold becomes text."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
