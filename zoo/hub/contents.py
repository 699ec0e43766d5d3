"""The files of a pretrained folder, as bytes: read, compared with their checksums, and written."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from zoo.hub.config import PretrainedError

CONFIG, WEIGHTS, GOLDEN, CARD, SUMS = (
    "config.json",
    "model.safetensors",
    "golden.safetensors",
    "README.md",
    "SHA256SUMS",
)
#: All that the folder of a network holds.
FILES = (SUMS, CONFIG, WEIGHTS, GOLDEN, CARD)

#: Most bytes of the files that are parsed before anything else is known of a folder.
LIMITS = {SUMS: 1 << 20, CONFIG: 1 << 20, CARD: 1 << 22, GOLDEN: 1 << 26}

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
        PretrainedError: if one is altered, or others are listed than there are.
    """
    for name, digest in listed(folder, contents[SUMS]).items():
        if name != besides and hashlib.sha256(contents[name]).hexdigest() != digest:
            raise PretrainedError(f"{folder / name}: differs from its checksum in {SUMS}; get the folder anew")


def listed(folder: Path, sums: bytes) -> dict[str, str]:
    """Names of files -> their checksums, as ``SHA256SUMS`` says.

    Raises:
        PretrainedError: if it lists other files than a pretrained folder has.
    """
    lines = [_LINE.fullmatch(line) for line in sums.decode(errors="replace").splitlines()]
    found = {line[2]: line[1] for line in lines if line}
    wanted = set(FILES) - {SUMS}
    if None in lines or found.keys() != wanted:
        raise PretrainedError(f"{folder / SUMS}: must list {sorted(wanted)}, lists {sorted(found)}")
    return found


def checksums(contents: Mapping[str, bytes]) -> bytes:
    """``SHA256SUMS`` of the other files."""
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items() if name != SUMS}
    return "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()


def _read(path: Path) -> bytes:
    if path.is_file():
        size, limit = path.stat().st_size, LIMITS.get(path.name)
        if limit is not None and size > limit:
            raise PretrainedError(f"{path}: has {size:,} bytes and may have {limit:,}; get the folder anew")
        return path.read_bytes()
    pickles = [other.name for other in path.parent.iterdir() if other.suffix in _PICKLES]
    hint = f"; {', '.join(pickles)} is not read, since a pickle can run any code" if pickles else ""
    raise PretrainedError(f"{path}: missing{hint}; get the folder anew, or write it with zoo.hub.save_pretrained")
