"""JetClass and JetClass-II: one jet per row, its particles in lists, as a ROOT tree or a parquet file."""

import contextlib
import difflib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from zoo.data.datasets import DATASETS, JET_COLUMNS, Dataset
from zoo.data.formats.columns import Columns, open_parquet, open_root
from zoo.data.formats.layout import Layout, LayoutFile

#: Columns that the formulas of the features need beside the momenta; a file may lack any of them.
PARTICLE_COLUMNS = (
    "part_charge",
    "part_isChargedHadron",
    "part_isNeutralHadron",
    "part_isPhoton",
    "part_isElectron",
    "part_isMuon",
    "part_d0val",
    "part_d0err",
    "part_dzval",
    "part_dzerr",
)

#: A column this similar to a missing one is taken for it, misspelt or damaged: one letter of nine may differ.
_MISSPELT = 0.89

#: Data sets of this kind; each has its own label columns.
_KNOWN = (DATASETS["jetclass"], DATASETS["jetclass2"])


@contextlib.contextmanager
def open_jetclass_root(path: Path, labelled: bool = True) -> Iterator[LayoutFile]:
    """Open the tree ``tree``, or the only one, of a ROOT file.

    Raises:
        ValueError: if the file is damaged, has no such tree, or its branches are not those of JetClass.
    """
    with _open(path, open_root, labelled) as file:
        yield file


@contextlib.contextmanager
def open_jetclass_parquet(path: Path, labelled: bool = True) -> Iterator[LayoutFile]:
    """Open a parquet file.

    Raises:
        ValueError: if the file is damaged, or its columns are not those of JetClass.
    """
    with _open(path, open_parquet, labelled) as file:
        yield file


@contextlib.contextmanager
def _open(
    path: Path, opener: Callable[[Path], AbstractContextManager[Columns]], labelled: bool
) -> Iterator[LayoutFile]:
    with opener(path) as columns:
        yield LayoutFile(path, columns, _layout(path, columns, labelled), labelled)


def _layout(path: Path, columns: Columns, labelled: bool) -> Layout:
    """The layout of a file, with `PARTICLE_COLUMNS` and `JET_COLUMNS` as far as it has them."""
    facts = _find_dataset(path, columns, labelled)
    _check_spelling(path, columns)
    has_jets = any(name in columns.names for name in JET_COLUMNS)
    return Layout(
        name=facts.name,
        classes=facts.classes,
        momenta={component: f"part_{component}" for component in ("px", "py", "pz", "energy")},
        label=facts.label_columns[0] if len(facts.label_columns) == 1 else facts.label_columns,
        particles={name: name for name in PARTICLE_COLUMNS if name in columns.names},
        fields={name: name for name in JET_COLUMNS} if has_jets else {},
    )


def _check_spelling(path: Path, columns: Columns) -> None:
    """Check that no optional column is left out only because its name differs by a letter."""
    others = set(columns.names) - {*PARTICLE_COLUMNS, *JET_COLUMNS}
    for name in (name for name in PARTICLE_COLUMNS if name not in columns.names):
        close = difflib.get_close_matches(name, others, n=1, cutoff=_MISSPELT)
        if close:
            raise ValueError(f"{path}: column {name!r} is missing; did you mean {close[0]!r}? Rename the column")


def _find_dataset(path: Path, columns: Columns, labelled: bool) -> Dataset:
    """The data set by its labels; without them the first one, as both have its particle columns."""
    for facts in _KNOWN:
        if any(name in columns.names for name in facts.label_columns):
            return facts
    if not labelled:
        return _KNOWN[0]
    known = [name for facts in _KNOWN for name in facts.label_columns]
    others = [name for name in columns.names if name not in JET_COLUMNS]
    close = [name for name in others if difflib.get_close_matches(name, known, n=1, cutoff=0.8)]
    hint = f"did you mean {close[0]!r}? Rename the column" if close else "jets without labels cannot be read"
    raise ValueError(
        f"{path}: no column of labels; JetClass has {known[0]!r} and {len(known) - 2} more, JetClass-II has "
        f"{known[-1]!r}; {hint}, or describe the file in a layout"
    )
