"""The report of one run.

The folder ``report/`` of a run holds ``metrics.json``, ``predictions.arrow``, each plot as PNG and PDF, and
``README.md``. They replace an older report together, ``metrics.json`` last: if it is there, the report is complete.
"""

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import zoo
from zoo.files import write_together
from zoo.limits import parse_yaml
from zoo.report.drawings import caption, draw_training, read_history
from zoo.report.figures import plain
from zoo.report.files import make_folder, read_text
from zoo.report.findings import Findings
from zoo.report.pictures import render
from zoo.report.tables import markdown_table

VERSION = 1

#: Formats of the reports of tasks without classes.
TASK_FORMATS = ("zoo-task-report", "zoo-pretraining-report")


def write_report(
    folder: Path,
    findings: Findings,
    *,
    history: Path | None = None,
    config: Path | None = None,
    facts: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the whole report of a run; everything is computed before the first file is touched.

    Args:
        folder: created where needed; an older report in it is replaced.
        findings: what the task reports about the jets that it was judged on.
        history: ``metrics.csv`` of a training, for its curves.
        config: YAML file of the run, shown on the page.
        facts: how the run was made (command, seed, wall time, ...), shown on the page.

    Returns:
        The contents of ``metrics.json``; its key ``metrics`` holds every metric with its error.

    Raises:
        ValueError: if the history or configuration cannot be read.
        FileNotFoundError: if the history or configuration is missing.
    """
    settings_text = None if config is None else read_text(Path(config), "configuration")
    document = {
        "format": findings.document["format"],
        "version": VERSION,
        "title": findings.title,
        **plain(findings.document),
        "facts": plain(facts or {}),
        "settings": None if settings_text is None else _parse_settings(Path(config), settings_text),
        "versions": _versions(),
    }
    drawings = dict(findings.drawings)
    logged = {} if history is None else read_history(Path(history))
    if logged:
        text = caption("training", document["rows"])
        drawings["training"] = text, lambda figure: draw_training(figure, logged, findings.title)
    pictures = {name: render(draw) for name, (_, draw) in drawings.items()}
    files = {f"{name}.{kind}": content for name, kinds in pictures.items() for kind, content in kinds.items()}
    captions = {name: text for name, (text, _) in drawings.items()}
    files["README.md"] = _page(findings, document, captions, settings_text).encode()
    files |= findings.files
    files["metrics.json"] = (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()
    make_folder(Path(folder))
    write_together(Path(folder), files)
    return document


def _page(findings: Findings, document: dict[str, Any], captions: dict[str, str], settings: str | None) -> str:
    """The report as Markdown; without a date, so that the same run gives the same page."""
    pictures = [
        f"![{name.replace('_', ' ')}]({name}.png)\n\n{caption} ([PDF]({name}.pdf))"
        for name, caption in captions.items()
    ]
    parts = [
        f"# {findings.title}",
        findings.opening,
        findings.table,
        findings.note,
        *(["## Pictures", *pictures] if pictures else []),
        "## How it was made",
        markdown_table(["", ""], [*document["facts"].items(), *document["versions"].items()]),
        *([findings.closing] if findings.closing else []),
    ]
    if settings is not None:
        parts += ["## Settings", f"```yaml\n{settings.strip()}\n```"]
    return "\n\n".join(parts) + "\n"


def _versions() -> dict[str, str]:
    """Versions of what the metrics depend on; a checkout on the path is not an installed package, nor may torch be."""
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
    except ValueError as error:
        raise ValueError(f"{path}: {error}; name the configuration of the run") from error
