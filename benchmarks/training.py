"""Jets per second of ``zoo fit`` beside those of weaver-core's training program: loader, steps and logging together.

    python -m benchmarks.training

Both train Particle Transformer from the command line on the same real jets with the seven features of ``kin``, batches
of 64, AdamW, float32, two threads, no validation; the zoo from its own file, weaver-core from parquet that it loads at
once, in a worker process as it does by default. Each program runs over few jets and over many, and the difference of
the two times is that of the additional jets: the start of neither counts. They take turns.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.progress import track

from benchmarks.compare import tell
from benchmarks.jets import DEFAULT_FILE
from benchmarks.loader import write_weaver
from benchmarks.train_models import REPOSITORY
from zoo.data.readers import read_jets
from zoo.data.store import write_store

RESULTS = Path(__file__).parent / "results" / "training.csv"
CONFIG = REPOSITORY / "configs" / "quickstart" / "particle_transformer.yaml"
NETWORK = Path(__file__).with_name("weaver_network.py")
BATCH_SIZE = 64


def zoo_command(folder: Path, run: Path) -> list[str]:
    options = {
        "--config": CONFIG,
        "--run-folder": run,
        "--data.train.files": f"[{folder / 'jets.arrow'}]",
        "--data.val": "null",
        "--data.test": "null",
        "--data.batch_size": BATCH_SIZE,
        "--trainer.max_epochs": 1,
        "--trainer.enable_progress_bar": "false",
    }
    return [sys.executable, str(REPOSITORY / "train.py"), "fit", *_words(options)]


def weaver_command(folder: Path, run: Path) -> list[str]:
    options = {
        "--data-train": folder / "*.parquet",
        "--data-config": folder / "weaver.yaml",
        "--network-config": NETWORK,
        "--model-prefix": run / "net",
        "--run-mode": "train",
        "--num-epochs": 1,
        "--batch-size": BATCH_SIZE,
        "--optimizer": "adamW",
        "--start-lr": 1e-3,
        "--gpus": "",
        "--num-workers": 1,
        "--fetch-step": 1,
        "--train-val-split": 1,
    }
    program = "from weaver.train import main; main()"
    return [sys.executable, "-c", program, *_words(options)]


def _words(options: dict[str, object]) -> list[str]:
    return [str(part) for pair in options.items() for part in pair]


COMMANDS = {"zoo": zoo_command, "weaver": weaver_command}


def seconds(name: str, folder: Path, threads: int) -> float:
    """Wall time of one training from start to end.

    Raises:
        RuntimeError: if the program failed, with the end of its output.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(REPOSITORY)}
    with tempfile.TemporaryDirectory() as run:
        command = COMMANDS[name](folder, Path(run) / "run")
        start = time.perf_counter()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        elapsed = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
    return elapsed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--file", type=Path, default=DEFAULT_FILE, help="Top Tagging Reference HDF5 file")
    parser.add_argument("--jets", type=int, nargs=2, default=(1280, 5120), metavar=("FEW", "MANY"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()

    few, many = options.jets
    with tempfile.TemporaryDirectory() as name:
        folders = {jets: Path(name) / str(jets) for jets in (few, many)}
        for jets, folder in folders.items():
            folder.mkdir()
            table = read_jets(options.file, rows=(0, jets))
            write_store(folder / "jets.arrow", table)
            write_weaver(table, folder)
        rates: dict[str, list[float]] = {program: [] for program in COMMANDS}
        for _ in track(range(options.rounds), description="rounds"):
            for program, results in rates.items():
                of_few, of_many = (seconds(program, folder, options.threads) for folder in folders.values())
                results.append((many - few) / (of_many - of_few))
    ratios = [ours / theirs for ours, theirs in zip(*rates.values(), strict=True)]
    rows = [
        {
            "program": program,
            "jets_per_s": round(statistics.median(results), 1),
            "jets_per_s_min": round(min(results), 1),
            "jets_per_s_max": round(max(results), 1),
            "speedup_median": round(statistics.median(ratios), 2) if program == "zoo" else 1.0,
            "speedup_min": round(min(ratios), 2) if program == "zoo" else 1.0,
        }
        for program, results in rates.items()
    ]
    tell(rows, RESULTS, f"{many - few} jets, {options.threads} threads, {options.rounds} rounds")


if __name__ == "__main__":
    main()
