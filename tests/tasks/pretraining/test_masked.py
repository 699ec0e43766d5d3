"""What masked particles hide stays hidden, and what they predict."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from zoo import create_model
from zoo.data.batch import JetBatch
from zoo.data.features import Feature, FeatureTable, feature_table
from zoo.particle_transformer import KinematicPairs, ParticleTransformer
from zoo.physics import kinematics
from zoo.tasks.pretraining import MaskedParticles
from zoo.tasks.pretraining.masked import HiddenParticles, draw_hidden, fit_codes, hide

BACKBONES = ("particle_transformer", "particlenet_lite", "lorentznet")


def small_model(name: str) -> torch.nn.Module:
    if name == "particle_transformer":
        return ParticleTransformer(7, 2, pair_inputs=[KinematicPairs()], embed_dims=(16,), num_heads=2, num_layers=2)
    return create_model(name, input_dim=7, num_classes=2)


def training_of(name: str, **options) -> MaskedParticles:
    """With random weights and statistics of real jets, which single jets do not move."""
    training = MaskedParticles(small_model(name), feature_table("kin"), ("codes", "regression"), **options)
    training.codes.normal_()
    return training.eval()


@pytest.fixture
def hidden(jets: JetBatch) -> Tensor:
    return draw_hidden(jets.mask, 0.35)


def replaced(jets: JetBatch, hidden: Tensor) -> JetBatch:
    """The jets with every hidden particle another one: harder or softer by up to a factor 20, in any direction."""
    shape = jets.mask.shape
    other = kinematics.from_pt_eta_phi_mass(
        kinematics.pt(jets.four_momenta) * torch.empty(shape).uniform_(-3, 3).exp(),
        torch.empty(shape).uniform_(-2, 2),
        torch.empty(shape).uniform_(-3, 3),
        torch.empty(shape).uniform_(0, 5),
    )
    four_momenta = torch.where(hidden[..., None], other, jets.four_momenta)
    return jets._replace(four_momenta=four_momenta, features=feature_table("kin").padded(four_momenta, jets.mask))


def sorted_by_pt(jets: JetBatch, hidden: Tensor) -> tuple[JetBatch, Tensor]:
    """The particles of each jet from the hardest to the softest, as files have them."""
    order = kinematics.pt(jets.four_momenta).argsort(dim=1, descending=True, stable=True)
    place = order[..., None]
    columns = {
        "features": jets.features.gather(1, place.expand(-1, -1, jets.features.shape[2])),
        "four_momenta": jets.four_momenta.gather(1, place.expand(-1, -1, 4)),
        "mask": jets.mask.gather(1, order),
    }
    return jets._replace(**columns), hidden.gather(1, order)


def no_leak(found: HiddenParticles, jets: JetBatch) -> HiddenParticles:
    return found


def predictions(training: MaskedParticles, jets: JetBatch, hidden: Tensor, leak=no_leak) -> dict[str, Tensor]:
    with torch.no_grad():
        return training.predict(leak(hide(jets, hidden, training.feature_table), jets))


def largest_change(training: MaskedParticles, one: tuple, other: tuple, leak=no_leak) -> float:
    answers = (predictions(training, *jets, leak).values() for jets in (one, other))
    return max((before - after).abs().max().item() for before, after in zip(*answers, strict=True))


@pytest.mark.parametrize("name", BACKBONES)
def test_other_hidden_particles_change_no_prediction(name, jets, hidden):
    """Through pairs, neighbours or products of momenta, through features relative to the jet, or through places."""
    training = training_of(name)
    other = replaced(jets, hidden)
    assert (other.four_momenta - jets.four_momenta).abs()[hidden].max() > 10
    assert largest_change(training, (jets, hidden), (other, hidden)) == 0
    assert largest_change(training, (jets, hidden), sorted_by_pt(other, hidden)) < 1e-5
    places, mixed = (sorted_by_pt(each, hidden)[1] for each in (jets, other))
    assert not torch.equal(places, mixed), "the order changed: the test above would see what it tells"


@pytest.mark.parametrize("name", BACKBONES)
def test_control_visible_particles_change_the_predictions(name, jets, hidden):
    training = training_of(name)
    other = replaced(jets, jets.mask & ~hidden)
    assert largest_change(training, (jets, hidden), (other, hidden)) > 1e-4


def leak_momenta(found: HiddenParticles, jets: JetBatch) -> HiddenParticles:
    """Pairs, neighbours and products see the hidden particles, but no feature does."""
    return found._replace(four_momenta=jets.four_momenta, visible=jets.mask)


def leak_jet(found: HiddenParticles, jets: JetBatch) -> HiddenParticles:
    """Features of the visible particles stay relative to the jet of all."""
    return found._replace(features=jets.features.masked_fill(~found.visible[..., None], 0))


def leak_order(found: HiddenParticles, jets: JetBatch) -> HiddenParticles:
    """Visible particles know their place among all."""
    features = found.features.clone()
    features[..., 0] += 0.1 * torch.arange(jets.mask.shape[1]) * found.visible
    return found._replace(features=features)


@pytest.mark.parametrize(
    ("leak", "name", "sorts"),
    [
        (leak_momenta, "particle_transformer", False),
        (leak_momenta, "particlenet_lite", False),
        (leak_momenta, "lorentznet", False),
        (leak_jet, "particle_transformer", False),
        (leak_jet, "particlenet_lite", False),
        (leak_order, "particle_transformer", True),
        (leak_order, "particlenet_lite", True),
    ],
)
def test_control_each_leak_is_seen(leak, name, sorts, jets, hidden):
    """The same comparison where the encoder is told too much, one way at a time."""
    other = (replaced(jets, hidden), hidden)
    other = sorted_by_pt(*other) if sorts else other
    assert largest_change(training_of(name), (jets, hidden), other, leak) > 1e-4


def test_hidden_sets_are_random_and_leave_something(jets):
    mask = torch.arange(20) < torch.tensor([0, 1, 2, 3, 10, 20])[:, None]
    hidden = draw_hidden(mask, 0.35)
    assert hidden.sum(1).tolist() == [0, 0, 1, 1, 4, 7]
    assert not (hidden & ~mask).any()
    often = torch.stack([draw_hidden(mask, 0.35) for _ in range(500)]).float().mean(0)[5]
    assert (often - 0.35).abs().max() < 5 * math.sqrt(0.35 * 0.65 / 500), "any particle, whatever its place"
    one, two = (draw_hidden(jets.mask, 0.35, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, two)
    assert draw_hidden(mask, 0.999).sum(1).tolist() == [0, 0, 1, 2, 9, 19]


def test_targets_are_the_hidden_particles_relative_to_the_visible_jet(jets, hidden):
    """Worked out again, a particle at a time."""
    found = hide(jets, hidden, feature_table("kin"))
    expected = []
    for jet, particles, is_hidden in zip(jets.four_momenta.double(), jets.mask, hidden, strict=True):
        _, x, y, z = jet[particles & ~is_hidden].sum(0).tolist()
        pt, eta, phi = math.hypot(x, y), math.asinh(z / math.hypot(x, y)), math.atan2(y, x)
        rows = []
        for _, x, y, z in jet[is_hidden].tolist():
            dphi = math.remainder(math.atan2(y, x) - phi, 2 * math.pi)
            deta = (math.asinh(z / math.hypot(x, y)) - eta) * (1 if eta >= 0 else -1)
            rows.append((math.log(math.hypot(x, y) / pt), deta, dphi))
        expected += sorted(rows, reverse=True)
    torch.testing.assert_close(found.targets, torch.tensor(expected), atol=1e-5, rtol=1e-5)
    assert found.counts.tolist() == hidden.sum(1).tolist()


@pytest.mark.parametrize("by_column", [False, True])
def test_types_and_columns_are_targets_where_the_features_have_them(jets, hidden, by_column):
    """Whether the features call a type by the name of the zoo or by that of the column."""
    table = feature_table("kinpid")
    if by_column:
        columns = {one.formula: one.columns[0] for one in table.features if one.name.startswith("part_is")}
        table = FeatureTable(
            tuple(dataclasses.replace(one, formula=columns.get(one.formula, one.formula)) for one in table.features)
        )
        assert "part_isMuon" in {one.formula for one in table.features}
    features = torch.zeros(*jets.mask.shape, table.input_dim)
    charge, photon, muon = (table.names.index(name) for name in ("part_charge", "part_isPhoton", "part_isMuon"))
    is_muon = torch.arange(jets.mask.shape[1]) % 3 == 0
    features[:, is_muon, muon], features[:, is_muon, charge] = 1, -1
    features[:, torch.arange(jets.mask.shape[1]) % 3 == 1, photon] = 1
    batch = jets._replace(features=features)
    found = hide(batch, hidden, table)
    assert set(found.types.tolist()) == {2, 4, 5}
    assert torch.equal(found.types == 4, found.targets[:, 3] == -1), "charge goes with its particle"
    assert found.targets.shape[1] == 4
    training = MaskedParticles(create_model("particlenet_lite", input_dim=13, num_classes=2), table, ("types",))
    losses, figures, _ = training.objective(batch, torch.Generator().manual_seed(0))
    assert losses.isfinite().all()
    assert figures.keys() == {"types_accuracy"}
    assert hide(jets, hidden, feature_table("kin")).types.unique().tolist() == [0], "none of none"


def test_objects_of_events_are_hidden_with_their_types_and_place_in_the_detector(jets, hidden):
    """An event has no axis. Control: jets have one, and the same momenta are other targets there."""
    table = feature_table("events")
    names = [name for name in table.columns if name != "part_charge"]
    number = torch.arange(jets.mask.shape[1]).expand(jets.mask.shape) % 5
    columns = {name: (number == which).float() for which, name in enumerate(names)}
    columns["part_charge"] = torch.where(jets.mask & (number % 2 == 0), -1.0, 1.0)
    batch = jets._replace(features=table.padded(jets.four_momenta, jets.mask, columns))
    found = hide(batch, hidden, table)
    assert torch.equal(found.features, batch.features.masked_fill(~found.visible[..., None], 0)), "nothing to work out"
    assert names == ["part_isJet", "part_isBJet", "part_isElectron", "part_isMuon", "part_isPhoton"]
    seven = torch.tensor([0, 1, 2, 5, 6])  # of j b e- e+ m- m+ g, for third and fourth have one charge each
    hardest = kinematics.pt(jets.four_momenta).masked_fill(~hidden, -1).argmax(1)
    first = torch.cat([torch.zeros(1, dtype=torch.long), found.counts.cumsum(0)[:-1]])
    rows = torch.arange(len(hardest))
    assert torch.equal(found.types[first], seven[number[rows, hardest]])
    momentum = jets.four_momenta[rows, hardest].double()
    expected = [momentum[:, 1:3].norm(dim=1).log(), kinematics.finite_eta(momentum), kinematics.phi(momentum)]
    expected.append(columns["part_charge"][rows, hardest].double())
    torch.testing.assert_close(found.targets[first], torch.stack(expected, dim=1).float(), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(hide(jets, hidden, feature_table("kin")).targets, found.targets[:, :3])


def test_features_of_all_particles_are_those_of_the_table(jets):
    """With nothing hidden, the features recomputed are those of the batch."""
    nothing = torch.zeros_like(jets.mask)
    torch.testing.assert_close(hide(jets, nothing, feature_table("kin")).features, jets.features)


def test_codes_are_the_centres_of_clusters_and_repeat():
    """Control: points that lie elsewhere have other centres."""
    centres = torch.tensor([[0.0, 0.0, 5.0], [4.0, -1.0, 0.0], [-3.0, 7.0, 1.0]])
    points = (centres[torch.arange(600) % 3] + 0.01 * torch.randn(600, 3)) * torch.tensor([1.0, 10.0, 0.1])
    mean, scale, codes = fit_codes(points, 3)
    found = codes * scale + mean
    expected = centres * torch.tensor([1.0, 10.0, 0.1])
    assert torch.cdist(expected, found).min(1).values.max() < 0.05
    assert torch.equal(fit_codes(points, 3)[2], codes)
    assert not torch.equal(fit_codes(points + torch.randn(600, 3), 3)[2], codes)
    with pytest.raises(ValueError, match=r"num_codes: 128 codes cannot be fitted to the 100 particles"):
        fit_codes(points[:100], 128)


def test_loss_is_that_of_the_hidden_particles_only(jets):
    training = training_of("particlenet_lite")
    losses, _, shown = training.objective(jets, torch.Generator().manual_seed(1))
    hidden = draw_hidden(jets.mask, 0.35, torch.Generator().manual_seed(1))
    assert len(losses) == hidden.sum()
    answer = predictions(training, jets, hidden)
    truth = (shown["true"] - training.target_mean) / training.target_scale
    distance = (truth[:, None] - training.codes).square().sum(-1)
    chance = answer["codes"].softmax(-1)[torch.arange(len(truth)), distance.argmin(1)]
    residual = (answer["regression"] - truth).abs()
    huber = torch.where(residual < 1, residual.square() / 2, residual - 0.5).mean(1)
    torch.testing.assert_close(losses, -chance.log() + huber, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", BACKBONES)
def test_every_parameter_but_the_readout_gets_a_gradient(name, jets):
    training = training_of(name)
    training.loss(jets, 0)[0].backward()
    for key, parameter in training.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key
    frozen = {key.split(".")[1] for key, parameter in training.named_parameters() if not parameter.requires_grad}
    assert frozen == set(training.model.readout)


@pytest.mark.parametrize("name", BACKBONES)
def test_empty_and_lone_jets_are_no_trouble(name, jets):
    tiny = jets._replace(mask=jets.mask & (torch.arange(jets.mask.shape[1]) < torch.arange(8)[:, None] // 2))
    for batch in (tiny, tiny._replace(mask=tiny.mask & (torch.arange(8) < 4)[:, None])):
        training = training_of(name).train()
        loss, number = training.loss(batch, 0)
        loss.backward()
        assert loss.isfinite()
        assert number == sum(max(count // 3, 1) for count in batch.mask.sum(1).tolist() if count > 1)
        assert all(p.grad is None or p.grad.isfinite().all() for p in training.parameters())


def test_bfloat16_is_finite_and_near(jets):
    training = training_of("particle_transformer")
    exact = training.objective(jets, torch.Generator().manual_seed(1))[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = training.objective(jets, torch.Generator().manual_seed(1))[0]
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, exact, atol=0.2, rtol=0.05)


def test_what_cannot_be_pretrained_is_refused():
    model = create_model("particlenet_lite", input_dim=7, num_classes=2)
    with pytest.raises(ValueError, match="PFN has no 'encode'"):
        MaskedParticles(create_model("pfn", input_dim=7, num_classes=2), feature_table("kin"))
    with pytest.raises(ValueError, match="'types' needs features with types"):
        MaskedParticles(model, feature_table("kin"), ("types",))
    with pytest.raises(ValueError, match=r"mask_fraction must be in \(0, 1\), got 1"):
        MaskedParticles(model, feature_table("kin"), mask_fraction=1.0)
    mixed = FeatureTable((Feature("leak", "part_charge * log_pt_fraction"),))
    with pytest.raises(ValueError, match="'leak' is made of a particle column and of a quantity relative to the jet"):
        MaskedParticles(model, mixed)
    MaskedParticles(model, FeatureTable((Feature("harmless", "part_charge * log_pt"),)))
