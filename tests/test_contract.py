"""Every model of the zoo keeps what `zoo.testing.ModelContract` asks of all models."""

import inspect

import pytest
from torch import nn

from zoo import create_model, list_models
from zoo.model import declared, has_encode, lacking
from zoo.registry import model_facts
from zoo.testing import ModelContract

NUM_PARAMETERS = {
    "cnn_for_events": 94_306,
    "cnn_jetimage": 321_826,
    "cnn_jetimage_40": 162_082,
    "efn": 82_358,
    "egnn": 222_266,
    "fully_connected_for_events": 131_970,
    "lgatr_slim_tiny": 45_090,
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
    "pelican_11k": 11_347,
    "pfn": 83_842,
    "pfn_energyflow": 82_458,
    "pfn_for_events": 84_098,
    "resnext50_jetimage": 1_457_314,
}


#: Models of weights that have learnt from what rounding leaves of a mass, so the precision of the momenta counts.
LEARNT_FROM_ROUNDING = ("particle_transformer_weaver", "particle_transformer_weaver_pre_activation")

#: Models that are others in another size: the one whose code they share, which is asked for all, and their parameters.
OTHER_SIZES = {
    "lgatr_slim": ("lgatr_slim_tiny", 1_411_458),
    "lgatr_slim_small": ("lgatr_slim_tiny", 266_370),
    "pelican": ("pelican_11k", 208_797),
    "pelican_3k": ("pelican_11k", 3_510),
    "pelican_48k": ("pelican_11k", 48_482),
}


#: Models of which page and fast path are further apart in float32: distances of neighbours are differences of larger
#: numbers in one, gradients in training are sums over all pairs that cancel in the other.
PAGE_IN_FLOAT64_ONLY = ("particlenet_weaver", "pelican_11k")


#: Models of many blocks that differ in inputs, ends or numbers from another of their class. That one is asked in its
#: full depth, and they with their first and last block, which is a third of the time.
SHALLOW = [name for name in NUM_PARAMETERS if name.startswith(("lorentznet_", "particle_transformer_"))]


def contract(name: str) -> type[ModelContract]:
    """The tests of one model."""

    class Contract(ModelContract):
        num_parameters = None if name in SHALLOW else NUM_PARAMETERS[name]
        least_stages = 3
        page_in_float32 = name not in PAGE_IN_FLOAT64_ONLY
        float32_bound = 0.1 if name in LEARNT_FROM_ROUNDING else 1e-4
        # products of boosted momenta in GeV^2, of which those of a narrow jet are the difference of large numbers
        symmetry_bound = 1e-6 if name.startswith("pelican") else ModelContract.symmetry_bound

        def model(self, input_dim: int, num_classes: int) -> nn.Module:
            model = create_model(name, input_dim=input_dim, num_classes=num_classes)
            if name in SHALLOW:
                model.blocks = nn.ModuleList([model.blocks[0], model.blocks[-1]])
            return model

        @pytest.mark.slow
        def test_an_exported_model_takes_batches_of_any_size(self) -> None:
            super().test_an_exported_model_takes_batches_of_any_size()

    return Contract


for name in NUM_PARAMETERS:
    globals()[f"Test_{name}"] = contract(name)


def test_every_model_is_asked():
    assert sorted(NUM_PARAMETERS | OTHER_SIZES) == [name for name in list_models() if "." not in name]


@pytest.mark.parametrize("name", SHALLOW)
def test_number_of_parameters_in_full_depth(name):
    parameters = create_model(name, input_dim=7, num_classes=2).parameters()
    assert sum(parameter.numel() for parameter in parameters) == NUM_PARAMETERS[name]


@pytest.mark.parametrize("name", OTHER_SIZES)
def test_another_size_is_the_same_model(name):
    same, parameters = OTHER_SIZES[name]
    model, other = (create_model(each, input_dim=7, num_classes=2) for each in (name, same))
    assert type(model) is type(other)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_constructors_name_sizes_in_one_order_and_the_head_is_last():
    order = ("input_dim", "num_classes", "embed_dim", "num_layers", "num_heads", "dropout")
    for name in list_models():
        model = create_model(name, input_dim=7, num_classes=2)
        named = [word for word in inspect.signature(type(model)).parameters if word in order]
        assert named == [word for word in order if word in named], name
        assert [part for part, _ in model.named_children()][-1] == "head", name


def test_every_model_is_a_page():
    plain = [name for name in NUM_PARAMETERS if lacking(create_model(name, input_dim=7, num_classes=2))]
    assert plain == []


def test_models_of_events_take_the_missing_transverse_momentum():
    models = {name: create_model(name, input_dim=7, num_classes=2) for name in NUM_PARAMETERS}
    context = {name: declared(model).context_dim for name, model in models.items()}
    assert context == {name: 2 * (model_facts(name).sees == "events") for name in NUM_PARAMETERS}


def test_some_models_encode_particles():
    models = {name: create_model(name, input_dim=7, num_classes=2) for name in NUM_PARAMETERS}
    encoding = {name for name, model in models.items() if has_encode(model)}
    assert encoding >= {"particle_transformer", "particlenet", "lorentznet"}
