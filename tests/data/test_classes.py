"""Merged classes: labels, weights, and what is refused."""

import numpy as np
import pytest
import torch

from tests.data.writers import LINES
from zoo.data.classes import merge_classes
from zoo.data.datamodule import JetDataModule, Split
from zoo.data.datasets import describe_dataset

PROCESSES = describe_dataset("four_tops").classes
MERGE = {"background": ["ttH", "ttW", "ttWW", "ttZ"], "signal": ["tttt"]}


@pytest.fixture
def events(tmp_path):
    """Two of ttH, ttW and ttZ each, one of ttWW and of tttt."""
    lines = [*LINES, LINES[0], LINES[2], LINES[3], LINES[3].replace("ttW", "ttWW")]
    (tmp_path / "events.csv").write_text("\n".join(lines) + "\n")
    return Split([str(tmp_path / "events.csv")])


def batch_of(**options):
    data = JetDataModule(dataset="four_tops", features="events", **options)
    data.setup("fit")
    (batch,) = data.train_dataloader()
    return data, batch


def test_classes_are_merged_and_the_source_stays_known(events):
    data, batch = batch_of(train=events, merge=MERGE)
    assert data.classes == ("background", "signal")
    names = [data.merged_classes.sources[source] for source in batch.source]
    of_row = [line.split(";")[1] for line in LINES] + ["ttH", "ttZ", "ttW", "ttWW"]
    assert names == [of_row[row] for row in batch.index]
    assert batch.label.tolist() == [int(name == "tttt") for name in names]
    assert batch.label.dtype == torch.int64


def test_the_order_of_the_new_classes_is_that_of_the_option(events):
    _, batch = batch_of(train=events, merge={"signal": ["tttt"], "other": ["ttWW", "ttW", "ttZ"], "Higgs": ["ttH"]})
    expected = {"tttt": 0, "ttWW": 1, "ttW": 1, "ttZ": 1, "ttH": 2}
    assert batch.label.tolist() == [expected[PROCESSES[source]] for source in batch.source]


def test_without_the_option_label_and_source_are_the_same(events):
    data, batch = batch_of(train=events)
    assert data.classes == PROCESSES
    assert not data.merged_classes.is_merged
    assert torch.equal(batch.label, batch.source)


def test_weights_are_those_of_the_new_classes(events):
    given = {"train": events, "merge": MERGE, "normalise_weights": False}
    _, plain = batch_of(**given)
    _, weighted = batch_of(**given, class_weights=[2.0, 3.0])
    torch.testing.assert_close(weighted.weight, plain.weight * (2.0 + weighted.label))
    _, balanced = batch_of(**given, class_weights="balanced")
    sums = [balanced.weight[balanced.label == label].sum().item() for label in (0, 1)]
    assert sums == pytest.approx([plain.weight.sum().item() / 2] * 2)
    factor = (balanced.weight / plain.weight)[balanced.label == 0]
    np.testing.assert_allclose(factor, factor[0])
    with pytest.raises(ValueError, match=r"class_weights: .* for each of \('background', 'signal'\)"):
        JetDataModule(dataset="four_tops", merge=MERGE, class_weights=[1.0] * 5)


def test_an_absent_process_is_warned_of_by_its_own_name(events):
    with pytest.warns(UserWarning, match="train: no jet is of class 'ttWW'"):
        batch_of(train=Split(events.files, rows=(0, 7)), merge=MERGE)


@pytest.mark.parametrize(
    ("merge", "message"),
    [
        (MERGE | {"signal": ["ttt"]}, "merge.signal: there is no class 'ttt' in the data; did you mean 'tttt'"),
        (MERGE | {"background": ["ttH", "ttW", "ttZ"]}, "merge: 'ttWW' of the data is in no class; put it into one"),
        (MERGE | {"signal": ["tttt", "ttH"]}, "merge: 'ttH' of the data is in two places; leave it in one"),
        (MERGE | {"signal": ["tttt", "tttt"]}, "merge: 'tttt' of the data is in two places"),
        (MERGE | {"nothing": []}, "merge.nothing: is made of no class; name at least one of ttH, ttW, ttWW, ttZ, tttt"),
        ({"all": list(PROCESSES)}, r"merge: must give at least two classes, not \['all'\]"),
    ],
)
def test_a_wrong_merge_is_refused(merge, message):
    with pytest.raises(ValueError, match=message):
        merge_classes(merge, PROCESSES)
