"""Jets per second of ``zoo convert`` from parquet and from ROOT, including the start of its worker processes.

    python -m benchmarks.convert
    python -m benchmarks.convert --files 20 --processes 1 2

Real jets are written once as files of px, py, pz, energy and a label, and copied under other names; a conversion reads,
checks, shuffles and writes all of them. Each round begins with an empty folder.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import awkward as ak
import uproot

from benchmarks.compare import tell
from benchmarks.jets import DEFAULT_FILE
from zoo.data.convert import convert
from zoo.data.formats.layout import Layout
from zoo.data.readers import read_jets
from zoo.data.store import MOMENTUM_COLUMNS, JetTable

RESULTS = Path(__file__).parent / "results"
LAYOUT = Layout(
    name="jets",
    classes=("qcd", "top"),
    momenta={name.removeprefix("part_"): name for name in MOMENTUM_COLUMNS},
    label="label",
)


def write_parquet(jets: ak.Array, path: Path) -> None:
    ak.to_parquet(jets, path)


def write_root(jets: ak.Array, path: Path) -> None:
    with uproot.recreate(path) as file:
        columns = {name: jets[name] for name in jets.fields}
        file.mktree("tree", {name: column.type.content for name, column in columns.items()}).extend(columns)


WRITERS: dict[str, Callable[[ak.Array, Path], None]] = {"parquet": write_parquet, "root": write_root}


def columns_of(table: JetTable) -> ak.Array:
    """The momenta and labels of jets."""
    lists = {name: ak.unflatten(table.particles[name], table.counts) for name in MOMENTUM_COLUMNS}
    return ak.zip({**lists, "label": table.label}, depth_limit=1)


def build(jets: ak.Array, kind: str, folder: Path, files: int) -> list[Path]:
    """Files with the same jets."""
    paths = [folder / f"{number}.{kind}" for number in range(files)]
    WRITERS[kind](jets, paths[0])
    for path in paths[1:]:
        shutil.copy(paths[0], path)
    return paths


def measure(paths: list[Path], processes: int, out: Path) -> float:
    """Jets per second of one conversion."""
    start = time.perf_counter()
    manifest = convert(paths, out, processes=processes, layout=LAYOUT)
    rate = manifest.jets / (time.perf_counter() - start)
    shutil.rmtree(out)
    return rate


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--file", type=Path, default=DEFAULT_FILE, help="Top Tagging Reference HDF5 file")
    parser.add_argument("--files", type=int, default=10)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, os.cpu_count()])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    jets = columns_of(read_jets(options.file))
    rows = []
    for kind in WRITERS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            paths = build(jets, kind, folder, options.files)
            for processes in options.processes:
                rates = [measure(paths, processes, folder / "out") for _ in range(options.rounds)]
                row = {"from": kind, "processes": processes, "jets_per_s": round(statistics.median(rates))}
                rows.append(row | {"jets_per_s_min": round(min(rates)), "jets_per_s_max": round(max(rates))})
    tell(rows, RESULTS / "convert.csv", f"{options.files} files of {len(jets)} jets, {options.rounds} rounds")


if __name__ == "__main__":
    main()
