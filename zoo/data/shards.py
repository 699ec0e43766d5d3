"""Folders of converted jets: shards of the zoo's own file, opened in place."""

import dataclasses
from pathlib import Path

from zoo.data.manifest import Shard, read_manifest
from zoo.data.store import JetTable, StoreFile
from zoo.progress import progress_bar

#: Folders up to this size are compared with their checksums whenever they are opened, which takes about a second.
VERIFIED_BYTES = 2**30


class ShardFolder:
    """A folder that `zoo convert` wrote: each shard is opened once, when its jets are requested; uncompressed ones stay
    on disk. The size and the header of each are always compared with the manifest.

    Args:
        folder: with a manifest.
        verify: whether to read the shards once from end to end and compare every column with its checksum; None: if
            the folder holds `VERIFIED_BYTES` at most.

    Raises:
        FileNotFoundError: if the folder has no manifest.
        ValueError: if the manifest is damaged.
    """

    def __init__(self, folder: str | Path, *, verify: bool | None = None) -> None:
        self.path = Path(folder)
        self.manifest = read_manifest(folder)
        self._verifies = self.manifest.bytes <= VERIFIED_BYTES if verify is None else verify
        self._tables: dict[int, JetTable] = {}

    def tables(self, start: int, stop: int) -> list[JetTable]:
        """The rows ``start`` to ``stop``, one table per shard in the order of the manifest.

        ``source_rows`` of the tables count through the folder.

        Raises:
            FileNotFoundError: if a shard is missing.
            ValueError: if a shard is damaged.
        """
        tables = []
        first = 0
        for number, shard in enumerate(self.manifest.shards):
            if first < stop and first + shard.jets > start:
                if number not in self._tables:
                    self._tables[number] = _open_shard(self.path.resolve(), shard, self._verifies)
                part = max(start - first, 0), min(stop - first, shard.jets)
                tables.append(_part(self._tables[number], self.path.resolve(), shard, first, part))
            first += shard.jets
        return tables

    def verify(self) -> None:
        """Compare every column of every shard with its checksum.

        Raises:
            FileNotFoundError: if a shard is missing.
            ValueError: if a shard is damaged; the message names the file and the column.
        """
        with progress_bar("bytes") as progress:
            task = progress.add_task(f"verifying {self.path.name}", total=self.manifest.bytes)
            for shard in self.manifest.shards:
                _open_shard(self.path, shard, verify=True)
                progress.update(task, advance=shard.bytes)

    def close(self) -> None:
        """Release the tables; those that were handed out stay."""
        self._tables.clear()


class ShardTable(JetTable):
    """Jets of a shard; another process receives only their place and opens the shard itself."""

    origin: tuple[Path, Shard, int, tuple[int, int]]

    def __reduce__(self) -> tuple:
        return _open_part, self.origin


def _open_part(folder: Path, shard: Shard, first_row: int, part: tuple[int, int]) -> ShardTable:
    return _part(_open_shard(folder, shard, verify=False), folder, shard, first_row, part)


def _part(table: JetTable, folder: Path, shard: Shard, first_row: int, part: tuple[int, int]) -> ShardTable:
    """Some jets of a shard whose first jet is row ``first_row`` of the folder."""
    table = dataclasses.replace(table, source_rows=range(first_row, first_row + len(table))).slice(*part)
    opened = ShardTable(**{field.name: getattr(table, field.name) for field in dataclasses.fields(table)})
    object.__setattr__(opened, "origin", (folder, shard, first_row, part))
    return opened


def shard_path(folder: Path, number: int) -> Path:
    """The file of a shard."""
    return folder / f"shard-{number:06d}.arrow"


def describe_shard(path: Path, jets: int) -> Shard:
    """The entry of the manifest for a shard that has just been written."""
    with StoreFile(path) as file:
        return Shard(path.name, jets, path.stat().st_size, file.header_checksum)


def _open_shard(folder: Path, shard: Shard, verify: bool) -> JetTable:
    path = folder / shard.file
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing, which the manifest names; copy it again, or convert the files again"
        )
    size = path.stat().st_size
    if size != shard.bytes:
        raise ValueError(f"{path} has {size} bytes instead of {shard.bytes}; copy it again, or convert the files again")
    with StoreFile(path) as file:
        if file.header_checksum != shard.header_crc32:
            raise ValueError(
                f"{path} is not the shard that the manifest names; copy it again, or convert the files again"
            )
        return file.table(verify=verify)
