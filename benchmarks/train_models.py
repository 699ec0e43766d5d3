"""Train every model with its quickstart recipe, several seeds at a time, and put the results in one table.

    python -m benchmarks.train_models                            # on the simulated jets that ship with the package
    python -m benchmarks.train_models --jets real --seeds 1      # on 12,110 jets of the Top Tagging Reference set (1 %)
    python -m benchmarks.train_models --models pfn efn --seeds 1 2 3
    python -m benchmarks.train_models --models particle_transformer -- --trainer.precision bf16-mixed

What follows ``--`` goes to every training.
Trainings run in processes of one thread each. Finished trainings are not repeated, and interrupted ones continue.
The table and its picture are those of ``zoo report`` over all that was ever trained there; the CSV file beside those of
the other benchmarks adds epochs, parameters, and time of inference (of ``python -m benchmarks.models``).
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.progress import track

from benchmarks import models, rows
from benchmarks.compare import write_rows
from benchmarks.jets import DEFAULT_FILE
from zoo.report import compare_runs

REPOSITORY = Path(__file__).resolve().parents[1]
#: Configurations for the packaged sample; see ``configs/README.md``.
ROWS = "quickstart"
MODELS = sorted(name.removeprefix(f"{ROWS}/") for name in rows.read_rows() if name.startswith(f"{ROWS}/"))


def real_jets(file: Path) -> list[str]:
    """Arguments that replace the packaged sample by rows of the first 100,000 jets of the reference set."""
    parts = {"train": [0, 60_550], "val": [60_550, 66_550], "test": [80_000, 100_000]}
    arguments = ["--data.train_jets", "12110"]
    for split, (start, stop) in parts.items():
        arguments += [f"--data.{split}.files", f"[{file}]", f"--data.{split}.rows", f"[{start}, {stop}]"]
    return arguments


def train(row: str, run: Path, further: Sequence[str]) -> str | None:
    """Run one training, or the rest of it, in a process with one thread.

    Args:
        row: row of the results, or the configurations of the training; see `benchmarks.rows.arguments`.
        run: its run folder; if it holds a report, nothing is done.
        further: further arguments of ``zoo fit``.

    Returns:
        The end of its output if it failed.
    """
    if (run / "report" / "metrics.json").is_file():
        return None
    command = [sys.executable, str(REPOSITORY / "train.py"), "fit", *rows.arguments(row), "--ckpt-path", "last"]
    options = ["--run-folder", str(run), "--trainer.enable_progress_bar", "false"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *options, *further], env=environment, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else done.stderr[-2000:]


def train_all(trainings: Sequence[tuple[str, Path, Sequence[str]]], processes: int | None) -> set[Path]:
    """Run many trainings, each with the arguments of `train`; for those that fail, the reason is printed.

    Returns:
        Run folders of the finished ones.
    """
    console = Console()
    with ThreadPoolExecutor(processes) as pool:
        jobs = [pool.submit(train, *training) for training in trainings]
        complaints = [job.result() for job in track(jobs, description="trainings", console=console)]
    runs = {run: complaint for (_, run, _), complaint in zip(trainings, complaints, strict=True)}
    for run, complaint in runs.items():
        if complaint:
            console.print(f"{run} failed\n{complaint}", markup=False)
    return {run for run, complaint in runs.items() if complaint is None}


def write_table(folder: Path, path: Path) -> None:
    """Write the rows of a comparison, with the cost of each model beside its metrics."""
    with models.RESULTS.open(newline="") as file:
        costs = {row["model"]: row for row in csv.DictReader(file)}
    with (folder / "comparison" / "comparison.csv").open(newline="") as file:
        judged = list(csv.DictReader(file))
    for row in judged:
        run = json.loads((folder / row["runs"].split()[0] / "report" / "metrics.json").read_text())
        row["epochs"] = run["settings"]["trainer"]["max_epochs"]
        row |= {name: costs[run["title"]][name] for name in ("parameters", "ms_per_jet")}
    write_rows(judged, path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, metavar="MODEL")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--jets", choices=["sample", "real"], default="sample")
    parser.add_argument(
        "--file", type=Path, default=DEFAULT_FILE, help="Top Tagging Reference HDF5 file for --jets real"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("further", nargs="*", metavar="ARGUMENT", help="arguments of zoo fit, after --")
    options = parser.parse_args()

    folder = Path("runs") / f"models-{options.jets}"
    further = [*(real_jets(options.file) if options.jets == "real" else []), *options.further]
    trainings = [
        (f"{ROWS}/{model}", folder / f"{model}-seed{seed}", ["--seed-everything", str(seed), *further])
        for model in options.models
        for seed in options.seeds
    ]
    train_all(trainings, options.processes)
    finished = [report.parent.parent for report in sorted(folder.glob("*-seed*/report/metrics.json"))]
    if finished:
        compare_runs(finished, folder / "comparison", force=True)
        write_table(folder, models.RESULTS.with_name(f"trained_{options.jets}.csv"))


if __name__ == "__main__":
    main()
