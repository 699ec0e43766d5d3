"""What every model promises, whatever its architecture."""

import io

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from zoo.check import Change, check_changes, check_requirements, settle
from zoo.check.measure import ALWAYS, SAME_FEATURES
from zoo.model import JetModel, declared, has_encode, is_readout, lacking
from zoo.testing.subject import INPUT_DIM, Subject, encode, gradients, hard_jets, has_finite_gradients
from zoo.training.fine_tuning import stages_of_model


def close(one: Tensor, two: Tensor, tolerance: float = 1e-9) -> bool:
    """Whether no number differs by more than the tolerance."""
    return (one - two).abs().max().item() < tolerance


#: Exact symmetries that change logits by more than rounding: an emission has a billionth of the energy, and after a
#: boost by 100 products of momenta cancel in eight digits. `zoo.check` holds them to its own bound.
HARD_TO_KEEP = ("soft emission", "boost, gamma 100", f"boost, gamma 100{SAME_FEATURES}")


class WithDirections(nn.Module):
    """A model whose logits depend also on the direction of each particle."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.symmetries, self.largest_gamma = declared(model).symmetries, declared(model).largest_gamma

    @property
    def beams(self) -> Tensor | None:
        """The beams of the model."""
        return declared(self.model).beams

    @beams.setter
    def beams(self, beams: Tensor) -> None:
        self.model.beams = beams

    def forward(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
        """Logits (batch, class)."""
        logits = self.model(features, four_momenta, mask)
        cosine = four_momenta[..., 1] / four_momenta[..., 0]
        return logits + 0.1 * cosine.where(mask, 0).square().sum(1, keepdim=True).to(logits.dtype)


class Promises(Subject):
    """Order, padding, other jets, empty jets, gradients, precision, symmetries and the rest of a call."""

    def test_number_of_parameters(self) -> None:
        if self.num_parameters is None:
            pytest.skip("num_parameters is not given")
        parameters = self.model(INPUT_DIM, 2).parameters()
        assert sum(parameter.numel() for parameter in parameters) == self.num_parameters

    def test_logits_have_one_column_a_class(self) -> None:
        jets = self.jets
        logits = self.model(INPUT_DIM, 5)(jets.features, jets.four_momenta, jets.mask)
        assert logits.shape == (8, 5)
        assert logits.dtype == torch.float32

    def test_jets_differ(self) -> None:
        """Otherwise the other tests would pass for a constant model."""
        assert self.settled()(*self.inputs).std(dim=0).min() > 1e-3

    def test_order_of_particles_does_not_matter(self) -> None:
        model, inputs = self.settled(), self.inputs
        order = torch.randperm(inputs[2].shape[1])
        assert close(model(*(value[:, order] for value in inputs)), model(*inputs))

    def test_padding_does_not_matter(self) -> None:
        model, inputs = self.settled(), self.inputs
        *values, mask = inputs
        rubbish = [pad(value, (0, 0, 0, 40), value=float("nan")) for value in values]
        assert close(model(*rubbish, pad(mask, (0, 40))), model(*inputs))

    def test_jets_in_the_same_batch_do_not_matter(self) -> None:
        model, inputs = self.settled(), self.inputs
        alone = torch.cat([model(*(value[jet : jet + 1] for value in inputs)) for jet in range(8)])
        assert close(alone, model(*inputs))

    def test_every_parameter_gets_a_gradient(self) -> None:
        """In evaluation mode, since a bias before a batch normalisation has none in training."""
        model = self.settled()
        cross_entropy(model(*self.inputs), self.jets.label).backward()
        found = gradients(model)
        for name, _ in model.named_parameters():
            assert name in found, name
            assert found[name].abs().max() > 0, name

    def test_stages_hold_every_weight_once_and_the_classes_in_the_head(self) -> None:
        """The head is the last stage, and nothing but it depends on the number of classes."""
        model, other = (self.model(INPUT_DIM, classes) for classes in (2, 5))
        stages = self._stages(model)
        assert len(stages) >= self.least_stages
        shapes = [{name: value.shape for name, value in each.state_dict().items()} for each in (model, other)]
        changed = {name for name in shapes[0] if shapes[0][name] != shapes[1][name]}
        assert changed
        assert all(any(name.startswith(f"{part}.") for part in stages["head"]) for name in changed)

    def test_frozen_stages_leave_the_other_gradients_alone(self) -> None:
        """Every other stage is frozen, so gradients end in frozen stages and pass through them."""
        model = self.settled()
        few, label = [value[:3] for value in self.inputs], self.jets.label[:3]
        frozen = [part for parts in list(self._stages(model).values())[-2::-2] for part in parts]
        cross_entropy(model(*few), label).backward()
        expected = {name: gradient.clone() for name, gradient in gradients(model).items()}
        model.zero_grad()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not any(f"{name}.".startswith(f"{part}.") for part in frozen))
        cross_entropy(model(*few), label).backward()
        assert {parameter.requires_grad for parameter in model.parameters()} == {False, True}
        found = gradients(model)
        assert found.keys() == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        for name, gradient in found.items():
            assert torch.allclose(gradient, expected[name], rtol=1e-9, atol=1e-12), name

    @pytest.mark.parametrize("train", [False, True])
    def test_empty_and_tiny_jets_are_finite(self, train: bool) -> None:
        model, (features, four_momenta, mask) = self.settled(), self.inputs
        mask = mask & (torch.arange(mask.shape[1]) < torch.arange(8)[:, None])
        logits = model.train(train)(features, four_momenta, mask)
        cross_entropy(logits, self.jets.label).backward()
        assert logits.isfinite().all()
        assert has_finite_gradients(model)

    def test_a_batch_of_empty_jets_is_finite(self) -> None:
        features, four_momenta, mask = self.inputs
        assert self.settled()(features, four_momenta, torch.zeros_like(mask)).isfinite().all()

    @pytest.mark.parametrize("width", [0, 5])
    @pytest.mark.parametrize("train", [False, True])
    def test_a_batch_of_no_jets_gives_no_logits(self, train: bool, width: int) -> None:
        """The last piece of a file may be empty; in training the running statistics stay finite."""
        model, nothing = self.settled(), [value[:0, :width] for value in self.inputs]
        logits = model.train(train)(*nothing)
        assert logits.shape == (0, 2)
        logits.sum().backward()
        assert all(value.isfinite().all() for value in model.state_dict().values())
        if has_encode(model):
            assert encode(model, *nothing).shape == (0, declared(model).embed_dim)

    def test_a_training_step_on_one_particle_is_finite(self) -> None:
        """A single row has no variance."""
        model = self.settled()
        logits = model.train()(*(value[:1, :1] for value in self.inputs))
        logits.sum().backward()
        assert logits.isfinite().all()
        assert all(value.isfinite().all() for value in model.state_dict().values())

    @pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
    @pytest.mark.parametrize("place", [0, slice(None)])
    def test_a_wrong_number_stays_in_its_jet(self, wrong: float, place: int | slice) -> None:
        """Its jet has no score, and every other jet keeps its score, to the last bit."""
        model, jets = self.settled().float(), self.jets
        features, four_momenta = jets.features.clone(), jets.four_momenta.clone()
        features[3, place] = four_momenta[3, place] = wrong
        with torch.no_grad():
            expected = model(jets.features, jets.four_momenta, jets.mask)
            logits = model(features, four_momenta, jets.mask)
        others = torch.arange(8) != 3
        assert torch.equal(logits[others], expected[others])
        assert not logits[3].isfinite().any()

    def test_saved_weights_give_the_same_logits(self) -> None:
        model, file = self.settled(), io.BytesIO()
        torch.save(model.state_dict(), file)
        file.seek(0)
        other = self.model(INPUT_DIM, 2).double().eval()
        assert not torch.equal(other(*self.inputs), model(*self.inputs))
        other.load_state_dict(torch.load(file, weights_only=True))
        assert torch.equal(other(*self.inputs), model(*self.inputs))

    def test_same_input_same_output(self) -> None:
        model = self.settled()
        assert torch.equal(model(*self.inputs), model(*self.inputs))

    def test_float32_is_close_to_float64(self) -> None:
        model, jets = self.settled(), self.jets
        exact = model(*self.inputs)
        logits = model.float()(jets.features, jets.four_momenta, jets.mask)
        assert close(logits.double(), exact, tolerance=self.float32_bound)

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.1), (torch.float16, 0.0125)])
    def test_half_precision_is_finite_and_near_to_float32(self, dtype: torch.dtype, tolerance: float) -> None:
        """On few particles, since CPUs emulate float16."""
        model, jets = self.settled().float(), self.jets
        few = jets.features[:3, :16], jets.four_momenta[:3, :16], jets.mask[:3, :16]
        exact = model(*few)
        for train in (False, True):
            with torch.autocast("cpu", dtype=dtype):
                logits = model.train(train)(*few)
                loss = cross_entropy(logits.float(), jets.label[:3])
            loss.backward()
            assert loss.isfinite()
            assert has_finite_gradients(model)
            assert train or close(logits.float(), exact, tolerance)

    def test_zoo_check_finds_every_promise_kept(self) -> None:
        """On five jets of seven hard particles: what is promised in `symmetries` and what all models promise."""
        table, jets = hard_jets(5)
        model = settle(self.model(INPUT_DIM, 2), table, jets)
        promised = [change for change in check_changes(model, table, jets) if change.is_promised]
        assert [change for change in promised if not change.is_kept] == []
        assert {_family(change) for change in promised} == ALWAYS | declared(model).symmetries
        exact = [change for change in promised if change.alteration not in HARD_TO_KEEP]
        assert [change for change in exact if not change.float64 < self.symmetry_bound] == []
        requirements = check_requirements(model, table, jets)
        assert [requirement.what for requirement in requirements if not requirement.is_met] == []

    def test_zoo_check_sees_a_broken_symmetry(self) -> None:
        """Control: a term that knows the direction of each particle breaks every promise about directions."""
        symmetries = declared(self.settled()).symmetries
        if not symmetries:
            pytest.skip("promises no symmetry")
        table, jets = hard_jets(2)
        model = WithDirections(self.model(INPUT_DIM, 2).eval())
        broken = {_family(change) for change in check_changes(model, table, jets) if not change.is_kept}
        assert broken == symmetries

    def test_representations_follow_their_particles(self) -> None:
        """Rows follow the particles in the order of the input, for jets of any length, alone or with others."""
        model, inputs = self._backbone(), self.inputs
        mask = inputs[2]
        rows = encode(model, *inputs)
        assert rows.shape == (mask.sum(), declared(model).embed_dim)
        assert rows.std(dim=0).max() > 1e-3
        alone = [encode(model, *(value[jet : jet + 1] for value in inputs)) for jet in range(8)]
        assert close(torch.cat(alone), rows)
        order = torch.randperm(mask.shape[1])
        padded = rows.new_zeros(*mask.shape, rows.shape[1]).masked_scatter(mask[..., None], rows)
        assert close(encode(model, *(value[:, order] for value in inputs)), padded[:, order][mask[:, order]])

    def test_readout_is_what_the_representation_does_not_use(self) -> None:
        model = self._backbone()
        encode(model, *self.inputs).square().sum().backward()
        for name, parameter in model.named_parameters():
            assert (parameter.grad is None) == is_readout(name, model), name

    def test_context_moves_the_logits_of_its_own_event(self) -> None:
        model, width = self._with_context()
        without = model(*self.inputs)
        assert torch.equal(model(*self.inputs, torch.zeros(8, width)), without), "a context left out counts as zero"
        for column in range(width):
            context = torch.zeros(8, width)
            context[3, column] = 1.0
            changed = (model(*self.inputs, context) - without).abs().amax(dim=1) > 1e-6
            assert changed.nonzero().flatten().tolist() == [3]

    def test_context_of_another_width_is_refused(self) -> None:
        """Any context is refused if the model takes none."""
        model = self.settled()
        width = declared(model).context_dim
        if not (width or isinstance(model, JetModel)):
            pytest.skip("a plain module, which takes no context")
        with pytest.raises(ValueError, match=rf"context is \(8, {width + 1}\), but this model takes \(8, {width}\)"):
            model(*self.inputs, torch.zeros(8, width + 1))

    def _stages(self, model: nn.Module) -> dict[str, list[str]]:
        if "stages" in lacking(model):
            pytest.skip("a plain module, without stages")
        return stages_of_model(model)

    def _backbone(self) -> nn.Module:
        model = self.settled()
        if not has_encode(model):
            pytest.skip("has no representation of single particles")
        return model

    def _with_context(self) -> tuple[nn.Module, int]:
        model = self.settled()
        if not (width := declared(model).context_dim):
            pytest.skip("takes no context")
        return model, width


def _family(change: Change) -> str:
    """The symmetry that a change belongs to."""
    return change.alteration.removesuffix(SAME_FEATURES).partition(",")[0]
