"""Jets at a path: a file of any known format or a converted folder, opened once."""

import abc
import contextlib
import dataclasses
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np

from zoo.data.formats.columns import first_bytes
from zoo.data.formats.known import STORE, Description, OpenFile, open_known
from zoo.data.manifest import folder_of
from zoo.data.read_report import ReadReport
from zoo.data.remote import local_path
from zoo.data.shards import ShardFolder
from zoo.data.store import (
    ARROW_MAGIC,
    JetTable,
    NoJetsError,
    StoreFile,
    bad_jets,
    infinite_columns,
    join_tables,
)
from zoo.data.weaver.data_config import WeaverYaml

#: Jets read at a time: 200 padded constituents of this many jets take 26 MB.
CHUNK_JETS = 8192

#: Most files that are open at a time; the least recently used one is closed, and opened again when needed.
OPEN_FILES = 128

#: First row and the row after the last.
Rows = tuple[int, int]


class JetSource(abc.ABC):
    """An open file or folder of jets; its length is the number of its rows, bad jets included.

    Attributes:
        path: the file on this machine, or the folder.
        is_own: whether it is the zoo's own, which says itself what it holds and has no bad jets.
        left_out_before: number of jets that were left out when the folder was converted; 0 for a file.
    """

    is_own = True
    left_out_before = 0

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    @abc.abstractmethod
    def format(self) -> str:
        """Name of the format."""

    @abc.abstractmethod
    def __len__(self) -> int:
        """Number of rows."""

    @abc.abstractmethod
    def chunks(self, rows: Rows | None = None) -> Iterator[tuple[JetTable, ReadReport]]:
        """The good jets of some rows in pieces, each with a report on its rows.

        Jets of the zoo's own files stay on disk, one table per file or shard; those of other formats are read
        `CHUNK_JETS` rows at a time, and a piece may have no good jet.

        Args:
            rows: None: all.

        Raises:
            ValueError: if the file does not have these rows, is damaged, or a column holds something else than it
                should; the message names the file, the field and the remedy.
            NoJetsError: if the file has no rows at all.
        """

    def tables(self, rows: Rows | None = None) -> tuple[list[JetTable], ReadReport]:
        """The same as `chunks` at once: tables on disk for the zoo's own files, one in memory for other formats.

        Raises:
            ValueError: as `chunks`.
            NoJetsError: if no good jet is left.
        """
        tables = [table for table, _ in self.chunks(rows)]
        return tables, ReadReport(self.path, sum(map(len, tables)), {})

    def read(self, rows: Rows | None = None) -> tuple[JetTable, ReadReport]:
        """The same as `tables` in one table; raises as `tables` does."""
        tables, report = self.tables(rows)
        return (tables[0] if len(tables) == 1 else join_tables(tables)), report

    @abc.abstractmethod
    def verify(self) -> None:
        """Compare the jets with the checksums of the zoo's own files; other formats are checked, if at all, when read.

        Raises:
            ValueError: if they differ; the message names the file and the column.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Close what is open; it is opened again if jets are requested, and those that were read stay."""


class _Folder(JetSource):
    """A folder that `zoo convert` wrote."""

    format = "folder of the zoo, Arrow"

    def __init__(self, folder: Path, verify: bool | None) -> None:
        super().__init__(folder)
        self._shards = ShardFolder(folder, verify=verify)
        self.left_out_before = self._shards.manifest.left_out

    def __len__(self) -> int:
        return self._shards.manifest.jets

    def chunks(self, rows: Rows | None = None) -> Iterator[tuple[JetTable, ReadReport]]:
        for table in self._shards.tables(*check_rows(self.path, rows, len(self))):
            yield table, ReadReport(self.path, len(table), {})

    def verify(self) -> None:
        self._shards.verify()

    def close(self) -> None:
        self._shards.close()


class _Store(JetSource):
    """The zoo's own file."""

    format = STORE

    def __init__(self, path: Path, verify: bool) -> None:
        super().__init__(path)
        self._verifies, self._is_verified = verify, False
        self._table: JetTable | None = None
        self._file: StoreFile | None = StoreFile(path)
        self._rows = len(self._file)

    def __len__(self) -> int:
        return self._rows

    def chunks(self, rows: Rows | None = None) -> Iterator[tuple[JetTable, ReadReport]]:
        rows = check_rows(self.path, rows, len(self))
        table = self._load(verify=self._verifies).slice(*rows)
        yield table, ReadReport(self.path, len(table), {})

    def verify(self) -> None:
        self._load(verify=True)

    def _load(self, *, verify: bool) -> JetTable:
        if self._table is None or (verify and not self._is_verified):
            self._file = self._file or StoreFile(self.path)
            self._table, self._is_verified = self._file.table(verify=verify), verify
        return self._table

    def close(self) -> None:
        self._table = None
        if self._file is not None:
            self._file.close()
            self._file = None


class _Other(JetSource):
    """A file of another format, which stays open until an error occurs."""

    is_own = False

    def __init__(self, path: Path, start: bytes, layout: Description | None, *, labelled: bool) -> None:
        super().__init__(path)
        self._start, self._layout, self._labelled = start, layout, labelled
        self._stack = contextlib.ExitStack()
        self._file: OpenFile | None = None
        with self._reading() as file:
            self._format = file.format
            self._rows = len(file.jets)

    @property
    def format(self) -> str:
        return self._format

    def __len__(self) -> int:
        return self._rows

    def chunks(self, rows: Rows | None = None) -> Iterator[tuple[JetTable, ReadReport]]:
        start, stop = check_rows(self.path, rows, len(self))
        with self._reading() as file:
            noted = file.jets.notes.copy()
            for chunk in file.jets.chunks(start, stop, CHUNK_JETS):
                reasons = bad_jets(chunk)
                infinite = infinite_columns(chunk) if reasons["not finite"].any() else {}
                rejected = {reason: int(mask.sum()) for reason, mask in reasons.items()}
                report = ReadReport(self.path, len(chunk), rejected, file.jets.notes - noted, infinite)
                noted = file.jets.notes.copy()
                yield _keep(chunk, ~np.any(list(reasons.values()), axis=0)), report

    def tables(self, rows: Rows | None = None) -> tuple[list[JetTable], ReadReport]:
        start, stop = check_rows(self.path, rows, len(self))
        chunks, report = [], ReadReport(self.path, 0, {})
        for chunk, of_chunk in self.chunks(rows):
            report += of_chunk
            chunks.append(chunk)
        report = dataclasses.replace(report, rows=stop - start)  # not all of them need be selected
        if not any(map(len, chunks)):
            by = f" by {self._layout.selects!r}" if isinstance(self._layout, WeaverYaml) else ""
            selected = (
                f"{self.path}: of the rows {start} to {stop} none is selected{by}; change the selection, or the rows"
            )
            message = f"{report}; no jet is left, check the units and the columns" if report.left_out else selected
            message = "; ".join([message, *report.mendings()])  # what was noticed, such as padding that is not zero
            raise NoJetsError(message, report.rejected)
        return [join_tables(chunks)], report

    def verify(self) -> None:
        """Nothing to compare: data with checksums are compared as they are read."""

    def close(self) -> None:
        self._file = None
        self._stack.close()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[OpenFile]:
        """The open file; a read error closes it, and the format says what is damaged."""
        try:
            if self._file is None:
                opened = open_known(self.path, self._start, self._layout, labelled=self._labelled)
                self._file = self._stack.enter_context(opened)
            yield self._file
        except Exception as error:
            self._file = None
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise


def open_source(
    path: str | Path, layout: Description | None = None, *, labelled: bool = True, verify: bool | None = None
) -> JetSource:
    """Open a file of any known format, recognised by its content, or a converted folder.

    Args:
        path: file, address of a file, or converted folder.
        layout: which columns of a ROOT, parquet or HDF5 file, or of events in text, hold what; see
            `zoo.data.description.read_description`. The zoo's own file says that itself.
        labelled: whether the file must give the class of each jet; if not, it is -1 where the class is missing.
        verify: whether jets of the zoo's own files are compared with their checksums when they are first requested,
            which reads them once; None: yes for a file, and as `zoo.data.shards.ShardFolder` decides for a folder.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the format is unknown, or the file is damaged or lacks a column; the message names the file, the
            field and the remedy.
    """
    path = local_path(path)
    if folder := folder_of(path):
        return _Folder(folder, verify)
    start = first_bytes(path)
    if start.startswith(ARROW_MAGIC):
        return _Store(path, verify is not False)
    return _Other(path, start, layout, labelled=labelled)


class Sources:
    """Sources by path and description, each opened once; `OPEN_FILES` at most stay open at a time.

    Args:
        verify: as of `open_source`, for folders; files are always compared.
    """

    def __init__(self, verify: bool | None = None) -> None:
        self._verify = verify
        self._known: dict[tuple[Path, int, bool], tuple[JetSource, Description | None]] = {}
        self._open: OrderedDict[tuple[Path, int, bool], JetSource] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            self._open.popitem()[1].close()

    def get(self, path: Path, layout: Description | None = None, *, labelled: bool = True) -> JetSource:
        """The source at a path; arguments and errors as of `open_source`."""
        key = (path, id(layout), labelled)
        if key not in self._known:
            verify = self._verify if folder_of(path) else None
            # the layout is kept, as another one could get its identity
            self._known[key] = open_source(path, layout, labelled=labelled, verify=verify), layout
        source, _ = self._known[key]
        self._open[key] = source
        self._open.move_to_end(key)
        if len(self._open) > OPEN_FILES:
            self._open.popitem(last=False)[1].close()
        return source


def check_rows(path: Path, rows: Rows | None, available: int) -> Rows:
    """The rows asked for, None for all.

    Raises:
        ValueError: if the file does not have them.
        NoJetsError: if the file has no rows at all.
    """
    start, stop = (0, available) if rows is None else rows
    if not available:
        raise NoJetsError(f"{path}: holds no row; leave it out, or fetch it again", {})
    if not 0 <= start < stop <= available:
        raise ValueError(f"{path}: rows {start} to {stop} are not within its {available} rows; change the row range")
    return start, stop


def _keep(table: JetTable, good: np.ndarray) -> JetTable:
    if good.all():
        return table
    particle = np.repeat(good, table.counts)
    return JetTable(
        particles={name: values[particle] for name, values in table.particles.items()},
        offsets=np.concatenate([[0], np.cumsum(table.counts[good])]),
        fields={name: values[good] for name, values in table.fields.items()},
        label=table.label[good],
        weight=table.weight[good],
        metadata=table.metadata,
        source_rows=table.source_rows[good],
    )
