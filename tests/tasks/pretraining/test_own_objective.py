"""A pretraining objective of somebody else, in one file of their package; its backbone is a folder like ours."""

import importlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import zoo
from zoo import create_model, plugins
from zoo.cli import training_command
from zoo.data.datasets import resolve_file
from zoo.data.store import open_store
from zoo.publish import publish_run
from zoo.tasks.pretraining import read_backbone

PAGE = Path(__file__).resolve().parents[3] / "docs" / "pretraining.md"
VALIDATED = [0, 120]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A run of the objective of the docs, and the folder published of it; its package is gone afterwards."""
    folder = tmp_path_factory.mktemp("own")
    (code,) = re.findall(r"```python\n# myobjective.*?\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (entry_points,) = re.findall(r'```toml\n\[project\.entry-points\."zoo\.tasks"\]\n(.*?)```', PAGE.read_text(), re.S)
    (folder / "myobjective.py").write_text(code)
    facts = folder / "my_objective-0.1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: my-objective\nVersion: 0.1\n")
    (facts / "entry_points.txt").write_text("[zoo.tasks]\n" + entry_points.replace('"', ""))
    network = {"class_path": "zoo.particlenet.particlenet_lite", "init_args": {"input_dim": 7, "num_classes": 2}}
    config = {
        "run_folder": str(folder / "run"),
        "trainer": {"max_epochs": 2, "enable_progress_bar": False},
        "model": {"class_path": "myobjective.Multiplicity", "init_args": {"model": network, "learning_rate": 0.02}},
        "data": {
            "train": {"files": ["sample:top_tagging/train"], "rows": [0, 240]},
            "val": {"files": ["sample:top_tagging/val"], "rows": VALIDATED},
            "batch_size": 8,
        },
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    plugins._loaded.clear()
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        training_command.main(["fit", "--config", str(folder / "config.yaml")])
        publish_run(folder / "run", folder / "published", licence="MIT")
    finally:
        sys.path.remove(str(folder))
        plugins._loaded.clear()
        del sys.modules["myobjective"]
    return folder


def test_it_learns_and_is_reported(folder):
    """The loss of the best constant is the variance of what is predicted."""
    document = json.loads((folder / "run" / "report" / "metrics.json").read_text())
    assert (document["title"], document["jets"]) == ("particlenet_lite, multiplicity", 120)
    counts = open_store(resolve_file("sample:top_tagging/val")).slice(*VALIDATED).counts
    loss, off = (document["metrics"][f"val_{name}"] for name in ("loss", "off"))
    assert loss["value"] < 0.8 * np.log(counts).var()
    assert 0 < off["value"] < loss["value"] ** 0.5
    assert 0 < loss["error"] < loss["value"]
    assert "val_probe_auc" in document["metrics"]


def test_its_backbone_is_used_without_its_package(folder):
    published = zoo.load_pretrained(folder / "published")
    assert published.config.kind == "backbone"
    model = create_model("particlenet_lite", input_dim=7, num_classes=2)
    missing, unknown = model.load_state_dict(read_backbone(folder / "run"), strict=False)
    assert unknown == []
    assert {name.partition(".")[0] for name in missing} == {"head"}
    weights = model.state_dict()
    for name, value in published.model.state_dict().items():
        assert name.startswith("head.") or torch.equal(value, weights[name]), name
