"""Commands for runs: fit, validate and test. Any key of a configuration is an option too."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from zoo.cli.signatures import Option

#: Keys of a configuration that hold other keys.
SECTIONS = ("trainer", "model", "data", "checkpoints")

#: All keys at the top level of a configuration.
KEYS = (
    *SECTIONS,
    "seed_everything",
    "task",
    "run_folder",
    "wandb",
    "test_after_fit",
    "predictions",
    "force",
    "ckpt_path",
    "weights_only",
    "verbose",
    "return_predictions",
)


def is_key(name: str) -> bool:
    """Whether an option, without its hyphens, is a key of a configuration.

    Example:
        >>> is_key("trainer.max_epochs"), is_key("test-after-fit"), is_key("trainr.max_epochs")
        (True, True, False)
    """
    first, dot, _ = name.rstrip("+").partition(".")
    return first in SECTIONS or (not dot and name.replace("-", "_") in (*KEYS, "print_config"))


Configs = Annotated[
    list[Path] | None, Option("YAML", "configuration; of several the last word counts", names=("-c",), is_repeated=True)
]
RunFolder = Annotated[Path | None, Option("DIR", "folder of the run (default: as the configuration says)")]
Checkpoint = Annotated[str | None, Option("CHECKPOINT", "best, last, or a file (default: best)")]
PrintConfig = Annotated[bool, Option(help="show the whole configuration instead")]
AllKeys = Annotated[bool, Option(help="list all keys of a configuration instead")]
Keys = Annotated[Sequence[str], Option(accepts=is_key)]


def fit(
    *,
    config: Configs = None,
    run_folder: RunFolder = None,
    ckpt_path: Checkpoint = None,
    seed_everything: Annotated[str | None, Option("SEED")] = None,
    wandb: Annotated[str | None, Option("PROJECT")] = None,
    test_after_fit: Literal["true", "false"] | None = None,
    print_config: PrintConfig = False,
    all_keys: AllKeys = False,
    keys: Keys = (),
) -> None:
    """Train a model from a configuration, and test it at the end.

    Every key of the configuration is an option too, and overrides the files:
    zoo fit --config my.yaml --trainer.max_epochs 3 --data.train.files '[my.h5]'

    Args:
        ckpt_path: last to continue the run, or a file to start from (default: a new run).
        seed_everything: seed for all random numbers (default: 1, or as in the configuration).
        wandb: Weights & Biases project to log to.
        test_after_fit: whether the best checkpoint is tested at the end (default: true).
    """
    given = {"run_folder": run_folder, "ckpt_path": ckpt_path, "seed_everything": seed_everything, "wandb": wandb}
    run("fit", config, given | {"test_after_fit": test_after_fit}, keys, print_config, all_keys)


def validate(
    *,
    config: Configs = None,
    run_folder: RunFolder = None,
    ckpt_path: Checkpoint = None,
    print_config: PrintConfig = False,
    all_keys: AllKeys = False,
    keys: Keys = (),
) -> None:
    """Validate a checkpoint of a run; for a pretraining, write its report.

    With only a run folder, the configuration is that of its training. Every key of it is an option too, such as
    --data.val.files '[my.h5]'
    """
    run("validate", config, {"run_folder": run_folder, "ckpt_path": ckpt_path}, keys, print_config, all_keys)


def run_test(
    *,
    config: Configs = None,
    run_folder: RunFolder = None,
    ckpt_path: Checkpoint = None,
    print_config: PrintConfig = False,
    all_keys: AllKeys = False,
    keys: Keys = (),
) -> None:
    """Test a checkpoint of a run, and write its report.

    With only a run folder, the configuration is that of its training. Every key of it is an option too, such as
    --data.test.files '[my.h5]'
    """
    run("test", config, {"run_folder": run_folder, "ckpt_path": ckpt_path}, keys, print_config, all_keys)


def run(
    subcommand: str,
    config: Sequence[Path] | None,
    given: Mapping[str, Any],
    keys: Sequence[str],
    print_config: bool = False,
    all_keys: bool = False,
) -> None:
    """Check what can be checked at once, then hand everything to Lightning's command line.

    Args:
        subcommand: ``fit``, ``validate``, ``test`` or ``predict``.
        config: files of settings; None: that of the run folder, if there is one.
        given: settings on the command line; None stands for one that is not given.
        keys: more of them, in words such as ``--trainer.max_epochs 3``.
        print_config: only show the settings.
        all_keys: only show the help for all keys.
    """
    from zoo.cli.preflight import check_settings
    from zoo.training.packaged import find_config

    configs = [Path(find_config(str(path))) for path in _configs(subcommand, config, given["run_folder"], keys)]
    words = [
        f"--{name}" if value is True else f"--{name}={value}" for name, value in given.items() if value is not None
    ]
    arguments = [subcommand, *(f"--config={path}" for path in configs), *words, *keys]
    if all_keys:
        arguments = [subcommand, "--help"]
    elif print_config:
        arguments.append("--print_config")
    else:
        check_settings(subcommand, configs, [*words, *keys])
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    from zoo.cli.training_command import main
    from zoo.training.slurm import TERMINATED_STATUS

    try:
        main(arguments)
    except SIGTERMException:  # Lightning's, with a status of 0
        sys.exit(TERMINATED_STATUS)


def _configs(
    subcommand: str, config: Sequence[Path] | None, run_folder: Path | None, keys: Sequence[str]
) -> Sequence[Path]:
    if config or (keys and run_folder is None):
        return config or ()
    if run_folder is not None and (run_folder / "config.yaml").is_file():
        return [run_folder / "config.yaml"]
    if any(word.startswith("--model") for word in keys):
        return ()
    if run_folder is not None and subcommand != "fit":
        raise FileNotFoundError(f"{run_folder}: is no run, it has no config.yaml; give the folder of a training")
    raise ValueError(f"give a configuration: zoo {subcommand} --config configs/quickstart.yaml")
