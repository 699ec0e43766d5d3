"""Training of any model of the zoo: loss, optimiser, learning rate, and what is logged."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MeanMetric

from zoo.data.batch import JetBatch
from zoo.metrics import SIGNAL_EFFICIENCIES, TaggingMetrics
from zoo.model import declared
from zoo.training.fine_tuning import FineTuner, FineTuning

#: How many jets an error message names.
_NAMED_JETS = 8


class JetTraining(LightningModule):
    r"""What every training shares: optimiser, learning rate, and the books of the loss; subclass it for an objective.

    The optimiser is AdamW; matrices decay, biases and normalisation scales do not. The learning rate follows
    `warmup_cosine` from step to step.

    References:
        Decoupled Weight Decay Regularization (2017), arXiv:1711.05101.

    Args:
        model: called as ``model(features, four_momenta, mask)``.
        learning_rate: at the top of the schedule.
        weight_decay: of AdamW, for parameters with two or more axes.
        warmup: part of all steps over which the learning rate rises.
        final_learning_rate: at the last step, as a part of ``learning_rate``.

    Raises:
        ValueError: if a setting lies outside its range.
    """

    def __init__(
        self, model: nn.Module, learning_rate: float, weight_decay: float, warmup: float, final_learning_rate: float
    ) -> None:
        super().__init__()
        require("learning_rate", learning_rate, learning_rate > 0, "positive")
        require("weight_decay", weight_decay, weight_decay >= 0, "0 or more")
        require("warmup", warmup, 0 <= warmup < 1, "in [0, 1)")
        require("final_learning_rate", final_learning_rate, 0 <= final_learning_rate <= 1, "in [0, 1]")
        self.model = model
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup = warmup
        self.final_learning_rate = final_learning_rate
        self.fine_tuning: FineTuning | None = None
        self._epoch_loss = {"sum": 0.0, "weight": 0.0}

    @property
    def epoch_figures(self) -> tuple[str, ...]:
        """Figures logged after an epoch that may choose the best one: highest is best, of a ``loss`` lowest."""
        return ("train_loss", "val_loss")

    def loss(self, batch: JetBatch, batch_idx: int) -> tuple[Tensor, float]:
        """Loss of one batch, and the weight that it has in the mean of the epoch."""
        raise NotImplementedError

    def training_step(self, batch: JetBatch, batch_idx: int) -> Tensor:
        """Loss of one batch, as a part of the mean over the jets of all processes."""
        loss, weight = self.loss(batch, batch_idx)
        mean, total = loss.item(), weight
        if self.trainer.world_size > 1:
            mine = torch.tensor([weight * mean, weight], dtype=torch.float64, device=self.device)
            over_all, total = self.trainer.strategy.reduce(mine, reduce_op="sum").tolist()
            mean = over_all / total if total else 0.0
            # processes average their gradients, which becomes the gradient of the mean over all jets
            loss = loss * (self.trainer.world_size * weight / total if total else 0.0)
        self._epoch_loss["sum"] += total * mean
        self._epoch_loss["weight"] += total
        self.log("train_loss_step", mean, prog_bar=True, logger=False)
        if (self.global_step + 1) % self.trainer.log_every_n_steps == 0:
            self._write({"train_loss_step": mean, **self._learning_rates()}, self.global_step)
        return loss

    def on_train_start(self) -> None:
        """Say what several processes do not share."""
        norms = [layer for layer in self.modules() if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]
        if self.trainer.world_size > 1 and norms:
            rank_zero_warn(
                f"each of the {self.trainer.world_size} processes normalises by the statistics of its own jets in "
                f"{len(norms)} batch normalisations, so the training is another than on one device; see 'Several "
                "devices' in docs/training.md"
            )

    def on_train_epoch_end(self) -> None:
        """Log the mean loss of the epoch over all processes, as seen while the weights moved."""
        loss = self._epoch_loss["sum"] / self._epoch_loss["weight"]
        self._epoch_loss = dict.fromkeys(self._epoch_loss, 0.0)
        self.log("train_loss", loss, prog_bar=True, logger=False)
        self._write({"train_loss": loss, "epoch": self.current_epoch}, self.global_step - 1)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW in two groups, and a learning rate for every step."""
        steps = self.trainer.estimated_stepping_batches
        if not 0 < steps < math.inf:
            raise ValueError("trainer.max_epochs: the learning rate falls until the last step; give a number of epochs")
        optimizer = torch.optim.AdamW(self._parameter_groups(), lr=self.learning_rate)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: warmup_cosine(step, int(steps), self.warmup, self.final_learning_rate)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the sums of the epoch's mean loss, so that a resumed epoch logs the mean of all its batches."""
        checkpoint["epoch_loss"] = self._epoch_loss

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the sums up again."""
        self._epoch_loss = checkpoint["epoch_loss"]

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *_: Any, **__: Any) -> NoReturn:
        """Refused: Lightning's loader unpickles, and fetches URLs.

        Raises:
            TypeError: always, with the way to go instead.
        """
        raise TypeError(
            f"{cls.__name__}.load_from_checkpoint({checkpoint_path!r}) would unpickle the file; build the model and "
            "use model.load_state_dict(zoo.training.checkpoints.read_model_weights(path))"
        )

    def _parameter_groups(self) -> list[dict[str, Any]]:
        return _by_decay(self.parameters(), self.weight_decay)

    def _learning_rates(self) -> dict[str, float]:
        """The learning rate as it is logged."""
        return {"learning_rate": self.trainer.optimizers[0].param_groups[0]["lr"]}

    def _write(self, values: dict[str, float], step: int) -> None:
        # Lightning writes what `self.log` gets only after the callbacks of the step or epoch, so a checkpoint's
        # history would lack the row of the very step that it closes.
        for logger in self.loggers:
            logger.log_metrics(values, step=step)


class JetTagger(JetTraining):
    r"""Trains a model to tell classes of jets apart.

    The loss of a batch of B jets is the cross entropy, weighted and divided by their number,

    .. math:: L = \frac{1}{B} \sum_b w_b \, (\ln \sum_k e^{z_{bk}} - z_{b y_b})

    so that its gradient is linear in the weights, whatever their signs, and batches count by their jets. Before, the
    data module divides the weights of the training sample by their mean absolute value (``data.normalise_weights``).
    The loss of the validation is :math:`\sum_b w_b l_b / \sum_b |w_b|` over its sample.

    Args:
        model: called as ``model(features, four_momenta, mask)``, gives logits (batch, class); a YAML names its builder.
            One whose attribute ``context_dim`` is above 0 is given the context as a fourth argument.
        num_classes: number of logits.
        signal: class whose efficiency the background rejection is quoted at, of two classes.
        signal_efficiencies: at which it is quoted.
        learning_rate: at the top of the schedule, see `JetTraining`.
        weight_decay: of AdamW, for parameters with two or more axes.
        warmup: part of all steps over which the learning rate rises.
        final_learning_rate: at the last step, as a part of ``learning_rate``.
        fine_tuning: whose weights to begin at, and what is new, frozen or slower; None: random weights.

    Raises:
        ValueError: if a setting lies outside its range.
    """

    def __init__(
        self,
        model: nn.Module,
        num_classes: int = 2,
        signal: int = 1,
        signal_efficiencies: Sequence[float] = SIGNAL_EFFICIENCIES,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        warmup: float = 0.1,
        final_learning_rate: float = 0.01,
        fine_tuning: FineTuning | None = None,
    ) -> None:
        super().__init__(model, learning_rate, weight_decay, warmup, final_learning_rate)
        self.num_classes = num_classes
        self.fine_tuning = fine_tuning
        self.val_loss = MeanMetric()
        self.val_metrics = TaggingMetrics(num_classes, signal, signal_efficiencies=signal_efficiencies)
        self.test_metrics = TaggingMetrics(num_classes, signal, signal_efficiencies=signal_efficiencies)

    def forward(self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None) -> Tensor:
        """Logits (batch, class) of the model; arguments as the model's.

        Raises:
            ValueError: if the model gives another number of logits than ``num_classes``.
        """
        further = (context,) if declared(self.model).context_dim else ()
        logits = self.model(features, four_momenta, mask, *further)
        if logits.shape != (len(mask), self.num_classes):
            raise ValueError(
                f"model.model: {type(self.model).__name__} gives logits {tuple(logits.shape)} for {len(mask)} jets of "
                f"{self.num_classes} classes; make their number the same as model.num_classes"
            )
        return logits

    @property
    def epoch_figures(self) -> tuple[str, ...]:
        """The losses and every tagging metric of the validation."""
        return (*super().epoch_figures, *(f"val_{name}" for name in self.val_metrics.names))

    def loss(self, batch: JetBatch, batch_idx: int) -> tuple[Tensor, float]:
        """Weighted cross entropy by the number of jets in the batch, and this number."""
        losses = self._logits_and_losses(batch, batch_idx)[1]
        return (batch.weight * losses).sum() / len(losses), len(losses)

    def validation_step(self, batch: JetBatch, batch_idx: int) -> None:
        """Add a batch to the validation figures."""
        logits, losses = self._logits_and_losses(batch, batch_idx)
        self.val_loss.update(losses * batch.weight.sign(), batch.weight.abs())
        self.val_metrics.update(logits, batch.label, batch.weight)

    def on_validation_epoch_end(self) -> None:
        """Log ``val_loss`` and every tagging metric as ``val_<name>``; the progress bar shows the AUC."""
        figures = {f"val_{name}": value for name, value in self.val_metrics.compute().items()}
        self.log("val_auc", figures.pop("val_auc"), prog_bar=True)
        self.log_dict(figures | {"val_loss": self.val_loss.compute()})
        self.val_metrics.reset()
        self.val_loss.reset()

    def test_step(self, batch: JetBatch, batch_idx: int) -> dict[str, Tensor]:
        """Add a batch to the test figures, and hand its predictions on as `predict_step`."""
        logits, _ = self._logits_and_losses(batch, batch_idx)
        self.test_metrics.update(logits, batch.label, batch.weight)
        return _predictions(logits, batch)

    def on_test_epoch_end(self) -> None:
        """Log every tagging metric as ``test_<name>``."""
        self.log_dict({f"test_{name}": value for name, value in self.test_metrics.compute().items()})
        self.test_metrics.reset()

    def predict_step(self, batch: JetBatch, batch_idx: int) -> dict[str, Tensor]:
        """Predictions of one batch.

        Returns:
            ``logits`` (batch, class) float32, and the batch's ``label``, ``weight``, ``index`` and ``source``, all on
            the CPU.
        """
        logits = self(batch.features, batch.four_momenta, batch.mask, batch.context)
        if not logits.isfinite().all():
            refuse_numbers("logits", logits.isfinite().all(dim=-1), batch, batch_idx)
        return _predictions(logits, batch)

    def configure_callbacks(self) -> list[Callback]:
        """What loads and freezes stages in a fine-tuning."""
        return [] if self.fine_tuning is None else [FineTuner(self.fine_tuning)]

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """In a fine-tuning two groups a stage, with its learning rate."""
        if self.fine_tuning is None:
            return super()._parameter_groups()
        groups = []
        for stage in self.fine_tuning.stages(self.model):
            rate = {"stage": stage.name, "is_frozen": stage.is_frozen, "lr": self.learning_rate * stage.factor}
            groups += [group | rate for group in _by_decay(stage.parameters(self.model), self.weight_decay)]
        return groups

    def _learning_rates(self) -> dict[str, float]:
        """In a fine-tuning that of each stage that trains at all, 0 while it is frozen."""
        if self.fine_tuning is None:
            return super()._learning_rates()
        is_thawed = self.current_epoch >= (self.fine_tuning.unfreeze_at_epoch or 0)
        groups = self.trainer.optimizers[0].param_groups
        return {f"learning_rate/{g['stage']}": g["lr"] if is_thawed or not g["is_frozen"] else 0.0 for g in groups}

    def _logits_and_losses(self, batch: JetBatch, batch_idx: int) -> tuple[Tensor, Tensor]:
        # float32 whatever the precision of the model: the softmax of half-precision logits loses the loss's small end
        logits = self(batch.features, batch.four_momenta, batch.mask, batch.context).float()
        losses = functional.cross_entropy(logits, batch.label, reduction="none")
        is_good = losses.isfinite() & batch.weight.isfinite()
        if not is_good.all():
            refuse_numbers("loss", is_good, batch, batch_idx)
        return logits, losses


def warmup_cosine(step: int, total_steps: int, warmup: float, final: float) -> float:
    r"""Learning rate of a step as a part of the highest.

    .. math::
        f(s) = \frac{s + 1}{W + 1} \quad (s < W), \qquad
        f(s) = f_T + (1 - f_T) \, \tfrac{1}{2} \left(1 + \cos \pi \frac{s - W}{T - 1 - W}\right) \quad (s \ge W)

    Args:
        step: s, from 0.
        total_steps: T.
        warmup: part of all steps that warm up, W = round(warmup * T).
        final: f_T, reached at the last step.

    Example:
        >>> [round(warmup_cosine(step, 5, 0.4, 0.0), 3) for step in range(5)]
        [0.333, 0.667, 1.0, 0.5, 0.0]
    """
    warmup_steps = round(warmup * total_steps)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(total_steps - 1 - warmup_steps, 1)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def _by_decay(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Groups of an optimiser: matrices, which decay, and the others."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _predictions(logits: Tensor, batch: JetBatch) -> dict[str, Tensor]:
    columns = {name: getattr(batch, name) for name in ("label", "weight", "index", "source")}
    return {name: column.cpu() for name, column in {"logits": logits.float(), **columns}.items()}


def refuse_numbers(what: str, is_good: Tensor, batch: JetBatch, batch_idx: int) -> NoReturn:
    """Stop with the jets of a batch named for which ``is_good`` (batch,) does not hold.

    Where all are bad, those whose inputs are not finite are named: a normalisation spreads them over the batch.
    """
    inputs = batch.features.isfinite().all(dim=(1, 2)) & batch.four_momenta.isfinite().all(dim=(1, 2))
    if not is_good.any() and inputs.any() and not inputs.all():
        is_good = inputs
    bad = batch.index[~is_good].tolist()
    jets = f"jets {bad[:_NAMED_JETS]}{' and more' if len(bad) > _NAMED_JETS else ''} (row numbers of the split)"
    if not bad:
        jets = "the sum over its jets, each of which is finite"
    raise FloatingPointError(
        f"{what} is not finite in batch {batch_idx} for {jets}; look at these rows, "
        "or lower model.learning_rate or set trainer.gradient_clip_val if the weights diverged"
    )


def require(name: str, value: float, is_good: bool, wanted: str) -> None:
    """Refuse a setting that lies outside its range."""
    if not is_good:
        raise ValueError(f"{name} must be {wanted}, got {value}")
