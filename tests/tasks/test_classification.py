"""Loss, optimiser, learning rate, averaged weights and what the steps hand on."""

import copy
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from sklearn.metrics import log_loss, roc_auc_score

from zoo import create_model
from zoo.data import JetDataModule
from zoo.data.batch import JetBatch
from zoo.data.datamodule import Split
from zoo.lorentznet import LorentzNet
from zoo.tasks.classification import Classification
from zoo.tasks.task import warmup_cosine
from zoo.training import callbacks
from zoo.training.callbacks import MinuteLog, WeightAverage


def small_model() -> LorentzNet:
    return LorentzNet(num_classes=2, embed_dim=8, num_layers=2)


def jets(**options) -> JetDataModule:
    return JetDataModule(
        train=Split(["sample:top_tagging/train"], rows=(0, 64)),
        val=Split(["sample:top_tagging/val"], rows=(0, 80)),
        test=Split(["sample:top_tagging/test"], rows=(20, 100)),
        predict=Split(["sample:top_tagging/test"], rows=(20, 100)),
        batch_size=16,
        eval_batch_size=32,
        **options,
    )


def quiet_trainer(**options) -> Trainer:
    settings = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(
        **settings,
        accelerator="cpu",
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        **options,
    )


@pytest.fixture
def batch() -> JetBatch:
    data = jets()
    data.setup("fit")
    return next(iter(data.train_dataloader()))


class EachStep(Callback):
    """Notes learning rate, loss and weights of every step."""

    def __init__(self) -> None:
        self.rates, self.weights = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.weights.append({name: value.numpy(force=True).copy() for name, value in pl_module.state_dict().items()})


def loss_of(tagger: Classification, batch: JetBatch) -> float:
    with torch.no_grad():
        tagger.validation_step(batch, 0)
    loss = tagger.val_loss.compute().item()
    tagger.val_loss.reset()
    return loss


def test_loss_is_the_weighted_cross_entropy(batch):
    weight = torch.linspace(0.1, 3.0, len(batch.label))
    tagger = Classification(small_model()).eval()
    with torch.no_grad():
        probability = tagger(batch.features, batch.four_momenta, batch.mask).double().softmax(-1)[:, 1]
    expected = log_loss(batch.label, probability, sample_weight=weight, labels=[0, 1])
    assert loss_of(tagger, batch._replace(weight=weight)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("weight", [[1.0, -1.0, -1.0], [1.0, -1.0, 0.001], [1.0, -0.5, -0.5]])
def test_gradient_is_linear_in_the_weights_of_either_sign(batch, weight):
    """No batch is turned around or blown up by the sum of its weights, which may be 0."""
    tagger = Classification(small_model()).eval()
    parameters = list(tagger.parameters())

    def gradients(loss: torch.Tensor) -> torch.Tensor:
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])

    three = batch.take(slice(3))
    each = [
        gradients(torch.nn.functional.cross_entropy(tagger(one.features, one.four_momenta, one.mask), one.label))
        for one in (three.take(slice(i, i + 1)) for i in range(3))
    ]
    expected = sum(w * g for w, g in zip(weight, each, strict=True)) / 3
    loss, counted = tagger.loss(three._replace(weight=torch.tensor(weight)), 0)
    torch.testing.assert_close(gradients(loss), expected, rtol=1e-4, atol=1e-6)
    assert counted == 3


def test_validation_loss_of_signed_weights(batch):
    tagger = Classification(small_model()).eval()
    weight = torch.where(torch.arange(len(batch.label)) % 3 == 0, -0.5, 2.0)
    halves = [batch._replace(weight=weight).take(half) for half in (slice(0, 5), slice(5, None))]
    with torch.no_grad():
        logits = tagger(batch.features, batch.four_momenta, batch.mask).double()
        for half in halves:
            tagger.validation_step(half, 0)
    losses = torch.nn.functional.cross_entropy(logits, batch.label, reduction="none")
    assert tagger.val_loss.compute().item() == pytest.approx(
        ((weight * losses).sum() / weight.abs().sum()).item(), rel=1e-5
    )


class Witness(torch.nn.Module):
    """Notes what it is called with."""

    def __init__(self, context_dim: int | None) -> None:
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(2))
        if context_dim is not None:
            self.context_dim = context_dim

    def forward(self, *inputs):
        self.inputs = inputs
        return self.bias.expand(len(inputs[0]), -1)


@pytest.mark.parametrize("context_dim", [None, 0, 2])
def test_only_models_that_take_a_context_are_given_it(batch, context_dim):
    tagger = Classification(Witness(context_dim)).eval()
    batch = batch._replace(context=torch.randn(len(batch.label), 2))
    expected = [batch.features, batch.four_momenta, batch.mask, *([batch.context] if context_dim else [])]
    for step in (tagger.validation_step, tagger.test_step, tagger.predict_step):
        step(batch, 0)
        assert all(one is other for one, other in zip(tagger.model.inputs, expected, strict=True))


def test_another_number_of_logits_is_refused(batch):
    """Before the first step; three of two classes give a loss, and no metric until the epoch is over."""
    tagger = Classification(LorentzNet(num_classes=3, embed_dim=8, num_layers=1))
    with pytest.raises(ValueError, match=r"LorentzNet gives logits \(16, 3\) for 16 jets of 2 classes"):
        tagger.loss(batch, 0)


def test_jets_without_weight_do_not_count(batch):
    tagger = Classification(small_model()).eval()
    counted = batch._replace(weight=(batch.label == 1).float())
    changed = counted._replace(label=torch.ones_like(batch.label))
    assert loss_of(tagger, counted) == loss_of(tagger, changed)
    assert loss_of(tagger, batch) != loss_of(tagger, batch._replace(label=torch.ones_like(batch.label)))


def test_only_matrices_decay():
    tagger = Classification(small_model(), weight_decay=0.05)
    tagger.trainer = quiet_trainer(max_epochs=2)
    tagger.trainer.fit(tagger, datamodule=jets())
    decay = {
        id(parameter): group["weight_decay"]
        for group in tagger.trainer.optimizers[0].param_groups
        for parameter in group["params"]
    }
    kinds = set()
    for name, module in tagger.named_modules():
        for kind, parameter in module.named_parameters(recurse=False):
            is_matrix = isinstance(module, torch.nn.Linear) and kind == "weight"
            assert decay[id(parameter)] == (0.05 if is_matrix else 0.0), f"{name}.{kind}"
            kinds.add((type(module).__name__, kind))
    assert {("Linear", "weight"), ("Linear", "bias")} <= kinds
    assert len(decay) == len(list(tagger.parameters()))


def test_learning_rate_rises_and_falls_over_exactly_the_steps():
    each = EachStep()
    tagger = Classification(small_model(), learning_rate=0.02, warmup=0.25, final_learning_rate=0.1)
    quiet_trainer(max_epochs=5, callbacks=[each]).fit(tagger, datamodule=jets())
    rates = np.array(each.rates)
    assert rates.shape == (20, 2)
    np.testing.assert_array_equal(rates[:, 0], rates[:, 1])
    rates = rates[:, 0] / 0.02
    np.testing.assert_allclose(rates[:6], np.arange(1, 7) / 6)
    assert rates[-1] == pytest.approx(0.1)
    assert (np.diff(rates[5:]) < 0).all()
    assert rates[12] == pytest.approx(0.55), "halfway down the cosine"


def test_learning_rate_counts_accumulated_steps():
    each = EachStep()
    tagger = Classification(small_model(), warmup=0.0, final_learning_rate=0.0)
    quiet_trainer(max_epochs=2, accumulate_grad_batches=2, callbacks=[each]).fit(tagger, datamodule=jets())
    assert each.rates[-1][0] == pytest.approx(0.0, abs=1e-12)
    assert len({rate for rate, _ in each.rates}) == 4


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("warmup", [0.0, 0.5, 0.99])
def test_shortest_schedules_stay_in_range(steps, warmup):
    assert all(0 <= warmup_cosine(step, steps, warmup, 0.0) <= 1 for step in range(steps + 3))


def test_averaged_weights_follow_the_formula_and_are_validated():
    seed_everything(3)
    each, average = EachStep(), WeightAverage(decay=0.5)
    tagger = Classification(small_model(), learning_rate=0.01)
    expected = {name: value.numpy().copy() for name, value in copy.deepcopy(tagger.state_dict()).items()}
    trainer = quiet_trainer(max_epochs=1, callbacks=[each, average])
    trainer.fit(tagger, datamodule=jets())
    assert len(each.weights) == 4
    for step, weights in enumerate(each.weights, start=1):
        decay = min(0.5, (1 + step) / (10 + step))
        for name, value in weights.items():
            mixed = decay * expected[name] + (1 - decay) * value
            expected[name] = mixed if np.issubdtype(value.dtype, np.floating) else value
    for name, value in tagger.state_dict().items():
        np.testing.assert_allclose(value.numpy(), expected[name], rtol=1e-4, atol=1e-6, err_msg=name)
    assert any(not np.allclose(value, each.weights[-1][name], atol=1e-6) for name, value in expected.items())

    fit_auc = trainer.callback_metrics["val_auc"].item()
    data = jets()
    quiet_trainer().validate(tagger, datamodule=data, verbose=False)
    assert fit_auc == quiet_trainer().validate(tagger, datamodule=data, verbose=False)[0]["val_auc"]


def test_a_log_file_gets_a_line_a_minute(monkeypatch, capsys):
    """Of what takes longer than a minute only; the last batch needs no line."""
    tagger, data = Classification(small_model()), jets()
    trainer = quiet_trainer(max_epochs=1, callbacks=[MinuteLog()])
    clock = iter(range(0, 10_000, 25))
    monkeypatch.setattr(callbacks, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    trainer.fit(tagger, data)
    trainer.test(tagger, data, verbose=False)
    lines = [line for line in capsys.readouterr().out.splitlines() if "jets/s" in line]
    assert re.fullmatch(r"epoch 1/1: batch 3 of 4, 1 jets/s, 1 min left, loss \d\.\d{4}", lines[0])
    assert len(lines) == 1, "three batches of a validation or test are over within a minute and a half"


def test_validation_figures_equal_sklearn_on_the_predictions():
    tagger = Classification(small_model())
    figures = quiet_trainer().test(tagger, datamodule=jets(), verbose=False)[0]
    parts = quiet_trainer().predict(tagger, datamodule=jets())
    answer = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    assert answer["logits"].dtype == np.float32
    assert sorted(answer["index"]) == list(range(20, 100))
    score = answer["logits"][:, 1] - answer["logits"][:, 0]
    assert figures["test_auc"] == pytest.approx(roc_auc_score(answer["label"], score), abs=1e-6)
    assert figures["test_accuracy"] == pytest.approx(((score > 0) == answer["label"]).mean(), abs=1e-6)
    assert {f"test_{n}" for n in ("background_rejection_0.3", "background_rejection_0.5_error")} <= figures.keys()


def test_predictions_belong_to_their_rows():
    """Whatever the order and size of the batches, a row number gets the same logits and label."""
    tagger = Classification(small_model())
    answers = []
    for batch_size in (7, 80):
        data = jets()
        data.eval_batch_size = batch_size
        parts = quiet_trainer().predict(tagger, datamodule=data)
        columns = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        order = columns["index"].argsort()
        answers.append({name: column[order] for name, column in columns.items()})
    torch.testing.assert_close(answers[0]["logits"], answers[1]["logits"], atol=1e-5, rtol=1e-4)
    assert torch.equal(answers[0]["label"], answers[1]["label"])


@pytest.mark.parametrize("step", ["training_step", "validation_step", "predict_step"])
def test_numbers_that_are_none_stop_with_the_jets_named(batch, step):
    class OneBadJet(LorentzNet):
        def forward(self, features, four_momenta, mask):
            logits = super().forward(features, four_momenta, mask)
            return logits.masked_fill((torch.arange(len(logits)) == 5)[:, None], math.nan)

    tagger = Classification(OneBadJet(num_classes=2, embed_dim=8, num_layers=1))
    message = rf"not finite in batch 3 for jets \[{batch.index[5].item()}\]"
    with pytest.raises(FloatingPointError, match=message):
        getattr(tagger, step)(batch, 3)


def test_the_jet_that_spoils_a_normalisation_is_named_alone(batch):
    """Its features make the statistics of the batch, and so the losses of all its jets, no numbers."""
    features = batch.features.clone()
    features[5, 0, 0] = math.inf
    tagger = Classification(create_model("particlenet_lite", input_dim=batch.features.shape[-1], num_classes=2))
    message = rf"not finite in batch 3 for jets \[{batch.index[5].item()}\]"
    with pytest.raises(FloatingPointError, match=message):
        tagger.training_step(batch._replace(features=features), 3)


def test_lightnings_unpickling_loader_is_closed(tmp_path):
    with pytest.raises(TypeError, match="read_model_weights"):
        Classification.load_from_checkpoint("https://example.org/model.ckpt")


@pytest.mark.parametrize(
    ("name", "value"),
    [("learning_rate", 0.0), ("weight_decay", -1.0), ("warmup", 1.0), ("final_learning_rate", 1.1)],
)
def test_settings_out_of_range(name, value):
    with pytest.raises(ValueError, match=name):
        Classification(small_model(), **{name: value})
    with pytest.raises(ValueError, match="decay must be in"):
        WeightAverage(decay=1.0)


def test_endless_training_has_no_schedule():
    with pytest.raises(ValueError, match=r"trainer\.max_epochs"):
        quiet_trainer(max_epochs=-1).fit(Classification(small_model()), datamodule=jets())
