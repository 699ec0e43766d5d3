"""Every model is written down twice: what its page says and what runs are the same function.

The reference, in plain dense torch, is the witness of the fast path; and it is the form that can be exported,
differentiated twice and vmapped.
"""

import copy
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from zoo import create_model, list_models
from zoo.data.batch import JetBatch
from zoo.kernels import reference
from zoo.model import JetModel
from zoo.registry import has_encode

#: Models whose page is still to be written.
PENDING = {
    "lgn",
}

#: How far the two may be apart, relative to the largest number of a tensor.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
#: Of gradients in float32: a ReLU whose input is zero but for rounding is open in one form and closed in the other. The
#: gradients of LorentzNet's page in float32 are as far, 3e-3, from those of the same page in float64.
GRADIENT_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-2}
#: Of the largest gradient of a model: what is smaller in all of a tensor, such as the gradient of a bias before a batch
#: normalisation in training, is zero but for rounding, and is compared with this.
SMALL_GRADIENT = 1e-2

#: Models whose distances weaver-core forms in float32 as differences of larger numbers.
NEIGHBORS_OF_ROUNDING = {"particlenet_weaver"}

#: Sizes of batches (jet, particle) to which an exported model is given.
SIZES = [(1, 1), (8, 2), (3, 50), (1, 128)]


@pytest.fixture(params=list_models(), scope="module")
def name(request: pytest.FixtureRequest) -> str:
    if request.param in PENDING:
        pytest.skip("its page is still to be written")
    return request.param


@pytest.fixture(scope="module")
def settled(name: str, jets: JetBatch) -> JetModel:
    model = create_model(name, input_dim=7, num_classes=2).double()
    momenta = jets.four_momenta.double()
    with torch.no_grad():
        for parameter in model.parameters():  # so that no weight is at a value that hides it, such as zero
            parameter.add_(0.02 * torch.randn_like(parameter))
        for _ in range(5):
            model(jets.features.double(), momenta, jets.mask)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # the two draw other random numbers
    return model.eval()


@pytest.fixture
def model(settled: JetModel) -> JetModel:
    """A model with random weights and running statistics of real jets, without dropout, in float64."""
    return copy.deepcopy(settled)


@pytest.fixture(scope="module")
def few(jets: JetBatch) -> list[Tensor]:
    """Features, momenta and mask of up to 30 particles of eight jets, one of them empty and one of one particle.

    Some jets have holes, and some rows of the batch are padding for all.
    """
    mask = torch.nn.functional.pad(jets.mask[:, :30], (0, 3))
    mask[2], mask[5, 1:], mask[3, 4:7] = False, False, False
    return [jets.features[:, :33].double(), jets.four_momenta[:, :33].double(), mask]


def context_for(model: JetModel, batch: int) -> list[Tensor]:
    return [torch.randn(batch, model.context_dim, dtype=torch.float64)] if model.context_dim else []


def answers(model: JetModel, inputs: list[Tensor], call: Callable[..., Tensor], cotangent: Tensor) -> dict[str, Tensor]:
    """The values of a call, gradients of all parameters and inputs, and all buffers afterwards."""
    model.zero_grad()
    leaves = [value.clone().requires_grad_(value.is_floating_point()) for value in inputs]
    values = call(*leaves)
    (values * cotangent.to(values.dtype)).sum().backward()
    differentiable = {f"input {number}": leaf for number, leaf in enumerate(leaves) if leaf.requires_grad}
    differentiable |= {f"parameter {name}": parameter for name, parameter in model.named_parameters()}
    gradients = {
        f"gradient of {name}": torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        for name, leaf in differentiable.items()
    }
    return {"values": values.detach()} | gradients | dict(model.named_buffers())


def require_same(ours: dict[str, Tensor], theirs: dict[str, Tensor], dtype: torch.dtype) -> None:
    assert ours.keys() == theirs.keys()
    largest = max(value.abs().max().item() for key, value in theirs.items() if key.startswith("gradient of p"))
    for key, expected in theirs.items():
        scale = expected.abs().max().item() if expected.numel() else 0.0
        if key.startswith("gradient"):
            scale = max(scale, SMALL_GRADIENT * largest)
        tolerance = (GRADIENT_TOLERANCE if key.startswith("gradient") else TOLERANCE)[dtype] * scale
        assert expected.isfinite().all(), key
        torch.testing.assert_close(ours[key], expected, rtol=0, atol=tolerance, msg=lambda m, k=key: f"{k}: {m}")


def compare(model: JetModel, inputs: list[Tensor], what: str, *, other: JetModel | None = None) -> None:
    """Fast path of one model beside the reference of a copy, or of an ``other`` model."""
    dtype = next(model.parameters()).dtype
    inputs = [value.to(dtype) if value.is_floating_point() else value for value in inputs]
    slow = copy.deepcopy(model) if other is None else other
    with torch.no_grad():
        cotangent = torch.randn_like(getattr(copy.deepcopy(model), what)(*inputs))
    fast = answers(model, inputs, getattr(model, what), cotangent)
    with reference():
        expected = answers(slow, inputs, getattr(slow, what), cotangent)
    require_same(fast, expected, dtype)


def test_pending_models_are_models_without_a_page(jets):
    """None is left in the list whose page is there."""
    assert set(list_models()) >= PENDING
    written = {name for name in PENDING if isinstance(create_model(name, input_dim=7, num_classes=2), JetModel)}
    assert written == set()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("train", [False, True])
def test_fast_path_equals_the_page(name, model, few, train, dtype):
    """Logits, all gradients, and running statistics after the step."""
    if dtype == torch.float32 and name in NEIGHBORS_OF_ROUNDING:
        pytest.skip("which particles are neighbours depends on the rounding of float32")
    compare(model.to(dtype).train(train), few + context_for(model, len(few[0])), "forward")


@pytest.mark.parametrize("train", [False, True])
def test_fast_representation_equals_that_of_the_page(model, few, train):
    if not has_encode(model):
        pytest.skip("has no representation of single particles")
    compare(model.train(train), few, "encode")


@pytest.mark.parametrize("particles", [0, 1])
def test_fast_path_equals_the_page_on_jets_of_next_to_nothing(model, few, particles):
    """In training, when there are too few particles for a variance."""
    inputs = [value[:1, :1] for value in few] + context_for(model, 1)
    inputs[2] = torch.full_like(inputs[2], bool(particles))
    compare(model.train(), inputs, "forward")


def test_another_number_in_the_page_is_found(model, few):
    """Control: one weight in the middle of the model, the one that matters most, moved by a thousandth of its size."""
    inputs = few + context_for(model, len(few[0]))
    parameters = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    number = len(parameters) // 2
    weight = parameters[number]
    (influence,) = torch.autograd.grad(model(*inputs).std(0).sum(), weight)
    other = copy.deepcopy(model)
    changed = [parameter for parameter in other.parameters() if parameter.ndim > 1][number]
    with torch.no_grad():
        changed.view(-1)[(influence * weight).abs().argmax()] *= 1.001
    with pytest.raises(AssertionError, match="not close"):
        compare(model, inputs, "forward", other=other)


@pytest.mark.slow
def test_an_exported_model_takes_batches_of_any_size(model, jets):
    """One program for jets of 1 to 128 particles and batches of 1 to 8."""

    def sized(batch: int, particles: int) -> tuple[Tensor, ...]:
        rows = torch.arange(particles) % jets.mask.shape[1]
        inputs = [value[:batch, rows] for value in (jets.features.double(), jets.four_momenta.double(), jets.mask)]
        return (*inputs, *context_for(model, batch))

    batch, particles = torch.export.Dim("batch", min=1), torch.export.Dim("particles", min=1)
    example = sized(4, 50)
    axes = ({0: batch, 1: particles},) * 3 + ({0: batch},) * len(example[3:])
    program = torch.export.export(model, example, dynamic_shapes=axes, strict=False).module()
    for size in SIZES:
        inputs = sized(*size)
        torch.testing.assert_close(program(*inputs), model(*inputs), rtol=0, atol=1e-9)


def test_the_page_is_differentiable_twice(model, few):
    """With respect to parameters beside a difference of first derivatives; with respect to inputs finite.

    The particles are few, and the step is small, so that no ReLU switches on it. They are given a mass, for at a
    vanishing one, which rapidities cut, they have no derivative.
    """
    features, momenta, mask = (value[:, :6] for value in few)
    inputs = [features, momenta * momenta.new_tensor([1.1, 1, 1, 1])]
    context = context_for(model, len(mask))
    leaves = [value.clone().requires_grad_() for value in inputs]
    parameters = dict(model.named_parameters())
    to_logits = torch.randn_like(model(*inputs, mask, *context))
    forth, across = ({name: torch.randn_like(value) for name, value in parameters.items()} for _ in range(2))

    def first(weights: dict[str, Tensor], *, graph: bool) -> Tensor:
        """Derivative along a direction of the parameters, at these weights."""
        with reference():
            logits = torch.func.functional_call(model, weights, (*leaves, mask, *context))
        gradients = torch.autograd.grad((logits * to_logits).sum(), list(weights.values()), create_graph=graph)
        return sum((gradient * to).sum() for gradient, to in zip(gradients, forth.values(), strict=True))

    second = torch.autograd.grad(first(parameters, graph=True), [*parameters.values(), *leaves], allow_unused=True)
    found = sum((of * to).sum() for of, to in zip(second, across.values(), strict=False) if of is not None)
    step = 1e-9
    there, back = (
        first(
            {name: (value + size * across[name]).detach().requires_grad_() for name, value in parameters.items()},
            graph=False,
        )
        for size in (step, -step)
    )
    assert found.abs() > 0
    torch.testing.assert_close(found, (there - back) / (2 * step), rtol=1e-4, atol=0)
    assert all(of.isfinite().all() for of in second if of is not None)


def test_a_fast_path_differentiated_twice_names_the_remedy(model, few):
    if type(model).fast_forward is JetModel.fast_forward:
        pytest.skip("has one form only")
    logits = model(*few, *context_for(model, len(few[0])))
    with pytest.raises(RuntimeError, match=r"differentiate twice.*zoo\.kernels\.reference\(\)"):
        torch.autograd.grad(logits.sum(), list(model.parameters()), create_graph=True)


def test_the_page_can_be_mapped_over_jets_and_over_weights(model, few):
    """`torch.func.vmap` over one jet at a time, and over an ensemble of weights."""
    inputs = [*few, *context_for(model, len(few[0]))]
    expected = model(*inputs)
    alone = torch.func.vmap(lambda *jet: model(*(value[None] for value in jet))[0])(*inputs)
    torch.testing.assert_close(alone, expected, rtol=0, atol=1e-9)
    members = [model, copy.deepcopy(model)]
    with torch.no_grad():
        for parameter in members[1].parameters():
            parameter.mul_(1.01)
    weights, buffers = torch.func.stack_module_state(members)
    together = torch.func.vmap(lambda *state: torch.func.functional_call(model, state, tuple(inputs)))(weights, buffers)
    torch.testing.assert_close(together, torch.stack([each(*inputs) for each in members]), rtol=0, atol=1e-9)
    assert (together[1] - together[0]).abs().max() > 1e-6


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_page_is_finite_in_half_precision(model, few, train, dtype):
    """The fast path is asked the same by the contract of all models."""
    model.float().train(train)
    inputs = [value[:3, :12].float() if value.is_floating_point() else value[:3, :12] for value in few]
    with reference(), torch.autocast("cpu", dtype=dtype):
        logits = model(*inputs, *(value.float() for value in context_for(model, 3)))
        logits.float().square().sum().backward()
    assert logits.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


WATCHED_IMPORT = """
import torch
from torch.utils._python_dispatch import TorchDispatchMode

class Watch(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.numel() > 10_000:
            print("made", tuple(result.shape), "by", function)
        return result

def state():
    probed = set(vars(torch.ops.mkldnn))
    return torch.get_rng_state().tolist(), torch.get_num_threads(), torch.get_default_dtype(), probed

before = state()
with Watch():
    import zoo.registry
    names = zoo.registry.list_models()
assert len(names) > 20
if state() != before:
    print("changed the state of torch")
"""


def test_importing_all_models_only_defines_them():
    """No memory is taken, no operator of torch probed, and nothing of torch's state set."""
    result = subprocess.run([sys.executable, "-c", WATCHED_IMPORT], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
