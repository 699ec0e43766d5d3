"""Which trainings the study of label efficiency does, and which it compares."""

import pytest

from benchmarks import label_efficiency
from benchmarks.train_models import train_all


def test_every_number_of_labels_with_every_seed(monkeypatch, tmp_path):
    """The shortest first, and what failed is left out of the comparison."""
    trainings, compared = [], []
    failed = tmp_path / "fine-tuned-100-seed2"

    def all_but_one(given, processes):
        trainings.extend(given)
        return {run for _, run, _ in given} - {failed}

    monkeypatch.setattr(label_efficiency, "train_all", all_but_one)
    monkeypatch.setattr(label_efficiency, "compare_label_counts", lambda found, out: compared.append((found, out)))
    configs = ["--trainings", "scratch=quickstart/pfn", "fine-tuned=b.yaml", "--out", str(tmp_path)]
    numbers, further = ["--labels", "1000", "100", "--seeds", "1", "2"], ["--data.batch_size", "7"]
    monkeypatch.setattr("sys.argv", ["label_efficiency", *configs, *numbers, "--", *further])
    label_efficiency.main()

    assert len(trainings) == 8
    for config, run, options in trainings:
        name, labels, seed = run.name.rsplit("-", 2)
        assert config == {"scratch": "quickstart/pfn", "fine-tuned": "b.yaml"}[name]
        assert options == ["--data.train_jets", labels, "--seed-everything", seed.removeprefix("seed"), *further]
    assert {run.name.split("-")[-2] for _, run, _ in trainings[:4]} == {"100"}
    (found, out), *more = compared
    assert (out, more) == (tmp_path / "comparison", [])
    runs = [run for by_labels in found.values() for each in by_labels.values() for run in each]
    assert set(runs) == {run for _, run, _ in trainings} - {failed}
    assert [run.name for run in found["fine-tuned"][100]] == ["fine-tuned-100-seed1"]

    trainings.clear()
    monkeypatch.setattr("sys.argv", ["label_efficiency", *configs, *numbers, "--epochs", "3", "50"])
    label_efficiency.main()
    by_labels = {options[1]: options[-2:] for _, _, options in trainings}
    assert by_labels == {"1000": ["--trainer.max_epochs", "3"], "100": ["--trainer.max_epochs", "50"]}


def test_runs_of_another_kind_stand_beside_the_trainings(monkeypatch, tmp_path):
    for run in ("trees-100-seed1", "trees-100-seed2", "trees-1000-seed1", "trees-5000-seed1", "pfn-100-seed1"):
        (tmp_path / run / "report").mkdir(parents=True)
        (tmp_path / run / "report" / "metrics.json").write_text("{}")
    (tmp_path / "trees-1000-seed2").mkdir()  # not tested yet
    compared = []
    monkeypatch.setattr(label_efficiency, "train_all", lambda given, processes: {run for _, run, _ in given})
    monkeypatch.setattr(label_efficiency, "compare_label_counts", lambda found, out: compared.append(found))
    labels = ["--out", str(tmp_path), "--labels", "1000", "100", "--seeds", "3"]
    beside = {100: [tmp_path / "trees-100-seed1", tmp_path / "trees-100-seed2"], 1000: [tmp_path / "trees-1000-seed1"]}
    trained = {count: [tmp_path / f"scratch-{count}-seed3"] for count in (100, 1000)}
    for arguments, expected in (
        (["--beside", "trees"], {"trees": beside}),
        (["--trainings", "scratch=a.yaml", "--beside", "trees"], {"scratch": trained, "trees": beside}),
    ):
        monkeypatch.setattr("sys.argv", ["label_efficiency", *labels, *arguments])
        label_efficiency.main()
        assert compared.pop() == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trainings", "a.yaml"], "is not NAME=ROW"),
        (["--trainings", "one=quickstart/pnf"], "is not NAME=ROW"),
        (["--trainings", "one=a.yaml", "--labels", "10", "20", "--epochs", "3"], "one for each of the 2"),
        ([], "nothing to compare"),
        (["--beside", "trees"], "holds no tested run trees-LABELS-seedSEED"),
        (["--trainings", "one=a.yaml", "--beside", "one"], "one of the --trainings"),
    ],
)
def test_what_does_not_fit_together_is_refused(arguments, message, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["label_efficiency", "--out", str(tmp_path), "--labels", "10", *arguments])
    with pytest.raises(SystemExit):
        label_efficiency.main()
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_finished_trainings_are_not_repeated_and_failures_are_told(tmp_path, capfd):
    finished, broken = tmp_path / "finished", tmp_path / "broken"
    (finished / "report").mkdir(parents=True)
    (finished / "report" / "metrics.json").write_text("{}")
    missing = str(tmp_path / "no.yaml")
    assert train_all([(missing, finished, []), (missing, broken, [])], processes=1) == {finished}
    shown = capfd.readouterr().out
    assert "broken failed" in shown
    assert "no.yaml" in shown.replace("\n", "")
    assert "finished failed" not in shown
