"""Files whose classes nobody knows, or that are of other classes, read for what needs no label."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.data.writers import (
    LINES,
    hls4ml_arrays,
    jetclass_columns,
    jetnet_arrays,
    lhc_olympics_rows,
    quark_gluon_arrays,
    top_tagging_rows,
    write_arrays,
    write_parquet,
    write_root,
)
from zoo.cli import main
from zoo.data import JetDataModule
from zoo.data.datamodule import Split
from zoo.data.datasets import resolve_file
from zoo.data.formats.layout import Layout
from zoo.data.readers import read_jets
from zoo.data.source import open_source
from zoo.data.store import join_tables, write_store

Written = tuple[Path, Path, list[int]]


def frame(path: Path, rows: pd.DataFrame, key: str, format_: str) -> Path:
    rows.to_hdf(path, key=key, format=format_, mode="w")
    return path


def top_tagging(folder: Path) -> Written:
    rows = top_tagging_rows(4)
    good = frame(folder / "good.h5", rows, "table", "table")
    return good, frame(folder / "bad.h5", rows.assign(is_signal_new=[0, 7, -1, 1]), "table", "table"), [0, -1, -1, 1]


def top_tagging_without(folder: Path) -> Written:
    rows = top_tagging_rows(4)
    good = frame(folder / "good.h5", rows, "table", "table")
    return good, frame(folder / "bad.h5", rows.drop(columns="is_signal_new"), "table", "table"), [-1] * 4


def jetclass(folder: Path) -> Written:
    columns = jetclass_columns(np.array([3, 1, 4]))
    other = {**columns, "label_QCD": np.array([False, False, True]), "label_Hbb": np.array([False, False, False])}
    return write_root(folder / "good.root", columns), write_root(folder / "bad.root", other), [-1, -1, -1]


def jetclass_without(folder: Path) -> Written:
    columns = jetclass_columns(np.array([3, 1, 4]))
    other = {name: values for name, values in columns.items() if not name.startswith("label_")}
    good = write_parquet(folder / "good.parquet", columns)
    return good, write_parquet(folder / "bad.parquet", other), [-1, -1, -1]


def quark_gluon(folder: Path) -> Written:
    arrays = quark_gluon_arrays()
    np.savez(folder / "good.npz", **arrays)
    np.savez(folder / "bad.npz", X=arrays["X"], y=np.array([1, 0.5, 3]))
    return folder / "good.npz", folder / "bad.npz", [1, -1, -1]


def quark_gluon_without(folder: Path) -> Written:
    arrays = quark_gluon_arrays()
    np.savez(folder / "good.npz", **arrays)
    np.savez(folder / "bad.npz", X=arrays["X"])
    return folder / "good.npz", folder / "bad.npz", [-1, -1, -1]


def hls4ml(folder: Path) -> Written:
    arrays = hls4ml_arrays(4)
    other = {**arrays, "jets": arrays["jets"].copy()}
    other["jets"][1, 5:] = 0
    other["jets"][2, 5:] = 1
    return write_arrays(folder / "good.h5", arrays), write_arrays(folder / "bad.h5", other), [0, -1, -1, 3]


def jetnet(folder: Path) -> Written:
    arrays = jetnet_arrays(3)
    return write_arrays(folder / "t.hdf5", arrays), write_arrays(folder / "mine.hdf5", arrays), [-1, -1, -1]


def lhc_olympics(folder: Path) -> Written:
    """A black box."""
    rows = pd.DataFrame(lhc_olympics_rows(5))
    good = frame(folder / "good.h5", rows, "df", "fixed")
    return good, frame(folder / "bad.h5", rows.drop(columns=21), "df", "fixed"), [-1] * 5


def dark_machines(folder: Path) -> Written:
    text = "\n".join(LINES) + "\n"
    (folder / "good.csv").write_text(text)
    (folder / "bad.csv").write_text(text.replace(";tttt;", ";wjets;"))
    label = read_jets(folder / "good.csv").label.tolist()
    return folder / "good.csv", folder / "bad.csv", [label[0], -1, *label[2:]]


@pytest.mark.parametrize(
    "write",
    [
        top_tagging,
        top_tagging_without,
        jetclass,
        jetclass_without,
        quark_gluon,
        quark_gluon_without,
        hls4ml,
        jetnet,
        lhc_olympics,
        dark_machines,
    ],
    ids=lambda write: write.__name__,
)
def test_what_needs_no_label_reads_every_jet(write: Callable[[Path], Written], tmp_path):
    good, bad, label = write(tmp_path)
    with pytest.raises(ValueError, match=bad.name):
        read_jets(bad)
    table = join_tables([table for table, _ in open_source(bad, labelled=False).chunks()])
    expected = read_jets(good)
    assert table.label.tolist() == label
    np.testing.assert_array_equal(table.offsets, expected.offsets)
    for name, values in expected.particles.items():
        np.testing.assert_array_equal(table.particles[name], values)
    assert table.fields.keys() == expected.fields.keys()
    assert table.metadata == expected.metadata


@pytest.mark.parametrize("label_values", [[0, 1, 2], {0: "a", 1: "b", 2: "c"}])
@pytest.mark.parametrize("column", ["flavour", "absent", "part_px"])
def test_a_layout_whose_labels_do_not_fit(tmp_path, label_values, column):
    columns = jetclass_columns(np.array([3, 1, 4]))
    path = write_root(tmp_path / "jets.root", {**columns, "flavour": np.array([2, 5, 1])})
    momenta = {name: f"part_{name}" for name in ("px", "py", "pz", "energy")}
    layout = Layout(name="mine", classes=("a", "b", "c"), momenta=momenta, label=column, label_values=label_values)
    with pytest.raises(ValueError, match=f"{column}"):
        read_jets(path, layout=layout)
    ((table, _),) = open_source(path, layout, labelled=False).chunks()
    assert table.label.tolist() == ([2, -1, 1] if column == "flavour" else [-1, -1, -1])


@pytest.mark.parametrize("classes", [["qcd", "top"], []])
@pytest.mark.parametrize("merge", [None, {"signal": ["top"], "background": ["qcd"]}])
def test_a_split_that_needs_no_label(tmp_path, classes, merge):
    """The zoo's own file with the label -1; merged classes leave it what it is. Control: the labels of the sample."""
    jets = read_jets(resolve_file("sample:top_tagging/train"), rows=(0, 40))
    label = np.where(np.arange(40) < 30, -1, jets.label) if classes else np.full(40, -1)
    write_store(
        tmp_path / "jets.arrow",
        dataclasses.replace(jets, label=label, metadata={**jets.metadata, "classes": classes}),
    )
    split = Split([str(tmp_path / "jets.arrow")])
    data = JetDataModule(train=split, val=split, batch_size=10, merge=merge, labelled=False)
    with pytest.warns(UserWarning, match="share rows"):
        data.setup("fit")
    batches = [batch for loader in (data.train_dataloader(), data.val_dataloader()) for batch in loader]
    for batch in batches:
        expected = label[batch.index] if merge is None else np.where(label < 0, -1, 1 - label)[batch.index]
        assert batch.label.tolist() == expected.tolist()
    with pytest.raises(ValueError, match=r"jets\.arrow: (column 'label' must be 0 to 1|classes are \[\])"):
        JetDataModule(train=split, merge=merge).setup("fit")


@pytest.mark.parametrize("write", [top_tagging, jetclass_without], ids=lambda write: write.__name__)
def test_files_without_labels_are_converted_where_none_are_needed(write: Callable[[Path], Written], tmp_path, capsys):
    _, bad, label = write(tmp_path)
    out = tmp_path / "out"
    command = ["convert", str(bad), "--out", str(out), "--processes", "1"]
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--out", str(tmp_path / "refused")])
    assert "label" in capsys.readouterr().err
    main([*command, "--unlabelled"])
    assert f"{label.count(-1)} of a class that is not known" in capsys.readouterr().out
    (table,), _ = open_source(out).tables()
    assert sorted(table.label.tolist()) == sorted(label)
    main([*command, "--unlabelled"])  # which is done
    split = Split([str(out)])
    name = "jetclass" if "parquet" in bad.name else "top_tagging"
    JetDataModule(dataset=name, train=split, labelled=False).setup("fit")
    with pytest.raises(ValueError, match=r"column 'label' must be 0 to"):
        JetDataModule(dataset=name, train=split).setup("fit")
