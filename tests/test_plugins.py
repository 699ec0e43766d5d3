"""Models of other packages: installed, broken, and not there."""

import contextlib
import csv
import hashlib
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

import zoo
from zoo import plugins, registry
from zoo.card import write_card
from zoo.cli import main
from zoo.cli import training_command as command
from zoo.data.batch import JetBatch
from zoo.data.features import feature_table
from zoo.hub import PretrainedConfig, PretrainedError, find_task, load_pretrained, parse_config, save_pretrained
from zoo.plugins import BrokenPluginWarning
from zoo.publish import publish_run
from zoo.registry import model_facts, registered_name
from zoo.report import Predictions
from zoo.tasks import Classification

MODEL = '''
"""A model as another group would write it."""

import torch
from torch import Tensor, nn

from zoo import register_model
from zoo.model import JetModel


class Sum(JetModel):
    """A linear map of the summed features of the particles of a jet."""

    def __init__(self, input_dim: int, num_classes: int) -> None:
        super().__init__()
        self.embedding = nn.Linear(input_dim, 16)
        self.head = nn.Linear(16, num_classes)

    def stages(self) -> dict[str, list[str]]:
        return {"embedding": ["embedding"], "head": ["head"]}

    def reference_forward(
        self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None
    ) -> Tensor:
        return self.head((torch.relu(self.embedding(features)) * mask[..., None]).sum(1))


@register_model(paper="arXiv:1703.06114", sees="jets")
def mymodel(input_dim: int, num_classes: int) -> Sum:
    """Deep sets at their smallest."""
    return Sum(input_dim, num_classes)
'''


TASK = '''
"""A task as another group would write it."""

from zoo.tasks import Classification


class Mine(Classification):
    """Nothing new."""
'''


def install(folder: Path, distribution: str, package: str, code: dict[str, str], entry_points: str) -> None:
    """What pip leaves behind: the package, and what its distribution says of itself."""
    (folder / package).mkdir(parents=True)
    for module, text in {"__init__": "", **code}.items():
        (folder / package / f"{module}.py").write_text(text)
    facts = folder / f"{distribution.replace('-', '_')}-1.2.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
    (facts / "entry_points.txt").write_text(entry_points)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one package is installed that works, and one that cannot be imported."""
    folder = tmp_path_factory.mktemp("site")
    entries = "[zoo.models]\nmypackage = mypackage.models\n[zoo.tasks]\nmypackage = mypackage.tasks\n"
    install(folder, "my-models", "mypackage", {"models": MODEL, "tasks": TASK}, entries)
    entries = "[zoo.models]\nold = brokenpackage.models\n[zoo.tasks]\nold = brokenpackage.models:Theirs\n"
    install(folder, "old-models", "brokenpackage", {"models": "import nothing_like_it"}, entries)
    return folder


@contextlib.contextmanager
def importable(site: Path) -> Iterator[None]:
    """A process in which the packages are installed, by forgetting what this one knew before and after."""

    def forget() -> None:
        plugins._loaded.clear()
        plugins._broken.clear()
        for name in [name for name in sys.modules if name.partition(".")[0] in ("mypackage", "brokenpackage")]:
            del sys.modules[name]
        for name in [name for name in registry._facts if "." in name]:
            del registry._facts[name]

    forget()
    sys.path.insert(0, str(site))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(site))
        forget()


@pytest.fixture
def installed(site: Path) -> Iterator[None]:
    with importable(site):
        with pytest.warns(BrokenPluginWarning):
            zoo.list_models()
        yield


def test_a_model_of_another_package_has_its_full_name(installed):
    ours = {name for name in zoo.list_models() if "." not in name}
    assert set(zoo.list_models()) - ours == {"mypackage.mymodel"}
    assert "lorentznet" in ours
    facts = model_facts("mypackage.mymodel")
    assert (facts.paper.id, facts.sees, facts.package) == ("arXiv:1703.06114", "jets", "mypackage")
    assert facts.distribution == ("my-models", "1.2")
    assert model_facts("lorentznet").distribution is None
    assert registered_name("mypackage.models.mymodel") == "mypackage.mymodel"
    assert registered_name("mypackage.models.Sum") is None
    assert zoo.create_model("mypackage.mymodel", input_dim=3, num_classes=4).head.out_features == 4


def test_a_task_of_another_package_is_found_by_its_path(installed):
    """Where the entry point names its module; where it names the class is tested with a task that is trained."""
    with pytest.warns(BrokenPluginWarning, match=r"Theirs of zoo\.tasks"):
        assert find_task("mypackage.tasks.Mine").__name__ == "Mine"
    assert find_task("zoo.tasks.Classification") is Classification
    with pytest.raises(
        ValueError, match=r"brokenpackage\.models\.Theirs'; its package cannot be imported \(ModuleNotF"
    ):
        find_task("brokenpackage.models.Theirs")
    for name in ("mypackage.tasks.Other", "mypackage.models.Sum", "os.system", "zoo.tasks.Task.forward"):
        with pytest.raises(ValueError, match="no task is called"):
            find_task(name)


def test_a_package_that_cannot_be_imported_is_a_warning_and_no_more(site):
    with importable(site):
        with pytest.warns(
            BrokenPluginWarning, match=r"old-models 1\.2: .* brokenpackage\.models .*nothing_like_it.*uninst"
        ):
            assert "mypackage.mymodel" in zoo.list_models()
        with pytest.raises(KeyError, match=r"its package brokenpackage cannot be imported \(ModuleNotFoundError"):
            zoo.create_model("brokenpackage.theirs", input_dim=7, num_classes=2)


def test_no_package_is_imported_for_a_model_of_the_zoo(site):
    code = "import sys, zoo; zoo.create_model('efn', input_dim=7, num_classes=2); print('mypackage' in sys.modules)"
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(site)!r}); {code}"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "False"


def save(folder: Path, jets: JetBatch, package: dict | None) -> Path:
    config = PretrainedConfig(
        model="mypackage.mymodel",
        classes=["qcd", "top"],
        features=feature_table("kin").to_dict(),
        dataset="top_tagging",
        units="GeV",
        metrics={},
        licence="MIT",
        paper="arXiv:1703.06114",
        package=package,
    )
    model = zoo.create_model("mypackage.mymodel", input_dim=7, num_classes=2)
    save_pretrained(folder, model, config, jets.four_momenta, jets.mask, "A card.")
    return folder


@pytest.fixture(scope="module")
def folder(site: Path, jets: JetBatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pretrained folder of the model of the other package."""
    with importable(site), pytest.warns(BrokenPluginWarning):
        return save(tmp_path_factory.mktemp("folders") / "mine", jets, {"name": "my-models", "version": "1.2"})


def rewrite(folder: Path, **values: object) -> None:
    """Another ``config.json``, with the checksums that belong to it, as somebody malicious would write it."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    names = sorted(path.name for path in folder.iterdir() if path.name != "SHA256SUMS")
    sums = (f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    (folder / "SHA256SUMS").write_text("".join(sums))


def test_a_folder_of_another_package_loads_where_it_is_installed(folder, installed, jets):
    tagger = load_pretrained(folder)
    assert tagger.config.package == {"name": "my-models", "version": "1.2"}
    with torch.no_grad():
        expected = tagger.model(jets.features, jets.four_momenta, jets.mask)
    torch.testing.assert_close(tagger(jets.four_momenta, jets.mask), expected)


def test_the_card_says_what_to_install(folder):
    config = parse_config(folder, (folder / "config.json").read_bytes())
    assert "`pip install my-models` first, here version 1.2" in write_card("mine", config)


def test_zoo_check_takes_the_full_name(installed, capsys):
    main(["check", "mypackage.mymodel", "--jets", "4"])
    shown = capsys.readouterr().out
    assert "162 parameters" in shown
    assert "NO" not in shown


def test_a_folder_says_which_package_to_install(folder, capsys):
    with pytest.raises(
        PretrainedError, match=r"config\.json: .*'mypackage\.mymodel'.*my-models 1\.2.*pip install my-mod"
    ):
        load_pretrained(folder)
    with pytest.raises(SystemExit, match="2"):
        main(["predict", "sample:top_tagging/test", "--rows", "0", "4", "--model", str(folder)])
    assert "if you trust it, pip install my-models" in capsys.readouterr().err


def test_another_version_without_the_model_is_named(site, jets, installed, tmp_path):
    mine = save(tmp_path / "mine", jets, {"name": "my-models", "version": "3.0"})
    rewrite(mine, model="mypackage.of_version_3")
    with pytest.raises(PretrainedError, match=r"written with my-models 3\.0, and my-models 1\.2 is installed"):
        load_pretrained(mine)


def test_a_folder_can_make_nothing_be_imported(folder, site, tmp_path, jets, monkeypatch):
    """A module that lies on the path but is no registered model, as any of the standard library."""
    (tmp_path / "trap.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'sprung')!r}).touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    with importable(site), pytest.warns(BrokenPluginWarning):
        mine = save(tmp_path / "mine", jets, None)
    for model in ("trap.model", "trap", "os.system", "mypackage.models.mymodel"):
        rewrite(mine, model=model)
        with pytest.raises(PretrainedError, match="no model is called"):
            load_pretrained(mine)
    assert not (tmp_path / "sprung").exists()
    assert "mypackage" not in sys.modules
    importlib.import_module("trap")  # control: it would have been seen
    assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "package",
    [{"name": "my-models"}, {"name": "my-models", "version": 1}, {"name": "a; rm -rf x", "version": "1"}, {}],
)
def test_a_folder_puts_no_command_into_a_message(folder, package, tmp_path, site, jets):
    with importable(site), pytest.warns(BrokenPluginWarning):
        mine = save(tmp_path / "mine", jets, None)
    rewrite(mine, package=package)
    with pytest.raises(PretrainedError, match=r"config\.json: 'package' must have the name and the version"):
        load_pretrained(mine)


@pytest.fixture(scope="module")
def run(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of the model of the other package on some of the jets that ship, and its test."""
    folder = tmp_path_factory.mktemp("training")
    parts = {part: {"files": [f"sample:top_tagging/{part}"], "rows": [0, 40]} for part in ("train", "val", "test")}
    model = {"class_path": "mypackage.models.mymodel", "init_args": {"input_dim": 7, "num_classes": 2}}
    config = {
        "run_folder": str(folder / "run"),
        "trainer": {"max_epochs": 1, "enable_progress_bar": False},
        "model": {"class_path": "zoo.tasks.Classification", "init_args": {"model": model, "num_classes": 2}},
        "data": {**parts, "batch_size": 20},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with importable(site):
        command.main(["fit", "--config", str(folder / "config.yaml")])
    return folder / "run"


def test_from_a_training_to_predictions(run, installed, tmp_path, capsys):
    """With every command that takes the folder, and its scores those of the test."""
    out = tmp_path / "mine"
    main(["publish", str(run), "--out", str(out), "--licence", "MIT"])
    config = load_pretrained(out).config
    assert (config.model, config.paper) == ("mypackage.mymodel", "arXiv:1703.06114")
    assert config.package == {"name": "my-models", "version": "1.2"}
    main(["hub", "verify", str(out)])
    main(["check", str(out), "--jets", "4"])
    scores = tmp_path / "scores.csv"
    main(["predict", "sample:top_tagging/test", "--rows", "0", "40", "--model", str(out), "--out", str(scores)])
    assert "mypackage.mymodel for qcd, top" in capsys.readouterr().out
    tested = Predictions.load(run / "report" / "predictions.arrow")
    expected = torch.tensor(tested.logits).softmax(1)[tested.index.argsort(), 1]
    with open(scores, newline="") as file:
        found = [float(row["score_top"]) for row in csv.DictReader(file)]
    torch.testing.assert_close(torch.tensor(found), expected, rtol=1e-5, atol=1e-6)


def test_what_nobody_could_load_is_not_published(run, site, tmp_path, monkeypatch):
    """A package that is on the path without being installed, whether its model is imported by then or not."""
    (tmp_path / "mypackage").mkdir()
    (tmp_path / "mypackage" / "models.py").write_text(MODEL)
    with importable(tmp_path):
        with pytest.raises(ValueError, match=r"mypackage\.models\.mymodel is not the builder .* entry point"):
            publish_run(run, tmp_path / "mine", licence="MIT")
        assert "mypackage" not in sys.modules
        importlib.import_module("mypackage.models")
        with pytest.raises(ValueError, match=r"no installed package offers mypackage\.mymodel, .*zoo\.models"):
            publish_run(run, tmp_path / "mine", licence="MIT")
    assert not (tmp_path / "mine").exists()


def test_the_model_exports(installed, jets):
    """A page in plain dense torch, in batches of any size."""
    model = zoo.create_model("mypackage.mymodel", input_dim=7, num_classes=2).eval()
    axes = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("particles", min=1)}
    inputs = (jets.features, jets.four_momenta, jets.mask)
    program = torch.export.export(model, inputs, dynamic_shapes=(axes,) * 3, strict=False).module()
    few = tuple(value[:2, :9] for value in inputs)
    torch.testing.assert_close(program(*few), model(*few))
