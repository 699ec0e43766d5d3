"""Where a model spends its time: the operators that take most of it, on real jets.

    python -m benchmarks.profile lorentznet --batch-size 32
    python -m benchmarks.profile particle_transformer

Times of operators are those of the profiler, whose own time comes on top.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from benchmarks.compare import TASKS
from benchmarks.jets import DEFAULT_FILE, load_batches
from zoo import create_model

#: Operators that do the same under several names.
GROUPS = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm", "linear", "mkldnn_linear", "_linear_pointwise", "outer_sum"),
    "gathers and sums over groups": ("index", "index_select", "index_add_", "scatter_add_", "segment_reduce", "gather"),
}


def group_of(operator: str) -> str:
    """What an operator counts as, by its last name."""
    name = operator.rpartition("::")[2]
    return next((group for group, names in GROUPS.items() if name in names), operator)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("model")
    parser.add_argument("--file", type=Path, default=DEFAULT_FILE, help="Top Tagging Reference HDF5 file")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    batches = load_batches(options.file, options.batch_size, options.batches)
    model = create_model(options.model, input_dim=7, num_classes=2)
    for task, work in TASKS.items():
        work(model, batches[0])
        with profile(activities=[ProfilerActivity.CPU]) as recorded:
            for batch in batches:
                work(model, batch)
        times: dict[str, float] = defaultdict(float)
        for event in recorded.key_averages():
            times[group_of(event.key)] += 1e-3 * event.self_cpu_time_total
        total, jets = sum(times.values()), options.batch_size * options.batches
        table = Table("operator", "ms a jet", "part", title=f"{options.model}, {task}: {total / jets:.2f} ms a jet")
        for name, time in sorted(times.items(), key=lambda item: -item[1])[:12]:
            table.add_row(name, f"{time / jets:.3f}", f"{time / total:.0%}")
        Console().print(table)


if __name__ == "__main__":
    main()
