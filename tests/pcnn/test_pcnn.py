"""P-CNN against torch's own convolutions on one unpadded jet at a time."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo import create_model
from zoo.data.batch import JetBatch
from zoo.pcnn import PCNN


@pytest.fixture
def model(jets: JetBatch) -> PCNN:
    """A network with running statistics of real jets, in float64."""
    model = create_model("pcnn", input_dim=7, num_classes=2).double()
    model.head[2].p = 0.0
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
        for _ in range(3):
            model(jets.features.double(), jets.four_momenta, jets.mask)
    return model


@pytest.mark.parametrize(("input_dim", "num_classes", "expected"), [(17, 10, 354_540), (7, 2, 349_456)])
def test_number_of_parameters(input_dim, num_classes, expected):
    model = create_model("pcnn", input_dim=input_dim, num_classes=num_classes)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


class OneByOne:
    """The network on a list of jets without padding, each (feature, particle)."""

    def __init__(self, model: PCNN, train: bool) -> None:
        self.state = copy.deepcopy(model.state_dict())
        self.train = train

    def norm(self, name: str, jets: list[Tensor]) -> list[Tensor]:
        mean, variance = self.state[f"{name}.running_mean"], self.state[f"{name}.running_var"]
        if self.train:
            together = torch.cat(jets, dim=1)
            positions = together.shape[1]
            batch_mean = together.mean(1)
            batch_variance = (together - batch_mean[:, None]).square().mean(1)
            self.state[f"{name}.running_mean"] = 0.9 * mean + 0.1 * batch_mean
            unbiased = batch_variance * positions / (positions - 1)
            self.state[f"{name}.running_var"] = 0.9 * variance + 0.1 * unbiased
            self.state[f"{name}.num_batches_tracked"] += 1
            mean, variance = batch_mean, batch_variance
        scale = self.state[f"{name}.weight"] / (variance + 1e-5).sqrt()
        return [(jet - mean[:, None]) * scale[:, None] + self.state[f"{name}.bias"][:, None] for jet in jets]

    def conv(self, name: str, jets: list[Tensor], stride: int = 1) -> list[Tensor]:
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return [functional.conv1d(jet[None], weight, bias, stride=stride, padding=1)[0] for jet in jets]

    def unit(self, number: int, jets: list[Tensor], stride: int) -> list[Tensor]:
        name = f"units.{number}"
        hidden = [x.relu() for x in self.norm(f"{name}.norm1", self.conv(f"{name}.conv1", jets, stride))]
        hidden = [x.relu() for x in self.norm(f"{name}.norm2", self.conv(f"{name}.conv2", hidden))]
        shortcut = self.state.get(f"{name}.shortcut.weight")
        if shortcut is not None:
            jets = [functional.conv1d(jet[None], shortcut[..., None], stride=stride)[0] for jet in jets]
        return [jet + x for jet, x in zip(jets, hidden, strict=True)]

    def __call__(self, jets: list[Tensor]) -> Tensor:
        jets = self.conv("conv", self.norm("input_norm", jets))
        jets = [jet.relu() for jet in self.norm("norm", jets)]
        for number, stride in enumerate((1, 1, 2, 1, 2, 1)):
            jets = self.unit(number, jets, stride)
        mean = torch.stack([jet.mean(1) for jet in jets])
        hidden = functional.linear(mean, self.state["head.0.weight"], self.state["head.0.bias"]).relu()
        return functional.linear(hidden, self.state["head.3.weight"], self.state["head.3.bias"])


def sorted_jets(jets: JetBatch, mask: Tensor) -> list[Tensor]:
    """Features (feature, particle) of each jet, the particle of highest transverse momentum first."""
    result = []
    for features, four_momenta, real in zip(jets.features.double(), jets.four_momenta.double(), mask, strict=True):
        particles = sorted(
            zip(features[real].unbind(0), four_momenta[real].tolist(), strict=True),
            key=lambda particle: particle[1][1] ** 2 + particle[1][2] ** 2,
            reverse=True,
        )
        result.append(torch.stack([particle for particle, _ in particles], dim=1))
    return result


@pytest.mark.parametrize("train", [True, False])
def test_equals_one_jet_at_a_time(model, jets, train):
    """Logits and, from the training step, running statistics that saw no position but real ones."""
    mask = jets.mask.clone()
    for jet, length in enumerate((1, 2, 3, 4, 7)):  # every way in which halving can end
        mask[jet, length:] = False
    witness = OneByOne(model, train)
    expected = witness(sorted_jets(jets, mask))
    order = torch.randperm(mask.shape[1])
    features = torch.where(mask[..., None], jets.features.double(), 1e6)
    logits = model.train(train)(features[:, order], jets.four_momenta[:, order], mask[:, order])
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(model.state_dict(), witness.state, rtol=1e-10, atol=1e-10)


def test_a_convolution_that_sees_padding_differs(model, jets):
    """The witness on jets padded with zeros, as the published implementation is run."""
    model.eval()
    lists = sorted_jets(jets, jets.mask)
    padded = [nn.functional.pad(jet, (0, 20)) for jet in lists]
    witness = OneByOne(model, train=False)
    assert (witness(padded) - witness(lists)).abs().max() > 1e-3


def test_momenta_give_the_order_and_nothing_else(model, jets):
    model.eval()
    features, mask = jets.features.double(), jets.mask
    logits = model(features, jets.four_momenta, mask)
    assert torch.equal(model(features, 2 * jets.four_momenta, mask), logits)
    softest_first = 1 / jets.four_momenta.norm(dim=-1, keepdim=True).clamp(min=1e-6) * torch.ones(4)
    assert (model(features, softest_first, mask) - logits).abs().max() > 1e-3


def test_equal_transverse_momenta_have_one_order(model, jets):
    """Back to back, mirrored along the beam, and alike in all but a feature."""
    model.eval()
    four_momenta = torch.tensor([[5.0, 3, 0, 4], [5.0, -3, 0, 4], [5.0, 3, 0, -4], [5.0, 3, 0, 4]]).expand(1, 4, 4)
    features, mask = torch.randn(1, 4, 7, dtype=torch.float64), torch.ones(1, 4, dtype=torch.bool)
    logits = model(features, four_momenta, mask)
    for order in ([3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]):
        assert torch.equal(model(features[:, order], four_momenta[:, order], mask), logits)


def test_weights_saved_under_the_older_name_of_the_head_load(model):
    saved = {name.replace("head.", "decoder."): value for name, value in model.state_dict().items()}
    other = create_model("pcnn", input_dim=7, num_classes=2).double()
    other.load_state_dict(saved)
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)
