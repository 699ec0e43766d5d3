"""Files at an address such as ``https://`` or ``root://``, which are downloaded once and then read from the cache."""

import hashlib
import os
import re
import shutil
from pathlib import Path

from zoo.files import atomic_write

#: The start of an address; at least two letters, as a single one is a drive.
_SCHEME = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]+)://")

#: How to install the packages that some schemes need.
_EXTRA = "pip install 'hepzoo[remote]'"


def is_remote(name: str | Path) -> bool:
    """Whether a name is an address."""
    return _SCHEME.match(str(name)) is not None


def cache_folder() -> Path:
    """Where downloaded files are kept: ``ZOO_CACHE``, else ``zoo`` in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("ZOO_CACHE") or Path(base) / "zoo") / "files"


def local_path(name: str | Path) -> Path:
    """The path itself, or that of the file downloaded from an address; raises as `fetch` does."""
    return fetch(str(name)) if is_remote(name) else Path(name)


def fetch(address: str) -> Path:
    """The file at an address, downloaded as a whole through fsspec unless it is in the cache; it keeps its name.

    Raises:
        ModuleNotFoundError: if a package that the scheme needs is not installed.
        FileNotFoundError: if there is no such file.
        OSError: if it cannot be fetched.
    """
    digest = hashlib.sha256(address.encode()).hexdigest()[:16]
    name = re.split(r"[?#]", address)[0].rstrip("/").rpartition("/")[2]
    name = name if name.strip(".") else "file"
    path = cache_folder() / digest / name
    if path.is_file():
        return path
    try:
        import fsspec

        with fsspec.open(address, "rb") as source:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as file:
                shutil.copyfileobj(source, file, 2**22)
    except (ImportError, ValueError) as error:  # of a scheme that is not known, or whose package is missing
        raise ModuleNotFoundError(
            f"{address} is remote and cannot be read here ({error}); {_EXTRA}, or copy the file to this machine"
        ) from error
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{address}: there is no such file") from error
    except Exception as error:  # the clients raise many kinds
        raise OSError(f"{address} cannot be fetched: {error}; copy the file to this machine") from error
    return path
