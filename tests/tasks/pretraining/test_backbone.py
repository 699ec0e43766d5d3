"""What a pretraining hands on to a fine-tuning."""

import pytest
import torch

from zoo import create_model
from zoo.data.features import feature_table
from zoo.tasks.pretraining import MaskedParticles, read_backbone
from zoo.tasks.pretraining.backbone import backbone_names
from zoo.training.checkpoints import CheckpointError


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint as the trainer writes it, of a pretraining that has not begun."""
    training = MaskedParticles(create_model("particlenet_lite", input_dim=7, num_classes=2), feature_table("kin"))
    content = {"state_dict": training.state_dict(), "epoch": 0, "global_step": 0, "callbacks": {}}
    training.on_save_checkpoint(content)
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    torch.save(content, path)
    return path


def test_backbone_lacks_the_head_only(checkpoint):
    weights = read_backbone(checkpoint)
    model = create_model("particlenet_lite", input_dim=7, num_classes=5)
    missing, unknown = model.load_state_dict(weights, strict=False)
    assert unknown == []
    assert {name.partition(".")[0] for name in missing} == {"head"}
    assert all(torch.equal(model.state_dict()[name], value) for name, value in weights.items())


def test_run_folder_gives_its_best_checkpoint_else_its_last(checkpoint):
    run = checkpoint.parents[1]
    assert read_backbone(run).keys() == read_backbone(checkpoint).keys()
    better = torch.load(checkpoint, weights_only=True)
    better["state_dict"]["model.blocks.0.shortcut.weight"] += 1
    torch.save(better, checkpoint.with_name("best.ckpt"))
    difference = read_backbone(run)["blocks.0.shortcut.weight"] - read_backbone(checkpoint)["blocks.0.shortcut.weight"]
    assert torch.allclose(difference, torch.ones(()))


def test_other_checkpoints_are_refused(checkpoint, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    del content["backbone"]
    torch.save(content, checkpoint)
    with pytest.raises(CheckpointError, match=r"last\.ckpt: is not of a pretraining .* give a run of MaskedParticles"):
        read_backbone(checkpoint)
    with pytest.raises(CheckpointError, match="no such file"):
        read_backbone(tmp_path)


@pytest.mark.parametrize("name", ["particle_transformer", "particlenet", "lorentznet"])
def test_backbone_is_what_the_representation_uses(name, jets):
    model = create_model(name, input_dim=7, num_classes=2).eval()
    before = model.encode(jets.features, jets.four_momenta, jets.mask)
    other = create_model(name, input_dim=7, num_classes=2).eval()
    assert not torch.equal(other.encode(jets.features, jets.four_momenta, jets.mask), before)
    other.load_state_dict({key: model.state_dict()[key] for key in backbone_names(model)}, strict=False)
    assert torch.equal(other.encode(jets.features, jets.four_momenta, jets.mask), before)
    assert set(backbone_names(model)) < set(model.state_dict())
