"""How much a backbone saves in labels: the same model from scratch and fine-tuned, on few and many labelled jets.

    python -m benchmarks.label_efficiency \\
        --config-scratch configs/top_tagging/lorentznet.yaml --config-finetuned configs/finetune/lorentznet.yaml \\
        --labels 600 1200 6055 12110 60550 --seeds 1 2 3

Every training is of the first jets of its training split, and both are tested on the same jets. What follows ``--``
goes to every training, such as ``--trainer.max_epochs 10``. Trainings run in processes of one thread each. What is
finished is not trained again, and what was interrupted goes on. At the end stand a table and a picture of the AUC, in
Markdown, CSV and PNG.
"""

import argparse
import os
from pathlib import Path

from benchmarks.train_models import train_all
from zoo.report import compare_label_counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-scratch", type=Path, required=True, metavar="YAML")
    parser.add_argument("--config-finetuned", type=Path, required=True, metavar="YAML")
    parser.add_argument("--labels", nargs="+", type=int, required=True, help="numbers of labelled training jets")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--out", type=Path, default=Path("runs") / "label_efficiency", help="folder of all runs")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("further", nargs="*", metavar="ARGUMENT", help="arguments of train.py, after --")
    options = parser.parse_args()

    configs = {"scratch": options.config_scratch, "fine-tuned": options.config_finetuned}
    # The short trainings first, so that a mistake shows soon.
    runs = {
        (name, labels, seed): options.out / f"{name}-{labels}-seed{seed}"
        for labels in sorted(options.labels)
        for name in configs
        for seed in options.seeds
    }
    trainings = [
        (configs[name], run, ["--data.train_jets", str(labels), "--seed_everything", str(seed), *options.further])
        for (name, labels, seed), run in runs.items()
    ]
    finished = train_all(trainings, options.processes)
    found: dict[str, dict[int, list[Path]]] = {name: {} for name in configs}
    for (name, labels, _), run in runs.items():
        if run in finished:
            found[name].setdefault(labels, []).append(run)
    if finished:
        compare_label_counts(found, options.out / "comparison")


if __name__ == "__main__":
    main()
