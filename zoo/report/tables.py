"""Metrics as text: numbers with their errors, tables in Markdown and on the terminal."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from zoo.report.figures import FEW_JETS


def label_of(name: str) -> str:
    """The label of a metric in a table."""
    if name == "auc":
        return "AUC"
    for key, text in (("background_rejection_", "1/eB at eS = "), ("significance_improvement", "max. SIC")):
        if name.startswith(key):
            number, _, signal = name.removeprefix(key).partition("_")
            return f"{text}{number}" + (f" ({signal})" if signal else "")
    return name


def rounded(value: float, error: float | None, is_bound: bool = False) -> str:
    """Value and error with two significant digits of the error, never rounded before the decimal point.

    >>> rounded(2195.4, 173.2), rounded(0.97931, 0.00108), rounded(5432.1, None, is_bound=True)
    ('2195 ± 173', '0.9793 ± 0.0011', '> 5432')
    """
    if is_bound:
        return f"> {math.floor(value)}"
    if not error:
        return f"{value:.4g}"
    decimals = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"


def _value_text(figure: dict[str, Any]) -> str:
    """Value with its error, or with its interval if too few jets pass for a symmetric error."""
    if figure.get("n_pass", FEW_JETS) < FEW_JETS and not figure["is_bound"]:
        upper = "inf" if figure["upper"] is None else f"{figure['upper']:.0f}"  # with negative weights
        return f"{figure['value']:.0f} [{figure['lower']:.0f}, {upper}]"
    return rounded(figure["value"], figure["error"], figure.get("is_bound", False))


def _counts_text(figure: dict[str, Any], rows: str) -> str:
    if "n_background" in figure:
        return f"{figure['n_pass']:,.0f} of {figure['n_background']:,.0f} background {rows}"
    if "signal_efficiency" in figure:
        return f"{figure['n_pass']:,.0f} background {rows} at eS = {figure['signal_efficiency']:.3f}"
    return f"{figure['n_jets']:,.0f} {rows}"


def figures_table(metrics: dict[str, Any], rows: str = "jets") -> str:
    """The metrics of a report as a Markdown table, each with its error and the number of jets behind it."""
    lines = [[label_of(name), _value_text(figure), _counts_text(figure, rows)] for name, figure in metrics.items()]
    return markdown_table(["metric", "value", "rests on"], lines)


def plain_figures_table(metrics: dict[str, Any]) -> str:
    """The metrics of a training without classes as a Markdown table, each with its error."""
    rows = [[name, rounded(figure["value"], figure["error"])] for name, figure in metrics.items()]
    return markdown_table(["metric", "value"], rows)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table of plain texts and numbers."""
    cells = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in cells)


def print_table(metrics: dict[str, Any], console: Console | None = None) -> None:
    """Print the metrics of a report on the terminal.

    Args:
        metrics: return value of `zoo.report.write_report`, or the contents of a ``metrics.json``.
        console: where to print; by default standard output.
    """
    console = console or Console()
    rows = metrics.get("rows", "jets")
    table = Table(title=f"{metrics['title']}: {sum(metrics['jets'].values()):,} test {rows}", title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("rests on", justify="right")
    for name, figure in metrics["metrics"].items():
        if not name.startswith("significance_improvement"):
            table.add_row(label_of(name), for_terminal(_value_text(figure), console), _counts_text(figure, rows))
    console.print(table)


def print_figures(document: dict[str, Any]) -> None:
    """Print the metrics of a report without classes on the terminal, one line per metric."""
    print(f"{document['title']}: {document['jets']:,} {document.get('split', 'validation')} {document['rows']}")
    for name, figure in document["metrics"].items():
        print(f"  {name}: {rounded(figure['value'], figure['error']).replace('±', '+-')}")


def for_terminal(text: str, console: Console) -> str:
    """The text, as far as the terminal can show it."""
    return text.replace("±", "+-") if console.options.ascii_only else text
