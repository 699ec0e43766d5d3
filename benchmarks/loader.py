"""Jets per second and memory of the loader beside weaver-core's, on the same real jets with the same seven features.

    python -m benchmarks.loader
    python -m benchmarks.loader --large

Both read what they are fastest at: the zoo a converted folder, weaver-core parquet with pseudorapidity, azimuth and the
momenta of jets computed before. weaver-core is given all jets at once, as a global shuffle needs (``fetch_step=1``),
and also keeps them in memory (``in_memory``), which saves it from reading them again in every epoch. They take turns,
each in a process of its own; the second epoch is timed, and memory is the peak of the process above what its imports
take.

With ``--large`` the jets are tiled to two million, and an epoch of the datamodule runs under a limit of a tenth of
their size on the memory that the process may have of its own (``RLIMIT_DATA``; pages of mapped files are the system's,
which drops them when it needs to).
"""

import argparse
import itertools
import math
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
import yaml
from pyarrow import parquet
from torch.utils.data import DataLoader

from benchmarks.compare import resident, tell
from benchmarks.jets import DEFAULT_FILE
from zoo.data import JetDataModule
from zoo.data.convert import convert
from zoo.data.datamodule import Split
from zoo.data.features import FeatureTable, feature_table, particle_inputs
from zoo.data.manifest import read_manifest
from zoo.data.readers import read_jets
from zoo.data.store import MOMENTUM_COLUMNS, JetTable, write_store
from zoo.physics import kinematics

RESULTS = Path(__file__).parent / "results"
FEATURES = "kin"
WEAVER_LENGTH = 128  # particles that weaver-core pads and cuts its jets to, as in its own top-tagging configuration
WEAVER_FILES = 4  # its workers share out files
NUM_JETS = 100_000

#: Name -> number of worker processes, and what is set for weaver-core.
LOADERS = {
    "zoo": 0,
    "weaver": 0,
    "weaver in_memory": 0,
    "zoo, 2 workers": 2,
    "weaver, 2 workers": 2,
}


def zoo_loader(folder: Path, batch_size: int, workers: int) -> Callable[[int], Iterator[int]]:
    """Function from an epoch to the numbers of jets of its batches."""
    split = Split([str(folder / "zoo")])
    datamodule = JetDataModule(train=split, features=FEATURES, batch_size=batch_size, num_workers=workers)
    datamodule.setup("fit")
    loader = datamodule.train_dataloader()

    def epoch(number: int) -> Iterator[int]:
        loader.sampler.set_epoch(number)
        return (len(batch.label) for batch in loader)

    return epoch


def weaver_loader(folder: Path, batch_size: int, workers: int, in_memory: bool) -> Callable[[int], Iterator[int]]:
    """The same of weaver-core."""
    from weaver.utils.dataset import SimpleIterDataset

    files = {"_": sorted(map(str, folder.glob("*.parquet")))}
    dataset = SimpleIterDataset(
        files, str(folder / "weaver.yaml"), for_training=True, fetch_step=1, in_memory=in_memory, async_load=False
    )
    # a worker that is not kept would read the files again
    loader = DataLoader(dataset, batch_size=batch_size, num_workers=workers, persistent_workers=workers > 0)
    sizes = (len(labels["_label_"]) for _, labels, _ in itertools.chain.from_iterable(itertools.repeat(loader)))
    # when kept in memory, the jets are served without end
    return lambda number: itertools.islice(sizes, math.ceil(NUM_JETS / batch_size))


def write_weaver(table: JetTable, folder: Path) -> None:
    """Write jets and the configuration of the features as weaver-core reads them."""
    particles = {name: torch.from_numpy(table.particles[name]).double() for name in MOMENTUM_COLUMNS}
    momenta = torch.stack(list(particles.values()), dim=1)
    counts = torch.from_numpy(table.counts)
    of_particles = particle_inputs(momenta, counts)
    particles |= {"part_deta": of_particles.deta, "part_dphi": of_particles.dphi}
    jets = torch.zeros(len(table), 4, dtype=torch.float64).index_add_(0, torch.repeat_interleave(counts), momenta)
    offsets = pa.array(table.offsets.astype(np.int32))
    columns = {
        name: pa.ListArray.from_arrays(offsets, pa.array(values.float().numpy())) for name, values in particles.items()
    }
    columns |= {"jet_pt": kinematics.pt(jets).float().numpy(), "jet_energy": jets[:, 0].float().numpy()}
    columns["label"] = table.label
    rows = pa.table(columns)
    size = -(-len(table) // WEAVER_FILES)
    for number in range(WEAVER_FILES):
        parquet.write_table(rows.slice(number * size, size), folder / f"{number}.parquet")
    (folder / "weaver.yaml").write_text(yaml.safe_dump(weaver_configuration(feature_table(FEATURES)), sort_keys=False))


def weaver_configuration(features: FeatureTable) -> dict:
    """The features, momenta and mask as a data configuration of weaver-core."""
    formulas = {
        "part_mask": "ak.ones_like(part_deta)",
        "part_pt": "np.hypot(part_px, part_py)",
        "part_pt_log": "np.log(part_pt)",
        "part_e_log": "np.log(part_energy)",
        "part_logptrel": "np.log(part_pt / jet_pt)",
        "part_logerel": "np.log(part_energy / jet_energy)",
        "part_deltaR": "np.hypot(part_deta, part_dphi)",
        "is_top": "label",
        "is_qcd": "1 - label",
    }
    standardised = [[f.name, f.centre, f.scale, -(f.clip or 1e9), f.clip or 1e9] for f in features.features]
    inputs = {
        "pf_features": standardised,
        "pf_vectors": [[name, None] for name in (*MOMENTUM_COLUMNS[1:], MOMENTUM_COLUMNS[0])],
        "pf_mask": [["part_mask", None]],
    }
    return {
        "new_variables": formulas,
        "preprocess": {"method": "manual"},
        "inputs": {
            name: {"length": WEAVER_LENGTH, "pad_mode": "constant", "vars": variables}
            for name, variables in inputs.items()
        },
        "labels": {"type": "simple", "value": ["is_qcd", "is_top"]},
    }


def in_new_process(function: Callable, *arguments: object) -> dict[str, float]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def measure_epoch(name: str, folder: Path, batch_size: int) -> dict[str, float]:
    """Jets per second of the second epoch, and peak bytes of both."""
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # weaver-core's data set cannot be sent to a spawned worker
    from weaver.utils.dataset import SimpleIterDataset  # noqa: F401 - its imports are not the loader's memory

    before = resident("VmRSS")
    if name.startswith("zoo"):
        epoch = zoo_loader(folder, batch_size, LOADERS[name])
    else:
        epoch = weaver_loader(folder, batch_size, LOADERS[name], "in_memory" in name)
    sum(epoch(0))
    start, cpu_start = time.perf_counter(), time.process_time()
    jets = sum(epoch(1))
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    return {"rate": jets / seconds, "cpu_rate": jets / cpu_seconds, "peak": resident("VmHWM") - before}


def compare(file: Path, batch_size: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        convert([file], folder / "zoo", processes=1)
        write_weaver(read_jets(file), folder)
        found: dict[str, list[dict[str, float]]] = {loader: [] for loader in LOADERS}
        for _ in range(rounds):
            for loader, results in found.items():
                results.append(in_new_process(measure_epoch, loader, folder, batch_size))
    rows = []
    for loader, results in found.items():
        ours = found["zoo, 2 workers" if LOADERS[loader] else "zoo"]
        rates = [result["rate"] for result in results]
        ratios = [mine["rate"] / theirs["rate"] for mine, theirs in zip(ours, results, strict=True)]
        row = {"loader": loader, "jets_per_s": round(statistics.median(rates))}
        row |= {"jets_per_s_min": round(min(rates)), "jets_per_s_max": round(max(rates))}
        row["zoo_is_faster_by"], row["least"] = round(statistics.median(ratios), 2), round(min(ratios), 2)
        # the work of the main process alone does not include that of its workers
        one = not LOADERS[loader]
        row["jets_per_cpu_s"] = round(statistics.median(result["cpu_rate"] for result in results)) if one else ""
        row["peak_mb"] = round(max(result["peak"] for result in results) / 1e6) if one else ""
        rows.append(row)
    tell(rows, RESULTS / "loader.csv", f"batches of {batch_size}, {rounds} rounds")


def build_large(file: Path, folder: Path, copies: int) -> Path:
    """A folder of the jets of a file, ``copies`` times."""
    write_store(folder / "0.arrow", read_jets(file))
    for number in range(1, copies):
        os.link(folder / "0.arrow", folder / f"{number}.arrow")
    convert([folder / f"{number}.arrow" for number in range(copies)], folder / "large", processes=1)
    return folder / "large"


def measure_large(folder: Path, batch_size: int) -> dict[str, float]:
    """An epoch under a limit of a tenth of the data on the process's own memory."""
    torch.set_num_threads(1)
    size = read_manifest(folder).bytes
    before, limit = resident("RssAnon"), size // 10
    resource.setrlimit(resource.RLIMIT_DATA, (int(resident("VmData")) + limit,) * 2)
    datamodule = JetDataModule(train=Split([str(folder)]), features=FEATURES, batch_size=batch_size)
    datamodule.setup("fit")
    seen, peaks, start = 0, [], time.perf_counter()
    for batch in datamodule.train_dataloader():
        seen += len(batch.label)
        peaks.append(resident("RssAnon") - before)
    half = len(peaks) // 2
    return {
        "jets": seen,
        "data_mb": round(size / 1e6),
        "limit_mb": round(limit / 1e6),
        "own_mb_first_half": round(max(peaks[:half]) / 1e6),
        "own_mb_second_half": round(max(peaks[half:]) / 1e6),
        "mapped_mb": round(resident("RssFile") / 1e6),
        "jets_per_s": round(seen / (time.perf_counter() - start)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--file", type=Path, default=DEFAULT_FILE, help="Top Tagging Reference HDF5 file")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large", action="store_true", help="two million jets under a limit of memory")
    parser.add_argument("--copies", type=int, default=20, help="how often the file is tiled for --large")
    options = parser.parse_args()
    if not options.large:
        compare(options.file, options.batch_size, options.rounds)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = build_large(options.file, Path(name), options.copies)
        row = in_new_process(measure_large, folder, options.batch_size)
    tell([row], RESULTS / "loader_large.csv", f"batches of {options.batch_size}, one process")


if __name__ == "__main__":
    main()
