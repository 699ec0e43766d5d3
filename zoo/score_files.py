"""Files of scores for other programs: one row per jet, one column per number, in the format of the file name."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from zoo.files import atomic_write

#: Name of the tree, or of the table, in a ROOT file.
TREE = "scores"


def score_columns(logits: np.ndarray, classes: Sequence[str]) -> dict[str, np.ndarray]:
    r"""Score of each class as a column ``score_<class>``, float64 (row,), NaN where the logits are.

    .. math:: s_c = e^{l_c} / \sum_k e^{l_k}

    Args:
        logits: (row, class).
        classes: their names.
    """
    logits = logits.astype(np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores = powers / powers.sum(axis=1, keepdims=True)
    return {f"score_{name}": scores[:, number] for number, name in enumerate(classes)}


def missing_values(rows: int, dtype: np.dtype | type) -> np.ndarray:
    """A column (row,) of the placeholder for a missing number: NaN, or -1 for integers."""
    kind = np.dtype(dtype).kind
    return np.full(rows, np.nan if kind == "f" else -1, dtype=dtype if kind in "fi" else np.int64)


def join_columns(columns: Mapping[str, np.ndarray], fields: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns, followed by further fields of the jets.

    Raises:
        ValueError: if a field has the name of a column.
    """
    for name in columns.keys() & fields.keys():
        raise ValueError(f"field {name!r}: has the name of a column of the scores; give it another in the layout")
    return {**columns, **fields}


def require_kind(path: str | Path, *, rntuple: bool = False) -> None:
    """Refuse a file name whose ending is not that of a score file.

    Raises:
        ValueError: if its ending is not one of `KINDS`, or an RNTuple is requested in a file that is not a ROOT file.
    """
    path = Path(path)
    if path.suffix not in _WRITERS:
        raise ValueError(f"{path}: scores are written as {', '.join(KINDS)}; choose a name with such an ending")
    if rntuple and path.suffix != ".root":
        raise ValueError(f"{path}: an RNTuple is in a ROOT file; choose a name that ends with .root")


def write_scores(path: str | Path, columns: Mapping[str, np.ndarray], *, rntuple: bool = False) -> None:
    """Write columns in the format of the file ending; an older file is replaced.

    ROOT files hold a ``TTree`` called `TREE`, whose entries are the rows, so that it can be a friend of the tree that
    the rows came from; or an RNTuple.

    Args:
        path: ``.arrow``, ``.parquet``, ``.csv``, ``.h5`` or ``.root``; its folder is made if needed.
        columns: numbers, (row,) each.
        rntuple: whether a ROOT file holds an RNTuple instead of a tree.

    Raises:
        ValueError: as for `require_kind`.
    """
    path = Path(path)
    require_kind(path, rntuple=rntuple)
    write = _write_rntuple if rntuple else _WRITERS[path.suffix]
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        write(file, columns)


def write_csv(file: BinaryIO, columns: Mapping[str, np.ndarray]) -> None:
    """Write columns as CSV to an open file, such as standard output."""
    import pyarrow as pa
    from pyarrow import csv

    csv.write_csv(pa.table(dict(columns)), file, csv.WriteOptions(quoting_style="needed"))


def _write_arrow(file: BinaryIO, columns: Mapping[str, np.ndarray]) -> None:
    import pyarrow as pa

    table = pa.table(dict(columns))
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def _write_parquet(file: BinaryIO, columns: Mapping[str, np.ndarray]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table(dict(columns)), file, write_page_checksum=True)


def _write_hdf5(file: BinaryIO, columns: Mapping[str, np.ndarray]) -> None:
    import h5py

    content = io.BytesIO()
    with h5py.File(content, "w") as scores:
        for name, values in columns.items():
            scores.create_dataset(name, data=values, fletcher32=True)
    file.write(content.getbuffer())


def _write_tree(file: BinaryIO, columns: Mapping[str, np.ndarray]) -> None:
    import uproot

    content = io.BytesIO()
    with uproot.recreate(content) as scores:
        tree = scores.mktree(TREE, {name: values.dtype for name, values in columns.items()})
        tree.extend(dict(columns))
        file.write(content.getvalue())  # which it closes


def _write_rntuple(file: BinaryIO, columns: Mapping[str, np.ndarray]) -> None:
    import uproot

    content = io.BytesIO()
    with uproot.recreate(content) as scores:
        scores.mkrntuple(TREE, dict(columns))
        file.write(content.getvalue())


_WRITERS: dict[str, Callable[[BinaryIO, Mapping[str, np.ndarray]], None]] = {
    ".arrow": _write_arrow,
    ".parquet": _write_parquet,
    ".csv": write_csv,
    ".h5": _write_hdf5,
    ".root": _write_tree,
}
#: Endings of the names of score files.
KINDS = tuple(_WRITERS)
