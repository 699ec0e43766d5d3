"""Lightning's trainer, restricted to the checkpoint and the processes that it is given."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.trainer.connectors.checkpoint_connector import _CheckpointConnector

from zoo.training.checkpoints import SafeCheckpointIO

#: Trainer settings with their allowed values, and what to use instead.
_REPLACED_SETTINGS = {
    "barebones": ((False,), "leave it out; a run has its checkpoints and its history"),
    "default_root_dir": ((None,), "give run_folder, which holds all that a run writes"),
    "enable_checkpointing": ((None, True), "leave it out; a run has its checkpoints"),
    "fast_dev_run": ((False, 0), "give data.train_jets and trainer.max_epochs 1; it would write a run without history"),
    "sync_batchnorm": ((False,), "leave it out; the normalisations of the models cannot be replaced by Lightning's"),
    "max_steps": ((-1,), "give trainer.max_epochs; with a number of steps a resumed run repeats part of an epoch"),
    "model_registry": ((None,), "leave it out; checkpoints lie in run_folder"),
    "val_check_interval": ((None, 1.0), "leave it out; the validation comes after each epoch"),
}


def build_trainer(
    settings: dict[str, Any], run_folder: Path, callbacks: list[Callback], loggers: list[Logger]
) -> Trainer:
    """The trainer of a run.

    If no checkpoint is named, Lightning itself would load the newest ``hpc_ckpt_*.ckpt`` of the folder in a SLURM job,
    or the file of an ``OnExceptionCheckpoint``. On SIGUSR1 it would write a checkpoint of its own and requeue the job.
    This trainer loads the file that it is given, or none; `zoo.training.slurm` requeues.

    Args:
        settings: arguments of ``lightning.pytorch.Trainer`` as a config gives them.
        run_folder: where the run writes.
        callbacks: callbacks, in place of those of the settings.
        loggers: loggers, likewise.

    Raises:
        ValueError: if a setting is not one that this project allows, or Lightning refuses it.
    """
    for key, (harmless, instead) in _REPLACED_SETTINGS.items():
        if settings[key] not in harmless:
            raise ValueError(f"trainer.{key}: {instead}")
    plugins = list(settings["plugins"] or [])
    environment = _environment(settings, plugins)
    plugins += [] if environment is None else [environment]
    try:
        trainer = Trainer(
            **settings
            | {
                "callbacks": callbacks,
                "default_root_dir": run_folder,
                "logger": loggers or False,
                "plugins": [*plugins, SafeCheckpointIO()],
            }
        )
    except (MisconfigurationException, ModuleNotFoundError, RuntimeError, ValueError) as error:
        raise ValueError(f"trainer: {error}") from error
    processes = trainer.num_devices * trainer.num_nodes
    if isinstance(environment, SLURMEnvironment) and processes != environment.world_size():
        raise ValueError(
            f"trainer.devices: {trainer.num_devices} on each of {trainer.num_nodes} nodes, but SLURM started "
            f"{environment.world_size()} tasks; give --nodes and --ntasks-per-node the same numbers"
        )
    trainer._checkpoint_connector = _GivenCheckpoint(trainer)
    return trainer


def is_one_process(settings: Mapping[str, Any]) -> bool:
    """Whether a process trains alone, even if SLURM, torchrun or MPI started many.

    Lightning takes the rank from the variables that these set, and would write nothing in any process but the first.
    """
    devices = settings["devices"]
    return (devices in (1, "1") or (isinstance(devices, list) and len(devices) == 1)) and settings["num_nodes"] == 1


class _GivenCheckpoint(_CheckpointConnector):
    """Takes the path of a checkpoint, or None, literally."""

    def _parse_ckpt_path(self, state_fn: Any, ckpt_path: Any, model_provided: bool, model_connected: bool) -> Any:
        return ckpt_path


def _environment(settings: dict[str, Any], plugins: Sequence[Any]) -> ClusterEnvironment | None:
    """What starts the processes of a training; None if Lightning's own choice, or the user's, is right."""
    given = [plugin for plugin in plugins if isinstance(plugin, ClusterEnvironment)]
    given += [getattr(settings["strategy"], "cluster_environment", None) or None]
    for environment in filter(None, given):
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            raise ValueError("trainer.plugins: leave SLURMEnvironment out, or set its auto_requeue: false")
        return None
    if is_one_process(settings):
        return LightningEnvironment()
    if TorchElasticEnvironment.detect() or not SLURMEnvironment.detect():
        return None
    if int(os.environ["SLURM_NTASKS"]) > 1:
        return SLURMEnvironment(auto_requeue=False)
    if settings["num_nodes"] != 1:
        raise ValueError("trainer.num_nodes: SLURM started one task; give --nodes and --ntasks-per-node, and use srun")
    return LightningEnvironment()  # the only task starts the other processes
