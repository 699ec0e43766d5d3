"""Labels of files with a layout: text, whole floats, other values, and rows of no class."""

import dataclasses

import awkward as ak
import h5py
import numpy as np
import pyarrow as pa
import pytest
import uproot
from pyarrow import parquet

from zoo.data.formats.layout import Layout
from zoo.data.formats.layout_yaml import read_layout
from zoo.data.read_report import MendedWarning
from zoo.data.readers import read_jets

NAMES = ["gluon", "top", "gluon", "W", "top"]
MOMENTUM = np.array([[1, 2], [3, 4], [5, 6], [7, 8], [9, 1]], dtype=np.float32)
LAYOUT = Layout("mine", ("top", "gluon"), {"px": "px", "py": "py", "pz": "pz"}, "kind")


def momenta():
    return dict.fromkeys(("px", "py", "pz"), MOMENTUM)


def write_parquet(path, label):
    columns = {name: pa.array(values.tolist(), pa.list_(pa.float32())) for name, values in momenta().items()}
    parquet.write_table(pa.table(columns | {"kind": label}), path)
    return path


def write_root(path, label, kind="mktree"):
    columns = {name: ak.from_regular(ak.Array(values)) for name, values in momenta().items()} | {"kind": label}
    with uproot.recreate(path) as file:
        if kind == "mktree":
            file.mktree("tree", {name: ak.type(ak.Array(values)).content for name, values in columns.items()})
            file["tree"].extend(columns)
        else:
            file.mkrntuple("tree", columns)
    return path


def write_hdf5(path, label):
    with h5py.File(path, "w") as file:
        for name, values in {**momenta(), "kind": label}.items():
            file[name] = values
    return path


WRITERS = {
    "parquet": lambda path: write_parquet(path, pa.array(NAMES)),
    "large": lambda path: write_parquet(path, pa.array(NAMES, pa.large_string())),
    "dictionary": lambda path: write_parquet(path, pa.array(NAMES).dictionary_encode()),
    "hdf5": lambda path: write_hdf5(path, NAMES),
    "bytes": lambda path: write_hdf5(path, np.array(NAMES, dtype="S")),
    "compound": lambda path: write_hdf5(path, np.array([(name,) for name in NAMES], dtype=[("of", "S5")])),
    "rntuple": lambda path: write_root(path, ak.Array(NAMES), "mkrntuple"),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_labels_of_text(tmp_path, writer):
    path = WRITERS[writer](tmp_path / "jets")
    layout = dataclasses.replace(LAYOUT, label="kind/of" if writer == "compound" else "kind")
    with pytest.raises(ValueError, match=r"must be one of top, gluon, not W as in row 3; .*'other_labels: drop'"):
        read_jets(path, layout=layout)
    values = {"top": "top", "gluon": "gluon", "W": "top"}
    assert read_jets(path, layout=dataclasses.replace(layout, label_values=values)).label.tolist() == [1, 0, 1, 0, 0]
    with pytest.raises(ValueError, match=r"'kind.*' must hold whole numbers, not text"):
        read_jets(path, layout=dataclasses.replace(layout, label_values=(0, 1)))


def test_rows_of_other_labels_are_dropped_and_counted(tmp_path):
    path = write_parquet(tmp_path / "jets", pa.array(NAMES))
    dropping = dataclasses.replace(LAYOUT, other_labels="drop")
    with pytest.warns(MendedWarning, match="1 rows whose label is no class"):
        table = read_jets(path, layout=dropping)
    assert table.source_rows.tolist() == [0, 1, 2, 4]
    assert table.label.tolist() == [1, 0, 1, 0]
    assert table.particles["part_px"].tolist() == MOMENTUM[[0, 1, 2, 4]].ravel().tolist()
    with pytest.raises(ValueError, match="none is selected"):
        read_jets(path, (3, 4), dropping)


def test_rows_with_no_flag_or_two_are_dropped(tmp_path):
    flags = {"is_top": [1, 0, 1, 0, 0], "is_gluon": [0, 1, 1, 0, 1]}
    columns = {name: pa.array(values.tolist(), pa.list_(pa.float32())) for name, values in momenta().items()}
    parquet.write_table(pa.table(columns | flags), tmp_path / "jets")
    layout = dataclasses.replace(LAYOUT, label=("is_top", "is_gluon"), other_labels="drop")
    with pytest.warns(MendedWarning, match="2 rows whose label is no class"):
        assert read_jets(tmp_path / "jets", layout=layout).label.tolist() == [0, 1, 1]


def test_whole_floats_are_labels_and_others_are_not(tmp_path):
    layout = dataclasses.replace(LAYOUT, label_values=(6, 21))
    path = write_parquet(tmp_path / "jets", pa.array([21.0, 6, 21, 6, 6]))
    assert read_jets(path, layout=layout).label.tolist() == [1, 0, 1, 0, 0]
    assert read_jets(write_root(tmp_path / "t", np.array([1.0, 0, 1, 0, 0])), layout=LAYOUT).label[0] == 1
    for odd in (6.5, np.nan):
        path = write_parquet(tmp_path / "jets", pa.array([21.0, 6, odd, 6, 6]))
        with pytest.raises(ValueError, match=rf"column 'kind' must be one of 6, 21, not {odd} as in row 2"):
            read_jets(path, layout=layout)


def test_the_key_of_a_layout(tmp_path):
    text = "units: GeV\nclasses: [a, b]\nmomenta: {px: x, py: y, pz: z}\nlabel: k\nother_labels: "
    (tmp_path / "l.yaml").write_text(text + "drop")
    layout = read_layout(tmp_path / "l.yaml")
    assert layout.other_labels == "drop"
    assert layout.values["other_labels"] == "drop"
    (tmp_path / "l.yaml").write_text(text + "forget")
    with pytest.raises(ValueError, match="other_labels: must be refuse or drop, not 'forget'"):
        read_layout(tmp_path / "l.yaml")
