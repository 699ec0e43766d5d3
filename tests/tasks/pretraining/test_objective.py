"""What all objectives share."""

import math

import pytest
import torch

from zoo import create_model
from zoo.data.features import feature_table
from zoo.tasks.pretraining import Contrastive, MaskedParticles, Substructure


@pytest.mark.parametrize("objective", [Contrastive, MaskedParticles, Substructure])
@pytest.mark.parametrize("step", ["training_step", "validation_step"])
def test_the_jet_of_a_loss_that_is_none_is_named_alone(objective, step, jets, monkeypatch):
    model = create_model("particlenet_lite", input_dim=7, num_classes=2)
    encode = model.encode

    def bad_for_one_jet(features, four_momenta, mask):
        jet = torch.arange(len(mask)).repeat_interleave(mask.sum(1))
        return encode(features, four_momenta, mask).masked_fill((jet == 5)[:, None], math.nan)

    monkeypatch.setattr(model, "encode", bad_for_one_jet)
    training = objective(model, feature_table("kin"))
    training.on_validation_epoch_start()
    with pytest.raises(FloatingPointError, match=rf"in batch 3 for jets \[{jets.index[5].item()}\] \(row"):
        getattr(training, step)(jets, 3)
