"""Mistakes in the settings of a training that are found before torch and lightning are imported, which takes a while.

What is not found here, such as a key of a model, is found by `zoo.training.command`, which asks the classes themselves.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from zoo.cli.training import KEYS, is_key
from zoo.data.datasets import resolve_files
from zoo.data.remote import is_remote
from zoo.data.yaml_values import check_keys, read_yaml
from zoo.training.run_folder import checkpoint_to_resume, named_checkpoint, require_checkpoint

#: Splits of the data that a subcommand reads.
_SPLITS = {"fit": ("train", "val", "test"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}


def check_settings(subcommand: str, configs: Sequence[Path], words: Sequence[str]) -> None:
    """Refuse files of settings that cannot be read, keys that do not exist, a run folder in use, and missing files.

    Args:
        subcommand: ``fit``, ``validate``, ``test`` or ``predict``.
        configs: files of settings.
        words: settings of the command line, such as ``--trainer.max_epochs 3``.

    Raises:
        OSError: if a file is missing.
        ValueError: naming what else is wrong.
    """
    settings: dict[str, Any] = {}
    for path in configs:
        for name, value in _read_config(path).items():
            _merge(settings, _nested(name.split("."), value))
    for name, value in _pairs(words):
        _merge(settings, _nested(name.split("."), value))
    folder, checkpoint = settings.get("run_folder"), settings.get("ckpt_path")
    if not isinstance(folder, str):
        raise ValueError("run_folder: give this run a folder, --run-folder runs/NAME, or name it in a file")
    if subcommand == "fit":
        checkpoint_to_resume(folder, checkpoint)
    else:
        require_checkpoint(named_checkpoint(folder, checkpoint or "best"))
    data = _section(settings.get("data"))
    for split in _SPLITS[subcommand]:
        if split != "test" or subcommand == "test" or settings.get("test_after_fit", True):
            _require_files(split, _section(data.get(split)).get("files"))


def _read_config(path: Path) -> dict[str, Any]:
    def check(values: Any) -> dict[str, Any]:
        dotted = [key for key in values if is_key(str(key))] if isinstance(values, dict) else []
        return check_keys("a configuration", values, [*KEYS, *dotted])

    return read_yaml(path, check)


def _pairs(words: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Keys and values of a command line."""
    words = list(words)
    for number, word in enumerate(words):
        if not word.startswith("--"):
            continue
        name, sign, value = word.removeprefix("--").partition("=")
        if not sign:
            value = words[number + 1] if number + 1 < len(words) else ""
        if name.endswith("+"):
            continue  # appends to a list
        try:
            yield name, yaml.safe_load(value)
        except yaml.YAMLError:
            yield name, value


def _nested(names: Sequence[str], value: Any) -> dict[str, Any]:
    for name in reversed(names):
        value = {name: value}
    return value


def _merge(settings: dict[str, Any], further: Mapping[str, Any]) -> None:
    """Let further settings replace those there are, key by key."""
    for key, value in further.items():
        if isinstance(value, dict) and isinstance(settings.get(key), dict):
            _merge(settings[key], value)
        else:
            settings[key] = value


def _section(value: Any) -> dict[str, Any]:
    """The keys of a section, which may be a file of its own; none if it is something else, which is found later."""
    if isinstance(value, str) and Path(value).is_file():
        value = read_yaml(Path(value), lambda values: values)
    return value if isinstance(value, dict) else {}


def _require_files(split: str, names: Any) -> None:
    """Refuse names of files of this machine that are not there; what is at an address is fetched when it is read."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return  # the types are checked later
    try:
        resolve_files([name for name in names if not is_remote(name)])
    except FileNotFoundError as error:
        raise FileNotFoundError(f"data.{split}.{error}") from None
