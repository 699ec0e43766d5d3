"""The rows of ``metrics.csv``: each is appended when it is known; rows that exist are only replaced with the file."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.files import atomic_write, disk_errors_name, sync


class History:
    """Writes ``metrics.csv`` so that a kill costs no more than the row that is being written.

    For a row with a new column, the file is rewritten beside the old one. In a resumed run, the rows after its
    checkpoint are dropped when the first new row is written, so that a run that cannot start changes nothing.

    Args:
        path: the file.
        first_step: number of the next step; rows of earlier steps stay. 0 begins a new run.

    Raises:
        ValueError: if the file of a resumed run is damaged; the message names the line.
    """

    def __init__(self, path: Path, first_step: int = 0) -> None:
        self.path = path
        self._kept = _rows_before(path, first_step) if first_step else []
        self._columns: list[str] | None = None  # those of the file, once this run has written to it

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row of numbers with its ``step``.

        Raises:
            OSError: naming the file, if it cannot be written.
        """
        if self._columns is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._write_anew(self._kept, row)
            self._kept = []
        elif not row.keys() <= set(self._columns):
            self._write_anew(read_rows(self.path), row)
        with disk_errors_name(self.path), self.path.open("ab") as file:
            file.write(_csv(self._columns, [row]))

    def sync(self) -> None:
        """Return once the rows are on the disk."""
        if self._columns is not None:
            with disk_errors_name(self.path), self.path.open("ab") as file:
                sync(file)

    def _write_anew(self, rows: list[dict[str, str]], further: Mapping[str, Any]) -> None:
        columns = sorted({*further, *(rows[0] if rows else ())})
        with atomic_write(self.path) as file:
            file.write(_csv(columns, [{name: name for name in columns}, *rows]))
        self._columns = columns


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a ``metrics.csv``, each with every column; missing values are empty strings.

    The last line counts only if it is complete, as a kill or a full disk may have cut it short.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged; the message names the line.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing: name the metrics.csv of the run") from None
    rows: list[list[str]] = []
    for number, line in enumerate(lines, 1):
        try:
            rows += csv.reader([line.decode()], strict=True)
        except (UnicodeDecodeError, csv.Error) as error:
            raise _damaged(path, number, str(error)) from None
        if len(rows[-1]) != len(rows[0]):
            raise _damaged(path, number, f"{len(rows[-1])} columns instead of {len(rows[0])}")
    if rows and ("step" not in rows[0] or len(set(rows[0])) < len(rows[0])):
        raise _damaged(path, 1, f"it must name the columns, 'step' among them, and has {', '.join(rows[0])}")
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def number_in(path: Path, line: int, row: Mapping[str, str], column: str) -> float:
    """The number in a column of a row; the error names the line.

    Raises:
        ValueError: if there is no number.
    """
    try:
        return float(row[column])
    except ValueError:
        raise _damaged(path, line, f"column {column!r} holds {row[column]!r}, no number") from None


def _rows_before(path: Path, first_step: int) -> list[dict[str, str]]:
    rows = []
    for line, row in enumerate(read_rows(path) if path.exists() else [], 2):
        for name in row:
            if name == "step" or row[name]:
                number_in(path, line, row, name)
        if float(row["step"]) < first_step:
            rows.append(row)
    return rows


def _csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    csv.DictWriter(text, columns).writerows(rows)
    return text.getvalue().encode()


def _damaged(path: Path, line: int, what: str) -> ValueError:
    return ValueError(
        f"{path}, line {line}: is damaged ({what}); correct or delete this line, on which no weight depends"
    )
