"""Who can fix an error: the user, with the help of one line, or a programmer, who needs the traceback.

Errors from a ``raise`` in this project say what is wrong and what to do, and are for the user; so are files that the
system refuses. Every other error comes from a fault in the code, even if its class is the same: numpy raises
`ValueError` for shapes that do not fit, and no user knows what to do about those.
"""

import contextlib
import errno
import os
import re
import select
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

#: Exit status after a mistake of the user; a bug gives Python's own, 1.
MISTAKE = 2

#: Classes of errors that are raised for users; a `TypeError` or `KeyError` is a wrong call, whoever raises it.
_OF_USERS = (ValueError, OSError, ModuleNotFoundError, FloatingPointError, RuntimeError)
_OF_PROGRAMMERS = (NotImplementedError, RecursionError)

_PACKAGE = str(Path(__file__).parent)

#: A frame of a printed traceback, and what follows the last one.
_FRAME = re.compile(r'^  File "(?P<file>.+)", line \d+, in .*\n(?:    (?P<line>.*)\n)?', re.MULTILINE)
_MESSAGE = re.compile(r"^[\w.]+: (?P<message>.*)", re.MULTILINE | re.DOTALL)

#: Errors of the machine that the system reports without a file.
_OF_THE_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ECONNREFUSED, errno.ETIMEDOUT}


@contextlib.contextmanager
def one_line_for_users() -> Iterator[None]:
    """End the program with one line on stderr and status 2 if the user can fix the error; leave other errors alone."""
    try:
        yield
        sys.stdout.flush()  # while its failure can still be told apart
    except BrokenPipeError:
        if not _reader_has_gone():
            raise
        sys.exit(1)
    except KeyboardInterrupt:
        print("zoo: interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        message = message_for_user(error)
        if message is None:
            raise
        print(f"zoo: error: {' '.join(map(str.strip, message.splitlines()))}", file=sys.stderr)
        sys.exit(MISTAKE)


def message_for_user(error: BaseException | None) -> str | None:
    """The message to print for the user: that of the error, or that of the error of this project that caused it.

    Returns:
        None if the error is a bug, which a traceback describes best.

    Example:
        >>> message_for_user(ValueError("operands could not be broadcast together"))  # not raised by the zoo
    """
    while error is not None:
        if isinstance(error, _OF_USERS) and not isinstance(error, _OF_PROGRAMMERS):
            message = _message(error)
            if message is not None:
                return message
        elif _is_settings_error(error):
            return f"trainer: {error}"
        error = error.__cause__
    return None


def _reader_has_gone() -> bool:
    """Whether nobody reads the output any more, as with ``| head``; the rest of it is then discarded."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _message(error: BaseException) -> str | None:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
        return str(error)
    if type(error).__name__ == "OutOfMemoryError":  # torch's class, without importing torch
        return f"{str(error).split('. ')[0]}; give a smaller data.batch_size"
    if str(error).startswith("DataLoader worker"):
        return f"data.num_workers: {error}; if it was killed, the memory may not suffice: give fewer processes"
    frames = traceback.extract_tb(error.__traceback__)
    if frames and _is_ours(frames[-1].filename, frames[-1].line):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("zoo"):
        return f"package {error.name!r} is missing: pip install {error.name.partition('.')[0]}"
    for text in (str(error), str(error.__cause__)):  # of a loader process, of a simulation process
        message = _message_of_process(text)
        if message is not None:
            return message
    return None


def _is_ours(file: str, line: str | None) -> bool:
    """Whether a line of this package raised the error itself, instead of calling a library that did."""
    return Path(_PACKAGE) in Path(file).parents and (line or "").startswith("raise ")


def _message_of_process(text: str) -> str | None:
    """The message in a traceback that another process sent as text, if this project raised there."""
    _, _, last = text.rpartition("Traceback (most recent call last):\n")
    frames = list(_FRAME.finditer(last))
    if not frames or not _is_ours(frames[-1]["file"], frames[-1]["line"]):
        return None
    message = _MESSAGE.search(last, frames[-1].end())
    return message and message["message"].rstrip(' \n"')


def _is_settings_error(error: BaseException) -> bool:
    """Whether Lightning refuses settings of its trainer, by the name of its class, without importing Lightning."""
    return type(error).__name__ == "MisconfigurationException"
