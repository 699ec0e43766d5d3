import numpy as np
import pytest
import torch

from zoo.data.batch import collate, gather
from zoo.data.features import feature_table
from zoo.data.loader import BatchRows, JetDataset, by_length, shuffled


def test_a_batch_holds_the_jets_asked_for(make_table):
    table = make_table(50)
    rows = np.array([7, 3, 3, 49])
    batch = collate(gather(table, rows), feature_table("kin"))
    assert batch.index.tolist() == [7, 3, 3, 49]
    assert batch.label.tolist() == table.label[rows].tolist()
    assert batch.weight.tolist() == [8, 4, 4, 50]
    for jet, row in enumerate(rows):
        particles = slice(table.offsets[row], table.offsets[row + 1])
        for i, name in enumerate(("part_energy", "part_px", "part_py", "part_pz")):
            np.testing.assert_array_equal(batch.four_momenta[jet, batch.mask[jet], i], table.particles[name][particles])


def test_padding_goes_to_the_longest_jet_of_the_batch_and_is_zero(make_table):
    table = make_table(50)
    batch = collate(gather(table, np.arange(5)), feature_table("kin"))
    assert batch.mask.shape == (5, table.counts[:5].max())
    assert batch.mask.sum(dim=1).tolist() == table.counts[:5].tolist()
    assert (batch.features[~batch.mask] == 0).all()
    assert (batch.four_momenta[~batch.mask] == 0).all()


def test_features_do_not_depend_on_the_other_jets(make_table):
    table, features = make_table(50), feature_table("kin")
    together = collate(gather(table, np.arange(50)), features)
    for row in (0, 17, 49):
        alone = collate(gather(table, np.array([row])), features)
        torch.testing.assert_close(together.features[row][together.mask[row]], alone.features[0], rtol=0, atol=1e-7)


def test_types_and_layout_are_those_of_the_interface(make_table):
    batch = collate(gather(make_table(5), np.arange(5)), feature_table("kin"))
    types = (
        torch.float32,
        torch.float32,
        torch.bool,
        torch.int64,
        torch.float32,
        torch.int64,
        torch.float32,
        torch.int64,
    )
    *tensors, targets = batch
    assert tuple(tensor.dtype for tensor in tensors) == types
    assert all(tensor.is_contiguous() for tensor in tensors)
    assert targets == {}


def test_several_tables_are_one_data_set(make_table):
    one, two = make_table(20, seed=1), make_table(30, seed=2)
    dataset = JetDataset([one, two.slice(10, 30)], [0, 100], feature_table("kin"))
    assert len(dataset) == 40
    batch = dataset[np.array([39, 5, 20])]
    expected = {5: one.label[5], 110: two.label[10], 129: two.label[29]}
    assert dict(zip(batch.index.tolist(), batch.label.tolist(), strict=True)) == expected
    weight = dict(zip(batch.index.tolist(), batch.weight.tolist(), strict=True))
    assert weight == {5: 6.0, 110: 11.0, 129: 30.0}


@pytest.mark.parametrize(
    ("jets", "batch_size", "ranks"), [(60_550, 32, 4), (100, 7, 1), (33, 32, 1), (9, 1, 4), (5, 2, 5)]
)
def test_each_jet_once_an_epoch_in_equal_steps(jets, batch_size, ranks):
    shards = [
        list(BatchRows(shuffled(jets, seed=3), jets, batch_size, num_replicas=ranks, rank=rank))
        for rank in range(ranks)
    ]
    assert len({len(shard) for shard in shards}) == 1
    sizes = [len(rows) for shard in shards for rows in shard]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1
    assert max(sizes) <= batch_size or jets % ranks
    assert sorted(np.concatenate([rows for shard in shards for rows in shard])) == list(range(jets))


def test_fewer_jets_than_processes():
    with pytest.raises(ValueError, match="3 jets cannot be shared by 4 processes"):
        BatchRows(shuffled(3, seed=1), 3, 32, num_replicas=4)


def test_order_is_a_function_of_seed_and_epoch():
    order = shuffled(1000, seed=5)
    np.testing.assert_array_equal(order(3), shuffled(1000, seed=5)(3))
    assert sorted(order(3)) == list(range(1000))
    assert (order(3) != order(4)).mean() > 0.9
    assert (order(3) != shuffled(1000, seed=6)(3)).mean() > 0.9


def test_the_shuffle_is_global():
    """Labels come in blocks, so rows that lie together must not stay together."""
    order = shuffled(10_000, seed=1)(0)
    assert abs(np.corrcoef(order, np.arange(10_000))[0, 1]) < 0.05
    assert np.mean(np.abs(np.diff(order)) < 10) < 0.01


def test_a_sampler_starts_where_the_epoch_stands():
    whole = BatchRows(shuffled(100, seed=1), 100, 8)
    rest = BatchRows(shuffled(100, seed=1), 100, 8, completed=lambda: 5)
    for sampler in (whole, rest):
        sampler.set_epoch(2)
    for expected, rows in zip(list(whole)[5:], rest, strict=True):
        np.testing.assert_array_equal(rows, expected)
    assert len(whole) == len(rest) == 13


def test_jets_of_like_length_are_evaluated_together():
    counts = np.random.default_rng(0).integers(1, 100, 1000)
    batches = [counts[rows] for rows in BatchRows(by_length(counts), 1000, 50)]
    assert np.mean([batch.max() - batch.mean() for batch in batches]) < 5
