"""Writing files that are either complete or absent, and folders that one process at a time writes to."""

import contextlib
import errno
import fcntl
import io
import os
import secrets
import shutil
import socket
import stat
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

#: Name of the file whose lock the writer of a folder holds.
LOCK = ".lock"

#: Disk errors, which the system reports without a file name when they come from writing to an open file.
_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}

#: Errors of a file system without locks.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file beside ``path`` that is renamed to it once it is complete on disk, and removed after an error.

    Leftovers of a killed process for the same ``path`` are removed. A link stays a link, and its target is written; a
    replaced file keeps its mode.

    Raises:
        OSError: naming ``path``, if it cannot be written or the disk is full.
    """
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    remove_drafts(path.parent, of=path.name)
    draft, file = _open_draft(path)
    try:
        with disk_errors_name(path), file:
            if path.exists():
                os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
            with _failures_first(file):
                yield file
            sync(file)
            os.replace(draft, path)  # while it is open, and therefore locked
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_together(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files of one folder, and replace older ones only when all of them are complete on disk.

    The last file vouches for the others: its older version is removed before they are exchanged. So a folder without it
    was left by a kill during the exchange, and a failure before that leaves the older files.

    Args:
        folder: made if needed; if another process is writing to it, this one waits.
        files: contents by name.

    Raises:
        OSError: naming the file, if one cannot be written or the disk is full.
    """
    *_, last = files
    with only_one(folder, "writing", is_patient=True), contextlib.ExitStack() as drafts:
        for name in (last, *list(files)[:-1]):  # renamed in the opposite order
            file = drafts.enter_context(atomic_write(folder / name))
            with disk_errors_name(folder / name):
                file.write(files[name])
                sync(file)
        (folder / last).unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Make a folder beside ``folder`` that is renamed to it once its files are complete, and removed after an error.

    Leftovers of a killed process for the same name are removed.

    Raises:
        OSError: if it cannot be made, or ``folder`` exists and holds files.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for old in _drafts(folder.parent, folder.name):
        with contextlib.suppress(OSError), _locked_folder(old, fcntl.LOCK_EX | fcntl.LOCK_NB):
            shutil.rmtree(old)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".draft", dir=folder.parent))
    try:
        with contextlib.ExitStack() as lock:
            with contextlib.suppress(OSError):  # a file system without locks
                lock.enter_context(_locked_folder(draft, fcntl.LOCK_EX))
            yield draft
            draft.chmod(0o755)
            os.rename(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    sync_folder(folder.parent)


def require_output(path: str | Path, inputs: Iterable[str | Path | None] = (), *, force: bool = False) -> None:
    """Refuse to write to an input, by whatever name or link, and, without ``force``, to a file that exists.

    Args:
        path: file to write.
        inputs: files that are read, None for one that is not given; or folders, any file of which may be read.
        force: whether an older file, which is no input, may be replaced.

    Raises:
        ValueError: if it is an input, or lies in a folder that is.
        IsADirectoryError: if it is a folder.
        FileExistsError: if it exists, or a file is where its folder should be.
        PermissionError: if its folder cannot be written to, or made.
    """
    path = Path(path)
    for given in inputs:
        if given is not None and _is_of(Path(given), path):
            where = "lies in" if Path(given).is_dir() else "is"
            raise ValueError(f"{path}: {where} {given}, an input; choose another name for the output")
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder; choose another name for the output")
    if not force and os.path.lexists(path):
        raise FileExistsError(f"{path}: exists; add --force to replace it, or choose another name")
    folder = next(place for place in Path(os.path.realpath(path)).parents if place.exists())
    if not folder.is_dir():
        raise FileExistsError(f"{path}: {folder} is a file; choose another place for the output")
    try:  # not os.access, which allows root even what nobody can write to
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise PermissionError(f"{path}: {folder} cannot be written; choose another place for the output") from error


def _is_of(given: Path, path: Path) -> bool:
    """Whether ``path`` is the file ``given``, or lies in the folder ``given``."""
    target = Path(os.path.realpath(path))
    places = [target, *target.parents] if given.is_dir() else [target]
    if given.exists():
        return any(place.exists() and place.samefile(given) for place in places)
    return Path(os.path.realpath(given)) in places


def remove_drafts(folder: Path, of: str | None = None) -> None:
    """Remove what killed processes left unfinished in a folder; what is being written stays.

    Args:
        folder: may be missing.
        of: name of the file that the drafts would have become; None: any file.
    """
    for draft in _drafts(folder, of):
        with contextlib.suppress(OSError), draft.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its writer lives
            draft.unlink()


def _drafts(folder: Path, of: str | None) -> list[Path]:
    """Unfinished files in a folder, whether their writer lives or was killed; see `remove_drafts`."""
    start = "." if of is None else f".{of}."
    try:
        return [folder / name for name in os.listdir(folder) if name.startswith(start) and name.endswith(".draft")]
    except OSError:
        return []  # writing there will report what is wrong


@contextmanager
def only_one(folder: Path, what: str, *, is_patient: bool = False) -> Iterator[None]:
    """Hold the lock of a folder, its file ``.lock``, which the system releases even if this process is killed.

    Args:
        folder: made if needed, and then removed again if it stays empty.
        what: activity there, such as ``training``, for the message to a second process.
        is_patient: whether to wait for another process.

    Raises:
        BlockingIOError: if another process holds it; the message says which.
        OSError: if the folder cannot be written.
    """
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    file = _locked(path, what, fcntl.LOCK_EX if is_patient else fcntl.LOCK_EX | fcntl.LOCK_NB)
    # a process forked from this one, such as a loader, would hold the lock after this process has ended
    os.register_at_fork(after_in_child=file.close)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()
        if is_new:
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextmanager
def disk_errors_name(path: Path) -> Iterator[None]:
    """Give ``path`` to errors of a full or failing disk that do not say which file they are about."""
    try:
        yield
    except OSError as error:
        if error.errno in _OF_THE_DISK and error.filename is None:
            error.filename = str(path)
        raise


def sync(file: BinaryIO) -> None:
    """Return once what was written to an open file is on disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Return once the names in a folder are on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with disk_errors_name(folder):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Draft(io.BufferedWriter):
    """A file that remembers its first failure, as libraries that write to it raise errors of their own."""

    failure: OSError | None = None

    def write(self, content: Any) -> int:
        """Write to the file."""
        try:
            return super().write(content)
        except OSError as error:
            self.failure = self.failure or error
            raise


@contextmanager
def _failures_first(file: _Draft) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if file.failure in (None, error):
            raise
        raise file.failure from error


def _open_draft(path: Path) -> tuple[Path, _Draft]:
    """A new file beside ``path``, locked while it is open: one without a lock was left by a kill."""
    while True:
        # not named by process or thread, whose numbers may be the same in two containers
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.draft")
        try:
            file = _Draft(io.FileIO(draft, "xb"))
        except FileExistsError:
            continue
        except OSError as error:
            error.filename = str(path)
            raise
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return draft, file
        file.close()  # another process took it for a leftover before it was locked


@contextmanager
def _locked_folder(folder: Path, operation: int) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, operation)
        yield
    finally:
        os.close(descriptor)


def _locked(path: Path, what: str, operation: int) -> BinaryIO:
    """The lock file, open and locked, with a line that says who holds it."""
    while True:
        file = path.open("a+b")
        try:
            fcntl.flock(file, operation)
        except OSError as error:
            file.seek(0)
            holder = file.read(200).decode(errors="replace") or "a process that says nothing of itself"
            file.close()
            if isinstance(error, BlockingIOError):
                raise BlockingIOError(
                    f"{path.parent}: is in use by {holder}; wait for its end, or name another folder"
                ) from None
            if error.errno not in _NO_LOCKS:
                error.filename = str(path)
                raise
            warnings.warn(f"{path.parent}: its file system has no locks; start one {what} at a time", stacklevel=4)
            return path.open("a+b")
        if _is_there(path, file):
            break
        file.close()  # removed by the holder before this one
    with disk_errors_name(path):
        file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S %z")
        file.write(f"another {what}, process {os.getpid()} on {socket.gethostname()} since {since}".encode())
        file.flush()
    return file


def _is_there(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
