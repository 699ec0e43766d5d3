"""A real run becomes a pretrained folder that gives the run's own predictions."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import train
from zoo import load_pretrained
from zoo.cli import main
from zoo.data.batch import JetBatch
from zoo.publish import publish_run
from zoo.report import Predictions


def fit(folder: Path, model: dict) -> Path:
    config = {
        "run_folder": str(folder / "run"),
        "trainer": {"max_epochs": 1, "enable_progress_bar": False},
        "model": {"model": model},
        "data": {
            "train": {"files": ["sample:top_tagging/train"], "rows": [0, 16]},
            "val": {"files": ["sample:top_tagging/val"], "rows": [0, 16]},
            "test": {"files": ["sample:top_tagging/test"], "rows": [0, 20]},
            "batch_size": 8,
        },
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    train.main(["fit", "--config", str(folder / "config.yaml")])
    return folder / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    builder = {"class_path": "zoo.lorentznet.lorentznet", "init_args": {"input_dim": 7, "num_classes": 2}}
    return fit(tmp_path_factory.mktemp("publish"), builder)


def test_a_published_run_predicts_as_it_was_tested(run, tmp_path, jets: JetBatch):
    main(["publish", str(run), "--out", str(tmp_path / "mine"), "--licence", "MIT", "--paper", "arXiv:2201.08187"])
    tagger = load_pretrained(tmp_path / "mine")
    tested = Predictions.load(run / "report" / "predictions.arrow")
    logits = {int(row): value for row, value in zip(tested.index, tested.logits, strict=True)}
    expected = torch.tensor(np.stack([logits[row] for row in jets.index.tolist()]))
    torch.testing.assert_close(tagger(jets.four_momenta, jets.mask), expected, rtol=1e-5, atol=1e-5)
    assert tagger.config.classes == ["qcd", "top"]
    assert set(tagger.config.metrics) >= {"accuracy", "auc", "background_rejection_0.3"}
    assert "arXiv:2201.08187" in (tmp_path / "mine" / "README.md").read_text()


def test_an_untested_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.yaml: no such file; train it"):
        publish_run(tmp_path, tmp_path / "out", licence="MIT", paper="")
    assert not (tmp_path / "out").exists()


def test_a_model_that_nobody_else_can_build_is_refused(run, tmp_path):
    settings = (run / "config.yaml").read_text().replace("zoo.lorentznet.lorentznet", "my.own.network")
    (tmp_path / "report").mkdir()
    (tmp_path / "config.yaml").write_text(settings)
    (tmp_path / "report" / "metrics.json").write_text((run / "report" / "metrics.json").read_text())
    with pytest.raises(ValueError, match="no model is called 'network'"):
        publish_run(tmp_path, tmp_path / "out", licence="MIT", paper="")


def test_a_damaged_report_is_named(run, tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "config.yaml").write_text((run / "config.yaml").read_text())
    (tmp_path / "report" / "metrics.json").write_text((run / "report" / "metrics.json").read_text()[:-20])
    with pytest.raises(ValueError, match=r"metrics\.json: is damaged .*; test it with train\.py test"):
        publish_run(tmp_path, tmp_path / "out", licence="MIT", paper="")
