"""Training in SLURM jobs: stopped at the time limit, requeued, and continued as if nothing had happened."""

import os
import signal
import subprocess
import sys
import threading
from types import FrameType
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from zoo.data.batch import JetBatch
from zoo.training.callbacks import RunCheckpoints
from zoo.training.run_folder import checkpoint_path

#: Exit status of a training whose job was requeued, so that nothing that needs its result follows (EX_TEMPFAIL).
REQUEUED_STATUS = 75

#: Exit status of a training that SLURM is about to kill, as a shell gives it.
TERMINATED_STATUS = 128 + signal.SIGTERM


class SlurmRequeue(Checkpoint):
    """Requeues the job on SIGUSR1: writes ``last.ckpt`` after the step, asks ``scontrol``, and ends the process.

    If asked to (``#SBATCH --signal=USR1@90``), SLURM sends the signal before the time limit to the processes that
    ``srun`` started. A validation during the training first finishes its epoch; a test or validation after it, its
    batch. On SIGTERM, which comes before a preemption, ``last.ckpt`` is written too, and SLURM decides what happens to
    the job.

    Args:
        checkpoints: callback that writes ``last.ckpt``; its hooks must come before these.
    """

    def __init__(self, checkpoints: RunCheckpoints) -> None:
        self.checkpoints = checkpoints
        self._is_asked = False
        self._last_step = 0

    def listen(self) -> None:
        """Handle the signal from now on; otherwise it would end this process and those that it starts."""
        if threading.current_thread() is threading.main_thread():
            # SLURM signals loaders and loggers too: they inherit the block, but not the handler. Threads that already
            # exist, such as those of a BLAS, do not have it blocked.
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
            signal.signal(signal.SIGUSR1, self._note)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the first step."""
        self._last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: JetBatch, batch_idx: int
    ) -> None:
        """Stop after a step; the last step of an epoch counts as the end of the epoch, as for `RunCheckpoints`."""
        is_step = trainer.global_step > self._last_step  # else gradients were only accumulated
        self._last_step = trainer.global_step
        if is_step and not trainer.is_last_batch and self._must_stop(trainer):
            self.checkpoints.save(trainer, "last")
            self._stop(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop between epochs, when `RunCheckpoints` has just written ``last``."""
        if trainer.is_last_batch and self._must_stop(trainer):
            self._stop(trainer)

    def on_test_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Stop the test after a training; the requeued job finds the training finished, and tests again."""
        if self._must_stop(trainer):
            self._stop(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """The same for the validation at the end of a pretraining."""
        if trainer.state.fn == "validate" and self._must_stop(trainer):
            self._stop(trainer)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._is_asked = True

    def _must_stop(self, trainer: Trainer) -> bool:
        """The same answer in all processes, although the signals reach them at different steps."""
        if signal.sigtimedwait([signal.SIGUSR1], 0) is not None:
            self._is_asked = True
        return trainer.strategy.reduce_boolean_decision(self._is_asked or trainer.received_sigterm, all=False)

    def _stop(self, trainer: Trainer) -> None:
        """End all processes; but a job that SLURM does not requeue uses the time that it has left."""
        is_requeue = trainer.strategy.reduce_boolean_decision(self._is_asked, all=False)
        if not is_requeue:
            raise SystemExit(TERMINATED_STATUS)
        self._is_asked = False
        reason = trainer.strategy.broadcast(_requeue() if trainer.is_global_zero else None)
        path = checkpoint_path(trainer.default_root_dir, "last")
        if reason is None:
            if trainer.is_global_zero:
                print(f"SLURM has requeued the job, which goes on from {path}", flush=True)
            raise SystemExit(REQUEUED_STATUS)
        if trainer.is_global_zero:
            print(f"SLURM has not requeued the job ({reason}); it goes on, and so far is in {path}", file=sys.stderr)


def _requeue() -> str | None:
    """Ask SLURM to start this job again; None if it will, otherwise the reason why not."""
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:  # the job number of one task may mean the whole array
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"scontrol: {error}"
    return None if done.returncode == 0 else f"scontrol requeue {job}: {done.stderr.strip() or done.returncode}"
