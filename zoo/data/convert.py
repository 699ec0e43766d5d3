"""Converts files of any format to a folder of shuffled shards, in memory that does not grow with the data.

The shuffle takes two passes. The first deals the jets of every `PART_ROWS` rows of a file to the shards at random and
writes them as a part, sorted by shard. The second joins the pieces of each shard and shuffles them. As each jet is
dealt independently of the others, the final order of all jets is uniformly random.

References:
    Sandelius, "A simple randomization procedure", J. R. Stat. Soc. B 24 (1962) 472.
"""

import contextlib
import dataclasses
import functools
import itertools
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from zoo.data.datasets import expand_pattern
from zoo.data.formats.known import Description
from zoo.data.manifest import MANIFEST, Manifest, Source, read_manifest, write_manifest
from zoo.data.read_report import ReadReport
from zoo.data.remote import local_path
from zoo.data.shards import describe_shard, shard_path
from zoo.data.source import JetSource, open_source
from zoo.data.store import JetTable, join_tables, open_store, write_store
from zoo.files import LOCK, atomic_write, only_one
from zoo.limits import parse_json
from zoo.progress import progress_bar

PLAN = "conversion.json"
PARTS = "parts"
PLAN_VERSION = 2
DRAFTS = ".*.draft"  # of `zoo.files.atomic_write`

#: Metadata of tables that must be the same for all files.
FACTS = ("dataset", "classes", "units")

#: Rows of a file that are read at a time and written as one part: 50 particles a jet of 4 columns take 52 MB.
PART_ROWS = 65536

#: Shards that one piece of work puts together, so that it opens all parts only once for this many.
SHARDS_AT_ONCE = 8

#: Most threads of a process: decoding and copying release the interpreter lock, the code between them does not.
THREADS = 4

#: This many blocks of this many bytes distinguish a file from another with the same size and time.
BLOCKS = 64
BLOCK_BYTES = 4096

Work = TypeVar("Work")
Result = TypeVar("Result")
#: Function and its arguments -> each argument with its result, in any order.
Run = Callable[[Callable[[Work], Result], Sequence[Work]], Iterator[tuple[Work, Result]]]


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that the bytes of a converted folder depend on, except the contents of the files.

    Args:
        seed: of the shuffle.
        jets_per_shard: mean number of jets of a shard.
        compression: of the shards, see `zoo.data.store.write_store`.
        layout: of the files as the ``values`` of their description, None for files that need none.
        sources: path, size, time of the last change, and number of rows of each file.
        labelled: whether the file must give the class of each jet.
    """

    seed: int
    jets_per_shard: int
    compression: str | None
    layout: dict[str, Any] | None
    sources: tuple[tuple[str, int, int, int], ...]
    labelled: bool = True

    @property
    def rows(self) -> int:
        """Number of rows of all files."""
        return sum(rows for *_, rows in self.sources)

    @property
    def shards(self) -> int:
        """Number of shards that the jets are dealt to."""
        return max(1, round(self.rows / self.jets_per_shard))

    @property
    def settings(self) -> dict[str, Any]:
        """All settings but the files, each key of the layout by its own name."""
        layout = {"layout": None} if self.layout is None else {f"layout.{key}": v for key, v in self.layout.items()}
        return {key: getattr(self, key) for key in ("seed", "jets_per_shard", "compression", "labelled")} | layout

    def parts(self, folder: Path, layout: Description | None) -> list["Part"]:
        """The pieces of work of the first pass."""
        return [
            Part(folder, Path(path), number, (start, stop), self.shards, self.seed, layout, self.labelled)
            for number, (path, *_, rows) in enumerate(self.sources)
            for start, stop in ((first, min(first + PART_ROWS, rows)) for first in range(0, rows, PART_ROWS))
        ]


@dataclasses.dataclass(frozen=True)
class Part:
    """Some rows of file number ``number``, to be dealt to the shards."""

    folder: Path
    file: Path
    number: int
    rows: tuple[int, int]
    shards: int
    seed: int
    layout: Description | None
    labelled: bool = True

    def open(self) -> JetSource:
        """The file; its checksums are compared once, not for each part."""
        return open_source(self.file, self.layout, labelled=self.labelled, verify=False)

    @property
    def path(self) -> Path:
        """Where its jets are written."""
        return self.folder / PARTS / f"{self.number:06d}-{self.rows[0]:012d}.arrow"


@dataclasses.dataclass(frozen=True)
class Gathering:
    """Some shards, to be assembled from all parts."""

    folder: Path
    parts: tuple[Path, ...]
    shards: tuple[int, ...]
    seed: int
    compression: str | None


def convert(
    files: Sequence[str | Path],
    out: str | Path,
    *,
    jets_per_shard: int = 100_000,
    seed: int = 1,
    processes: int | None = None,
    scheduler: str | None = None,
    compression: str | None = None,
    layout: Description | None = None,
    labelled: bool = True,
) -> Manifest:
    """Convert files to a folder of shards whose jets are in random order, with a manifest that is written last.

    The bytes depend on the files, their order, and all arguments but ``processes`` and ``scheduler``. They do not
    depend on interruptions: the same call continues an interrupted conversion. Bad jets are left out and counted. The
    fields ``source_file`` (the number of the file) and ``source_row`` say where each jet comes from. During the
    conversion the folder takes twice the space.

    Args:
        files: files of any format that `zoo.data.readers.read_jets` knows, all of one data set with the same columns;
            or patterns of them, see `zoo.data.datasets.expand_pattern`.
        out: folder to make.
        jets_per_shard: mean number of jets of a shard; each thread holds about three shards in memory.
        seed: of the shuffle.
        processes: number of processes, each with threads on its share of the cores; None: one for every `THREADS`
            cores. A single one works without dask.
        scheduler: address of a dask scheduler whose workers see the same files; None for processes of this machine.
        compression: None for shards that are mapped into memory, ``"lz4"`` or ``"zstd"`` for small ones.
        layout: which columns of the files hold what, see `zoo.data.description.read_description`; a data file of weaver
            selects jets and makes weights as its ``split`` says.
        labelled: whether each file must give the class of each jet; if not, it is -1 where a file does not.

    Raises:
        ValueError: if an argument makes no sense, the folder holds something else, a file cannot be read, the files are
            incompatible, or no good jet is left.
        OSError: if a file is missing or changes meanwhile, the disk is full, another process converts to the folder, or
            a worker dies.
        ModuleNotFoundError: if dask is needed and not installed.
    """
    out, files = Path(out), [local_path(file) for name in files for file in expand_pattern(name)]
    check_arguments(files, out, jets_per_shard, seed, processes, compression)
    with only_one(out, "conversion"):
        paths = [Path(file).resolve() for file in files]
        with _workers(processes, scheduler) as run:
            values = None if layout is None else layout.values
            wanted = Plan(seed, jets_per_shard, compression, values, (), labelled)
            plan = _make_plan(out, paths, run, wanted, layout)
            if not (out / MANIFEST).exists():
                _clean_up_drafts(out)
                (out / PARTS).mkdir(exist_ok=True)
                parts = plan.parts(out, layout)
                prints = _fingerprints_of(out, paths)
                _deal(parts, run)
                _require_unchanged(out, plan, prints)
                manifest = _gather(out, plan, parts, run)
                write_manifest(out, manifest)
        _remove_scaffold(out)
    return read_manifest(out)


def describe(folder: Path, manifest: Manifest) -> str:
    """What was converted, and which jets of which file were left out, one line each."""
    classes = ", ".join(f"{jets} {name}" for name, jets in manifest.class_jets.items() if jets)
    unknown = manifest.jets - sum(manifest.class_jets.values())
    classes += f"{', ' if classes else ''}{unknown} of a class that is not known" if unknown else ""
    lines = [f"{folder}: {manifest.jets} jets in {len(manifest.shards)} shards: {classes}"]
    for source in manifest.sources:
        lines += [] if source.rows else [f"{source.path}: skipped, it holds no row"]
        report = ReadReport(Path(source.path), source.rows, source.rejected, source.mended)
        lines += [str(report)] if report.left_out else []
        lines += [f"{source.path}: {mending}" for mending in report.mendings()]
    return "\n".join(lines)


def check_arguments(
    files: Sequence[str | Path],
    out: Path,
    jets_per_shard: int,
    seed: int,
    processes: int | None,
    compression: str | None,
) -> None:
    """Refuse what cannot work before any file is read.

    Raises:
        ValueError: naming the argument, its value and the remedy.
        FileNotFoundError: if a file is missing.
    """
    if not files or len({Path(file).resolve() for file in files}) < len(files):
        raise ValueError("files: give at least one file and none twice")
    for file in files:
        if not Path(file).is_file():
            raise FileNotFoundError(f"files: {file} is not a file; give files of jets")
    for name, value, smallest in (
        ("jets_per_shard", jets_per_shard, 1),
        ("seed", seed, 0),
        ("processes", processes, 1),
    ):
        if value is not None and value < smallest:
            raise ValueError(f"{name}: must be at least {smallest}, not {value}")
    if compression not in (None, "lz4", "zstd"):
        raise ValueError(f"compression: must be lz4, zstd or none, not {compression!r}")
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"{out} is a file; name a folder to make")


def _make_plan(folder: Path, paths: list[Path], run: Run, wanted: Plan, layout: Description | None) -> Plan:
    """The wanted plan, with the sources; a folder that was begun or finished with another plan is refused."""
    old = _read_plan(folder, wanted.labelled)
    now = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    if old is not None:
        _check_settings(folder, old.settings, wanted.settings)
        for before, after in itertools.zip_longest((source[:3] for source in old.sources), now):
            if before != after:
                raise _other_plan(folder, f"{_describe(before)}, not {_describe(after)}")
        return old
    if any(entry.name != LOCK and not entry.match(DRAFTS) for entry in folder.iterdir()):
        raise ValueError(f"{folder} holds other files; name a folder that is empty or does not exist")
    prints = [fingerprint(path) for path in paths]
    plan = dataclasses.replace(wanted, sources=_inspect(paths, now, run, layout, wanted.labelled))
    with atomic_write(folder / PLAN) as file:
        content = {"version": PLAN_VERSION, **dataclasses.asdict(plan), "fingerprints": prints}
        file.write(json.dumps(content, indent=1).encode())
    return plan


def fingerprint(path: Path) -> int:
    """Checksum of `BLOCKS` blocks of a file, which detects a rewritten file with the same size and time."""
    found = 0
    with path.open("rb") as file:
        for start in np.linspace(0, max(0, path.stat().st_size - BLOCK_BYTES), BLOCKS, dtype=np.int64):
            file.seek(int(start))
            found = zlib.crc32(file.read(BLOCK_BYTES), found)
    return found


def _fingerprints_of(folder: Path, paths: list[Path]) -> list[int]:
    """The fingerprints when the conversion began; older versions kept none, so theirs are computed now."""
    content = parse_json((folder / PLAN).read_bytes())
    return content.get("fingerprints") or [fingerprint(path) for path in paths]


def _require_unchanged(folder: Path, plan: Plan, prints: list[int]) -> None:
    """Refuse files rewritten since the conversion began, and remove their parts, which mix old and new contents."""
    for number, ((name, size, modified, _), print_) in enumerate(zip(plan.sources, prints, strict=True)):
        path = Path(name)
        state = path.stat()
        if (state.st_size, state.st_mtime_ns) != (size, modified) or fingerprint(path) != print_:
            for part in (folder / PARTS).glob(f"{number:06d}-*.arrow"):
                part.unlink()
            raise OSError(
                f"{path}: was changed while it was converted; delete {folder} and convert again when it is complete"
            )


def _check_settings(folder: Path, old: dict[str, Any], wanted: dict[str, Any]) -> None:
    for key in {**old, **wanted}:
        before, after = old.get(key), wanted.get(key)
        # the order of columns matters
        if json.dumps(before) != json.dumps(after):
            raise _other_plan(folder, f"{key} {before}, not {after}")


def _read_plan(folder: Path, labelled: bool) -> Plan | None:
    """The plan that a folder was begun or finished with; a finished one does not record whether labels were needed."""
    if (folder / MANIFEST).exists():
        manifest = read_manifest(folder)
        sources = tuple((source.path, source.bytes, source.modified_ns, source.rows) for source in manifest.sources)
        return Plan(manifest.seed, manifest.jets_per_shard, manifest.compression, manifest.layout, sources, labelled)
    path = folder / PLAN
    if not path.is_file():
        return None
    content = parse_json(path.read_bytes())
    if content.pop("version") != PLAN_VERSION:
        raise ValueError(f"{path} was begun by another version of the zoo; delete the folder and convert again")
    content["sources"] = tuple(tuple(source) for source in content["sources"])
    content.pop("fingerprints", None)
    return Plan(**content)


def _other_plan(folder: Path, difference: str) -> ValueError:
    return ValueError(f"{folder} holds another conversion, with {difference}; name another folder, or delete this one")


def _describe(source: tuple[str, int, int] | None) -> str:
    if source is None:
        return "no further file"
    path, size, modified = source
    return f"the file {path} of {size} bytes, changed at {modified} ns"


def _inspect(
    paths: list[Path], found: list[tuple[str, int, int]], run: Run, layout: Description | None, labelled: bool
) -> tuple[tuple[str, int, int, int], ...]:
    """The sources with their numbers of rows, after a check that they are compatible."""
    looks = dict(run(functools.partial(_look_at, layout=layout, labelled=labelled), paths))
    filled = [path for path in paths if looks[path][0]]
    if not filled:
        raise ValueError(f"{paths[0]} and all other files hold no row; give files of jets")
    first = looks[filled[0]][1]
    for path in filled:
        for key, value in looks[path][1].items():
            if value != first[key]:
                raise ValueError(
                    f"{path}: {key} {value} differ from {first[key]} in {filled[0]}; convert them to different folders"
                )
    return tuple((*source, looks[path][0]) for source, path in zip(found, paths, strict=True))


def _look_at(path: Path, layout: Description | None, labelled: bool) -> tuple[int, dict[str, Any]]:
    """Number of rows, and what the first one shows of the columns."""
    with open_source(path, layout, labelled=labelled, verify=False) as source:
        if layout is not None and source.is_own:
            raise ValueError(
                f"{path} is a file of the zoo, which says itself what it holds; convert it without a layout"
            )
        rows = len(source)
        if not rows:
            return 0, {}
        table, _ = next(source.chunks((0, 1)))
    for key in FACTS:
        if key not in table.metadata:
            raise ValueError(f"{path} does not say its {key}; write it again with them in the metadata")
    return rows, {
        **{key: table.metadata[key] for key in FACTS},
        "particle columns": _types(table.particles),
        "jet columns": _types(table.fields),
    }


def _types(columns: dict[str, np.ndarray]) -> dict[str, str]:
    return {name: values.dtype.str for name, values in columns.items()}


def _clean_up_drafts(folder: Path) -> None:
    """Remove what a killed conversion was writing."""
    for draft in [*folder.glob(DRAFTS), *(folder / PARTS).glob(DRAFTS)]:
        draft.unlink()


def _remove_scaffold(folder: Path) -> None:
    """Remove what only the conversion needs; somebody else's folder ``parts`` in a finished folder is left alone."""
    if not (folder / PLAN).exists():
        return
    for part in (folder / PARTS).glob("[0-9]*-[0-9]*.arrow"):
        part.unlink()
    with contextlib.suppress(OSError):  # it holds something else, or is gone
        (folder / PARTS).rmdir()
    (folder / PLAN).unlink()


def _deal(parts: list[Part], run: Run) -> None:
    """First pass: write the parts that are missing, or were damaged since an interruption."""
    done = [part for part in parts if part.path.exists()]
    for part, is_intact in run(_is_intact, done):
        if not is_intact:
            part.path.unlink()
    left = [part for part in parts if not part.path.exists()]
    sources = {part.file: part for part in left}
    for _ in run(_verify_source, list(sources.values())):
        pass
    with progress_bar("jets") as progress:
        total = sum(part.rows[1] - part.rows[0] for part in parts)
        missing = sum(part.rows[1] - part.rows[0] for part in left)
        task = progress.add_task("reading", total=total, completed=total - missing)
        for part, _ in run(deal_part, left):
            progress.update(task, advance=part.rows[1] - part.rows[0])


def _is_intact(part: Part) -> bool:
    try:
        open_store(part.path)
    except ValueError:
        return False
    return True


def _verify_source(part: Part) -> None:
    """Compare a file of the zoo with its checksums once, before it is read in parts."""
    with part.open() as source:
        source.verify()


def deal_part(part: Part) -> None:
    """Deal the good jets of a part to the shards and write them, sorted by shard."""
    start, stop = part.rows
    chunks, report = [], ReadReport(part.file, 0, {})
    with part.open() as source:
        for chunk, of_chunk in source.chunks(part.rows):
            chunks.append(chunk)
            report += of_chunk
    table = join_tables(chunks)
    least, most = 0 if part.labelled else -1, len(table.metadata["classes"]) - 1
    if np.any((table.label < least) | (table.label > most)):
        raise ValueError(
            f"{part.file}: column 'label' must be {least} to {most}; correct the labels, or convert with --unlabelled "
            "to another folder, for a training that needs none"
        )
    random = np.random.default_rng([part.seed, 0, part.number, start])
    # dealt by row, so that a jet's shard does not depend on which jets before it are bad
    shard = random.integers(part.shards, size=stop - start)[table.rows_in_source(np.arange(len(table))) - start]
    ends = np.cumsum(np.bincount(shard, minlength=part.shards))
    origin = {
        "source_file": np.full(len(table), part.number, dtype=np.int32),
        "source_row": table.rows_in_source(np.arange(len(table))),
    }
    dealt = dataclasses.replace(
        table,
        fields=table.fields | origin,
        metadata={
            "of": {key: table.metadata[key] for key in FACTS},
            "ends": ends.tolist(),
            "rejected": dict(report.rejected),
            "mended": dict(report.mended),
        },
    ).take(np.argsort(shard, kind="stable"))
    write_store(part.path, dealt, is_checked=True)


def _gather(folder: Path, plan: Plan, parts: list[Part], run: Run) -> Manifest:
    """Second pass: write the missing shards; returns the manifest."""
    tables = [open_store(part.path, verify=False) for part in parts]
    rejected, mended = ([Counter() for _ in plan.sources] for _ in range(2))
    for part, table in zip(parts, tables, strict=True):
        rejected[part.number].update(table.metadata["rejected"])
        mended[part.number].update(table.metadata.get("mended", {}))  # which older parts lack
    jets = np.diff(np.sum([table.metadata["ends"] for table in tables], axis=0), prepend=0)
    if not jets.any():
        why = [f"{count} {what}" for what, count in sum((*rejected, *mended), Counter()).items()]
        nothing = f"{folder}: no good jet is left of {plan.rows}; check the units and the columns"
        raise ValueError("; ".join([nothing, *why]))
    paths = tuple(part.path for part in parts)
    numbers = np.flatnonzero(jets).tolist()
    groups = [tuple(numbers[i : i + SHARDS_AT_ONCE]) for i in range(0, len(numbers), SHARDS_AT_ONCE)]
    work = [Gathering(folder, paths, group, plan.seed, plan.compression) for group in groups]
    counts: dict[int, list[int]] = {}
    with progress_bar("jets") as progress:
        task = progress.add_task("shuffling", total=int(jets.sum()))
        for done, found in run(gather_shards, work):
            counts.update(zip(done.shards, found, strict=True))
            progress.update(task, advance=int(jets[list(done.shards)].sum()))
    metadata = tables[0].metadata["of"]
    class_jets = np.sum(list(counts.values()), axis=0).tolist()
    return Manifest(
        jets=int(jets.sum()),
        class_jets=dict(zip(metadata["classes"], class_jets, strict=True)),
        metadata=metadata,
        particles=_types(tables[0].particles),
        fields=_types(tables[0].fields),
        seed=plan.seed,
        jets_per_shard=plan.jets_per_shard,
        compression=plan.compression,
        layout=plan.layout,
        shards=tuple(describe_shard(shard_path(folder, number), int(jets[number])) for number in numbers),
        sources=tuple(
            Source(*source, *({what: count for what, count in sorted(found.items()) if count} for found in counts))
            for source, *counts in zip(plan.sources, rejected, mended, strict=True)
        ),
    )


def gather_shards(work: Gathering) -> list[list[int]]:
    """Put some shards together, shuffle and write them; returns the number of jets of each class of each shard."""
    parts = [open_store(path, verify=False) for path in work.parts]
    return [_gather_shard(work, number, parts) for number in work.shards]


def _gather_shard(work: Gathering, number: int, parts: list[JetTable]) -> list[int]:
    metadata = parts[0].metadata["of"]
    path = shard_path(work.folder, number)
    label = _label_of_finished(path)
    if label is None:
        pieces = join_tables([_piece(part, number) for part in parts])
        order = np.random.default_rng([work.seed, 1, number]).permutation(len(pieces))
        shard = dataclasses.replace(pieces, metadata={**metadata, "shuffled": True}).take(order)
        write_store(path, shard, compression=work.compression)
        label = shard.label
    return np.bincount(label[label >= 0], minlength=len(metadata["classes"])).tolist()


def _label_of_finished(path: Path) -> np.ndarray | None:
    """Labels of a shard that was finished before an interruption; None if there is none, or it was damaged since."""
    try:
        return open_store(path).label
    except (FileNotFoundError, ValueError):
        return None


def _piece(part: JetTable, number: int) -> JetTable:
    ends = part.metadata["ends"]
    return part.slice(ends[number - 1] if number else 0, ends[number])


@contextlib.contextmanager
def _workers(processes: int | None, scheduler: str | None) -> Iterator[Run]:
    """The function that runs the pieces of work: in this process, or in those of dask."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    processes = processes or max(1, cores // THREADS)
    threads = min(THREADS, max(1, cores // processes))
    if processes == 1 and scheduler is None:
        yield functools.partial(_run_here, threads)
        return
    try:
        from distributed import Client, LocalCluster
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "several processes need dask: pip install 'hepzoo[dask]', or ask for one with --processes 1"
        ) from error
    with contextlib.ExitStack() as stack:
        if scheduler is None:
            scheduler = stack.enter_context(
                LocalCluster(
                    n_workers=processes,
                    threads_per_worker=threads,
                    dashboard_address=None,
                    memory_limit=0,
                    silence_logs="CRITICAL",
                )
            )
        client = stack.enter_context(Client(scheduler))
        yield lambda function, work: _run_on(client, function, work)


def _run_here(threads: int, function: Callable[[Work], Result], work: Sequence[Work]) -> Iterator[tuple[Work, Result]]:
    with ThreadPoolExecutor(threads) as pool:
        item_of = {pool.submit(function, item): item for item in work}
        try:
            for future in as_completed(item_of):
                yield item_of[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _run_on(client: Any, function: Callable[[Work], Result], work: Sequence[Work]) -> Iterator[tuple[Work, Result]]:
    import distributed

    futures = client.map(function, work, pure=False)
    item_of = dict(zip(futures, work, strict=True))
    try:
        for future in distributed.as_completed(futures):
            yield item_of[future], future.result()
            future.release()
    except distributed.KilledWorker as error:
        raise ChildProcessError(
            "a conversion process died several times (killed, or out of memory?); run the same command with fewer "
            "processes: it goes on with what is done"
        ) from error
    finally:
        client.cancel(futures)
