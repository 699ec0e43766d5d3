import os
import pickle
import warnings

import h5py
import hdf5plugin  # noqa: F401 - without it h5py cannot read the public file's compression
import numpy as np
import pytest

from zoo.data.read_report import RejectedJetsWarning
from zoo.data.readers import read_jets
from zoo.data.source import open_source
from zoo.data.store import write_store


def test_every_number_of_the_public_file_is_read(shared_data):
    path = shared_data / "top_tagging" / "train_100k.h5"
    table = read_jets(path, rows=(60_550, 60_850))
    with h5py.File(path) as file:
        block = file["table/table"][60_550:60_850]
    rows = block["values_block_0"][:, :800].reshape(300, 200, 4)
    np.testing.assert_array_equal(table.label, block["values_block_1"][:, 1])
    np.testing.assert_array_equal(table.source_rows, np.arange(60_550, 60_850))
    for i, name in enumerate(("part_energy", "part_px", "part_py", "part_pz")):
        np.testing.assert_array_equal(table.particles[name], rows[..., i][rows[..., 0] > 0])
    np.testing.assert_array_equal(table.counts, (rows[..., 0] > 0).sum(axis=1))


def test_facts_of_the_public_file(shared_data):
    path = shared_data / "top_tagging" / "train_100k.h5"
    table = read_jets(path)
    assert len(open_source(path)) == len(table) == 100_000
    assert table.counts.mean() == pytest.approx(49, abs=0.5)
    assert table.counts.max() <= 150
    px, py = (
        np.add.reduceat(table.particles[name].astype(float), table.offsets[:-1]) for name in ("part_px", "part_py")
    )
    assert np.mean((np.hypot(px, py) > 549) & (np.hypot(px, py) < 651)) > 0.999


def test_columns_are_found_by_name(top_tagging_frame, write_hdf5):
    shuffled = top_tagging_frame[top_tagging_frame.columns[::-1]]
    table = read_jets(write_hdf5(shuffled))
    assert table.label.tolist() == [0, 1, 0, 1, 1, 0]
    assert table.counts.tolist() == [1, 2, 3, 4, 1, 2]
    assert table.particles["part_px"][1] == top_tagging_frame["PX_0"][1]
    assert table.particles["part_pz"][2] == top_tagging_frame["PZ_1"][1]
    assert table.metadata == {"dataset": "top_tagging", "classes": ["qcd", "top"], "units": "GeV"}


def test_columns_of_a_compound_without_blocks(top_tagging_frame, tmp_path):
    with h5py.File(tmp_path / "flat.h5", "w") as file:
        file["table/table"] = top_tagging_frame.to_records(index=False)
    assert read_jets(tmp_path / "flat.h5").counts.tolist() == [1, 2, 3, 4, 1, 2]


def test_chunks_join_without_a_seam(top_tagging_frame, write_hdf5, monkeypatch):
    path = write_hdf5(top_tagging_frame)
    whole = read_jets(path)
    monkeypatch.setattr("zoo.data.source.CHUNK_JETS", 4)
    pieces = read_jets(path)
    np.testing.assert_array_equal(pieces.offsets, whole.offsets)
    np.testing.assert_array_equal(pieces.particles["part_py"], whole.particles["part_py"])
    np.testing.assert_array_equal(pieces.source_rows, whole.source_rows)


def test_the_zoos_own_file_is_read_by_its_content(make_table, tmp_path):
    write_store(tmp_path / "jets.bin", make_table(20))
    table = read_jets(tmp_path / "jets.bin", rows=(5, 9))
    assert table.weight.tolist() == [6, 7, 8, 9]
    assert table.source_rows.tolist() == [5, 6, 7, 8]
    assert len(open_source(tmp_path / "jets.bin")) == 20


def test_bad_jets_are_left_out_and_counted(top_tagging_frame, write_hdf5):
    top_tagging_frame.loc[0, "PX_0"] = np.nan
    top_tagging_frame.loc[1, "E_1"] = -3.0
    top_tagging_frame.loc[2, [name for name in top_tagging_frame if name[-2] == "_"]] = 0
    top_tagging_frame.loc[3, "E_0"] *= 0.999
    top_tagging_frame.loc[4, "PZ_0"] = -np.inf
    with pytest.warns(RejectedJetsWarning) as caught:
        table = read_jets(write_hdf5(top_tagging_frame))
    assert table.source_rows.tolist() == [5]
    assert table.counts.tolist() == [2]
    assert caught[0].message.args[0].rejected == {
        "not finite": 2,
        "negative energy": 1,
        "no particles": 1,
        "momentum above energy": 1,
    }
    assert str(caught[0].message).endswith(
        "jets.h5: left out 5 of 6 jets: 2 not finite (part_px in 1, part_pz in 1), 1 negative energy, 1 no particles, "
        "1 momentum above energy"
    )
    assert caught[0].filename == __file__


def test_a_particle_without_energy_but_with_momentum_is_bad(top_tagging_frame, write_hdf5):
    top_tagging_frame.loc[0, "PX_2"] = 1.0
    with pytest.warns(RejectedJetsWarning, match="1 momentum above energy"):
        assert read_jets(write_hdf5(top_tagging_frame)).source_rows.tolist() == [1, 2, 3, 4, 5]


def test_good_jets_give_no_warning(top_tagging_frame, write_hdf5):
    with warnings.catch_warnings():
        warnings.simplefilter("error", RejectedJetsWarning)
        read_jets(write_hdf5(top_tagging_frame))


def test_a_file_of_bad_jets_only(top_tagging_frame, write_hdf5):
    top_tagging_frame["E_0"] = np.nan
    with pytest.raises(ValueError, match=r"jets.h5.*6 not finite .part_energy in 6.; no jet is left"):
        read_jets(write_hdf5(top_tagging_frame))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"PX_2": "Px_2"}, r"jets.h5: column 'PX_2' is missing; did you mean 'Px_2'\? Rename"),
        ({"E_1": "E1"}, r"column 'E_1' is missing; did you mean 'E1'\?"),
        ({"is_signal_new": "is_signal"}, r"column 'is_signal_new' is missing; did you mean 'is_signal'\?"),
        ({"E_3": "E_200"}, "column 'E_200' is one particle too many, this data set has at most 200"),
    ],
)
def test_missing_and_misspelt_columns(top_tagging_frame, write_hdf5, changes, message):
    path = write_hdf5(top_tagging_frame.rename(columns=changes))
    with pytest.raises(ValueError, match=message):
        read_jets(path)


def test_no_column_of_momenta_at_all(top_tagging_frame, write_hdf5):
    path = write_hdf5(top_tagging_frame[["truthE", "ttv", "is_signal_new"]])
    with pytest.raises(ValueError, match="column 'E_0' is missing"):
        read_jets(path)


@pytest.mark.parametrize(
    ("column", "dtype", "message"),
    [
        ("PY_1", "int64", "column 'PY_1' must hold floating-point numbers, not int64"),
        ("E_0", "str", "column 'E_0' must hold floating-point numbers"),
        ("is_signal_new", "float32", "column 'is_signal_new' must hold integers, not float32"),
    ],
)
def test_wrong_types(top_tagging_frame, write_hdf5, column, dtype, message):
    path = write_hdf5(top_tagging_frame.astype({column: dtype}))
    with pytest.raises(ValueError, match=f"jets.h5: {message}"):
        read_jets(path)


def test_float64_momenta_are_rounded_once(top_tagging_frame, write_hdf5):
    momenta = [name for name in top_tagging_frame if name[-2] == "_"]
    table = read_jets(write_hdf5(top_tagging_frame.astype(dict.fromkeys(momenta, "float64"))))
    assert table.particles["part_px"].dtype == np.float32
    assert table.particles["part_px"][0] == top_tagging_frame["PX_0"][0]


@pytest.mark.parametrize("label", [2, -1])
def test_wrong_label(top_tagging_frame, write_hdf5, label):
    top_tagging_frame.loc[3, "is_signal_new"] = label
    with pytest.raises(ValueError, match=f"jets.h5: column 'is_signal_new' must be 0 to 1, not {label} as in row 3"):
        read_jets(write_hdf5(top_tagging_frame))


@pytest.mark.parametrize("rows", [(0, 7), (3, 3), (-1, 2)])
def test_rows_outside_the_file(top_tagging_frame, write_hdf5, rows):
    with pytest.raises(ValueError, match=r"jets.h5: rows .* are not within its 6 rows"):
        read_jets(write_hdf5(top_tagging_frame), rows=rows)


@pytest.mark.parametrize("fraction", [0.0, 0.05, 0.5, 0.95])
def test_truncated_file(top_tagging_frame, write_hdf5, fraction):
    path = write_hdf5(top_tagging_frame)
    path.write_bytes(path.read_bytes()[: int(fraction * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"jets.h5"):
        read_jets(path)


def test_other_files_are_refused(top_tagging_frame, tmp_path):
    (tmp_path / "jets.csv").write_text("E_0,PX_0\n1,1\n")
    with pytest.raises(
        ValueError, match=r"jets.csv starts with b'E_0,.*, which is none of the known formats \(jets of the zoo.*layout"
    ):
        read_jets(tmp_path / "jets.csv")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["jets"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"other.h5 is an HDF5 file with jets, which is none of the known formats"):
        read_jets(tmp_path / "other.h5")
    with pytest.raises(FileNotFoundError):
        read_jets(tmp_path / "absent.h5")


class _Payload:
    """Unpickling it makes a folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickled_attribute_is_never_run(top_tagging_frame, write_hdf5, tmp_path, protocol):
    path, trap = write_hdf5(top_tagging_frame), tmp_path / "trap"
    hostile = pickle.dumps(["E_0", _Payload(str(trap))], protocol=protocol)
    with h5py.File(path, "r+") as file:
        file["table/table"].attrs["values_block_0_kind"] = np.bytes_(hostile)
        file["table"].attrs["non_index_axes"] = np.bytes_(hostile)
    with pytest.raises(ValueError, match=r"jets.h5: attribute 'values_block_0_kind' is no plain list .* do not trust"):
        read_jets(path)
    assert not trap.exists()
    pickle.loads(hostile)
    assert trap.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_column_names_of_any_pickle_protocol(top_tagging_frame, write_hdf5, protocol):
    path = write_hdf5(top_tagging_frame)
    with h5py.File(path, "r+") as file:
        attributes = file["table/table"].attrs
        names = pickle.loads(attributes["values_block_0_kind"])
        attributes["values_block_0_kind"] = np.bytes_(pickle.dumps(names, protocol=protocol))
    assert read_jets(path).counts.tolist() == [1, 2, 3, 4, 1, 2]


def test_column_names_are_required(top_tagging_frame, write_hdf5):
    path = write_hdf5(top_tagging_frame)
    with h5py.File(path, "r+") as file:
        del file["table/table"].attrs["values_block_0_kind"]
    with pytest.raises(ValueError, match="attribute 'values_block_0_kind' with the column names is missing"):
        read_jets(path)
    with h5py.File(path, "r+") as file:
        file["table/table"].attrs["values_block_0_kind"] = np.bytes_(pickle.dumps(["E_0"], protocol=0))
    with pytest.raises(ValueError, match="names 1 columns of"):
        read_jets(path)
