"""Files and folders of reports."""

from pathlib import Path


def read_text(path: Path, what: str) -> str:
    """Text of a file.

    Raises:
        FileNotFoundError: if there is no such file; the message asks for ``what``.
        ValueError: if it is not text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing: name the {what} of the run") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text ({error}): name the {what} of the run") from error


def make_folder(folder: Path) -> None:
    """Make a folder and its parents.

    Raises:
        FileExistsError: if it is a file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise FileExistsError(f"{folder} is a file: name a folder to write") from None
