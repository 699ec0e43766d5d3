"""The symmetry of LGN, with controls that must fail, and its layer against sums over explicit pairs."""

import copy

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn.functional import cross_entropy

from zoo import create_model
from zoo.data.batch import JetBatch, collate, gather
from zoo.data.datasets import resolve_file
from zoo.data.features import feature_table
from zoo.data.store import open_store
from zoo.kernels.pairs import complete_pairs
from zoo.lgn import LGN, fast
from zoo.lgn.irreps import IRREPS, couple, on_device
from zoo.lgn.lgn import ClebschGordanLayer
from zoo.physics.lorentz import METRIC, random_lorentz


def massless(jets: JetBatch) -> Tensor:
    momentum = jets.four_momenta[..., 1:].double()
    return torch.cat([momentum.norm(dim=-1, keepdim=True), momentum], dim=-1)


def settled(model: LGN, jets: JetBatch, steps: int = 20) -> LGN:
    """The model after some training, when all its parts matter."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        cross_entropy(model(jets.features, massless(jets), jets.mask), jets.label).backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def settled_model(jets: JetBatch) -> LGN:
    return settled(create_model("lgn", input_dim=7, num_classes=2).double(), jets)


@pytest.fixture
def model(settled_model: LGN) -> LGN:
    return copy.deepcopy(settled_model)


@pytest.mark.parametrize("seed", range(3))
def test_invariant_in_float64(model, jets, seed):
    """Under transformations of the jet and the beams; without those of the beams it must not be."""
    matrix = random_lorentz(gamma=2.0, generator=torch.Generator().manual_seed(seed))
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
    minkowski = torch.diag(torch.tensor(METRIC, dtype=torch.float64)).flatten()

    def euclidean(coupling, device):
        coefficients = on_device(coupling, device)
        if coupling[:3] == ("vector", "vector", "scalar"):
            coefficients = coefficients * minkowski[:, None]
        return coefficients

    monkeypatch.setattr("zoo.lgn.irreps.on_device", euclidean)
    logits = model(jets.features, four_momenta, jets.mask)
    model.beams = model.beams @ matrix.mT
    assert (model(jets.features, four_momenta @ matrix.mT, jets.mask) - logits).abs().max() > 1e-3


def test_without_beams_invariant_with_no_further_ado(jets):
    model = settled(LGN(num_classes=2, beams=False).double(), jets)
    four_momenta = massless(jets)
    boosted = four_momenta @ random_lorentz(gamma=2.0).mT
    difference = model(jets.features, boosted, jets.mask) - model(jets.features, four_momenta, jets.mask)
    assert difference.abs().max() < 1e-9


def test_vectors_inside_turn_with_the_jet(model, jets, monkeypatch):
    """The symmetry holds layer by layer, with vectors that do change."""
    matrix = random_lorentz(gamma=2.0)
    seen = []

    def watched(layer, activations, graph, update=fast.update):
        activations = update(layer, activations, graph)
        seen.extend(activations[name] for name in ("vector",) if name in activations)
        return activations

    monkeypatch.setattr(fast, "update", watched)
    model(jets.features, massless(jets), jets.mask)
    model.beams = model.beams @ matrix.mT
    model(jets.features, massless(jets) @ matrix.mT, jets.mask)
    for before, after in zip(seen[:2], seen[2:], strict=True):
        assert (after - before @ matrix.mT).abs().max() < 1e-9
        assert (after - before).abs().max() > 0.1


@pytest.mark.parametrize("gamma", [2.0, 10.0])
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


@pytest.mark.parametrize("outputs", [list(IRREPS), ["scalar"]])
def test_terms_are_sums_over_explicit_pairs(outputs):
    """Each term of the layer's formula, with the tensor product of every pair formed."""
    counts, channels = torch.tensor([4, 1, 3]), 2
    momenta = 30 * torch.randn(8, 4, dtype=torch.float64)
    graph = fast.jet_graph(momenta, complete_pairs(counts), 100)
    activations = {name: torch.randn(channels, 8, dim, dtype=torch.float64) for name, dim in IRREPS.items()}
    layer = ClebschGordanLayer(list(IRREPS), outputs, channels, 3, num_bells=4)
    jet = torch.repeat_interleave(counts)
    totals = [torch.zeros(channels, 8, IRREPS[name], dtype=torch.float64) for name in layer.term_names]
    carried = [activations[name] for name in outputs]
    for position, term in enumerate([*carried, *couple(activations, activations, layer.squares)]):
        totals[position] += term
    for i, j in [(i, j) for i in range(8) for j in range(8) if i != j and jet[i] == jet[j]]:
        difference = momenta[i] - momenta[j]
        square = difference @ (difference * torch.tensor(METRIC))
        weight = layer.radial((square.sign() * square.abs().log1p())[None])
        at_j = {name: values[:, j : j + 1] for name, values in activations.items()}
        relative = couple({"vector": difference.expand(1, 1, 4) / 100}, at_j, layer.moments)
        terms = [weight[:channels, :, None] * at_j[name] for name in outputs]
        terms += [weight[channels:, :, None] * term for term in relative]
        for position, term in enumerate(terms, start=len(totals) - len(terms)):
            totals[position][:, i] += term[:, 0]
    torch.testing.assert_close(fast.terms(layer, activations, graph), totals, rtol=1e-9, atol=1e-9)


def test_features_do_not_enter(model, jets):
    four_momenta = massless(jets)
    rubbish = torch.full_like(jets.features, float("nan"))
    assert torch.equal(model(jets.features, four_momenta, jets.mask), model(rubbish, four_momenta, jets.mask))


@pytest.mark.parametrize("num_particles", [0, 1])
def test_tiny_jets_without_beams_are_finite(num_particles):
    model = LGN(num_classes=2, beams=False)
    four_momenta = torch.tensor([500.0, 0, 0, 500.0]).expand(2, 3, 4)
    mask = (torch.arange(3) < num_particles).expand(2, 3)
    logits = model(torch.zeros(2, 3, 7), four_momenta, mask)
    cross_entropy(logits, torch.tensor([0, 1])).backward()
    assert logits.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_large_momenta_do_not_overflow(model, jets):
    logits = model(jets.features, 1e4 * massless(jets), jets.mask)
    cross_entropy(logits, jets.label).backward()
    assert logits.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_precision_of_the_weights_is_all_that_autocast_and_float32_change(model, jets):
    exact = model(jets.features, jets.four_momenta, jets.mask)
    model.load_state_dict({name: value.float().double() for name, value in model.state_dict().items()})
    rounded = model(jets.features, jets.four_momenta, jets.mask)
    model.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(jets.features, jets.four_momenta, jets.mask)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, rounded.float())
    assert (rounded - exact).abs().max() < 1e-4


@pytest.mark.slow
def test_learns():
    """Three hundred jets in half a minute."""
    table, features = open_store(resolve_file("sample:top_tagging/train")), feature_table("kin")
    model = create_model("lgn", input_dim=7, num_classes=2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    jets = collate(gather(table, np.arange(304)), features)
    before = cross_entropy(model(jets.features, jets.four_momenta, jets.mask), jets.label).item()
    for epoch in range(4):
        for rows in np.random.default_rng(epoch).permutation(304).reshape(-1, 16):
            batch = collate(gather(table, rows), features)
            loss = cross_entropy(model(batch.features, batch.four_momenta, batch.mask), batch.label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        logits = model(jets.features, jets.four_momenta, jets.mask)
    assert cross_entropy(logits, jets.label) < 0.7 * before
    assert roc_auc_score(jets.label, logits[:, 1] - logits[:, 0]) > 0.85
