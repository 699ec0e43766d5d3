"""Folders of converted jets: shards of the zoo's own file, opened where they lie."""

import dataclasses
from pathlib import Path

from zoo.data.manifest import Manifest, Shard, read_manifest
from zoo.data.store import JetTable, header_checksum, open_store
from zoo.progress import progress_bar

#: Folders up to this size are compared with their checksums whenever they are opened, which takes about a second.
VERIFIED_BYTES = 2**30


def open_shards(
    folder: str | Path, rows: tuple[int, int] | None = None, *, verify: bool | None = None
) -> list[JetTable]:
    """Open the shards of a folder that hold the rows asked for; uncompressed ones stay on the disk.

    The size and the header of each shard are always compared with the manifest.

    Args:
        folder: what `zoo convert` wrote.
        rows: first row and the row after the last; None opens all.
        verify: whether to read the shards once from end to end and compare every column with its checksum; None: if
            the folder holds `VERIFIED_BYTES` at most.

    Returns:
        One table a shard in the order of the manifest; ``source_rows`` count through the folder.

    Raises:
        FileNotFoundError: if the folder has no manifest or a shard is missing.
        ValueError: if the manifest or a shard is damaged, or the rows are not within the folder.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    start, stop = (0, manifest.jets) if rows is None else rows
    if not 0 <= start < stop <= manifest.jets:
        raise ValueError(f"{folder}: rows {start} to {stop} are not within its {manifest.jets} rows; change the range")
    if verify is None:
        verify = manifest.bytes <= VERIFIED_BYTES
    tables = []
    first = 0
    for shard in manifest.shards:
        if first < stop and first + shard.jets > start:
            part = max(start - first, 0), min(stop - first, shard.jets)
            tables.append(_open_part(folder.resolve(), shard, first, part, verify))
        first += shard.jets
    return tables


class ShardTable(JetTable):
    """Jets of a shard; a process that is given them is told where they lie and opens the shard itself."""

    origin: tuple[Path, Shard, int, tuple[int, int]]

    def __reduce__(self) -> tuple:
        return _open_part, (*self.origin, False)


def _open_part(folder: Path, shard: Shard, first_row: int, part: tuple[int, int], verify: bool) -> ShardTable:
    """Some jets of a shard whose first jet is row ``first_row`` of the folder."""
    table = _open_shard(folder, shard, verify)
    table = dataclasses.replace(table, source_rows=range(first_row, first_row + len(table))).slice(*part)
    opened = ShardTable(**{field.name: getattr(table, field.name) for field in dataclasses.fields(table)})
    object.__setattr__(opened, "origin", (folder, shard, first_row, part))
    return opened


def verify_shards(folder: str | Path) -> Manifest:
    """Compare every column of every shard with its checksum.

    Raises:
        FileNotFoundError: if the folder has no manifest or a shard is missing.
        ValueError: if the manifest or a shard is damaged; the message names the file and the column.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    with progress_bar("bytes") as progress:
        task = progress.add_task(f"verifying {folder.name}", total=manifest.bytes)
        for shard in manifest.shards:
            _open_shard(folder, shard, verify=True)
            progress.update(task, advance=shard.bytes)
    return manifest


def shard_path(folder: Path, number: int) -> Path:
    """The file of a shard."""
    return folder / f"shard-{number:06d}.arrow"


def describe_shard(path: Path, jets: int) -> Shard:
    """What the manifest says of a shard that was written just now."""
    return Shard(path.name, jets, path.stat().st_size, header_checksum(path))


def _open_shard(folder: Path, shard: Shard, verify: bool) -> JetTable:
    path = folder / shard.file
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing, which the manifest names; copy it again, or convert the files again"
        )
    size = path.stat().st_size
    if size != shard.bytes:
        raise ValueError(f"{path} has {size} bytes instead of {shard.bytes}; copy it again, or convert the files again")
    if header_checksum(path) != shard.header_crc32:
        raise ValueError(f"{path} is not the shard that the manifest names; copy it again, or convert the files again")
    return open_store(path, verify=verify)
