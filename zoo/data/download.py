"""Downloads of public files over HTTP: resumed after interruptions, checked, and renamed only when complete."""

import hashlib
import http
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from zoo.data.datasets import RemoteFile, describe_dataset
from zoo.files import disk_errors_name, sync, sync_folder
from zoo.progress import progress_bar

#: Bytes read at a time.
CHUNK_BYTES = 2**20

#: Seconds without a byte after which a transfer counts as interrupted.
TIMEOUT = 60

#: How often in a row a transfer may be interrupted without a byte, and seconds to wait after each.
ATTEMPTS = 5
PAUSE = 2.0

#: Called with the number of bytes received and the total; None if the server does not say it.
Tell = Callable[[int, int | None], None]


def download(name: str, out: str | Path) -> list[Path]:
    """Download the files of a data set to a folder; correct files stay, incomplete ones are completed.

    A file is written beside its target as ``NAME.part`` and renamed once its size and checksum are the published ones.
    A server that cannot resume sends it from the start.

    Args:
        name: of a data set, see `zoo.data.datasets`.
        out: folder, made if need be.

    Raises:
        ValueError: if there is no such data set, its files cannot be fetched by name, or a file does not match its
            checksum, in which case it is removed.
        OSError: if the server cannot be reached, stops sending, or the disk is full; the same call continues where it
            stopped.
    """
    facts = describe_dataset(name)
    if not facts.files:
        raise ValueError(f"{name}: its files are not known one by one; fetch them from {facts.source}")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    return [fetch(file, out) for file in facts.files]


def fetch(file: RemoteFile, folder: Path) -> Path:
    """Fetch one file; see `download`."""
    target, part = folder / file.name, folder / f"{file.name}.part"
    if target.exists():
        if md5_of(target) != file.md5:
            raise ValueError(f"{target} is not the file that was published; move it away and run this again")
        return target
    with progress_bar("bytes") as progress:
        task = progress.add_task(file.name, total=file.size)
        _complete(file, part, lambda done, total: progress.update(task, completed=done, total=total))
    found = md5_of(part)
    if found != file.md5:
        part.unlink()
        raise ValueError(f"{file.url}: its MD5 is {found}, not {file.md5} as published; removed, run this again")
    part.replace(target)
    sync_folder(folder)
    return target


def md5_of(path: Path) -> str:
    """MD5 of a file, which detects damage, not forgery."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _complete(file: RemoteFile, part: Path, tell: Tell) -> None:
    """Fetch the missing rest of a part until it is complete."""
    failures = 0
    while True:
        before = _size(part)
        try:
            if _transfer(file, part, tell):
                return
            reason = "the transfer broke off"
        except urllib.error.HTTPError as error:
            raise OSError(
                f"{file.url}: the server answers {error.code} {error.reason}; run this again later"
            ) from error
        except (http.client.HTTPException, urllib.error.URLError, ConnectionError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
        failures = 0 if _size(part) > before else failures + 1
        if failures == ATTEMPTS:
            raise ConnectionError(f"{file.url}: {reason}; run this again, it goes on where it stood")
        time.sleep(PAUSE * failures)


def _transfer(file: RemoteFile, part: Path, tell: Tell) -> bool:
    """One request for the missing bytes; returns whether the file is complete now."""
    done = _size(part)
    if done == file.size:
        return True
    request = urllib.request.Request(file.url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return True  # there are no more bytes; the checksum shows whether the file is correct
        raise
    with answer:
        if answer.status != http.HTTPStatus.PARTIAL_CONTENT:
            done = 0  # the server sends all of it again
        length = answer.headers.get("Content-Length")
        total = file.size if length is None else done + int(length)
        with disk_errors_name(part), part.open("r+b" if done else "wb") as draft:
            draft.seek(done)
            while chunk := answer.read(CHUNK_BYTES):
                draft.write(chunk)
                done += len(chunk)
                tell(done, total)
            sync(draft)
    return total is None or done == total


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
