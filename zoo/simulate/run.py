"""Simulated jets in one call: arguments, metadata, and one file or a folder of shards."""

import os
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np

from zoo.data.store import write_store
from zoo.files import require_output
from zoo.progress import progress_bar
from zoo.simulate.chunks import assemble, make_chunks, plan
from zoo.simulate.folder import fill_folder
from zoo.simulate.generator import import_extra
from zoo.simulate.jets import Selection

DATASETS = ("top_tagging",)


def simulate(
    dataset: str,
    *,
    jets: int,
    seed: int = 1,
    out: str | Path,
    processes: int | None = None,
    multiple_interactions: bool = True,
    force: bool = False,
) -> Path:
    """Make labelled jets with Pythia 8, a parametric detector and FastJet, and write them as the zoo's own file.

    The same ``jets`` and ``seed`` give the same bytes, whatever the number of processes. An ``out`` that ends with
    ``.arrow`` is one file, written completely or not at all. Any other is a folder of shards with a manifest, as ``zoo
    convert`` writes them. It may be larger than memory and can be read while it grows. After an interruption the same
    call continues it, and so does one for more jets.

    Args:
        dataset: ``"top_tagging"``, jets like those of the Top Tagging Reference set.
        jets: Number of jets; half, rounded down, are hadronic top jets (label 1), the rest QCD jets (label 0).
        seed: Any non-negative integer; different seeds give independent jets.
        out: File or folder to write.
        processes: Worker processes; None for one per core.
        multiple_interactions: Whether the protons interact more than once, which makes the underlying event. The
            reference jets show that they did, despite their description (see the page on simulation).
        force: Whether an older file is replaced.

    Returns:
        The file or folder written.

    Raises:
        ModuleNotFoundError: If the extra ``sim`` is not installed.
        ValueError: If an argument makes no sense, or the folder holds something else.
        OSError: If the file cannot be written, a worker process dies, or another process simulates into the folder.

    References:
        Kasieczka, Plehn, Thompson, Russel, "The Machine Learning Landscape of Top Taggers" (2019), arXiv:1902.09914.
    """
    out = Path(out)
    processes = check_arguments(dataset, jets, seed, out, processes)
    if is_file(out):
        require_output(out, force=force)
    for name in ("pythia8mc", "fastjet"):
        import_extra(name)
    if is_file(out):
        metadata = describe(dataset, f"--jets {jets} --seed {seed}", multiple_interactions)
        chunks = plan(jets, seed, multiple_interactions=multiple_interactions)
        with progress_bar("jets") as progress:
            task = progress.add_task(f"simulating {out.name}", total=jets)
            made = {}
            for chunk, chunk_jets in make_chunks(chunks, processes):
                made[chunk] = chunk_jets
                progress.update(task, advance=chunk.jets)
        ordered = {chunk: made[chunk] for chunk in chunks}
        write_store(out, assemble(ordered, np.random.SeedSequence([seed, jets]), metadata), compression="zstd")
    else:
        metadata = describe(dataset, f"--seed {seed}", multiple_interactions)
        fill_folder(out, jets, seed, metadata, processes=processes, multiple_interactions=multiple_interactions)
    return out


def is_file(out: Path) -> bool:
    """Whether the output is a single file; otherwise it is a folder."""
    return out.suffix == ".arrow"


def describe(dataset: str, options: str, multiple_interactions: bool) -> dict:
    """Metadata of simulated jets: data set, classes, units, command, selection, and which software made them."""
    command = f"zoo simulate {dataset} {options}"
    return {
        "dataset": dataset,
        "classes": ["qcd", "top"],
        "units": "GeV",
        "source": command if multiple_interactions else f"{command} --no-multiple-interactions",
        "selection": asdict(Selection()),
        "software": {name: version(name) for name in ("pythia8mc", "fastjet")},
    }


def check_arguments(dataset: str, jets: int, seed: int, out: Path, processes: int | None) -> int:
    """Refuse what cannot work before any event is made; returns the number of processes.

    Raises:
        ValueError: Naming the argument, its value and the remedy.
        OSError: If ``out`` cannot be written to.
    """
    if dataset not in DATASETS:
        raise ValueError(f"dataset {dataset!r} cannot be simulated; choose one of {', '.join(DATASETS)}")
    if jets < 2:
        raise ValueError(f"jets = {jets}: ask for at least 2, one of each class")
    if seed < 0:
        raise ValueError(f"seed = {seed}: give a non-negative integer")
    if processes is not None and processes < 1:
        raise ValueError(f"processes = {processes}: give at least 1, or leave it out for one a core")
    if is_file(out) and out.is_dir():
        raise IsADirectoryError(f"{out} is a folder: name a file to write")
    if out.is_file() and not is_file(out):
        raise NotADirectoryError(f"{out} is a file: name a folder, or a file that ends with .arrow")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"folder {out.parent} does not exist: create it first")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return processes or usable or 1
