"""Time and memory of LorentzNet beside an edge-list implementation, on the same real jets in the same run.

    python -m benchmarks.lorentznet

The two take turns; the ratio is what counts. Memory is the peak of a process of its own above what it held before the
first step.
"""

from pathlib import Path

import torch
from torch import nn

from benchmarks.compare import describe, measure, parse_options, peak_memory, seconds, summarise, tell
from benchmarks.edge_list_lorentznet import EdgeListLorentzNet
from benchmarks.jets import load_batches
from zoo import create_model
from zoo.data.batch import JetBatch

RESULTS = Path(__file__).parent / "results" / "lorentznet.csv"
WIDTH, NUM_LAYERS = 72, 6
NAMES = ("zoo", "edge list")


def build(name: str) -> nn.Module:
    torch.manual_seed(1)
    if name == "zoo":
        return create_model("lorentznet", input_dim=7, num_classes=2)
    return EdgeListLorentzNet(num_classes=2)


def matrix_multiply_rate(size: int = 2048, repeats: int = 5) -> float:
    """Floating-point operations per second of ``torch.mm`` in float32, the best of several repeats."""
    matrix = torch.randn(size, size)
    return 2 * size**3 / min(seconds(lambda: matrix @ matrix) for _ in range(repeats))


def operations_per_pair() -> float:
    """Multiplications and additions of the forward pass for one real pair, averaged over the layers."""
    edge = 2 * (2 * WIDTH + WIDTH * WIDTH + WIDTH)  # two invariants, second layer of phi_e, gate
    shift = 2 * (WIDTH * WIDTH + WIDTH)
    return edge + shift * (NUM_LAYERS - 1) / NUM_LAYERS


def operations(batch: JetBatch, task: str) -> float:
    """Operations of the formulas on real pairs; a training step counts as three forward passes, without recomputing."""
    nodes = batch.mask.sum(1) + 2
    forward = (nodes * (nodes - 1)).sum().item() * NUM_LAYERS * operations_per_pair()
    return forward * (3 if task == "training step" else 1)


def main() -> None:
    options = parse_options(__doc__, batch_size=32)

    batches = load_batches(options.file, options.batch_size, options.batches)
    particles = torch.cat([batch.mask.sum(1) for batch in batches]).float()
    rate = matrix_multiply_rate()
    times = measure(build, NAMES, batches, options.rounds)
    memory = {name: peak_memory(build, name, batches[0], options.threads) for name in NAMES}
    rows = summarise(times, *NAMES)
    for row in rows:
        done = sum(operations(batch, row["task"]) for batch in batches) / len(particles)
        row["fraction_of_torch_mm"] = round(done / (1e-3 * row["ms_per_jet"]) / rate, 3)
        row["peak_mb_training_step"] = round(memory[row["model"]] / 1e6, 1)
    tell(rows, RESULTS, describe(batches, options), f"torch.mm {rate / 1e9:.0f} GFLOP/s")


if __name__ == "__main__":
    main()
