"""Training checkpoints on disk: replaced as a whole, checked on reading, never unpickled."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO
from torch import Tensor, nn

from zoo.files import atomic_write
from zoo.kernels.building import current_names
from zoo.torch_files import DamagedFileError, read_torch_file
from zoo.training.run_folder import CheckpointError, require_checkpoint

#: Key of a checkpoint under which a pretraining lists the tensors of its backbone.
BACKBONE = "backbone"


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, as tensors and plain values only.

    Every member of the file is compared with the CRC-32 that was stored when it was written, so a flipped bit in the
    weights is an error and not a slightly different model.

    Args:
        path: a local file, as written by training.

    Returns:
        The checkpoint's dictionary; ``state_dict`` holds the weights.

    Raises:
        CheckpointError: if ``path`` is a URL, is missing, is damaged, or asks to run code (a pickle).
    """
    path = require_checkpoint(path)
    try:
        checkpoint = read_torch_file(path)
    except DamagedFileError as error:
        raise CheckpointError(f"checkpoint {path}: {error}; {_REMEDY}") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"checkpoint {path}: holds pickled objects, which could run any code and are never loaded; "
            f"use a checkpoint that this program wrote"
        ) from error
    except Exception as error:  # any error that unknown bytes may cause
        raise CheckpointError(f"checkpoint {path}: not readable ({error}); {_REMEDY}") from error
    missing = _KEYS - (checkpoint.keys() if isinstance(checkpoint, dict) else set())
    if missing:
        raise CheckpointError(
            f"checkpoint {path}: has no {', '.join(sorted(missing))}; give the last.ckpt or best.ckpt of a run"
        )
    return checkpoint


def read_model_weights(path: str | Path) -> dict[str, Tensor]:
    """Weights of the bare model in a training checkpoint, ready for ``model.load_state_dict``.

    Args:
        path: ``best.ckpt`` or ``last.ckpt`` of a run.

    Returns:
        Tensors by parameter name, on the CPU.

    Raises:
        CheckpointError: as `read_checkpoint`, or if the file holds no model.
    """
    prefix = "model."
    state = read_checkpoint(path)["state_dict"]
    weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    if not weights:
        raise CheckpointError(f"checkpoint {path}: holds no weights under 'model.'; give a checkpoint of a task")
    return weights


def require_same_model(module: nn.Module, checkpoint: dict[str, Any], path: str | Path) -> None:
    """Refuse a checkpoint with the weights of another model.

    Args:
        module: module to load the weights into.
        checkpoint: as `read_checkpoint` gave it.
        path: its file, for the message.

    Raises:
        CheckpointError: naming what is missing, unknown or of another shape.
    """
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in current_names(module, checkpoint["state_dict"]).items()}
    differences = sorted(name for name in wanted | given if wanted.get(name) != given.get(name))
    if differences:
        name = differences[0]
        raise CheckpointError(
            f"checkpoint {path}: is of another model: {len(differences)} of {len(wanted)} weights differ, such as "
            f"{name} with shape {given.get(name, 'missing')} instead of {wanted.get(name, 'none')}; "
            f"use the config.yaml beside it"
        )


class SafeCheckpointIO(CheckpointIO):
    """How the trainer writes, reads and removes checkpoints.

    Lightning's own version writes through a file in ``$TMPDIR``, which becomes a copy across file systems that a kill
    can cut short; and it unpickles what it downloads.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write ``checkpoint`` to ``path``; a kill leaves either the old file or the new one."""
        if storage_options is not None:
            raise TypeError("storage_options: checkpoints are local files and take none")
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self, path: str | Path, map_location: Callable | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read ``path`` like `read_checkpoint`; ``weights_only=False`` is refused."""
        if weights_only is False:
            raise CheckpointError(f"checkpoint {path}: weights_only=False would run a pickle's code; leave it out")
        return read_checkpoint(path)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete ``path`` if it exists."""
        Path(path).unlink(missing_ok=True)


#: What every checkpoint of a training holds.
_KEYS = {"state_dict", "epoch", "global_step", "callbacks"}
_REMEDY = "it is damaged or no checkpoint: restore a copy, use the run's other checkpoint, or train again"
