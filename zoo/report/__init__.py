"""The results of a tested run: metrics with errors, predictions, plots and a page; and tables of several runs."""

from zoo.report.answers import Answers
from zoo.report.classification import judge_classes
from zoo.report.comparison import compare_label_counts, compare_runs
from zoo.report.findings import Drawings, Findings
from zoo.report.predictions import Predictions
from zoo.report.tables import (
    figures_table,
    for_terminal,
    markdown_table,
    plain_figures_table,
    print_figures,
    print_table,
    rounded,
)
from zoo.report.writing import write_report

__all__ = [
    "Answers",
    "Drawings",
    "Findings",
    "Predictions",
    "compare_label_counts",
    "compare_runs",
    "figures_table",
    "for_terminal",
    "judge_classes",
    "markdown_table",
    "plain_figures_table",
    "print_figures",
    "print_table",
    "rounded",
    "write_report",
]
