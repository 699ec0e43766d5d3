"""A real run becomes a pretrained folder that gives the run's own predictions."""

import dataclasses
import hashlib
import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from zoo import create_model, load_pretrained, predict
from zoo.cli import main
from zoo.cli import training_command as command
from zoo.data.batch import JetBatch, collate, gather
from zoo.data.datasets import JET_COLUMNS, describe_dataset, resolve_file
from zoo.data.features import feature_table
from zoo.data.readers import read_jets
from zoo.data.store import write_store
from zoo.hub import PretrainedError
from zoo.publish import publish_run
from zoo.report import Predictions
from zoo.training.checkpoints import SafeCheckpointIO


def fit(folder: Path, model: dict, data: dict | None = None, num_classes: int = 2) -> Path:
    config = {
        "run_folder": str(folder / "run"),
        "trainer": {"max_epochs": 1, "enable_progress_bar": False, "precision": "bf16-mixed"},
        "model": {"model": model, "num_classes": num_classes},
        "data": data
        or {
            "train": {"files": ["sample:top_tagging/train"], "rows": [0, 16]},
            "val": {"files": ["sample:top_tagging/val"], "rows": [0, 16]},
            "test": {"files": ["sample:top_tagging/test"], "rows": [0, 20]},
            "batch_size": 8,
        },
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    command.main(["fit", "--config", str(folder / "config.yaml")])
    return folder / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    builder = {"class_path": "zoo.lorentznet.lorentznet", "init_args": {"input_dim": 7, "num_classes": 2}}
    return fit(tmp_path_factory.mktemp("publish"), builder)


def test_a_published_run_predicts_as_it_was_tested(run, tmp_path, jets: JetBatch):
    """Trained in bfloat16, but tested in the precision in which the folder predicts."""
    main(["publish", str(run), "--out", str(tmp_path / "mine"), "--licence", "MIT", "--paper", "arXiv:2201.08187"])
    tagger = load_pretrained(tmp_path / "mine")
    tested = Predictions.load(run / "report" / "predictions.arrow")
    logits = {int(row): value for row, value in zip(tested.index, tested.logits, strict=True)}
    expected = torch.tensor(np.stack([logits[row] for row in jets.index.tolist()]))
    torch.testing.assert_close(tagger(jets.four_momenta, jets.mask), expected, rtol=1e-5, atol=1e-5)
    assert tagger.config.classes == ["qcd", "top"]
    assert tagger.ranges.jets > 0
    low, median, high = tagger.ranges.ranges["jet pt (GeV)"]
    assert 500 < low < median < high < 700
    assert set(tagger.config.metrics) >= {"accuracy", "auc", "background_rejection_0.3"}
    card = (tmp_path / "mine" / "README.md").read_text()
    for words in (
        "arXiv:2201.08187",
        "zoo fit --config config.yaml",
        "Tested on 20 jets",
        "max_epochs: 1",
        "| AUC |",
    ):
        assert words in card


def test_a_published_run_on_jetclass_takes_further_columns(tmp_path):
    """Ten classes, 17 features and jets with momenta of their own, by training, test, report and publication."""
    sample = read_jets(resolve_file("sample:top_tagging/test"), rows=(0, 120))
    table, random = feature_table("full"), np.random.default_rng(3)
    columns = {name: random.normal(size=sample.offsets[-1]).astype(np.float32) for name in table.columns}
    own = {name: random.uniform(1, 2, len(sample)).astype(np.float32) for name in JET_COLUMNS}
    facts = describe_dataset("jetclass")
    made = dataclasses.replace(
        sample,
        particles=sample.particles | columns,
        fields=own,
        label=np.arange(len(sample)) % 10,
        metadata=facts.metadata,
    )
    write_store(tmp_path / "jets.arrow", made)
    split = {"files": [str(tmp_path / "jets.arrow")]}
    rows = {"train": [0, 40], "val": [40, 80], "test": [80, 120]}
    data = {"dataset": "jetclass", "features": "full", "batch_size": 20}
    data |= {name: {**split, "rows": numbers} for name, numbers in rows.items()}
    builder = {"class_path": "zoo.deepsets.pfn", "init_args": {"input_dim": 17, "num_classes": 10}}
    run = fit(tmp_path, builder, data, num_classes=10)
    publish_run(run, tmp_path / "mine", licence="MIT", paper="arXiv:1810.05165")
    tagger = load_pretrained(tmp_path / "mine")
    assert tagger.config.classes == list(facts.classes)
    packed = gather(made, np.arange(80, 90), table.columns)
    batch = collate(packed, table)
    given = {name: torch.from_numpy(packed.columns[name]) for name in JET_COLUMNS}
    for name in table.columns:
        given[name] = torch.zeros(batch.mask.shape)
        given[name][batch.mask] = torch.from_numpy(packed.columns[name])
    tested = Predictions.load(run / "report" / "predictions.arrow")
    logits = {int(row): value for row, value in zip(tested.index, tested.logits, strict=True)}
    expected = torch.tensor(np.stack([logits[row] for row in batch.index.tolist()]))
    torch.testing.assert_close(tagger(batch.four_momenta, batch.mask, given), expected, rtol=1e-5, atol=1e-5)


def save_weights(run: Path, model: torch.nn.Module) -> None:
    """As if a run had trained them."""
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    checkpoint = {"state_dict": state, "epoch": 0, "global_step": 0, "callbacks": {"RunCheckpoints": {"seconds": 0}}}
    SafeCheckpointIO().save_checkpoint(checkpoint, run / "checkpoints" / "best.ckpt")


@pytest.mark.parametrize(
    ("room", "name"),
    [
        ("cnn_jetimage", "cnn_jetimage"),
        ("deepsets", "efn"),
        ("particle_transformer", "particle_transformer"),
        ("particlenet", "particlenet_lite"),
    ],
)
def test_other_models_are_published_too(run, tmp_path, room, name, jets: JetBatch):
    """As if a run had trained and tested them: its configuration names another model, its weights are random."""
    model = create_model(name, input_dim=7, num_classes=2).eval()
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["model"]["init_args"]["model"]["class_path"] = f"zoo.{room}.{name}"
    report = shutil.copytree(run / "report", tmp_path / "run" / "report")
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(settings))
    save_weights(tmp_path / "run", model)
    table = read_jets(resolve_file("sample:top_tagging/test"), rows=(0, 20))
    batch = collate(gather(table, np.arange(20)), feature_table("kin"))
    with torch.no_grad():
        logits = model(batch.features, batch.four_momenta, batch.mask).numpy()
    Predictions(logits, table.label, table.weight, batch.index.numpy(), ("qcd", "top")).save(
        report / "predictions.arrow"
    )
    publish_run(tmp_path / "run", tmp_path / "mine", licence="MIT", paper="")
    tagger = load_pretrained(tmp_path / "mine")
    with torch.no_grad():
        expected = model(jets.features, jets.four_momenta, jets.mask)
    torch.testing.assert_close(tagger(jets.four_momenta, jets.mask), expected, rtol=1e-5, atol=1e-5)


def test_a_published_run_on_events_takes_their_context(tmp_path):
    """Merged classes and the missing transverse momentum, by training, test, report and publication."""
    split = {name: {"files": ["sample:four_tops/test"], "rows": rows} for name, rows in ROWS_OF_EVENTS.items()}
    merge = {"background": ["ttH", "ttW", "ttWW", "ttZ"], "signal": ["tttt"]}
    data = {"dataset": "four_tops", "features": "events", "context": "met", "merge": merge, "batch_size": 20, **split}
    arguments = {"input_dim": 12, "num_classes": 2}
    builder = {"class_path": "zoo.particle_transformer.particle_transformer_for_events", "init_args": arguments}
    run = fit(tmp_path, builder, data)
    publish_run(run, tmp_path / "mine", licence="MIT", paper="arXiv:2211.05143")
    tagger = load_pretrained(tmp_path / "mine")
    assert tagger.config.classes == ["background", "signal"]
    card = (tmp_path / "mine" / "README.md").read_text()
    assert "Tested on 40 events (" in card
    assert "It knows events like those of its training only" in card
    tested = Predictions.load(run / "report" / "predictions.arrow")
    assert tested.sources == describe_dataset("four_tops").classes
    assert set(tested.label[tested.source == 4]) == {1}
    assert set(tested.label[tested.source != 4]) == {0}
    table = read_jets(resolve_file("sample:four_tops/test"))
    fields = tagger.context_table.fields
    packed = gather(table, tested.index, tagger.feature_table.columns, fields)
    batch = collate(packed, tagger.feature_table, tagger.context_table)
    given = {name: torch.from_numpy(packed.fields[name]) for name in fields}
    for name, values in packed.columns.items():
        given[name] = torch.zeros(batch.mask.shape, dtype=torch.float64)
        given[name][batch.mask] = torch.from_numpy(values).double()
    found = tagger(batch.four_momenta, batch.mask, given)
    torch.testing.assert_close(found, torch.from_numpy(tested.logits), rtol=1e-4, atol=1e-4)
    scores = predict(tagger, "sample:four_tops/test", rows=tuple(ROWS_OF_EVENTS["test"]))
    np.testing.assert_allclose(scores.logits[tested.index - scores.index[0]], tested.logits, rtol=1e-4, atol=1e-4)
    moved = tagger(batch.four_momenta, batch.mask, given | {"met": 10 * given["met"]})
    assert (moved - found).abs().max() > 1e-3
    with pytest.raises(ValueError, match="field 'met' is missing, which the context needs"):
        tagger(batch.four_momenta, batch.mask, {name: given[name] for name in packed.columns})
    config = tmp_path / "mine" / "config.json"
    values = json.loads(config.read_text())
    values["context"]["context"].pop()
    replace_and_sign(tmp_path / "mine", "config.json", json.dumps(values))
    with pytest.raises(PretrainedError, match="takes 2 context features, 'context' has 1"):
        load_pretrained(tmp_path / "mine")
    values["context"] = tagger.context_table.to_dict()
    values["context"]["context"][0]["centre"] = 99
    replace_and_sign(tmp_path / "mine", "config.json", json.dumps(values))
    with pytest.raises(PretrainedError, match=r"'met_log', computed from .* columns, differs from the stored context"):
        load_pretrained(tmp_path / "mine")


ROWS_OF_EVENTS = {"train": [0, 60], "val": [60, 120], "test": [120, 160]}


def replace_and_sign(folder: Path, name: str, content: str) -> None:
    """Replace a file of a pretrained folder together with its checksum."""
    old, new = (hashlib.sha256(text).hexdigest() for text in ((folder / name).read_bytes(), content.encode()))
    (folder / name).write_text(content)
    (folder / "SHA256SUMS").write_text((folder / "SHA256SUMS").read_text().replace(old, new))


def test_a_run_is_no_pretrained_folder_yet(run):
    with pytest.raises(
        PretrainedError, match=f"is a run; make a pretrained folder of it, zoo publish {run} --out NAME, or use"
    ):
        load_pretrained(run)


def test_an_untested_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.yaml: no such file; train it"):
        publish_run(tmp_path, tmp_path / "out", licence="MIT", paper="")
    assert not (tmp_path / "out").exists()


def test_a_model_of_the_same_name_is_refused(tmp_path, monkeypatch):
    """Somebody's own ParticleNet with k = 2 has the weights of ours, and other logits."""
    (tmp_path / "mypkg.py").write_text(
        "from zoo.particlenet import ParticleNet\n\nDIMS = ((32, 32, 32), (64, 64, 64))\n\n\n"
        "def particlenet_lite(input_dim: int, num_classes: int) -> ParticleNet:\n"
        "    return ParticleNet(input_dim, num_classes, num_neighbors=2, conv_dims=DIMS, head_dim=128)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    builder = {"class_path": "mypkg.particlenet_lite", "init_args": {"input_dim": 7, "num_classes": 2}}
    run = fit(tmp_path, builder)
    theirs = importlib.import_module("mypkg").particlenet_lite(7, 2)
    ours = create_model("particlenet_lite", input_dim=7, num_classes=2)
    assert {k: v.shape for k, v in theirs.state_dict().items()} == {k: v.shape for k, v in ours.state_dict().items()}
    assert json.loads((run / "report" / "metrics.json").read_text())["title"] == "mypkg.particlenet_lite"
    with pytest.raises(ValueError, match=r"model\.model: mypkg\.particlenet_lite is not the builder of a model of zoo"):
        publish_run(run, tmp_path / "out", licence="MIT", paper="")
    settings = (run / "config.yaml").read_text().replace("mypkg.particlenet_lite", "zoo.particlenet.particlenet_lite")
    (run / "config.yaml").write_text(settings)
    with pytest.raises(ValueError, match=r"predictions\.arrow: the weights and config\.yaml give other logits"):
        publish_run(run, tmp_path / "out", licence="MIT", paper="")
    assert not (tmp_path / "out").exists()


def test_weights_that_were_not_tested_are_refused(run, tmp_path):
    changed = shutil.copytree(run, tmp_path / "run")
    save_weights(changed, create_model("lorentznet", input_dim=7, num_classes=2))
    with pytest.raises(ValueError, match="metrics of the report are not those of these weights: test the run again"):
        publish_run(changed, tmp_path / "out", licence="MIT", paper="")
    changed = shutil.copytree(run, tmp_path / "other")
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["data"]["test"]["rows"] = [40, 60]
    (changed / "config.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(ValueError, match=r"predictions\.arrow: has no row 40 of the test split"):
        publish_run(changed, tmp_path / "out", licence="MIT", paper="")


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"class_path": "lightgbm", "inputs": "stars"}},
        {"model": {"model": "pfn"}},
        {"model": None},
        {"data": None},
    ],
)
def test_a_run_of_no_network_or_no_data_is_refused(run, tmp_path, change):
    settings = yaml.safe_load((run / "config.yaml").read_text()) | change
    settings = {key: value for key, value in settings.items() if value is not None}
    (tmp_path / "report").mkdir()
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    (tmp_path / "report" / "metrics.json").write_text((run / "report" / "metrics.json").read_text())
    with pytest.raises(ValueError, match=r"config\.yaml: has no 'data', or neither a task with a network under model"):
        publish_run(tmp_path, tmp_path / "out", licence="MIT", paper="")
    assert not (tmp_path / "out").exists()


def test_a_damaged_report_is_named(run, tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "config.yaml").write_text((run / "config.yaml").read_text())
    (tmp_path / "report" / "metrics.json").write_text((run / "report" / "metrics.json").read_text()[:-20])
    with pytest.raises(ValueError, match=r"metrics\.json: is damaged .*; test it with zoo test"):
        publish_run(tmp_path, tmp_path / "out", licence="MIT", paper="")
