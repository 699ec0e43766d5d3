"""The command line of a training: ``fit|validate|test|predict --config MODEL --config DATA --config RECIPE``."""

import argparse
import importlib
import logging
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import get_loader, set_loader, set_parsing_settings
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.plugins import Precision
from lightning.pytorch.utilities import rank_zero_only

from zoo.data import JetDataModule
from zoo.data.datasets import resolve_files
from zoo.errors import MISTAKE
from zoo.files import atomic_write, only_one, require_output
from zoo.limits import parse_yaml
from zoo.old_configs import is_old, renew_settings
from zoo.score_files import require_kind
from zoo.tasks import Task
from zoo.training.callbacks import (
    MatchData,
    MinuteLog,
    ProgressBar,
    RandomState,
    RunCheckpoints,
    WeightAverage,
    WritePredictions,
    WriteReport,
)
from zoo.training.checkpoints import read_checkpoint, require_same_model
from zoo.training.fine_tuning import require_same_fine_tuning
from zoo.training.loggers import BoardLogger, HistoryLogger, WandbRun, wandb_logger
from zoo.training.packaged import find_configs
from zoo.training.run_folder import checkpoint_path, checkpoint_to_resume, is_job, is_of_run, named_checkpoint, note_job
from zoo.training.slurm import SlurmRequeue
from zoo.training.trainer import build_trainer, is_one_process

# A config names classes that are imported, so it is a program: none is fetched, unlike in Lightning's command line.
set_parsing_settings(config_read_mode_urls_enabled=False, config_read_mode_fsspec_enabled=False)

#: How the parser reads YAML: as usual, with what an older zoo wrote brought into today's form.
PARSER_MODE = "zoo"
_read_yaml = get_loader("yaml")
set_loader(PARSER_MODE, lambda text: renew_settings(_read_yaml(text)), (yaml.YAMLError,))

#: Task of a configuration that names no class.
DEFAULT_TASK = {"class_path": "zoo.tasks.Classification"}

#: Settings of every training; a config or the command line may override them.
TRAINER_DEFAULTS = {
    "accelerator": "auto",
    "devices": 1,
    "enable_model_summary": False,
    "gradient_clip_val": 1.0,
    "log_every_n_steps": 50,
    "num_sanity_val_steps": 0,
}

#: Split that a report covers -> the subcommand that writes it.
_JUDGING = {"test": "test", "val": "validate"}

#: Warnings that do not help a user of this program.
_NEEDLESS_WARNINGS = (
    ".*isinstance.treespec, LeafSpec.*",
    "It is recommended to use `self.log.*sync_dist=True.*",  # the metrics already cover all processes
    ".*does not have many workers.*",
    ".*The number of training batches .* is smaller than the logging interval.*",
    ".*LightningCLI's args parameter is intended to run from within Python.*",
)


class TrainingParser(LightningArgumentParser):
    """A parser that reports a mistake alone, without the list of all its options."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong and exit with status 2."""
        if not self.exit_on_error:  # a nested parser, whose message the outer one completes
            super().error(message, ex)
        is_without_model = "class_path 'torch.nn.Module'" in message and "is not accepted" in message
        hint = "; name the config of the model before those of data and recipe" if is_without_model else ""
        self.exit(MISTAKE, f"zoo: error: {_in_one_line(message)}{hint} (all keys: zoo fit --all-keys)\n")

    def add_function_arguments(
        self, function: Callable[..., Any], *args: Any, linked_targets: set[str] | None = None, **options: Any
    ) -> list[str]:
        """Add those of a builder, without the links to its task that jsonargparse 4.53 passes on."""
        return super().add_function_arguments(function, *args, **options)


class TrainingCLI(LightningCLI):
    """Lightning's command line with run folders, safe checkpoints, and a report at the end.

    Keys besides Lightning's ``trainer``, ``model``, ``data`` and ``seed_everything``:

    - ``model``: a `zoo.tasks.Task` by its ``class_path``, with its ``init_args``; `DEFAULT_TASK` where none is named.
    - ``run_folder``: folder for all that a run writes.
    - ``checkpoints.every_n_train_steps``: see `zoo.training.callbacks.RunCheckpoints`.
    - ``wandb``: name of a project to which the run is logged too.
    - ``test_after_fit``: whether ``fit`` ends with a test of the best checkpoint, if ``data.test`` is given; for a task
      without a test, with its validation and a report on it.
    - ``predictions``: file that ``predict`` writes, by default ``<run_folder>/predictions.arrow``; with another ending
      the scores for other programs.
    - ``force``: whether an older file of predictions is replaced.

    Args:
        arguments: as on the command line.
        run: whether to run the subcommand that they name.
        held: what is released at the end: the lock of the run folder, see `zoo.files.only_one`.
    """

    def __init__(self, arguments: Sequence[str] | None, run: bool, held: ExitStack) -> None:
        self._held = held
        arguments = _renewed_options(sys.argv[1:] if arguments is None else arguments)
        _check_configs(arguments)
        super().__init__(
            Task,
            JetDataModule,
            subclass_mode_model=True,
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=1,
            parser_class=TrainingParser,
            parser_kwargs={"allow_abbrev": False, "parser_mode": PARSER_MODE},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=arguments,
            run=run,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the keys of this project."""
        parser.add_argument("--run_folder", type=str, required=True, help="folder of this run, runs/<name>")
        parser.add_argument("--wandb", type=str | None, default=None, help="Weights & Biases project to log to")
        parser.add_argument(
            "--test_after_fit", type=bool, default=True, help="fit tests the best checkpoint at its end"
        )
        parser.add_argument(
            "--predictions",
            type=str | None,
            default=None,
            help="file that predict writes, .arrow, .parquet, .csv, .h5 or .root",
        )
        parser.add_argument("--force", action="store_true", help="replace a file of predictions that exists")
        parser.add_class_arguments(RunCheckpoints, "checkpoints")
        parser.link_arguments("seed_everything", "data.seed")
        parser.set_defaults({"model": DEFAULT_TASK})
        # for a task that takes it; others have no such argument
        parser.link_arguments("data.feature_table", "model.init_args.feature_table", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, then find the checkpoint and check that it can be read, before anything is built."""
        super().parse_arguments(parser, args)
        self.checkpoint = None
        is_subcommand = "subcommand" in self.config
        options = self.config[self.config.subcommand] if is_subcommand else self.config
        self.task = _import_class(options.model.class_path)
        if options.data.labelled is None:
            options.data.labelled = self.task.needs_labels
        if not is_subcommand:
            return
        if self.task.judged_split == "val" and self.config.subcommand in ("test", "predict"):
            raise ValueError(
                f"{options.model.class_path}: has no answers to {self.config.subcommand}; use fit or validate"
            )
        if is_one_process(options.trainer):
            rank_zero_only.rank = 0  # type: ignore[attr-defined] # Lightning sets it on the function
        if self.config.subcommand == "fit":
            if rank_zero_only.rank == 0:  # type: ignore[attr-defined] # the first of all processes of a training
                self._held.enter_context(only_one(Path(options.run_folder), "training"))
            options.ckpt_path = checkpoint_to_resume(options.run_folder, options.ckpt_path)
        else:
            options.ckpt_path = named_checkpoint(options.run_folder, options.ckpt_path or "best")
        if options.ckpt_path is not None:
            self.checkpoint = read_checkpoint(options.ckpt_path)
        if self.config.subcommand == "predict":
            _require_output(options)
        elif self.config.subcommand == _JUDGING[self.task.judged_split]:
            require_output(Path(options.run_folder) / "report" / "metrics.json", force=True)

    def _parse_ckpt_path(self) -> None:
        """Do nothing: hyperparameters in a checkpoint do not replace the configuration."""

    def instantiate_trainer(self) -> Trainer:  # type: ignore[override] # nothing overrides the configuration
        """The trainer of the subcommand."""
        is_fit = self.subcommand == "fit"
        self._requeue = [SlurmRequeue(self._option("checkpoints"))] if is_fit and is_job() else []
        for callback in self._requeue:
            callback.listen()
        return self._trainer(training=is_fit)

    def before_fit(self) -> None:
        """Refuse to resume a checkpoint of another model or of another way to train it."""
        if self.checkpoint is None:
            return
        path = self._option("ckpt_path")
        require_same_model(self.model, self.checkpoint, path)
        require_same_fine_tuning(self.model.fine_tuning, self.checkpoint, path)
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined] # set by its connector
        averages = any(isinstance(callback, WeightAverage) for callback in callbacks)
        if "training_state_dict" in self.checkpoint and not averages:
            raise ValueError(
                f"checkpoint {path}: was made with averaged weights; keep zoo.training.callbacks.WeightAverage in "
                "trainer.callbacks to continue it"
            )

    def after_fit(self) -> None:
        """Test (or, without labels, validate) the best checkpoint with a separate trainer, and write the report."""
        split = self.task.judged_split
        subcommand = _JUDGING[split]
        if not self._option("test_after_fit") or self.datamodule.splits[split] is None:
            return
        if self.trainer.world_size > 1:
            if self.trainer.is_global_zero:
                again = f"zoo {subcommand} --run-folder {self._option('run_folder')} --trainer.devices 1"
                print(f"no report, as it is made in one process: {again}")
            return
        self.trainer = self._trainer(training=False)
        self._load_weights(checkpoint_path(self._option("run_folder"), "best"))
        if split == "test":
            self.trainer.test(self.model, datamodule=self.datamodule, verbose=False)
            self.after_test()
        else:
            self.trainer.validate(self.model, datamodule=self.datamodule, verbose=False)
            self.after_validate()

    def before_validate(self) -> None:
        """Load the weights of the checkpoint."""
        self._load_given_weights()

    def after_validate(self) -> None:
        """Say where the report of the validation is, for a task that is judged on it."""
        if self.task.judged_split == "val":
            self._report.show()

    def before_test(self) -> None:
        """Load the weights of the checkpoint; the report has its own table."""
        self._load_given_weights()
        self.config_init.test.verbose = False

    def after_test(self) -> None:
        """Print the table, and where the report is."""
        self._report.show()

    def before_predict(self) -> None:
        """Load the weights of the checkpoint; the predictions go to a file, not to memory."""
        self._load_given_weights()
        self.config_init.predict.return_predictions = False

    def after_predict(self) -> None:
        """Say where the predictions are."""
        print(f"predictions: {self._predictions.path}")

    def _option(self, name: str) -> Any:
        return self._get(self.config_init, name)

    def _load_given_weights(self) -> None:
        self._load_weights(self._option("ckpt_path"))
        # Lightning would load the file again, together with the states of the callbacks from the training
        self.config_init[self.subcommand].ckpt_path = None

    def _load_weights(self, path: str | Path) -> None:
        checkpoint = read_checkpoint(path)
        require_same_model(self.model, checkpoint, path)
        self.model.float().load_state_dict(checkpoint["state_dict"])  # bf16-true and 64-true leave other types
        self._report.facts = {
            "seed": checkpoint.get(JetDataModule.__qualname__, {}).get("seed", self._option("seed_everything")),
            "checkpoint": Path(path).name,
            "epochs": checkpoint["epoch"] + 1,
            "steps": checkpoint["global_step"],
            "training_minutes": round(checkpoint["callbacks"]["RunCheckpoints"]["seconds"] / 60, 2),
            **checkpoint["callbacks"].get("FineTuner", {}).get("summary", {}),
        }

    def _trainer(self, training: bool) -> Trainer:
        settings = {**self._option("trainer")}
        if not training:
            # as `zoo predict` will use the weights: another precision would give other predictions and metrics
            settings["precision"] = "32-true"
            settings["plugins"] = [p for p in settings["plugins"] or [] if not isinstance(p, Precision)]
        folder = Path(self._option("run_folder"))
        model = self._get(self.config, "model").init_args.model
        name = model.class_path  # in full, unless it is ours: another package's may have the same last word
        name = name.rpartition(".")[2] if name.startswith("zoo.") else name
        title = f"{name}, {self.task.purpose}" if self.task.purpose else name
        self._report = WriteReport(folder, title)
        self._predictions = WritePredictions(_predictions_path(folder, self._option("predictions")))
        arguments = model.get("init_args", {})
        match = MatchData(arguments.get("input_dim"), arguments.get("num_classes"))
        callbacks = [*(settings["callbacks"] or []), match, self._report, self._predictions]
        if settings["enable_progress_bar"] is not False:
            callbacks += [ProgressBar(), MinuteLog()]
        if training:
            save_config = SaveConfig(self._parser("fit"), self.config.fit, save_to_log_dir=False)
            callbacks += [RandomState(), self._option("checkpoints"), save_config]
        loggers = self._loggers(folder, settings["logger"]) if training else []
        of_wandb = [logger for logger in loggers if isinstance(logger, WandbLogger)]
        callbacks += [*self._requeue, *map(WandbRun, of_wandb[:1])]  # ours comes before those of trainer.logger
        return build_trainer(settings, folder, callbacks, loggers)

    def _loggers(self, folder: Path, further: Logger | list[Logger] | bool | None) -> list[Logger]:
        first_step = self.checkpoint["global_step"] if self.checkpoint else 0
        loggers = [
            HistoryLogger(folder, first_step),
            BoardLogger(folder, first_step),
        ]
        if self._option("wandb"):
            loggers.append(wandb_logger(self._option("wandb"), folder, self._wandb_id(folder), self._held))
        if isinstance(further, bool) or further is None:
            return loggers
        return loggers + (further if isinstance(further, list) else [further])

    def _wandb_id(self, folder: Path) -> str | None:
        """The id of the resumed run; None for a new run, even if it starts from a checkpoint of another."""
        if self.checkpoint is None or not is_of_run(folder, self._option("ckpt_path")):
            return None
        return self.checkpoint["callbacks"].get("WandbRun", {}).get("id")


class SaveConfig(SaveConfigCallback):
    """Writes the complete configuration of a training to ``config.yaml`` of its run folder."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Do nothing yet: a training that cannot start leaves no run behind."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the configuration, in one process."""
        super().setup(trainer, pl_module, "fit")

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write it without the checkpoint that a run resumed from, so that the file starts the same training."""
        config = self.config.clone()
        config.ckpt_path = None
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        note_job(folder)
        with atomic_write(folder / "config.yaml") as file:
            file.write(self.parser.dump(config).encode())


def main(arguments: Sequence[str] | None = None, run: bool = True) -> TrainingCLI:
    """Run one subcommand.

    Args:
        arguments: as on the command line, ``["fit", "--config", "configs/quickstart.yaml"]``.
        run: if False, only build model, data module and trainer; ``arguments`` then name no subcommand.

    Returns:
        The command line with its ``model``, ``datamodule`` and ``trainer``.

    Raises:
        SystemExit: with status 2, if an argument or key is unknown or of the wrong type.
        ValueError: if a value, a checkpoint or a data file cannot be used.
        BlockingIOError: if another process trains in the run folder.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for message in _NEEDLESS_WARNINGS:
        warnings.filterwarnings("ignore", message)
    with ExitStack() as held:
        return TrainingCLI(find_configs(sys.argv[1:] if arguments is None else arguments), run, held)


def _in_one_line(message: str) -> str:
    r"""The message of jsonargparse about a wrong setting, without line breaks, Python classes, and lists of failures.

    Example:
        >>> _in_one_line('Parser key "seed":\n  Expected a <class \'int\'>. Got value: two')
        'seed: expected int, got two'
    """
    of_class = r'Parser key "([\w.]+)":\n.*?\n *- (Problem with given class_path .*?)\n *- (?:Expected|Not a valid)'
    found = re.match(of_class, message, re.DOTALL)
    if found is not None:  # the class is what is wrong, not that it is no path and no list
        message = f"{found[1]}: {found[2]}"
    message = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", " ".join(message.split())).replace("NoneType", "null")
    message = re.sub(r'Parser key "([^"]+)":', r"\1:", message)
    message = re.sub(r"\bExpected an? (\w+)\b(?:\. Got value: )?", r"expected \1, got ", message)
    of_union = r"Does not validate .*? Errors: - (.*) Given value type: \w+ Given value: (.*)"
    return re.sub(of_union, lambda found: f"{found[1].replace(', got  - expected', ' or')}{found[2]}", message)


def _renewed_options(arguments: Sequence[str]) -> list[str]:
    """The command line with options that an older zoo named differently: ``--task`` is now the class of the model."""
    renewed = []
    options = iter(arguments)
    for option in options:
        name, is_joined, value = option.partition("=")
        if name != "--task":
            renewed.append(option)
            continue
        task = value if is_joined else next(options, "")
        new = renew_settings({"task": task})["model"]["class_path"]
        print(f"--task {task}: is --model {new} now, and will soon be read as that only", file=sys.stderr)
        renewed += ["--model", new]
    return renewed


def _check_configs(arguments: Sequence[str]) -> None:
    """Refuse configurations that are not local files or would fill the memory; print a hint for those of an older zoo.

    Raises:
        ValueError: if there is such a configuration.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-c", "--config", action="append", default=[])
    for path in parser.parse_known_args(arguments)[0].config:
        if "://" in path:
            raise ValueError(
                f"config {path}: only local files are read; download it and look through it, as it is code"
            )
        if Path(path).is_file():  # mistakes in a file are reported where it is read as a whole
            _check_config(Path(path))


def _check_config(path: Path) -> None:
    try:
        is_of_older_zoo = is_old(parse_yaml(path.read_text()))
    except ValueError as error:  # not YAML, too large for the memory, or a task that does not exist
        raise ValueError(f"{path}: {error}") from None
    if is_of_older_zoo and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        print(f"{path}: was written for an older zoo and is read as today's, see docs/training.md", file=sys.stderr)


def _import_class(class_path: str) -> type[Task]:
    module, _, name = class_path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _predictions_path(run_folder: str | Path, given: str | None) -> Path:
    return Path(given) if given else Path(run_folder) / "predictions.arrow"


def _require_output(options: Any) -> None:
    """Refuse, before reading, a file of predictions that is of unknown kind, is an input, or exists already."""
    path, data = _predictions_path(options.run_folder, options.predictions), options.data
    require_kind(path)
    files = resolve_files(data.predict.files) if data.predict else []
    described = (data.layout, data.weaver_yaml, data.features, data.context)
    configs = [str(config) for config in options.get("config") or []]
    require_output(path, (*files, *described, *configs, options.ckpt_path), force=options.force)
