"""The report of one run.

The folder ``report/`` of a run holds ``metrics.json``, ``predictions.arrow``, each picture as PNG and PDF, and
``README.md``. They replace an older report together, ``metrics.json`` last: where it lies, the report is complete.
"""

import importlib.metadata
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import zoo
from zoo.files import write_together
from zoo.limits import parse_yaml
from zoo.metrics import SIGNAL_EFFICIENCIES
from zoo.report.drawings import caption, draw_pictures, draw_training, read_history
from zoo.report.figures import FEW_JETS, count_jets, figures_of, plain
from zoo.report.files import make_folder, read_text
from zoo.report.pictures import render
from zoo.report.predictions import Predictions
from zoo.report.tables import figures_table, markdown_table, plain_figures_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


FORMAT = "zoo-report"
PRETRAINING_FORMAT = "zoo-pretraining-report"
VERSION = 1


def write_report(
    folder: Path,
    predictions: Predictions,
    *,
    title: str,
    history: Path | None = None,
    config: Path | None = None,
    facts: dict[str, Any] | None = None,
    background: int = 0,
    signal_efficiencies: Sequence[float] = SIGNAL_EFFICIENCIES,
) -> dict[str, Any]:
    """Write the whole report of a tested run; everything is computed before the first file is touched.

    Args:
        folder: created where needed; an older report in it is replaced.
        predictions: of the test split; every jet needs its label.
        title: name of the model or run; the seeds of one training share it.
        history: ``metrics.csv`` of a training, for its curves.
        config: YAML file of the run, shown on the page.
        facts: how it was made (command, seed, wall time, ...), shown on the page.
        background: the background class.
        signal_efficiencies: at which the background rejection is quoted.

    Returns:
        The contents of ``metrics.json``; its key ``metrics`` holds every figure with error and counts.

    Raises:
        ValueError: on NaN logits, a class without jets, or an unreadable history or configuration.
        FileNotFoundError: where history or configuration is missing.
    """
    folder = Path(folder)
    settings_text = None if config is None else read_text(Path(config), "configuration")
    document = {
        "format": FORMAT,
        "version": VERSION,
        "title": title,
        "classes": list(predictions.classes),
        "background": predictions.classes[background],
        "rows": predictions.rows,
        "jets": count_jets(predictions.label, predictions.classes),
        "metrics": figures_of(predictions, background, signal_efficiencies),
        "facts": plain(facts or {}),
        "settings": None if settings_text is None else _parse_settings(Path(config), settings_text),
        "versions": _versions(),
    }
    if negative := int((predictions.weight < 0).sum()):
        document["negative_weights"] = negative
    if predictions.sources:
        document["sources"] = count_jets(predictions.source, predictions.sources)
    history = None if history is None else Path(history)
    pictures = draw_pictures(predictions, title, background, history, signal_efficiencies)
    files = {f"{name}.{kind}": content for name, kinds in pictures.items() for kind, content in kinds.items()}
    files["README.md"] = _page(document, list(pictures), settings_text).encode()
    files["predictions.arrow"] = predictions.to_bytes()
    files["metrics.json"] = (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()
    make_folder(folder)
    write_together(folder, files)
    return document


def write_training_report(
    folder: Path,
    *,
    title: str,
    jets: int,
    rows: str,
    figures: dict[str, dict[str, Any]],
    drawings: dict[str, tuple[str, Callable[["Figure"], None]]],
    history: Path | None,
    config: Path | None,
    facts: dict[str, Any],
) -> dict[str, Any]:
    """Write the report of a training that judges no classes; everything is computed before the first file is touched.

    Args:
        folder: created where needed; an older report in it is replaced.
        title: name of the model or run.
        jets: number of validation jets.
        rows: what they are called, such as ``jets`` or ``events``.
        figures: by name, each with ``value`` and ``error`` (None where it has none).
        drawings: by name of the picture, caption and what draws it.
        history: ``metrics.csv`` of a training, for its curves.
        config: YAML file of the run, shown on the page.
        facts: how it was made, shown on the page.

    Returns:
        The contents of ``metrics.json``.

    Raises:
        ValueError: on an unreadable history or configuration.
    """
    settings_text = None if config is None else read_text(Path(config), "configuration")
    document = {
        "format": PRETRAINING_FORMAT,
        "version": VERSION,
        "title": title,
        "jets": jets,
        "rows": rows,
        "metrics": plain(figures),
        "facts": plain(facts),
        "settings": None if settings_text is None else _parse_settings(Path(config), settings_text),
        "versions": _versions(),
    }
    captions = {name: caption for name, (caption, _) in drawings.items()}
    draw = {name: function for name, (_, function) in drawings.items()}
    logged = {} if history is None else read_history(Path(history))
    if logged:
        captions["training"] = caption("training", rows)
        draw["training"] = lambda figure: draw_training(figure, logged, title)
    pictures = {name: render(function) for name, function in draw.items()}
    files = {f"{name}.{kind}": content for name, kinds in pictures.items() for kind, content in kinds.items()}
    files["README.md"] = _training_page(document, captions, settings_text).encode()
    files["metrics.json"] = (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()
    make_folder(Path(folder))
    write_together(Path(folder), files)
    return document


def _page(document: dict[str, Any], pictures: Sequence[str], settings: str | None) -> str:
    """The report as Markdown; without a date, so that the same run gives the same page."""
    rows = document["rows"]
    counts, sources = (
        ", ".join(f"{count:,} {name}" for name, count in document.get(key, {}).items()) for key in ("jets", "sources")
    )
    parts = [
        f"# {document['title']}",
        f"Tested on {sum(document['jets'].values()):,} {rows} ({counts}); background is {document['background']}."
        + (f" They come from {sources}." if sources else ""),
        figures_table(document["metrics"], rows),
        f"Errors are one standard deviation from the number of test {rows}: DeLong for the AUC, Clopper-Pearson for "
        "the others. "
        + (
            f"The weights of {document['negative_weights']:,} {rows} are negative: figures are of signed sums of "
            "weights, and the errors of efficiencies are one Gaussian standard deviation of these. "
            if "negative_weights" in document
            else ""
        )
        + "They do not hold the spread between trainings. `>` marks a lower bound: no background passed; "
        f"brackets hold the interval where fewer than {FEW_JETS} pass.",
        "## Pictures",
        *[f"![{name.replace('_', ' ')}]({name}.png)\n\n{caption(name, rows)} ([PDF]({name}.pdf))" for name in pictures],
        "## How it was made",
        markdown_table(["", ""], [*document["facts"].items(), *document["versions"].items()]),
        f"Predictions: `predictions.arrow` (logits, label, weight, index{', source' if sources else ''}). "
        "Figures: `metrics.json`.",
    ]
    if settings is not None:
        parts += ["## Settings", f"```yaml\n{settings.strip()}\n```"]
    return "\n\n".join(parts) + "\n"


def _training_page(document: dict[str, Any], captions: dict[str, str], settings: str | None) -> str:
    """The report of a training that judges no classes as Markdown."""
    parts = [
        f"# {document['title']}",
        f"Validated on {document['jets']:,} {document['rows']}.",
        plain_figures_table(document["metrics"]),
        f"Errors are one standard deviation from the number of {document['rows']}.",
        "## Pictures",
        *[f"![{name}]({name}.png)\n\n{caption} ([PDF]({name}.pdf))" for name, caption in captions.items()],
        "## How it was made",
        markdown_table(["", ""], [*document["facts"].items(), *document["versions"].items()]),
    ]
    if settings is not None:
        parts += ["## Settings", f"```yaml\n{settings.strip()}\n```"]
    return "\n\n".join(parts) + "\n"


def _versions() -> dict[str, str]:
    """Those of what the figures depend on; a checkout on the path is no installed package, nor may torch be one."""
    versions = {"zoo": zoo.__version__}
    for name in ("torch", "numpy"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not known"
    return versions


def _parse_settings(path: Path, text: str) -> Any:
    try:
        return plain(parse_yaml(text))
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path} is no YAML ({error}): name the configuration of the run") from error
