"""Chunks of work: their jets depend only on their numbers, not on the process that makes them or on the order."""

import signal
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from multiprocessing import active_children, get_context

import numpy as np

from zoo.data.packed import PackedJets, concatenate
from zoo.data.store import JetTable
from zoo.simulate.detector import DetectorCard, detect
from zoo.simulate.generator import Generator
from zoo.simulate.jets import Selection, select_jets

#: Jets in one chunk of work. The chunks, and with them the bytes, do not depend on the number of processes.
JETS_PER_CHUNK = 250
#: Events per call of the generator; the detector works on all of them at once.
EVENTS_PER_BATCH = 100
#: Smallest and largest transverse momentum of the hard process in GeV.
PT_HAT = (500.0, 2000.0)
#: A chunk that needs more events per jet than this has a broken selection: about 2 (QCD) and 3 (top) are needed.
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


def plan(jets: int, seed: int, *, multiple_interactions: bool = True, first: int = 0) -> list[Chunk]:
    """Cut the work into chunks of fixed size; classes alternate.

    Args:
        jets: Number for both classes together.
        seed: Seed of the whole work.
        multiple_interactions: Whether the protons interact more than once.
        first: Number of the first chunk of each class.
    """
    chunks = []
    for label, wanted in ((0, jets - jets // 2), (1, jets // 2)):
        starts = range(0, wanted, JETS_PER_CHUNK)
        chunks += [
            Chunk(label, first + number, min(JETS_PER_CHUNK, wanted - start), seed, multiple_interactions)
            for number, start in enumerate(starts)
        ]
    return sorted(chunks, key=lambda chunk: (chunk.number, chunk.label))


def make_chunk(chunk: Chunk, card: DetectorCard | None = None, selection: Selection | None = None) -> PackedJets:
    """Simulate until the chunk has its jets; its random numbers depend only on (seed, label, number).

    Raises:
        RuntimeError: If far more events than usual give too few jets.
    """
    card, selection = card or DetectorCard(), selection or Selection()
    pythia_seed, detector_seed = np.random.SeedSequence([chunk.seed, chunk.label, chunk.number]).spawn(2)
    further = () if chunk.multiple_interactions else ("PartonLevel:MPI = off",)
    generator = Generator(chunk.label, 1 + int(pythia_seed.generate_state(1)[0]) % PYTHIA_SEEDS, PT_HAT, further)
    rng = np.random.default_rng(detector_seed)
    batches: list[PackedJets] = []
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
    return concatenate(batches).first(chunk.jets)._replace(label=np.full(chunk.jets, chunk.label))


def make_chunks(chunks: Iterable[Chunk], processes: int) -> Iterator[tuple[Chunk, PackedJets]]:
    """Each chunk with its jets, as they become ready; only a few are in work at a time, so that memory stays small."""
    if processes == 1:
        yield from ((chunk, make_chunk(chunk)) for chunk in chunks)
        return
    others = set(active_children())
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_leave_interrupts_to_the_parent)
    try:
        chunks = iter(chunks)
        futures = {pool.submit(make_chunk, chunk): chunk for chunk in islice(chunks, 2 * processes)}
        while futures:
            for future in wait(futures, return_when=FIRST_COMPLETED).done:
                yield futures.pop(future), future.result()
                futures |= {pool.submit(make_chunk, chunk): chunk for chunk in islice(chunks, 1)}
    except BrokenProcessPool as error:
        raise ChildProcessError(
            "a simulation process died (killed, or out of memory?); try fewer processes; a folder keeps what is done"
        ) from error
    finally:
        # After Ctrl-C or an error the workers would continue with jets that nobody needs.
        for worker in set(active_children()) - others:
            worker.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def assemble(made: dict[Chunk, PackedJets], seed: np.random.SeedSequence, metadata: dict) -> JetTable:
    """Join the chunks in order and mix the classes with a shuffle fixed by the seed."""
    table = concatenate(list(made.values())).to_table(metadata)
    return table.take(np.random.default_rng(seed).permutation(len(table)))
