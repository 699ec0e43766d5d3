import numpy as np
import pytest

from tests.data.writers import hls4ml_arrays, write_arrays
from zoo.data.read_report import RejectedJetsWarning
from zoo.data.readers import read_jets
from zoo.data.source import open_source


@pytest.fixture
def arrays() -> dict:
    """Five jets, one of each class, padded to 8 particles; jet ``j`` has 1 + j of them."""
    return hls4ml_arrays(5)


@pytest.fixture
def write(tmp_path):
    """Function that writes arrays as the public files have them."""

    return lambda arrays: write_arrays(tmp_path / "jetImage_0.h5", arrays)


def test_every_number_is_read(arrays, write):
    path = write(arrays)
    table = read_jets(path)
    assert table.counts.tolist() == [1, 2, 3, 4, 5]
    assert table.label.tolist() == [0, 1, 2, 3, 4]
    assert table.metadata == {"dataset": "hls4ml", "classes": ["g", "q", "w", "z", "t"], "units": "GeV"}
    real = arrays["jetConstituentList"][arrays["jetConstituentList"][..., 3] > 0]
    for i, name in enumerate(("part_px", "part_py", "part_pz", "part_energy")):
        np.testing.assert_array_equal(table.particles[name], real[:, i].astype(np.float32))
    for i, name in enumerate(("j_pt", "j_eta", "j_mass"), 1):
        np.testing.assert_array_equal(table.fields[name], arrays["jets"][:, i].astype(np.float32))
    assert len(open_source(path)) == 5


def test_columns_are_found_by_name(arrays, write):
    expected = read_jets(write(arrays))
    order = np.random.default_rng(0).permutation(16)
    arrays["jetConstituentList"] = arrays["jetConstituentList"][..., order]
    arrays["particleFeatureNames"] = arrays["particleFeatureNames"][order]
    arrays["jets"], arrays["jetFeatureNames"] = arrays["jets"][:, ::-1], arrays["jetFeatureNames"][::-1]
    found = read_jets(write(arrays))
    np.testing.assert_array_equal(found.particles["part_pz"], expected.particles["part_pz"])
    assert found.label.tolist() == expected.label.tolist()


@pytest.mark.parametrize("rows", [(1, 4), (4, 5)])
def test_row_ranges_and_chunks(arrays, write, monkeypatch, rows):
    path = write(arrays)
    whole = read_jets(path).slice(*rows)
    monkeypatch.setattr("zoo.data.source.CHUNK_JETS", 2)
    part = read_jets(path, rows)
    np.testing.assert_array_equal(part.particles["part_px"], whole.particles["part_px"])
    assert part.source_rows.tolist() == list(range(*rows))


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [(0, np.nan, "not finite"), (3, -1, "negative energy"), (0, 1e4, "momentum above energy")],
)
def test_bad_jets_are_counted(arrays, write, column, value, reason):
    arrays["jetConstituentList"][2, 1, column] = value
    with pytest.warns(RejectedJetsWarning, match=f"left out 1 of 5 jets: 1 {reason}"):
        assert read_jets(write(arrays)).source_rows.tolist() == [0, 1, 3, 4]


def test_a_jet_without_particles(arrays, write):
    arrays["jetConstituentList"][0] = 0
    with pytest.warns(RejectedJetsWarning, match="1 no particles"):
        assert len(read_jets(write(arrays))) == 4


def renamed(names, old, new):
    return np.array([new if name.decode() == old else name.decode() for name in names], dtype="S")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("jets"), "data set 'jets' with 2 axes is missing"),
        (lambda a: a.pop("particleFeatureNames"), "data set 'particleFeatureNames' with 1 axes is missing"),
        (
            lambda a: a.update(jetConstituentList=np.zeros((5, 8))),
            "data set 'jetConstituentList' with 3 axes is missing",
        ),
        (
            lambda a: a.update(particleFeatureNames=renamed(a["particleFeatureNames"], "j1_py", "j1_Py")),
            r"column 'jetConstituentList/j1_py' is missing; did you mean 'jetConstituentList/j1_Py'\?",
        ),
        (
            lambda a: a.update(jetFeatureNames=renamed(a["jetFeatureNames"], "j_t", "top")),
            "column 'jets/j_t' is missing",
        ),
        (lambda a: a.update(particleFeatureNames=np.arange(16)), "'particleFeatureNames' must hold names, not int64"),
        (
            lambda a: a.update(particleFeatureNames=a["particleFeatureNames"][:5]),
            "'particleFeatureNames' has 5 names for 16 columns of 'jetConstituentList'",
        ),
        (lambda a: a.update(jets=a["jets"][:4]), "data set '/jets' has 4 rows, '/jetConstituentList' has 5"),
        (lambda a: a.update(jets=a["jets"] * 0), "row 0 has the labels none; exactly one of 'jets/j_g' to 'jets/j_t'"),
        (
            lambda a: a.update(jetConstituentList=np.ones((5, 151, 16))),
            "row 0 has 151 particles, hls4ml has at most 150; keep the leading ones",
        ),
        (
            lambda a: a.update(jetConstituentList=a["jetConstituentList"].astype(int)),
            "must hold lists of floating-point numbers, not lists of int64",
        ),
    ],
)
def test_wrong_files(arrays, write, change, message):
    change(arrays)
    with pytest.raises(ValueError, match=f"jetImage_0.h5: .*{message}"):
        read_jets(write(arrays))


@pytest.mark.parametrize("fraction", [0.2, 0.6, 0.95])
def test_truncated_file(arrays, write, fraction):
    path = write(arrays)
    path.write_bytes(path.read_bytes()[: int(fraction * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"jetImage_0.h5 cannot be read: .*; it is truncated or damaged"):
        read_jets(path)
