"""Reports of real predictions: what is written, what is printed, and what is refused."""

import csv
import importlib.metadata
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pyarrow as pa
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from matplotlib import rcParams
from matplotlib.figure import Figure
from rich.console import Console
from sklearn.metrics import roc_auc_score

import zoo
from tests.test_files import small_disk
from zoo import report
from zoo.metrics import SIGNAL_EFFICIENCIES
from zoo.report import (
    Answers,
    Findings,
    Predictions,
    compare_label_counts,
    compare_runs,
    judge_classes,
    print_table,
)
from zoo.report.drawings import draw_confusion, draw_training
from zoo.report.pictures import add_legend, labelled_axes
from zoo.report.significance import Yields, show_significance

PICTURES = ("rejection", "roc", "significance_improvement", "scores")


def predictions(seed: int = 1, jets: int = 600, separation: float = 2.0, **changes) -> Predictions:
    """Two Gaussian classes; the labels are the same for every seed."""
    random = np.random.default_rng(seed)
    label = np.arange(jets) // 10 % 2
    score = random.normal(size=jets) + separation * label
    columns = {
        "logits": np.stack([-score, score - 1], axis=1),
        "label": label,
        "weight": np.ones(jets),
        "index": np.arange(jets),
        "classes": ("qcd", "top"),
    }
    return Predictions(**columns | changes)


def merged_predictions(**changes) -> Predictions:
    """The same with a label made of three sources: 0 and 2 are background."""
    source = np.where(predictions().label == 1, 1, 2 * (np.arange(600) % 3 == 0))
    return predictions(**{"source": source, "sources": ("ttH", "tttt", "ttZ"), **changes})


def write_report(
    folder: Path,
    predictions: Predictions,
    *,
    title: str,
    background: int = 0,
    signal_efficiencies=SIGNAL_EFFICIENCIES,
    **made: Any,
) -> dict:
    """The report on the classes of some predictions."""
    judged = judge_classes(predictions, title, background=background, signal_efficiencies=signal_efficiencies)
    return report.write_report(folder, judged, **made)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run folder with a report, made from a real training history."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    train_briefly(folder)
    (folder / "config.yaml").write_text("seed_everything: 1\nmodel: {learning_rate: 0.01}\n")
    write_report(
        folder / "report",
        predictions(),
        title="Gaussian",
        history=folder / "metrics.csv",
        config=folder / "config.yaml",
        facts={"command": "python train.py fit", "wall_time_s": np.float64(12.5), "memory": float("nan")},
    )
    return folder


class Regression(pl.LightningModule):
    """Logs a loss a batch and an epoch, as Lightning's CSVLogger writes them."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def training_step(self, batch):
        loss = torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])
        self.log("train_loss", loss, on_step=True, on_epoch=False)
        return loss

    def validation_step(self, batch):
        logits = self.layer(batch[0])
        self.log("val_loss", torch.nn.functional.cross_entropy(logits, batch[1]))
        self.log("val_auc", torch.tensor(roc_auc_score(batch[1], logits.diff()[:, 0])))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train_briefly(folder: Path) -> None:
    features = torch.randn(64, 2)
    data = torch.utils.data.TensorDataset(features, (features[:, 0] > 0).long())
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=CSVLogger(folder.parent, name="", version=folder.name),
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Regression(), torch.utils.data.DataLoader(data, 16), torch.utils.data.DataLoader(data, 64))


def make_run(folder: Path, seed: int, rate: float, **options) -> Path:
    """A run folder whose report holds the metrics of one seed."""
    folder.mkdir(parents=True)
    settings = {"seed_everything": seed, "run_folder": str(folder), "data": {"seed": seed}, "model": {"rate": rate}}
    (folder / "config.yaml").write_text(json.dumps(settings))  # JSON is YAML
    write_report(folder / "report", predictions(seed, **options), title="Gaussian", config=folder / "config.yaml")
    return folder


def printed(metrics: dict, width: int = 80, encoding: str = "utf-8") -> str:
    with open(os.devnull, "w", encoding=encoding) as sink:
        console = Console(width=width, record=True, file=sink)
        print_table(metrics, console)
        return console.export_text()


class TestPredictions:
    def test_come_back_from_the_file_bit_by_bit(self, tmp_path):
        saved = predictions(weight=np.random.default_rng(0).random(600))
        saved.save(tmp_path / "predictions.arrow")
        loaded = Predictions.load(tmp_path / "predictions.arrow")
        for name in ("logits", "label", "weight", "index"):
            assert np.array_equal(getattr(saved, name), getattr(loaded, name))
        assert loaded.classes == ("qcd", "top")
        assert loaded.logits.dtype == np.float32
        assert [path.name for path in tmp_path.iterdir()] == ["predictions.arrow"]

    def test_keep_the_source_of_merged_classes(self, tmp_path):
        saved = merged_predictions()
        saved.save(tmp_path / "predictions.arrow")
        loaded = Predictions.load(tmp_path / "predictions.arrow")
        assert loaded.sources == ("ttH", "tttt", "ttZ")
        assert np.array_equal(loaded.source, saved.source)
        assert loaded.source.dtype == np.int64
        with pytest.raises(ValueError, match=r"source must lie in 0\.\.1"):
            merged_predictions(sources=("ttH", "tttt"))
        with pytest.raises(ValueError, match="source and sources belong together"):
            merged_predictions(source=None)

    def test_are_plain_arrow_for_other_programs(self, tmp_path):
        predictions().save(tmp_path / "predictions.arrow")
        with pa.OSFile(str(tmp_path / "predictions.arrow")) as file:
            table = pa.ipc.open_file(file).read_all()
        assert table.column_names == ["logits", "label", "weight", "index"]
        assert table["logits"][3].as_py() == pytest.approx(predictions().logits[3].tolist())

    @pytest.mark.parametrize("merged", [False, True])
    def test_no_flipped_bit_gives_other_numbers(self, tmp_path, merged):
        path = tmp_path / "predictions.arrow"
        source = {"source": np.arange(40) % 3, "sources": ("ttH", "tttt", "ttZ")} if merged else {}
        saved = predictions(jets=40, **source)
        saved.save(path)
        content = path.read_bytes()
        refused = 0
        for place in range(0, len(content), 3):
            path.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
            try:
                loaded = Predictions.load(path)
            except ValueError:
                refused += 1
            else:  # padding carries nothing
                assert np.array_equal(loaded.logits, saved.logits)
                assert np.array_equal(loaded.label, saved.label)
                assert np.array_equal(loaded.index, saved.index)
                assert loaded.sources == saved.sources
                assert not merged or np.array_equal(loaded.source, saved.source)
        assert refused > len(content) / 6

    def test_cut_file_is_refused(self, tmp_path):
        path = tmp_path / "predictions.arrow"
        predictions(jets=40).save(path)
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(ValueError, match=r"predictions\.arrow .*test the run again"):
            Predictions.load(path)

    def test_missing_file_and_foreign_file_are_refused(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"nothing\.arrow is missing"):
            Predictions.load(tmp_path / "nothing.arrow")
        with pa.OSFile(str(tmp_path / "other.arrow"), "wb") as file:
            table = pa.table({"x": [1, 2]})
            with pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)
        with pytest.raises(ValueError, match=r"other\.arrow holds no predictions"):
            Predictions.load(tmp_path / "other.arrow")

    def test_shapes_and_labels_are_checked(self):
        with pytest.raises(ValueError, match=r"logits must be \(batch, 3 classes\)"):
            predictions(classes=("a", "b", "c"))
        with pytest.raises(ValueError, match=r"weight must be \(600,\)"):
            predictions(weight=np.ones(599))
        with pytest.raises(ValueError, match="label must hold int64, got float64"):
            predictions(label=np.full(600, 0.5))
        with pytest.raises(ValueError, match=r"label must lie in 0\.\.1"):
            predictions(label=np.full(600, 2))


class TestWriteReport:
    def test_folder_holds_everything_and_nothing_else(self, run):
        names = {path.name for path in (run / "report").iterdir()}
        pictures = {f"{name}.{kind}" for name in (*PICTURES, "training") for kind in ("png", "pdf")}
        assert names == {"metrics.json", "predictions.arrow", "README.md"} | pictures
        for name in pictures:
            content = (run / "report" / name).read_bytes()
            assert content.startswith(b"\x89PNG" if name.endswith("png") else b"%PDF")
            assert len(content) > 5000

    def test_figures_have_errors_and_counts(self, run):
        document = json.loads((run / "report" / "metrics.json").read_text())
        truth = predictions()
        score = truth.logits[:, 1] - truth.logits[:, 0]
        assert document["metrics"]["auc"]["value"] == pytest.approx(roc_auc_score(truth.label, score), abs=1e-12)
        threshold = np.sort(score[truth.label == 1])[-90]  # 0.3 of 300
        passed = int((score[truth.label == 0] >= threshold).sum())
        rejection = document["metrics"]["background_rejection_0.3"]
        assert rejection["n_pass"] == passed
        assert rejection["n_background"] == 300
        assert document["jets"] == {"qcd": 300, "top": 300}
        assert all("error" in figure for figure in document["metrics"].values())
        assert document["facts"] == {"command": "python train.py fit", "wall_time_s": 12.5, "memory": None}
        assert document["settings"]["model"] == {"learning_rate": 0.01}

    def test_page_tells_figures_settings_pictures_and_origin(self, run):
        page = (run / "report" / "README.md").read_text()
        assert page.startswith("# Gaussian\n")
        assert "600 jets (300 qcd, 300 top)" in page
        assert "| command | python train.py fit |" in page
        assert "learning_rate: 0.01" in page
        for line in page.splitlines():
            if line.startswith("!["):
                assert (run / "report" / line.split("](")[1].rstrip(")")).is_file()
        assert page.count("![") == 5

    def test_same_predictions_give_the_same_bytes_quietly(self, run, tmp_path, caplog):
        before = dict(rcParams)
        with caplog.at_level(logging.WARNING):
            write_report(tmp_path, predictions(), title="Gaussian")
        for name in PICTURES:
            for kind in ("png", "pdf"):
                again = (tmp_path / f"{name}.{kind}").read_bytes()
                assert again == (run / "report" / f"{name}.{kind}").read_bytes()
        assert (tmp_path / "predictions.arrow").read_bytes() == (run / "report" / "predictions.arrow").read_bytes()
        assert dict(rcParams) == before
        assert not [record for record in caplog.records if record.name.startswith("matplotlib")]

    def test_importing_loads_no_plotting_and_no_lightning(self):
        code = "import sys, zoo.report; print('lightning' in sys.modules, 'mplhep' in sys.modules)"
        completed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
        assert completed.stdout.split() == ["False", "False"]

    @pytest.mark.parametrize("separation", [0.0, 60.0])
    def test_guessing_and_complete_separation_are_reported(self, tmp_path, separation):
        document = write_report(tmp_path, predictions(separation=separation), title="Extreme")
        rejection = document["metrics"]["background_rejection_0.3"]
        assert rejection["is_bound"] == (separation > 0)
        assert (rejection["error"] is None) == (separation > 0)
        assert ("> " in printed(document)) == (separation > 0)

    def test_equal_scores_and_six_jets_are_reported(self, tmp_path):
        document = write_report(tmp_path / "equal", predictions(logits=np.zeros((600, 2))), title="Equal")
        assert document["metrics"]["auc"]["value"] == 0.5
        assert write_report(tmp_path / "few", predictions(jets=12), title="Few")["jets"] == {"qcd": 10, "top": 2}

    def test_many_classes_report_each_signal(self, tmp_path):
        random = np.random.default_rng(2)
        label = random.integers(0, 3, 600)
        logits = random.normal(size=(600, 3)) + 2 * np.eye(3)[label]
        many = Predictions(logits, label, random.random(600) + 0.1, np.arange(600), ("Hbb", "QCD", "Tbqq"))
        document = write_report(tmp_path, many, title="Three", background=1)
        assert {"background_rejection_0.5_Hbb", "background_rejection_0.5_Tbqq"} <= set(document["metrics"])
        assert "1/eB at eS = 0.5 (Tbqq)" in printed(document, width=120)
        assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")

    def test_confusion_has_a_row_for_each_source_and_its_numbers(self):
        logits = np.eye(3)[[0, 0, 1, 2, 2, 2, 2, 1]]
        source = np.array([0, 0, 0, 0, 1, 1, 3, 3])
        merged = Predictions(
            logits, np.array([0, 0, 0, 0, 1, 1, 2, 2]), np.ones(8), np.arange(8), ("a", "b", "c"), source, tuple("pqrs")
        )
        figure = Figure()
        draw_confusion(figure, merged, ("left", "right"))
        axes = figure.axes[0]
        assert [text.get_text() for text in axes.get_yticklabels()] == ["p\n4", "q\n2", "r\n0", "s\n2"]
        cells = [text.get_text() for text in axes.texts]
        assert cells == ["0.50", "0.25", "0.25", "0.00", "0.00", "1.00", "", "", "", "0.00", "0.50", "0.50"]

    def test_merged_classes_show_their_sources(self, tmp_path):
        document = write_report(tmp_path, merged_predictions(), title="Merged")
        assert document["sources"] == {"ttH": 200, "tttt": 300, "ttZ": 100}
        assert document["jets"] == {"qcd": 300, "top": 300}
        assert (tmp_path / "scores_by_source.png").read_bytes().startswith(b"\x89PNG")
        page = (tmp_path / "README.md").read_text()
        assert "They come from 200 ttH, 300 tttt, 100 ttZ." in page
        assert "](scores_by_source.png)" in page

    def test_events_are_called_events_and_rejections_stand_where_asked(self, tmp_path):
        events = merged_predictions(rows="events")
        document = write_report(tmp_path / "report", events, title="Events", signal_efficiencies=(0.3, 0.7))
        judged = {name for name in document["metrics"] if name.startswith("background_rejection")}
        assert judged == {"background_rejection_0.3", "background_rejection_0.7"}
        assert Predictions.load(tmp_path / "report" / "predictions.arrow").rows == "events"
        page = (tmp_path / "report" / "README.md").read_text()
        assert "Tested on 600 events (" in page
        assert "jet" not in page + printed(document)
        compare_runs([tmp_path], tmp_path / "out")
        assert "600 test events" in (tmp_path / "out" / "comparison.md").read_text()


class TestRefusals:
    @pytest.mark.filterwarnings("error")
    def test_signed_weights_are_counted_and_said(self, tmp_path):
        weight = np.where(np.random.default_rng(3).random(600) < 0.25, -1.0, 1.0)
        document = write_report(tmp_path / "report", predictions(weight=weight), title="signed")
        assert document["negative_weights"] == (weight < 0).sum()
        assert "negative: metrics are of signed sums" in (tmp_path / "report" / "README.md").read_text()
        wild = np.where(np.random.default_rng(3).random(600) < 0.45, -1.0, 1.0)  # whose intervals have no upper end
        metrics = write_report(tmp_path / "wild", predictions(weight=wild), title="wild")["metrics"]
        assert metrics["background_rejection_0.5"]["upper"] is None
        assert not metrics["background_rejection_0.5"]["is_bound"]
        assert ", inf]" in (tmp_path / "wild" / "README.md").read_text()
        effective = [weight[predictions().label == label].sum() ** 2 / 300 for label in (0, 1)]
        assert document["metrics"]["auc"]["n_jets"] == pytest.approx(sum(effective))

    def test_bad_predictions_leave_an_old_report_alone(self, run, tmp_path):
        shutil.copytree(run / "report", tmp_path, dirs_exist_ok=True)
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        logits = predictions(jets=200).logits.copy()
        logits[7] = np.nan
        with pytest.raises(ValueError, match=r"logits of 1 of 200 jets are NaN or infinite \(index \[7\]\)"):
            write_report(tmp_path, predictions(jets=200, logits=logits), title="New")
        with pytest.raises(ValueError, match="no signal among"):
            write_report(tmp_path, predictions(jets=200, label=np.zeros(200, int)), title="New")
        label = np.where(np.arange(200) < 3, -1, predictions(jets=200).label)
        with pytest.raises(ValueError, match="3 of 200 jets have no label"):
            write_report(tmp_path, predictions(jets=200, label=label), title="New")
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    def test_a_full_disk_leaves_an_old_report_alone(self, run, tmp_path):
        shutil.copytree(run / "report", tmp_path, dirs_exist_ok=True)
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        with small_disk(2**16), pytest.raises(OSError, match=r"File too large: '.*'"):
            write_report(tmp_path, predictions(jets=4000), title="New")
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    def test_a_checkout_that_is_not_installed_gets_its_report(self, tmp_path, monkeypatch):
        def not_installed(name: str) -> str:
            raise importlib.metadata.PackageNotFoundError(name)

        monkeypatch.setattr(importlib.metadata, "version", not_installed)
        document = write_report(tmp_path / "report", predictions(), title="x")
        assert document["versions"] == {"zoo": zoo.__version__, "torch": "not known", "numpy": "not known"}

    def test_bad_history_and_config_are_named(self, tmp_path):
        (tmp_path / "metrics.csv").write_text("step,train_loss\n0,0.5\n1,half\n")
        with pytest.raises(ValueError, match=r"metrics\.csv, line 3: is damaged \(column 'train_loss' holds 'half'"):
            write_report(tmp_path / "report", predictions(), title="x", history=tmp_path / "metrics.csv")
        with pytest.raises(FileNotFoundError, match=r"nothing\.csv is missing"):
            write_report(tmp_path / "report", predictions(), title="x", history=tmp_path / "nothing.csv")
        (tmp_path / "config.yaml").write_text("model: [1, 2\n")
        with pytest.raises(ValueError, match=r"config\.yaml: is no YAML"):
            write_report(tmp_path / "report", predictions(), title="x", config=tmp_path / "config.yaml")
        assert not (tmp_path / "report").exists()

    def test_history_without_curves_gives_no_picture(self, tmp_path):
        (tmp_path / "metrics.csv").write_text("step,test_auc\n0,0.5\n")
        write_report(tmp_path / "report", predictions(), title="x", history=tmp_path / "metrics.csv")
        assert not (tmp_path / "report" / "training.png").exists()


class TestPrintTable:
    def test_shows_each_figure_with_error_and_counts_in_80_columns(self, run):
        document = json.loads((run / "report" / "metrics.json").read_text())
        text = printed(document)
        figures = document["metrics"]
        assert "600 test jets" in text
        assert f"{figures['accuracy']['value']:.3f} ± {figures['accuracy']['error']:.3f}" in text
        assert f"{figures['background_rejection_0.5']['n_pass']} of 300 background jets" in text
        for row in ("accuracy", "AUC", "1/eB at eS = 0.3", "1/eB at eS = 0.5"):
            assert row in text
        assert "SIC" not in text

    @pytest.mark.parametrize(
        ("value", "error", "expected"),
        [(2195.3, 172.8, "2195 ± 173"), (0.97931, 0.00112, "0.9793 ± 0.0011"), (41.27, 2.66, "41.3 ± 2.7")],
    )
    def test_digits_follow_the_error(self, value, error, expected):
        figure = {"value": value, "error": error, "n_jets": 10.0}
        assert expected in printed({"title": "Digits", "jets": {"a": 1}, "metrics": {"accuracy": figure}})

    def test_few_passing_jets_show_their_interval(self):
        figure = {"value": 1000.0, "error": 900.0, "lower": 506.3, "upper": 2212.8, "n_pass": 3, "n_background": 3000}
        document = {
            "title": "Few",
            "jets": {"a": 1},
            "metrics": {"background_rejection_0.3": figure | {"is_bound": False}},
        }
        assert "1000 [506, 2213]" in printed(document)
        assert "3 of 3,000 background jets" in printed(document)

    def test_plain_ascii_terminals_get_plain_ascii(self, run):
        document = json.loads((run / "report" / "metrics.json").read_text())
        assert printed(document, encoding="ascii").isascii()


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    """Three seeds of one training, and one run with another setting."""
    folder = tmp_path_factory.mktemp("compared")
    seeds = [make_run(folder / f"wide-seed{seed}", seed, 0.1) for seed in (1, 2, 3)]
    return [*seeds, make_run(folder / "other", 4, 0.2, separation=1.5)]


class TestCompareRuns:
    def test_seeds_become_mean_spread_and_number(self, runs, tmp_path, capsys):
        compare_runs(runs, tmp_path / "out")
        values = []
        for run in runs[:3]:
            truth = Predictions.load(run / "report" / "predictions.arrow")
            values.append(roc_auc_score(truth.label, truth.logits[:, 1] - truth.logits[:, 0]))
        with open(tmp_path / "out" / "comparison.csv", newline="") as file:
            first, second = csv.DictReader(file)
        assert (first["model"], second["model"]) == ("Gaussian (wide)", "Gaussian (other)")
        assert (first["seeds"], second["seeds"]) == ("3", "1")
        assert float(first["auc"]) == pytest.approx(sum(values) / 3)
        assert float(first["auc_spread"]) == pytest.approx(np.std(values, ddof=1))
        assert second["auc_spread"] == ""
        mean, spread = sum(values) / 3, float(np.std(values, ddof=1))
        output = capsys.readouterr().out
        assert f"{mean:.3f} ± {spread:.3f}" in output
        assert max(map(len, output.splitlines()[:6])) <= 80
        page = (tmp_path / "out" / "comparison.md").read_text()
        assert "Gaussian (wide)" in page
        assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".md", ".csv", ".png", ".pdf"}

    def test_one_title_and_one_setting_is_one_row(self, runs, tmp_path):
        compare_runs(runs[:3], tmp_path)
        with open(tmp_path / "comparison.csv", newline="") as file:
            (row,) = csv.DictReader(file)
        assert (row["model"], row["seeds"], row["runs"]) == ("Gaussian", "3", "wide-seed1 wide-seed2 wide-seed3")

    def test_a_lower_bound_stays_one_in_the_mean(self, runs, tmp_path):
        clear = make_run(tmp_path / "clear", 5, 0.1, separation=60.0)
        compare_runs([runs[0], clear], tmp_path / "out")
        (row,) = [line for line in (tmp_path / "out" / "comparison.md").read_text().splitlines() if "Gaussian" in line]
        assert row.count("> ") == 2

    def test_run_without_report_names_file_and_remedy(self, runs, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"report/metrics\.json is missing: test the run first"):
            compare_runs([runs[0], tmp_path], tmp_path / "out")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"format": "other"}', b"\xff\xfe"])
    def test_damaged_figures_are_refused(self, runs, tmp_path, content):
        broken = Path(shutil.copytree(runs[0], tmp_path / "broken"))
        (broken / "report" / "metrics.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"metrics\.json is damaged or no report of this version"):
            compare_runs([runs[1], broken], tmp_path / "out")

    def test_figures_that_are_no_numbers_are_refused(self, runs, tmp_path):
        broken = Path(shutil.copytree(runs[0], tmp_path / "broken"))
        path = broken / "report" / "metrics.json"
        document = json.loads(path.read_text())
        document["metrics"]["auc"]["value"] = "high"
        path.write_text(json.dumps(document))
        with pytest.raises(ValueError, match=r"metrics\.json is damaged"):
            compare_runs([broken], tmp_path / "out")

    def test_lost_figures_are_refused(self, runs, tmp_path):
        broken = Path(shutil.copytree(runs[1], tmp_path / "broken"))
        path = broken / "report" / "metrics.json"
        document = json.loads(path.read_text())
        del document["metrics"]["background_rejection_0.3"]
        path.write_text(json.dumps(document))
        with pytest.raises(ValueError, match="hold different metrics: test both again"):
            compare_runs([runs[0], broken], tmp_path / "out")

    def test_missing_predictions_are_refused(self, runs, tmp_path):
        broken = Path(shutil.copytree(runs[0], tmp_path / "broken"))
        (broken / "report" / "predictions.arrow").unlink()
        with pytest.raises(FileNotFoundError, match=r"predictions\.arrow is missing"):
            compare_runs([broken], tmp_path / "out")

    def test_predictions_of_another_test_are_refused(self, runs, tmp_path):
        broken = Path(shutil.copytree(runs[0], tmp_path / "broken"))
        predictions(jets=200).save(broken / "report" / "predictions.arrow")
        with pytest.raises(ValueError, match="do not belong together"):
            compare_runs([broken], tmp_path / "out")

    def test_other_jets_and_classes_are_refused(self, runs, tmp_path):
        fewer = make_run(tmp_path / "fewer", 7, 0.1, jets=400)
        with pytest.raises(ValueError, match=r"jets \{'qcd': 200, 'top': 200\} against \{'qcd': 300, 'top': 300\}"):
            compare_runs([runs[0], fewer], tmp_path / "out")
        moved = Path(shutil.copytree(runs[1], tmp_path / "moved"))
        predictions(2, index=np.arange(600) + 1).save(moved / "report" / "predictions.arrow")
        with pytest.raises(ValueError, match="different jets"):
            compare_runs([runs[0], moved], tmp_path / "out")
        other = make_run(tmp_path / "other", 7, 0.1, classes=("gluon", "quark"))
        with pytest.raises(ValueError, match=r"classes \['gluon', 'quark'\] against \['qcd', 'top'\]"):
            compare_runs([runs[0], other], tmp_path / "out")

    def test_one_run_twice_is_refused(self, runs, tmp_path):
        with pytest.raises(ValueError, match="hold the same predictions: leave one out"):
            compare_runs([runs[0], runs[1], runs[0]], tmp_path / "out")

    def test_jets_may_stand_in_another_order(self, runs, tmp_path):
        truth = predictions(2)
        order = np.random.default_rng(0).permutation(600)
        columns = {name: getattr(truth, name)[order] for name in ("logits", "label", "weight", "index")}
        shuffled = Path(shutil.copytree(runs[1], tmp_path / "shuffled"))
        Predictions(**columns, classes=truth.classes).save(shuffled / "report" / "predictions.arrow")
        compare_runs([runs[0], shuffled], tmp_path / "out")
        assert (tmp_path / "out" / "comparison.png").is_file()

    def test_an_older_comparison_and_the_runs_are_never_overwritten(self, runs, tmp_path):
        compare_runs(runs[:2], tmp_path / "out")
        with pytest.raises(FileExistsError, match="add --force"):
            compare_runs(runs[:2], tmp_path / "out")
        compare_runs(runs[:2], tmp_path / "out", force=True)
        figures = runs[0] / "report" / "metrics.json"
        before = figures.read_bytes()
        (tmp_path / "out" / "comparison.csv").unlink()
        (tmp_path / "out" / "comparison.csv").symlink_to(figures)
        with pytest.raises(ValueError, match="an input"):
            compare_runs(runs[:2], tmp_path / "out", force=True)
        assert figures.read_bytes() == before

    def test_a_file_in_the_way_is_named(self, runs, tmp_path):
        (tmp_path / "out").write_text("")
        with pytest.raises(FileExistsError, match="out is a file"):
            compare_runs(runs[:1], tmp_path / "out")


class TestOtherTasks:
    """Runs that judge no classes have metrics of their own."""

    @staticmethod
    def write_run(folder: Path, seed: int, jets: int = 50, **changes: Any) -> Path:
        true = np.linspace(0, 1, jets)
        said = true + np.random.default_rng(seed).normal(size=jets)
        answers = Answers({"index": np.arange(jets), "jet_mass": said, "jet_mass_true": true})
        metrics = {"jet_mass_mae": {"value": float(np.abs(said - true).mean()), "error": 0.1}}
        document = {"format": "zoo-task-report", "task": "Regression", "split": "test", "jets": jets, "rows": "jets"}
        findings = Findings(
            "pfn, regression",
            document | {"metrics": metrics} | changes,
            *("", "", "", {}),
            files={"predictions.arrow": answers.to_bytes()},
        )
        folder.mkdir()
        (folder / "config.yaml").write_text(f"seed_everything: {seed}\nmodel: {{}}\n")
        report.write_report(folder / "report", findings, config=folder / "config.yaml")
        return folder

    def test_seeds_become_mean_and_spread(self, tmp_path, capsys):
        folders = [self.write_run(tmp_path / str(seed), seed) for seed in (1, 2, 3)]
        compare_runs(folders, tmp_path / "out")
        values = [json.loads((each / "report" / "metrics.json").read_text())["metrics"] for each in folders]
        values = [each["jet_mass_mae"]["value"] for each in values]
        with open(tmp_path / "out" / "comparison.csv", newline="") as file:
            (row,) = csv.DictReader(file)
        assert float(row["jet_mass_mae"]) == pytest.approx(np.mean(values))
        assert float(row["jet_mass_mae_spread"]) == pytest.approx(np.std(values, ddof=1))
        assert f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}" in capsys.readouterr().out
        assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".md", ".csv"}

    def test_what_cannot_be_compared_is_refused(self, runs, tmp_path):
        mine = self.write_run(tmp_path / "mine", 1)
        with pytest.raises(ValueError, match="trained for different tasks"):
            compare_runs([mine, runs[0]], tmp_path / "out")
        with pytest.raises(ValueError, match="trained for different tasks"):
            compare_runs([mine, self.write_run(tmp_path / "theirs", 2, task="Theirs")], tmp_path / "out")
        with pytest.raises(ValueError, match="jets 60 against 50"):
            compare_runs([mine, self.write_run(tmp_path / "longer", 2, jets=60)], tmp_path / "out")
        with pytest.raises(ValueError, match="hold the same predictions"):
            compare_runs([mine, self.write_run(tmp_path / "again", 1)], tmp_path / "out")
        with pytest.raises(ValueError, match="was not trained for classes"):
            compare_label_counts({"x": {10: [mine]}}, tmp_path / "out")

    def test_a_search_needs_classes(self, tmp_path):
        with pytest.raises(ValueError, match="judges no classes, and a search cuts on the score of one"):
            show_significance(self.write_run(tmp_path / "mine", 1), Yields(10, 100))


class TestLabelCounts:
    def test_trainings_stand_by_their_number_of_labels(self, runs, tmp_path, capsys):
        """Mean and spread over seeds as numpy has them, whatever the order in which the numbers are given."""
        trainings = {"scratch": {1000: runs[2:3], 100: runs[:2]}, "fine-tuned": {100: runs[3:]}}
        compare_label_counts(trainings, tmp_path / "out")
        assert {p.name for p in (tmp_path / "out").iterdir()} == {
            f"label_efficiency.{kind}" for kind in ("md", "csv", "png", "pdf")
        }
        with (tmp_path / "out" / "label_efficiency.csv").open(newline="") as file:
            rows = {(row["model"].split(",")[0], int(row["labels"])): row for row in csv.DictReader(file)}
        assert list(rows) == [("scratch", 100), ("scratch", 1000), ("fine-tuned", 100)]
        for (name, count), row in rows.items():
            reports = [json.loads((run / "report" / "metrics.json").read_text()) for run in trainings[name][count]]
            aucs = [report["metrics"]["auc"]["value"] for report in reports]
            assert float(row["auc"]) == pytest.approx(np.mean(aucs))
            assert row["seeds"] == str(len(aucs))
            if len(aucs) > 1:
                assert float(row["auc_spread"]) == pytest.approx(np.std(aucs, ddof=1))
        page = (tmp_path / "out" / "label_efficiency.md").read_text()
        assert "| scratch | 1,000 | 1 |" in page
        assert "fine-tuned" in capsys.readouterr().out

    def test_runs_on_other_test_jets_are_refused(self, runs, tmp_path):
        other = make_run(tmp_path / "other", 2, 0.1, jets=400)
        with pytest.raises(ValueError, match="cannot be compared: jets"):
            compare_label_counts({"scratch": {100: runs[:1]}, "fine-tuned": {100: [other]}}, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_a_legend_of_many_curves_stands_beside_them():
    widths = []
    for curves in (3, 14):
        figure = Figure(figsize=(10, 8), layout="constrained")
        axes = labelled_axes(figure, ("", ""), "x", "y")
        for number in range(curves):
            axes.plot([0, 1], [number, number], label=f"model {number}")
        add_legend(axes, "best", "band")
        figure.canvas.draw()
        edge = axes.get_window_extent().x1
        widths.append(figure.get_figwidth())
        assert (axes.get_legend().get_window_extent().x0 > edge) == (curves == 14)
        assert axes.get_legend().get_window_extent().x1 <= figure.bbox.x1
    assert widths[0] == 10 < widths[1]


def test_a_single_epoch_shows_no_area_beyond_one():
    figure = Figure()
    draw_training(figure, {"val_auc": np.array([[188.0, 0.98]])}, "one epoch")
    assert figure.axes[0].get_ylim()[1] <= 1
