"""The files of a pretrained folder, as bytes: read, compared with their checksums, and written."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from zoo.hub.config import PretrainedError

CONFIG, WEIGHTS, TREES, GOLDEN, CARD, SUMS = (
    "config.json",
    "model.safetensors",
    "model.txt",
    "golden.safetensors",
    "README.md",
    "SHA256SUMS",
)
#: All files in the folder of a network.
FILES = (SUMS, CONFIG, WEIGHTS, GOLDEN, CARD)
#: Files in every folder, besides those that its kind adds.
COMMON = (SUMS, CONFIG, GOLDEN, CARD)

#: Largest size in bytes of the files that are parsed before anything else is known about a folder.
LIMITS = {SUMS: 1 << 20, CONFIG: 1 << 20, CARD: 1 << 22, TREES: 1 << 26, GOLDEN: 1 << 26}

#: Folder of the members of an ensemble, and the names of their files in it.
MEMBERS = "members"
_FILE = "|".join(map(re.escape, (*FILES[1:], TREES)))
_NAME = re.compile(rf"({_FILE})|{MEMBERS}/\w[\w.-]*/({_FILE}|{SUMS})")
#: Largest number of files in a folder.
_MAX_FILES = 100

_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


def read_checked(folder: Path, *, besides: str | None = None) -> dict[str, bytes]:
    """The files of a folder, compared with their checksums except for one.

    Raises:
        PretrainedError: if a file is missing, altered or larger than its limit.
    """
    sums = _read(folder / SUMS)
    names = [name for name in listed(folder, sums) if name != besides]
    contents = {SUMS: sums, **{name: _read(folder / name) for name in names}}
    check(folder, contents, besides=besides)
    return contents


def check(folder: Path, contents: Mapping[str, bytes], *, besides: str | None = None) -> None:
    """Compare the files of a folder with their checksums.

    Raises:
        PretrainedError: if a file is altered, or the list does not match the files.
    """
    sums = listed(folder, contents[SUMS])
    if differing := (contents.keys() - {SUMS} ^ sums.keys()) - {besides}:
        raise PretrainedError(f"{folder / SUMS}: {min(differing)} is not both there and listed; get the folder again")
    for name, digest in sums.items():
        if name != besides and hashlib.sha256(contents[name]).hexdigest() != digest:
            raise PretrainedError(f"{folder / name}: differs from its checksum in {SUMS}; get the folder again")


def listed(folder: Path, sums: bytes) -> dict[str, str]:
    """Names of files -> their checksums, as ``SHA256SUMS`` says.

    Raises:
        PretrainedError: if it lists files that a pretrained folder cannot have.
    """
    lines = [_LINE.fullmatch(line) for line in sums.decode(errors="replace").splitlines()]
    found = {line[2]: line[1] for line in lines if line}
    is_whole = found.keys() >= set(COMMON) - {SUMS}
    if None in lines or not is_whole or len(found) > _MAX_FILES or not all(map(_NAME.fullmatch, found)):
        raise PretrainedError(f"{folder / SUMS}: must list the files of a pretrained folder; get the folder again")
    return found


def require_files(folder: Path, contents: Mapping[str, bytes], further: tuple[str, ...], members: list[str]) -> None:
    """Refuse a folder whose files are not those of its kind, or whose members are not those named in its config.

    Raises:
        PretrainedError: if they differ.
    """
    own, wanted = {name for name in contents if "/" not in name}, {*COMMON, *further}
    if own != wanted:
        raise PretrainedError(f"{folder / SUMS}: must list {sorted(wanted - {SUMS})}, lists {sorted(own - {SUMS})}")
    found = {name.split("/")[1] for name in contents if "/" in name}
    if found != set(members):
        raise PretrainedError(f"{folder / CONFIG}: 'members' are {members}, the folder holds {sorted(found)}")


def of_member(contents: Mapping[str, bytes], member: str) -> dict[str, bytes]:
    """The files of a member of an ensemble, by their names in its own folder."""
    prefix = f"{MEMBERS}/{member}/"
    return {name.removeprefix(prefix): content for name, content in contents.items() if name.startswith(prefix)}


def checksums(contents: Mapping[str, bytes]) -> bytes:
    """``SHA256SUMS`` of the other files."""
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items() if name != SUMS}
    return "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()


def _read(path: Path) -> bytes:
    if path.is_file():
        size, limit = path.stat().st_size, LIMITS.get(path.name)
        if limit is not None and size > limit:
            raise PretrainedError(f"{path}: has {size:,} bytes and may have {limit:,}; get the folder again")
        return path.read_bytes()
    pickles = [other.name for other in path.parent.iterdir() if other.suffix in _PICKLES]
    hint = f"; {', '.join(pickles)} is not read, since a pickle can run any code" if pickles else ""
    raise PretrainedError(f"{path}: missing{hint}; get the folder again, or write it with zoo.hub.save_pretrained")
