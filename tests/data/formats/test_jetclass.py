import re

import awkward as ak
import numpy as np
import pyarrow as pa
import pytest
import uproot
from pyarrow import parquet

from tests.data.writers import FLAGS, IMPACT, changed, jetclass_columns, write_parquet, write_rntuple, write_root
from zoo.data.datasets import JET_COLUMNS, describe_dataset
from zoo.data.read_report import RejectedJetsWarning
from zoo.data.readers import read_jets
from zoo.data.source import open_source
from zoo.data.store import MOMENTUM_COLUMNS, open_store, write_store

CLASSES = describe_dataset("jetclass").classes


@pytest.fixture(params=["root", "parquet"])
def example(request, shared_data):
    return shared_data / "jetclass2" / f"JetClassII_example.{request.param}"


COUNTS = np.array([3, 1, 4, 2, 5, 1, 2, 3, 1, 2, 4, 1])


@pytest.fixture
def columns() -> dict:
    """Twelve jets as JetClass has them; the class of jet ``j`` is j % 10."""
    return jetclass_columns(COUNTS)


@pytest.fixture(params=["root", "rntuple", "parquet"])
def write(request, tmp_path):
    """Function that writes columns in one of the formats, five jets a basket, cluster or row group."""
    writers = {"root": write_root, "rntuple": write_rntuple, "parquet": write_parquet}
    return lambda columns: writers[request.param](tmp_path / f"jets.{request.param}", columns)


def test_root_and_parquet_give_the_same_jets(shared_data):
    one, two = (read_jets(shared_data / "jetclass2" / f"JetClassII_example.{end}") for end in ("root", "parquet"))
    assert len(one) == 100
    assert one.metadata == two.metadata
    assert one.particles.keys() == two.particles.keys() == {*MOMENTUM_COLUMNS, "part_charge", *FLAGS, *IMPACT}
    assert one.fields.keys() == two.fields.keys() == set(JET_COLUMNS)
    for name in one.particles:
        assert one.particles[name].dtype == two.particles[name].dtype == (np.uint8 if name in FLAGS else np.float32)
        np.testing.assert_array_equal(one.particles[name], two.particles[name])
    for name in JET_COLUMNS:
        np.testing.assert_array_equal(one.fields[name], two.fields[name])
    for name in ("offsets", "label", "source_rows", "weight"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_every_number_of_the_example_is_read(example):
    table = read_jets(example, rows=(30, 70))
    if example.suffix == ".root":
        with uproot.open(example) as file:
            witness = {name: values.tolist() for name, values in file["tree"].arrays(library="np").items()}
    else:
        witness = parquet.read_table(example).to_pydict()
    for name, values in (table.particles | table.fields).items():
        np.testing.assert_array_equal(values, np.hstack(witness[name][30:70]))
    np.testing.assert_array_equal(table.counts, [len(jet) for jet in witness["part_px"][30:70]])
    assert table.label.tolist() == list(witness["jet_label"][30:70])
    assert table.source_rows.tolist() == list(range(30, 70))
    assert len(open_source(example)) == 100


def test_names_of_the_classes_are_those_of_the_partons(shared_data):
    """The example stores what each jet came from: a jet of X_YY_bbc has two b quarks and a c among them."""
    letters = {1: "q", 2: "q", 3: "s", 4: "c", 5: "b", 21: "g", 11: "e", 13: "m", 15: "t", 12: "v", 14: "v", 16: "v"}
    with uproot.open(shared_data / "jetclass2" / "JetClassII_example.root") as file:
        jets = file["tree"].arrays(filter_name=["jet_label", "aux_genpart_*"])
    for jet in jets:
        name = describe_dataset("jetclass2").classes[jet["jet_label"]]
        is_parton = jet["aux_genpart_isQcdParton" if name.startswith("QCD") else "aux_genpart_isResDecayProd"]
        found = [letters[abs(pid)] for pid in jet["aux_genpart_pid"][is_parton].tolist()]
        expected = re.sub("tau[hem]", "t", name.split("_")[-1]).replace("light", "q")
        for letter in set(expected):
            assert found.count(letter) >= expected.count(letter), (name, found)


def test_jets_of_jetclass(columns, write):
    path = write(columns)
    table = read_jets(path)
    assert table.metadata == {"dataset": "jetclass", "classes": list(CLASSES), "units": "GeV"}
    assert table.label.tolist() == [*range(10), 0, 1]
    assert table.counts.tolist() == COUNTS.tolist()
    for name, values in table.particles.items():
        np.testing.assert_array_equal(values, ak.to_numpy(ak.flatten(columns[name])))
    for name in JET_COLUMNS:
        np.testing.assert_array_equal(table.fields[name], columns[name])
    assert len(open_source(path)) == 12


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_labels_and_flags_of_other_types(columns, write, dtype):
    labels = {name: values.astype(dtype) for name, values in columns.items() if name.startswith("label_")}
    flags = {name: ak.values_astype(columns[name], dtype) for name in FLAGS}
    table = read_jets(write({**columns, **labels, **flags}))
    assert table.label.tolist() == [*range(10), 0, 1]
    assert table.particles["part_isMuon"].dtype == np.float32
    np.testing.assert_array_equal(table.particles["part_isMuon"], ak.flatten(columns["part_isMuon"]))


@pytest.mark.parametrize("rows", [(0, 5), (3, 4), (4, 11), (10, 12), (5, 10)])
@pytest.mark.parametrize("chunk", [3, 100])
def test_row_ranges_and_chunks(columns, write, monkeypatch, rows, chunk):
    path = write(columns)
    whole = read_jets(path)
    monkeypatch.setattr("zoo.data.source.CHUNK_JETS", chunk)
    part, expected = read_jets(path, rows), whole.slice(*rows)
    for name, values in expected.particles.items():
        np.testing.assert_array_equal(part.particles[name], values)
    np.testing.assert_array_equal(part.offsets, expected.offsets)
    np.testing.assert_array_equal(part.label, expected.label)
    np.testing.assert_array_equal(part.source_rows, expected.source_rows)


@pytest.mark.parametrize("rows", [(0, 13), (3, 3), (-1, 2)])
def test_rows_outside_the_file(columns, write, rows):
    with pytest.raises(ValueError, match=r"jets.*: rows .* are not within its 12 rows"):
        read_jets(write(columns), rows)


def test_other_row_groups_are_not_read(columns, tmp_path):
    """Control: a file whose last row group is damaged gives the jets of the first."""
    path = write_parquet(tmp_path / "jets.parquet", columns)
    group = parquet.ParquetFile(path).metadata.row_group(2)
    flip(path, group.column(0))
    assert len(read_jets(path, (0, 10))) == 10
    with pytest.raises(ValueError, match="cannot be read"):
        read_jets(path, (0, 11))


def flip(path, column):
    """Invert the last byte of a column chunk."""
    content = bytearray(path.read_bytes())
    end = (column.dictionary_page_offset or column.data_page_offset) + column.total_compressed_size
    content[end - 1] ^= 0xFF
    path.write_bytes(content)


def test_a_damaged_page_names_the_column(columns, tmp_path):
    path = write_parquet(tmp_path / "jets.parquet", columns)
    group = parquet.ParquetFile(path).metadata.row_group(1)
    flip(
        path, next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema.startswith("part_d0err"))
    )
    with pytest.raises(
        ValueError, match=r"jets.parquet: column 'part_d0err' cannot be read: .*; it is truncated or dam"
    ):
        read_jets(path)


def test_a_damaged_basket_names_the_branch(columns, tmp_path):
    path = write_root(tmp_path / "jets.root", columns)
    with uproot.open(path) as file:
        branch = file["tree"]["part_d0err"]
        seek = branch.member("fBasketSeek")[1]
    content = bytearray(path.read_bytes())
    content[seek : seek + 40] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"jets.root: column 'part_d0err' cannot be read: .*; it is truncated or damaged"
    ):
        read_jets(path)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.95])
def test_truncated_file(columns, write, fraction):
    path = write(columns)
    path.write_bytes(path.read_bytes()[: int(fraction * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"jets\..* cannot be read: .*; it is truncated or damaged, fetch it again"):
        read_jets(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("part_py", "part_Py", r"column 'part_py' is missing; did you mean 'part_Py'\? Rename"),
        ("part_energy", "energy", r"column 'part_energy' is missing; did you mean 'energy'\?"),
        ("label_Hgg", "label_HGG", r"column 'label_Hgg' is missing; did you mean 'label_HGG'\?"),
        ("part_charge", "part_Charge", r"column 'part_charge' is missing; did you mean 'part_Charge'\?"),
        ("part_isMuon", "part_isMuno", r"column 'part_isMuon' is missing; did you mean 'part_isMuno'\?"),
        ("jet_energy", "jet_enrgy", r"column 'jet_energy' is missing; did you mean 'jet_enrgy'\?"),
    ],
)
def test_missing_and_misspelt_columns(columns, write, old, new, message):
    columns[new] = columns.pop(old)
    with pytest.raises(ValueError, match=message):
        read_jets(write(columns))


def test_jets_without_labels(columns, write):
    bare = {name: values for name, values in columns.items() if not name.startswith("label_")}
    with pytest.raises(
        ValueError, match=r"no column of labels; JetClass has 'label_QCD' and 9 more, .* cannot be read"
    ):
        read_jets(write(bare))
    with pytest.raises(ValueError, match=r"JetClass-II has 'jet_label'; did you mean 'jet_lable'\? Rename"):
        read_jets(write({**bare, "jet_lable": np.arange(12)}))


@pytest.mark.parametrize(
    ("name", "convert", "message"),
    [
        (
            "part_px",
            lambda v: ak.values_astype(v, np.int32),
            "must hold lists of floating-point numbers, not lists of int32",
        ),
        ("part_d0val", lambda v: ak.to_numpy(ak.firsts(v)), "must hold lists of numbers or flags, not float32"),
        ("jet_pt", lambda v: v.astype(np.int64), "must hold floating-point numbers, not int64"),
        ("label_Hcc", lambda v: ak.unflatten(v, np.ones(12, int)), "must hold 0 and 1, not lists of bool"),
    ],
)
def test_wrong_types(columns, write, name, convert, message):
    columns[name] = convert(columns[name])
    with pytest.raises(ValueError, match=rf"jets\..*: column '{name}' {message}; convert it"):
        read_jets(write(columns))


def test_lists_of_another_length(columns, write):
    columns["part_dzerr"] = ak.unflatten(ak.flatten(columns["part_dzerr"]), COUNTS[[*range(6), 7, 6, *range(8, 12)]])
    with pytest.raises(ValueError, match="column 'part_dzerr' has 3 particles in row 6, 'part_px' has 2; write"):
        read_jets(write(columns))


@pytest.mark.parametrize(
    ("name", "row", "value", "message"),
    [
        ("label_Hbb", 1, 0, "row 1 has the labels none; exactly one of 'label_QCD' to 'label_Tbl' must be 1"),
        ("label_Tbl", 6, 1, "row 6 has the labels label_Zqq, label_Tbl; exactly one"),
        ("label_Tbl", 6, 2, "column 'label_Tbl' must be 0 or 1, not 2 as in row 6"),
    ],
)
def test_wrong_labels(columns, write, name, row, value, message):
    columns |= {name: values.astype(np.int32) for name, values in columns.items() if name.startswith("label_")}
    columns[name][row] = value
    with pytest.raises(ValueError, match=message):
        read_jets(write(columns))


@pytest.mark.parametrize("label", [188, -1])
def test_wrong_label_of_jetclass2(columns, write, label):
    columns = {name: values for name, values in columns.items() if not name.startswith("label_")}
    with pytest.raises(ValueError, match=f"column 'jet_label' must be 0 to 187, not {label} as in row 11"):
        read_jets(write({**columns, "jet_label": np.array([*range(11), label], dtype=np.int32)}))


def test_bad_jets_are_left_out_and_counted(columns, write):
    columns = changed(columns, "part_px", 0, 1, np.nan)
    columns = changed(columns, "part_d0err", 2, 0, np.inf)
    columns = changed(columns, "part_energy", 6, 1, -1.0)
    columns["jet_eta"][4] = np.nan
    with pytest.warns(RejectedJetsWarning) as caught:
        table = read_jets(write(columns))
    assert table.source_rows.tolist() == [1, 3, 5, 7, 8, 9, 10, 11]
    assert caught[0].message.args[0].rejected["not finite"] == 3
    assert caught[0].message.args[0].rejected["negative energy"] == 1
    assert caught[0].filename == __file__


def test_nulls_are_named(columns, tmp_path):
    path = write_parquet(tmp_path / "jets.parquet", columns)
    table = parquet.read_table(path)
    holes = pa.array([None, *table["part_px"].to_pylist()[1:]], type=table["part_px"].type)
    parquet.write_table(table.set_column(table.column_names.index("part_px"), "part_px", holes), path)
    with pytest.raises(ValueError, match=r"jets.parquet: column 'part_px' holds nulls"):
        read_jets(path)


def test_columns_that_a_file_may_lack(columns, write):
    bare = {name: values for name, values in columns.items() if name in MOMENTUM_COLUMNS or name.startswith("label_")}
    table = read_jets(write(bare))
    assert set(table.particles) == set(MOMENTUM_COLUMNS)
    assert table.fields == {}


def test_a_root_file_of_something_else(tmp_path):
    with uproot.recreate(tmp_path / "other.root") as file:
        file["histogram"] = np.histogram(np.arange(3))
    with pytest.raises(ValueError, match=r"other.root must hold a TTree 'tree', or only one; found none"):
        read_jets(tmp_path / "other.root")


def test_a_colon_in_the_name_of_a_file(columns, tmp_path):
    path = write_root(tmp_path / "jets.root", columns).rename(tmp_path / "a:b.root")
    assert len(read_jets(path)) == 12


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_all_columns_survive_the_zoos_own_file(columns, tmp_path, compression):
    table = read_jets(write_parquet(tmp_path / "jets.parquet", columns))
    write_store(tmp_path / "jets.arrow", table, compression=compression)
    back = open_store(tmp_path / "jets.arrow")
    assert back.metadata == table.metadata
    assert back.particles.keys() == table.particles.keys()
    for name, values in (table.particles | table.fields).items():
        found = (back.particles | back.fields)[name]
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(found, values)


def test_damage_to_a_further_column_of_the_zoos_own_file_is_named(columns, tmp_path):
    table = read_jets(write_parquet(tmp_path / "jets.parquet", columns))
    write_store(tmp_path / "jets.arrow", table)
    content = (tmp_path / "jets.arrow").read_bytes()
    wanted = table.particles["part_dzval"].tobytes()
    assert content.count(wanted) == 1
    (tmp_path / "jets.arrow").write_bytes(content.replace(wanted, wanted[:-1] + bytes([wanted[-1] ^ 1])))
    with pytest.raises(ValueError, match=r"column 'particles.part_dzval' does not match its checksum"):
        open_store(tmp_path / "jets.arrow")
