"""The contrastive loss beside a witness, and the training of it."""

import json
import math

import pytest
import torch
import torch.nn.functional as F

from tests.tasks.pretraining.test_training import run, small_config
from zoo import create_model
from zoo.data.features import feature_table
from zoo.tasks.pretraining import Contrastive, read_backbone
from zoo.tasks.pretraining.contrastive import alignment, nt_xent, uniformity


def points(number: int) -> torch.Tensor:
    return F.normalize(torch.randn(number, 3))


def test_loss_is_that_of_the_paper():
    one, other = points(5), points(5)
    both = [*one, *other]
    expected = []
    for i in range(5):
        for first, second in ((i, i + 5), (i + 5, i)):
            chances = [math.exp(float(both[first] @ both[k]) / 0.2) for k in range(10) if k != first]
            expected.append(-math.log(math.exp(float(both[first] @ both[second]) / 0.2) / sum(chances)))
    assert nt_xent(one, other, 0.2).mean().item() == pytest.approx(sum(expected) / 10, rel=1e-5)
    assert nt_xent(one, one, 0.2).mean() < nt_xent(one, other, 0.2).mean()


def test_alignment_and_uniformity_know_the_extremes():
    one = points(400)
    assert alignment(one, one).max() == 0
    assert alignment(one, -one).mean().item() == pytest.approx(4.0, rel=1e-5)
    assert uniformity(one[:1].expand(10, 3)).item() == pytest.approx(0.0, abs=1e-5)
    # on a sphere in three dimensions the cosine is uniform: the mean of exp(-4 (1 - c)) over c in [-1, 1]
    assert uniformity(one).item() == pytest.approx(math.log((1 - math.exp(-8)) / 8), abs=0.05)


def test_versions_of_a_jet_come_together(jets):
    """Fifteen steps on eight jets bring the loss below that of points without order."""
    model = create_model("particlenet_lite", input_dim=7, num_classes=2)
    training = Contrastive(model, feature_table("kin"))
    optimizer = torch.optim.Adam([p for p in training.parameters() if p.requires_grad], lr=3e-3)
    before = training.loss(jets, 0)[0].item()
    for _ in range(15):
        optimizer.zero_grad()
        training.loss(jets, 0)[0].backward()
        optimizer.step()
    after = training.loss(jets, 0)[0].item()
    assert after < before - 0.3
    assert after < math.log(2 * len(jets.mask) - 1)


def test_label_weight_and_index_are_not_read(jets):
    training = Contrastive(create_model("particlenet_lite", input_dim=7, num_classes=2), feature_table("kin")).eval()
    other = jets._replace(label=1 - jets.label, weight=jets.weight * 0, index=jets.index + 7)
    losses = [training.objective(each, torch.Generator().manual_seed(2))[0] for each in (jets, other)]
    assert torch.equal(*losses)


def test_contrastive_through_the_training_door(tmp_path):
    config = small_config(tmp_path / "run")
    model = {"model": config["model"]["init_args"]["model"], "projection_dim": 8, "learning_rate": 0.01}
    config["model"] = {"class_path": "zoo.tasks.Contrastive", "init_args": model}
    config["trainer"]["max_epochs"] = 1
    run("fit", config)
    figures = json.loads((tmp_path / "run" / "report" / "metrics.json").read_text())["metrics"]
    assert figures.keys() == {"val_loss", "val_alignment", "val_uniformity", "val_probe_auc"}
    assert (tmp_path / "run" / "report" / "similarities.png").stat().st_size > 1000
    assert read_backbone(tmp_path / "run")


def test_what_cannot_be_augmented_is_refused():
    model = create_model("particlenet_lite", input_dim=13, num_classes=2)
    with pytest.raises(ValueError, match=r"data\.features: need part_charge.* momenta alone; use features .* as kin"):
        Contrastive(model, feature_table("kinpid"))
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        Contrastive(model, feature_table("kin"), temperature=0.0)
