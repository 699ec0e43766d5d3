"""The table of all models: what the registry knows of each, and what a model built of it says."""

import sys
from typing import NamedTuple, get_args

import rich.box
from rich.console import Console
from rich.table import Column, Table
from torch import nn

from zoo.model import declared
from zoo.registry import ModelFacts, Sees, list_models, model_facts
from zoo.report.tables import markdown_table

#: Features of a particle or an object with which parameters are counted, and classes.
NUM_FEATURES: dict[Sees, int] = {"jets": 7, "events": 12}
NUM_CLASSES = 2

#: Width of a line that is not for a terminal, and of all columns but the name.
_WIDE, _OTHERS = 200, 54

HEADINGS = ("name", "paper", "what sets it apart", "parameters", "unchanged by")

#: Symmetries, the larger before those that it holds -> how they are called.
_TITLES = (
    ({"rotation", "boost", "beam rotation", "beam boost"}, "Lorentz transformations"),
    ({"rotation", "beam rotation"}, "rotations"),
    ({"beam rotation", "beam boost"}, "rotations about the beam and boosts along it"),
    ({"beam rotation"}, "rotations about the beam"),
    ({"beam boost"}, "boosts along the beam"),
    ({"collinear splitting"}, "collinear splittings"),
    ({"soft emission"}, "soft emissions"),
)


class ModelRow(NamedTuple):
    """What the table says of a model."""

    facts: ModelFacts
    parameters: int  #: with `NUM_FEATURES` and `NUM_CLASSES`
    unchanged_by: str  #: beside what every model promises


def model_rows(sees: Sees | None = None) -> list[ModelRow]:
    """All models, or those that see jets or events, by name.

    Example:
        >>> next(row.unchanged_by for row in model_rows("jets") if row.facts.name == "egnn")
        'rotations'
    """
    known = [model_facts(name) for name in list_models()]
    return [_row(facts) for facts in known if sees in (None, facts.sees)]


def show_models(sees: Sees | None = None, *, markdown: bool = False, console: Console | None = None) -> None:
    """Print the models with paper, size and symmetries.

    Args:
        sees: only those that see ``jets`` or ``events``.
        markdown: as the tables of ``docs/models.md``.
        console: where to print; not used for Markdown.
    """
    if markdown:
        print("\n\n".join(models_markdown(kind) for kind in ([sees] if sees else get_args(Sees))))
        return
    # what reads a pipe finds every row on a line of its own
    console = console or Console(width=None if sys.stdout.isatty() else _WIDE)
    for kind in [sees] if sees else get_args(Sees):
        name, paper, _, parameters, unchanged_by = HEADINGS
        table = Table(
            Column(name, overflow="fold", max_width=max(26, console.width - _OTHERS)),
            Column(paper, no_wrap=True),
            Column(parameters, no_wrap=True, justify="right"),
            unchanged_by,
            box=rich.box.SIMPLE_HEAD,
            show_edge=False,
            padding=(0, 1, 0, 0),
            title=f"Models of {kind}, with {NUM_FEATURES[kind]} features and {NUM_CLASSES} classes",
        )
        for row in model_rows(kind):
            table.add_row(row.facts.name, row.facts.paper.id, *_further(row)[1:])
        console.print(table)


def models_markdown(sees: Sees) -> str:
    """The table of the models that see jets or events as Markdown."""
    return markdown_table(
        HEADINGS, [(f"`{row.facts.name}`", paper_link(row.facts.paper.id), *_further(row)) for row in model_rows(sees)]
    )


def paper_link(name: str) -> str:
    """A link to a paper of the arXiv; any other name as it is.

    Example:
        >>> paper_link("arXiv:2201.08187"), paper_link("unpublished")
        ('[2201.08187](https://arxiv.org/abs/2201.08187)', 'unpublished')
    """
    number = name.removeprefix("arXiv:")
    return name if number == name else f"[{number}](https://arxiv.org/abs/{number})"


def symmetries_text(model: nn.Module) -> str:
    """What a model promises to be unchanged by, beside what every model promises, in words."""
    left, words = set(declared(model).symmetries), []
    for symmetries, title in _TITLES:
        if symmetries <= left:
            left -= symmetries
            words.append(title)
    beams = declared(model).beams
    with_beams = " of jet and beams" if beams is not None and len(beams) and words else ""
    return ", ".join([*words, *sorted(left)]) + with_beams


def _row(facts: ModelFacts) -> ModelRow:
    model = facts.builder(input_dim=NUM_FEATURES[facts.sees], num_classes=NUM_CLASSES)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return ModelRow(facts, parameters, symmetries_text(model))


def _further(row: ModelRow) -> tuple[str, str, str]:
    return row.facts.variant, f"{row.parameters:,}", row.unchanged_by
