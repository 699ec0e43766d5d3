"""LorentzNet against an edge-list implementation that shares no code with it, and its symmetry."""

import copy
from importlib import resources

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.edge_list_lorentznet import EdgeListLorentzNet
from zoo import create_model, load_pretrained
from zoo.data.batch import JetBatch
from zoo.kernels.pairs import complete_pairs, pair_sum
from zoo.lorentznet import LorentzNet, fast
from zoo.lorentznet.messages import pair_invariants
from zoo.physics.lorentz import random_lorentz


def massive(jets: JetBatch) -> Tensor:
    """The jets in float64 with the pion mass for all particles, so that nothing rests on how a mass is resolved."""
    momentum = jets.four_momenta[..., 1:].double()
    energy = (momentum.square().sum(-1, keepdim=True) + 0.1396**2).sqrt()
    return torch.cat([energy, momentum], dim=-1) * jets.mask[..., None]


def massless(jets: JetBatch) -> Tensor:
    momentum = jets.four_momenta[..., 1:].double()
    return torch.cat([momentum.norm(dim=-1, keepdim=True), momentum], dim=-1)


def settled(model: nn.Module, jets: JetBatch, steps: int = 5) -> nn.Module:
    """The model after some training, with coordinate updates large enough to matter."""
    with torch.no_grad():
        for block in model.blocks[:-1]:
            block.phi_x[2].weight *= 300
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    four_momenta = jets.four_momenta.to(next(model.parameters()).dtype)
    for _ in range(steps):
        optimizer.zero_grad()
        cross_entropy(model(jets.features, four_momenta, jets.mask), jets.label).backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def settled_model(jets: JetBatch) -> LorentzNet:
    return settled(create_model("lorentznet", input_dim=7, num_classes=2).double(), jets)


@pytest.fixture
def model(settled_model: LorentzNet) -> LorentzNet:
    return copy.deepcopy(settled_model)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("pairs_per_block", [500, 8192])
def test_equals_the_edge_list_implementation(model, jets, train, pairs_per_block, monkeypatch):
    """Logits, gradients and running statistics, with the pairs in one block or in many."""
    monkeypatch.setitem(fast.PAIRS_PER_BLOCK, "cpu", pairs_per_block)
    witness = EdgeListLorentzNet(num_classes=2).double()
    witness.load_state_dict(model.state_dict())
    results = []
    for network in (model, witness):
        network.train(train)
        network.head[2].p = 0.0
        logits = network(jets.features, massive(jets), jets.mask)
        network.zero_grad()
        cross_entropy(logits, jets.label).backward()
        results.append((logits, dict(network.named_parameters()), network.state_dict()))
    (logits, parameters, state), (expected, expected_parameters, expected_state) = results
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10)
    for name, parameter in expected_parameters.items():
        scale = max(parameter.grad.abs().max().item(), 1e-8)  # below which a gradient is zero but for rounding
        torch.testing.assert_close(parameters[name].grad, parameter.grad, rtol=0, atol=1e-8 * scale)
    torch.testing.assert_close(state, expected_state, rtol=1e-10, atol=1e-10)


def test_gradients_of_the_geometry():
    x = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    pairs = complete_pairs(torch.tensor([4, 1, 2]))
    weight = torch.randn(len(pairs.i), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: pair_invariants(x, pairs, torch.float64), x)
    assert torch.autograd.gradcheck(lambda x, w: pair_sum(x, w, pairs), (x, weight))


def test_pair_invariants_by_hand():
    x = torch.tensor([[5.0, 0, 0, 3], [2.0, 1, 0, 0]], dtype=torch.float64)
    invariants = pair_invariants(x, complete_pairs(torch.tensor([2])), torch.float64)
    # |x_1 - x_2|^2 = 9 - 1 - 9 = -1 and <x_1, x_2> = 10
    expected = torch.tensor([[-2.0, 11.0]], dtype=torch.float64).abs().log() * torch.tensor([-1.0, 1.0])
    torch.testing.assert_close(invariants, expected.expand(2, 2).double())


@pytest.mark.parametrize("gamma", [2.0, 10.0])
def test_invariant_in_float64(model, jets, gamma):
    """Under transformations of the jet and the beams; without those of the beams it must not be."""
    matrix = random_lorentz(gamma=gamma)
    four_momenta = massless(jets)
    logits = model(jets.features, four_momenta, jets.mask)
    boosted = four_momenta @ matrix.mT
    with_lab_beams = model(jets.features, boosted, jets.mask)
    model.beams = model.beams @ matrix.mT
    assert (model(jets.features, boosted, jets.mask) - logits).abs().max() < 1e-9
    assert (with_lab_beams - logits).abs().max() > 1e-3


def test_euclidean_products_would_not_be_invariant(model, jets, monkeypatch):
    matrix = random_lorentz(gamma=2.0)
    four_momenta = massless(jets)
    monkeypatch.setattr("zoo.lorentznet.messages.METRIC", (1.0, 1.0, 1.0, 1.0))
    logits = model(jets.features, four_momenta, jets.mask)
    model.beams = model.beams @ matrix.mT
    assert (model(jets.features, four_momenta @ matrix.mT, jets.mask) - logits).abs().max() > 1e-3


def test_without_beams_invariant_with_no_further_ado(jets):
    model = settled(LorentzNet(num_classes=2, beams=False).double(), jets)
    four_momenta = massless(jets)
    boosted = four_momenta @ random_lorentz(gamma=3.0).mT
    difference = model(jets.features, boosted, jets.mask) - model(jets.features, four_momenta, jets.mask)
    assert difference.abs().max() < 1e-9


@pytest.mark.parametrize("gamma", [2.0, 10.0, 100.0])
def test_float32_is_no_worse_than_its_inputs(model, real_jets, gamma):
    """What float32 loses stays within 3 times what rounding the boosted inputs to float32 has lost already."""
    four_momenta = real_jets.four_momenta.double()
    matrix = random_lorentz(gamma=gamma)
    boosted, beams = four_momenta @ matrix.mT, model.beams

    def logits(network, momenta, beams):
        network.beams = beams
        return network(real_jets.features, momenta, real_jets.mask).double()

    reference = logits(model, four_momenta, beams)
    floor = logits(model, boosted.float().double(), beams @ matrix.mT) - reference
    model.float()
    reference = logits(model, four_momenta.float(), beams)
    deviation = logits(model, boosted.float(), beams @ matrix.mT) - reference
    assert deviation.abs().max() < 3 * floor.abs().max()
    assert deviation.abs().median() < 3 * floor.abs().median()


def test_scalars_enter_and_features_do_not(jets):
    top = create_model("lorentznet", input_dim=7, num_classes=2).eval()
    four_momenta = jets.four_momenta
    assert torch.equal(
        top(jets.features, four_momenta, jets.mask), top(torch.zeros_like(jets.features), four_momenta, jets.mask)
    )
    typed = LorentzNet(num_classes=2, num_scalars=7, beams=False).eval()
    difference = typed(jets.features, four_momenta, jets.mask) - typed(
        torch.zeros_like(jets.features), four_momenta, jets.mask
    )
    assert difference.abs().max() > 1e-4


def test_number_of_parameters_with_eight_scalars():
    """Eight scalars a particle: the mass and seven of the features."""
    model = LorentzNet(num_classes=2, num_scalars=7, beams=False)
    assert sum(parameter.numel() for parameter in model.parameters()) == 227_096


def test_the_shipped_folder_of_older_names_loads():
    """Its head is called ``decoder``; `load_pretrained` compares its answers with those that it ships."""
    folder = resources.files("zoo") / "pretrained" / "lorentznet.top_tagging"
    with safe_open(folder / "model.safetensors", "pt") as file:
        weight = file.get_tensor("decoder.3.weight")
    assert torch.equal(load_pretrained("lorentznet.top_tagging").model.head[3].weight, weight)


def test_coordinate_update_is_bounded(model, jets, monkeypatch):
    """However large the weights grow, no momentum moves by more than 10 c of the largest difference to a partner."""
    with torch.no_grad():
        model.blocks[0].phi_x[2].weight *= 1e9
    moves = []

    def watched(block, h, x, graph, update=fast.lorentz_block):
        h, after = update(block, h, x, graph)
        moves.append((after - x).abs().max())
        return h, after

    monkeypatch.setattr(fast, "lorentz_block", watched)
    four_momenta = massless(jets)
    model(jets.features, four_momenta, jets.mask)
    moved = moves[0]
    assert 0 < moved < 10 * 5e-3 * 2 * four_momenta.abs().max()


def test_quark_gluon_variant_sees_particle_types_in_every_frame(jets):
    """No beam singles out a direction. Control: another particle type changes the logits."""
    model = create_model("lorentznet_qg", input_dim=8, num_classes=2).double().eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == 227_096
    kind = torch.arange(jets.mask.shape[1]) % 8
    types = torch.nn.functional.one_hot(kind, 8).double().expand(8, -1, -1)
    four_momenta = massive(jets)
    logits = model(types, four_momenta, jets.mask)
    transformed = model(types, four_momenta @ random_lorentz(gamma=2.0).mT, jets.mask)
    torch.testing.assert_close(transformed, logits, rtol=0, atol=1e-9)
    assert (model(types.roll(1, dims=2), four_momenta, jets.mask) - logits).abs().max() > 1e-4
