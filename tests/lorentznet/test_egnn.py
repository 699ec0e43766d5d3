"""EGNN against an explicit loop over pairs, and its symmetry."""

import pytest
import torch
from torch import Tensor, nn

from zoo import create_model
from zoo.data.batch import JetBatch
from zoo.lorentznet import EGNN
from zoo.physics.lorentz import boost_matrix, rotation_matrix


@pytest.fixture
def model(jets: JetBatch) -> nn.Module:
    model = create_model("egnn", input_dim=7, num_classes=2).double()
    with torch.no_grad():
        for block in model.blocks[:-1]:
            block.phi_x[2].weight *= 300  # so that the momenta move by an amount that matters
        for _ in range(5):
            model(jets.features, jets.four_momenta.double(), jets.mask)
    return model.eval()


def by_hand(model: EGNN, four_momenta: Tensor) -> Tensor:
    """Logits (class,) of one jet (particle, 4), the formulas of the class over all ordered pairs."""
    count = len(four_momenta)
    x = four_momenta[:, 1:]
    h = model.embedding(torch.log1p(four_momenta[:, :1]))
    i, j = zip(*((i, j) for i in range(count) for j in range(count) if i != j), strict=True)
    i, j = torch.tensor(i), torch.tensor(j)
    for block in model.blocks:
        difference = x[i] - x[j]
        distance = torch.log1p((difference**2).sum(1, keepdim=True))
        value = torch.cat([h[i], h[j], distance], dim=1) @ block.phi_e[0].weight.T
        norm = block.phi_e[1]
        value = (value - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
        message = block.phi_e[2:](value.relu())
        if block.phi_x is not None:
            weight = block.phi_x(message).clamp(-10, 10)
            x = x + block.coordinate_scale * torch.zeros_like(x).index_add(0, i, weight * difference) / (count - 1)
        total = torch.zeros_like(h).index_add(0, i, message)
        h = h + block.phi_h(torch.cat([h, total], dim=1))
    return model.head(h.mean(0))


def test_equals_the_formulas(model, jets):
    logits = model(jets.features, jets.four_momenta.double(), jets.mask)
    for jet in range(3):
        expected = by_hand(model, jets.four_momenta[jet, jets.mask[jet]].double())
        torch.testing.assert_close(logits[jet], expected, rtol=0, atol=1e-9)


def test_gradients_without_a_gate(model, jets):
    """Those of pair_messages are by hand; here beside autograd's through the formulas."""
    names = ("blocks.0.phi_e.0.weight", "blocks.2.phi_e.3.weight", "blocks.3.phi_x.0.weight", "blocks.5.phi_e.3.bias")
    parameters = [dict(model.named_parameters())[name] for name in names]
    momenta = jets.four_momenta[:1, jets.mask[0]].double()
    ours = model(jets.features[:1, jets.mask[0]], momenta, torch.ones(1, momenta.shape[1], dtype=torch.bool))
    gradients = torch.autograd.grad(ours[0, 0], parameters)
    expected = torch.autograd.grad(by_hand(model, momenta[0])[0], parameters)
    for gradient, witness in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, witness, rtol=0, atol=1e-9 * witness.abs().max().item())


def test_rotations_leave_the_logits(model, jets):
    """Control: a boost does not, which is what LorentzNet has over it."""
    axis, angle = torch.tensor([1.0, 2.0, -0.5], dtype=torch.float64), torch.tensor(1.2, dtype=torch.float64)
    boost = boost_matrix(torch.tensor([0.3, 0.0, 0.4], dtype=torch.float64))
    momenta = jets.four_momenta.double()
    logits, rotated, boosted = (
        model(jets.features, momenta @ matrix.mT, jets.mask)
        for matrix in (torch.eye(4, dtype=torch.float64), rotation_matrix(axis, angle), boost)
    )
    assert (rotated - logits).abs().max() < 1e-9
    assert (boosted - logits).abs().max() > 1e-4
