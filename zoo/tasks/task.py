"""What every task shares: optimiser, learning rate, the mean loss of an epoch, and what a task declares."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple, NoReturn, cast

import numpy as np
import torch
import torchmetrics
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.utilities import dim_zero_cat

from zoo.data import JetDataModule
from zoo.data.batch import JetBatch
from zoo.model import declared
from zoo.report import Answers, Drawings, Findings, Predictions, plain_figures_table
from zoo.score_files import join_columns
from zoo.training.fine_tuning import FineTuner, FineTuning
from zoo.training.judged import Judged

#: Number of jets that an error message names.
_NAMED_JETS = 8


class Metric(NamedTuple):
    """One measure of how good predictions are, and its statistical error, one standard deviation; None: unknown."""

    value: float
    error: float | None


class Columns(torchmetrics.Metric):
    """Columns of all jets of an epoch, over all processes."""

    full_state_update = False
    rows: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.names: tuple[str, ...] = ()
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(self, columns: Mapping[str, Tensor]) -> None:
        """Add some jets, (batch,) each."""
        self.names = tuple(columns)
        self.rows.append(torch.stack([values.double().to(self.device) for values in columns.values()], dim=1))

    def compute(self) -> dict[str, np.ndarray]:
        """The columns, float64 (jet,) each."""
        return dict(zip(self.names, dim_zero_cat(self.rows).cpu().numpy().T, strict=True))


class OutputSize(NamedTuple):
    """How many numbers a model must give per jet.

    Args:
        key: key of the configuration that sets it.
        found: its value there; None: it is not set, so the first batch decides.
        wanted: the number that the data and the task need.
        text: what the number counts, as in ``the number of classes, qcd, top``.
    """

    key: str
    found: int | None
    wanted: int
    text: str


class Task(LightningModule):
    r"""What is learnt, judged, plotted and stored; a task of your own is a subclass in one file, see docs/training.md.

    The optimiser is AdamW; matrices decay, biases and normalisation scales do not. The learning rate follows
    `warmup_cosine`, step by step.

    References:
        Decoupled Weight Decay Regularization (2017), arXiv:1711.05101.

    Args:
        model: called as ``model(features, four_momenta, mask)``.
        learning_rate: the highest of the schedule.
        weight_decay: of AdamW, for parameters with two or more axes.
        warmup: fraction of all steps over which the learning rate rises.
        final_learning_rate: at the last step, as a fraction of ``learning_rate``.
        fine_tuning: weights to start from, and what is new, frozen or slower; None: random weights.

    Raises:
        ValueError: if a setting lies outside its range.
    """

    #: Whether every jet of training, validation and test must have a class.
    needs_labels: ClassVar[bool] = False
    #: The split that its report covers; a task that is judged on validation jets has no test and no predictions.
    judged_split: ClassVar[Literal["test", "val"]] = "test"
    #: Kind of its pretrained folders, see `zoo.hub.kinds`: ``task`` gives what `answer` does.
    folder_kind: ClassVar[str] = "task"
    #: Text that its reports add to the name of the model; empty: nothing.
    purpose: ClassVar[str] = ""
    #: Metric that chooses the best epoch, one of `epoch_figures`, unless ``checkpoints.monitor`` names another.
    monitor: str = "val_loss"

    def __init__(
        self,
        model: nn.Module,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        warmup: float = 0.1,
        final_learning_rate: float = 0.01,
        fine_tuning: FineTuning | None = None,
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
        self.fine_tuning = fine_tuning
        self._epoch_loss = {"sum": 0.0, "weight": 0.0}

    @property
    def target_fields(self) -> tuple[str, ...]:
        """Names of `JetBatch.targets` that it reads; ``data.targets`` names others."""
        return ()

    @property
    def parameter_count(self) -> int:
        """Number of parameters, for the report."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def epoch_figures(self) -> tuple[str, ...]:
        """Metrics logged after each epoch that may choose the best one: highest is best, for a ``loss`` lowest."""
        return ("train_loss", "val_loss")

    def output_sizes(self, data: JetDataModule, built_for: int | None) -> list[OutputSize]:
        """How many numbers the model must give per jet of these data; empty: any.

        Args:
            data: data of the training.
            built_for: ``num_classes`` of the model in the configuration; None: it is not set.
        """
        return []

    def forward(self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None) -> Tensor:
        """Outputs of the model, (batch, output); a model whose ``context_dim`` is 0 gets no context."""
        further = (context,) if declared(self.model).context_dim else ()
        return self.model(features, four_momenta, mask, *further)

    def loss(self, batch: JetBatch, batch_idx: int) -> tuple[Tensor, float]:
        """Loss of one batch, and its weight in the mean over the epoch: usually its number of jets."""
        raise NotImplementedError

    def training_batches(self) -> Iterable[JetBatch]:
        """The batches of one epoch, for what a task fits in ``setup``, such as the spread of its targets."""
        return self.trainer.datamodule.train_dataloader()  # type: ignore[attr-defined] # the trainer attaches it

    def answer(
        self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The predictions for some jets: columns by name, (batch,) each."""
        raise NotImplementedError

    def metrics(self, columns: Mapping[str, np.ndarray]) -> dict[str, Metric]:
        """How good the predictions are; none by default.

        Args:
            columns: columns of all judged jets, (jet,) each: those of `answer`, ``label``, ``weight`` and ``index``,
                and each target as ``<name>_true``.
        """
        return {}

    def drawings(self, columns: Mapping[str, np.ndarray], heading: tuple[str, str]) -> Drawings:
        """The plots of a report: for each name, a caption and the function that draws it.

        Args:
            columns: as for `metrics`.
            heading: texts above the left and the right end of the axes, see `zoo.report.pictures.labelled_axes`.
        """
        return {}

    def training_step(self, batch: JetBatch, batch_idx: int) -> Tensor:
        """Loss of one batch, as its share of the mean over the jets of all processes."""
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
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined] # Lightning's connectors set it
        if (self.global_step + 1) % every == 0:
            self._write({"train_loss_step": mean, **self._learning_rates()}, self.global_step)
        return loss

    def on_train_start(self) -> None:
        """Warn about what several processes do not share."""
        norms = [layer for layer in self.modules() if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]
        if self.trainer.world_size > 1 and norms:
            rank_zero_warn(
                f"each of the {self.trainer.world_size} processes normalises by the statistics of its own jets in "
                f"{len(norms)} batch normalisations, so the training is another than on one device; see 'Several "
                "devices' in docs/training.md"
            )

    def on_train_epoch_end(self) -> None:
        """Log the mean loss of the epoch over all processes, as seen while the weights were changing."""
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

    def on_validation_epoch_start(self) -> None:
        """Start from empty metrics."""
        self._judged, self._val_loss = Columns().to(self.device), MeanMetric().to(self.device)

    def validation_step(self, batch: JetBatch, batch_idx: int) -> dict[str, Tensor] | None:
        """Add a batch to the loss and to the metrics.

        Returns:
            The columns of `metrics`, on the CPU.
        """
        loss, weight = self.loss(batch, batch_idx)
        self._val_loss.update(loss, weight)
        return self._judge(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Log ``val_loss`` and every metric as ``val_<name>``."""
        self.log("val_loss", self._val_loss.compute())
        self._log_metrics("val")

    def on_test_epoch_start(self) -> None:
        """Start from empty metrics."""
        self._judged = Columns().to(self.device)

    def test_step(self, batch: JetBatch, batch_idx: int) -> dict[str, Tensor]:
        """Add a batch to the metrics; like `validation_step`, without the loss."""
        return self._judge(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Log every metric as ``test_<name>``."""
        self._log_metrics("test")

    def predict_step(self, batch: JetBatch, batch_idx: int) -> dict[str, Tensor]:
        """The predictions for one batch, with the columns ``label``, ``weight`` and ``index``, on the CPU."""
        answer = self.answer(*batch.inputs)
        for name, values in answer.items():
            if not values.isfinite().all():
                refuse_numbers(name, values.isfinite(), batch, batch_idx)
        columns = {name: getattr(batch, name) for name in ("label", "weight", "index")}
        return {name: values.detach().cpu() for name, values in {**answer, **columns}.items()}

    def table(self, columns: dict[str, np.ndarray], judged: Judged) -> Answers | Predictions:
        """The contents of ``predictions.arrow``.

        Args:
            columns: those of `predict_step` or `test_step`, joined.
            judged: the jets that they are for.
        """
        first = ("index", *(["label"] if (columns["label"] >= 0).any() else []), "weight")
        said = {name: values for name, values in columns.items() if name not in ("index", "label", "weight")}
        observed = judged.data.observed(judged.split, columns["index"])
        return Answers(join_columns({name: columns[name] for name in first} | said, observed))

    def score_columns(self, columns: dict[str, np.ndarray], judged: Judged) -> dict[str, np.ndarray]:
        """Columns of a file of predictions for other programs, in the order of the files; arguments as for `table`."""
        return cast(Answers, self.table(columns, judged)).sorted()  # a task whose table holds logits overrides this

    def findings(self, columns: dict[str, np.ndarray], judged: Judged) -> Findings:
        """The sections of the report; arguments as for `table`."""
        found = self.metrics(columns)
        rows, split = judged.data.description.rows, {"val": "validation"}.get(judged.split, judged.split)
        values = {name: {"value": float(metric.value), "error": metric.error} for name, metric in found.items()}
        return Findings(
            title=judged.title,
            document={
                "format": "zoo-task-report",
                "task": type(self).__name__,
                "split": split,
                "jets": judged.jets,
                "rows": rows,
                "metrics": values,
            },
            opening=f"Judged on {judged.jets:,} {split} {rows}.",
            table=plain_figures_table(values),
            note=f"Errors are one standard deviation from the number of {split} {rows}; they do not hold the spread "
            "between trainings.",
            drawings=self.drawings(columns, (judged.title, f"{judged.jets:,} {split} {rows}")),
            files={"predictions.arrow": self.table(columns, judged).to_bytes()},
            closing=f"Predictions: `predictions.arrow` ({', '.join(columns)}). Metrics: `metrics.json`.",
        )

    def _judge(self, batch: JetBatch, batch_idx: int) -> dict[str, Tensor]:
        targets = {f"{name}_true": batch.targets[name] for name in self.target_fields}
        columns = self.predict_step(batch, batch_idx) | {name: values.cpu() for name, values in targets.items()}
        self._judged.update(columns)
        return columns

    def _log_metrics(self, split: str) -> None:
        for name, metric in self.metrics(self._judged.compute()).items():
            self.log(f"{split}_{name}", float(metric.value))
            if metric.error is not None:
                self.log(f"{split}_{name}_error", float(metric.error))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the sums of the epoch's mean loss, so that a resumed epoch logs the mean of all its batches."""
        checkpoint["epoch_loss"] = self._epoch_loss

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the sums."""
        self._epoch_loss = checkpoint["epoch_loss"]

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *_: Any, **__: Any) -> NoReturn:
        """Refused: Lightning's loader unpickles, and fetches URLs.

        Raises:
            TypeError: always; the message says what to do instead.
        """
        raise TypeError(
            f"{cls.__name__}.load_from_checkpoint({checkpoint_path!r}) would unpickle the file; build the model and "
            "use model.load_state_dict(zoo.training.checkpoints.read_model_weights(path))"
        )

    def configure_callbacks(self) -> list[Callback]:
        """The callback that loads and freezes stages in a fine-tuning."""
        return [] if self.fine_tuning is None else [FineTuner(self.fine_tuning)]

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """Matrices and the rest; when fine-tuning, per stage with its learning rate, and for the task's own part."""
        if self.fine_tuning is None:
            return _by_decay(self.parameters(), self.weight_decay)
        groups = []
        for stage in self.fine_tuning.stages(self.model):
            rate = {"stage": stage.name, "is_frozen": stage.is_frozen, "lr": self.learning_rate * stage.factor}
            groups += [group | rate for group in _by_decay(stage.parameters(self.model), self.weight_decay)]
        own = [parameter for name, parameter in self.named_parameters() if not name.startswith("model.")]
        rate = {"stage": "task", "is_frozen": False, "lr": self.learning_rate * self.fine_tuning.head_factor}
        return groups + [group | rate for group in _by_decay(own, self.weight_decay)]

    def _learning_rates(self) -> dict[str, float]:
        """The logged learning rate; when fine-tuning, that of each stage that trains, and 0 while it is frozen."""
        groups = self.trainer.optimizers[0].param_groups
        if self.fine_tuning is None:
            return {"learning_rate": groups[0]["lr"]}
        is_thawed = self.current_epoch >= (self.fine_tuning.unfreeze_at_epoch or 0)
        return {f"learning_rate/{g['stage']}": g["lr"] if is_thawed or not g["is_frozen"] else 0.0 for g in groups}

    def _write(self, values: dict[str, float], step: int) -> None:
        # Lightning writes what `self.log` gets only after the callbacks of the step or epoch, so the history in a
        # checkpoint would lack the row of its own last step.
        for logger in self.loggers:
            logger.log_metrics(values, step=step)


def warmup_cosine(step: int, total_steps: int, warmup: float, final: float) -> float:
    r"""Learning rate of a step as a fraction of the highest.

    .. math::
        f(s) = \frac{s + 1}{W + 1} \quad (s < W), \qquad
        f(s) = f_T + (1 - f_T) \, \tfrac{1}{2} \left(1 + \cos \pi \frac{s - W}{T - 1 - W}\right) \quad (s \ge W)

    Args:
        step: s, from 0.
        total_steps: T.
        warmup: fraction of all steps that warm up, W = round(warmup * T).
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


def refuse_numbers(what: str, is_good: Tensor, batch: JetBatch, batch_idx: int) -> NoReturn:
    """Stop, and name the jets of a batch for which ``is_good`` (batch,) is False.

    If all are bad, only those whose inputs are not finite are named: a normalisation spreads them over the batch.
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


def require(name: str, value: object, is_good: bool, wanted: str) -> None:
    """Refuse a setting that lies outside its range."""
    if not is_good:
        raise ValueError(f"{name} must be {wanted}, got {value}")
