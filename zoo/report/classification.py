"""The sections of a report on classification: what tests of taggers and of boosted trees share."""

from collections.abc import Sequence
from typing import Any

from zoo.metrics import SIGNAL_EFFICIENCIES
from zoo.report.drawings import draw_pictures
from zoo.report.figures import FEW_JETS, count_jets, figures_of
from zoo.report.findings import Findings
from zoo.report.predictions import Predictions
from zoo.report.tables import figures_table, print_table

FORMAT = "zoo-report"


def judge_classes(
    predictions: Predictions,
    title: str,
    *,
    background: int = 0,
    signal_efficiencies: Sequence[float] = SIGNAL_EFFICIENCIES,
) -> Findings:
    """The findings from the predictions of a test split.

    Args:
        predictions: predictions; every jet needs a label.
        title: name of the model or run.
        background: the background class.
        signal_efficiencies: efficiencies at which the background rejection is quoted.

    Raises:
        ValueError: on NaN logits, a jet without a label, or a class without jets.
    """
    document = {
        "format": FORMAT,
        "classes": list(predictions.classes),
        "background": predictions.classes[background],
        "rows": predictions.rows,
        "jets": count_jets(predictions.label, predictions.classes),
        "metrics": figures_of(predictions, background, signal_efficiencies),
    }
    if negative := int((predictions.weight < 0).sum()):
        document["negative_weights"] = negative
    if predictions.sources:
        document["sources"] = count_jets(predictions.source, predictions.sources)
    return Findings(
        title=title,
        document=document,
        opening=_opening(document),
        table=figures_table(document["metrics"], predictions.rows),
        note=_note(document),
        drawings=draw_pictures(predictions, title, background, signal_efficiencies),
        files={"predictions.arrow": predictions.to_bytes()},
        closing=f"Predictions: `predictions.arrow` (logits, label, weight, index"
        f"{', source' if predictions.sources else ''}). Metrics: `metrics.json`.",
        show=print_table,
    )


def _opening(document: dict[str, Any]) -> str:
    counts, sources = (
        ", ".join(f"{count:,} {name}" for name, count in document.get(key, {}).items()) for key in ("jets", "sources")
    )
    tested = f"Tested on {sum(document['jets'].values()):,} {document['rows']} ({counts})"
    return f"{tested}; background is {document['background']}." + (f" They come from {sources}." if sources else "")


def _note(document: dict[str, Any]) -> str:
    rows = document["rows"]
    signed = ""
    if negative := document.get("negative_weights"):
        signed = (
            f"The weights of {negative:,} {rows} are negative: metrics are of signed sums of weights, and the errors "
            "of efficiencies are one Gaussian standard deviation of these. "
        )
    return (
        f"Errors are one standard deviation from the number of test {rows}: DeLong for the AUC, Clopper-Pearson for "
        f"the others. {signed}They do not hold the spread between trainings. "
        f"`>` marks a lower bound: no background passed; brackets hold the interval where fewer than {FEW_JETS} pass."
    )
