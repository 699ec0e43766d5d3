"""Targets: fields of the files and what momenta make, in the order of their jets, in every loader."""

import dataclasses

import numpy as np
import pytest
import torch

from zoo.data import JetDataModule
from zoo.data.datamodule import Split
from zoo.data.datasets import resolve_file
from zoo.data.store import open_store, write_store


@pytest.fixture(scope="module")
def table():
    return open_store(resolve_file("sample:top_tagging/test")).slice(0, 60)


def write(path, table, **fields) -> str:
    write_store(path, dataclasses.replace(table, fields=table.fields | fields, source_rows=None))
    return str(path)


def batches(files: list[str], split: str = "train", **options):
    data = JetDataModule(**{split: Split(files)}, batch_size=7, eval_batch_size=7, **options)
    data.setup({"train": "fit", "predict": "predict"}[split])
    return list(data.train_dataloader() if split == "train" else data.predict_dataloader())


@pytest.mark.parametrize("num_workers", [0, 1])
def test_targets_belong_to_their_jets(tmp_path, table, num_workers):
    """The mass against a sum in plain Python; the field against the row that it was written in."""
    row = np.arange(len(table), dtype=np.int64)
    file = write(tmp_path / "a.arrow", table, region=row * 3)
    found = batches([file], targets=["jet_mass", "region"], num_workers=num_workers)
    index = torch.cat([batch.index for batch in found])
    assert sorted(index.tolist()) == row.tolist()
    assert torch.cat([batch.targets["region"] for batch in found]).tolist() == (3 * index).tolist()
    masses = torch.cat([batch.targets["jet_mass"] for batch in found])
    assert masses.dtype == torch.float32
    for jet, mass in zip(index.tolist(), masses.tolist(), strict=True):
        low, high = table.offsets[jet : jet + 2]
        energy, *momentum = (
            float(np.sum(table.particles[name][low:high], dtype=np.longdouble))
            for name in ("part_energy", "part_px", "part_py", "part_pz")
        )
        assert mass == pytest.approx((energy**2 - sum(p**2 for p in momentum)) ** 0.5, rel=1e-5)


def test_a_field_of_the_file_comes_before_what_momenta_make(tmp_path, table):
    true = np.full(len(table), 7.5, dtype=np.float32)
    (batch, *_) = batches([write(tmp_path / "a.arrow", table, jet_mass=true)], targets=["jet_mass"])
    assert batch.targets["jet_mass"].eq(7.5).all()


def test_without_targets_nothing_is_carried(tmp_path, table):
    file = write(tmp_path / "a.arrow", table)
    assert all(batch.targets == {} for batch in batches([file]))
    assert all(batch.targets == {} for batch in batches([file], split="predict", targets=["absent"])), "none to predict"


def test_augmentation_turns_a_target_with_its_jet(tmp_path, table):
    """An azimuth turns, a mass stays. Control: without the augmentation the azimuth is that of the file."""
    file = write(tmp_path / "a.arrow", table)
    plain, turned = (
        {int(i): values for batch in batches([file], targets=["jet_phi", "jet_mass"], augmentation=kinds)
         for i, values in zip(batch.index, torch.stack(list(batch.targets.values()), 1), strict=True)}
        for kinds in (None, ["rotation"])
    )  # fmt: skip
    change = torch.stack([turned[i] - plain[i] for i in plain])
    assert change[:, 0].abs().median() > 0.5
    torch.testing.assert_close(change[:, 1], torch.zeros(len(table)), atol=0.02, rtol=0)


def test_what_is_no_target_is_refused(tmp_path, table):
    one, other = write(tmp_path / "a.arrow", table, truth=np.ones(len(table))), write(tmp_path / "b.arrow", table)
    with pytest.raises(ValueError, match=r"a\.arrow: data\.targets: has no field 'jet_mas'; did you mean 'jet_mass'"):
        batches([one], targets=["jet_mas"])
    with pytest.raises(ValueError, match=r"b\.arrow: data\.targets: has no field 'truth'"):
        batches([one, other], targets=["truth"])
    with pytest.raises(ValueError, match="'jet_pt' is a field of some files and not of others"):
        batches([write(tmp_path / "c.arrow", table, jet_pt=np.ones(len(table))), other], targets=["jet_pt"])


def test_some_jets_of_a_batch_are_taken_whole(tmp_path, table):
    (batch, *_) = batches([write(tmp_path / "a.arrow", table)], targets=["jet_pt"])
    half = batch.take(batch.index % 2 == 0)
    assert len(half.mask) == len(half.targets["jet_pt"]) == int((batch.index % 2 == 0).sum())
    assert half.targets["jet_pt"][0] == batch.targets["jet_pt"][batch.index.tolist().index(int(half.index[0]))]
