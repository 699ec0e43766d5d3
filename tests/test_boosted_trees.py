"""Boosted trees on events and jets: what they see, what they leave behind, and what is refused."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.metrics import log_loss, roc_auc_score

from tests.hub.test_hub import sign
from zoo import load_pretrained, predict
from zoo.baselines.trees import flatten
from zoo.boosted_trees import MAX_TREES, names_of_inputs
from zoo.cli import main
from zoo.data.datamodule import JetDataModule
from zoo.data.datasets import resolve_file
from zoo.data.readers import read_jets
from zoo.hub import PretrainedError
from zoo.hub.contents import COMMON
from zoo.metrics import background_rejection
from zoo.physics.substructure import observables
from zoo.publish import publish_run
from zoo.report import Predictions
from zoo.training.fine_tuning import find_backbone

#: Where the system lacks the OpenMP library that it uses, there is nothing to test.
lightgbm = pytest.importorskip("lightgbm", exc_type=(ImportError, OSError))

#: Some hundred events hold no photon, and pT has another range among them.
pytestmark = pytest.mark.filterwarnings("ignore::zoo.data.odd_jets.OddJetsWarning")

CONFIG = {
    "seed_everything": 3,
    "trainer": {"max_epochs": 10},
    "model": {"signal_efficiencies": [0.4, 0.7]},
    "data": {
        "dataset": "four_tops",
        "merge": {"background": ["ttH", "ttW", "ttWW", "ttZ"], "signal": ["tttt"]},
        "features": "events",
        "context": "met",
        "train": {"files": ["sample:four_tops/train"], "rows": [0, 800]},
        "val": {"files": ["sample:four_tops/val"], "rows": [0, 400]},
        "test": {"files": ["sample:four_tops/test"], "rows": [100, 500]},
    },
}


def train(folder: Path, *options: str, **changes) -> Path:
    folder.mkdir(exist_ok=True)
    config = folder / "given.yaml"
    config.write_text(yaml.safe_dump(CONFIG | {"data": CONFIG["data"] | changes}))
    main(["baseline", "lightgbm", "--config", str(config), "--run_folder", str(folder / "run"), *options])
    return folder / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Folder of a finished training."""
    return train(tmp_path_factory.mktemp("trees"))


def test_rows_of_a_table_by_hand(jets):
    names = names_of_inputs(JetDataModule(), "pairs")
    rows = flatten("pairs", jets.features, jets.four_momenta, jets.mask, jets.context).numpy()
    assert rows.shape == (8, len(names)) == (8, 18 * 7 + 153 * 4)
    for row, features, momenta, mask in zip(rows, jets.features, jets.four_momenta, jets.mask, strict=True):
        column = dict(zip(names, row, strict=True))
        real = momenta[mask].double().numpy()
        order = np.argsort(-np.hypot(real[:, 1], real[:, 2]), kind="stable")
        for place in (1, 2, 18):
            expected = features[mask][order[place - 1]].numpy() if place <= len(order) else np.full(7, np.nan)
            found = [column[f"{name}_{place}"] for name in ("part_pt_log", "part_dphi")]
            np.testing.assert_array_equal(found, expected[[0, -1]])
        one, other = real[order[1]], real[order[4]]
        energies = [np.linalg.norm(momentum[1:]) for momentum in (one, other)]
        mass2 = 2 * (math.prod(energies) - one[1:] @ other[1:])
        assert column["ln_m2_2_5"] == pytest.approx(math.log(mass2), abs=1e-3)
        pt_one, pt_other = (math.hypot(*momentum[1:3]) for momentum in (one, other))
        assert column["ln_z_2_5"] == pytest.approx(math.log(pt_other / (pt_one + pt_other)), abs=1e-5)
        assert math.isnan(column["ln_kt_2_18"]) == (len(order) < 18)


def test_run_folder_is_that_of_a_tested_run(run):
    names = {path.name for path in run.iterdir()}
    assert names == {"model.txt", "config.yaml", "metrics.csv", "importances.png", "importances.pdf", "report"}
    assert {"metrics.json", "predictions.arrow", "training.png", "scores_by_source.png"} <= {
        path.name for path in (run / "report").iterdir()
    }
    predictions = Predictions.load(run / "report" / "predictions.arrow")
    assert sorted(predictions.index) == list(range(100, 500))
    score = predictions.logits[:, 1] - predictions.logits[:, 0]
    document = json.loads((run / "report" / "metrics.json").read_text())
    auc = roc_auc_score(predictions.label, score)
    assert auc > 0.75
    assert predictions.sources == ("ttH", "ttW", "ttWW", "ttZ", "tttt")
    assert np.array_equal(predictions.source == 4, predictions.label == 1)
    assert document["metrics"]["auc"]["value"] == pytest.approx(auc, abs=1e-9)
    assert {"background_rejection_0.4", "background_rejection_0.7"} <= set(document["metrics"])
    assert (document["facts"]["seed"], document["rows"]) == (3, "events")


def test_trees_end_at_the_lowest_validation_loss(run):
    losses = np.loadtxt(run / "metrics.csv", delimiter=",", skiprows=1)[:, 1]
    booster = lightgbm.Booster(model_file=run / "model.txt")
    assert booster.num_trees() == losses.argmin() + 1 < len(losses) < MAX_TREES
    assert booster.feature_name() == names_of_inputs(JetDataModule("four_tops", "events", context="met"), "objects")
    assert booster.feature_name()[-2:] == ["met_log", "met_phi"]


@pytest.mark.filterwarnings("ignore:val and test share")
def test_saved_trees_give_the_predictions(run, tmp_path):
    """The logits are log-odds: their cross entropy on the validation is the loss that was written."""
    again = train(tmp_path, test={"files": ["sample:four_tops/val"], "rows": [0, 400]})
    assert (again / "model.txt").read_bytes() == (run / "model.txt").read_bytes(), "the same seed, the same trees"
    predictions = Predictions.load(again / "report" / "predictions.arrow")
    probability = 1 / (1 + np.exp(predictions.logits[:, 0] - predictions.logits[:, 1]))
    losses = np.loadtxt(again / "metrics.csv", delimiter=",", skiprows=1)[:, 1]
    assert log_loss(predictions.label, probability) == pytest.approx(losses.min(), rel=1e-5)


def test_a_part_of_the_training_split(run, tmp_path):
    """Fewer jets are fewer in the leaves of the first tree; the same jets are tested, and the option wins."""
    some = train(tmp_path, "--train_jets", "300", train_fraction=0.5)
    dumped = lightgbm.Booster(model_file=some / "model.txt").dump_model()
    assert dumped["tree_info"][0]["tree_structure"]["internal_count"] <= 300
    assert yaml.safe_load((some / "config.yaml").read_text())["data"]["train_jets"] == 300
    tested = [Predictions.load(folder / "report" / "predictions.arrow").index for folder in (some, run)]
    np.testing.assert_array_equal(*tested)
    with pytest.raises(SystemExit, match="2"):
        train(tmp_path / "too many", "--train_jets", "801")


@pytest.mark.slow
def test_seeds_and_pairs_stand_beside_each_other_in_a_comparison(run, tmp_path, capsys):
    other = train(tmp_path / "seed", "--seed", "4")
    assert (other / "model.txt").read_bytes() != (run / "model.txt").read_bytes()
    with_pairs = train(tmp_path / "pairs", "--inputs", "pairs")
    assert lightgbm.Booster(model_file=with_pairs / "model.txt").num_feature() == 18 * 12 + 2 + 153 * 4
    main(["report", str(run), str(other), str(with_pairs), "--out", str(tmp_path / "comparison")])
    rows = (tmp_path / "comparison" / "comparison.csv").read_text().splitlines()
    assert [row.split(",")[:2] for row in rows[1:]] == [["lightgbm", "2"], ["lightgbm_pairs", "1"]]


@pytest.mark.parametrize(("inputs", "number"), [("substructure", 33), ("subjets", 81)])
def test_substructure_of_jets_tells_them_apart(tmp_path, inputs, number):
    """With 2,000 jets as much as a network learns of them, and nothing for events."""
    splits = {name: {"files": [f"sample:top_tagging/{name}"], "rows": [0, 2000]} for name in ("train", "val", "test")}
    config = {"dataset": "top_tagging", "merge": None, "features": "kin", "context": None, **splits}
    run = train(tmp_path / "jets", "--inputs", inputs, **config)
    names = lightgbm.Booster(model_file=run / "model.txt").feature_name()
    assert len(names) == number
    assert {"mass", "tau3_1.0", "smallest_pair_mass"} <= set(names)
    document = json.loads((run / "report" / "metrics.json").read_text())
    assert document["metrics"]["auc"]["value"] > 0.96
    assert document["title"] == f"lightgbm_{inputs}"
    with pytest.raises(SystemExit, match="2"):
        train(tmp_path / "events", "--inputs", inputs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"val": None}}, "val: no split is given; add 'data.val.files'"),
        ({"data": {"batchsize": 3}}, "batchsize"),
        ({"data": None}, "has no 'data'"),
        ({"seed_everything": "many"}, "seed_everything must be a number of 0 or more, not 'many'"),
    ],
)
def test_config_that_cannot_be_used_is_refused(tmp_path, capsys, change, message):
    config = CONFIG | change
    if isinstance(change.get("data"), dict):
        config["data"] = CONFIG["data"] | change["data"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    options = ["--config", str(tmp_path / "config.yaml"), "--run_folder", str(tmp_path / "run")]
    with pytest.raises(SystemExit, match="2"):
        main(["baseline", "lightgbm", *options])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_is_never_overwritten(run, capsys):
    before = (run / "model.txt").read_bytes()
    with pytest.raises(SystemExit, match="2"):
        train(run.parent)
    assert "holds a run already" in capsys.readouterr().err
    assert (run / "model.txt").read_bytes() == before


def test_signal_of_the_config_is_that_of_the_report(run, tmp_path):
    """The same trees, judged by the rejection of the other class."""
    config = tmp_path / "given.yaml"
    data = CONFIG["data"] | {"observers": ["met"]}
    config.write_text(yaml.safe_dump(CONFIG | {"model": CONFIG["model"] | {"signal": 0}, "data": data}))
    main(["baseline", "lightgbm", "--config", str(config), "--run_folder", str(tmp_path / "run")])
    document = json.loads((tmp_path / "run" / "report" / "metrics.json").read_text())
    assert document["background"] == "signal"
    predictions = Predictions.load(run / "report" / "predictions.arrow")
    score = predictions.logits[:, 0] - predictions.logits[:, 1]
    expected = background_rejection(score, predictions.label == 0, 0.7)
    assert document["metrics"]["background_rejection_0.7"]["value"] == pytest.approx(expected.value)
    observed = Predictions.load(tmp_path / "run" / "report" / "predictions.arrow")
    events = read_jets(resolve_file("sample:four_tops/test"))
    np.testing.assert_array_equal(observed.fields["met"], events.fields["met"][observed.index])
    assert expected.value != pytest.approx(background_rejection(-score, predictions.label == 1, 0.7).value)


def require_as_tested(model: str | Path, run: Path, file: str) -> None:
    """Scores of a file are those of the report's predictions."""
    tested = Predictions.load(run / "report" / "predictions.arrow")
    scores = predict(model, file)
    np.testing.assert_allclose(scores.logits[tested.index], tested.logits, rtol=0, atol=1e-5)


def test_published_trees_score_a_file_of_events(run, tmp_path):
    """Objects with their types and the missing momentum; LightGBM is not needed to use them."""
    out = tmp_path / "my.trees"
    main(["publish", str(run), "--out", str(out), "--licence", "MIT", "--paper", "arXiv:2211.05143"])
    assert sorted(path.name for path in out.iterdir()) == sorted({*COMMON, "model.txt"})
    assert (out / "model.txt").read_bytes() == (run / "model.txt").read_bytes()
    trees = load_pretrained(out)
    assert trees.config.model == "lightgbm"
    assert trees.config.observables[:2] == ["part_pt_log_1", "part_e_log_1"]
    assert "Tested on 400 events" in (out / "README.md").read_text()
    require_as_tested(out, run, "sample:four_tops/test")
    code = f"import sys; sys.modules['lightgbm'] = None; import zoo; zoo.load_pretrained({str(out)!r})"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_published_trees_on_observables_need_momenta_alone(tmp_path):
    """Also where the features of the training had further columns; what is damaged or of others is refused."""
    splits = {name: {"files": [f"sample:top_tagging/{name}"], "rows": [0, 400]} for name in ("train", "val", "test")}
    run = train(
        tmp_path, "--inputs", "substructure", dataset="top_tagging", merge=None, context=None, features="kin", **splits
    )
    publish_run(run, tmp_path / "my.trees", licence="MIT", paper="arXiv:2211.05143")
    trees = load_pretrained(tmp_path / "my.trees")
    assert trees.feature_table.input_dim == 0
    assert trees.config.observables == list(observables())
    card = (tmp_path / "my.trees" / "README.md").read_text()
    assert "`tau3_1.0`" in card
    assert "zoo baseline lightgbm --config config.yaml --inputs substructure" in card
    require_as_tested(tmp_path / "my.trees", run, "sample:top_tagging/test")
    with pytest.raises(ValueError, match="is of the kind 'trees'; give a single network"):
        find_backbone(str(tmp_path / "my.trees"))
    text = (tmp_path / "my.trees" / "model.txt").read_text()
    first_leaves = next(line for line in text.splitlines() if line.startswith("leaf_value="))
    for changed, message in (
        (text.replace(first_leaves, first_leaves.replace("0.", "3.")), "logits differ from the stored ones"),
        (
            text.replace("feature_names=mass pt ", "feature_names=pt mass "),
            r"model\.txt: sees other 'observables' than config",
        ),
        (text[: len(text) // 2], r"model\.txt: is no text of boosted trees, or a part of it is missing"),
        (text.replace("\nleft_child=", "\nleft_child=0 ", 1), r"model\.txt: tree 0: left_child must have"),
    ):
        assert changed != text
        (tmp_path / "my.trees" / "model.txt").write_text(changed)
        sign(tmp_path / "my.trees")
        with pytest.raises(PretrainedError, match=message):
            load_pretrained(tmp_path / "my.trees")
