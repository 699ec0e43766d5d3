"""What every model of the zoo promises, whatever its architecture."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from zoo import create_model, list_models
from zoo.check import check_changes, check_requirements, read_some, settle
from zoo.data.batch import JetBatch
from zoo.data.features import feature_table
from zoo.registry import has_encode
from zoo.training.fine_tuning import stages_of_model

NUM_PARAMETERS = {
    "cnn_for_events": 94_306,
    "cnn_jetimage": 321_826,
    "cnn_jetimage_40": 162_082,
    "efn": 82_358,
    "egnn": 222_266,
    "fully_connected_for_events": 131_970,
    "lgn": 4_498,
    "lorentznet": 224_072,
    "lorentznet_for_events": 227_240,
    "lorentznet_qg": 226_592,
    "lorentznet_qg_release": 226_088,
    "lorentznet_release": 224_072,
    "particle_transformer": 2_141_134,
    "particle_transformer_for_events": 2_182_478,
    "particle_transformer_for_events_plain": 2_172_910,
    "particle_transformer_for_events_sm": 2_182_544,
    "particle_transformer_for_events_sm_only": 2_182_280,
    "particle_transformer_plain": 2_131_566,
    "particle_transformer_weaver": 2_141_134,
    "particle_transformer_weaver_pre_activation": 2_141_134,
    "particlenet": 366_160,
    "particlenet_for_events": 366_672,
    "particlenet_lite": 26_416,
    "particlenet_weaver": 366_160,
    "pcnn": 349_456,
    "pfn": 83_842,
    "pfn_energyflow": 82_458,
    "pfn_for_events": 84_098,
    "resnext50_jetimage": 1_457_314,
}


#: Those whose ``context`` is the missing transverse momentum.
EVENT_MODELS = [name for name in list_models() if "_for_events" in name]


@pytest.fixture(params=list_models(), scope="module")
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def settled(name: str, jets: JetBatch) -> nn.Module:
    model = create_model(name, input_dim=7, num_classes=2).double()
    with torch.no_grad():
        for _ in range(5):
            model(*inputs(jets))
    return model.eval()


@pytest.fixture
def model(settled: nn.Module) -> nn.Module:
    """A model with random weights and running statistics of real jets, in float64."""
    return copy.deepcopy(settled)


def inputs(jets: JetBatch) -> tuple[Tensor, Tensor, Tensor]:
    """The jets in float64, massless as they were before they were rounded to float32."""
    momentum = jets.four_momenta[..., 1:].double()
    four_momenta = torch.cat([momentum.norm(dim=-1, keepdim=True), momentum], dim=-1)
    return jets.features.double(), four_momenta, jets.mask


def close(one: Tensor, two: Tensor, tolerance: float = 1e-9) -> bool:
    return (one - two).abs().max().item() < tolerance


def test_number_of_parameters(name):
    model = create_model(name, input_dim=7, num_classes=2)
    assert sum(parameter.numel() for parameter in model.parameters()) == NUM_PARAMETERS[name]


def test_logits_have_one_column_a_class(name, jets):
    model = create_model(name, input_dim=7, num_classes=5)
    logits = model(jets.features, jets.four_momenta, jets.mask)
    assert logits.shape == (8, 5)
    assert logits.dtype == torch.float32


def test_jets_differ(model, jets):
    """The other tests would pass on a constant."""
    logits = model(*inputs(jets))
    assert logits.std(dim=0).min() > 1e-3


def test_order_of_particles_does_not_matter(model, jets):
    order = torch.randperm(jets.mask.shape[1])
    permuted = [value[:, order] for value in inputs(jets)]
    assert close(model(*permuted), model(*inputs(jets)))


def test_padding_does_not_matter(model, jets):
    features, four_momenta, mask = inputs(jets)
    rubbish = [pad(value, (0, 0, 0, 40), value=float("nan")) for value in (features, four_momenta)]
    assert close(model(*rubbish, pad(mask, (0, 40))), model(*inputs(jets)))


def test_jets_in_the_same_batch_do_not_matter(model, jets):
    together = model(*inputs(jets))
    alone = torch.cat([model(*(value[jet : jet + 1] for value in inputs(jets))) for jet in range(8)])
    assert close(alone, together)


def test_every_parameter_gets_a_gradient(model, jets):
    """In evaluation mode, since a bias before a batch normalisation has none in training."""
    cross_entropy(model(*inputs(jets)), jets.label).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_stages_hold_every_weight_once_and_the_classes_in_the_head(name):
    """The head is the last stage, and nothing but it depends on the number of classes."""
    model, other = (create_model(name, input_dim=7, num_classes=classes) for classes in (2, 5))
    stages = stages_of_model(model)
    assert len(stages) >= 3
    shapes = [{name: value.shape for name, value in each.state_dict().items()} for each in (model, other)]
    changed = {name for name in shapes[0] if shapes[0][name] != shapes[1][name]}
    assert changed
    assert all(any(name.startswith(f"{part}.") for part in stages["head"]) for name in changed)


def test_frozen_stages_leave_the_other_gradients_alone(model, jets):
    """Every other stage is frozen, so gradients end in frozen stages and pass through them."""
    few, label = [value[:3] for value in inputs(jets)], jets.label[:3]
    cross_entropy(model(*few), label).backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    frozen = [part for parts in list(stages_of_model(model).values())[-2::-2] for part in parts]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(f"{name}.".startswith(f"{part}.") for part in frozen))
    cross_entropy(model(*few), label).backward()
    assert {parameter.requires_grad for parameter in model.parameters()} == {False, True}
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.grad is None or torch.allclose(parameter.grad, expected[name], rtol=1e-9, atol=1e-12), name


@pytest.mark.parametrize("train", [False, True])
def test_empty_and_tiny_jets_are_finite(model, jets, train):
    features, four_momenta, mask = inputs(jets)
    particle = torch.arange(mask.shape[1])
    mask = mask & (particle < torch.arange(8)[:, None])
    logits = model.train(train)(features, four_momenta, mask)
    cross_entropy(logits, jets.label).backward()
    assert logits.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_a_batch_of_empty_jets_is_finite(model, jets):
    features, four_momenta, mask = inputs(jets)
    assert model(features, four_momenta, torch.zeros_like(mask)).isfinite().all()


@pytest.mark.parametrize("width", [0, 5])
@pytest.mark.parametrize("train", [False, True])
def test_a_batch_of_no_jets_gives_no_logits(model, jets, train, width):
    """As the last piece of a file may be; in training the running statistics stay numbers."""
    nothing = [value[:0, :width] for value in inputs(jets)]
    logits = model.train(train)(*nothing)
    assert logits.shape == (0, 2)
    logits.sum().backward()
    assert all(value.isfinite().all() for value in model.state_dict().values())
    if has_encode(model):
        assert model.encode(*nothing).shape == (0, model.embed_dim)


def test_a_training_step_on_one_particle_is_finite(model, jets):
    """A single row has no variance."""
    logits = model.train()(*(value[:1, :1] for value in inputs(jets)))
    logits.sum().backward()
    assert logits.isfinite().all()
    assert all(value.isfinite().all() for value in model.state_dict().values())


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", [0, slice(None)])
def test_a_wrong_number_stays_in_its_jet(model, jets, wrong, place):
    """Its jet has no score, and every other jet has its own, to the last bit."""
    features, four_momenta = jets.features.clone(), jets.four_momenta.clone()
    features[3, place] = four_momenta[3, place] = wrong
    with torch.no_grad():
        expected = model.float()(jets.features, jets.four_momenta, jets.mask)
        logits = model(features, four_momenta, jets.mask)
    others = torch.arange(8) != 3
    assert torch.equal(logits[others], expected[others])
    assert not logits[3].isfinite().any()


def test_saved_weights_give_the_same_logits(name, model, jets, tmp_path):
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    other = create_model(name, input_dim=7, num_classes=2).double().eval()
    assert not torch.equal(other(*inputs(jets)), model(*inputs(jets)))
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(other(*inputs(jets)), model(*inputs(jets)))


def test_same_input_same_output(model, jets):
    assert torch.equal(model(*inputs(jets)), model(*inputs(jets)))


#: Models of weights that have learnt from what rounding leaves of a mass, so the precision of the momenta counts.
LEARNT_FROM_ROUNDING = ("particle_transformer_weaver", "particle_transformer_weaver_pre_activation")


def test_float32_is_close_to_float64(name, model, jets):
    exact = model(*inputs(jets))
    logits = model.float()(jets.features, jets.four_momenta, jets.mask)
    assert close(logits.double(), exact, tolerance=0.1 if name in LEARNT_FROM_ROUNDING else 1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_finite_and_near(name, model, jets, dtype):
    """On few particles, for CPUs emulate float16."""
    exact = model(*(value[:3, :16] for value in inputs(jets)))
    few = jets.features[:3, :16], jets.four_momenta[:3, :16], jets.mask[:3, :16]
    model.float()
    if name in LEARNT_FROM_ROUNDING:
        exact = model(*few).double()
    for train in (False, True):
        with torch.autocast("cpu", dtype=dtype):
            logits = model.train(train)(*few)
            loss = cross_entropy(logits.float(), jets.label[:3])
        loss.backward()
        assert loss.isfinite()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
        assert train or close(logits.double(), exact, tolerance=0.1 if dtype == torch.bfloat16 else 0.0125)


def test_zoo_check_finds_every_promise_kept(name):
    """On five jets of seven hard particles: what is promised in `symmetries` and what all models promise."""
    jets = read_some("sample:top_tagging/test", 5)
    first = np.concatenate([np.arange(7) + start for start in np.cumsum(jets.counts) - jets.counts])
    jets = jets._replace(four_momenta=jets.four_momenta[first], counts=np.full_like(jets.counts, 7))
    table = feature_table("kin")
    model = settle(create_model(name, input_dim=7, num_classes=2), table, jets)
    changes = {change.alteration: change for change in check_changes(model, table, jets)}
    assert [change for change in changes.values() if not change.is_kept] == []
    promised = {family for name, change in changes.items() if change.is_promised for family in [name.split(",")[0]]}
    assert promised == {"order of particles", "padding", "other jets of the batch"} | getattr(
        model, "symmetries", set()
    )
    assert [requirement.what for requirement in check_requirements(model, table, jets) if not requirement.is_met] == []


def encoded(model: nn.Module, *tensors: Tensor) -> Tensor:
    if not has_encode(model):
        pytest.skip("has no representation of single particles")
    return model.encode(*tensors)


def test_some_models_encode_particles():
    models = {name: create_model(name, input_dim=7, num_classes=2) for name in list_models()}
    encoding = {name for name, model in models.items() if has_encode(model)}
    assert encoding >= {"particle_transformer", "particlenet", "lorentznet"}


def test_representations_follow_their_particles(model, jets):
    """Rows are those of the particles in the order of the input, for jets of any length beside others or alone."""
    features, four_momenta, mask = inputs(jets)
    rows = encoded(model, features, four_momenta, mask)
    assert rows.shape == (mask.sum(), model.embed_dim)
    assert rows.std(dim=0).max() > 1e-3
    alone = [model.encode(*(value[jet : jet + 1] for value in inputs(jets))) for jet in range(8)]
    assert close(torch.cat(alone), rows)
    order = torch.randperm(mask.shape[1])
    padded = rows.new_zeros(*mask.shape, rows.shape[1]).masked_scatter(mask[..., None], rows)
    assert close(model.encode(*(value[:, order] for value in inputs(jets))), padded[:, order][mask[:, order]])


def test_readout_is_what_the_representation_does_not_use(model, jets):
    encoded(model, *inputs(jets)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (name.partition(".")[0] in model.readout), name


@pytest.mark.parametrize("name", EVENT_MODELS, indirect=True)
def test_context_moves_the_logits_of_its_own_event(model, jets):
    without = model(*inputs(jets))
    context = torch.zeros(8, model.context_dim)
    assert torch.equal(model(*inputs(jets), context), without), "a context left out counts as zero"
    for column in range(2):
        context = torch.zeros(8, 2)
        context[3, column] = 1.0
        changed = (model(*inputs(jets), context) - without).abs().amax(dim=1) > 1e-6
        assert changed.nonzero().flatten().tolist() == [3]


@pytest.mark.parametrize("name", EVENT_MODELS, indirect=True)
def test_context_of_another_width_is_refused(model, jets):
    with pytest.raises(ValueError, match=r"context is \(8, 3\), but this model takes \(8, 2\)"):
        model(*inputs(jets), torch.zeros(8, 3))
