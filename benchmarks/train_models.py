"""Train every model with its quickstart recipe, several seeds at a time, and put the results in one table.

    python -m benchmarks.train_models                            # on the simulated jets that ship with the package
    python -m benchmarks.train_models --jets real --seeds 1      # on 12,110 jets of the Top Tagging Reference set (1 %)
    python -m benchmarks.train_models --models pfn efn --seeds 1 2 3
    python -m benchmarks.train_models --models particle_transformer -- --trainer.precision bf16-mixed

What follows ``--`` goes to every training.
Trainings run in processes of one thread each. What is finished is not trained again, and what was interrupted goes on.
The table and its picture are those of ``zoo report``.
"""

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.progress import track

from benchmarks.jets import DEFAULT_FILE
from zoo.report import compare_runs

REPOSITORY = Path(__file__).resolve().parents[1]
MODELS = sorted(path.stem for path in (REPOSITORY / "configs" / "quickstart").glob("*.yaml"))


def real_jets(file: Path) -> list[str]:
    """Arguments that put rows of the first 100,000 jets of the reference set in the place of the packaged sample."""
    rows = {"train": [0, 60_550], "val": [60_550, 66_550], "test": [80_000, 100_000]}
    arguments = ["--data.train_jets", "12110"]
    for split, (start, stop) in rows.items():
        arguments += [f"--data.{split}.files", f"[{file}]", f"--data.{split}.rows", f"[{start}, {stop}]"]
    return arguments


def train(model: str, seed: int, folder: Path, further: list[str]) -> tuple[Path, str | None]:
    """Run folder of one training, and the end of what it said if it failed."""
    run = folder / f"{model}-seed{seed}"
    if (run / "report" / "metrics.json").is_file():
        return run, None
    config = REPOSITORY / "configs" / "quickstart" / f"{model}.yaml"
    command = [sys.executable, str(REPOSITORY / "train.py"), "fit", "--config", str(config), "--ckpt_path", "last"]
    options = ["--run_folder", str(run), "--seed_everything", str(seed), "--trainer.enable_progress_bar", "false"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *options, *further], env=environment, capture_output=True, text=True, check=False)
    return run, None if done.returncode == 0 else done.stderr[-2000:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, metavar="MODEL")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--jets", choices=["sample", "real"], default="sample")
    parser.add_argument(
        "--file", type=Path, default=DEFAULT_FILE, help="Top Tagging Reference HDF5 file for --jets real"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("further", nargs="*", metavar="ARGUMENT", help="arguments of train.py, after --")
    options = parser.parse_args()

    folder = Path("runs") / f"models-{options.jets}"
    further = [*(real_jets(options.file) if options.jets == "real" else []), *options.further]
    console = Console()
    with ThreadPoolExecutor(options.processes) as pool:
        jobs = [pool.submit(train, model, seed, folder, further) for model in options.models for seed in options.seeds]
        results = [job.result() for job in track(jobs, description="trainings", console=console)]
    for run, complaint in results:
        if complaint:
            console.print(f"[red]{run} failed[/red]\n{complaint}", markup=False)
    finished = [run for run, complaint in results if complaint is None]
    if finished:
        compare_runs(finished, folder / "comparison")


if __name__ == "__main__":
    main()
