import numpy as np
import pytest

from tests.data.writers import jetnet_arrays, write_arrays
from zoo.data.batch import collate, gather
from zoo.data.features import feature_table
from zoo.data.read_report import RejectedJetsWarning
from zoo.data.readers import read_jets
from zoo.data.source import open_source


@pytest.fixture
def arrays() -> dict:
    """Four jets of 1 TeV, padded to 6 particles; jet ``j`` has 2 + j of them; what is masked is not zero."""
    return jetnet_arrays(4)


@pytest.fixture
def write(tmp_path):
    """Function that writes arrays as one of the public files."""

    return lambda arrays, name="t.hdf5": write_arrays(tmp_path / name, arrays)


def test_momenta_are_made_of_the_relative_ones(arrays, write):
    path = write(arrays)
    table = read_jets(path)
    assert table.counts.tolist() == [2, 3, 4, 5]
    assert table.label.tolist() == [2] * 4
    assert table.metadata == {"dataset": "jetnet", "classes": ["g", "q", "t", "w", "z"], "units": "GeV"}
    energy, px, py, pz = (
        table.particles[name].astype(float) for name in ("part_energy", "part_px", "part_py", "part_pz")
    )
    jet_pt, jet_eta, _, _ = np.repeat(arrays["jet_features"].astype(float), table.counts, axis=0).T
    etarel, phirel, ptrel, _ = arrays["particle_features"][arrays["particle_features"][..., 3] == 1].astype(float).T
    np.testing.assert_allclose(np.hypot(px, py) / jet_pt, ptrel, rtol=1e-5)
    np.testing.assert_allclose(np.arctanh(pz / energy) - jet_eta, etarel, atol=1e-5)
    np.testing.assert_allclose(np.arctan2(py, px), phirel, atol=1e-6)
    np.testing.assert_allclose(energy**2, px**2 + py**2 + pz**2, rtol=1e-6)
    pt, eta, _, _ = arrays["jet_features"].astype(float).T
    np.testing.assert_array_equal(table.fields["jet_phi"], 0)
    energy = np.sqrt((pt * np.cosh(eta)) ** 2 + arrays["jet_features"][:, 2].astype(float) ** 2)
    np.testing.assert_allclose(table.fields["jet_energy"], energy, rtol=1e-6)
    assert len(open_source(path)) == 4


def test_features_are_those_relative_to_the_jet_of_the_file(arrays, write):
    features = feature_table("kin")
    batch = collate(gather(read_jets(write(arrays)), np.arange(4), features.columns), features)
    named = dict(zip(features.names, batch.features.numpy()[batch.mask.numpy()].T, strict=True))
    real = arrays["particle_features"][arrays["particle_features"][..., 3] == 1]
    np.testing.assert_allclose(named["part_dphi"], real[:, 1], atol=1e-5)
    np.testing.assert_allclose(named["part_logptrel"] / 0.7 - 4.7, np.log(real[:, 2]), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "label"), [("g.hdf5", 0), ("q30.hdf5", 1), ("t150.hdf5", 2), ("w.h5", 3), ("z30.h5", 4)]
)
def test_the_name_of_the_file_tells_the_class(arrays, write, name, label):
    assert set(read_jets(write(arrays, name)).label.tolist()) == {label}


@pytest.mark.parametrize("name", ["gluons.hdf5", "tt.hdf5", "t31.hdf5"])
def test_a_name_that_tells_no_class(arrays, write, name):
    with pytest.raises(
        ValueError, match=rf"{name}: the name of the file must give its class by .* g.\*, g30.\*, g150.\*"
    ):
        read_jets(write(arrays, name))


@pytest.mark.parametrize("rows", [(1, 3), (3, 4)])
def test_row_ranges_and_chunks(arrays, write, monkeypatch, rows):
    path = write(arrays)
    whole = read_jets(path).slice(*rows)
    monkeypatch.setattr("zoo.data.source.CHUNK_JETS", 1)
    part = read_jets(path, rows)
    np.testing.assert_array_equal(part.particles["part_pz"], whole.particles["part_pz"])
    np.testing.assert_array_equal(part.fields["jet_pt"], whole.fields["jet_pt"])
    assert part.source_rows.tolist() == list(range(*rows))


@pytest.mark.parametrize(
    ("array", "place", "value", "reason"),
    [
        ("particle_features", (1, 0, 0), np.nan, "not finite"),
        ("particle_features", (1, 0, 2), -0.1, "negative energy"),
        ("particle_features", (1, slice(None), 3), 0, "no particles"),
        ("jet_features", (1, 1), np.inf, "not finite"),
    ],
)
def test_bad_jets_are_counted(arrays, write, array, place, value, reason):
    arrays[array][place] = value
    with pytest.warns(RejectedJetsWarning, match=f"left out 1 of 4 jets: 1 {reason}"):
        assert read_jets(write(arrays)).source_rows.tolist() == [0, 2, 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"jet_features": None}, "array 'jet_features' with the columns pt, eta, mass, num_particles is missing"),
        ({"jet_features": np.zeros((4, 3))}, r"'jet_features' .* is float64 of shape \(4, 3\)"),
        ({"particle_features": np.zeros((4, 6, 3))}, r"'particle_features' .* is float64 of shape \(4, 6, 3\)"),
        ({"particle_features": np.zeros((4, 6, 4), dtype=int)}, r"'particle_features' .* is int64 of shape"),
        ({"jet_features": np.ones((5, 4))}, "data set '/jet_features' has 5 rows, '/particle_features' has 4"),
        ({"particle_features": np.ones((4, 151, 4))}, "row 0 has 151 particles, jetnet has at most 150"),
    ],
)
def test_wrong_arrays(arrays, write, change, message):
    arrays = {name: values for name, values in {**arrays, **change}.items() if values is not None}
    with pytest.raises(ValueError, match=f"t.hdf5: .*{message}"):
        read_jets(write(arrays))
