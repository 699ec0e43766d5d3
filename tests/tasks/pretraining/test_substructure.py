"""The substructure objective: what it predicts, that labels are not read, and the training of it."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.tasks.pretraining.test_training import run, small_config
from zoo import create_model
from zoo.data.features import feature_table
from zoo.physics.substructure import substructure
from zoo.tasks.pretraining import Substructure, read_backbone
from zoo.tasks.pretraining.substructure import SHOWN


def small_training() -> Substructure:
    return Substructure(create_model("particlenet_lite", input_dim=7, num_classes=2), feature_table("kin"))


def test_loss_is_the_huber_loss_of_standardised_logarithms(jets):
    training = small_training().eval()
    true = torch.stack(list(substructure(jets.four_momenta, jets.mask).values()), dim=1)
    training.target_mean.copy_(true.mean(0))
    training.target_scale.copy_(true.std(0))
    for layer in training.head[::2]:
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    losses, figures, shown = training.objective(jets, None)
    z = ((true - true.mean(0)) / true.std(0)).abs()
    expected = torch.where(z < 1, z.square() / 2, z - 0.5)
    torch.testing.assert_close(losses, expected.mean(1))
    torch.testing.assert_close(figures["mass_loss"], expected[:, training.names.index("mass")])
    torch.testing.assert_close(
        shown["expected"], true.mean(0)[[training.names.index(name) for name in SHOWN]].expand(8, 4)
    )


def test_substructure_is_learnt(jets):
    training = small_training()
    true = training.observables(jets)
    training.target_mean.copy_(true.mean(0))
    training.target_scale.copy_(true.std(0))
    optimizer = torch.optim.Adam([p for p in training.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        losses.append(training.loss(jets, 0)[0])
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.3 * losses[0]
    guess = F.huber_loss(torch.zeros_like(true), (true - true.mean(0)) / true.std(0))
    assert losses[-1] < guess


def test_label_weight_and_index_are_not_read(jets):
    training = small_training().eval()
    other = jets._replace(label=1 - jets.label, weight=jets.weight * 0, index=jets.index + 7)
    assert torch.equal(*(training.objective(each, None)[0] for each in (jets, other)))


def test_substructure_through_the_training_door(tmp_path):
    config = small_config(tmp_path / "run")
    model = {"model": config["model"]["init_args"]["model"], "learning_rate": 0.01}
    config["model"] = {"class_path": "zoo.tasks.Substructure", "init_args": model}
    run("fit", config)
    figures = json.loads((tmp_path / "run" / "report" / "metrics.json").read_text())["metrics"]
    assert figures.keys() == {"val_loss", "val_probe_auc", *(f"val_{name}_loss" for name in SHOWN)}
    assert np.isfinite([figure["value"] for figure in figures.values()]).all()
    assert (tmp_path / "run" / "report" / "observables.png").stat().st_size > 1000
    assert read_backbone(tmp_path / "run")


def test_events_are_refused():
    model = create_model("particle_transformer_for_events", input_dim=12, num_classes=2)
    with pytest.raises(ValueError, match=r"data\.features: no feature is relative to a jet.*MaskedParticles"):
        Substructure(model, feature_table("events"))
