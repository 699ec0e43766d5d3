"""The pages of the site that are made of what the repository knows: start, models, results, reference.

A hook of MkDocs: ``pip install -e '.[docs]' && mkdocs serve``.
"""

import csv
import html
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from zoo.model_table import HEADINGS, ModelRow, model_rows, paper_link
from zoo.registry import list_models, model_facts
from zoo.report.tables import label_of, markdown_table, rounded

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"

#: What only this package itself uses.
INTERNAL = {"card", "cli", "configs", "errors", "files", "limits", "pretrained", "progress", "torch_files"}

#: File of results -> its heading, what was trained and tested, and the guide that says more.
TRAINED = {
    "trained_real": (
        "Top tagging with 12,110 jets",
        "Trained on 1 % of the training jets of the Top Tagging Reference data, tested on 20,000 others; "
        "`python -m benchmarks.train_models --jets real --seeds 1` ([more](models.md#results)).",
    ),
    "trained_sample": (
        "Top tagging with the jets that ship with the package",
        "Trained on 12,000 simulated jets, tested on 4,000; `python -m benchmarks.train_models` "
        "([more](models.md#results)).",
    ),
    "few_labels": (
        "Few labels",
        "Particle Transformer from scratch and pretrained without labels, and boosted trees, tested on 20,000 jets "
        "([more](pretraining.md#few-labels)).",
    ),
    "four_tops": (
        "Events: four top quarks",
        "Trained on simulated events of the DarkMachines data; `python -m benchmarks.four_tops` "
        "([more](four_tops.md)).",
    ),
    "four_tops_few_labels": (
        "Events: few labels",
        "The same events with 1 %, 10 % and all of the labels ([more](four_tops.md#few-labels)).",
    ),
}
#: Linked names at the beginning of a row, which may be broken at their underscores.
_LINKED_NAME = re.compile(r"(?<=<code>)\w+(?=</code></a></td>)")

#: Cells of numbers alone.
_NUMBER = re.compile(r"<td>([^<a-zA-Z]*\d[^<a-zA-Z]*)</td>")

METRICS = ("accuracy", "auc", "background_rejection_0.5", "background_rejection_0.3")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the pages of the reference."""
    reference = [{name: f"reference/{name}.md"} for name in public_modules()]
    config.nav[-1] = {"API reference": [{"zoo": "reference/zoo.md"}, *reference]}
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is generated."""
    pages = {
        "index.md": start_page,
        "all_models.md": models_page,
        "results.md": results_page,
        "reference/zoo.md": zoo_page,
        **{f"reference/{name}.md": reference_page(name) for name in public_modules()},
    }
    for name, write in pages.items():
        files.append(File.generated(config, name, content=write()))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Links to the README lead to the pages that are made of it."""
    return markdown.replace("](../README.md#results)", "](results.md)").replace("](../README.md)", "](index.md)")


def on_page_content(content: str, **_: object) -> str:
    """Formulas become MathML, which browsers draw themselves; cells of numbers are marked, to stay on one line."""
    content = _NUMBER.sub(r'<td class="number">\1</td>', content)
    content = _LINKED_NAME.sub(lambda match: match[0].replace("_", "_<wbr>"), content)
    content = re.sub(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', _formula("block"), content, flags=re.DOTALL)
    return re.sub(r'<span class="arithmatex">\\\((.*?)\\\)</span>', _formula("inline"), content, flags=re.DOTALL)


def _formula(display: str) -> Callable[[re.Match[str]], str]:
    return lambda match: convert(html.unescape(match[1]).strip(), display=display)


def public_modules() -> list[str]:
    """Modules and packages of the first level below ``zoo``."""
    found = {path.stem for path in (ROOT / "zoo").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    return sorted(f"zoo.{name}" for name in found - INTERNAL if not name.startswith("_"))


def readme(first: str, last: str) -> str:
    """The README from one heading to the next, with links as on the site."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    part = text[text.index(first) : text.index(last)]
    return re.sub(r"\]\(docs/", "](", part)


def start_page() -> str:
    """What the README says before its results."""
    return readme("# zoo", "## Results")


def models_page() -> str:
    """Tables of all registered models, and what each builder says."""
    measured = {row["model"]: row for row in read_csv("models")}
    parts = [
        "# All models",
        "`zoo.create_model(name, input_dim=..., num_classes=...)` builds each with the numbers of its paper. The times "
        "are those of an inference on two cores of a CPU (`python -m benchmarks.models`, [more](benchmarks.md)). "
        "`@zoo.register_model` adds a model of yours.",
    ]
    for sees in ("jets", "events"):
        rows = [_model_cells(row, measured.get(row.facts.name, {})) for row in model_rows(sees)]
        heading = (*HEADINGS, "ms a jet" if sees == "jets" else "ms an event")
        parts += [f"## Models of {sees}", markdown_table(heading, rows)]
    parts += ["## Builders"]
    for name in list_models():
        path = path_of(model_facts(name).builder)
        parts += [f"::: {path}\n    options: {{heading_level: 3, show_root_full_path: false}}"]
    return "\n\n".join(parts)


def _model_cells(row: ModelRow, measured: dict[str, str]) -> tuple[str, ...]:
    """A row of the registry's table, with a link to the builder and the time of ``benchmarks/results/models.csv``."""
    facts = row.facts
    name = f"[`{facts.name}`](#{path_of(facts.builder)})"
    parameters = f"{row.parameters:,}"
    return name, paper_link(facts.paper.id), facts.variant, parameters, row.unchanged_by, measured.get("ms_per_jet", "")


def path_of(builder: Callable[..., object]) -> str:
    """Where a builder is defined."""
    return f"{builder.__module__}.{builder.__qualname__}"


def results_page() -> str:
    """The results of the README, and every table of ``benchmarks/results`` that judges trained models."""
    text = readme("## Results", "## Map").replace("## Results", "# Results", 1)
    parts = [
        text.rstrip(),
        "# All tables",
        "± is the standard deviation over seeds; of one seed, the error of the number of test jets.",
    ]
    for name, (heading, says) in TRAINED.items():
        parts += [f"## {heading}", says, trained_table(read_csv(name)), f"Numbers: `benchmarks/results/{name}.csv`."]
    return "\n\n".join(parts)


def read_csv(name: str) -> list[dict[str, str]]:
    """The rows of a file of results."""
    with open(RESULTS / f"{name}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def trained_table(rows: Iterable[dict[str, str]]) -> str:
    """Trained models, best AUC first within as many labels.

    >>> print(trained_table([{"model": "pfn", "seeds": "1", "auc": ".97", "auc_spread": "", "auc_error": ".002"}]))
    | model | seeds | AUC |
    | --- | --- | --- |
    | `pfn` | 1 | 0.9700 ± 0.0020 |
    """
    rows = sorted(rows, key=lambda row: (int(row.get("labels") or 0), -float(row["auc"])))
    names = [name for name in METRICS if name in rows[0]]
    is_registered = all(" " not in row["model"] for row in rows)
    further = [name for name in ("epochs", "parameters", "ms_per_jet") if name in rows[0]]
    cells = [
        (
            f"`{row['model']}`" if is_registered else row["model"],
            row["seeds"],
            *(metric(row, name) for name in names),
            *(f"{float(row[name]):,.10g}" if row[name] else "" for name in further),
        )
        for row in rows
    ]
    titles = [{"ms_per_jet": "ms a jet"}.get(name, name) for name in further]
    return markdown_table(["model", "seeds", *map(label_of, names), *titles], cells)


def metric(row: dict[str, str], name: str) -> str:
    """A metric with its spread over seeds, or of one seed with its statistical error."""
    error = row[f"{name}_spread"] or row[f"{name}_error"]
    return rounded(float(row[name]), float(error) if error else None, row.get(f"{name}_is_bound") == "True")


def zoo_page() -> str:
    """What ``import zoo`` offers."""
    import zoo

    names = "\n\n".join(f"::: {getattr(zoo, name).__module__}.{name}" for name in zoo.__all__)
    return f"# zoo\n\nWhat `import zoo` offers; torch is imported with the first use.\n\n{names}\n"


def reference_page(name: str) -> Callable[[], str]:
    """The page of a module."""
    return lambda: f"# {name}\n\n::: {name}\n    options: {{show_root_heading: false}}\n"
