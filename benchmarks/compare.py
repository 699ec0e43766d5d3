"""Two implementations on the same jets, taking turns in one run, so that other load on the machine affects both."""

import argparse
import csv
import io
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.jets import DEFAULT_FILE
from zoo.data.batch import JetBatch
from zoo.files import atomic_write

#: Seconds per jet of every round, by task and model.
Times = dict[tuple[str, str], list[float]]


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


def measure(build: Callable[[str], nn.Module], names: Sequence[str], batches: list[JetBatch], rounds: int) -> Times:
    """Times of the models that ``build`` makes from ``names``, each round over all batches, after a warm-up batch."""
    models = {name: build(name) for name in names}
    num_jets = sum(len(batch.label) for batch in batches)
    times: Times = {}
    for task, work in TASKS.items():
        for model in models.values():
            work(model, batches[0])
        for _ in track(range(rounds), description=task):
            for name, model in models.items():
                total = sum(seconds(lambda b=batch, m=model, w=work: w(m, b)) for batch in batches)
                times.setdefault((task, name), []).append(total / num_jets)
    return times


def summarise(times: Times, ours: str, peer: str) -> list[dict[str, Any]]:
    """One row per task and model: median and range of the milliseconds per jet, and how much faster ours is."""
    rows = []
    for (task, name), values in times.items():
        ratios = [theirs / mine for mine, theirs in zip(times[task, ours], times[task, peer], strict=True)]
        rows.append(
            {
                "task": task,
                "model": name,
                "ms_per_jet": round(1e3 * statistics.median(values), 3),
                "ms_min": round(1e3 * min(values), 3),
                "ms_max": round(1e3 * max(values), 3),
                "speedup_median": round(statistics.median(ratios), 2) if name == ours else 1.0,
                "speedup_min": round(min(ratios), 2) if name == ours else 1.0,
            }
        )
    return rows


def peak_memory(build: Callable[[str], nn.Module], name: str, batch: JetBatch, threads: int) -> float:
    """Peak resident bytes of a training step in a fresh process, above those before it."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peak_memory, (build, name, tuple(batch), threads))


def _peak_memory(build: Callable[[str], nn.Module], name: str, batch: tuple[torch.Tensor, ...], threads: int) -> float:
    torch.set_num_threads(threads)
    batch = JetBatch(*batch)
    model = build(name)
    train_step(model, batch.take(slice(1)))  # what the first step of any size allocates
    before = resident("VmRSS")
    train_step(model, batch)
    return resident("VmHWM") - before


def resident(key: str) -> float:
    """Bytes of this process from its status: resident now (VmRSS), the maximum so far (VmHWM), and others."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * float(status[key].split()[0])


def parse_options(description: str, batch_size: int, **required: str) -> argparse.Namespace:
    """Parse the options that all comparisons share, and required ones with their help; set the number of threads."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--file", type=Path, default=DEFAULT_FILE, help="Top Tagging Reference HDF5 file")
    parser.add_argument("--batch-size", type=int, default=batch_size)
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    for name, text in required.items():
        parser.add_argument(f"--{name}", required=True, help=text)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    return options


def describe(batches: list[JetBatch], options: argparse.Namespace) -> str:
    """What was measured, in one line."""
    particles = torch.cat([batch.mask.sum(1) for batch in batches]).float()
    return (
        f"{len(particles)} jets of {particles.mean():.0f} particles, batches of {options.batch_size}, "
        f"{options.threads} threads, {options.rounds} rounds"
    )


def tell(rows: list[dict[str, Any]], path: Path, *headline: str) -> None:
    """Print the rows below a headline and write them to a CSV file."""
    console = Console()
    console.print("; ".join(headline))
    table = Table(*rows[0])
    console.width = max(console.width, 140)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    console.print(table)
    write_rows(rows, path)


def write_rows(rows: list[dict[str, Any]], path: Path) -> None:
    """Write rows with the same keys as a CSV file."""
    path.parent.mkdir(exist_ok=True)
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())
    print(f"written: {path}")
