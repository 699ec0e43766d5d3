import dataclasses

import numpy as np
import pytest

from zoo.data import loader
from zoo.data.features import feature_table
from zoo.data.loader import BatchRows, JetDataset, by_length, in_windows, shuffled


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    """Blocks, windows and sorted runs of a few jets, so that small data sets have many."""
    monkeypatch.setattr(loader, "BLOCK_JETS", 8)
    monkeypatch.setattr(loader, "WINDOW_JETS", 64)
    monkeypatch.setattr(loader, "SORTED_JETS", 100)


def epoch(order, jets: int, number: int = 0) -> np.ndarray:
    return order(number)[slice(0, jets)]


@pytest.mark.parametrize("jets", [1, 7, 8, 9, 63, 64, 65, 1000, 1024])
def test_windows_hold_each_jet_once(jets):
    order = in_windows(jets, seed=3)
    for number in (0, 1):
        assert sorted(epoch(order, jets, number).tolist()) == list(range(jets))


def test_windows_are_a_function_of_seed_and_epoch():
    one, again, other = in_windows(1000, seed=1), in_windows(1000, seed=1), in_windows(1000, seed=2)
    np.testing.assert_array_equal(epoch(one, 1000, 5), epoch(again, 1000, 5))
    assert (epoch(one, 1000, 5) != epoch(other, 1000, 5)).mean() > 0.9
    assert (epoch(one, 1000, 5) != epoch(one, 1000, 6)).mean() > 0.9
    assert (epoch(one, 1000, 0)[:64] != epoch(one, 1000, 0)[64:128]).all()


def test_pieces_of_an_epoch_join_without_a_seam():
    order = in_windows(1000, seed=1)
    whole = epoch(order, 1000)
    pieces = np.concatenate([order(0)[start : start + 30] for start in range(0, 1000, 30)])
    np.testing.assert_array_equal(pieces, whole)


def test_every_jet_meets_every_place():
    """Over many epochs the first place is taken by jets of all parts of the data set, the short last block included."""
    order = in_windows(100, seed=1)
    first = np.array([order(number)[0:1][0] for number in range(3000)])
    counts = np.bincount(first, minlength=100)
    assert counts.min() > 0
    assert ((counts - 30) ** 2 / 30).sum() < 148.2  # exceeded once in a thousand with 99 degrees of freedom


def test_a_window_touches_few_places():
    rows = in_windows(100_000, seed=1)(0)[0:64]
    assert len(np.unique(rows // 8)) <= 2 * 64 / 8
    assert np.ptp(rows) > 10_000


@pytest.mark.parametrize("ranks", [1, 3])
def test_processes_share_windows_in_equal_steps(ranks):
    shards = [
        list(BatchRows(in_windows(1001, seed=3), 1001, 10, num_replicas=ranks, rank=rank)) for rank in range(ranks)
    ]
    assert len({len(shard) for shard in shards}) == 1
    assert sorted(np.concatenate([rows for shard in shards for rows in shard])) == list(range(1001))


def test_pieces_are_those_of_array_split():
    for jets, batch_size, ranks in ((103, 10, 1), (103, 10, 3), (5, 2, 5)):
        rows = BatchRows(shuffled(jets, seed=1), jets, batch_size, num_replicas=ranks)
        expected = np.array_split(shuffled(jets, seed=1)(0), rows.steps * ranks)
        for rank in range(ranks):
            rows.rank = rank
            for found, piece in zip(rows, expected[rank::ranks], strict=True):
                np.testing.assert_array_equal(found, piece)


def test_only_large_mixed_tables_are_shuffled_in_windows(make_table, monkeypatch):
    monkeypatch.setattr(loader, "WINDOW_SHUFFLE_JETS", 199)
    plain = make_table(100)
    mixed = dataclasses.replace(plain, metadata={**plain.metadata, "shuffled": True})

    def is_global(tables: list, jets: int) -> bool:
        order = JetDataset(tables, [0] * len(tables), feature_table("kin")).shuffled(1)
        return np.array_equal(epoch(order, jets), epoch(shuffled(jets, 1), jets))

    assert is_global([mixed], 100)
    assert is_global([plain, mixed], 200)
    assert not is_global([mixed, mixed], 200)


def test_lengths_are_sorted_piece_by_piece():
    counts = np.random.default_rng(0).integers(1, 50, 250)
    rows = epoch(by_length(counts), 250)
    assert sorted(rows.tolist()) == list(range(250))
    for start in (0, 100, 200):
        piece = rows[start : start + 100]
        assert (np.diff(counts[piece]) >= 0).all()
        assert set(piece // 100) == {start // 100}
