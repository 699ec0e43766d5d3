"""A data set of one's own is two files: what its columns hold, and which of its files are trained on."""

import json

import awkward as ak
import numpy as np
import pytest

from tests.data.writers import write_parquet
from zoo.cli import main
from zoo.inference import predict

LAYOUT = """
name: tau_jets
units: MeV
classes: [qcd, tau]
label: truth
momenta: {pt: cluster_pt, eta: cluster_eta, phi: cluster_phi, mass: cluster_m}
particles: {part_depth: cluster_depth}
fields: {mu: average_mu}
"""

DATA = """
model:
  init_args:
    model:
      init_args: {{input_dim: 3, num_classes: 2}}
data:
  layout: {folder}/tau_jets_layout.yaml
  features: {folder}/tau_jets_features.yaml
  train: {{files: ['{folder}/*.parquet'], fraction: [0.0, 0.6]}}
  val: {{files: ['{folder}/*.parquet'], fraction: [0.6, 0.8]}}
  test: {{files: ['{folder}/*.parquet'], fraction: [0.8, 1.0]}}
  observers: [mu]
"""

FEATURES = """
features:
  - {name: log_pt, formula: log_pt, centre: 2.0, scale: 0.7}
  - {name: deta, formula: deta}
  - {name: depth, formula: part_depth, centre: 1.0}
"""


def write_jets(path, jets, seed):
    """Jets of a few clusters, in MeV; those of taus are narrow, and their clusters deep."""
    random = np.random.default_rng(seed)
    label, counts = np.arange(jets) % 2, random.integers(2, 9, jets)
    narrow = np.repeat(label, counts)
    size = len(narrow)
    columns = {
        "cluster_pt": random.uniform(5e3, 50e3, size),
        "cluster_eta": random.normal(0.0, np.where(narrow, 0.02, 0.15), size),
        "cluster_phi": random.normal(1.0, np.where(narrow, 0.02, 0.15), size),
        "cluster_m": np.zeros(size),
        "cluster_depth": random.normal(1.0 + narrow, 0.5, size),
    }
    lists = {name: ak.unflatten(values.astype(np.float32), counts) for name, values in columns.items()}
    numbers = {"truth": label, "average_mu": random.uniform(10, 60, jets).astype(np.float32)}
    return write_parquet(path, lists | numbers)


@pytest.fixture
def data_set(tmp_path):
    """The files of the jets, and the files that make them a data set of the zoo."""
    for number in range(2):
        write_jets(tmp_path / f"tau_{number}.parquet", 300, number)
    (tmp_path / "tau_jets_layout.yaml").write_text(LAYOUT)
    (tmp_path / "tau_jets_features.yaml").write_text(FEATURES)
    (tmp_path / "tau_jets.yaml").write_text(DATA.format(folder=tmp_path))
    return tmp_path


def test_a_data_set_is_trained_on_tested_and_predicted(data_set, capsys):
    configs = ["configs/model/pfn.yaml", data_set / "tau_jets.yaml", "configs/recipe/short_pfn.yaml"]
    words = [word for config in configs for word in ("--config", str(config))]
    run = data_set / "run"
    main(["fit", *words, "--run-folder", str(run), "--trainer.max_epochs", "3", "--trainer.enable_progress_bar=false"])
    report = json.loads((run / "report" / "metrics.json").read_text())
    assert report["metrics"]["auc"]["value"] > 0.9
    assert list(report["jets"]) == ["qcd", "tau"]
    assert sum(report["jets"].values()) == 120
    main(["publish", str(run), "--out", str(data_set / "my.tau"), "--licence", "MIT", "--paper", "none"])
    scores = predict(data_set / "my.tau", data_set / "tau_0.parquet", layout=data_set / "tau_jets_layout.yaml")
    assert scores.classes == ("qcd", "tau")
    assert np.mean((scores.score[:, 1] > 0.5) == (scores.label == 1)) > 0.7
    capsys.readouterr()
