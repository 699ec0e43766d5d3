"""Supervised classification of jets or events: cross entropy and tagging metrics."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MeanMetric

from zoo.data import JetDataModule
from zoo.data.batch import JetBatch
from zoo.metrics import SIGNAL_EFFICIENCIES, TaggingMetrics
from zoo.report import Answers, Findings, Predictions, judge_classes
from zoo.score_files import join_columns, score_columns
from zoo.tasks.task import OutputSize, Task, refuse_numbers
from zoo.training.fine_tuning import FineTuning
from zoo.training.judged import Judged


class Classification(Task):
    r"""Trains a model to classify jets.

    The loss of a batch of B jets is the cross entropy, weighted and divided by their number,

    .. math:: L = \frac{1}{B} \sum_b w_b \, (\ln \sum_k e^{z_{bk}} - z_{b y_b})

    so that its gradient is linear in the weights, whatever their signs, and each batch counts by its number of jets.
    The data module has already divided the weights of the training sample by their mean absolute value
    (``data.normalise_weights``). The validation loss is :math:`\sum_b w_b l_b / \sum_b |w_b|` over the validation
    sample.

    Args:
        model: called as ``model(features, four_momenta, mask)``, gives logits (batch, class); a YAML file names its
            builder. A model whose ``context_dim`` is above 0 gets the context as a fourth argument.
        num_classes: number of logits.
        signal: with two classes, the one at whose efficiency the background rejection is quoted.
        signal_efficiencies: efficiencies at which it is quoted.
        learning_rate: the highest of the schedule, see `Task`.
        weight_decay: of AdamW, for parameters with two or more axes.
        warmup: fraction of all steps over which the learning rate rises.
        final_learning_rate: at the last step, as a fraction of ``learning_rate``.
        fine_tuning: weights to start from, and what is new, frozen or slower; None: random weights.

    Raises:
        ValueError: if a setting lies outside its range.
    """

    needs_labels = True
    folder_kind = "tagger"
    monitor = "val_auc"

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
        super().__init__(model, learning_rate, weight_decay, warmup, final_learning_rate, fine_tuning)
        self.num_classes = num_classes
        self.val_loss = MeanMetric()
        self.val_metrics = TaggingMetrics(num_classes, signal, signal_efficiencies=signal_efficiencies)
        self.test_metrics = TaggingMetrics(num_classes, signal, signal_efficiencies=signal_efficiencies)

    def forward(self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None) -> Tensor:
        """Logits (batch, class) of the model; the arguments are those of the model.

        Raises:
            ValueError: if the number of logits is not ``num_classes``.
        """
        logits = super().forward(features, four_momenta, mask, context)
        if logits.shape != (len(mask), self.num_classes):
            raise ValueError(
                f"model.model: {type(self.model).__name__} gives logits {tuple(logits.shape)} for {len(mask)} jets of "
                f"{self.num_classes} classes; make their number the same as model.num_classes"
            )
        return logits

    @property
    def epoch_figures(self) -> tuple[str, ...]:
        """The losses and every tagging metric on the validation sample."""
        return (*super().epoch_figures, *(f"val_{name}" for name in self.val_metrics.names))

    def output_sizes(self, data: JetDataModule, built_for: int | None) -> list[OutputSize]:
        """One output per class."""
        number, text = len(data.classes), f"of classes, {', '.join(data.classes)}"
        keys = {"model.model.init_args.num_classes": built_for, "model.num_classes": self.num_classes}
        return [OutputSize(key, found, number, text) for key, found in keys.items()]

    def loss(self, batch: JetBatch, batch_idx: int) -> tuple[Tensor, float]:
        """Weighted cross entropy divided by the number of jets in the batch, and that number."""
        losses = self._logits_and_losses(batch, batch_idx)[1]
        return (batch.weight * losses).sum() / len(losses), len(losses)

    def on_validation_epoch_start(self) -> None:
        """Do nothing: the metrics are reset at the end of the epoch."""

    def validation_step(self, batch: JetBatch, batch_idx: int) -> None:
        """Add a batch to the validation metrics."""
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

    def on_test_epoch_start(self) -> None:
        """Do nothing, see `on_validation_epoch_start`."""

    def test_step(self, batch: JetBatch, batch_idx: int) -> dict[str, Tensor]:
        """Add a batch to the test metrics, and return its predictions as `predict_step` does."""
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

    def table(self, columns: dict[str, np.ndarray], judged: Judged) -> Predictions:
        """The logits, label, weight, index and, where classes are merged, source of some jets; see `Task.table`."""
        merged = judged.data.merged_classes
        columns = {name: values for name, values in columns.items() if name != "source" or merged.is_merged}
        sources = merged.sources if merged.is_merged else ()
        fields = judged.data.observed(judged.split, columns["index"])
        rows = judged.data.description.rows
        return Predictions(**columns, classes=merged.names, sources=sources, rows=rows, fields=fields)

    def score_columns(self, columns: dict[str, np.ndarray], judged: Judged) -> dict[str, np.ndarray]:
        """``index``, ``label``, ``weight``, ``source``, the score of each class and the fields; see `Task`."""
        predictions = self.table(columns, judged)
        names = ("index", "label", "weight", *(["source"] if predictions.sources else []))
        scores = score_columns(predictions.logits, predictions.classes)
        of_jets = {name: getattr(predictions, name) for name in names} | scores
        return Answers(join_columns(of_jets, predictions.fields)).sorted()

    def findings(self, columns: dict[str, np.ndarray], judged: Judged) -> Findings:
        """Tagging metrics, curves and scores; see `Task.findings`."""
        return judge_classes(
            self.table(columns, judged),
            judged.title,
            background=self.test_metrics.background,
            signal_efficiencies=self.test_metrics.signal_efficiencies,
        )

    def _logits_and_losses(self, batch: JetBatch, batch_idx: int) -> tuple[Tensor, Tensor]:
        # float32 whatever the precision of the model: a softmax in half precision loses the smallest values of the loss
        logits = self(batch.features, batch.four_momenta, batch.mask, batch.context).float()
        losses = functional.cross_entropy(logits, batch.label, reduction="none")
        is_good = losses.isfinite() & batch.weight.isfinite()
        if not is_good.all():
            refuse_numbers("loss", is_good, batch, batch_idx)
        return logits, losses


def _predictions(logits: Tensor, batch: JetBatch) -> dict[str, Tensor]:
    columns = {name: getattr(batch, name) for name in ("label", "weight", "index", "source")}
    return {name: column.cpu() for name, column in {"logits": logits.float(), **columns}.items()}
