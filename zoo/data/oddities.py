"""What is odd about jets, in words and numbers: reported by `zoo data info`, trainings and predictions alike."""

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from zoo.data.store import MOMENTUM_COLUMNS, JetTable, join_tables

#: A typical sum of transverse momenta outside this range, in GeV, suggests another unit: no collision has more.
PLAUSIBLE_MOMENTA = (1.0, 14_000.0)

#: Files whose typical sums of transverse momenta differ by more than this factor are probably not in the same unit.
LARGEST_RATIO = 300.0

#: Number of jets of a training or prediction that are examined.
SAMPLED_JETS = 100_000

#: In fewer jets than this, a column may be constant by chance.
ENOUGH_JETS = 30


def find_oddities(table: JetTable, columns: Collection[str] | None = None) -> Iterator[str]:
    """Anything that deserves a look, one line each.

    Args:
        table: jets.
        columns: particle columns and fields to examine; None: all.
    """
    yield from _odd_momenta(table)
    if len(table) >= ENOUGH_JETS:
        for name, values in (table.particles | table.fields).items():
            if (columns is None or name in columns) and values.min() == values.max():
                yield f"the column {name!r} is {values[0]:g} everywhere"
    negative = int((table.weight < 0).sum())
    if negative:
        yield f"{negative} jets have a negative weight"
    copies = len(table) - len(np.unique(_fingerprints(table)))
    if copies:
        yield f"{copies} jets are copies of others; if one is trained on and the other tested, the test is worthless"


def find_oddities_of_files(tables: Sequence[tuple[Path, JetTable]], columns: Collection[str]) -> Iterator[str]:
    """The same for the first jets of some files, `SAMPLED_JETS` at most, and for one file compared with another.

    Args:
        tables: jets, and the file of each table.
        columns: particle columns and fields to examine, as far as they are numbers and not flags.
    """
    columns = {name for name in columns if _is_number(tables, name)}
    jets = max(1, SAMPLED_JETS // len(tables))
    samples = [(path, _sample(table, jets, columns)) for path, table in tables]
    typical = [(typical_momentum(sample), path) for path, sample in samples]
    (smallest, low), (largest, high) = min(typical), max(typical)
    if largest > LARGEST_RATIO * smallest:
        yield (
            f"a typical jet has {smallest:.3g} GeV of transverse momentum in {low}, {largest:.3g} GeV in {high}: are "
            "they in the same unit?"
        )
    yield from find_oddities(join_tables([sample for _, sample in samples]), columns)


def typical_momentum(table: JetTable) -> float:
    """Median over the jets of the sum of their particles' transverse momenta, in GeV."""
    pt = np.hypot(table.particles["part_px"], table.particles["part_py"], dtype=np.float64)
    return float(np.median(np.add.reduceat(pt, table.offsets[:-1])))


def _sample(table: JetTable, jets: int, columns: Collection[str]) -> JetTable:
    first = table.slice(0, min(jets, len(table)))
    return dataclasses.replace(
        first,
        particles={name: v for name, v in first.particles.items() if name in columns or name in MOMENTUM_COLUMNS},
        fields={name: values for name, values in first.fields.items() if name in columns},
    )


def _is_number(tables: Sequence[tuple[Path, JetTable]], name: str) -> bool:
    """Whether all tables have floating-point numbers of that name; a flag of rare particles may be 0 everywhere."""
    return all((table.particles | table.fields).get(name, np.empty(0, bool)).dtype.kind == "f" for _, table in tables)


def _odd_momenta(table: JetTable) -> Iterator[str]:
    typical = typical_momentum(table)
    smallest, largest = PLAUSIBLE_MOMENTA
    if typical > largest:
        yield f"a typical jet has {typical:.3g} GeV of transverse momentum: is the file in MeV? Say so in its layout"
    if typical < smallest:
        yield f"a typical jet has {typical:.3g} GeV of transverse momentum: is the file in GeV and its layout in MeV?"
    empty = int(np.logical_and.reduce([table.particles[name] == 0 for name in MOMENTUM_COLUMNS]).sum())
    if empty:
        yield (
            f"{empty} of {table.offsets[-1]} particles have neither momentum nor energy: padding that was taken for "
            "particles; read or convert the original file with this version"
        )


def _fingerprints(table: JetTable) -> np.ndarray:
    """A 64-bit number per jet, equal only for the same momenta in the same order."""
    place = np.arange(table.offsets[-1]) - np.repeat(table.offsets[:-1], table.counts)
    mixed = place.astype(np.uint64)
    for name in MOMENTUM_COLUMNS:
        bits = table.particles[name].view(np.uint32).astype(np.uint64)
        mixed = (mixed ^ bits) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return np.add.reduceat(mixed, table.offsets[:-1])
