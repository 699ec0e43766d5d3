"""Context features: values by hand, what is refused, and the way through conversion, loaders and workers."""

import json
import math

import numpy as np
import pytest
import torch

from tests.data.writers import LINES
from zoo.cli import main
from zoo.data.batch import collate, gather
from zoo.data.context import NO_CONTEXT, ContextTable, context_table
from zoo.data.convert import convert
from zoo.data.datamodule import JetDataModule, Split
from zoo.data.features import feature_table
from zoo.data.features_yaml import read_context
from zoo.data.loader import BatchRows, JetDataset, shuffled
from zoo.data.readers import read_jets

MINE = """
context:
  - {name: met_x, formula: met * cos(met_phi), scale: 0.01}
  - {name: met_large, formula: "where(met > 100, 1, 0)", centre: 0.5, clip: [-0.25, 0.5]}
"""


@pytest.fixture
def events(tmp_path):
    path = tmp_path / "events.csv"
    path.write_text("\n".join(LINES) + "\n")
    return path


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine.yaml").write_text(MINE)
    return tmp_path / "mine.yaml"


def test_missing_momentum_of_the_text(events):
    """Written in MeV as 239073.7;-0.08691, 1000;3.1, 0;0 and 1e3;0."""
    table = read_jets(events)
    context = context_table("met")
    batch = collate(gather(table, np.array([1, 0, 2]), (), context.fields), feature_table("kin"), context)
    assert batch.context.dtype == torch.float32
    expected = [[(math.log(2) - 4.38) * 1.21, 3.1 * 0.467], [(math.log(240.0737) - 4.38) * 1.21, -0.08691 * 0.467]]
    np.testing.assert_allclose(batch.context[:2], expected, rtol=1e-5)
    assert batch.context[2].tolist() == [-5.0, 0.0], "no missing momentum is finite"


def test_context_of_a_user(events, mine):
    table = read_context(mine)
    assert (table.names, table.fields, table.context_dim) == (("met_x", "met_large"), ("met", "met_phi"), 2)
    assert ContextTable.from_dict(json.loads(json.dumps(table.to_dict()))) == table
    fields = {"met": torch.tensor([200.0, 50.0]), "met_phi": torch.tensor([math.pi / 3, math.pi])}
    torch.testing.assert_close(table.standardise(2, fields), torch.tensor([[1.0, 0.5], [-0.5, -0.25]]))


def test_without_a_table_the_context_has_no_width(make_table):
    batch = collate(gather(make_table(5), np.arange(5)), feature_table("kin"))
    assert batch.context.shape == (5, 0)
    assert NO_CONTEXT.context_dim == 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("met * cos", "met * cot", "mine.yaml: context feature 'met_x': .* there is no function 'cot' here"),
        ("met * cos(met_phi)", "1 + 2", "context feature 'met_x': .* name at least one"),
        ("scale: 0.01", "scale: small", "met_x.scale: must be a finite number, not 'small'"),
        ("scale: 0.01", "centre: auto", "'met_x' are yet to be fitted.*'zoo data fit-scaling FILE... --context .*mine"),
        ("scale: 0.01", "scales: 0.01", "there is no key 'scales'; did you mean 'scale'"),
        ("name: met_large", "name: met_x", "context table: a name is given twice"),
        ("context:", "features:", "there is no key 'features'; found context"),
    ],
)
def test_mistakes_in_a_context_of_a_user_are_named(tmp_path, old, new, message):
    assert old in MINE
    (tmp_path / "mine.yaml").write_text(MINE.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        read_context(tmp_path / "mine.yaml")


def test_scales_are_fitted_on_demand(events, tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "context:\n- {name: met, formula: met, centre: auto}\n- {name: x, formula: met}"
    )
    arguments = [str(events), "--context", str(tmp_path / "mine.yaml"), "--out", str(tmp_path / "scaled.yaml")]
    main(["data", "fit-scaling", *arguments])
    met, x = read_context(tmp_path / "scaled.yaml").features
    assert met.centre == pytest.approx(1.0), "the median of 0, 1, 1 and 239 GeV"
    assert met.scale == pytest.approx(1 / (np.percentile([0, 1, 1, 239.0737], 84) - 1))
    assert (x.centre, x.scale) == (0, 1)


def test_unknown_tables_and_missing_fields_are_named(events, make_table):
    with pytest.raises(ValueError, match="no context table is called 'mett'; choose one of met"):
        JetDataModule(context="mett")
    with pytest.raises(ValueError, match="field 'met' is missing, which the context needs; found none"):
        context_table("met").standardise(2)
    data = JetDataModule(context="met", test=Split(["sample:top_tagging/test"], rows=(0, 10)))
    with pytest.raises(ValueError, match=r"top_tagging_test.arrow: field 'met' is missing"):
        data.setup("test")


def contexts(batches) -> dict[int, list[float]]:
    rows = [pair for batch in batches for pair in zip(batch.index.tolist(), batch.context.tolist(), strict=True)]
    assert len(dict(rows)) == len(rows)
    return dict(rows)


def test_the_same_context_from_text_folder_workers_and_processes(shared_data, tmp_path):
    text = tmp_path / "events.csv"
    with (shared_data / "four_tops" / "events.csv").open() as file:
        text.write_text("".join(next(file) for _ in range(120)))
    met = {row: float(line.split(";")[3]) / 1000 for row, line in enumerate(text.read_text().splitlines())}
    convert([text], tmp_path / "folder", jets_per_shard=50, processes=1)
    rows_of_folder = read_jets(tmp_path / "folder").fields["source_row"].tolist()

    def load(files, workers) -> dict[int, list[float]]:
        options = {"dataset": "four_tops", "features": "events", "context": "met", "batch_size": 32}
        data = JetDataModule(**options, train=Split([str(files)]), num_workers=workers)
        data.setup("fit")
        return contexts(data.train_dataloader())

    expected = load(text, 0)
    for row, (log_met, _) in expected.items():
        assert log_met == pytest.approx((math.log1p(met[row]) - 4.38) * 1.21, rel=1e-5)
    of_folder = load(tmp_path / "folder", 2)
    assert {rows_of_folder[row]: value for row, value in of_folder.items()} == expected
    dataset = JetDataset([read_jets(text)], [0], feature_table("events"), context_table("met"))
    shards = [BatchRows(shuffled(120, seed=1), 120, 16, num_replicas=2, rank=rank) for rank in (0, 1)]
    assert contexts(dataset[rows] for shard in shards for rows in shard) == expected
