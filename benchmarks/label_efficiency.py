"""How much a backbone saves in labels: the same model from scratch and fine-tuned, on few and many labelled jets.

    python -m benchmarks.label_efficiency --labels 600 1200 6055 12110 60550 --seeds 1 2 3 \\
        --trainings scratch=quickstart/lorentznet fine-tuned=finetune/lorentznet

A training is a row of ``configs/README.md``, or YAML files separated by commas. Every training uses the first jets (or
events) of its training split, and all are tested on the same ones. What follows
``--`` goes to every training, such as ``--data.batch_size 64``. Trainings run in processes of one thread each. Finished
trainings are not repeated, and interrupted ones continue. At the end there are a table and a plot of the AUC, in
Markdown, CSV and PNG. ``--beside`` adds further runs to them, trained in another way or before:

    python -m benchmarks.label_efficiency --labels 600 1200 6055 --beside scratch fine-tuned trees
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from benchmarks.rows import read_rows
from benchmarks.train_models import train_all
from zoo.report import compare_label_counts


def named_training(text: str) -> tuple[str, str]:
    """Split ``NAME=ROW``."""
    name, equals, row = text.partition("=")
    if not (name and equals and (row.endswith(".yaml") or row in read_rows())):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not NAME=ROW with a row of configs/README.md, such as scratch=quickstart/pfn, nor NAME=YAML"
        )
    return name, row


def tested_runs(folder: Path, name: str, labels: Sequence[int]) -> dict[int, list[Path]]:
    """The runs ``NAME-LABELS-seedSEED`` in a folder that hold a report, by the number of labels."""
    reports = {count: sorted(folder.glob(f"{name}-{count}-seed*/report/metrics.json")) for count in sorted(labels)}
    return {count: [path.parents[1] for path in paths] for count, paths in reports.items() if paths}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--trainings", nargs="+", type=named_training, default=[], metavar="NAME=ROW")
    parser.add_argument(
        "--beside", nargs="+", default=[], metavar="NAME", help="further runs of the folder: NAME-LABELS-seedSEED"
    )
    parser.add_argument("--labels", nargs="+", type=int, required=True, help="numbers of labelled training jets")
    parser.add_argument("--epochs", nargs="+", type=int, help="of each number of labels; as the configurations say")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--out", type=Path, default=Path("runs") / "label_efficiency", help="folder of all runs")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("further", nargs="*", metavar="ARGUMENT", help="arguments of zoo fit, after --")
    options = parser.parse_args()
    if options.epochs and len(options.epochs) != len(options.labels):
        parser.error(f"--epochs: give one for each of the {len(options.labels)} numbers of labels")
    if not options.trainings and not options.beside:
        parser.error("nothing to compare: give --trainings, --beside or both")

    configs = dict(options.trainings)
    beside = {name: tested_runs(options.out, name, options.labels) for name in options.beside}
    for name, by_labels in beside.items():
        if name in configs:
            parser.error(f"--beside {name}: it is one of the --trainings; name it once")
        if not by_labels:
            parser.error(f"--beside {name}: {options.out} holds no tested run {name}-LABELS-seedSEED of these --labels")
    epochs = dict(zip(options.labels, options.epochs or (), strict=False))
    # Short trainings first, so that a mistake shows early.
    runs = {
        (name, labels, seed): options.out / f"{name}-{labels}-seed{seed}"
        for labels in sorted(options.labels)
        for name in configs
        for seed in options.seeds
    }

    def arguments(labels: int, seed: int) -> list[str]:
        length = ["--trainer.max_epochs", str(epochs[labels])] if epochs else []
        return ["--data.train_jets", str(labels), "--seed-everything", str(seed), *length, *options.further]

    trainings = [(configs[name], run, arguments(labels, seed)) for (name, labels, seed), run in runs.items()]
    finished = train_all(trainings, options.processes)
    found: dict[str, dict[int, list[Path]]] = {name: {} for name in configs} | beside
    for (name, labels, _), run in runs.items():
        if run in finished:
            found[name].setdefault(labels, []).append(run)
    if any(found.values()):
        compare_label_counts(found, options.out / "comparison")


if __name__ == "__main__":
    main()
