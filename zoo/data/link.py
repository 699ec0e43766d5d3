"""Links from where the configurations look for files to files in other folders."""

import os
import warnings
from pathlib import Path

from zoo.data.datasets import describe_dataset, resolve_file
from zoo.data.download import md5_of
from zoo.data.source import open_source


class OtherFileWarning(UserWarning):
    """A file has the name of a published one but different bytes."""


def link(name: str, file: str | Path, folder: str | Path, *, called: str | None = None) -> Path:
    """Link a file or a converted folder of a data set into a folder, after a check that it holds jets of that set.

    Args:
        name: of the data set, see `zoo.data.datasets`.
        file: what to link.
        folder: folder of the link, created if needed.
        called: name of the link; None: that of the file. If a published file has that name, the file must have its
            published checksum.

    Returns:
        The link.

    Raises:
        FileNotFoundError: if there is no such file.
        FileExistsError: if something else has the name already.
        ValueError: if there is no such data set, the file holds jets of another one or cannot be read, or it has the
            name of a published file and not its checksum.
    """
    facts, path = describe_dataset(name), resolve_file(file)
    with open_source(path, labelled=False, verify=False) as source:
        table, _ = next(source.chunks((0, 1)))
    if (found := table.metadata.get("dataset")) != name:
        raise ValueError(f"{path}: holds jets of {found}, not of {name}; name that data set")
    target = Path(folder) / (called or path.name)
    published = {remote.name: remote.md5 for remote in facts.files}.get(target.name)
    if published is not None and md5_of(path) != published:
        difference = f"{path}: is not the {target.name} that was published, whose MD5 is {published}"
        if called is None:
            raise ValueError(f"{difference}; fetch it with 'zoo data download {name}', or say --called {target.name}")
        warnings.warn(OtherFileWarning(f"{difference}; its rows are other ones, or fewer"), stacklevel=2)
    if os.path.lexists(target):
        if target.resolve() == path.resolve():
            return target
        raise FileExistsError(f"{target} exists; move it away, or give the link another name with --called")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(path.resolve())
    return target
