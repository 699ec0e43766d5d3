"""A folder of simulated jets: shards that are written one by one, and a manifest of the complete ones."""

import json
from pathlib import Path

import numpy as np

from zoo.data.manifest import MANIFEST, Manifest, Shard, read_manifest, write_manifest
from zoo.data.packed import PackedJets
from zoo.data.shards import ShardFolder, describe_shard, shard_path
from zoo.data.store import MOMENTUM_COLUMNS, write_store
from zoo.files import LOCK, only_one, remove_drafts
from zoo.progress import progress_bar
from zoo.simulate.chunks import JETS_PER_CHUNK, Chunk, assemble, make_chunks, plan

#: Jets in one shard, a whole number of chunks of each class: 8 MB, and four minutes on one core.
JETS_PER_SHARD = 10_000


def fill_folder(
    folder: Path, jets: int, seed: int, metadata: dict, *, processes: int, multiple_interactions: bool
) -> Manifest:
    """Simulate the missing shards of a folder; after an interruption, or for more jets, the same call continues.

    The classes alternate from chunk to chunk and each shard is shuffled, so the whole folder is in random order. The
    bytes depend only on the arguments, not on interruptions or on the number of processes.

    Args:
        folder: Created if needed.
        jets: Number that the folder will hold; in each shard half of them are of class 0 and half of class 1.
        seed: Seed of the whole folder.
        metadata: Metadata of the jets, the same for all shards.
        processes: Worker processes.
        multiple_interactions: See `zoo.simulate.simulate`.

    Raises:
        ValueError: If the folder holds other files, other jets, or more jets than asked for.
        OSError: If another process simulates into the folder, it cannot be written, or a worker dies.
    """
    with only_one(folder, "simulation"):
        remove_drafts(folder)
        metadata = json.loads(json.dumps({**metadata, "shuffled": True}))
        sizes = [min(JETS_PER_SHARD, jets - start) for start in range(0, jets, JETS_PER_SHARD)]
        shards = _finished_shards(folder, seed, metadata, sizes)
        waiting = {
            number: plan(
                size,
                seed,
                multiple_interactions=multiple_interactions,
                first=number * (JETS_PER_SHARD // 2 // JETS_PER_CHUNK),
            )
            for number, size in enumerate(sizes)
            if number >= len(shards)
        }
        made: dict[Chunk, PackedJets] = {}
        with progress_bar("jets") as progress:
            done = sum(shard.jets for shard in shards)
            task = progress.add_task(f"simulating {folder.name}", total=jets, completed=done)
            for chunk, its_jets in make_chunks((chunk for chunks in waiting.values() for chunk in chunks), processes):
                made[chunk] = its_jets
                progress.update(task, advance=chunk.jets)
                while (number := len(shards)) in waiting and all(chunk in made for chunk in waiting[number]):
                    table = assemble(
                        {chunk: made.pop(chunk) for chunk in waiting[number]},
                        np.random.SeedSequence([seed, 1, number]),
                        metadata,
                    )
                    path = shard_path(folder, number)
                    write_store(path, table)
                    shards.append(describe_shard(path, len(table)))
                    write_manifest(folder, _manifest(shards, seed, metadata))
        return read_manifest(folder)


def _finished_shards(folder: Path, seed: int, metadata: dict, sizes: list[int]) -> list[Shard]:
    """The shards of an unfinished folder, without a last one that must grow.

    Raises:
        ValueError: If the folder holds other files, other jets, or more than asked for.
    """
    if not (folder / MANIFEST).exists():
        for entry in folder.iterdir():
            if not (entry.match("shard-*.arrow") or entry.name == LOCK):
                raise ValueError(f"{folder} holds other files, such as {entry.name}; name an empty or a new folder")
        return []
    manifest = read_manifest(folder)
    before = {"seed": manifest.seed, **manifest.metadata}
    for key, wanted in {"seed": seed, **metadata}.items():
        if before.get(key) != wanted:
            raise ValueError(
                f"{folder} holds jets of {key} {before.get(key)}, not {wanted}; name another folder, or delete it"
            )
    if manifest.jets > sum(sizes):
        raise ValueError(f"{folder} holds {manifest.jets} jets already; ask for more, or name another folder")
    ShardFolder(folder).verify()  # damage since then is an error now, not later in a training
    full = [shard for shard, size in zip(manifest.shards, sizes, strict=False) if shard.jets == size]
    if len(full) < len(manifest.shards):
        _forget_last(folder, full, seed, metadata)
    return full


def _forget_last(folder: Path, full: list[Shard], seed: int, metadata: dict) -> None:
    """Remove the shard that must grow from the manifest, which would be wrong after a kill behind its replacement."""
    if full:
        write_manifest(folder, _manifest(full, seed, metadata))
    else:
        (folder / MANIFEST).unlink()


def _manifest(shards: list[Shard], seed: int, metadata: dict) -> Manifest:
    of_class = [sum(shard.jets - shard.jets // 2 for shard in shards), sum(shard.jets // 2 for shard in shards)]
    return Manifest(
        jets=sum(of_class),
        class_jets=dict(zip(metadata["classes"], of_class, strict=True)),
        metadata=metadata,
        particles=dict.fromkeys(MOMENTUM_COLUMNS, np.dtype(np.float32).str),
        fields={},
        seed=seed,
        jets_per_shard=JETS_PER_SHARD,
        compression=None,
        layout=None,
        shards=tuple(shards),
        sources=(),
    )
