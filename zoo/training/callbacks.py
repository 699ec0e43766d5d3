"""What happens around the training steps: checkpoints, random state, averaged weights, checks, predictions."""

import math
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, RichProgressBar
from torch import Tensor

from zoo.data.batch import JetBatch
from zoo.data.hints import did_you_mean
from zoo.files import remove_drafts
from zoo.kernels.building import current_names
from zoo.model import declared
from zoo.progress import SECONDS_A_LINE, duration
from zoo.report import write_report
from zoo.score_files import write_scores
from zoo.training.judged import Judged
from zoo.training.run_folder import checkpoint_path

_EPOCH_FIGURES = ("val_loss", "val_probe_auc", "val_auc", "val_accuracy", "val_background_rejection_0.3")


class ProgressBar(RichProgressBar):
    """Shows the loss of the step and the validation AUC; without a terminal, one line per epoch."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The available metrics, by the names under which they are shown."""
        metrics = super().get_metrics(trainer, pl_module)
        names = {"train_loss_step": "loss", "val_auc": "val_auc", "val_probe_auc": "val_probe_auc"}
        return {shown: metrics[name] for name, shown in names.items() if name in metrics}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write a line on the progress to a log file."""
        super().on_train_epoch_end(trainer, pl_module)
        if not sys.stdout.isatty():
            figures = {
                name: trainer.callback_metrics[name] for name in _EPOCH_FIGURES if name in trainer.callback_metrics
            }
            text = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
            print(
                f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}, step {trainer.global_step}: {text}",
                flush=True,
            )


class MinuteLog(Callback):
    """Without a terminal, one line per minute of an epoch or test: how far it is, how fast, and what is left."""

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        """Count the batches of a resumed epoch, for which Lightning calls no start hook."""
        self.on_train_epoch_start(trainer)

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        """Count the batches of an epoch; of a resumed one, those that are left."""
        done = trainer.fit_loop.epoch_loop.batch_progress.current.processed
        self._begin(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", trainer.num_training_batches, done)

    def on_validation_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        """Count the batches of a validation, the last part of its epoch."""
        self._begin("validation", sum(trainer.num_val_batches))

    def on_test_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        """Count the batches of a test."""
        self._begin("test", sum(trainer.num_test_batches))

    def on_predict_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        """Count the batches of a prediction."""
        self._begin("prediction", sum(trainer.num_predict_batches))

    def on_train_batch_end(self, trainer: Trainer, _: LightningModule, outputs: Any, batch: JetBatch, *__: Any) -> None:
        """Write the line that is due, with the loss of this batch."""
        self._count(trainer, batch, f", loss {trainer.callback_metrics['train_loss_step']:.4f}")

    def on_validation_batch_end(
        self, trainer: Trainer, _: LightningModule, outputs: Any, batch: JetBatch, *__: Any
    ) -> None:
        """Write the line that is due."""
        self._count(trainer, batch)

    on_test_batch_end = on_predict_batch_end = on_validation_batch_end

    def _begin(self, name: str, batches: float, done: int = 0) -> None:
        self._name, self._batches, self._done, self._before = name, batches, done, done
        self._jets, self._start = 0, time.monotonic()
        self._said = self._start

    def _count(self, trainer: Trainer, batch: JetBatch, further: str = "") -> None:
        self._done += 1
        self._jets += len(batch.label) * trainer.world_size
        now = time.monotonic()
        is_due = now - self._said >= SECONDS_A_LINE and self._done < self._batches
        if not is_due or sys.stdout.isatty() or not trainer.is_global_zero:
            return
        self._said, seconds = now, now - self._start
        left = duration(seconds * (self._batches - self._done) / (self._done - self._before))
        print(
            f"{self._name}: batch {self._done:,} of {self._batches:,}, {self._jets / seconds:,.0f} jets/s, {left} left"
            + further,
            flush=True,
        )


class RunCheckpoints(Checkpoint):
    """Keeps ``checkpoints/last.ckpt`` and ``checkpoints/best.ckpt`` of a run folder.

    ``last`` is written after each epoch and every ``every_n_train_steps`` optimiser steps, ``best`` after an epoch
    whose monitored metric is better than all before. Each replaces its older version as a whole. Resuming from ``last``
    repeats nothing and skips nothing.

    Args:
        every_n_train_steps: write ``last`` also within an epoch, after this many steps; None: after epochs only.
        monitor: metric whose highest value is best, or lowest if its name ends with ``loss``, one of the task's
            ``epoch_figures``; None: that of the task. Without validation jets the latest epoch is best.

    Raises:
        ValueError: if ``every_n_train_steps`` is not positive.
    """

    def __init__(self, every_n_train_steps: int | None = None, monitor: str | None = None) -> None:
        if every_n_train_steps is not None and every_n_train_steps < 1:
            raise ValueError(f"every_n_train_steps must be 1 or more, got {every_n_train_steps}")
        self.every_n_train_steps = every_n_train_steps
        self.monitor = monitor
        self.best_value: float | None = None
        self._saved_step = 0
        self._seconds = 0.0
        self._started = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that the monitored metric is one that this task will log.

        Raises:
            ValueError: if it is not.
        """
        self.monitor = self.monitor or pl_module.monitor
        if self.monitor not in pl_module.epoch_figures:
            raise ValueError(
                f"checkpoints.monitor: no metric is called {self.monitor!r}; "
                f"{did_you_mean(self.monitor, pl_module.epoch_figures)} (all: {', '.join(pl_module.epoch_figures)})"
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove what a killed run was still writing, and start the clock."""
        self._started = time.monotonic()
        if trainer.is_global_zero:
            run_folder = Path(trainer.default_root_dir)
            for folder in (run_folder, run_folder / "checkpoints", run_folder / "report"):
                remove_drafts(folder)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: JetBatch, batch_idx: int
    ) -> None:
        """Write ``last`` when its step is due."""
        step = trainer.global_step
        # The last batch of an epoch is left to the end of the epoch, as the validation comes in between.
        if self.every_n_train_steps is None or trainer.is_last_batch or step == self._saved_step:
            return
        if step % self.every_n_train_steps == 0:
            self.save(trainer, "last")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write ``best`` if this epoch was the best, then ``last``; an interrupted epoch does not count."""
        if not trainer.is_last_batch:
            return
        if "val_loss" in trainer.callback_metrics and self.monitor not in trainer.callback_metrics:
            raise ValueError(
                f"checkpoints.monitor: the validation jets give no {self.monitor}, perhaps for want of labels; "
                "monitor another metric, or give jets of every class"
            )
        value = trainer.callback_metrics.get(self.monitor, torch.tensor(math.nan)).item()
        sign = -1 if self.monitor.endswith("loss") else 1
        if self.best_value is None or sign * value > sign * self.best_value:
            self.best_value = None if math.isnan(value) else value
            self.save(trainer, "best")
        self.save(trainer, "last")

    def state_dict(self) -> dict[str, Any]:
        """The best value so far, the step of the newest checkpoint, and the seconds of training that led to it."""
        seconds = self._seconds + time.monotonic() - self._started
        return {"best_value": self.best_value, "saved_step": self._saved_step, "seconds": seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them."""
        self.best_value, self._saved_step = state_dict["best_value"], state_dict["saved_step"]
        self._seconds = state_dict["seconds"]

    def save(self, trainer: Trainer, name: str) -> None:
        """Write ``last`` or ``best``; call it in a hook after all others of a step or epoch.

        Raises:
            FloatingPointError: if a weight is not finite.
        """
        _require_finite(trainer)
        for logger in trainer.loggers:
            logger.save()  # a checkpoint that survives a kill needs its history on disk too
        self._saved_step = trainer.global_step
        trainer.save_checkpoint(checkpoint_path(trainer.default_root_dir, name), weights_only=False)


class RandomState(Callback):
    """Keeps the random states of torch (every device), numpy and Python in checkpoints.

    After a resumption, dropout then draws what it would have drawn without the interruption.
    """

    def __init__(self) -> None:
        self._to_restore: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """All random states, as tensors and plain values."""
        kind, keys, *rest = np.random.get_state()  # noqa: NPY002 (the state that other libraries draw from)
        return {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "numpy": [kind, keys.tolist(), *rest],
            "python": random.getstate(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states until the training starts: building data loaders draws random numbers too."""
        self._to_restore = state_dict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the states of a resumed run."""
        if self._to_restore is None:
            return
        torch.set_rng_state(self._to_restore["torch"])
        if len(self._to_restore["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(self._to_restore["cuda"])
        np.random.set_state(tuple(self._to_restore["numpy"]))  # noqa: NPY002
        random.setstate(self._to_restore["python"])
        self._to_restore = None


class WeightAverage(Callback):
    r"""Exponential moving average of the weights, used for validation and as the weights of every checkpoint.

    .. math:: \bar\theta \leftarrow d \, \bar\theta + (1 - d) \, \theta, \quad
        d = \min\left(\text{decay}, \frac{1 + s}{10 + s}\right)

    after optimiser step s, so that a short training forgets its random start. Running statistics of normalisations are
    averaged in the same way; integers are copied. At the end the model holds the average.

    Note:
        Lightning's own ``EMAWeightAveraging`` is not used: testing ``best`` in the process that trained it loads the
        weights before averaging, and it averages buffers that are not saved.

    Args:
        decay: d of late steps.

    Raises:
        ValueError: if ``decay`` lies outside [0, 1).
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        self.decay = decay
        self._average: dict[str, Tensor] = {}
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start from the weights of the model (a backbone is loaded by now), unless a checkpoint holds an average."""
        state = pl_module.state_dict()
        start = self._average or state
        self._average = {name: start[name].to(value.device, copy=True) for name, value in state.items()}

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: JetBatch, batch_idx: int
    ) -> None:
        """Move the average towards the weights of a new step."""
        if trainer.global_step == self._step:
            return  # gradients were only accumulated
        self._step = trainer.global_step
        decay = min(self.decay, (1 + self._step) / (10 + self._step))
        for name, value in pl_module.state_dict().items():
            if value.is_floating_point():
                self._average[name].lerp_(value, 1 - decay)
            else:
                self._average[name].copy_(value)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate the average."""
        self._swap(pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Switch back to the weights that are trained."""
        self._swap(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the average in the model."""
        pl_module.load_state_dict(self._average)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the average as the weights of the checkpoint, and beside it the weights to continue from."""
        checkpoint["training_state_dict"] = checkpoint["state_dict"]
        checkpoint["state_dict"] = self._average

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore both; from a checkpoint without an average, start one at its weights."""
        if trainer.state.fn != "fit":
            return
        self._average = current_names(pl_module, checkpoint["state_dict"])
        pl_module.load_state_dict(checkpoint.get("training_state_dict", checkpoint["state_dict"]))
        self._step = checkpoint["global_step"]

    @torch.no_grad()
    def _swap(self, pl_module: LightningModule) -> None:
        if not self._average:
            return  # validation alone, without training
        for name, value in pl_module.state_dict().items():
            held = value.clone()
            value.copy_(self._average[name])
            self._average[name].copy_(held)


class MatchData(Callback):
    """Refuses a model or task that was built for other inputs, contexts, classes or targets than those of the data.

    Args:
        input_dim: number of features the model was built for; None: unknown.
        num_classes: number of logits it gives; None: unknown.
    """

    def __init__(self, input_dim: int | None, num_classes: int | None) -> None:
        self.input_dim = input_dim
        self.num_classes = num_classes

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compare with the data module, which has been set up by now.

        Raises:
            ValueError: naming the key to change, if they differ.
        """
        data = trainer.datamodule
        if pl_module.needs_labels and not data.labelled:
            raise ValueError(f"data.labelled: {type(pl_module).__name__} is trained and tested on labels; leave it out")
        targets = None if stage == "predict" else data.targets
        if targets is not None and (absent := [name for name in pl_module.target_fields if name not in targets]):
            raise ValueError(
                f"data.targets: has no {', '.join(map(repr, absent))}, which {type(pl_module).__name__} reads; leave "
                "data.targets out, or add what is missing"
            )
        wanted = [("model.model.init_args.input_dim", self.input_dim, data.input_dim, "of features in data.features")]
        wanted += pl_module.output_sizes(data, self.num_classes)
        for key, found, number, text in wanted:
            if found not in (None, number):
                raise ValueError(
                    f"{key} is {found}, but must be {number}, the number {text}: write {number} in the config"
                )
        context_dim = declared(getattr(pl_module, "model", pl_module)).context_dim
        if context_dim != data.context_dim:
            names = ", ".join(data.context_table.names) or "none"
            remedy = "give a data.context of that many" if context_dim else "leave data.context out"
            raise ValueError(
                f"the model takes {context_dim} context features, but the data has {data.context_dim} ({names}): "
                f"{remedy}, or choose another model"
            )


class WriteReport(Callback):
    """Writes the predictions of a task for its judged split, outside a training, as ``report/`` of the run folder.

    Args:
        run_folder: folder of the run; its ``metrics.csv`` and ``config.yaml`` enter the report if they exist.
        title: name of the model; all seeds of one training share it.

    Attributes:
        facts: how the weights were made, for the page; set by whoever loads them.
        document: what `zoo.report.write_report` returned; None before the end of a test or validation.
    """

    def __init__(self, run_folder: Path, title: str) -> None:
        self.run_folder = run_folder
        self.title = title
        self.facts: dict[str, Any] = {}
        self.document: dict[str, Any] | None = None
        self._batches: list[dict[str, Tensor]] = []
        self._jets = 0
        self._show: Callable[[dict[str, Any]], None] | None = None

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: dict[str, Tensor],
        batch: JetBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the predictions for a batch, if the task is judged on its test split."""
        self._keep(pl_module, "test", outputs, batch)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: dict[str, Tensor],
        batch: JetBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the predictions for a batch, if the task is judged on its validation split; not during a training."""
        if trainer.state.fn == "validate":
            self._keep(pl_module, "val", outputs, batch)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the report of a test."""
        self._write(trainer, pl_module, "test")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the report of a validation."""
        self._write(trainer, pl_module, "val")

    def show(self) -> None:
        """Print the metrics, and where the report is."""
        self._show(self.document)
        print(f"report: {self.run_folder / 'report'}")

    def _keep(self, pl_module: LightningModule, split: str, outputs: dict[str, Tensor], batch: JetBatch) -> None:
        if pl_module.judged_split == split:
            self._batches.append(outputs)
            self._jets += len(batch.mask)

    def _write(self, trainer: Trainer, pl_module: LightningModule, split: str) -> None:
        if not self._batches:
            return
        history, config = self.run_folder / "metrics.csv", self.run_folder / "config.yaml"
        logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
        judged = Judged(trainer.datamodule, split, self.title, self._jets, logged)
        findings = pl_module.findings(_joined(trainer, self._batches), judged)
        self._show = findings.show
        self.document = write_report(
            self.run_folder / "report",
            findings,
            history=history if history.exists() else None,
            config=config if config.exists() else None,
            facts=self.facts | {"parameters": pl_module.parameter_count},
        )
        self._batches, self._jets = [], 0


class WritePredictions(Callback):
    """Writes the predictions to one file, one row per jet with its number and the observers of the data module.

    An ``.arrow`` file holds the same as the report of the task, such as logits (`zoo.report.Predictions`); files with
    another ending hold the columns for other programs, see `zoo.score_files`.

    Args:
        path: file to write; an older file is replaced.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._batches: list[dict[str, Tensor]] = []
        self._jets = 0

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: dict[str, Tensor],
        batch: JetBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the predictions of a batch."""
        self._batches.append(outputs)
        self._jets += len(batch.mask)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        columns, judged = _joined(trainer, self._batches), Judged(trainer.datamodule, "predict", "", self._jets, {})
        if self.path.suffix == ".arrow":
            pl_module.table(columns, judged).save(self.path)
        else:
            write_scores(self.path, pl_module.score_columns(columns, judged))
        self._batches, self._jets = [], 0


def _joined(trainer: Trainer, batches: list[dict[str, Tensor]]) -> dict[str, np.ndarray]:
    if trainer.world_size > 1:
        raise ValueError("trainer.devices: predictions are collected in one process; give --trainer.devices 1")
    return {name: torch.cat([batch[name] for batch in batches]).numpy() for name in batches[0]}


def _require_finite(trainer: Trainer) -> None:
    bad = [name for name, value in trainer.lightning_module.state_dict().items() if not value.isfinite().all()]
    if bad:
        raise FloatingPointError(
            f"weights are not finite after step {trainer.global_step} ({', '.join(bad[:3])}), so no checkpoint is "
            "written; lower model.learning_rate or set trainer.gradient_clip_val, and resume with --ckpt-path last"
        )
