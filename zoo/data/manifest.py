"""The index of a folder of converted jets; written last, so that a folder without it is unfinished."""

import dataclasses
import json
import zlib
from pathlib import Path
from typing import Any

from zoo.files import atomic_write
from zoo.limits import parse_json

MANIFEST = "manifest.json"
FORMAT = "zoo-jet-folder"
VERSION = 2


@dataclasses.dataclass(frozen=True)
class Source:
    """A file that was converted.

    Args:
        path: where it was.
        bytes: its size.
        modified_ns: when it was last changed, in nanoseconds since 1970.
        rows: number of its rows.
        rejected: number of jets left out, by the reasons of `zoo.data.store.bad_jets`.
        mended: number of particles or numbers dropped or changed, by what was done; older folders do not record it.
    """

    path: str
    bytes: int
    modified_ns: int
    rows: int
    rejected: dict[str, int]
    mended: dict[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of a converted folder: its name in the folder, number of jets, size and checksum of its header.

    The header holds the checksums of the columns.
    """

    file: str
    jets: int
    bytes: int
    header_crc32: int


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Index of a folder of converted jets.

    Args:
        jets: number of jets.
        class_jets: number of jets of each class.
        metadata: data set, classes and units.
        particles: particle columns and their types.
        fields: columns of jets and their types.
        seed: what the shuffle depends on, beside the order of the sources.
        jets_per_shard: requested mean number of jets per shard.
        compression: of the shards, None for shards that are mapped into memory.
        layout: of the sources as the ``values`` of their description, None if they needed none.
        shards: the files of the folder.
        sources: the files that they were made from.
    """

    jets: int
    class_jets: dict[str, int]
    metadata: dict[str, Any]
    particles: dict[str, str]
    fields: dict[str, str]
    seed: int
    jets_per_shard: int
    compression: str | None
    layout: dict[str, Any] | None
    shards: tuple[Shard, ...]
    sources: tuple[Source, ...]

    @property
    def left_out(self) -> int:
        """Number of jets of the sources that were left out as bad."""
        return sum(sum(source.rejected.values()) for source in self.sources)

    @property
    def bytes(self) -> int:
        """Size of all shards."""
        return sum(shard.bytes for shard in self.shards)


def folder_of(path: str | Path) -> Path | None:
    """The folder that ``path`` names, directly or by its manifest; None for a file of jets."""
    path = Path(path)
    if path.name == MANIFEST:
        return path.parent
    return path if path.is_dir() else None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a folder whose shards are complete."""
    content = dataclasses.asdict(manifest)
    head = {"format": FORMAT, "version": VERSION, "crc32": _checksum(content)}
    with atomic_write(folder / MANIFEST) as file:
        file.write(json.dumps({**head, **content}, indent=1).encode())


def _checksum(content: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of a folder.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged, or of another version; the message says what to do.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no {MANIFEST}: its conversion is unfinished; run 'zoo convert' again")
    try:
        content = parse_json(path.read_bytes())
        found = content.pop("format"), content.pop("version")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from error
    if found != (FORMAT, VERSION):
        raise ValueError(
            f"{path} is {found[0]} version {found[1]}, this zoo reads {FORMAT} version {VERSION}; convert the files "
            "with this version, or read the folder with a newer one"
        )
    try:
        if content.pop("crc32") != _checksum(content):
            raise ValueError("it does not match its checksum")
        content["shards"] = tuple(Shard(**shard) for shard in content["shards"])
        content["sources"] = tuple(Source(**source) for source in content["sources"])
        manifest = Manifest(**content)
        for shard in manifest.shards:
            if shard.file in ("", ".", "..") or Path(shard.file).name != shard.file:
                raise ValueError(f"its shard {shard.file!r} is no file of the folder")
        if sum(shard.jets for shard in manifest.shards) != manifest.jets:
            raise ValueError(f"its shards do not have {manifest.jets} jets")
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error
    return manifest


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} cannot be read: {error}; it is damaged, convert the files again")
