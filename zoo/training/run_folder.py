"""The folder of a run: where its checkpoints are, and which of them a training resumes from. Imports no torch."""

import os
from pathlib import Path

from zoo.files import atomic_write

#: File of a run folder that says which SLURM job trains there.
_JOB_FILE = "slurm_job"


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message names the file and the remedy."""


def checkpoint_path(run_folder: str | Path, name: str) -> Path:
    """File of the checkpoint ``last`` or ``best`` of a run folder."""
    return Path(run_folder) / "checkpoints" / f"{name}.ckpt"


def named_checkpoint(run_folder: str | Path, name: str) -> str:
    """Path of a checkpoint given by name, ``last`` or ``best``, or by path."""
    return str(checkpoint_path(run_folder, name)) if name in ("best", "last") else name


def require_checkpoint(path: str | Path) -> Path:
    """The path of a checkpoint, which must be a file on this machine.

    Raises:
        CheckpointError: if it is not.
    """
    if "://" in str(path):
        raise CheckpointError(f"checkpoint {path}: only local files are read; download it and check its sha256 first")
    if not Path(path).is_file():
        raise CheckpointError(f"checkpoint {path}: no such file; train first, or give --ckpt-path another file")
    return Path(path)


def is_of_run(run_folder: str | Path, path: str | Path) -> bool:
    """Whether a checkpoint lies in a run folder."""
    return Path(path).resolve().parent == checkpoint_path(run_folder, "last").resolve().parent


def checkpoint_to_resume(run_folder: str | Path, name: str | None) -> str | None:
    """The checkpoint to resume from; None to begin a new run, for which the folder must be free.

    Raises:
        ValueError: if the folder holds another run.
    """
    path = name and named_checkpoint(run_folder, name)
    last = checkpoint_path(run_folder, "last")
    is_requeued = is_continued(Path(run_folder))
    if is_requeued and last.exists():
        return str(last)
    continues_own_run = is_requeued or (path is not None and is_of_run(run_folder, path))
    if (Path(run_folder) / "config.yaml").exists() and not continues_own_run:
        raise ValueError(
            f"run_folder {run_folder}: holds a run already; add --ckpt-path last to continue it, "
            "give --run-folder another name to keep it, or delete the folder"
        )
    if name == "last" and not last.exists():
        return None  # killed before its first checkpoint, or never started
    return path


def is_job() -> bool:
    """Whether this process belongs to a SLURM job."""
    return "SLURM_JOB_ID" in os.environ


def note_job(run_folder: Path) -> None:
    """Record which job trains in a run folder; outside SLURM, do nothing."""
    if is_job():
        with atomic_write(run_folder / _JOB_FILE) as file:
            file.write(f"{os.environ['SLURM_JOB_ID']}\n".encode())


def is_continued(run_folder: Path) -> bool:
    """Whether this job was requeued and had begun to train in this folder before."""
    path = run_folder / _JOB_FILE
    is_requeued = int(os.environ.get("SLURM_RESTART_COUNT", 0)) > 0
    return is_job() and is_requeued and path.is_file() and path.read_text().strip() == os.environ["SLURM_JOB_ID"]
