"""From a number of jets and a seed to a file: fixed chunks of work, spread over processes, put together in order."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from multiprocessing import active_children, get_context
from pathlib import Path

import numpy as np

from zoo.data.store import JetTable, write_store
from zoo.progress import progress_bar
from zoo.simulate.detector import DetectorCard, detect
from zoo.simulate.generator import Generator, import_extra
from zoo.simulate.jets import Jets, Selection, select_jets

DATASETS = ("top_tagging",)
#: Jets in one chunk of work. The chunks, and with them the bytes, do not depend on the number of processes.
JETS_PER_CHUNK = 250
#: Events of one call of the generator; the detector works on all of them at once.
EVENTS_PER_BATCH = 100
#: Smallest and largest transverse momentum of the hard process in GeV.
PT_HAT = (500.0, 2000.0)
#: A chunk that needs more events a jet than this has lost its selection: about 4 (QCD) and 7 (top) are needed.
EVENTS_PER_JET_MAX = 200
#: Pythia takes seeds from 1 to this.
PYTHIA_SEEDS = 900_000_000


@dataclass(frozen=True)
class Chunk:
    """One piece of work: ``jets`` jets of class ``label``, number ``number`` of its class."""

    label: int
    number: int
    jets: int
    seed: int
    multiple_interactions: bool = True


def simulate(
    dataset: str,
    *,
    jets: int,
    seed: int = 1,
    out: str | Path,
    processes: int | None = None,
    multiple_interactions: bool = True,
) -> Path:
    """Make labelled jets with Pythia 8, a parametric detector and FastJet, and write them as the zoo's own file.

    The same ``jets`` and ``seed`` give the same bytes, whatever the number of processes.

    Args:
        dataset: ``"top_tagging"``, jets like those of the Top Tagging Reference set.
        jets: Number of jets; the even half are hadronic top jets (label 1), the rest QCD jets (label 0).
        seed: Any non-negative integer; different seeds give independent jets.
        out: File to write, complete or not at all.
        processes: Worker processes; None for one a core.
        multiple_interactions: Whether the protons interact more than once, the underlying event. The reference jets
            show that they did, whatever their description says (see the page on simulation).

    Returns:
        The file written.

    Raises:
        ModuleNotFoundError: If the extra ``sim`` is not installed.
        ValueError: If an argument makes no sense.
        OSError: If the file cannot be written or a worker process dies.

    References:
        Kasieczka, Plehn, Thompson, Russel, "The Machine Learning Landscape of Top Taggers" (2019), arXiv:1902.09914.
    """
    out = Path(out)
    processes = check_arguments(dataset, jets, seed, out, processes)
    for name in ("pythia8mc", "fastjet"):
        import_extra(name)
    chunks = [replace(chunk, multiple_interactions=multiple_interactions) for chunk in plan(jets, seed)]
    made = dict(_with_progress(_work(chunks, processes), jets, f"simulating {out.name}"))
    command = f"zoo simulate {dataset} --jets {jets} --seed {seed}"
    if not multiple_interactions:
        command += " --no-multiple-interactions"
    table = assemble([made[chunk] for chunk in chunks], [chunk.label for chunk in chunks], seed, dataset, command)
    write_store(out, table, compression="zstd")
    return out


def check_arguments(dataset: str, jets: int, seed: int, out: Path, processes: int | None) -> int:
    """Refuse what cannot work before any event is made; returns the number of processes.

    Raises:
        ValueError: Naming the argument, its value and the remedy.
        OSError: If ``out`` cannot be written.
    """
    if dataset not in DATASETS:
        raise ValueError(f"dataset {dataset!r} cannot be simulated; choose one of {', '.join(DATASETS)}")
    if jets < 2:
        raise ValueError(f"jets = {jets}: ask for at least 2, one of each class")
    if seed < 0:
        raise ValueError(f"seed = {seed}: give a non-negative integer")
    if processes is not None and processes < 1:
        raise ValueError(f"processes = {processes}: give at least 1, or leave it out for one a core")
    if out.is_dir():
        raise IsADirectoryError(f"{out} is a folder: name a file to write")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"folder {out.parent} does not exist: create it first")
    if not os.access(out.parent, os.W_OK):
        raise PermissionError(f"folder {out.parent} cannot be written to")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return processes or usable or 1


def plan(jets: int, seed: int) -> list[Chunk]:
    """Cut the work into chunks of a size that depends on nothing else; classes alternate."""
    chunks = []
    for label, wanted in ((0, jets - jets // 2), (1, jets // 2)):
        starts = range(0, wanted, JETS_PER_CHUNK)
        chunks += [
            Chunk(label, number, min(JETS_PER_CHUNK, wanted - start), seed) for number, start in enumerate(starts)
        ]
    return sorted(chunks, key=lambda chunk: (chunk.number, chunk.label))


def make_chunk(chunk: Chunk, card: DetectorCard | None = None, selection: Selection | None = None) -> Jets:
    """Simulate until the chunk has its jets; its random numbers depend on (seed, label, number) only.

    Raises:
        RuntimeError: If far more events than usual give too few jets.
    """
    card, selection = card or DetectorCard(), selection or Selection()
    pythia_seed, detector_seed = np.random.SeedSequence([chunk.seed, chunk.label, chunk.number]).spawn(2)
    further = () if chunk.multiple_interactions else ("PartonLevel:MPI = off",)
    generator = Generator(chunk.label, 1 + int(pythia_seed.generate_state(1)[0]) % PYTHIA_SEEDS, PT_HAT, further)
    rng = np.random.default_rng(detector_seed)
    batches: list[Jets] = []
    found = events = 0
    while found < chunk.jets:
        if events > EVENTS_PER_JET_MAX * (chunk.jets + 1):
            raise RuntimeError(
                f"{events} events gave only {found} jets of class {chunk.label}: the selection is broken"
            )
        batch = generator.generate(EVENTS_PER_BATCH)
        objects = detect(batch.particles, card, rng)
        tops = (batch.tops, batch.top_event) if chunk.label == 1 else (None, None)
        batches.append(select_jets(objects, *tops, selection))
        found += len(batches[-1].counts)
        events += EVENTS_PER_BATCH
    counts = np.concatenate([batch.counts for batch in batches])[: chunk.jets]
    four_momenta = np.concatenate([batch.four_momenta for batch in batches])[: counts.sum()]
    event = np.concatenate([batch.event for batch in batches])[: chunk.jets]
    return Jets(four_momenta, counts, event)


def _work(chunks: list[Chunk], processes: int) -> Iterator[tuple[Chunk, Jets]]:
    if processes == 1 or len(chunks) == 1:
        yield from ((chunk, make_chunk(chunk)) for chunk in chunks)
        return
    others = set(active_children())
    pool = ProcessPoolExecutor(
        min(processes, len(chunks)), mp_context=get_context("spawn"), initializer=_leave_interrupts_to_the_parent
    )
    try:
        futures = {pool.submit(make_chunk, chunk): chunk for chunk in chunks}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise ChildProcessError(
            "a simulation process died (killed, or out of memory?); nothing was written: try fewer processes"
        ) from error
    finally:
        # After Ctrl-C or an error the workers would go on with jets that nobody wants.
        for worker in set(active_children()) - others:
            worker.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _with_progress(results: Iterator[tuple[Chunk, Jets]], jets: int, title: str) -> Iterator[tuple[Chunk, Jets]]:
    with progress_bar("jets") as progress:
        task = progress.add_task(title, total=jets)
        for chunk, made in results:
            progress.update(task, advance=chunk.jets)
            yield chunk, made


def assemble(chunks: list[Jets], labels: list[int], seed: int, dataset: str, source: str) -> JetTable:
    """Join the chunks in their order and mix the classes with a shuffle that the seed fixes."""
    counts = np.concatenate([chunk.counts for chunk in chunks])
    four_momenta = np.concatenate([chunk.four_momenta for chunk in chunks])
    label = np.repeat(np.array(labels, dtype=np.int64), [len(chunk.counts) for chunk in chunks])
    order = np.random.default_rng(np.random.SeedSequence([seed, len(label)])).permutation(len(label))
    starts = (np.cumsum(counts) - counts)[order]
    offsets = np.concatenate([[0], np.cumsum(counts[order])]).astype(np.int64)
    rows = np.repeat(starts - offsets[:-1], counts[order]) + np.arange(offsets[-1])
    names = ("part_energy", "part_px", "part_py", "part_pz")
    metadata = {
        "dataset": dataset,
        "classes": ["qcd", "top"],
        "units": "GeV",
        "source": source,
        "selection": asdict(Selection()),
        "software": {name: version(name) for name in ("pythia8mc", "fastjet")},
    }
    return JetTable(
        particles={name: np.ascontiguousarray(four_momenta[rows, axis]) for axis, name in enumerate(names)},
        offsets=offsets,
        fields={},
        label=label[order],
        weight=np.ones(len(label), dtype=np.float32),
        metadata=metadata,
    )
