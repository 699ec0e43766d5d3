"""What Particle Transformer is given; that it equals weaver's on real jets is shown in test_importers.py."""

import pytest
import torch
from torch import Tensor

from zoo import create_model
from zoo.particle_transformer import KinematicPairs, PairInputs, ParticleTransformer
from zoo.physics.lorentz import boost_matrix

SMALL = {"embed_dims": (16,), "pair_embed_dims": (8,), "num_heads": 2, "num_layers": 2, "num_class_layers": 1}


class SameColumn(PairInputs):
    """One where both particles have the first feature above zero."""

    dim = 1

    def forward(self, features: Tensor, four_momenta: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return ((features[i, :1] > 0) & (features[j, :1] > 0)).double()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("particle_transformer", 2_143_486), ("particle_transformer_plain", 2_133_918)],
)
def test_published_number_of_parameters(name, expected):
    model = create_model(name, input_dim=17, num_classes=10)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_plain_ignores_the_momenta(jets):
    """Control: with pair interactions they matter."""
    for name, is_same in (("particle_transformer_plain", True), ("particle_transformer", False)):
        model = create_model(name, input_dim=7, num_classes=2).eval()
        logits, others = (model(jets.features, jets.four_momenta * scale, jets.mask) for scale in (1.0, 2.0))
        assert torch.equal(logits, others) == is_same


def test_interactions_know_no_rapidity_or_azimuth_of_their_own(jets):
    """Pair inputs are the same after a boost along the beam; control: not after one across it."""
    model = create_model("particle_transformer", input_dim=7, num_classes=2).double().eval()
    momentum = jets.four_momenta[..., 1:].double()
    four_momenta = torch.cat([momentum.norm(dim=-1, keepdim=True), momentum], dim=-1)
    boosts = boost_matrix(torch.tensor([[0.0, 0, 0], [0, 0, 0.6], [0.6, 0, 0]], dtype=torch.float64))
    logits = [model(jets.features.double(), four_momenta @ boost.mT, jets.mask) for boost in boosts]
    torch.testing.assert_close(logits[1], logits[0], rtol=0, atol=1e-9)
    assert (logits[2] - logits[0]).abs().max() > 1e-4


def test_pair_inputs_of_ones_own(jets):
    model = ParticleTransformer(7, 2, pair_inputs=[KinematicPairs(), SameColumn()], **SMALL).eval()
    assert model.pair_embedding[0].num_features == 5
    logits = model(jets.features, jets.four_momenta, jets.mask)
    model.pair_inputs[1].forward = lambda features, four_momenta, i, j: torch.zeros(len(i), 1)
    assert (model(jets.features, jets.four_momenta, jets.mask) - logits).abs().max() > 1e-6


def test_context_reaches_the_logits(jets):
    model = create_model("particle_transformer_for_events", input_dim=7, num_classes=2).eval()
    without = model(jets.features, jets.four_momenta, jets.mask)
    context = torch.zeros(8, 2)
    assert torch.equal(model(jets.features, jets.four_momenta, jets.mask, context), without)
    context[3, 1] = 1.0
    changed = (model(jets.features, jets.four_momenta, jets.mask, context) != without).any(dim=1)
    assert changed.nonzero().flatten().tolist() == [3]


def test_dropout_is_on_in_training_and_off_in_class_attention(jets):
    model = create_model("particle_transformer", input_dim=7, num_classes=2).train()
    one, two = (model(jets.features, jets.four_momenta, jets.mask) for _ in range(2))
    assert not torch.equal(one, two)
    for block in model.blocks:
        block.dropout.p = 0.0
    one, two = (model(jets.features, jets.four_momenta, jets.mask) for _ in range(2))
    assert torch.equal(one, two)


def test_inference_of_pairs_in_blocks_equals_the_layers_one_after_the_other(jets):
    """Without a gradient the normalisations are folded; with one they are layers of their own."""
    model = create_model("particle_transformer", input_dim=7, num_classes=2).double().train()
    model(
        jets.features.double(), jets.four_momenta, jets.mask
    )  # so that the normalisations have statistics of their own
    one_after_the_other = model.eval()(jets.features.double(), jets.four_momenta, jets.mask)
    with torch.no_grad():
        logits = model(jets.features.double(), jets.four_momenta, jets.mask)
    torch.testing.assert_close(logits, one_after_the_other, rtol=1e-10, atol=1e-10)
