"""A task of somebody else, in one file of their package: trained, judged, published, loaded and used like ours."""

import dataclasses
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import zoo
from zoo import plugins
from zoo.cli import training_command as command
from zoo.data import JetDataModule
from zoo.data.datamodule import Split
from zoo.data.datasets import resolve_file
from zoo.data.store import open_store, write_store
from zoo.publish import publish_run
from zoo.report import Answers

REPOSITORY = Path(__file__).resolve().parents[2]

#: Deep SVDD in a few lines: how far a jet is from the middle of what was trained on. It reads no label to learn, and
#: its test looks at the truth.
TASK = '''
"""Anomaly scores."""

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from zoo.tasks import Task
from zoo.tasks.task import Metric


class Distance(Task):
    """Draws the outputs of jets to a point; the squared distance from it is the score."""

    purpose = "distance"

    def __init__(self, model: nn.Module, centre: float = 1.0, learning_rate: float = 1e-3) -> None:
        super().__init__(model, learning_rate)
        self.centre = nn.Parameter(torch.tensor(centre), requires_grad=False)
        self.stretch = nn.Linear(2, 2)

    def answer(self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None):
        point = self.stretch(self(features, four_momenta, mask, context))
        return {"anomaly_score": (point - self.centre).square().sum(1)}

    def loss(self, batch, batch_idx):
        scores = self.answer(*batch.inputs)["anomaly_score"]
        return scores.mean(), len(scores)

    def metrics(self, columns):
        known = columns["label"] >= 0
        return {"auc": Metric(roc_auc_score(columns["label"][known], columns["anomaly_score"][known]), None)}

    def drawings(self, columns, heading):
        def draw(figure):
            figure.subplots().hist(np.log(columns["anomaly_score"]))

        return {"scores": ("Logarithm of the score.", draw)}
'''


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[Path]:
    """Where the package is installed: its one file, and what pip notes of it."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "mytasks").mkdir()
    (folder / "mytasks" / "__init__.py").write_text(TASK)
    facts = folder / "my_tasks-0.3.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: my-tasks\nVersion: 0.3\n")
    (facts / "entry_points.txt").write_text("[zoo.tasks]\ndistance = mytasks:Distance\n")
    plugins._loaded.clear()
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    yield folder
    sys.path.remove(str(folder))
    plugins._loaded.clear()
    del sys.modules["mytasks"]


@pytest.fixture(scope="module")
def trained(site, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    network = {"class_path": "zoo.deepsets.pfn", "init_args": {"input_dim": 7, "num_classes": 2}}
    split = {name: {"files": [f"sample:top_tagging/{name}"], "rows": [0, 100]} for name in ("train", "val", "test")}
    config = {
        "run_folder": str(folder / "run"),
        "trainer": {"max_epochs": 2, "enable_progress_bar": False},
        "model": {"class_path": "mytasks.Distance", "init_args": {"model": network, "centre": 0.5}},
        "data": split | {"batch_size": 20},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    command.main(["fit", "--config", str(folder / "config.yaml")])
    return folder


def test_it_is_trained_and_judged(trained):
    report = trained / "run" / "report"
    document = json.loads((report / "metrics.json").read_text())
    assert (document["title"], document["task"], document["jets"]) == ("pfn, distance", "Distance", 100)
    assert 0 < document["metrics"]["auc"]["value"] < 1
    assert {path.name for path in report.glob("*.png")} == {"scores.png", "training.png"}
    assert list(Answers.load(report / "predictions.arrow").columns) == ["index", "label", "weight", "anomaly_score"]
    history = (trained / "run" / "metrics.csv").read_text()
    assert {"train_loss", "val_loss", "val_auc"} <= set(history.splitlines()[0].split(","))
    assert (trained / "run" / "checkpoints" / "best.ckpt").is_file()


def test_it_is_published_loaded_and_predicts(trained, site, tmp_path):
    """All that it trained, not only its model; in this process, and by the command line in another."""
    publish_run(trained / "run", tmp_path / "mine", licence="MIT")
    published = zoo.load_pretrained(tmp_path / "mine")
    assert published.config.package == {"name": "my-tasks", "version": "0.3"}
    assert published.config.task["arguments"] == {"centre": 0.5}
    tested = Answers.load(trained / "run" / "report" / "predictions.arrow").sorted()
    found = zoo.predict(published, "sample:top_tagging/test", rows=(0, 100))
    np.testing.assert_allclose(found.columns["anomaly_score"], tested["anomaly_score"], rtol=1e-4, atol=1e-6)
    assert "pip install my-tasks" in (tmp_path / "mine" / "README.md").read_text()

    line = [sys.executable, "-m", "zoo.cli", "predict", "--model", tmp_path / "mine", "sample:top_tagging/test"]
    line += ["--rows", "0", "100", "--out", tmp_path / "scores.arrow"]
    environment = os.environ | {"PYTHONPATH": f"{site}:{REPOSITORY}"}
    subprocess.run(line, env=environment, check=True, capture_output=True, text=True)
    import pyarrow as pa

    table = pa.ipc.open_file(tmp_path / "scores.arrow").read_all()
    np.testing.assert_allclose(table["anomaly_score"].to_numpy(), tested["anomaly_score"], rtol=1e-4, atol=1e-6)


def test_a_folder_of_a_task_that_is_not_installed_says_what_to_install(trained, site, tmp_path):
    publish_run(trained / "run", tmp_path / "mine", licence="MIT")
    code = f"import zoo; zoo.load_pretrained({str(tmp_path / 'mine')!r})"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode
    last = done.stderr.strip().splitlines()[-1]
    assert "no task is called 'mytasks.Distance'" in last
    assert "pip install my-tasks" in last


def test_the_example_of_the_page_learns_one_label_and_is_judged_by_another(tmp_path):
    """The loss depends on the field and not on the class; the area is that of the class."""
    (code,) = re.findall(
        r"```python\n(# mypackage.*?)```", (REPOSITORY / "docs" / "training.md").read_text(), re.DOTALL
    )
    names: dict = {}
    exec(code, names)
    jets = open_store(resolve_file("sample:top_tagging/test")).slice(0, 200)
    region = (np.arange(200) % 3 == 0).astype(np.int64)
    write_store(tmp_path / "jets.arrow", dataclasses.replace(jets, fields={"in_region": region}, source_rows=None))
    data = JetDataModule(train=Split([str(tmp_path / "jets.arrow")]), targets=["in_region"], batch_size=200)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    torch.manual_seed(1)
    task = names["Region"](zoo.create_model("pfn", input_dim=7, num_classes=1)).eval()
    with torch.no_grad():
        (loss, jets_counted), (of_other_class, _) = (
            task.loss(batch, 0),
            task.loss(batch._replace(label=1 - batch.label), 0),
        )
        flipped = batch._replace(targets={"in_region": 1 - batch.targets["in_region"]})
        columns = {name: values.numpy() for name, values in task.predict_step(batch, 0).items()}
        assert loss == of_other_class != task.loss(flipped, 0)[0]
    assert jets_counted == 200
    auc = task.metrics(columns)["auc"].value
    assert task.metrics(columns | {"label": 1 - columns["label"]})["auc"].value == pytest.approx(1 - auc)
