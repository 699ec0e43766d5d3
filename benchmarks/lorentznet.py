"""Time and memory of LorentzNet beside an edge-list implementation, on the same real jets in the same run.

    python -m benchmarks.lorentznet

The two take turns, so that whatever else the machine does hits both; the ratio is what counts. Memory is the peak of a
process of its own above what it held before the first step.
"""

import argparse
import csv
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.edge_list_lorentznet import EdgeListLorentzNet
from benchmarks.jets import DEFAULT_FILE, load_batches
from zoo import create_model
from zoo.data.batch import JetBatch

RESULTS = Path(__file__).parent / "results" / "lorentznet.csv"
WIDTH, NUM_LAYERS = 72, 6


def build(name: str) -> nn.Module:
    torch.manual_seed(1)
    return {
        "zoo": lambda: create_model("lorentznet", input_dim=7, num_classes=2),
        "edge list": lambda: EdgeListLorentzNet(num_classes=2),
    }[name]()


def infer(model: nn.Module, batch: JetBatch) -> None:
    model.eval()
    with torch.no_grad():
        model(batch.features, batch.four_momenta, batch.mask)


def train_step(model: nn.Module, batch: JetBatch) -> None:
    model.train()
    model.zero_grad()
    cross_entropy(model(batch.features, batch.four_momenta, batch.mask), batch.label).backward()


TASKS: dict[str, Callable[[nn.Module, JetBatch], None]] = {"inference": infer, "training step": train_step}


def seconds(task: Callable[[], None]) -> float:
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def matrix_multiply_rate(size: int = 2048, repeats: int = 5) -> float:
    """Floating-point operations per second of ``torch.mm`` in float32, the best of some."""
    matrix = torch.randn(size, size)
    return 2 * size**3 / min(seconds(lambda: matrix @ matrix) for _ in range(repeats))


def operations_per_pair() -> float:
    """Multiplications and additions of the forward pass for one real pair, averaged over the layers."""
    edge = 2 * (2 * WIDTH + WIDTH * WIDTH + WIDTH)  # two invariants, second layer of phi_e, gate
    shift = 2 * (WIDTH * WIDTH + WIDTH)
    return edge + shift * (NUM_LAYERS - 1) / NUM_LAYERS


def operations(batch: JetBatch, task: str) -> float:
    """Of the formulas on real pairs; a training step counts three times the forward pass, recomputing nothing."""
    nodes = batch.mask.sum(1) + 2
    forward = (nodes * (nodes - 1)).sum().item() * NUM_LAYERS * operations_per_pair()
    return forward * (3 if task == "training step" else 1)


def peak_memory(name: str, batch: JetBatch, threads: int) -> float:
    """Peak resident bytes of a training step in a fresh process, above those before it."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peak_memory, (name, tuple(batch), threads))


def _peak_memory(name: str, batch: tuple[torch.Tensor, ...], threads: int) -> float:
    torch.set_num_threads(threads)
    batch = JetBatch(*batch)
    model = build(name)
    train_step(model, JetBatch(*(values[:1] for values in batch)))  # what the first step of any size allocates
    before = _resident("VmRSS")
    train_step(model, batch)
    return _resident("VmHWM") - before


def _resident(key: str) -> float:
    """Resident bytes of this process: now (VmRSS) or at most so far (VmHWM)."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * float(status[key].split()[0])


def measure(batches: list[JetBatch], rounds: int) -> dict[tuple[str, str], list[float]]:
    """Seconds a jet of every round, by task and model."""
    models = {name: build(name) for name in ("zoo", "edge list")}
    num_jets = sum(len(batch.label) for batch in batches)
    times: dict[tuple[str, str], list[float]] = {}
    for task, work in TASKS.items():
        for model in models.values():
            work(model, batches[0])
        for _ in track(range(rounds), description=task):
            for name, model in models.items():
                total = sum(seconds(lambda b=batch, m=model, w=work: w(m, b)) for batch in batches)
                times.setdefault((task, name), []).append(total / num_jets)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, default=DEFAULT_FILE, help="Top Tagging Reference HDF5 file")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    batches = load_batches(options.file, options.batch_size, options.batches)
    particles = torch.cat([batch.mask.sum(1) for batch in batches]).float()
    rate = matrix_multiply_rate()
    times = measure(batches, options.rounds)
    memory = {name: peak_memory(name, batches[0], options.threads) for name in ("zoo", "edge list")}

    console = Console()
    console.print(
        f"{len(particles)} jets of {particles.mean():.0f} particles, batches of {options.batch_size}, "
        f"{options.threads} threads, {options.rounds} rounds; torch.mm {rate / 1e9:.0f} GFLOP/s"
    )
    table = Table("task", "model", "ms a jet", "spread", "ratio", "of torch.mm", "peak MB")
    rows = []
    for (task, name), values in times.items():
        median = statistics.median(values)
        ratios = [peer / ours for ours, peer in zip(times[task, "zoo"], times[task, "edge list"], strict=True)]
        done = sum(operations(batch, task) for batch in batches) / len(particles)
        row = {
            "task": task,
            "model": name,
            "ms_per_jet": round(1e3 * median, 3),
            "ms_min": round(1e3 * min(values), 3),
            "ms_max": round(1e3 * max(values), 3),
            "speedup_median": round(statistics.median(ratios), 2) if name == "zoo" else 1.0,
            "speedup_min": round(min(ratios), 2) if name == "zoo" else 1.0,
            "fraction_of_torch_mm": round(done / median / rate, 3),
            "peak_mb_training_step": round(memory[name] / 1e6, 1),
        }
        rows.append(row)
        table.add_row(
            task,
            name,
            f"{row['ms_per_jet']:.2f}",
            f"{row['ms_min']:.2f}-{row['ms_max']:.2f}",
            f"{row['speedup_median']:.1f}",
            f"{row['fraction_of_torch_mm']:.0%}",
            f"{row['peak_mb_training_step']:.0f}",
        )
    console.print(table)
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    console.print(f"written: {RESULTS}")


if __name__ == "__main__":
    main()
