import dataclasses
import itertools
import json
import multiprocessing as mp
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import jsonargparse
import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from zoo.data import JetDataModule
from zoo.data.batch import collate, gather
from zoo.data.datamodule import Split
from zoo.data.datasets import JET_COLUMNS, describe_dataset
from zoo.data.features import feature_table
from zoo.data.loader import JetDataset
from zoo.data.store import JetTable, open_store, write_store

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
    pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero"),
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork"),
]

JETS, BATCH = 100, 8


@pytest.fixture
def jets_file(make_table, tmp_path):
    path = tmp_path / "jets.arrow"
    write_store(path, make_table(JETS))
    return str(path)


@pytest.fixture
def make_datamodule(jets_file):
    def make(**options) -> JetDataModule:
        splits = {"train": Split([jets_file], rows=(0, 60)), "val": Split([jets_file], rows=(60, 80))}
        splits["test"] = Split([jets_file], fraction=(0.8, 1.0))
        return JetDataModule(**{**splits, "batch_size": BATCH, "eval_batch_size": 7, **options})

    return make


class Linear(pl.LightningModule):
    """Weighs summed features, and notes which jets it saw in which epoch; dropout shows a shift of random numbers."""

    def __init__(self, ask_for_steps: bool = False) -> None:
        super().__init__()
        self.ask_for_steps = ask_for_steps
        self.head = torch.nn.Sequential(torch.nn.Dropout(0.2), torch.nn.Linear(7, 2))
        self.seen: list[tuple[int, list[int]]] = []

    def training_step(self, batch, batch_idx):
        self.seen.append((self.current_epoch, batch.index.tolist()))
        logits = self.head(batch.features.sum(dim=1))
        return torch.nn.functional.cross_entropy(logits, batch.label)

    def validation_step(self, batch, batch_idx):
        pass

    def test_step(self, batch, batch_idx):
        self.seen.append((-1, batch.index.tolist()))

    def predict_step(self, batch, batch_idx):
        return batch.index

    def configure_optimizers(self):
        if self.ask_for_steps:
            assert self.trainer.estimated_stepping_batches == 24
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


class StopAfter(Callback):
    """Ends a fit in the middle of an epoch."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.steps:
            raise KeyboardInterrupt


class RandomState(Callback):
    """Keeps torch's random state in the checkpoint, so that dropout goes on where it was."""

    def state_dict(self):
        return {"random": torch.get_rng_state()}

    def load_state_dict(self, state):
        self.loaded = state["random"]

    def on_train_start(self, *_):
        if hasattr(self, "loaded"):
            torch.set_rng_state(self.loaded)


def make_trainer(folder, *callbacks, **options) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[RandomState(), *callbacks],
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        **{"max_epochs": 3, **options},
    )


def fit(folder, datamodule, *callbacks, checkpoint=None, ask_for_steps=False, **options) -> Linear:
    torch.manual_seed(1)
    model = Linear(ask_for_steps)
    trainer = make_trainer(folder, *callbacks, **options)
    trainer.fit(model, datamodule, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    return model


@pytest.mark.parametrize(
    ("workers", "ask_for_steps", "every", "stop"),
    [
        (0, False, 3, 11),
        (0, True, 3, 11),
        (2, True, 3, 11),
        (2, False, 5, 12),
        (0, False, 8, 10),  # the checkpoint falls on the end of an epoch
        (0, False, 1, 9),  # ... and on its first batch
    ],
)
def test_a_fit_killed_inside_an_epoch_goes_on_exactly(make_datamodule, tmp_path, workers, ask_for_steps, every, stop):
    options = {"ask_for_steps": ask_for_steps}
    whole = fit(tmp_path, make_datamodule(num_workers=workers), **options)
    keep = ModelCheckpoint(tmp_path / "checkpoints", every_n_train_steps=every, save_top_k=-1)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(tmp_path, make_datamodule(num_workers=workers), keep, StopAfter(stop), **options)
    last = max((tmp_path / "checkpoints").iterdir(), key=lambda path: int(path.stem.split("step=")[1]))
    done = int(last.stem.split("step=")[1])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*not resumable")
        rest = fit(tmp_path, make_datamodule(num_workers=workers), checkpoint=last, **options)
    assert 0 < done < len(whole.seen) == 24
    assert rest.seen == whole.seen[done:]
    for one, two in zip(whole.parameters(), rest.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_fit_limited_by_steps_goes_on_exactly(make_datamodule, tmp_path):
    options = {"max_steps": 20, "max_epochs": -1}
    whole = fit(tmp_path, make_datamodule(), **options)
    for every in (8, 11):
        folder = tmp_path / str(every)
        keep = ModelCheckpoint(folder, every_n_train_steps=every)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            fit(tmp_path, make_datamodule(), keep, StopAfter(every + 1), **options)
        rest = fit(tmp_path, make_datamodule(), checkpoint=next(folder.iterdir()), **options)
        assert rest.seen == whole.seen[every:]


def test_every_epoch_has_each_jet_once_in_another_order(make_datamodule, tmp_path):
    model = fit(tmp_path, make_datamodule())
    epochs = [[i for epoch, index in model.seen if epoch == e for i in index] for e in range(3)]
    assert all(sorted(epoch) == list(range(60)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert fit(tmp_path, make_datamodule(num_workers=2)).seen == model.seen
    assert fit(tmp_path, make_datamodule(seed=2)).seen != model.seen


@pytest.mark.parametrize("change", [{"batch_size": 4}, {"seed": 9}, {"train_jets": 59}])
def test_another_order_cannot_go_on_inside_an_epoch(make_datamodule, tmp_path, change):
    keep = ModelCheckpoint(tmp_path / "checkpoints", every_n_train_steps=5)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(tmp_path, make_datamodule(), keep, StopAfter(6))
    with pytest.raises(ValueError, match="the checkpoint was made inside an epoch with"):
        fit(tmp_path, make_datamodule(**change), checkpoint=next((tmp_path / "checkpoints").iterdir()))


def test_loading_leaves_the_global_random_state(make_datamodule):
    datamodule = make_datamodule(num_workers=2)
    datamodule.setup()
    before = torch.get_rng_state()
    assert sum(len(batch.label) for batch in datamodule.train_dataloader()) == 60
    assert sum(len(batch.label) for batch in datamodule.val_dataloader()) == 20
    assert torch.equal(before, torch.get_rng_state())


def test_evaluation_sees_each_jet_once(make_datamodule, tmp_path, jets_file):
    datamodule = make_datamodule(predict=Split([jets_file], rows=(10, 31)))
    model, trainer = Linear(), make_trainer(tmp_path)
    trainer.test(model, datamodule, verbose=False)
    assert sorted(i for _, index in model.seen for i in index) == list(range(80, 100))
    predicted = torch.cat(trainer.predict(model, datamodule))
    assert sorted(predicted.tolist()) == list(range(10, 31))


def test_evaluation_pads_less_than_training(shared_data):
    file = str(shared_data / "top_tagging" / "train_100k.h5")
    datamodule = JetDataModule(train=Split([file], rows=(0, 5000)), val=Split([file], rows=(60_550, 65_550)))
    datamodule.setup("fit")

    def real(loader) -> float:
        masks = [batch.mask for batch in loader]
        return sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)

    assert real(datamodule.val_dataloader()) > 0.85 > real(datamodule.train_dataloader())


@pytest.mark.slow
def test_two_processes_share_each_jet_once(jets_file, tmp_path):
    script = Path(__file__).with_name("fit_on_two_processes.py")
    subprocess.run([sys.executable, script, jets_file, tmp_path], check=True, timeout=600, capture_output=True)
    seen = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    for name, jets in (("train", range(83)), ("val", range(83, 100))):
        assert sorted(i for rank in seen for batch in rank[name] for i in batch) == list(jets)
        assert len(seen[0][name]) == len(seen[1][name])


@pytest.mark.slow
def test_figures_of_two_processes_are_those_of_one(make_table, tmp_path):
    table = make_table(208)
    sign = np.where(np.arange(208) % 5 == 0, -1, 1).astype(np.float32)  # as of generators beyond leading order
    write_store(tmp_path / "jets.arrow", dataclasses.replace(table, weight=table.weight * sign))
    script = Path(__file__).with_name("evaluate_on_processes.py")

    def run(processes: int) -> dict[str, float]:
        command = [sys.executable, script, tmp_path / "jets.arrow", str(processes)]
        shown = subprocess.run(command, check=True, timeout=600, capture_output=True, text=True).stdout
        return json.loads(shown.splitlines()[-1])

    one, two = run(1), run(2)
    # sums in another order; the jets' weights are far from equal, so gradients averaged without them would differ
    for name in ("train_loss_step", "train_loss", "val_loss", "trained_val_loss"):
        assert two.pop(name) == pytest.approx(one.pop(name), rel=1e-6)
    assert {"val_auc", "val_accuracy"} <= one.keys()
    assert two == one


@pytest.mark.parametrize(
    ("sent", "error", "message"),
    [
        (signal.SIGKILL, ChildProcessError, r"num_workers: a loader process died with status -9; .*memory"),
        (
            signal.SIGSTOP,
            TimeoutError,
            r"num_workers: .* gave no batch for 0\.5 s and were killed; .*worker_timeout",
        ),
    ],
)
def test_a_worker_that_gives_no_batch_is_an_error(make_datamodule, sent, error, message):
    datamodule = make_datamodule(num_workers=2, batch_size=1)
    datamodule.setup()
    loader = datamodule.train_dataloader()
    batches = iter(loader)
    next(batches)
    loader.worker_timeout = 0.5
    workers = mp.active_children()
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker.pid, sent)
    with pytest.raises(error, match=message):
        list(batches)
    assert not set(workers) & set(mp.active_children())


def test_index_is_the_row_of_the_file_even_if_jets_are_left_out(top_tagging_frame, write_hdf5):
    top_tagging_frame.loc[2, "PX_0"] = np.nan
    path = str(write_hdf5(top_tagging_frame))
    datamodule = JetDataModule(val=Split([path], rows=(1, 4)), test=Split([path], rows=(4, 6)), max_rejected=0.5)
    with pytest.warns(UserWarning, match="left out 1 of 3 jets"):
        datamodule.setup()
    (batch,) = datamodule.val_dataloader()
    assert sorted(batch.index.tolist()) == [1, 3]
    (batch,) = datamodule.test_dataloader()
    assert sorted(batch.index.tolist()) == [4, 5]


def test_splits_by_file_by_rows_and_by_fraction(make_table, tmp_path):
    files = [str(tmp_path / name) for name in ("one.arrow", "two.arrow")]
    write_store(files[0], make_table(10, seed=1))
    write_store(files[1], make_table(21, seed=2))

    def index(split: Split) -> list[int]:
        datamodule = JetDataModule(test=split)
        datamodule.setup("test")
        return sorted(i for batch in datamodule.test_dataloader() for i in batch.index.tolist())

    assert index(Split(files)) == list(range(31))
    assert index(Split(files[1:])) == list(range(21))
    assert index(Split(files, rows=(2, 4))) == [2, 3, 12, 13]
    parts = [index(Split(files, fraction=part)) for part in ((0.0, 0.3), (0.3, 0.9), (0.9, 1.0))]
    assert sorted(itertools.chain(*parts)) == list(range(31))
    assert [len(part) for part in parts] == [3 + 6, 6 + 12, 1 + 3]


@pytest.mark.parametrize(("option", "jets"), [({"train_fraction": 0.1}, 6), ({"train_jets": 7}, 7), ({}, 60)])
def test_training_on_the_first_jets(make_datamodule, option, jets):
    datamodule = make_datamodule(**option)
    datamodule.setup("fit")
    index = [i for batch in datamodule.train_dataloader() for i in batch.index.tolist()]
    assert sorted(index) == list(range(jets))


def test_the_tenth_of_the_real_split_has_6055_jets(shared_data):
    file = str(shared_data / "top_tagging" / "train_100k.h5")
    datamodule = JetDataModule(train=Split([file], rows=(0, 60_550)), train_fraction=0.1)
    datamodule.setup("fit")
    assert sum(len(batch.label) for batch in datamodule.train_dataloader()) == 6055


def test_class_weights_multiply_training_weights_only(make_datamodule):
    datamodule = make_datamodule(class_weights=[2.0, 3.0], normalise_weights=False)
    datamodule.setup("fit")
    for batch in datamodule.train_dataloader():
        assert torch.equal(batch.weight, (1 + batch.index) * (2.0 + batch.label))
    for batch in datamodule.val_dataloader():
        assert torch.equal(batch.weight, 1.0 + batch.index)


def test_balanced_weights_give_each_class_the_same_sum(top_tagging_frame, write_hdf5):
    top_tagging_frame["is_signal_new"] = [0, 0, 1, 0, 0, 0]
    datamodule = JetDataModule(train=Split([str(write_hdf5(top_tagging_frame))]), class_weights="balanced")
    datamodule.setup("fit")
    (batch,) = datamodule.train_dataloader()
    assert batch.weight[batch.label == 0].sum().item() == pytest.approx(3)
    assert batch.weight[batch.label == 1].sum().item() == pytest.approx(3)


def test_training_weights_are_divided_by_their_mean_absolute_value(make_datamodule):
    datamodule = make_datamodule(class_weights=[2.0, 3.0])
    datamodule.setup("fit")
    batches = list(datamodule.train_dataloader())
    weight, label, index = (torch.cat([getattr(b, name) for b in batches]) for name in ("weight", "label", "index"))
    assert weight.abs().mean().item() == pytest.approx(1, abs=1e-6)
    expected = (1 + index) * (2.0 + label)
    torch.testing.assert_close(weight, expected / expected.mean())


def with_weights(tmp_path, jets_file, weight) -> str:
    path = tmp_path / "weighted.arrow"
    write_store(path, dataclasses.replace(open_store(jets_file), weight=weight.astype(np.float32)))
    return str(path)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_class_whose_weights_cancel_is_refused_at_once(tmp_path, jets_file, split):
    weight = np.where(np.arange(100) % 2 == 0, -1.0, 1.0) * (1 + np.arange(100) % 3)
    file = with_weights(tmp_path, jets_file, np.where(open_store(jets_file).label == 1, -np.abs(weight), 1.0))
    good = Split([jets_file], rows=(0, 10))
    splits = {"train": good, "val": Split([jets_file], rows=(10, 20))} | {split: Split([file])}
    datamodule = JetDataModule(**splits)
    with pytest.raises(ValueError, match=f"{split}: the weights of class 'top' sum to -"):
        datamodule.setup("test" if split == "test" else "fit")
    file = with_weights(tmp_path, jets_file, np.zeros(100))
    with pytest.raises(ValueError, match=f"{split}: all weights are 0"):
        JetDataModule(**splits | {split: Split([file])}).setup("test" if split == "test" else "fit")


def test_a_class_without_jets(top_tagging_frame, write_hdf5):
    top_tagging_frame["is_signal_new"] = 0
    split = Split([str(write_hdf5(top_tagging_frame))])
    with pytest.warns(UserWarning, match="no jet is of class 'top'"):
        JetDataModule(train=split).setup("fit")
    with (
        pytest.warns(UserWarning, match="no jet is of class"),
        pytest.raises(ValueError, match="'balanced' needs jets of every class"),
    ):
        JetDataModule(train=split, class_weights="balanced").setup("fit")


def test_jets_of_the_training_split_cannot_be_tested(make_datamodule, jets_file):
    with pytest.raises(ValueError, match=r"train and test share rows 59 to 60 of .*jets.arrow; give"):
        make_datamodule(test=Split([jets_file], rows=(59, 100))).setup("fit")
    with pytest.raises(ValueError, match="train and test share"):
        make_datamodule(test=Split([os.path.relpath(jets_file)])).setup("test")
    with pytest.warns(UserWarning, match="train and val share rows 50 to 60"):
        make_datamodule(val=Split([jets_file], rows=(50, 80))).setup("fit")


def test_a_fit_needs_no_test_files(make_datamodule):
    make_datamodule(test=Split(["absent.arrow"])).setup("fit")
    with pytest.raises(FileNotFoundError, match=r"absent.arrow is not a file"):
        make_datamodule(test=Split(["absent.arrow"])).setup("test")


def test_a_fit_needs_no_validation(make_datamodule, tmp_path):
    assert len(fit(tmp_path, make_datamodule(val=None)).seen) == 24


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_fraction": 0.5, "train_jets": 3}, "give one of them"),
        ({"train_fraction": 0.0}, "train_fraction: must be above 0 and at most 1, not 0"),
        ({"train_fraction": 1.5}, "train_fraction"),
        ({"train_jets": 0}, "train_jets: must be at least 1, not 0"),
        ({"batch_size": 0}, "batch_size: must be at least 1, not 0"),
        ({"num_workers": -1}, "num_workers"),
        ({"class_weights": [1.0]}, r"class_weights: .* for each of \('qcd', 'top'\)"),
        ({"class_weights": [1.0, -1.0]}, "class_weights"),
        ({"class_weights": "equal"}, "class_weights"),
        ({"dataset": "top"}, "no data set is called 'top'; did you mean"),
        ({"features": "kinpids"}, "no feature table is called 'kinpids'"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        JetDataModule(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"files": []}, "at least one file"),
        ({"files": ["a", "a"]}, "none twice"),
        ({"files": ["a"], "rows": (0, 5), "fraction": (0.0, 0.5)}, "give one of them"),
        ({"files": ["a"], "rows": (5, 5)}, "rows"),
        ({"files": ["a"], "fraction": (0.5, 1.2)}, "fraction"),
    ],
)
def test_bad_splits(options, message):
    with pytest.raises(ValueError, match=message):
        Split(**options)


def test_more_jets_than_the_training_split_has(make_datamodule):
    with pytest.raises(ValueError, match="train_jets: 61 is more than the 60 rows"):
        make_datamodule(train_jets=61).setup("fit")


@pytest.mark.parametrize("stage", ["fit", "validate", "test", "predict"])
def test_a_stage_without_its_split(stage):
    with pytest.raises(ValueError, match=r"no split is given; add 'data\.(train|val|test|predict)\.files'"):
        JetDataModule().setup(stage)


def test_the_data_set_of_the_file_is_suggested(make_table, tmp_path):
    table = dataclasses.replace(make_table(10), metadata=describe_dataset("jetclass").metadata)
    write_store(tmp_path / "other.arrow", table)
    with pytest.raises(ValueError, match=r"other.arrow: classes are .* convert it, or set data.dataset to 'jetclass'"):
        JetDataModule(test=Split([str(tmp_path / "other.arrow")])).setup("test")


def test_jets_of_another_data_set_are_refused(make_table, tmp_path):
    for key, value in (("classes", ["top", "qcd"]), ("units", "MeV")):
        table = make_table(10)
        table.metadata[key] = value
        write_store(tmp_path / "other.arrow", table)
        with pytest.raises(ValueError, match=rf"other.arrow: {key} are"):
            JetDataModule(test=Split([str(tmp_path / "other.arrow")])).setup("test")
    table = make_table(10)
    table.label[4] = 2
    write_store(tmp_path / "other.arrow", table)
    with pytest.raises(ValueError, match=r"other.arrow: column 'label' must be 0 to 1"):
        JetDataModule(test=Split([str(tmp_path / "other.arrow")])).setup("test")


@pytest.fixture
def configure():
    """Function from a configuration to the datamodule, as the training script parses it."""
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(JetDataModule, "data")
    return lambda config: parser.instantiate(parser.parse_object({"data": config})).data


def test_a_configuration_gives_the_same_datamodule(configure):
    splits = {"train": {"files": ["a.h5"], "rows": [0, 10]}, "val": {"files": ["a.h5"], "fraction": [0.5, 1]}}
    merge = {"light": ["qcd"], "heavy": ["top"]}
    datamodule = configure(
        {**splits, "class_weights": [1, 2], "train_fraction": 0.1, "merge": merge, "augmentation": ["rotation"]}
    )
    assert datamodule.classes == ("light", "heavy")
    assert datamodule.augmentation.kinds == ("rotation",)
    assert datamodule.splits["train"] == Split(["a.h5"], rows=(0, 10))
    assert datamodule.splits["val"] == Split(["a.h5"], fraction=(0.5, 1.0))
    assert datamodule.class_weights == [1.0, 2.0]


@pytest.mark.parametrize(
    "config",
    [
        {"batchsize": 3},
        {"batch_size": "many"},
        {"train": {"file": ["a.h5"]}},
        {"train": {"files": ["a.h5"], "rows": [1, 2, 3]}},
        {"class_weights": "equal"},
        {"augmentation": ["boost"]},
        {"merge": {"light": "qcd"}},
    ],
)
def test_a_wrong_configuration_is_refused(configure, config):
    with pytest.raises(jsonargparse.ArgumentError):
        configure(config)


def test_facts_for_the_model_are_known_at_once():
    datamodule = JetDataModule()
    assert datamodule.classes == ("qcd", "top")
    assert datamodule.input_dim == datamodule.feature_table.input_dim == 7


def test_the_room_imports_lightning_only_when_asked():
    code = "import zoo.data.features, sys; assert not sys.modules.keys() & {'lightning', 'pyarrow', 'h5py'}"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("suffix", ["root", "parquet"])
def test_batches_of_jetclass(shared_data, suffix):
    path = str(shared_data / "jetclass2" / f"JetClassII_example.{suffix}")
    splits = {"train": Split([path], rows=(0, 60)), "test": Split([path], rows=(60, 100))}
    datamodule = JetDataModule(dataset="jetclass2", features="full", batch_size=20, **splits)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "train: no jet is of class")
        datamodule.setup("fit")
    datamodule.setup("test")
    assert (datamodule.input_dim, len(datamodule.classes)) == (17, 188)
    batches = [*datamodule.train_dataloader(), *datamodule.test_dataloader()]
    assert sorted(int(row) for batch in batches for row in batch.index) == list(range(100))
    for batch in batches:
        assert batch.features.shape == (*batch.mask.shape, 17)
        types = batch.features[batch.mask][:, 6:11]
        assert set(types.sum(dim=1).tolist()) == {1.0}


def test_features_that_a_file_cannot_give(make_datamodule):
    with pytest.raises(
        ValueError, match=r"jets.arrow: particle column 'part_charge' is missing, .* use the features kin"
    ):
        make_datamodule(features="full").setup("fit")


def test_jets_of_several_files_keep_their_columns(make_table):
    tables = [with_columns(make_table(10, seed=1)), with_columns(make_table(20, seed=2))]
    features = feature_table("full")
    batch = JetDataset(tables, [0, 100], features)[np.array([25, 3])]
    for jet, table, row in ((0, tables[0], 3), (1, tables[1], 15)):
        alone = collate(gather(table, np.array([row]), features.columns), features)
        torch.testing.assert_close(batch.features[jet, batch.mask[jet]], alone.features[0], rtol=0, atol=0)


def test_files_with_and_without_the_momenta_of_jets_do_not_mix(make_table):
    with pytest.raises(ValueError, match="some files give jet_pt, jet_eta, jet_phi, jet_energy and others do not"):
        JetDataset([make_table(10), with_columns(make_table(10))], [0, 10], feature_table("kin"))


def with_columns(table: JetTable) -> JetTable:
    """The table with random columns of the features ``full`` and momenta of jets."""
    random = np.random.default_rng(len(table))
    names = feature_table("full").columns
    columns = {name: random.normal(size=len(table.particles["part_px"])).astype(np.float32) for name in names}
    jets = {name: random.uniform(1, 2, len(table)).astype(np.float32) for name in JET_COLUMNS}
    return dataclasses.replace(table, particles=table.particles | columns, fields=jets)
