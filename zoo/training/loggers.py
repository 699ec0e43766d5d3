"""Loggers, which write the history of a training for Lightning."""

from argparse import Namespace
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from zoo.files import disk_errors_name
from zoo.report.history import History


class HistoryLogger(Logger):
    """Logs to ``metrics.csv`` of a run folder, from one process, see `History`.

    Note:
        Lightning's own ``CSVLogger`` is not used: it deletes the file of a resumed run, and it empties the file when a
        column is added, so that a kill at that moment loses all earlier rows.

    Args:
        folder: the run folder.
        first_step: number of the next step.

    Raises:
        ValueError: if the file of a resumed run is damaged; the message names the line.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        super().__init__()
        self._folder = folder
        self._step = first_step
        self._history = History(folder / "metrics.csv", first_step)

    @property
    def name(self) -> str:
        """Name of the run."""
        return self._folder.name

    @property
    def version(self) -> str:
        """Empty, as a folder holds one run."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self._folder)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Do nothing: ``config.yaml`` has them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float | Tensor], step: int | None = None) -> None:
        """Append a row; without a step it belongs to the step of the previous row."""
        self._step = self._step if step is None else step
        row = {name: value.item() if isinstance(value, Tensor) else value for name, value in metrics.items()}
        self._history.append(row | {"step": self._step})

    @rank_zero_only
    def save(self) -> None:
        """Return once the rows are on the disk."""
        self._history.sync()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """The same at the end of the training."""
        self._history.sync()


class BoardLogger(TensorBoardLogger):
    """TensorBoard's logger, in the folder ``tensorboard`` of a run; the errors of a full disk name that folder.

    Args:
        folder: the run folder.
        first_step: number of the next step; what a resumed run has already logged from there on is not shown.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        super().__init__(folder, name="", version="tensorboard", purge_step=first_step or None)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Writer of the events, made with the first of them."""
        with disk_errors_name(Path(self.log_dir)):
            return super().experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log a row."""
        with disk_errors_name(Path(self.log_dir)):
            super().log_metrics(metrics, step)

    @rank_zero_only
    def save(self) -> None:
        """Return once the events are handed over to the system."""
        with disk_errors_name(Path(self.log_dir)):
            super().save()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """The same at the end of the training."""
        with disk_errors_name(Path(self.log_dir)):
            super().finalize(status)


class WandbRun(Callback):
    """Keeps the Weights & Biases run of a training in its checkpoints, so that a resumed training continues that run.

    Args:
        logger: logger of the run.
    """

    def __init__(self, logger: WandbLogger) -> None:
        self._logger = logger

    def state_dict(self) -> dict[str, Any]:
        """The ``id`` of the run."""
        return {"id": self._logger.version}


def wandb_logger(project: str, run_folder: Path, run_id: str | None, held: ExitStack) -> WandbLogger:
    """Logger to Weights & Biases; its run ends with the training unless it had begun before.

    Args:
        project: name of the project.
        run_folder: folder that gives the run its name and holds its files.
        run_id: run to continue; None: a new one.
        held: closes the run at its end.
    """
    import wandb

    def finish(kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        wandb.finish(exit_code=int(error is not None))

    if wandb.run is None:  # else another program, such as a sweep, has begun it
        held.push(finish)
    return WandbLogger(project=project, name=run_folder.name, save_dir=run_folder, id=run_id)
