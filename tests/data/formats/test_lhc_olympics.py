import h5py
import numpy as np
import pandas as pd
import pytest

from tests.data.writers import lhc_olympics_rows
from zoo.data.read_report import RejectedJetsWarning
from zoo.data.readers import read_jets
from zoo.data.source import open_source


@pytest.fixture
def rows() -> np.ndarray:
    """Five events, padded to 7 particles; event ``j`` has 1 + j of them; the label is last."""
    return lhc_olympics_rows(5)


@pytest.fixture
def write(tmp_path):
    """Function that writes rows as pandas wrote the public files."""

    def write(rows, **options):
        pd.DataFrame(rows).to_hdf(tmp_path / "events.h5", key="df", mode="w", **options)
        return tmp_path / "events.h5"

    return write


@pytest.mark.parametrize("options", [{}, {"complib": "blosc", "complevel": 5}])
def test_every_number_is_read(rows, write, options):
    path = write(rows, **options)
    table = read_jets(path)
    assert table.counts.tolist() == [1, 2, 3, 4, 5]
    assert table.label.tolist() == [0, 1, 0, 0, 1]
    assert table.metadata == {"dataset": "lhc_olympics", "classes": ["background", "signal"], "units": "GeV"}
    particles = rows[:, :21].reshape(-1, 3)
    pt, eta, phi = particles[particles[:, 0] > 0].T
    energy, px, py, pz = (
        table.particles[name].astype(float) for name in ("part_energy", "part_px", "part_py", "part_pz")
    )
    np.testing.assert_allclose(np.hypot(px, py), pt, rtol=1e-6)
    np.testing.assert_allclose(np.arctanh(pz / energy), eta, atol=1e-5)
    np.testing.assert_allclose(np.arctan2(py, px), np.arctan2(np.sin(phi), np.cos(phi)), atol=1e-6)
    assert len(open_source(path)) == 5


def test_labels_of_another_type_than_the_momenta(rows, write):
    """pandas keeps columns of one type together, so the label is in a block of its own."""
    frame = pd.DataFrame(rows.astype(np.float32)).astype({21: np.int64, 3: np.float64})
    expected, found = read_jets(write(rows)), read_jets(write(frame))
    np.testing.assert_allclose(found.particles["part_pz"], expected.particles["part_pz"], rtol=1e-5)
    assert found.label.tolist() == expected.label.tolist()


@pytest.mark.parametrize("span", [(1, 4), (4, 5)])
def test_row_ranges_and_chunks(rows, write, monkeypatch, span):
    path = write(rows)
    whole = read_jets(path).slice(*span)
    monkeypatch.setattr("zoo.data.source.CHUNK_JETS", 2)
    part = read_jets(path, span)
    np.testing.assert_array_equal(part.particles["part_px"], whole.particles["part_px"])
    assert part.source_rows.tolist() == list(range(*span))


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        ((2, 0), np.nan, "not finite"),
        ((2, 1), np.inf, "not finite"),
        ((2, 0), -4, "negative energy"),
        ((2, slice(0, 21)), 0, "no particles"),
    ],
)
def test_bad_events_are_counted(rows, write, place, value, reason):
    rows[place] = value
    with pytest.warns(RejectedJetsWarning, match=f"left out 1 of 5 jets: 1 {reason}"):
        assert read_jets(write(rows)).source_rows.tolist() == [0, 1, 3, 4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:, :21], "rows of 21 numbers have no label, which is last; the labels of a black box"),
        (lambda rows: rows[:, 2:], "rows must be at most 700 x .* not 20 numbers"),
        (lambda rows: np.zeros((2, 2104)), "rows must be at most 700 x .* not 2104 numbers"),
        (lambda rows: rows + np.eye(5, 22, 17), "column 'label' must be 0 to 1, not 2 as in row 4"),
        (lambda rows: rows * 0.5, "the label of row 1 is 0.5; correct it"),
        (lambda rows: pd.DataFrame(rows)[[1, 0, *range(2, 22)]].rename(columns={0: 99}), "are not 0, 1, 2, ...; fetch"),
    ],
)
def test_wrong_rows(rows, write, change, message):
    with pytest.raises(ValueError, match=f"events.h5: .*{message}"):
        read_jets(write(change(rows)))


def test_columns_in_another_order_are_found_by_their_numbers(rows, write):
    found = read_jets(write(pd.DataFrame(rows)[[1, 0, *range(2, 22)]]))
    np.testing.assert_array_equal(found.particles["part_px"], read_jets(write(rows)).particles["part_px"])


@pytest.mark.filterwarnings("ignore::pandas.errors.PerformanceWarning")
def test_pickles_are_never_read(rows, write):
    frame = pd.DataFrame(rows).astype({21: object})
    frame[21] = [{"label": 0}] * 5
    with pytest.raises(ValueError, match=r"events.h5: .*_values' holds .* objects are pickled and never read"):
        read_jets(write(frame))


def test_a_block_that_is_missing(rows, write):
    path = write(rows)
    with h5py.File(path, "r+") as file:
        del file["df/block0_values"]
    with pytest.raises(ValueError, match=r"events.h5: block 0 of the frame '/df' is incomplete; fetch it again"):
        read_jets(path)


@pytest.mark.parametrize("fraction", [0.2, 0.9])
def test_truncated_file(rows, write, fraction):
    path = write(rows)
    path.write_bytes(path.read_bytes()[: int(fraction * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"events.h5 cannot be read: .*; it is truncated or damaged"):
        read_jets(path)
