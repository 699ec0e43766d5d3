"""Which form of a model is computed: the fast one, unless something needs to look into it or asks for the other."""

import threading

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor, nn

from zoo.kernels.mode import differentiable_once, reference, use_reference


class TwoForms(nn.Module):
    """Zeros by the reference, ones by a fast path that nothing can look into."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(2))

    def forward(self, values: Tensor) -> Tensor:
        if use_reference():
            return self.bias + 0 * values
        return self.bias + 0 * values[values[:, 0].isfinite()] + 1


@pytest.fixture
def model() -> TwoForms:
    return TwoForms()


VALUES = torch.ones(3, 2)
BATCH = ({0: torch.export.Dim("batch")},)


@pytest.mark.parametrize(
    "call",
    [
        lambda model: torch.export.export(model, (VALUES,), dynamic_shapes=BATCH, strict=False).module()(VALUES),
        lambda model: torch.export.export(model, (VALUES,), dynamic_shapes=BATCH, strict=True).module()(VALUES),
        lambda model: torch.jit.trace(model, VALUES, check_trace=False)(VALUES),
        lambda model: torch.func.vmap(lambda row: model(row[None])[0])(VALUES),
        lambda model: torch.func.grad_and_value(lambda values: model(values).sum())(VALUES)[1],
        lambda model: torch.func.vjp(model, VALUES)[0],
        lambda model: torch.func.jvp(model, (VALUES,), (VALUES,))[0],
        lambda model: torch.compile(model, backend="eager", fullgraph=True)(VALUES),
    ],
    ids=["export", "strict export", "jit.trace", "vmap", "grad", "vjp", "jvp", "compile"],
)
def test_what_looks_into_a_model_sees_the_reference(model, call):
    assert call(model).abs().max() == 0
    assert model(VALUES).min() == 1, "afterwards the fast path runs again"


def test_forward_differentiation_sees_the_reference(model):
    with forward_ad.dual_level():
        assert forward_ad.unpack_dual(model(forward_ad.make_dual(VALUES, VALUES))).primal.abs().max() == 0
    assert model(VALUES).min() == 1


def test_other_weights_alone_keep_the_fast_path(model):
    changed = torch.func.functional_call(model, {"bias": torch.ones(2)}, (VALUES,))
    assert changed.tolist() == [[2.0, 2.0]] * 3


def test_reference_is_asked_for_by_a_context_also_after_an_error(model):
    with reference():
        with reference():
            assert model(VALUES).max() == 0
        assert model(VALUES).max() == 0
        compiled = torch.compile(model, backend="eager")
        assert compiled(VALUES).max() == 0
    with pytest.raises(KeyError), reference():
        raise KeyError
    assert model(VALUES).min() == 1
    assert compiled(VALUES).max() == 0


def test_a_thread_asks_for_itself_alone(model):
    inside, finish = threading.Event(), threading.Event()
    seen = []

    def other() -> None:
        with reference():
            inside.set()
            finish.wait(10)
            seen.append(model(VALUES).max().item())

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(10)
    assert model(VALUES).min() == 1
    finish.set()
    thread.join()
    assert seen == [0]


def test_a_fast_path_differentiated_twice_says_what_to_do():
    values = torch.ones(3, requires_grad=True)
    result = differentiable_once(values.square(), "LorentzNet")
    with pytest.raises(RuntimeError, match=r"LorentzNet.*differentiate twice.*`with zoo.kernels.reference\(\):`"):
        torch.autograd.grad(result.sum(), values, create_graph=True)
    assert torch.autograd.grad(differentiable_once(values.square(), "").sum(), values)[0].tolist() == [2.0] * 3
    assert not differentiable_once(torch.ones(3), "").requires_grad
