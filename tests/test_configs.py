"""Configurations compose, name nothing outside the checkout, and say what to expect of them."""

import contextlib
import csv
import json
import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml

import zoo
from benchmarks import rows
from zoo.cli import training_command as command
from zoo.cli.preflight import check_settings
from zoo.model import declared

REPOSITORY = Path(__file__).parents[1]
CONFIGS = REPOSITORY / "configs"
PAGE = (CONFIGS / "README.md").read_text()
ROWS = rows.read_rows()
PARTS = ("model", "data", "recipe")

#: Models that reproduce the answers of other programs with their weights, and that nobody should train.
FOR_IMPORTED_WEIGHTS = {
    "lorentznet_release",
    "lorentznet_qg_release",
    "particle_transformer_weaver",
    "particle_transformer_weaver_pre_activation",
    "particlenet_weaver",
}


def commands() -> dict[str, list[str]]:
    """The words behind ``fit`` of each command of the page, as a shell makes them, by the name above it."""
    blocks = [block for text in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for block in text.split("\n\n")]
    found = {}
    for block in blocks:
        name = block.splitlines()[0].removeprefix("# ")
        words = (
            block[block.index("zoo fit") :]
            .replace("\\\n", " ")
            .replace("'", '"')
            .replace("--run-folder", "--run_folder")
        )
        found[name] = shlex.split(re.sub(r"(\S*)\{(\S*)\}(\S*)", expanded, words))[2:]
    return found


def expanded(braces: re.Match) -> str:
    before, names, after = braces.groups()
    return " ".join(f"{before}{name}{after}" for name in names.split(","))


COMMANDS = commands()


def build(*arguments: str) -> command.TrainingCLI:
    return command.main(list(arguments), run=False)


@pytest.mark.parametrize("name", [*ROWS, "quickstart"])
def test_every_row_builds(name):
    line = build(*COMMANDS.get(name, ["--config", f"configs/{name}.yaml"]))
    data, model = line.datamodule, line.model.model.eval()
    inputs = [torch.zeros(1, 0, data.input_dim), torch.zeros(1, 0, 4), torch.zeros(1, 0, dtype=torch.bool)]
    if data.context_dim:
        inputs.append(torch.zeros(1, data.context_dim))
    assert model(*inputs).shape == (1, line.model.output_sizes(data, None)[0].wanted)
    assert line.config.model.init_args.model.init_args.input_dim == data.input_dim
    assert declared(model).context_dim == data.context_dim
    assert re.fullmatch(r"runs/[\w-]+", line.config.run_folder)
    for split in filter(None, data.splits.values()):
        for file in split.files:
            assert re.fullmatch(r"(sample:|data/)[\w/.]+", file), "nothing outside the checkout"


@pytest.mark.parametrize("name", ROWS)
def test_no_row_is_refused_before_torch_is_loaded(name):
    """But for files that are not there."""
    words = COMMANDS[name]
    configs = [REPOSITORY / word.partition("=")[2] for word in words if word.startswith("--config=")]
    with contextlib.suppress(FileNotFoundError):
        check_settings("fit", configs, [word for word in words if not word.startswith("--config=")])


def test_each_row_is_a_command_of_the_page_with_a_run_folder_of_its_own():
    assert COMMANDS.keys() == ROWS.keys()
    folders = [words[words.index("--run_folder") + 1] for words in COMMANDS.values()]
    assert len(set(folders)) == len(folders)


def test_the_page_is_written_of_the_rows_and_the_tables():
    assert rows.page() == PAGE, "run python -m benchmarks.rows"


def test_no_file_is_in_vain():
    used = {config for row in ROWS.values() for config in row["configs"]}
    there = {f"{path.parent.name}/{path.stem}" for part in PARTS for path in (CONFIGS / part).glob("*.yaml")}
    assert used == there


def test_every_model_has_its_rows():
    """One of jets on the sample and on the reference set; one of events, which looks at other objects, on events."""
    there = {group: {name.partition("/")[2] for name in ROWS if name.startswith(f"{group}/")} for group in rows.TITLES}
    of_events = {name for name in zoo.list_models() if "_for_events" in name}
    of_jets = set(zoo.list_models()) - of_events - FOR_IMPORTED_WEIGHTS
    assert of_jets <= there["quickstart"] & there["top_tagging"]
    assert of_events <= there["four_tops"]
    assert not of_events & (there["quickstart"] | there["top_tagging"])


def figures_of(table: str, row: str) -> dict[str, str]:
    with (REPOSITORY / "benchmarks" / "results" / f"{table}.csv").open(newline="") as file:
        return {found["model"]: found for found in csv.DictReader(file)}[row]


FIGURE = r"{} (\.?\d+) \+- (\.?\d+){}"


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if {"result", "shipped"} & row.keys()])
def test_what_to_expect_is_what_was_measured(name):
    """Read from the page by its own means, and compared with the table or the pretrained model."""
    (line,) = re.findall(rf"^# {name}\n# expect: (.*)$", PAGE, re.MULTILINE)
    if "result" in ROWS[name]:
        row = figures_of(*ROWS[name]["result"])
        known = {key: (float(row[key]), float(row[f"{key}_error"])) for key in ("accuracy", "auc")}
        rejections = {at: float(row[f"background_rejection_{at}"]) for at in ("0.5", "0.3")}
        assert ROWS[name]["result"][0] in line
    else:
        found = json.loads((REPOSITORY / "zoo/pretrained" / ROWS[name]["shipped"] / "config.json").read_text())
        known = {key: (found["metrics"][key]["value"], found["metrics"][key]["error"]) for key in ("accuracy", "auc")}
        rejections = {at: found["metrics"][f"background_rejection_{at}"]["value"] for at in ("0.5", "0.3")}
    for key, words in (("accuracy", "accuracy"), ("auc", "AUC")):
        value, error = re.search(FIGURE.format(words, ""), line).groups()
        assert float(value) == pytest.approx(known[key][0], abs=6e-5)
        assert float(error) == pytest.approx(known[key][1], abs=6e-5)
    for at, rejection in rejections.items():
        assert float(re.search(FIGURE.format("1/eB", f" at eS {at}"), line)[1]) == pytest.approx(rejection, abs=0.51)


def test_each_row_says_what_to_expect():
    for name in ROWS:
        lines = PAGE.split(f"# {name}\n")[1].splitlines()
        assert re.match(r"# (expect: .*\d|published: .*\d|no result is kept)", lines[0]), name


def test_any_model_goes_with_any_data_and_recipe():
    """Ten classes and 17 features are facts of JetClass, and what a pretraining has no use for is left out."""
    words = " ".join(f"--config configs/{part}.yaml" for part in ("model/particlenet", "data/jetclass", "recipe/{}"))
    line = build(*words.format("masked_particles").split(), "--run_folder", "runs/mine")
    assert type(line.model).__name__ == "MaskedParticles"
    assert line.config.data.test is None
    assert vars(line.config.model.init_args.model.init_args) == {"input_dim": 17, "num_classes": 10}
    line = build(*words.format("short").split(), "--run_folder", "runs/mine", "--data.batch_size", "7")
    assert (line.datamodule.batch_size, line.datamodule.eval_batch_size) == (7, 256), "options change files"
    assert line.model.num_classes == 10


def test_data_before_the_model_is_told(capsys):
    words = "--config configs/data/jetclass.yaml --config configs/model/pfn.yaml --run_folder runs/mine"
    with pytest.raises(SystemExit):
        build(*words.split())
    assert "name the config of the model before those of data and recipe" in capsys.readouterr().err


def test_parts_are_short_and_say_what_they_are():
    for part in PARTS:
        for path in (CONFIGS / part).glob("*.yaml"):
            assert path.read_text().startswith("# "), path
            assert "run_folder" not in yaml.safe_load(path.read_text()), path
