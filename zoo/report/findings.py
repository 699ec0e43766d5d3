"""What a task reports about the jets that it was judged on: the sections of a report."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zoo.report.tables import print_figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Name of each plot -> its caption and the function that draws it.
Drawings = dict[str, tuple[str, Callable[["Figure"], None]]]


@dataclasses.dataclass(frozen=True, eq=False)
class Findings:
    """The sections of a report; `zoo.report.write_report` adds how the weights were made.

    Args:
        title: name of the model or run; all seeds of one training share it.
        document: what ``metrics.json`` says about the jets: ``format``, ``rows`` (``jets`` or ``events``), ``jets``
            (their number, or that of each class), ``metrics`` (by name, each with ``value`` and ``error``), and what
            else is known.
        opening: what was judged, the first line of the page.
        table: the metrics in Markdown.
        note: what the errors are.
        drawings: the plots, except that of the training.
        files: further files of the report, by name.
        closing: where predictions and numbers are, the last line before the settings; empty: no such line.
        show: function that prints the metrics of ``metrics.json`` on the terminal.
    """

    title: str
    document: dict[str, Any]
    opening: str
    table: str
    note: str
    drawings: Drawings
    files: dict[str, bytes] = dataclasses.field(default_factory=dict)
    closing: str = ""
    show: Callable[[dict[str, Any]], None] = print_figures
