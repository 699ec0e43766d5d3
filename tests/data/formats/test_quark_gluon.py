import os
import zipfile

import numpy as np
import pytest

from tests.data.writers import quark_gluon_arrays
from zoo.data.batch import collate, gather
from zoo.data.datasets import describe_dataset
from zoo.data.features import feature_table
from zoo.data.read_report import RejectedJetsWarning
from zoo.data.readers import read_jets
from zoo.data.source import open_source

KINDS = ("ChargedHadron", "NeutralHadron", "Photon", "Electron", "Muon")


@pytest.fixture
def arrays() -> dict:
    """Three jets with 4, 2 and 1 particles as EnergyFlow publishes them."""
    return quark_gluon_arrays()


@pytest.fixture(params=[np.savez, np.savez_compressed])
def write(request, tmp_path):
    """Function that writes arrays as an archive, plain or compressed."""

    def write(arrays):
        request.param(tmp_path / "QG_jets.npz", **arrays)
        return tmp_path / "QG_jets.npz"

    return write


def test_every_number_is_read(arrays, write):
    table = read_jets(write(arrays))
    assert table.counts.tolist() == [4, 2, 1]
    assert table.label.tolist() == [1, 0, 1]
    assert table.metadata == {"dataset": "quark_gluon", "classes": ["gluon", "quark"], "units": "GeV"}
    pt, rapidity, phi, _ = arrays["X"][arrays["X"][..., 0] > 0].T
    energy, px, py, pz = (
        table.particles[name].astype(float) for name in ("part_energy", "part_px", "part_py", "part_pz")
    )
    np.testing.assert_allclose(np.hypot(px, py), pt, rtol=1e-6)
    np.testing.assert_allclose(np.cos(phi) * px + np.sin(phi) * py, pt, rtol=1e-6)
    np.testing.assert_allclose(0.5 * np.log((energy + pz) / (energy - pz)), rapidity, rtol=1e-4)
    np.testing.assert_allclose(energy**2, px**2 + py**2 + pz**2, rtol=1e-6)


def test_charges_and_kinds_are_those_of_the_numbers(arrays, write):
    table = read_jets(write(arrays))
    assert table.particles["part_charge"].tolist() == [1, 0, 1, 0, -1, -1, 0]
    found = [[kind for kind in KINDS if table.particles[f"part_is{kind}"][i]] for i in range(7)]
    expected = ["ChargedHadron", "Photon", "Electron", "NeutralHadron", "ChargedHadron", "Muon", "NeutralHadron"]
    assert found == [[kind] for kind in expected]
    features = feature_table("kinpid")
    batch = collate(gather(table, np.arange(3), features.columns), features)
    assert np.isfinite(batch.features.numpy()).all()


def test_numbers_and_masses_give_the_types_that_lorentznet_tells_apart(arrays, write):
    """A pi+, a photon, a positron and a long-lived kaon; an antiproton and a muon; an antineutron."""
    table = read_jets(write(arrays))
    assert table.particles["part_pdg_id"].tolist() == [211, 22, -11, 130, -2212, 13, -2112]
    np.testing.assert_allclose(
        table.particles["part_mass"], [0.13957, 0, 0.00051, 0.49761, 0.93827, 0.10566, 0.93957], atol=1e-5
    )
    features = feature_table("quark_gluon_types")
    batch = collate(gather(table, np.arange(3), features.columns), features)
    types = [batch.features[batch.mask][:, column].nonzero().flatten().tolist() for column in range(8)]
    assert types == [[2], [5], [1], [3], [0], [], [6], [4]]


@pytest.mark.parametrize("rows", [(0, 3), (1, 3), (2, 3), (0, 1)])
def test_row_ranges_and_chunks(arrays, write, monkeypatch, rows):
    path = write(arrays)
    whole = read_jets(path).slice(*rows)
    monkeypatch.setattr("zoo.data.source.CHUNK_JETS", 1)
    part = read_jets(path, rows)
    for name, values in whole.particles.items():
        np.testing.assert_array_equal(part.particles[name], values)
    assert part.label.tolist() == whole.label.tolist()
    assert part.source_rows.tolist() == list(range(*rows))
    assert len(open_source(path)) == 3


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        ((0, 1, 0), np.nan, "not finite"),
        ((0, 1, 1), np.inf, "not finite"),
        ((0, 1, 0), -5, "negative energy"),
        ((0, slice(None), slice(None)), 0, "no particles"),
    ],
)
def test_bad_jets_are_counted(arrays, write, place, value, reason):
    arrays["X"][place] = value
    with pytest.warns(RejectedJetsWarning, match=f"QG_jets.npz: left out 1 of 3 jets: 1 {reason}"):
        assert read_jets(write(arrays)).source_rows.tolist() == [1, 2]


def test_a_kind_that_is_not_known(arrays, write):
    arrays["X"][1, 1, 3] = 17
    with pytest.raises(ValueError, match=r"QG_jets.npz: array 'X' has a particle of the pdg id 17 in row 1, which is"):
        read_jets(write(arrays))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": np.zeros((3, 5, 3))}, r"must be \(jets, particles, 4\) and \(jets,\), not \(3, 5, 3\) and \(3,\)"),
        ({"y": np.zeros(4)}, r"not \(3, 5, 4\) and \(4,\)"),
        ({"X": np.zeros((3, 5, 4), dtype="U3")}, "array 'X' must hold numbers in C order, not <U3"),
        ({"X": np.asfortranarray(np.ones((3, 5, 4)))}, "array 'X' must hold numbers in C order"),
        ({"y": np.array([0, 1, 2])}, "column 'y' must be 0 to 1, not 2 as in row 2"),
        ({"y": np.array([0, 0.5, 1])}, "'y' of row 1 is 0.5"),
        ({"X": np.zeros((0, 5, 4)), "y": np.zeros(0)}, "holds no row"),
    ],
)
def test_wrong_arrays(arrays, write, change, message):
    with pytest.raises(ValueError, match=f"QG_jets.npz: .*{message}"):
        read_jets(write({**arrays, **change}))


def test_an_array_that_is_not_there(arrays, write):
    with pytest.raises(ValueError, match=r"QG_jets.npz: array 'y' is missing, found X.npy, Y.npy; is it"):
        read_jets(write({"X": arrays["X"], "Y": arrays["y"]}))


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.95])
def test_truncated_file(arrays, write, fraction):
    path = write(arrays)
    path.write_bytes(path.read_bytes()[: int(fraction * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"QG_jets.npz cannot be read: .*; it is truncated or damaged"):
        read_jets(path)


def test_flipped_bits_are_found(arrays, write):
    arrays["X"] = np.tile(arrays["X"], (500, 1, 1))
    arrays["y"] = np.tile(arrays["y"], 500)
    path = write(arrays)
    content = bytearray(path.read_bytes())
    for place in np.linspace(0.1, 0.9, 9):
        damaged = content.copy()
        damaged[int(place * len(content))] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"QG_jets.npz cannot be read: .*; it is truncated or damaged"):
            read_jets(path)


class _Payload:
    """Unpickling it makes a folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_pickles_are_never_read(arrays, write, tmp_path):
    trap = tmp_path / "trap"
    arrays["X"] = np.array([_Payload(str(trap))] * 3, dtype=object)
    path = write(arrays)
    with pytest.raises(ValueError, match=r"array 'X' must hold numbers .* objects are pickled and never read"):
        read_jets(path)
    assert not trap.exists()
    np.load(path, allow_pickle=True)["X"]
    assert trap.exists()


@pytest.mark.parametrize(("old", "new"), [(b"(1500, 5, 4)", b"(1500, 4, 4)"), (b"<f8", b"<f4")])
def test_a_header_of_fewer_numbers(arrays, write, old, new):
    """What is left of the member would never be read, nor its checksum compared."""
    path = write({"X": np.tile(arrays["X"], (500, 1, 1)), "y": np.tile(arrays["y"], 500)})
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    assert members["X.npy"].count(old) == 1
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content.replace(old, new) if name == "X.npy" else content)
    with pytest.raises(ValueError, match=r"column 'X' cannot be read: 240000 bytes instead of \d+ for the shape"):
        read_jets(path)


def test_a_header_of_another_version(arrays, write):
    path = write(arrays)
    with zipfile.ZipFile(path) as archive:
        members = {name: bytearray(archive.read(name)) for name in archive.namelist()}
    members["X.npy"][6] = 9
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match=r"column 'X' cannot be read: "):
        read_jets(path)


def test_facts():
    facts = describe_dataset("quark_gluon")
    assert "3164691" in facts.source
    assert len({file.name for file in facts.files}) == 20
    assert all(len(file.md5) == 32 for file in facts.files)
