"""Substructure pretraining: the model learns observables of a jet before any label is read.

Masses, N-subjettiness and energy correlations are known to distinguish top quarks from gluons, and they can be computed
for any jet. A backbone that predicts them has learnt to add momenta and to compare angles, which it would learn only
slowly from few labels. Fine-tuning starts from there.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.data.batch import JetBatch
from zoo.model import declared
from zoo.physics.quantities import SUBSTRUCTURE_LABELS
from zoo.physics.substructure import observables, substructure
from zoo.report import Drawings
from zoo.tasks.pretraining.objective import Pretraining, mean_representation
from zoo.tasks.pretraining.report import draw_scatter

#: Number of jets to which mean and spread of the observables are fitted.
FIT_JETS = 10_000

#: Observables that the report shows.
SHOWN = ("mass", "tau3_1.0", "e3_1.0", "smallest_pair_mass")


class Substructure(Pretraining):
    r"""Predicts the substructure of a jet from its particles.

    The loss is the Huber loss of the logarithm of each observable of `zoo.physics.substructure.substructure`, in units
    of its spread over training jets, averaged over the observables. A small head predicts them from the mean of the
    particles' representations.

    Args:
        model: gives representations by ``model.encode(features, four_momenta, mask)``; a YAML file names its builder.
        feature_table: that of the data, set by the command line.
        probe_fraction: fraction of the validation jets whose labels the linear probe reads, see `Pretraining`.
        learning_rate: the highest of the schedule, see `Task`.
        weight_decay: of AdamW, for parameters with two or more axes.
        warmup: fraction of all steps over which the learning rate rises.
        final_learning_rate: at the last step, as a fraction of ``learning_rate``.

    Raises:
        ValueError: if a setting lies outside its range, or the features are for events, which have no substructure.
    """

    purpose = "substructure"

    target_mean: Tensor
    target_scale: Tensor

    def __init__(
        self,
        model: nn.Module,
        feature_table: Any,  # a FeatureTable, which a parser would take for keys of the configuration
        probe_fraction: float = 0.5,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        warmup: float = 0.1,
        final_learning_rate: float = 0.01,
    ) -> None:
        super().__init__(model, learning_rate, weight_decay, warmup, final_learning_rate, probe_fraction)
        if not feature_table.is_relative_to_jet:
            raise ValueError(
                "data.features: no feature is relative to a jet, so the data are events, which have no substructure; "
                "take zoo.tasks.MaskedParticles for them"
            )
        self.names = observables()
        width = declared(model).embed_dim
        self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, len(self.names)))
        self.register_buffer("target_mean", torch.zeros(len(self.names)))
        self.register_buffer("target_scale", torch.ones(len(self.names)))

    def setup(self, stage: str) -> None:
        """Fit mean and spread of the observables to training jets; a checkpoint brings its own."""
        if stage != "fit":
            return
        found, number = [], 0
        for batch in self.training_batches():
            found.append(self.observables(batch))
            number += len(found[-1])
            if number >= FIT_JETS:
                break
        true = torch.cat(found)[:FIT_JETS]
        fitted = true.mean(0), true.std(0, correction=0).clamp(min=1e-6)
        for buffer, values in zip((self.target_mean, self.target_scale), fitted, strict=True):
            buffer.copy_(self.trainer.strategy.broadcast(values))

    @property
    def further_figures(self) -> tuple[str, ...]:
        """Names of the losses of the shown observables."""
        return tuple(f"{name}_loss" for name in SHOWN)

    def observables(self, batch: JetBatch) -> Tensor:
        """Logarithms (batch, observable), in the order of ``names``; label and weight are not read."""
        return torch.stack(list(substructure(batch.four_momenta, batch.mask).values()), dim=1)

    def objective(
        self, batch: JetBatch, generator: torch.Generator | None
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Loss of each jet, the losses of the shown observables, and their true and predicted values; draws nothing."""
        true = self.observables(batch)
        rows = mean_representation(self.model, batch.features, batch.four_momenta, batch.mask)
        answer = self.head(rows).float()
        losses = F.huber_loss(answer, (true - self.target_mean) / self.target_scale, reduction="none")
        places = [self.names.index(name) for name in SHOWN]
        figures = {f"{name}_loss": losses[:, place] for name, place in zip(SHOWN, places, strict=True)}
        shown = {"jet": batch.index}
        if not self.training:
            expected = answer * self.target_scale + self.target_mean
            shown |= {"true": true[:, places], "expected": expected[:, places]}
        return losses.mean(1), figures, shown

    def shown_drawings(self, shown: dict[str, np.ndarray]) -> Drawings:
        """Predicted against true observables."""
        caption = "Predicted against true observables, number of jets in colour (logarithmic)."
        labels = tuple(SUBSTRUCTURE_LABELS[name] for name in SHOWN)
        return {"observables": (caption, draw_scatter(labels, shown["true"], shown["expected"]))}
