"""A model is written twice: its page, in plain dense torch, and the fast path, which must be the same function.

The page checks the fast path, and it is the form that can be exported, differentiated twice and mapped.
"""

import copy
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from zoo.kernels import reference
from zoo.model import JetModel, has_encode
from zoo.testing.subject import Subject, gradients

#: Largest difference between the two, relative to the largest number of a tensor.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
#: The same for gradients in float32: a ReLU whose input is zero up to rounding may be open in one form and closed in
#: the other, and either the page or the fast path in float32 may then agree with float64. So the rounding of the page
#: does not bound the difference: it is up to 1.8e-3 for ParticleNet, 5.2e-3 for LorentzNet as released.
GRADIENT_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-2}
#: Fraction of the largest gradient of a model. A tensor whose gradients are all smaller, such as that of a bias before
#: a batch normalisation in training, is zero up to rounding, and is compared with this.
SMALL_GRADIENT = 1e-2

#: Sizes of the batches (jet, particle) on which an exported model is tested.
SIZES = [(1, 1), (8, 2), (3, 50), (1, 128)]


class Page(Subject):
    """The two forms of a `JetModel`; for a plain module, which has only one, everything is skipped."""

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    @pytest.mark.parametrize("train", [False, True])
    def test_fast_path_equals_the_page(self, train: bool, dtype: torch.dtype) -> None:
        """Logits, all gradients, and running statistics after the step."""
        model = self._two_forms().to(dtype)
        if dtype == torch.float32 and not self.page_in_float32:
            pytest.skip("its answers depend on the rounding of float32")
        compare(model.train(train), self._inputs(model), "forward")

    @pytest.mark.parametrize("train", [False, True])
    def test_fast_representation_equals_that_of_the_page(self, train: bool) -> None:
        model = self._two_forms()
        if not has_encode(model):
            pytest.skip("has no representation of single particles")
        compare(model.train(train), self._few, "encode")

    @pytest.mark.parametrize("particles", [0, 1])
    def test_fast_path_equals_the_page_on_jets_of_next_to_nothing(self, particles: int) -> None:
        """In training, with too few particles for a variance."""
        model = self._two_forms()
        inputs = [value[:1, :1] for value in self._few] + self.context(model, 1)
        inputs[2] = torch.full_like(inputs[2], bool(particles))
        compare(model.train(), inputs, "forward")

    def test_another_number_in_the_page_is_found(self) -> None:
        """Control: one weight in the middle, the one that matters most, moved by a thousandth of its size."""
        model = self._two_forms()
        inputs, other = self._inputs(model), copy.deepcopy(model)
        weights = [parameter for parameter in model.parameters() if parameter.ndim > 1]
        middle = len(weights) // 2
        (influence,) = torch.autograd.grad(model(*inputs).std(0).sum(), weights[middle])
        changed = [parameter for parameter in other.parameters() if parameter.ndim > 1][middle]
        with torch.no_grad():
            changed.view(-1)[(influence * weights[middle]).abs().argmax()] *= 1.001
        with pytest.raises(AssertionError, match="not close"):
            compare(model, inputs, "forward", other=other)

    def test_an_exported_model_takes_batches_of_any_size(self) -> None:
        """One program for jets of 1 to 128 particles and batches of 1 to 8."""
        model, jets = self._page(), self.jets

        def sized(batch: int, particles: int) -> tuple[Tensor, ...]:
            rows = torch.arange(particles) % jets.mask.shape[1]
            inputs = [value[:batch, rows] for value in (jets.features.double(), jets.four_momenta.double(), jets.mask)]
            return (*inputs, *self.context(model, batch))

        batch, particles = torch.export.Dim("batch", min=1), torch.export.Dim("particles", min=1)
        example = sized(4, 50)
        axes = ({0: batch, 1: particles},) * 3 + ({0: batch},) * len(example[3:])
        program = torch.export.export(model, example, dynamic_shapes=axes, strict=False).module()
        for size in SIZES:
            inputs = sized(*size)
            torch.testing.assert_close(program(*inputs), model(*inputs), rtol=0, atol=1e-9)

    def test_the_page_is_differentiable_twice(self) -> None:
        """With respect to parameters beside a difference of first derivatives; with respect to inputs finite.

        The particles are few and the step is small, so that no ReLU switches within it. They are given a mass, because
        rapidities are clipped at zero mass and have no derivative there.
        """
        model = self._page()
        features, momenta, mask = (value[:, :6] for value in self._few)
        inputs = [features, momenta * momenta.new_tensor([1.1, 1, 1, 1])]
        context = self.context(model, len(mask))
        leaves = [value.clone().requires_grad_() for value in inputs]
        parameters: dict[str, Tensor] = dict(model.named_parameters())
        to_logits = torch.randn_like(model(*inputs, mask, *context))
        forth, across = ({name: torch.randn_like(value) for name, value in parameters.items()} for _ in range(2))

        def first(weights: dict[str, Tensor], *, graph: bool) -> Tensor:
            """Derivative along a direction of the parameters, at these weights."""
            with reference():
                logits = torch.func.functional_call(model, weights, (*leaves, mask, *context))
            found = torch.autograd.grad((logits * to_logits).sum(), list(weights.values()), create_graph=graph)
            return _sum(gradient * to for gradient, to in zip(found, forth.values(), strict=True))

        second = torch.autograd.grad(first(parameters, graph=True), [*parameters.values(), *leaves], allow_unused=True)
        found = _sum(of * to for of, to in zip(second, across.values(), strict=False) if of is not None)
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

    def test_rubbish_in_padding_does_not_matter_to_the_page(self) -> None:
        """Neither for its logits nor for a gradient, where NaN times zero would be NaN."""
        model = self._page()
        inputs = self._inputs(model)
        with reference():
            expected = model(*inputs)
            rubbish = [value.masked_fill(~inputs[2][..., None], torch.nan) for value in inputs[:2]]
            logits = model(*rubbish, *inputs[2:])
            logits.sum().backward()
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)
        assert all(value.isfinite().all() for value in gradients(model).values())

    def test_a_fast_path_differentiated_twice_names_the_remedy(self) -> None:
        model = self._two_forms()
        logits = model(*self._inputs(model))
        with pytest.raises(RuntimeError, match=r"differentiate twice.*zoo\.kernels\.reference\(\)"):
            torch.autograd.grad(logits.sum(), list(model.parameters()), create_graph=True)

    def test_the_page_can_be_mapped_over_jets_and_over_weights(self) -> None:
        """`torch.func.vmap` over one jet at a time, and over an ensemble of weights."""
        model = self._page()
        inputs = self._inputs(model)
        expected = model(*inputs)
        alone = torch.func.vmap(lambda *jet: model(*(value[None] for value in jet))[0])(*inputs)
        torch.testing.assert_close(alone, expected, rtol=0, atol=1e-9)
        members = [model, copy.deepcopy(model)]
        with torch.no_grad():
            for parameter in members[1].parameters():
                parameter.mul_(1.01)
        state = torch.func.stack_module_state(members)
        together = torch.func.vmap(lambda *of: torch.func.functional_call(model, of, tuple(inputs)))(*state)
        torch.testing.assert_close(together, torch.stack([each(*inputs) for each in members]), rtol=0, atol=1e-9)
        assert (together[1] - together[0]).abs().max() > 1e-6

    @pytest.mark.parametrize("train", [False, True])
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_the_page_is_finite_in_half_precision(self, train: bool, dtype: torch.dtype) -> None:
        """`zoo.testing.promises` tests the same for the fast path."""
        model = self._page().float().train(train)
        few = [value[:3, :12].float() if value.is_floating_point() else value[:3, :12] for value in self._few]
        with reference(), torch.autocast("cpu", dtype=dtype):
            logits = model(*few, *(value.float() for value in self.context(model, 3)))
            logits.float().square().sum().backward()
        assert logits.isfinite().all()
        assert all(value.isfinite().all() for value in gradients(model).values())

    @property
    def _few(self) -> list[Tensor]:
        """Features, momenta and mask of up to 20 particles of eight jets, one of them empty and one with one particle.

        Some jets have holes, and some rows of the batch are padding for all. There are more particles than the
        neighbours that a ParticleNet looks for, and few enough for a page, whose time grows with their square.
        """
        jets = self.jets
        mask = pad(jets.mask[:, :20], (0, 3))
        mask[2], mask[5, 1:], mask[3, 4:7] = False, False, False
        return [jets.features[:, :23].double(), jets.four_momenta[:, :23].double(), mask]

    def _inputs(self, model: nn.Module) -> list[Tensor]:
        few = self._few
        return few + self.context(model, len(few[0]))

    def _page(self) -> JetModel:
        """A model with random weights and the running statistics of real jets, without dropout, in float64."""
        model = self.settled(noise=0.02)
        if not isinstance(model, JetModel):
            pytest.skip("a plain module, without a page")
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # the two draw different random numbers
        return model

    def _two_forms(self) -> JetModel:
        model = self._page()
        if type(model).fast_forward is JetModel.fast_forward:
            pytest.skip("has one form only")
        return model


def _sum(parts: Iterable[Tensor]) -> Tensor:
    return torch.stack([part.sum() for part in parts]).sum()


def answers(model: nn.Module, inputs: list[Tensor], call: Callable[..., Tensor]) -> dict[str, Tensor]:
    """The values of a call, gradients of all parameters and inputs, and all buffers afterwards."""
    model.zero_grad()
    leaves = [value.clone().requires_grad_(value.is_floating_point()) for value in inputs]
    values = call(*leaves)
    cotangent = torch.randn(values.shape, generator=torch.Generator().manual_seed(1))
    (values * cotangent.to(values.dtype)).sum().backward()
    differentiable: dict[str, Tensor] = {f"input {n}": leaf for n, leaf in enumerate(leaves) if leaf.requires_grad}
    differentiable |= {f"parameter {name}": parameter for name, parameter in model.named_parameters()}
    found = {
        f"gradient of {name}": torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        for name, leaf in differentiable.items()
    }
    return {"values": values.detach()} | found | dict(model.named_buffers())


def require_same(
    ours: dict[str, Tensor], theirs: dict[str, Tensor], exact: dict[str, Tensor], dtype: torch.dtype
) -> None:
    """Compare what `answers` found; nothing needs to agree better than the page in ``dtype`` with ``exact`` answers."""
    assert ours.keys() == theirs.keys()
    largest = max(value.abs().max().item() for key, value in theirs.items() if key.startswith("gradient of p"))
    for key, expected in theirs.items():
        scale = expected.abs().max().item() if expected.numel() else 0.0
        if key.startswith("gradient"):
            scale = max(scale, SMALL_GRADIENT * largest)
        tolerance = (GRADIENT_TOLERANCE if key.startswith("gradient") else TOLERANCE)[dtype] * scale
        rounding = (expected - exact[key]).abs().max().item() if expected.numel() else 0.0
        assert expected.isfinite().all(), key
        torch.testing.assert_close(
            ours[key], expected, rtol=0, atol=max(tolerance, 2 * rounding), msg=f"{key}: {{}}".format
        )


def compare(model: JetModel, inputs: list[Tensor], what: str, *, other: JetModel | None = None) -> None:
    """Compare the fast path of one model with the reference of a copy, or of an ``other`` model."""
    dtype = next(model.parameters()).dtype
    slow, double = (copy.deepcopy(model if other is None else other) for _ in range(2))
    inputs = [value.to(dtype) if value.is_floating_point() else value for value in inputs]
    fast = answers(model, inputs, getattr(model, what))
    with reference():
        expected = exact = answers(slow, inputs, getattr(slow, what))
        if dtype != torch.float64:
            double, inputs = double.double(), [v.double() if v.is_floating_point() else v for v in inputs]
            exact = answers(double, inputs, getattr(double, what))
    require_same(fast, expected, exact, dtype)
