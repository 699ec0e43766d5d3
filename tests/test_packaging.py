"""What an installed package says of itself: its name and its version."""

import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import zoo
from zoo.limits import parse_yaml
from zoo.training.packaged import find_config, find_configs

ROOT = Path(zoo.__file__).parents[1]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
EXTRAS = SETUP["options.extras_require"]

#: What a distribution is imported as, where that is another name.
MODULES = {"pyyaml": "yaml", "torch-geometric": "torch_geometric", "weaver-core": "weaver"}


def test_messages_and_docs_name_the_distribution():
    """``zoo`` on the package index is another project."""
    files = [*ROOT.glob("zoo/**/*.py"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.py"), ROOT / "README.md"]
    found = set()
    for path in files:
        text = path.read_text()
        assert not re.search(r"pip install [^\n`&]*\bzoo\b", text), path
        found |= {(path.name, extra) for extra in re.findall(r"pip install 'hepzoo\[(\w+)\]'", text)}
        if path.suffix == ".py":
            assert not re.search(r"pip install[^\n]*'\.\[", text), f"{path} names extras of a checkout"
    assert {extra for _, extra in found} <= set(EXTRAS)
    assert {"generator.py", "hf.py", "boosted_trees.py", "remote.py", "convert.py"} <= {name for name, _ in found}


def test_the_version_has_one_source():
    assert SETUP["metadata"]["name"] == "hepzoo"
    assert SETUP["metadata"]["version"] == "attr: zoo.__version__"
    assert parse_yaml((ROOT / "CITATION.cff").read_text())["version"] == zoo.__version__


def required(section: str) -> set[str]:
    """Modules of the distributions in a section of setup.cfg."""
    lists = SETUP[section].values() if section.endswith("require") else [SETUP[section]["install_requires"]]
    names = {re.match(r"[\w.-]+", line)[0] for text in lists for line in text.split("\n") if line.strip()}
    return {MODULES.get(name, name) for name in names}


def imported(*folders: Path) -> set[str]:
    """Top-level modules that the files in some folders import."""
    names = set()
    for node in (
        node for folder in folders for path in folder.rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))
    ):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - {"zoo"}


def test_every_requirement_is_imported_and_every_import_required():
    """Lightning's logger uses tensorboard."""
    ours = imported(ROOT / "zoo")
    assert required("options") - ours == {"tensorboard"}
    assert ours <= required("options") | required("options.extras_require")


def test_configs_are_found_in_the_package_and_own_ones_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "configs/model/pfn.yaml"
    packaged = Path(find_config(name))
    assert packaged.read_text() == (ROOT / name).read_text()
    assert find_configs(["fit", "--config", name, f"--config={name}", "--run_folder", name]) == [
        *("fit", "--config", str(packaged), f"--config={packaged}", "--run_folder", name),
    ]
    Path(name).parent.mkdir(parents=True)
    Path(name).write_text("mine")
    assert find_config(name) == name
    assert find_config("configs/../files.py") == "configs/../files.py"
    with pytest.raises(
        FileNotFoundError, match=r"README.md: --config=configs/\{model/pfn,data/jetclass,recipe/jetclass_pfn"
    ):
        find_config("configs/jetclass/pfn.yaml")
    with pytest.raises(FileNotFoundError, match=r"several files now, .*: --config configs/quickstart.yaml"):
        find_config("configs/finetune/quickstart.yaml")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """An environment with the wheel of this checkout; what it needs comes from that of the tests."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("configs", "zoo"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    run(build, folder)
    shutil.rmtree(source)
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    packages = Path(run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder).strip())
    # the lines of a .pth are put on the path, but the .pth files there, such as that of this checkout, are not read
    (packages / "tests.pth").write_text(sysconfig.get_path("purelib"))
    (wheel,) = folder.glob("hepzoo-*.whl")
    install = ["install", "--no-deps", "--no-index", "--ignore-installed", wheel]
    run([*pip, "--python", python, *install], folder)
    return folder / "venv" / "bin"


def run(command: list, folder: Path) -> str:
    """What a command prints, far from the checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*map(str, command)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_wheel_trains_and_predicts_outside_of_a_checkout(installed, tmp_path):
    facts = "import zoo, importlib.metadata as m; print(zoo.__file__); print(zoo.__version__, m.version('hepzoo'))"
    place, versions = run([installed / "python", "-c", facts], tmp_path).splitlines()
    assert Path(place).is_relative_to(installed.parent)
    assert versions == f"{zoo.__version__} {zoo.__version__}"
    assert run([installed / "zoo", "--version"], tmp_path) == f"zoo {zoo.__version__}\n"

    few = ["--trainer.max_epochs", "1", "--data.train_jets", "400", "--data.num_workers", "0"]
    parts = ("model/pfn", "data/top_tagging_sample", "recipe/short_pfn")
    configs = [word for part in parts for word in ("--config", f"configs/{part}.yaml")]
    fit = [installed / "zoo", "fit", *configs, "--run-folder", "runs/pfn", *few]
    assert "AUC" in run(fit, tmp_path)
    assert (tmp_path / "runs" / "pfn" / "report" / "metrics.json").is_file()

    scores = "predict sample:top_tagging/test --model lorentznet.top_tagging --rows 0 50 --out scores.csv"
    run([installed / "zoo", *scores.split()], tmp_path)
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 51
