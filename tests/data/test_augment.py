"""Rotated and reflected events: what they become, by hand; and that seed, epoch and row alone determine it."""

import math

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from scipy.stats import kstest

from zoo.data.augment import Augmentation, uniform
from zoo.data.batch import JetBatch, PackedJets, collate, gather
from zoo.data.context import context_table
from zoo.data.datamodule import JetDataModule, Split
from zoo.data.datasets import resolve_file
from zoo.data.features import feature_table
from zoo.data.loader import BatchRows, JetDataset
from zoo.data.readers import read_jets

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


def test_other_angles_of_an_event_turn_along():
    values = np.array([0.5, -3.0, 1.0], dtype=np.float32)
    jets = PackedJets(
        four_momenta=np.ones((3, 4), dtype=np.float32),
        counts=np.array([2, 1]),
        label=np.zeros(2, dtype=np.int64),
        weight=np.ones(2, dtype=np.float32),
        index=np.array([5, 6]),
        columns={"part_phi": values, "part_d0val": values, "part_eta": values, "jet_phi": values[:2]},
        fields={"met_phi": values[:2], "met": values[:2]},
    )
    turned = Augmentation(("rotation", "reflection"), 3).transform(jets, 0)
    sign = np.where(uniform((3, 0, 0), jets.index) < 0.5, -1, 1)
    angle = 2 * math.pi * uniform((3, 0, 1), jets.index)
    of_particle = np.array([0, 0, 1])
    np.testing.assert_array_equal(turned.columns["part_d0val"], sign[of_particle] * values)
    np.testing.assert_array_equal(turned.columns["part_eta"], values)
    np.testing.assert_array_equal(turned.fields["met"], values[:2])
    for found, old, s, a in (
        (turned.columns["part_phi"], values, sign[of_particle], angle[of_particle]),
        (turned.columns["jet_phi"], values[:2], sign, angle),
        (turned.fields["met_phi"], values[:2], sign, angle),
    ):
        assert (np.abs(found) <= math.pi).all()
        np.testing.assert_allclose(np.exp(1j * found), np.exp(1j * (s * old + a)), atol=1e-6)


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
