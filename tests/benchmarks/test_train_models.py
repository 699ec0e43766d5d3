"""What the table of all trainings says beside the metrics."""

import csv
import json

from benchmarks.train_models import write_table


def test_costs_stand_beside_the_figures_whatever_a_row_is_called(tmp_path):
    """Runs of one model with different settings are rows with the names of their runs."""
    (tmp_path / "comparison").mkdir()
    (tmp_path / "comparison" / "comparison.csv").write_text(
        "model,runs,auc\npfn (pfn-seed1),pfn-seed1,0.9\nlgn,lgn-seed1 lgn-seed2,0.8\n"
    )
    for model, epochs in (("pfn", 30), ("lgn", 5)):
        report = tmp_path / f"{model}-seed1" / "report"
        report.mkdir(parents=True)
        settings = {"trainer": {"max_epochs": epochs}}
        (report / "metrics.json").write_text(json.dumps({"title": model, "settings": settings}))
    write_table(tmp_path, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        pfn, lgn = csv.DictReader(file)
    assert (pfn["model"], pfn["epochs"], pfn["parameters"]) == ("pfn (pfn-seed1)", "30", "83842")
    assert (lgn["epochs"], lgn["parameters"], lgn["auc"]) == ("5", "4498", "0.8")
