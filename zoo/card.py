"""The card of a pretrained folder: the content of ``config.json`` in readable form.

It depends only on the config, so it can be rewritten at any time. ``training`` in the config holds what is known:
``command``, ``settings`` (the configuration of the run), ``facts`` (seed, epochs, ...), ``versions``, ``jets`` (number
in the test, by class), or ``origin`` for weights that were trained elsewhere, and ``notes`` on their limits.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from zoo.data.context import ContextTable
from zoo.data.datasets import DATASETS
from zoo.data.features import FeatureTable, Input
from zoo.data.ranges import LEVELS, InputRanges
from zoo.data.weaver.data_config import PREFIX
from zoo.hub import PretrainedConfig, PretrainedError, load_pretrained, replace_card
from zoo.report import figures_table, markdown_table, plain_figures_table

#: Licences by their names on the Hugging Face Hub, which takes others as ``other`` with a name.
_HUB_LICENCES = ("mit", "apache-2.0", "bsd-3-clause", "cc-by-4.0", "cc0-1.0")

_CALIBRATION = """
- A score is a probability only for jets like those, in the class fractions of the training.
- It was trained on simulation. A measurement needs efficiencies and uncertainties that are calibrated in real \
collisions."""


def write_card(name: str, config: PretrainedConfig) -> str:
    """The card of a model as Markdown.

    Args:
        name: name of its folder.
        config: all that is known about it.

    Raises:
        PretrainedError: if its metrics are not those of a report.
    """
    words = _WORDS[config.kind]
    parts = [
        _header(config.licence),
        f"# {name}",
        f"`{config.model}` ({config.paper}) {words.what(config)} on {config.dataset}.",
        "## Use",
        words.use(name) + _package(config.package),
        "## Inputs",
        words.inputs(config),
        "## Metrics",
        _figures(config),
        "## Training",
        _training(config.training),
        "## Data",
        _data(config.dataset),
        "## Licence",
        f"Weights: {config.licence}. Please cite the papers of the architecture, {config.paper}, and of the data.",
        "## Intended use and limits",
        _limits(config),
    ]
    if "settings" in config.training:
        settings = yaml.safe_dump(config.training["settings"], sort_keys=False).strip()
        parts += ["## Settings", f"This is a `config.yaml` for `{words.program}`:\n\n```yaml\n{settings}\n```"]
    return "\n\n".join(parts) + "\n"


def renew_card(folder: Path) -> None:
    """Rewrite the card of a folder; weights, golden outputs and config stay, the checksums follow.

    Raises:
        PretrainedError: if another file than the card is missing or altered, or the folder does not load.
    """
    folder = Path(folder)
    replace_card(folder, lambda config: write_card(folder.resolve().name, config))
    load_pretrained(folder)


def _header(licence: str) -> str:
    name = re.sub(r"[^a-z0-9.]+", "-", licence.lower())
    values: dict[str, Any] = {"license": name} if name in _HUB_LICENCES else {"license": "other", "license_name": name}
    values |= {"library_name": "zoo", "tags": ["particle-physics", "jet-tagging"]}
    return f"---\n{yaml.safe_dump(values, sort_keys=False)}---"


def _use(name: str) -> str:
    return f"""```python
import zoo

result = zoo.predict("{name}", "jets.h5")
result.score  # (row, class)
result.index  # row in the file
tagger = zoo.load_pretrained("{name}")  # tagger(four_momenta, mask): logits (jet, class)
```

```bash
zoo predict --model {name} jets.h5 --out scores.parquet
```

All take the name of a model that ships with the zoo, the path of a folder, or `hf://owner/repo@commit`. Loading
compares all files with their checksums and the model's outputs with the stored ones."""


def _use_of_backbone(name: str) -> str:
    return f"""```python
import zoo

backbone = zoo.load_pretrained("{name}")
particles = backbone.encode(four_momenta, mask)  # (node, embed_dim), all real particles of all jets
```

It has no read-out and gives no scores: it is where a training on labels starts from. The folder may also be named by
its path or as `hf://owner/repo@commit`. Loading compares all files with their checksums and the representation with the
stored one."""


def _use_of_task(name: str) -> str:
    return f"""```python
import zoo

result = zoo.predict("{name}", "jets.h5")
result.columns  # index and each answer by name, (row,)
answer = zoo.load_pretrained("{name}")  # answer(four_momenta, mask): answers by name, (jet,) each
```

```bash
zoo predict --model {name} jets.h5 --out answers.parquet
```

All take the path of the folder or `hf://owner/repo@commit`. Loading compares all files with their checksums and the
answers with the stored ones."""


def _package(package: dict[str, Any] | None) -> str:
    if package is None:
        return ""
    name, version = package["name"], package["version"]
    return f"\n\nThe model is that of another package: `pip install {name}` first, here version {version}."


def _inputs_of_ensemble(config: PretrainedConfig) -> str:
    members = _listed(config.members or [])
    return f"Those of its members, {members}, whose folders lie in `members/` with their own cards."


def _inputs_of_trees(config: PretrainedConfig) -> str:
    if config.features["features"]:
        return _features_of_particles(config)
    return f"""The momenta (E, px, py, pz) in {config.units} of the particles of a jet, of which these observables \
are computed (logarithms, see `zoo.physics.substructure`): {_listed(config.observables or [])}.\
{"" if config.context is None else _context(ContextTable.from_dict(config.context))}"""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(_code, names))


def _features_of_particles(config: PretrainedConfig) -> str:
    table = FeatureTable.from_dict(config.features)
    columns = "no further columns" if not table.columns else "the columns " + ", ".join(map(_code, table.columns))
    made = [name for name in table.columns if name.startswith(PREFIX)]
    travels = f"""nobody has to compute it{
        f", but {', '.join(map(_code, made))}, which reading with weaver's data file of the training makes"
        if made
        else ""
    }"""
    return f"""The particles of a jet: four-momenta (E, px, py, pz) in {config.units} and {columns}. A feature is \
(formula - centre) * scale, limited to the clip. Fractions, `deta`, `dphi` and `delta_r` are relative to the jet. The \
table travels with the weights: {travels}.

{_features(table.features)}{"" if config.context is None else _context(ContextTable.from_dict(config.context))}\
{"" if config.inputs is None else _ranges(InputRanges.from_dict(config.inputs))}"""


def _ranges(inputs: InputRanges) -> str:
    low, high = (f"{100 * level:g} %" for level in LEVELS)
    rows = [(name, *(f"{value:.4g}" for value in of)) for name, of in inputs.ranges.items()]
    return (
        f"\n\nRanges of the first {inputs.jets:,} training jets, the features before centre and scale; others give a "
        "warning.\n\n" + markdown_table(["quantity", low, "median", high], rows)
    )


def _context(table: ContextTable) -> str:
    fields = ", ".join(map(_code, table.fields))
    return f"\n\nOf the event as a whole, of its fields {fields}:\n\n{_features(table.features)}"


def _features(features: Iterable[Input]) -> str:
    rows = [
        (feature.name, f"`{feature.formula}`", feature.centre, feature.scale, _clip(feature.clip))
        for feature in features
    ]
    return markdown_table(["feature", "formula", "centre", "scale", "clip"], rows)


def _clip(clip: float | tuple[float, float] | None) -> str:
    if clip is None:
        return "none"
    return f"{clip[0]} to {clip[1]}" if isinstance(clip, tuple) else f"±{clip}"


def _code(text: str) -> str:
    return f"`{text}`"


def _figures(config: PretrainedConfig) -> str:
    words = _WORDS[config.kind]
    if not config.metrics:
        return f"None: {words.untested}"
    rows = _rows(config)
    try:
        table = plain_figures_table(config.metrics) if words.is_plain else figures_table(config.metrics, rows)
    except (AttributeError, KeyError, TypeError) as error:
        raise PretrainedError(f"config.json: 'metrics' are not those of a report ({error!r}); publish a run") from error
    if "validation_jets" in config.training or words.is_validated:
        return f"On {config.training.get('validation_jets', 0):,} validation {rows}.\n\n{table}"
    jets = config.training.get("jets", {})
    if words.is_plain:
        return f"On {jets or 0:,} test {rows}. Errors are one standard deviation from their number.\n\n{table}"
    tested = f"Tested on {sum(jets.values()):,} {rows} ({', '.join(f'{n:,} {name}' for name, n in jets.items())}). "
    return (
        f"{tested if jets else ''}Errors are one standard deviation from the number of test {rows}; they do not hold "
        f"the spread between trainings.\n\n{table}"
    )


def _rows(config: PretrainedConfig) -> str:
    return DATASETS[config.dataset].rows if config.dataset in DATASETS else "jets"


def _training(training: dict[str, Any]) -> str:
    parts = [f"{training['origin']}."] if "origin" in training else []
    if "command" in training:
        parts.append(f"```bash\n{training['command']}\n```")
    facts = {**training.get("facts", {}), **training.get("versions", {})}
    if facts:
        parts.append(markdown_table(["", ""], list(facts.items())))
    return "\n\n".join(parts) or "Nothing is known of it."


def _data(name: str) -> str:
    if name not in DATASETS:
        return f"{name}: files that a layout described; ask who made this folder for them."
    dataset = DATASETS[name]
    conditions = f" They are {dataset.conditions}." if dataset.conditions else ""
    return f"{name}: {dataset.citation}; {dataset.source}, {dataset.licence}.{conditions}"


def _limits(config: PretrainedConfig) -> str:
    dataset = DATASETS.get(config.dataset)
    alike = f" ({dataset.conditions})" if dataset and dataset.conditions else ""
    words = _WORDS[config.kind]
    calibrated = _CALIBRATION if words.is_calibrated else ""
    notes = "".join(f"\n- {note}" for note in config.training.get("notes", ()))
    rows = _rows(config)
    studies = "jet tagging on simulated jets" if rows == "jets" else f"simulated {rows}"
    return f"""For studies of {studies}, {words.purpose}.

- It knows {rows} like those of its training only{alike}. Other energies, jet radii, generators, detectors or pile-up \
need a training of their own, or at least a test.{calibrated}{notes}"""


def _what_of_classes(config: PretrainedConfig) -> str:
    return f"for the classes {', '.join(config.classes)}, trained"


def _what_of_task(config: PretrainedConfig) -> str:
    task = config.task or {}
    return f"trained as `{task['name']}` to give {', '.join(task['columns'])}"


class _Words(NamedTuple):
    """The wording of a card for one kind of folder.

    Args:
        what: what was trained, from a config.
        use: how it is used, from the name of its folder.
        purpose: what it is good for.
        inputs: what it sees, from a config.
        is_plain: whether its metrics have values and errors only.
        is_validated: whether its metrics come from a validation.
        is_calibrated: whether it gives probabilities.
        program: program that its settings are for.
        untested: text in place of metrics.
    """

    what: Callable[[PretrainedConfig], str] = _what_of_classes
    use: Callable[[str], str] = _use
    purpose: str = "comparisons, and as a start for trainings"
    inputs: Callable[[PretrainedConfig], str] = _features_of_particles
    is_plain: bool = False
    is_validated: bool = False
    is_calibrated: bool = False
    program: str = "zoo fit"
    untested: str = "it was not tested. `zoo test` does that."


#: The words for each ``kind`` of a config.
_WORDS = {
    "tagger": _Words(is_calibrated=True),
    "trees": _Words(
        purpose="comparisons", inputs=_inputs_of_trees, is_calibrated=True, program="zoo baseline lightgbm"
    ),
    "ensemble": _Words(
        purpose="comparisons",
        inputs=_inputs_of_ensemble,
        is_calibrated=True,
        untested="the ensemble was not tested as a whole; the cards of its members have theirs.",
    ),
    "backbone": _Words(
        lambda config: "trained without labels",
        _use_of_backbone,
        "a start for trainings",
        is_plain=True,
        is_validated=True,
    ),
    "task": _Words(_what_of_task, _use_of_task, is_plain=True),
}
