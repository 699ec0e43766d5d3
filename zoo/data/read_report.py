"""Reports on reading a file: what was left out, what was repaired, and warnings about both."""

import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

from zoo.data.formats.momenta import RAISED_AS_STATED


@dataclasses.dataclass(frozen=True)
class ReadReport:
    """What happened to the rows of a file when they were read.

    Args:
        path: the file.
        rows: number of rows read.
        rejected: number of jets left out, by the reasons of `zoo.data.store.bad_jets`.
        mended: number of particles or numbers that were dropped or changed, by what was done.
        infinite: number of jets left out because of a number that is not finite, by its column.
    """

    path: Path
    rows: int
    rejected: Mapping[str, int]
    mended: Mapping[str, int] = dataclasses.field(default_factory=dict)
    infinite: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def left_out(self) -> int:
        """Number of jets left out."""
        return sum(self.rejected.values())

    def __add__(self, other: "ReadReport") -> "ReadReport":
        """The report on these rows and on others."""
        counts = (
            {key: one.get(key, 0) + two.get(key, 0) for key in {**one, **two}}
            for one, two in (
                (self.rejected, other.rejected),
                (self.mended, other.mended),
                (self.infinite, other.infinite),
            )
        )
        return ReadReport(self.path, self.rows + other.rows, *counts)

    def reasons(self) -> Iterator[str]:
        """Number and reason of the jets left out, one line per reason."""
        columns = ", ".join(f"{name} in {count}" for name, count in self.infinite.items())
        for reason, count in self.rejected.items():
            if count:
                yield f"{count} {reason}" + (f" ({columns})" if columns and reason == "not finite" else "")

    def mendings(self) -> Iterator[str]:
        """Number of particles or numbers, and what was done with them, one line per kind."""
        return (f"{count} {what}" for what, count in self.mended.items() if count)

    def __str__(self) -> str:
        return f"{self.path}: left out {self.left_out} of {self.rows} jets: {', '.join(self.reasons())}"


class RejectedJetsWarning(UserWarning):
    """Some jets of a file were left out; its argument is a `ReadReport`."""


class MendedWarning(UserWarning):
    """Some particles or numbers of a file were dropped or changed as it was read; its argument is a `ReadReport`."""

    def __str__(self) -> str:
        (report,) = self.args
        return f"{report.path}: {'; '.join(report.mendings())}"


def warn_of(report: ReadReport, stacklevel: int = 1) -> None:
    """Warn of what was left out or repaired, if anything, except for what the layout or format states itself."""
    if report.left_out:
        warnings.warn(RejectedJetsWarning(report), stacklevel=stacklevel + 1)
    if any(count for what, count in report.mended.items() if what != RAISED_AS_STATED):
        warnings.warn(MendedWarning(report), stacklevel=stacklevel + 1)
