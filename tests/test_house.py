"""The packages import one way, and `import zoo` stays light."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import zoo
from zoo.registry import PACKAGES

PACKAGE = Path(zoo.__file__).parent
README = PACKAGE.parent / "README.md"

#: Which packages each package may import; ``cli``, at the top, may import all. Models are those that the registry
#: opens.
MODELS = {package.removeprefix("zoo.") for package in PACKAGES}
MAY_IMPORT = {
    "physics": {"physics"},
    "errors": set(),
    "files": set(),
    "limits": set(),
    "old_configs": set(),
    "progress": set(),
    "torch_files": set(),
    "kernels": {"physics", "kernels"},
    "model": {"kernels", "model"},
    "plugins": set(),
    "registry": {"plugins", "registry"},
    **{model: {"physics", "kernels", "model", "registry", model} for model in MODELS},
    "metrics": {"metrics"},
    "data": {"physics", "data", "files", "limits", "progress"},
    "simulate": {"physics", "data", "files", "limits", "progress", "simulate"},
    "report": {"physics", "metrics", "files", "limits", "old_configs", "report"},
    "model_table": {"model", "registry", "report", "model_table"},
    "hub": {"model", "plugins", "registry", "baselines", "data", "files", "limits", "hub"},
    "training": {
        "kernels",
        "model",
        "data",
        "files",
        "hub",
        "limits",
        "old_configs",
        "progress",
        "report",
        "score_files",
        "torch_files",
        "training",
    },
    "tasks": {
        "physics",
        "kernels",
        "model",
        "data",
        "metrics",
        "report",
        "score_files",
        "training",
        "tasks",
    },
    "boosted_trees": {
        "baselines",
        "data",
        "files",
        "limits",
        "metrics",
        "old_configs",
        "report",
        "boosted_trees",
    },
    "card": {"data", "hub", "report", "card"},
    "ensemble": {"data", "hub", "card"},
    "publish": {
        "baselines",
        "plugins",
        "registry",
        "data",
        "limits",
        "old_configs",
        "report",
        "tasks",
        "training",
        "hub",
        "card",
    },
    "score_files": {"files", "score_files"},
    "export": {"kernels", "model", "baselines", "files", "hub", "publish", "export"},
    "inference": {"data", "hub", "files", "progress", "score_files", "inference"},
    "importers": {"physics", "registry", "data", "hub", "card", "torch_files", "importers"},
    "testing": {"kernels", "model", "data", "check", "training", "testing"},
    "check": {"physics", "kernels", "model", "registry", "data", "hub", "check"},
}
HEAVY = (
    "lightning",
    "pytorch_lightning",
    "torchmetrics",
    "matplotlib",
    "pyarrow",
    "awkward",
    "h5py",
    "pandas",
    "wandb",
    "dask",
    "distributed",
    "huggingface_hub",
    "lightgbm",
    "onnx",
    "onnxruntime",
)
NOT_IN_MODELS = {*HEAVY, "weaver"}


def imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports, at the top or inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    return names


@pytest.mark.parametrize("part", sorted(MAY_IMPORT))
def test_imports_run_one_way(part):
    files = list(PACKAGE.glob(f"{part}/**/*.py")) + list(PACKAGE.glob(f"{part}.py"))
    assert files
    for path in files:
        imported = {name.split(".")[1] for name in imports(path) if name.startswith("zoo.")}
        assert imported <= MAY_IMPORT[part], path


def test_every_part_has_its_place():
    """But for the command line, which stands above all, and what `import zoo` offers; nothing imports either."""
    parts = {path.stem for path in PACKAGE.glob("*.py")} | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert parts - MAY_IMPORT.keys() == {"__init__", "cli"}


@pytest.mark.parametrize("model", sorted(MODELS))
def test_models_import_nothing_heavy(model):
    for path in PACKAGE.glob(f"{model}/**/*.py"):
        assert not {name.split(".")[0] for name in imports(path)} & NOT_IN_MODELS, path


@pytest.mark.parametrize(
    ("names", "unwanted"),
    [
        ("zoo, zoo.cli", ("torch", *HEAVY)),
        ("zoo.registry, zoo.hub", HEAVY),
        ("zoo.data.convert", ("torch", "lightning")),
    ],
)
def test_imports_are_light(names, unwanted):
    code = f"import sys, {names}; print(*(name for name in {unwanted!r} if name in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert loaded == []


def test_what_zoo_offers_is_there():
    assert all(callable(getattr(zoo, name)) for name in zoo.__all__)
    assert set(zoo.__all__) <= set(dir(zoo))
    with pytest.raises(AttributeError, match="no attribute 'create_modle'"):
        _ = zoo.create_modle


@pytest.mark.skipif(not README.is_file(), reason="an installed package has no README")
def test_the_map_of_the_readme_is_that_of_the_house():
    """Every file that it names is there, and every package is named."""
    rows = README.read_text().partition("| folder or file | job |")[2].partition("\n\n")[0].splitlines()
    named = {name.rstrip("/") for row in rows[2:] for name in re.findall(r"`([\w/.]+)`", row.split("|")[1])}
    assert [name for name in named if not any((place / name).exists() for place in (README.parent, PACKAGE))] == []
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages <= {name.rpartition("/")[2] for name in named}
