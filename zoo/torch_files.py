"""Files of `torch.save`, read as tensors and plain values only, and only if they are whole."""

import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

_ZIP_MAGIC = b"PK\x03\x04"


class DamagedFileError(ValueError):
    """What was written is not what is there, or unpacks to more than that; the message says what, not which file."""


def read_torch_file(path: str | Path, *, unchecked: bool = False) -> Any:
    """What `torch.save` wrote, on the CPU; nothing is unpickled but tensors and plain values.

    Every member is compared with its CRC-32, which torch does not do: it would load a changed bit as a slightly
    different weight. torch packs nothing, so the members together are no larger than the file, and a file whose members
    are would fill the memory.

    Args:
        path: a local file.
        unchecked: whether files of torch before 1.6 are read too, which have no checksums.

    Raises:
        DamagedFileError: if a checksum is wrong, or the members claim more bytes than the file has.
        pickle.UnpicklingError: if the file asks for anything but tensors and plain values.
        Exception: whatever torch raises for foreign bytes.

    Warns:
        UserWarning: if the file has no checksums.
    """
    content = Path(path).read_bytes()
    has_checksums = content.startswith(_ZIP_MAGIC)
    if has_checksums or not unchecked:
        _check_members(content)
    values = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    if not has_checksums:
        warnings.warn(
            f"{path}: is in the format of torch before 1.6, which has no checksums, so a changed bit would not be "
            "seen; compare it with the checksum of where you have it from",
            stacklevel=3,
        )
    return values


def _check_members(content: bytes) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            claimed = sum(member.file_size for member in archive.infolist())
            # with this limit the checksums below are never those of more bytes either
            damaged = None if claimed > len(content) else archive.testzip()
    except Exception as error:  # zipfile answers a damaged header with a dozen kinds of exception
        raise DamagedFileError(f"not readable ({error})") from error
    if claimed > len(content):
        raise DamagedFileError(
            f"unpacks to {claimed:,} bytes, more than the {len(content):,} of the file, which torch never writes"
        )
    if damaged is not None:
        raise DamagedFileError(f"wrong checksum of {damaged}")
