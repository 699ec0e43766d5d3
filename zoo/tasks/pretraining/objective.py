"""What all objectives share: a backbone without its read-out, validation, and the linear probe."""

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from zoo.data import JetDataModule
from zoo.data.batch import JetBatch
from zoo.kernels.segments import offsets, segment_mean
from zoo.model import JetModel, is_readout
from zoo.report import Drawings, Findings, plain_figures_table
from zoo.tasks.pretraining.backbone import backbone_names, require_backbone
from zoo.tasks.pretraining.probe import LinearProbe, probe_rows
from zoo.tasks.pretraining.report import error_of_mean
from zoo.tasks.task import OutputSize, Task, refuse_numbers, require
from zoo.training.checkpoints import BACKBONE
from zoo.training.judged import Judged


class Pretraining(Task):
    """Trains the backbone of a model on jets without reading their labels; a subclass defines the `objective`.

    The read-out of the model is not trained and keeps its random weights. The weights of the jets are ignored too, as
    they may depend on the labels. Once per epoch, unless it is switched off, `LinearProbe` reads the labels of some
    validation jets; no weight of the model and no metric but ``val_probe_auc`` depends on it.

    Args:
        model: gives representations by ``model.encode(features, four_momenta, mask)``.
        learning_rate: the highest of the schedule, see `Task`.
        weight_decay: of AdamW, for parameters with two or more axes.
        warmup: fraction of all steps over which the learning rate rises.
        final_learning_rate: at the last step, as a fraction of ``learning_rate``.
        probe_fraction: fraction of the validation jets whose labels the probe reads, half of them for its fit; 0: none.

    Raises:
        ValueError: if the model has no ``encode``, or a setting lies outside its range.
    """

    judged_split = "val"
    folder_kind = "backbone"

    def __init__(
        self,
        model: nn.Module,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        warmup: float = 0.1,
        final_learning_rate: float = 0.01,
        probe_fraction: float = 0.5,
    ) -> None:
        super().__init__(model, learning_rate, weight_decay, warmup, final_learning_rate)
        require_backbone(model)
        require("probe_fraction", probe_fraction, 0 <= probe_fraction <= 1, "in [0, 1]")
        for name, parameter in model.named_parameters():
            if is_readout(name, model):
                parameter.requires_grad_(False)
        self.probe_fraction = probe_fraction
        self.val_loss = MeanMetric()
        self.probe = LinearProbe()

    @property
    def epoch_figures(self) -> tuple[str, ...]:
        """The losses, the AUC of the probe, and the further metrics of the objective."""
        probe = ("val_probe_auc",) if self.probe_fraction else ()
        return (*super().epoch_figures, *probe, *(f"val_{name}" for name in self.further_figures))

    def output_sizes(self, data: JetDataModule, built_for: int | None) -> list[OutputSize]:
        """Those of the read-out: it is not trained, but has one output per class if the files have any."""
        if not data.classes:
            return []
        text = f"of classes, {', '.join(data.classes)}"
        return [OutputSize("model.model.init_args.num_classes", built_for, len(data.classes), text)]

    @property
    def further_figures(self) -> tuple[str, ...]:
        """Names of the metrics of `objective` that may choose the best epoch."""
        return ()

    def objective(
        self, batch: JetBatch, generator: torch.Generator | None
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """The objective, which a subclass defines.

        Args:
            batch: jets; neither label nor weight may be read.
            generator: for all random draws, on the CPU; None for torch's own.

        Returns:
            Loss of each item that is predicted, (item,); further metrics, (item,) each, whose means are logged as
            ``val_<name>``; and the ``jet`` (item,) of each as ``batch.index`` numbers it, with what `shown_drawings`
            shows, items first, outside a training.
        """
        raise NotImplementedError

    def shown_drawings(self, shown: dict[str, np.ndarray]) -> Drawings:
        """Plots of what the validation batches showed; none by default."""
        return {}

    @property
    def parameter_count(self) -> int:
        """Number of trained parameters."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)

    def findings(self, columns: dict[str, np.ndarray], judged: Judged) -> Findings:
        """The metrics that the validation logged, and plots of what it showed; see `Task.findings`."""
        shown = dict(columns)
        error_of_loss = error_of_mean(shown.pop("loss"), shown.pop("jet"))
        logged = judged.logged
        errors = {name: logged.get(f"{name}_error") for name in logged} | {"val_loss": error_of_loss}
        metrics = {
            name: {"value": value, "error": errors[name]}
            for name, value in logged.items()
            if not name.endswith("_error")
        }
        rows = judged.data.description.rows
        return Findings(
            title=judged.title,
            document={"format": "zoo-pretraining-report", "jets": judged.jets, "rows": rows, "metrics": metrics},
            opening=f"Validated on {judged.jets:,} {rows}.",
            table=plain_figures_table(metrics),
            note=f"Errors are one standard deviation from the number of {rows}.",
            drawings=self.shown_drawings(shown),
        )

    def loss(self, batch: JetBatch, batch_idx: int) -> tuple[Tensor, float]:
        """Mean loss of the items of a batch, and their number; zero if there are none."""
        losses, _, shown = self.objective(batch, None)
        return _mean(losses, shown["jet"], batch, batch_idx), len(losses)

    def on_validation_epoch_start(self) -> None:
        """Reset the means of the further metrics."""
        self._val_figures: dict[str, MeanMetric] = {}

    def validation_step(self, batch: JetBatch, batch_idx: int) -> dict[str, Tensor]:
        """Add a batch to the metrics; the random draws are the same in every epoch.

        Returns:
            ``loss`` (item,) and what a report shows, on the CPU.
        """
        losses, figures, shown = self.objective(batch, torch.Generator().manual_seed(batch_idx))
        _mean(losses, shown["jet"], batch, batch_idx)
        self.val_loss.update(losses)
        for name, values in figures.items():
            self._val_figures.setdefault(name, MeanMetric().to(self.device)).update(values)
        self._update_probe(batch)
        return {name: values.cpu() for name, values in {"loss": losses.float(), **shown}.items()}

    def on_validation_epoch_end(self) -> None:
        """Log ``val_loss``, the further metrics, and the probe's ``val_probe_auc``."""
        figures = {name: mean.compute() for name, mean in self._val_figures.items()}
        if self.probe_fraction:
            figures |= self.probe.compute()
        self.log_dict({f"val_{name}": value for name, value in figures.items()}, prog_bar=True)
        self.log("val_loss", self.val_loss.compute())
        self.val_loss.reset()
        self.probe.reset()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Record which tensors are the backbone, for `read_backbone`."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[BACKBONE] = backbone_names(self.model)

    def _update_probe(self, batch: JetBatch) -> None:
        fitted, judged = probe_rows(batch.index, self.probe_fraction)
        chosen = (fitted | judged) & (batch.label >= 0)
        if chosen.any():
            rows = mean_representation(
                self.model, batch.features[chosen], batch.four_momenta[chosen], batch.mask[chosen]
            )
            self.probe.update(rows, batch.label[chosen], fitted[chosen])


def mean_representation(model: nn.Module, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
    """Mean of the particles' representations, (batch, model.embed_dim); zero for an empty jet."""
    return segment_mean(cast(JetModel, model).encode(features, four_momenta, mask).float(), offsets(mask.sum(1)))


def _mean(losses: Tensor, jet: Tensor, batch: JetBatch, batch_idx: int) -> Tensor:
    mean = losses.sum() / max(len(losses), 1)
    if not mean.isfinite():
        refuse_numbers("loss", ~torch.isin(batch.index, jet[~losses.isfinite()]), batch, batch_idx)
    return mean
