"""Every model for events on the simulated four-top events, several seeds each, in one table.

    pip install 'hepzoo[trees]'
    python -m benchmarks.four_tops
    python -m benchmarks.four_tops --models pfn_for_events lightgbm --seeds 1

Networks are trained as the rows ``four_tops/...`` of ``configs/README.md``, trees (``lightgbm``, and ``lightgbm_pairs``
with the kinematics of pairs of objects) on the same events. What follows ``--`` goes to every training of a network.
Trainings run in processes of one thread each. Finished trainings are not repeated, and interrupted ones continue.
The table and its picture are those of ``zoo report``.
"""

import argparse
import os
from pathlib import Path

from benchmarks.rows import read_rows
from benchmarks.train_models import REPOSITORY, train_all
from zoo.boosted_trees import train_boosted_trees
from zoo.report import compare_runs

ROWS = "four_tops"
NETWORKS = sorted(name.removeprefix(f"{ROWS}/") for name in read_rows() if name.startswith(ROWS) and "_for_" in name)

#: Name -> what the trees see; their data are those of the network beside them.
TREES = {"lightgbm": "objects", "lightgbm_pairs": "pairs"}
CONFIG_OF_TREES = REPOSITORY / "configs" / "data" / "four_tops.yaml"


def grow(name: str, seed: int, run: Path) -> None:
    """Train trees, unless they are finished."""
    if not (run / "report" / "metrics.json").is_file():
        train_boosted_trees(CONFIG_OF_TREES, run, inputs=TREES[name], seed=seed)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    models = [*NETWORKS, *TREES]
    parser.add_argument("--models", nargs="+", choices=models, default=models, metavar="MODEL")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("further", nargs="*", metavar="ARGUMENT", help="arguments of zoo fit, after --")
    options = parser.parse_args()

    folder = Path("runs") / "models-four_tops"
    runs = {(model, seed): folder / f"{model}-seed{seed}" for model in options.models for seed in options.seeds}
    for (model, seed), run in runs.items():
        if model in TREES:
            grow(model, seed, run)
    trainings = [
        (f"{ROWS}/{model}", run, ["--seed-everything", str(seed), *options.further])
        for (model, seed), run in runs.items()
        if model in NETWORKS
    ]
    finished = train_all(trainings, options.processes)
    judged = [run for (model, _), run in runs.items() if model in TREES or run in finished]
    if judged:
        compare_runs(judged, folder / "comparison", force=True)


if __name__ == "__main__":
    main()
