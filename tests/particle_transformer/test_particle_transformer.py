"""What Particle Transformer is given; that it equals weaver's on real jets is shown in test_importers.py."""

import contextlib
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from zoo import create_model
from zoo.data.batch import collate, gather
from zoo.data.datasets import resolve_file
from zoo.data.features import feature_table
from zoo.data.store import open_store
from zoo.kernels import reference
from zoo.particle_transformer import CouplingPairs, KinematicPairs, PairInputs, ParticleTransformer
from zoo.physics.couplings import OBJECT_TYPES, electromagnetic_coupling, strong_coupling
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


class LearntPairs(PairInputs):
    """A map that is learnt, of what is known of a pair; in float64, as the gradient of a test needs it."""

    dim = 3

    def __init__(self) -> None:
        super().__init__()
        self.map = torch.nn.Linear(4, 3, dtype=torch.float64)

    def forward(self, features: Tensor, four_momenta: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return self.map(KinematicPairs()(features, four_momenta, i, j)).tanh()


@pytest.mark.parametrize("train", [False, True])
def test_learnt_pair_inputs_get_their_gradient(jets, train):
    """That of a difference of losses, in evaluation and with the statistics of the batch."""
    few = jets.features[:3].double(), jets.four_momenta[:3].double(), jets.mask[:3]
    pair_inputs = [KinematicPairs(), LearntPairs()]
    model = ParticleTransformer(7, 2, pair_inputs=pair_inputs, dropout=0.0, **SMALL).double().train(train)
    weight = model.pair_inputs[1].map.weight
    weights = torch.linspace(1, 2, 6, dtype=torch.float64).view(3, 2)

    def loss() -> Tensor:
        return (weights * model(*few)).sum()

    loss().backward()
    gradient, step = weight.grad.clone(), 1e-5
    for row, column in ((0, 0), (1, 2), (2, 3)):
        losses = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[row, column] += sign * step
                losses.append(loss())
                weight[row, column] -= sign * step
        assert gradient[row, column].abs() > 1e-6
        torch.testing.assert_close(gradient[row, column], (losses[0] - losses[1]) / (2 * step), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("train", [False, True])
def test_one_formula_serves_page_and_fast_path(jets, train):
    """Logits and the gradient of what is learnt of pairs, beside padding and a jet of no particle."""
    mask = jets.mask.clone()
    mask[2], mask[3, 1:] = False, False
    model = ParticleTransformer(7, 2, pair_inputs=[SameColumn(), LearntPairs()], dropout=0.0, **SMALL).double()
    results = []
    for form in (contextlib.nullcontext(), reference()):
        model.train(train).zero_grad()
        with form:
            logits = model(jets.features.double(), jets.four_momenta.double(), mask)
            logits.square().sum().backward()
        results.append((logits, model.pair_inputs[1].map.weight.grad.clone()))
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-11)
    assert results[0][1].abs().min() > 1e-6


def test_what_cannot_learn_is_not_differentiated(jets):
    """Nor is what is frozen: the graph of the pairs would be most of the memory of a step."""
    model = ParticleTransformer(7, 2, pair_inputs=[KinematicPairs(), LearntPairs()], **SMALL)
    given = []
    for inputs in model.pair_inputs:
        inputs.register_forward_hook(lambda *call: given.append(call[-1].requires_grad))
    for is_learnt in (True, False):
        model.pair_inputs[1].requires_grad_(is_learnt)
        model(jets.features, jets.four_momenta, jets.mask).sum().backward()
        assert given[-2:] == [False, is_learnt]


def one_hot(*names: str) -> Tensor:
    """Features of objects: five numbers, then the types, each 2 or -1 as after a scaling."""
    types = torch.tensor([[name == other for other in OBJECT_TYPES] for name in names])
    return torch.cat([torch.full((len(names), 5), 9.0), torch.where(types, 2.0, -1.0)], dim=1)


#: A jet, a b jet, an electron, a positron and a photon along x and y, and something without a type.
FEATURES = torch.cat([one_hot("j", "b", "e-", "e+", "g"), torch.zeros(1, 12)])
MOMENTA = torch.tensor(
    [[100.0, 100, 0, 0], [100, 0, 100, 0], [20, 20, 0, 0], [20, 0, 20, 0], [50, 0, 0, 50], [9, 9, 0, 0]]
)


def coupling_matrix(kind: str) -> Tensor:
    pairs = CouplingPairs(range(5, 12), kind)
    i, j = torch.cartesian_prod(torch.arange(6), torch.arange(6)).unbind(1)
    return pairs(FEATURES, MOMENTA, i, j).unflatten(0, (6, 6)).squeeze(2)


@pytest.mark.parametrize("kind", ["binary", "fixed", "running"])
def test_couplings_of_an_event_by_hand(kind):
    """At the invariant mass of two massless objects at a right angle, the root of 2 E_1 E_2."""
    jets, electrons, photon_jet, photon_lepton = (math.sqrt(2 * e) for e in (1e4, 4e2, 5e3, 1e3))
    g_s = math.sqrt(4 * math.pi * strong_coupling(torch.tensor(jets)).item())
    g_jet, g_lepton = (
        math.sqrt(4 * math.pi * electromagnetic_coupling(torch.tensor(scale)).item())
        for scale in (photon_jet, photon_lepton)
    )
    values = {
        "binary": [1, 1, 1, 1, 1, 1],
        "fixed": [1.22, 0.758, 0.155, 0.31 / 3, 0.31, 0.31],
        "running": [g_s, 0.758, g_jet / 2, g_jet / 3, g_lepton, g_lepton],
    }[kind]
    assert jets > electrons
    assert g_s < 1.22, "the strong coupling falls beyond the mass of the Z boson"
    expected = torch.zeros(6, 6, dtype=torch.float64)
    for (i, j), value in zip([(0, 1), (2, 3), (0, 4), (1, 4), (2, 4), (3, 4)], values, strict=True):
        expected[i, j] = expected[j, i] = value
    torch.testing.assert_close(coupling_matrix(kind), expected, rtol=1e-6, atol=0)


def test_models_for_events_find_the_types_in_the_features():
    """Compared with the flags of the objects in the file, in events with a photon or several leptons."""
    table, features = open_store(resolve_file("sample:four_tops/test")), feature_table("events")
    names = ("part_isJet", "part_isBJet", "part_isElectron", "part_isMuon", "part_isPhoton", "part_charge")
    flags = np.array([table.particles[name] for name in names[2:5]]).T @ [1, 1, 2]
    event = np.repeat(np.arange(len(table)), table.counts)
    packed = gather(table, np.flatnonzero(np.bincount(event, flags) > 1), names)
    events = collate(packed, features)
    is_jet, is_b, is_electron, is_muon, is_photon, charge = (torch.from_numpy(packed.columns[name]) for name in names)
    jet = torch.repeat_interleave(torch.from_numpy(packed.counts))
    i, j = ((jet[:, None] == jet) & ~torch.eye(len(jet), dtype=torch.bool)).nonzero().unbind(1)
    strong, is_charged = (is_jet + is_b) > 0, (is_electron + is_muon) > 0
    expected = 1.22 * (strong[i] & strong[j])
    for one, other in ((i, j), (j, i)):
        of_one = 0.31 / 2 * is_jet[one] + 0.31 / 3 * is_b[one] + 0.31 * is_charged[one]
        expected += of_one * is_photon[other]
    same_flavour = is_electron[i] * is_electron[j] + is_muon[i] * is_muon[j] > 0
    expected += 0.758 * (same_flavour & (charge[i] * charge[j] < 0))
    model = create_model("particle_transformer_for_events_sm", input_dim=12, num_classes=2)
    couplings = CouplingPairs(model.pair_inputs[1].type_columns, "fixed")
    found = couplings(events.features[events.mask], events.four_momenta[events.mask], i, j)[:, 0]
    torch.testing.assert_close(found, expected.double(), rtol=1e-6, atol=1e-7)
    assert len(set(found.tolist())) == 6, "every kind of pair is there"


def test_couplings_of_one_kind_differ_from_those_of_another():
    """Control: no two of the matrices are alike."""
    binary, fixed, running = map(coupling_matrix, ("binary", "fixed", "running"))
    assert (fixed - binary).abs().max() > 0.1
    assert (running - fixed).abs().max() > 0.03


@pytest.mark.parametrize(
    ("columns", "couplings", "message"),
    [
        (range(6), "fixed", "type_columns: give a column .* for each type of j, b, e-"),
        ([1, 2, 3, 4, 5, 6, 6], "fixed", "none twice"),
        ([1, 2, 3, 4, 5, 6, 7, 7], "fixed", "none twice"),
        (range(-1, 6), "fixed", "not \\[-1, 0"),
        (range(7), "walking", "binary, fixed or running, not 'walking'"),
    ],
)
def test_wrong_couplings_are_refused(columns, couplings, message):
    with pytest.raises(ValueError, match=message):
        CouplingPairs(columns, couplings)


def test_types_that_the_features_do_not_hold_are_refused():
    pairs = CouplingPairs(range(4, 11))
    with pytest.raises(ValueError, match="the features have columns 0 to 6"):
        pairs(torch.zeros(1, 7), MOMENTA[:1], torch.tensor([0]), torch.tensor([0]))
    with pytest.raises(ValueError, match="input_dim is 6, but the types"):
        create_model("particle_transformer_for_events_sm", input_dim=6, num_classes=2)


def test_models_for_events_differ_in_their_pair_inputs():
    names = ["_plain", "", "_sm_only", "_sm"]
    models = [create_model(f"particle_transformer_for_events{name}", input_dim=12, num_classes=2) for name in names]
    assert [sum(inputs.dim for inputs in model.pair_inputs) for model in models] == [0, 4, 1, 5]
    assert models[3].pair_inputs[1].type_columns == [4, 5, 6, 7, 8, 9, 10]


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
