"""The tables of a split's files, with a count of jets left out: too many are an error, an empty file is not."""

import warnings
from pathlib import Path

from zoo.data.read_report import warn_of
from zoo.data.source import JetSource
from zoo.data.store import JetTable, NoJetsError

#: How many files an error message names.
_NAMED_FILES = 3


class SplitTables:
    """The tables found in the files of a split, one file after the other.

    Args:
        name: of the split, for messages.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.jets = 0
        self.left_out = 0
        self.reports: list[str] = []
        self.tables: list[tuple[Path, JetTable]] = []

    def open(self, source: JetSource, rows: tuple[int, int]) -> list[JetTable]:
        """The tables of some rows of a source; none, with a warning, if it has no jet in these rows."""
        path = source.path
        try:
            if rows[0] == rows[1]:
                raise NoJetsError(f"{path}: has no row for this split; add jets or leave it out", {})
            tables, report = source.tables(rows)
        except NoJetsError as error:
            warnings.warn(f"{self.name}: skipped a file: {error}", stacklevel=6)
            self._count(0, sum(error.rejected.values()), str(error))
            return []
        warn_of(report, stacklevel=6)
        jets = sum(map(len, tables))
        if source.left_out_before:
            left_out = round(source.left_out_before * jets / len(source))
            self._count(jets, left_out, f"{path}: left out {left_out} when it was converted")
        else:
            self._count(jets, report.left_out, str(report))
        self.tables += [(path, table) for table in tables]
        return tables

    def _count(self, jets: int, left_out: int, report: str) -> None:
        self.jets += jets
        self.left_out += left_out
        if left_out or not jets:
            self.reports.append(report)

    def require(self, max_rejected: float) -> None:
        """Refuse a split that has lost more than this fraction of its jets, or all.

        Raises:
            ValueError: naming the first files and the remedies.
        """
        files = "; ".join(self.reports[:_NAMED_FILES]) + ("; ..." if len(self.reports) > _NAMED_FILES else "")
        if not self.jets:
            raise ValueError(f"{self.name}: there is no jet: {files}")
        if self.left_out > max_rejected * (self.jets + self.left_out):
            raise ValueError(
                f"{self.name}: {self.left_out} of {self.jets + self.left_out} jets were left out, more than the part "
                f"data.max_rejected = {max_rejected:g}: {files}; correct the files, mend them in their layout ('fill', "
                "'mask', 'bad_particles', 'momentum_tolerance', 'mass' instead of 'energy'), or raise data.max_rejected"
            )
