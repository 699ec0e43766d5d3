"""Rotated and reflected events: what they become, by hand; and that seed, epoch and row alone determine it."""

import dataclasses
import math

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from scipy.stats import kstest

from zoo.data.augment import Augmentation, uniform
from zoo.data.batch import JetBatch, collate, gather
from zoo.data.context import ContextFeature, ContextTable, context_table
from zoo.data.datamodule import JetDataModule, Split
from zoo.data.datasets import resolve_file
from zoo.data.features import feature_table
from zoo.data.loader import BatchRows, JetDataset
from zoo.data.packed import PackedJets
from zoo.data.readers import read_jets
from zoo.data.store import MOMENTUM_COLUMNS, JetTable
from zoo.data.turning import ColumnChanges

EVENTS, BATCH = 200, 24
FILE = "sample:four_tops/train"


def load(epochs: int = 1, **options) -> list[JetBatch]:
    """The batches of some epochs, as Lightning asks for them."""
    data = JetDataModule(
        dataset="four_tops",
        train=Split([FILE], rows=(0, EVENTS)),
        **{"features": "events", "context": "met", "batch_size": BATCH, **options},
    )
    data.setup("fit")
    loader = data.train_dataloader()
    batches = []
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        batches += list(loader)
    return batches


def by_row(batches: list[JetBatch], name: str = "features") -> dict[int, torch.Tensor]:
    """Features, momenta or context of each event, without padding."""
    found = {}
    for batch in batches:
        for number, row in enumerate(batch.index.tolist()):
            values = getattr(batch, name)[number]
            found[row] = values if name == "context" else values[batch.mask[number]]
    return found


def difference(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Of two azimuths, from -pi to pi."""
    return torch.remainder(one - other + math.pi, 2 * math.pi) - math.pi


@pytest.mark.parametrize("kinds", [["rotation"], ["reflection"], ["rotation", "reflection"]])
def test_an_event_is_turned_as_a_whole(kinds):
    """The missing momentum tells the angle; the objects, features and momenta alike, must have turned by the same."""
    plain, turned = load(), load(augmentation=kinds)
    signs, angles = [], []
    met, turned_met = (by_row(batches, "context") for batches in (plain, turned))
    momenta, turned_momenta = (by_row(batches, "four_momenta") for batches in (plain, turned))
    features, turned_features = by_row(plain), by_row(turned)
    is_fixed = torch.tensor([name != "part_phi" for name in feature_table("events").names])
    for row, old in features.items():
        new = turned_features[row]
        torch.testing.assert_close(new[:, is_fixed], old[:, is_fixed], atol=1e-5, rtol=0)
        phi, turned_phi = old[:, 3] / 0.467, new[:, 3] / 0.467
        by_sign = {}
        for sign in (1, -1):
            angle = difference(turned_met[row][1] / 0.467, sign * met[row][1] / 0.467)
            by_sign[sign] = difference(turned_phi, sign * phi + angle).abs().max().item(), angle.item()
        sign = min(by_sign, key=by_sign.get)
        signs.append(sign)
        angles.append(by_sign[sign][1])
        assert by_sign[sign][0] < 1e-5
        assert by_sign[-sign][0] > 0.01
        assert turned_met[row][0] == met[row][0]
        energy, px, py, pz = momenta[row].double().T
        py = sign * py
        cos, sin = math.cos(angles[-1]), math.sin(angles[-1])
        expected = torch.stack([energy, cos * px - sin * py, sin * px + cos * py, pz], dim=1)
        np.testing.assert_allclose(turned_momenta[row], expected, rtol=0, atol=2e-6 * energy.max().item())
    assert len(signs) == EVENTS
    share = np.mean(np.array(signs) < 0)
    assert abs(share - 0.5) < 0.15 if "reflection" in kinds else share == 0
    if "rotation" in kinds:
        assert kstest(np.array(angles) / (2 * math.pi) + 0.5, "uniform").pvalue > 0.01
    else:
        np.testing.assert_allclose(angles, 0, atol=1e-5)


def test_what_does_not_depend_on_the_azimuth_stays():
    options = {"features": "kin", "context": None}
    plain, turned = by_row(load(**options)), by_row(load(**options, augmentation=["rotation"]))
    for row, values in plain.items():
        torch.testing.assert_close(turned[row], values, atol=2e-4, rtol=0)
    mirrored = by_row(load(**options, augmentation=["reflection"]))
    signs = {row: values[:, 6].dot(plain[row][:, 6]).sign().item() for row, values in mirrored.items()}
    assert set(signs.values()) == {1, -1}
    for row, sign in signs.items():
        expected = plain[row].clone()
        expected[:, 6] *= sign  # dphi
        torch.testing.assert_close(mirrored[row], expected, atol=2e-4, rtol=0)


def test_off_by_default_and_in_evaluation():
    table = read_jets(resolve_file(FILE), rows=(0, EVENTS))
    features, context = feature_table("events"), context_table("met")
    expected = collate(gather(table, np.arange(EVENTS), features.columns, context.fields), features, context)
    plain = by_row(load(), "four_momenta")
    for row in range(EVENTS):
        assert torch.equal(plain[row], expected.four_momenta[row, expected.mask[row]])
    split = {"train": Split([FILE], rows=(0, 100)), "val": Split([FILE], rows=(100, EVENTS))}
    data = JetDataModule("four_tops", "events", **split, context="met", augmentation=["rotation"])
    data.setup("fit")
    for row, momenta in by_row(list(data.val_dataloader()), "four_momenta").items():
        assert torch.equal(momenta, plain[row])


def test_seed_epoch_and_row_alone_determine_it(tmp_path):
    both = {"augmentation": ["rotation", "reflection"]}
    expected = by_row(load(**both), "four_momenta")

    def assert_same(found: dict[int, torch.Tensor]) -> None:
        assert all(torch.equal(found[row], expected[row]) for row in expected)

    assert_same(by_row(load(**both, batch_size=7, num_workers=2), "four_momenta"))
    dataset = JetDataset(
        [read_jets(resolve_file(FILE), rows=(0, 90)), read_jets(resolve_file(FILE), rows=(90, EVENTS))],
        [0, 0],
        feature_table("events"),
        augmentation=Augmentation(("rotation", "reflection"), 1),
    )
    shards = [
        BatchRows(dataset.shuffled(1), EVENTS, BATCH, num_replicas=2, rank=rank, completed=lambda: 2) for rank in (0, 1)
    ]
    rest = by_row([dataset[rows] for shard in shards for rows in shard], "four_momenta")
    assert 0 < len(rest) < EVENTS
    assert all(torch.equal(values, expected[row]) for row, values in rest.items())
    others = [load(**both, seed=2), load(epochs=2, **both)[math.ceil(EVENTS / BATCH) :]]
    for other in others:
        found = by_row(other, "four_momenta")
        assert len(found) == EVENTS
        assert not any(torch.equal(found[row], expected[row]) for row in expected)


def table_of_events(rng: np.random.Generator, **names: str) -> JetTable:
    """Events whose every column follows from momenta and vertices, so that it can be recomputed."""
    counts = np.array([3, 1, 4, 2, 5])
    offsets = np.concatenate([[0], np.cumsum(counts)])
    px, py, pz = rng.normal(size=(3, offsets[-1])) * 50
    particles = {"part_px": px, "part_py": py, "part_pz": pz, "part_energy": np.sqrt(px**2 + py**2 + pz**2)}
    vx, vy = rng.normal(size=(2, offsets[-1]))
    met = -np.add.reduceat(np.stack([px, py]), offsets[:-1], axis=1)
    columns = {
        "phi": np.arctan2(py, px),
        "vx": vx,
        "vy": vy,
        "d0": signed_impact(vx, vy, px, py),
        "charge": np.sign(vx),
    }
    fields = {"met_x": met[0], "met_y": met[1], "met": np.hypot(*met), "met_phi": np.arctan2(met[1], met[0])}
    particles |= {names.get(name, name): values for name, values in columns.items()}
    return JetTable(
        {name: values.astype(np.float32) for name, values in particles.items()},
        offsets.astype(np.int64),
        {names.get(name, name): values.astype(np.float32) for name, values in fields.items()},
        np.zeros(5, dtype=np.int64),
        np.ones(5, dtype=np.float32),
        {},
    )


def signed_impact(vx, vy, px, py):
    """Of a track in the plane across the beam, by its angular momentum: it changes its sign in a mirror."""
    return (vx * py - vy * px) / np.hypot(px, py)


def transformed(table: JetTable, kinds: list[str], changes: ColumnChanges | None = None) -> PackedJets:
    """All events of a table with all their columns, augmented."""
    columns = [name for name in table.particles if name not in MOMENTUM_COLUMNS]
    augmentation = Augmentation(tuple(kinds), 3, changes or ColumnChanges()).of([table], columns, list(table.fields))
    return augmentation.transform(gather(table, np.arange(len(table)), columns, list(table.fields)), 0)


#: Names by which files have the same columns, and what has to be said of those that tell nothing.
NAMES = [
    ({}, None),
    (
        {
            "met_x": "MET_px",
            "met_y": "MET_py",
            "met_phi": "MissingET_Phi",
            "d0": "trk_dxy",
            "phi": "PFCand_phi",
            "vx": "part_vx",
            "vy": "part_vy",
        },
        None,
    ),
    (
        {"met_x": "one", "met_y": "other", "met_phi": "direction", "d0": "ip", "phi": "angle", "met": "size"},
        ColumnChanges(["direction", "angle"], [["one", "other"]], ["ip"], ["size"]),
    ),
]


@pytest.mark.parametrize(("names", "changes"), NAMES)
@pytest.mark.parametrize("kinds", [["rotation"], ["reflection"], ["rotation", "reflection"]])
def test_every_column_turns_with_the_momenta(kinds, names, changes):
    """What the columns become is what the turned momenta and vertices give, whatever they are called."""
    table = table_of_events(np.random.default_rng(1), **names)
    before, after = table.particles, transformed(table, kinds, changes)
    of_event = np.repeat(np.arange(5), after.counts)
    _, px, py, _ = after.four_momenta.T.astype(np.float64)
    assert (np.abs(px - before["part_px"]) > 1e-3).any() or "rotation" not in kinds
    columns = {known: after.columns[names.get(known, known)] for known in ("phi", "vx", "vy", "d0", "charge")}
    fields = {known: after.fields[names.get(known, known)] for known in ("met_x", "met_y", "met", "met_phi")}
    assert (np.abs(columns["d0"] - before[names.get("d0", "d0")]) > 1e-3).any() == ("reflection" in kinds)
    met = -np.stack([np.bincount(of_event, values, 5) for values in (px, py)])
    for found, expected in (
        (fields["met_x"], met[0]),
        (fields["met_y"], met[1]),
        (fields["met"], np.hypot(*met)),
        (np.exp(1j * fields["met_phi"]), np.exp(1j * np.arctan2(met[1], met[0]))),
        (np.exp(1j * columns["phi"]), np.exp(1j * np.arctan2(py, px))),
        (columns["d0"], signed_impact(columns["vx"], columns["vy"], px, py)),
        (columns["charge"], before[names.get("charge", "charge")]),
        (
            np.hypot(columns["vx"], columns["vy"]),
            np.hypot(before[names.get("vx", "vx")], before[names.get("vy", "vy")]),
        ),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_component_takes_the_other_along():
    """A context of met_x alone: met_y is read for its sake, and the length stays."""
    table = table_of_events(np.random.default_rng(1))
    context = ContextTable((ContextFeature("x", "met_x"),))
    options = {"augmentation": Augmentation(("rotation",), 3)}
    plain, turned = (JetDataset([table], [0], feature_table("kin"), context, **given) for given in ({}, options))
    x, turned_x = plain[np.arange(5)].context[:, 0], turned[np.arange(5)].context[:, 0]
    assert (turned_x - x).abs().min() > 1e-3
    angle = 2 * math.pi * uniform((3, 0, 1), np.arange(5))
    expected = np.cos(angle) * table.fields["met_x"] - np.sin(angle) * table.fields["met_y"]
    np.testing.assert_allclose(turned_x, expected, rtol=1e-5)


def test_azimuths_keep_their_range_and_no_angles_stay():
    table = table_of_events(np.random.default_rng(1))
    table.particles["phi"][:] = np.remainder(table.particles["phi"], 2 * math.pi)
    table.fields["met_phi"][2] = -99.0
    found = transformed(
        dataclasses.replace(table, fields={"met_phi": np.tile(table.fields["met_phi"], 1)}), ["rotation"]
    )
    assert found.columns["phi"].min() >= 0
    assert found.columns["phi"].max() > math.pi
    assert found.fields["met_phi"][2] == -99
    assert np.abs(np.delete(found.fields["met_phi"], 2)).max() <= np.float32(math.pi)


@pytest.mark.parametrize(
    ("names", "changes", "message"),
    [
        ({"d0": "ip3"}, None, "nothing says how 'ip3' changes .*; name it in data.augmentation_columns"),
        ({"met_y": "met_eta"}, None, "'met_x' turns together with 'met_y', which the files have not"),
        ({}, ColumnChanges(mirrored=["d1"]), "no file has a column 'd1'"),
        ({"charge": "part_phi"}, None, "'part_phi' is an azimuth in radians by its name, but holds numbers such as 50"),
    ],
)
def test_what_nothing_tells_is_refused(names, changes, message):
    table = table_of_events(np.random.default_rng(1), **names)
    if "charge" in names:
        table.particles["part_phi"][:] = np.arange(50, 65)
    with pytest.raises(ValueError, match=message):
        transformed(table, ["rotation"], changes)


def test_lengths_have_no_mirror_image():
    """The dxy of a secondary vertex is a length, that of a track has a sign."""
    table = table_of_events(np.random.default_rng(1), d0="SV_dxy")
    before = np.abs(table.particles["SV_dxy"])
    table.particles["SV_dxy"][:] = before
    np.testing.assert_array_equal(transformed(table, ["reflection"]).columns["SV_dxy"], before)
    declared = ColumnChanges(mirrored=["SV_dxy"])
    assert transformed(table, ["reflection"], declared).columns["SV_dxy"].min() < 0


def test_contradicting_columns_are_refused():
    with pytest.raises(ValueError, match="augmentation_columns: 'a' is given twice"):
        ColumnChanges(azimuths=["a"], vectors=[["a", "b"]])
    with pytest.raises(ValueError, match="vectors: must be pairs of columns along x and y"):
        ColumnChanges(vectors=[["a"]])


def test_the_momentum_of_the_jet_turns_along():
    """As files of JetClass give it: features relative to the jet's own axis stay as they are."""
    table = read_jets(resolve_file(FILE), rows=(0, 5))
    fields = {"jet_pt": 9.0, "jet_eta": 0.3, "jet_phi": 3.0, "jet_energy": 20.0}
    table = dataclasses.replace(table, fields={name: np.full(5, value, np.float32) for name, value in fields.items()})
    plain, turned = (
        JetDataset([table], [0], feature_table("kin"), augmentation=given)[np.arange(5)].features
        for given in (None, Augmentation(("rotation",), 3))
    )
    torch.testing.assert_close(turned, plain, atol=2e-4, rtol=0)


def test_draws_are_uniform_and_unrelated():
    rows = np.arange(20_000)
    keys = [(1, 0, 0), (1, 0, 1), (1, 1, 0), (2, 0, 0)]
    draws = np.array([uniform(key, rows) for key in keys])
    assert all(kstest(draw, "uniform").pvalue > 0.001 for draw in draws)
    related = np.corrcoef([*draws, np.roll(draws[0], 1)])
    assert np.abs(related - np.eye(len(related))).max() < 0.03


@pytest.mark.parametrize("kinds", [["boost"], ["rotation", "rotation"]])
def test_unknown_and_doubled_kinds_are_refused(kinds):
    with pytest.raises(ValueError, match="augmentation: must hold reflection and rotation, each once at most"):
        JetDataModule(augmentation=kinds)


def test_features_made_before_it_are_refused():
    with pytest.raises(ValueError, match="augmentation: the features of a 'weaver_yaml' are made before it"):
        JetDataModule(weaver_yaml="mine.yaml", augmentation=["rotation"])


class Sums(pl.LightningModule):
    """Notes a sum over the momenta of every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen: list[tuple[int, float, float]] = []

    def training_step(self, batch, batch_idx):
        self.seen.append((self.current_epoch, batch.four_momenta[..., 1].sum().item(), batch.context.sum().item()))
        return self.layer(torch.ones(1, 1)).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*LeafSpec", "ignore:.*smaller than the")
@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint")
def test_a_fit_resumed_inside_an_epoch_sees_the_same_events(tmp_path):
    def fit(*callbacks, checkpoint=None) -> Sums:
        data = JetDataModule(
            dataset="four_tops",
            features="events",
            context="met",
            augmentation=["rotation", "reflection"],
            train=Split([FILE], rows=(0, EVENTS)),
            batch_size=BATCH,
        )
        model = Sums()
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        keep = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
        trainer = pl.Trainer(
            max_epochs=2, accelerator="cpu", callbacks=list(callbacks), enable_checkpointing=keep, **quiet
        )
        trainer.fit(model, data, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
        return model

    whole = fit().seen
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(ModelCheckpoint(tmp_path, every_n_train_steps=13), StopAt(15))
    rest = fit(checkpoint=next(tmp_path.iterdir())).seen
    assert rest == whole[13:]
    assert len(set(whole)) == len(whole) == 2 * math.ceil(EVENTS / BATCH)
