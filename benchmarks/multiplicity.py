"""Time per jet against its number of particles and against the batch size, for every model and its peers.

    pip install 'hepzoo[benchmarks]'
    python -m benchmarks.multiplicity

Inference in float32 in one thread; times are processor times, the minimum of several rounds, so that they hold on a
machine with other load too. Batches of real jets of about the same length are timed as they are, and with their last
jet replaced by one of 120 particles or more: where padding is computed, all jets then cost as much as that one.
"""

import argparse
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from torch import nn

from benchmarks.compare import infer, tell
from benchmarks.jets import DEFAULT_FILE
from benchmarks.peers import INPUT_DIM, NUM_CLASSES, PEERS
from zoo import create_model, list_models
from zoo.data.batch import JetBatch, collate, gather
from zoo.data.features import feature_table
from zoo.data.readers import read_jets
from zoo.data.store import JetTable
from zoo.files import atomic_write

RESULTS = Path(__file__).parent / "results"
PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "multiplicity.png"

LENGTHS = (10, 20, 30, 45, 60, 80, 100, 120)
TOLERANCE = 0.05  # of a length
LONG = 120
LONG_ENOUGH = 2.0  # seconds of rounds
BATCH_SIZE = 32
BATCH_SIZES = (1, 4, 16, 64, 256)

#: Panels of the picture, and the models of each: ours first.
PANELS = {
    "Particle Transformer": ("particle_transformer", "weaver particle_transformer", "lgatr"),
    "ParticleNet": ("particlenet", "weaver particlenet"),
    "LorentzNet": ("lorentznet", "edge list lorentznet", "pelican-lite"),
    "Light models": ("pfn", "efn", "pcnn", "particlenet_lite", "cnn_jetimage_40"),
}


def build(name: str) -> nn.Module:
    torch.manual_seed(1)
    return PEERS[name]() if name in PEERS else create_model(name, input_dim=INPUT_DIM, num_classes=NUM_CLASSES)


def batch_of(table: JetTable, rows: np.ndarray) -> JetBatch:
    return collate(gather(table, rows), feature_table("kin"))


def cases(table: JetTable) -> Iterator[tuple[str, int, JetBatch]]:
    """The varied quantity, its value, and a batch."""
    long = np.flatnonzero(table.counts >= LONG)[:1]
    for length in LENGTHS:
        rows = np.flatnonzero(abs(table.counts - length) <= TOLERANCE * length)[:BATCH_SIZE]
        yield "particles", length, batch_of(table, rows)
        yield "particles, with a long jet", length, batch_of(table, np.concatenate([rows[:-1], long]))
    for size in BATCH_SIZES:
        yield "batch size", size, batch_of(table, np.arange(size))


def seconds_a_jet(model: nn.Module, batch: JetBatch, rounds: int) -> float:
    """Processor time, the minimum of several rounds after a warm-up; fewer rounds if they are long."""
    infer(model, batch)
    times: list[float] = []
    while len(times) < rounds and sum(times) < LONG_ENOUGH:
        start = time.process_time()
        infer(model, batch)
        times.append(time.process_time() - start)
    return min(times) / len(batch.label)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 7), layout="constrained")
    grid = figure.subplots(2, len(PANELS), sharey="col")
    for (title, names), (above, below) in zip(PANELS.items(), grid.T, strict=True):
        for number, name in enumerate(names):
            for axes, varied, line in (
                (above, "particles", "-"),
                (above, "particles, with a long jet", ":"),
                (below, "batch size", "-"),
            ):
                points = [
                    (row["value"], row["ms_per_jet"]) for row in rows if (row["model"], row["varied"]) == (name, varied)
                ]
                axes.plot(
                    *zip(*points, strict=True),
                    f"{line}o",
                    color=f"C{number}",
                    markersize=3,
                    label=name if line == "-" else None,
                )
        above.set(title=title, xlabel="Particles of a jet", yscale="log")
        below.set(xlabel="Jets of a batch", xscale="log", yscale="log")
        above.set_ylim(top=20 * above.get_ylim()[1])  # room for the legend
        above.legend(loc="upper left", fontsize="small", title="dotted: with a long jet", title_fontsize="small")
    for axes in grid[:, 0]:
        axes.set_ylabel("Processor time of a jet [ms]")
    content = io.BytesIO()
    figure.savefig(content, dpi=120)
    path.parent.mkdir(exist_ok=True)
    with atomic_write(path) as file:
        file.write(content.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--file", type=Path, default=DEFAULT_FILE, help="Top Tagging Reference HDF5 file")
    parser.add_argument(
        "--rows", type=int, default=20_000, help="of the file, among which jets of each length are sought"
    )
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)

    batches = list(cases(read_jets(options.file, rows=(0, options.rows))))
    drawn = {name for names in PANELS.values() for name in names}
    rows = []
    for name in track(sorted(drawn | set(list_models())), description="models"):
        model = build(name)
        for varied, value, batch in batches:
            milliseconds = 1e3 * seconds_a_jet(model, batch, options.rounds)
            rows.append({"model": name, "varied": varied, "value": value, "ms_per_jet": round(milliseconds, 4)})
    tell(rows, RESULTS / "multiplicity.csv", f"batches of {BATCH_SIZE}, one thread, {options.rounds} rounds")
    draw(rows, PICTURE)


if __name__ == "__main__":
    main()
