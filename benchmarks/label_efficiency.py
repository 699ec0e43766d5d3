"""How much a backbone saves in labels: the same model from scratch and fine-tuned, on few and many labelled jets.

    python -m benchmarks.label_efficiency --labels 600 1200 6055 12110 60550 --seeds 1 2 3 \\
        --trainings scratch=configs/top_tagging/lorentznet.yaml fine-tuned=configs/finetune/lorentznet.yaml

Every training is of the first jets (or events) of its training split, and all are tested on the same ones. What follows
``--`` goes to every training, such as ``--data.batch_size 64``. Trainings run in processes of one thread each. What is
finished is not trained again, and what was interrupted goes on. At the end stand a table and a picture of the AUC, in
Markdown, CSV and PNG.
"""

import argparse
import os
from pathlib import Path

from benchmarks.train_models import train_all
from zoo.report import compare_label_counts


def named_config(text: str) -> tuple[str, Path]:
    """``NAME=YAML`` taken apart."""
    name, equals, config = text.partition("=")
    if not (name and equals and config):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=YAML, such as scratch=configs/quickstart/pfn.yaml")
    return name, Path(config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainings", nargs="+", type=named_config, required=True, metavar="NAME=YAML")
    parser.add_argument("--labels", nargs="+", type=int, required=True, help="numbers of labelled training jets")
    parser.add_argument("--epochs", nargs="+", type=int, help="of each number of labels; as the configurations say")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--out", type=Path, default=Path("runs") / "label_efficiency", help="folder of all runs")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("further", nargs="*", metavar="ARGUMENT", help="arguments of train.py, after --")
    options = parser.parse_args()
    if options.epochs and len(options.epochs) != len(options.labels):
        parser.error(f"--epochs: give one for each of the {len(options.labels)} numbers of labels")

    configs = dict(options.trainings)
    epochs = dict(zip(options.labels, options.epochs or (), strict=False))
    # The short trainings first, so that a mistake shows soon.
    runs = {
        (name, labels, seed): options.out / f"{name}-{labels}-seed{seed}"
        for labels in sorted(options.labels)
        for name in configs
        for seed in options.seeds
    }

    def arguments(labels: int, seed: int) -> list[str]:
        length = ["--trainer.max_epochs", str(epochs[labels])] if epochs else []
        return ["--data.train_jets", str(labels), "--seed_everything", str(seed), *length, *options.further]

    trainings = [(configs[name], run, arguments(labels, seed)) for (name, labels, seed), run in runs.items()]
    finished = train_all(trainings, options.processes)
    found: dict[str, dict[int, list[Path]]] = {name: {} for name in configs}
    for (name, labels, _), run in runs.items():
        if run in finished:
            found[name].setdefault(labels, []).append(run)
    if finished:
        compare_label_counts(found, options.out / "comparison")


if __name__ == "__main__":
    main()
