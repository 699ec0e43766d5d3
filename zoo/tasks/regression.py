"""Regression: numbers that describe a jet, each with an interval for how well it is known."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from zoo.data import JetDataModule
from zoo.data.batch import JetBatch
from zoo.report import Drawings
from zoo.report.residuals import draw_against_truth, residual_metrics
from zoo.tasks.task import Metric, OutputSize, Task, refuse_numbers, require
from zoo.training.fine_tuning import FineTuning

#: Number of training jets to which mean and spread of the targets are fitted.
FIT_JETS = 10_000

#: Bounds on the logarithm of a predicted sigma, in units of the spread of the target.
LOG_SIGMA = 7.0


class Regression(Task):
    r"""Learns one or more numbers per jet together, each in units of its spread over training jets.

    The loss of a batch of B jets is :math:`\frac{1}{B} \sum_b w_b l_b` with the weights divided by their mean absolute
    value. For T targets the model gives one of these:

    - ``gaussian``: T means and T logarithms of standard deviations, with the negative logarithm of a Gaussian

      .. math:: l = \frac{1}{T} \sum_t \frac{(y_t - \mu_t)^2}{2 \sigma_t^2} + \ln \sigma_t

    - ``quantiles``: T values for each quantile q, with the pinball loss

      .. math:: l = \frac{1}{T Q} \sum_{t, q} \max\left(q (y_t - v_{tq}),\ (q - 1) (y_t - v_{tq})\right)

      The values of a jet are sorted into rising order.

    References:
        Estimating the mean and variance of the target probability distribution (1994), doi:10.1109/ICNN.1994.374138.
        Regression Quantiles (1978), doi:10.2307/1913643.
        Quantile and Probability Curves Without Crossing (2010), arXiv:0704.3649.

    Args:
        model: its ``num_classes`` is the number of values above for each jet.
        targets: names of fields of the jets, or of quantities computed from momenta, see `zoo.data.targets`.
        distribution: what is predicted for each target.
        quantiles: rising, with 0.5 among them; the outermost two are the interval whose coverage is judged.
        learning_rate: the highest of the schedule, see `Task`.
        weight_decay: of AdamW, for parameters with two or more axes.
        warmup: fraction of all steps over which the learning rate rises.
        final_learning_rate: at the last step, as a fraction of ``learning_rate``.
        fine_tuning: weights to start from, and what is new, frozen or slower; None: random weights.

    Raises:
        ValueError: if a setting lies outside its range.
    """

    purpose = "regression"
    target_mean: Tensor
    target_scale: Tensor
    weight_scale: Tensor

    def __init__(
        self,
        model: nn.Module,
        targets: Sequence[str],
        distribution: Literal["gaussian", "quantiles"] = "gaussian",
        quantiles: Sequence[float] = (0.16, 0.5, 0.84),
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        warmup: float = 0.1,
        final_learning_rate: float = 0.01,
        fine_tuning: FineTuning | None = None,
    ) -> None:
        super().__init__(model, learning_rate, weight_decay, warmup, final_learning_rate, fine_tuning)
        if not targets or len(set(targets)) < len(targets):
            raise ValueError(f"targets: give at least one and none twice, not {list(targets)}")
        rising = list(quantiles) == sorted(set(quantiles)) and 0 < quantiles[0] < quantiles[-1] < 1
        require("quantiles", list(quantiles), rising and 0.5 in quantiles, "rising between 0 and 1 with 0.5 among them")
        self.targets = tuple(targets)
        self.distribution = distribution
        self.quantiles = tuple(quantiles)
        self.register_buffer("target_mean", torch.zeros(len(targets)))
        self.register_buffer("target_scale", torch.ones(len(targets)))
        self.register_buffer("weight_scale", torch.ones(()))

    @property
    def target_fields(self) -> tuple[str, ...]:
        """Its targets."""
        return self.targets

    @property
    def level(self) -> float:
        """Probability of the predicted interval: mean -+ sigma, or between the outermost quantiles."""
        return 0.6827 if self.distribution == "gaussian" else self.quantiles[-1] - self.quantiles[0]

    @property
    def num_outputs(self) -> int:
        """Number of values that the model gives per jet."""
        return len(self.targets) * (2 if self.distribution == "gaussian" else len(self.quantiles))

    def output_sizes(self, data: JetDataModule, built_for: int | None) -> list[OutputSize]:
        """Two outputs per target, or one per quantile of each target."""
        what = "means and sigmas" if self.distribution == "gaussian" else f"{len(self.quantiles)} quantiles each"
        text = f"of {what} of {', '.join(self.targets)}"
        return [OutputSize("model.model.init_args.num_classes", built_for, self.num_outputs, text)]

    def setup(self, stage: str) -> None:
        """Fit mean and spread of the targets to training jets; a checkpoint brings its own."""
        if stage != "fit":
            return
        found, weights, number = [], [], 0
        for batch in self.training_batches():
            found.append(torch.stack([batch.targets[name].double() for name in self.targets], dim=1))
            weights.append(batch.weight)
            number += len(batch.weight)
            if number >= FIT_JETS:
                break
        true, size = torch.cat(found), torch.cat(weights).abs().mean()
        fitted = true.mean(0), true.std(0, correction=0).clamp(min=1e-6), size if size > 0 else torch.ones(())
        for buffer, values in zip((self.target_mean, self.target_scale, self.weight_scale), fitted, strict=True):
            buffer.copy_(self.trainer.strategy.broadcast(values))

    def forward(self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None) -> Tensor:
        """Outputs of the model, (batch, 2 or quantile, target), in units of the spread.

        Raises:
            ValueError: if the number of outputs is not `num_outputs`.
        """
        outputs = super().forward(features, four_momenta, mask, context).float()
        if outputs.shape != (len(mask), self.num_outputs):
            raise ValueError(
                f"model.model: {type(self.model).__name__} gives {tuple(outputs.shape)} for {len(mask)} jets, but "
                f"{', '.join(self.targets)} need {self.num_outputs} numbers each; make this its num_classes"
            )
        return outputs.unflatten(1, (-1, len(self.targets)))

    def loss(self, batch: JetBatch, batch_idx: int) -> tuple[Tensor, float]:
        """Weighted loss divided by the number of jets in the batch, and that number."""
        losses = self._losses(batch, batch_idx)
        return (batch.weight / self.weight_scale * losses).sum() / len(losses), len(losses)

    def answer(
        self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None
    ) -> dict[str, Tensor]:
        """For each target ``<target>`` and ``<target>_sigma``, or its median and ``<target>_q16`` and so on."""
        return self._columns(self(features, four_momenta, mask, context))

    def validation_step(self, batch: JetBatch, batch_idx: int) -> dict[str, Tensor]:
        """Add a batch to the loss, which is divided by the sum of |weight|, and to the metrics."""
        losses = self._losses(batch, batch_idx)
        self._val_loss.update(losses * batch.weight.sign(), batch.weight.abs())
        return self._judge(batch, batch_idx)

    def metrics(self, columns: Mapping[str, np.ndarray]) -> dict[str, Metric]:
        """Bias, resolution, mean absolute error and coverage of each target; every jet counts once."""
        found = {}
        for name in self.targets:
            low, high = self._interval(columns, name)
            for kind, (value, error) in residual_metrics(columns[name], columns[f"{name}_true"], low, high).items():
                found[f"{name}_{kind}"] = Metric(value, error)
        return found

    def drawings(self, columns: Mapping[str, np.ndarray], heading: tuple[str, str]) -> Drawings:
        """For each target: predicted against true, and bias and resolution against the true value."""
        drawings: Drawings = {}
        for name in self.targets:
            low, high = self._interval(columns, name)
            drawings |= draw_against_truth(name, columns[name], columns[f"{name}_true"], low, high, self.level, heading)
        return drawings

    def _interval(self, columns: Mapping[str, np.ndarray], name: str) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper ends of the predicted interval."""
        if self.distribution == "gaussian":
            return columns[name] - columns[f"{name}_sigma"], columns[name] + columns[f"{name}_sigma"]
        low, high = (self._quantile_name(name, quantile) for quantile in (self.quantiles[0], self.quantiles[-1]))
        return columns[low], columns[high]

    def _losses(self, batch: JetBatch, batch_idx: int) -> Tensor:
        """Loss of each jet, (batch,)."""
        outputs = self(*batch.inputs)
        true = torch.stack([batch.targets[name].float() for name in self.targets], dim=1)
        true = (true - self.target_mean) / self.target_scale
        if self.distribution == "gaussian":
            log_sigma = outputs[:, 1].clamp(-LOG_SIGMA, LOG_SIGMA)
            losses = 0.5 * ((true - outputs[:, 0]) * (-log_sigma).exp()).square() + log_sigma
        else:
            over = true[:, None] - outputs
            quantile = outputs.new_tensor(self.quantiles)[:, None]
            losses = torch.maximum(quantile * over, (quantile - 1) * over).mean(1)
        losses = losses.mean(1)
        is_good = losses.isfinite() & batch.weight.isfinite()
        if not is_good.all():
            refuse_numbers("loss", is_good, batch, batch_idx)
        return losses

    def _columns(self, outputs: Tensor) -> dict[str, Tensor]:
        if self.distribution == "gaussian":
            values = outputs[:, 0] * self.target_scale + self.target_mean
            sigmas = outputs[:, 1].clamp(-LOG_SIGMA, LOG_SIGMA).exp() * self.target_scale
            of_targets = zip(self.targets, values.T, sigmas.T, strict=True)
            return {
                key: of for name, *both in of_targets for key, of in zip((name, f"{name}_sigma"), both, strict=True)
            }
        values = outputs.sort(dim=1).values * self.target_scale + self.target_mean
        return dict(self._quantile_columns(values))

    def _quantile_columns(self, values: Tensor) -> Iterator[tuple[str, Tensor]]:
        for place, name in enumerate(self.targets):
            for number, quantile in enumerate(self.quantiles):
                yield self._quantile_name(name, quantile), values[:, number, place]

    def _quantile_name(self, name: str, quantile: float) -> str:
        return name if quantile == 0.5 else f"{name}_q{100 * quantile:g}".replace(".", "p")
