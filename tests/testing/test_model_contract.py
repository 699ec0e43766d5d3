"""The contract that other packages' suites use: one model keeps all of it, and each broken promise is caught."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import zoo
from zoo.kernels.building import join_context
from zoo.model import JetModel
from zoo.testing import ModelContract


class Small(JetModel):
    """Deep sets of transverse momenta, with a context of two numbers."""

    context_dim = 2
    embed_dim = 8
    symmetries = frozenset({"beam rotation", "beam boost"})

    def __init__(self, input_dim: int, num_classes: int) -> None:
        super().__init__()
        self.embedding = nn.Linear(1, self.embed_dim)
        self.head = nn.Linear(self.embed_dim + self.context_dim, num_classes)

    def stages(self) -> dict[str, list[str]]:
        return {"embedding": ["embedding"], "head": ["head"]}

    def reference_encode(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
        log_pt = four_momenta[..., 1:3].norm(dim=-1, keepdim=True).log1p()
        return torch.nn.functional.softplus(self.embedding(log_pt.to(self.embedding.weight.dtype)))

    def fast_forward(
        self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None
    ) -> Tensor:
        rows = self.reference_encode(features, four_momenta[mask], mask)
        pooled = rows.new_zeros(len(mask), self.embed_dim).index_add(0, mask.nonzero()[:, 0], rows)
        return self.head(join_context(pooled, context, self.context_dim))

    def reference_forward(
        self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None
    ) -> Tensor:
        rows = self.reference_encode(features, four_momenta, mask)
        pooled = (rows * mask[..., None]).sum(1)
        return self.head(join_context(pooled, context, self.context_dim))


class TestSmall(ModelContract):
    num_parameters = 38

    def model(self, input_dim: int, num_classes: int) -> nn.Module:
        return Small(input_dim, num_classes)


class Plain(nn.Module):
    """A plain torch module, which knows nothing of the zoo."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(7, num_classes)

    def forward(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
        return self.layer(features.where(mask[..., None], 0).sum(1))


class TestPlain(ModelContract):
    def model(self, input_dim: int, num_classes: int) -> nn.Module:
        return Plain(num_classes)


def spoilt(spoil: Callable[..., Tensor]) -> type[Small]:
    """A model whose logits are what ``spoil`` makes of those of `Small`, which it is given with the inputs."""

    class Spoilt(Small):
        def forward(self, features: Tensor, four_momenta: Tensor, mask: Tensor, *context: Tensor) -> Tensor:
            logits = super().forward(features, four_momenta, mask, *context)
            return spoil(self, logits, features, four_momenta, mask)

    return Spoilt


class Unsaved(Small):
    """Part of what it has learnt is in no ``state_dict``."""

    def __init__(self, input_dim: int, num_classes: int) -> None:
        super().__init__(input_dim, num_classes)
        self.scale = torch.rand(()).item()

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.scale * super().forward(*inputs)


class Unused(Small):
    def __init__(self, input_dim: int, num_classes: int) -> None:
        super().__init__(input_dim, num_classes)
        self.unused = nn.Parameter(torch.ones(1))


class ClassesInTheBody(Small):
    def __init__(self, input_dim: int, num_classes: int) -> None:
        super().__init__(input_dim, num_classes)
        self.embedding = nn.Sequential(nn.Linear(1, num_classes), nn.Linear(num_classes, self.embed_dim))


class Normalised(Small):
    """Torch's own batch normalisation, which has no variance of one row."""

    def __init__(self, input_dim: int, num_classes: int) -> None:
        super().__init__(input_dim, num_classes)
        self.norm = nn.BatchNorm1d(num_classes)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.norm(super().forward(*inputs))


class Overstated(Small):
    symmetries = frozenset({"beam rotation", "beam boost", "rotation"})


class Backwards(Small):
    def encode(self, *inputs: Tensor) -> Tensor:
        return super().encode(*inputs).flip(0)


class WholeReadout(Small):
    readout = ()


class NoReadout(Small):
    readout = ("head", "embedding")


class Deaf(Small):
    def forward(self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None) -> Tensor:
        return super().forward(features, four_momenta, mask, None)


class Talkative(Small):
    """Each event hears the context of all."""

    def forward(self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None) -> Tensor:
        return super().forward(features, four_momenta, mask, None if context is None else context + context.mean(0))


class AnotherFastPath(Small):
    def fast_forward(self, *inputs: Tensor) -> Tensor:
        return super().fast_forward(*inputs) * (1 + 1e-6)


class AnotherFastRepresentation(Small):
    def fast_encode(self, *inputs: Tensor) -> Tensor:
        return super().fast_encode(*inputs).sin()


class FastPathOfMeans(Small):
    """As quick as it is wrong on a jet without particles."""

    def fast_forward(self, features: Tensor, four_momenta: Tensor, mask: Tensor, *context: Tensor) -> Tensor:
        number = mask.sum(1, keepdim=True)
        return super().fast_forward(features, four_momenta, mask, *context) * number / number


class DependsOnTheData(Small):
    """A page with an ``if``."""

    def reference_forward(self, features: Tensor, four_momenta: Tensor, mask: Tensor, *context: Tensor) -> Tensor:
        logits = super().reference_forward(features, four_momenta, mask, *context)
        return logits if mask.any() else 0 * logits


class HalfDifferentiable(Small):
    """The first derivative of a square is right but for a factor, and the second is not the derivative of that."""

    def reference_forward(self, *inputs: Tensor) -> Tensor:
        logits = super().reference_forward(*inputs)
        return logits * logits.detach()


class SilentlyWrongTwice(Small):
    def forward(self, *inputs: Tensor) -> Tensor:
        return self.fast_forward(*inputs)


class Overflowing(Small):
    def reference_forward(self, *inputs: Tensor) -> Tensor:
        return 1e6 * super().reference_forward(*inputs)


def rank(mask: Tensor) -> Tensor:
    return torch.arange(mask.shape[1], dtype=torch.float64) * mask


BROKEN = [
    ("logits_have_one_column_a_class", spoilt(lambda self, z, f, p, mask: z[:, :2])),
    ("logits_have_one_column_a_class", spoilt(lambda self, z, f, p, mask: z.double())),
    ("jets_differ", spoilt(lambda self, z, f, p, mask: 0 * z)),
    ("order_of_particles_does_not_matter", spoilt(lambda self, z, f, p, mask: z + (rank(mask) * p[..., 0]).sum())),
    ("padding_does_not_matter", spoilt(lambda self, z, f, p, mask: z / mask.shape[1])),
    ("padding_does_not_matter", spoilt(lambda self, z, f, p, mask: z + 0 * f.sum())),
    ("rubbish_in_padding_does_not_matter_to_the_page", spoilt(lambda self, z, f, p, mask: z + 0 * f.sum())),
    ("jets_in_the_same_batch_do_not_matter", spoilt(lambda self, z, f, p, mask: z - z.mean(0))),
    ("every_parameter_gets_a_gradient", Unused),
    ("stages_hold_every_weight_once_and_the_classes_in_the_head", Unused),
    ("stages_hold_every_weight_once_and_the_classes_in_the_head", ClassesInTheBody),
    (
        "frozen_stages_leave_the_other_gradients_alone",
        spoilt(lambda self, z, f, p, mask: z * (1 + self.embedding.weight.requires_grad)),
    ),
    ("empty_and_tiny_jets_are_finite", spoilt(lambda self, z, f, p, mask: z / mask.sum(1, keepdim=True))),
    ("a_batch_of_empty_jets_is_finite", spoilt(lambda self, z, f, p, mask: z / mask.sum())),
    ("a_batch_of_no_jets_gives_no_logits", spoilt(lambda self, z, f, p, mask: z + 0 * mask.sum(1).max())),
    ("a_training_step_on_one_particle_is_finite", Normalised),
    ("a_wrong_number_stays_in_its_jet", spoilt(lambda self, z, f, p, mask: z.nan_to_num(0.0))),
    ("a_wrong_number_stays_in_its_jet", spoilt(lambda self, z, f, p, mask: z + 0 * z.sum())),
    ("saved_weights_give_the_same_logits", Unsaved),
    ("same_input_same_output", spoilt(lambda self, z, f, p, mask: z + 1e-6 * torch.rand_like(z))),
    ("float32_is_close_to_float64", spoilt(lambda self, z, f, p, mask: (z + 1e5) - 1e5)),
    ("half_precision_is_finite_and_near_to_float32", spoilt(lambda self, z, f, p, mask: (1e6 * z) / 1e6)),
    ("zoo_check_finds_every_promise_kept", Overstated),
    ("zoo_check_finds_every_promise_kept", Unused),
    ("representations_follow_their_particles", Backwards),
    ("readout_is_what_the_representation_does_not_use", WholeReadout),
    ("readout_is_what_the_representation_does_not_use", NoReadout),
    ("context_moves_the_logits_of_its_own_event", Deaf),
    ("context_moves_the_logits_of_its_own_event", Talkative),
    ("context_of_another_width_is_refused", Deaf),
    ("number_of_parameters", Unused),
    ("fast_path_equals_the_page", AnotherFastPath),
    ("fast_representation_equals_that_of_the_page", AnotherFastRepresentation),
    ("fast_path_equals_the_page_on_jets_of_next_to_nothing", FastPathOfMeans),
    ("an_exported_model_takes_batches_of_any_size", DependsOnTheData),
    ("the_page_can_be_mapped_over_jets_and_over_weights", DependsOnTheData),
    ("the_page_is_differentiable_twice", HalfDifferentiable),
    ("a_fast_path_differentiated_twice_names_the_remedy", SilentlyWrongTwice),
    ("the_page_is_finite_in_half_precision", Overflowing),
]
#: How a broken promise shows: in an assert, a `pytest.raises`, or an error of torch.
FAILURES = (
    AssertionError,
    pytest.fail.Exception,
    RuntimeError,
    ValueError,
    IndexError,
    torch._dynamo.exc.UserError,
)
#: Tests that are asked once for each of some values, here for those that a broken model does not survive.
ASKED = {
    "empty_and_tiny_jets_are_finite": (False,),
    "a_batch_of_no_jets_gives_no_logits": (False, 0),
    "a_wrong_number_stays_in_its_jet": (float("nan"), 0),
    "fast_path_equals_the_page": (False, torch.float64),
    "fast_representation_equals_that_of_the_page": (False,),
    "fast_path_equals_the_page_on_jets_of_next_to_nothing": (0,),
    "the_page_is_finite_in_half_precision": (False, torch.float16),
    "half_precision_is_finite_and_near_to_float32": (torch.float16, 0.0125),
}


@pytest.mark.parametrize(("test", "broken"), BROKEN)
def test_a_broken_promise_is_caught(test, broken):
    contract = type("Broken", (TestSmall,), {"model": lambda self, *sizes: broken(*sizes)})()
    with pytest.raises(FAILURES):
        getattr(contract, f"test_{test}")(*ASKED.get(test, ()))


def test_every_promise_has_a_model_that_breaks_it():
    """But for the controls in the contract itself."""
    tests = {name.removeprefix("test_") for name in dir(ModelContract) if name.startswith("test_")}
    assert tests - {test for test, _ in BROKEN} == {
        "another_number_in_the_page_is_found",
        "zoo_check_sees_a_broken_symmetry",
    }


@pytest.mark.slow
def test_the_example_of_the_docs_passes_in_a_suite_of_its_own(tmp_path):
    """As another package would have it: without the settings of this repository, and with strict ones."""
    page = (Path(zoo.__file__).parents[1] / "docs" / "models.md").read_text()
    part = page[page.index("## A model of your own") : page.index("## What all promise")]
    model, tests = re.findall(r"```python\n(.*?)```", part, re.DOTALL)
    (tmp_path / "mypackage").mkdir()
    (tmp_path / "mypackage" / "models.py").write_text(model)
    (tmp_path / "test_mymodel.py").write_text(tests)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\npythonpath = .\n")
    found = subprocess.run([sys.executable, "-m", "pytest", "-q"], cwd=tmp_path, capture_output=True, text=True)
    assert re.search(r"\d{2} passed, \d+ skipped in", found.stdout), found.stdout
