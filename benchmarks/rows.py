"""The rows of the results: which configuration each is, and what to expect of it.

python -m benchmarks.rows                          # writes configs/README.md of configs/rows.yaml and results/*.csv
python -m benchmarks.rows top_tagging/lorentznet   # prints one command
"""

import argparse
import csv
import json
import shlex
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIGS = REPOSITORY / "configs"
RESULTS = Path(__file__).parent / "results"
PRETRAINED = REPOSITORY / "zoo" / "pretrained"

#: Metric -> its label, and its number of decimal places.
FIGURES = {
    "accuracy": ("accuracy", 4),
    "auc": ("AUC", 4),
    "background_rejection_0.5": ("1/eB", 0),
    "background_rejection_0.3": ("1/eB", 0),
}

TITLES = {
    "quickstart": "The packaged sample of top tagging",
    "top_tagging": "The Top Tagging Reference set",
    "jetclass": "JetClass",
    "four_tops": "Four tops",
    "pretrain": "Pretraining without labels",
    "finetune": "Fine-tuning",
    "regression": "Regression",
}

_HEAD = """# Configurations

*Written by `python -m benchmarks.rows`, of `rows.yaml` and `benchmarks/results`.*

A configuration is put together from three files or more: the model (`model/`), the data (`data/`) and the recipe
(`recipe/`), in this order; a later file completes or changes what an earlier one says, and options change it last
([docs/training.md](../docs/training.md#configurations)). `quickstart.yaml`, of README's first command, is whole.
The shell makes one `--config` of each name in the braces. Each row below is one training. After an interruption
`zoo fit --run-folder runs/NAME --ckpt-path last` goes on with it; another `--seed-everything` and `--run-folder` train
it again. The errors are statistical, from the number of test jets.

The files of the jets and events are those of `data/`, see
[docs/data_conversion.md](../docs/data_conversion.md#where-the-configurations-look).
"""


def read_rows() -> dict[str, dict[str, Any]]:
    """All rows by name, such as ``top_tagging/lorentznet``."""
    return yaml.safe_load((CONFIGS / "rows.yaml").read_text())


def arguments(name: str) -> list[str]:
    """What follows ``zoo fit`` to train a row.

    Args:
        name: name of the row; or your own configurations, YAML files separated by commas.

    Raises:
        KeyError: if there is no such row.
    """
    if name.endswith(".yaml"):
        return [word for config in name.split(",") for word in ("--config", config)]
    row = read_rows()[name]
    configs = [word for config in row["configs"] for word in ("--config", f"configs/{config}.yaml")]
    return [*configs, "--run-folder", row["run_folder"], *shlex.split(row.get("options", ""))]


def expectation(row: dict[str, Any]) -> list[str]:
    """What to expect of a row, one line each."""
    lines = []
    if "result" in row:
        table, name = row["result"]
        with (RESULTS / f"{table}.csv").open(newline="") as file:
            found = next(found for found in csv.DictReader(file) if found["model"] == name)
        figures = {key: (float(found[key]), float(found[f"{key}_error"])) for key in FIGURES}
        seeds = f"{found['seeds']} seed{'s' if found['seeds'] != '1' else ''}"
        lines.append(f"expect: {_figures(figures)} ({seeds}; benchmarks/results/{table}.csv, {name})")
    if "shipped" in row:
        metrics = json.loads((PRETRAINED / row["shipped"] / "config.json").read_text())["metrics"]
        figures = {key: (metrics[key]["value"], metrics[key]["error"]) for key in FIGURES}
        lines.append(f"expect: {_figures(figures)} (1 seed; ships as {row['shipped']})")
    if "measured" in row:
        lines.append(f"expect: {row['measured']}")
    if "published" in row:
        lines.append(f"published: {row['published']}")
    return lines or ["no result is kept"]


def _figures(figures: dict[str, tuple[float, float]]) -> str:
    parts = []
    for key, (value, error) in figures.items():
        name, digits = FIGURES[key]
        at = f" at eS {key.rpartition('_')[2]}" if name == "1/eB" else ""
        parts.append(f"{name} {_short(value, digits)} +- {_short(error, digits)}{at}")
    return ", ".join(parts)


def _short(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".removeprefix("0") if digits else f"{value:.0f}"


def command(name: str) -> str:
    """The command of a row, as bash and zsh understand it."""
    row = read_rows()[name]
    lines = [f"zoo fit --config=configs/{{{','.join(row['configs'])}}}.yaml"]
    lines.append(f"    --run-folder {row['run_folder']} {row.get('options', '')}".rstrip())
    return " \\\n".join(lines)


def page() -> str:
    """The text of ``configs/README.md``."""
    parts, group = [_HEAD], None
    for name, row in read_rows().items():
        if name.partition("/")[0] != group:
            group = name.partition("/")[0]
            parts.append(f"## {TITLES[group]}\n")
        lines = [name, *expectation(row), *([row["note"]] if "note" in row else [])]
        parts.append("\n".join(["```bash", *(f"# {line}" for line in lines), command(name), "```\n"]))
    return "\n".join(parts).replace("\n```\n\n```bash\n", "\n\n").rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("row", nargs="?", help="print the command of this row")
    row = parser.parse_args().row
    if row is not None:
        print(command(row))
        return
    (CONFIGS / "README.md").write_text(page())


if __name__ == "__main__":
    main()
