"""The model under test, and the jets it is tested on."""

import copy
import functools
from typing import ClassVar, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from zoo.check import read_some
from zoo.data.batch import JetBatch, collate, gather
from zoo.data.datasets import resolve_file
from zoo.data.features import FeatureTable, feature_table
from zoo.data.packed import PackedJets
from zoo.data.store import open_store
from zoo.model import JetModel, declared

#: Jets that ship with the package.
SAMPLE = "sample:top_tagging/test"
#: Seven features that the momenta give.
FEATURES = "kin"
INPUT_DIM = 7


class Subject:
    """What every part of the contract shares: the model of a subclass, and jets.

    Attributes:
        num_parameters: number of parameters with 7 features and 2 classes; None: it is not tested.
        least_stages: smallest number of stages that fine-tuning must be able to distinguish, if the model has stages.
        float32_bound: largest difference between logits in float32 and float64.
        page_in_float32: whether its fast path agrees with its page in float32; it does not if the answers depend on
            rounding, as the neighbours of a particle may.
        symmetry_bound: largest change of a logit by a promised symmetry in float64, over the spread of the logits.
    """

    num_parameters: ClassVar[int | None] = None
    least_stages: ClassVar[int] = 2
    float32_bound: ClassVar[float] = 1e-4
    page_in_float32: ClassVar[bool] = True
    symmetry_bound: ClassVar[float] = 1e-8

    _settled: ClassVar[dict[float, nn.Module]]

    def model(self, input_dim: int, num_classes: int) -> nn.Module:
        """A model with random weights, which a subclass defines."""
        raise NotImplementedError(f"{type(self).__name__}: define model(self, input_dim, num_classes)")

    @pytest.fixture(autouse=True)
    def _same_random_numbers(self) -> None:
        """Every test starts from the same random state, whichever tests ran before."""
        torch.manual_seed(20260401)

    @property
    def jets(self) -> JetBatch:
        """Eight jets of the packaged sample."""
        return _sample(8)

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Their features, momenta and mask in float64, massless as they were before rounding to float32."""
        jets = self.jets
        momentum = jets.four_momenta[..., 1:].double()
        four_momenta = torch.cat([momentum.norm(dim=-1, keepdim=True), momentum], dim=-1)
        return jets.features.double(), four_momenta, jets.mask

    def settled(self, noise: float = 0.0) -> nn.Module:
        """A model with random weights and the running statistics of real jets, in float64 and evaluation mode.

        Args:
            noise: spread of the noise added to every weight, so that none has a value that hides it, such as zero.
        """
        cls = type(self)
        made = vars(cls).get("_settled", {})  # of the class itself, not of one that it extends
        if noise not in made:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                torch.manual_seed(1)  # whichever test is the first to ask
                model = self.model(INPUT_DIM, 2).double()
                for parameter in model.parameters():
                    parameter.add_(noise * torch.randn_like(parameter))
                for _ in range(5):
                    model(*self.inputs)
            cls._settled = made | {noise: model.eval()}
        return copy.deepcopy(cls._settled[noise])

    def context(self, model: nn.Module, batch: int) -> list[Tensor]:
        """A random context (batch, context_dim), if the model takes one."""
        width = declared(model).context_dim
        return [torch.randn(batch, width, dtype=torch.float64)] if width else []


def encode(model: nn.Module, *inputs: Tensor) -> Tensor:
    """The representation that a backbone gives, whether a `JetModel` or a plain module."""
    return cast(JetModel, model).encode(*inputs)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """The gradients of all parameters that have one."""
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


def has_finite_gradients(model: nn.Module) -> bool:
    """Whether every parameter has a gradient, and all gradients are finite."""
    found = gradients(model)
    return len(found) == len(list(model.parameters())) and all(value.isfinite().all() for value in found.values())


@functools.cache
def _sample(number: int) -> JetBatch:
    return collate(gather(open_store(resolve_file(SAMPLE)), np.arange(number)), feature_table(FEATURES))


@functools.cache
def hard_jets(number: int, particles: int = 7) -> tuple[FeatureTable, PackedJets]:
    """Feature table, and jets of the hardest particles only, in float64, as `zoo.check` changes them."""
    jets = read_some(SAMPLE, number)
    first = np.concatenate([np.arange(particles) + start for start in np.cumsum(jets.counts) - jets.counts])
    counts = np.full_like(jets.counts, particles)
    return feature_table(FEATURES), jets._replace(four_momenta=jets.four_momenta[first], counts=counts)
