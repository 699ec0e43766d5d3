"""Finds mistakes in the settings of a training before torch and lightning are imported, which takes a while.

Other mistakes, such as a value of the wrong type, are found by `zoo.cli.training_command`, which uses the classes
themselves.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from zoo.cli.sources import names, parameters
from zoo.cli.training import KEYS, is_key
from zoo.data.datasets import resolve_files
from zoo.data.hints import did_you_mean
from zoo.data.remote import is_remote
from zoo.data.yaml_values import check_keys, read_yaml
from zoo.old_configs import renew_settings
from zoo.training.run_folder import checkpoint_to_resume, named_checkpoint, require_checkpoint

#: Splits of the data that a subcommand reads.
_SPLITS = {"fit": ("train", "val", "test"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}


#: Class of `model.fine_tuning`.
_FINE_TUNING = "zoo.training.fine_tuning.FineTuning"

#: Classes whose parameters are the keys of a section.
_CLASSES = {
    "trainer": "lightning.pytorch.trainer.trainer.Trainer",
    "data": "zoo.data.datamodule.JetDataModule",
    "checkpoints": "zoo.training.callbacks.RunCheckpoints",
}


def check_settings(subcommand: str, configs: Sequence[Path], words: Sequence[str]) -> None:
    """Refuse unreadable files of settings, keys that do not exist, a run folder in use, and missing files.

    Args:
        subcommand: ``fit``, ``validate``, ``test`` or ``predict``.
        configs: files of settings.
        words: settings on the command line, such as ``--trainer.max_epochs 3``.

    Raises:
        OSError: if a file is missing.
        ValueError: for all other mistakes; the message names them.
    """
    settings: dict[str, Any] = {}
    classes = {"model": "zoo.tasks.Classification"}
    for layer in _layers(configs, words):
        _check_component("model", layer.get("model"), classes)
        _merge(settings, layer)
    for section, class_path in _CLASSES.items():
        _check_section(section, settings.get(section), parameters(class_path))
    _check_class_paths("", settings)
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


def _layers(configs: Iterable[Path], words: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Settings, in the order in which later ones replace earlier ones."""
    for path in configs:
        for name, value in renew_settings(_read_config(path)).items():
            yield _nested(name.split("."), value)
    for name, value in _pairs(words):
        yield _nested(name.split("."), value)


def _read_config(path: Path) -> dict[str, Any]:
    def check(values: Any) -> dict[str, Any]:
        dotted = [key for key in values if is_key(str(key))] if isinstance(values, dict) else []
        return check_keys("a configuration", values, [*KEYS, *dotted])

    return read_yaml(path, check)


def _check_section(section: str, values: Any, known: set[str] | None) -> None:
    if not isinstance(values, dict) or known is None:
        return
    for key in values:
        if key not in known:
            raise ValueError(f"{section}.{key}: there is no such key; {did_you_mean(str(key), known)}")


def _check_component(key: str, value: Any, classes: dict[str, str]) -> None:
    """Refuse arguments that the task or its model does not take; its class is the last one named.

    Args:
        key: ``model``, or ``model.model`` for the model in it.
        value: its value in a layer: a class, or a mapping with ``class_path``, ``init_args`` or the arguments.
        classes: class of each key so far; classes named in this layer are added.
    """
    if isinstance(value, str):
        classes[key] = value
    if not isinstance(value, dict):
        return
    classes[key] = str(value.get("class_path", classes.get(key, "")))
    arguments = value.get("init_args")
    given = {name: each for name, each in value.items() if name not in ("class_path", "init_args", "dict_kwargs")}
    given |= arguments if isinstance(arguments, dict) else {}
    name = classes[key] if "." in classes[key] else f"zoo.tasks.{classes[key]}"
    _check_section(key, given, parameters(name))
    if key == "model":
        _check_component("model.model", given.get("model"), classes)
        _check_section("model.fine_tuning", given.get("fine_tuning"), parameters(_FINE_TUNING))


def _check_class_paths(key: str, value: Any) -> None:
    """Refuse paths into this package that do not exist; other paths are imported later, however they are resolved."""
    if isinstance(value, list | dict):
        for name, part in value.items() if isinstance(value, dict) else enumerate(value):
            _check_class_paths(f"{key}.{name}" if key else str(name), part)
    elif key.endswith(".class_path") and str(value).startswith("zoo."):
        module, _, name = str(value).rpartition(".")
        known = names(module)
        if known is not None and name not in known:
            public = [other for other in known if not other.startswith("_")]
            raise ValueError(f"{key}: {module} has no {name!r}; {did_you_mean(name, public)}")


def _pairs(words: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Keys and values on a command line."""
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


def _nested(parts: Sequence[str], value: Any) -> dict[str, Any]:
    for name in reversed(parts):
        value = {name: value}
    return value


def _merge(settings: dict[str, Any], further: Mapping[str, Any]) -> None:
    """Replace existing settings by further ones, key by key."""
    for key, value in further.items():
        if isinstance(value, dict) and isinstance(settings.get(key), dict):
            _merge(settings[key], value)
        else:
            settings[key] = value


def _section(value: Any) -> dict[str, Any]:
    """The keys of a section, which may be a separate file; none if it is something else, which is found later."""
    if isinstance(value, str) and Path(value).is_file():
        value = read_yaml(Path(value), lambda values: values)
    return value if isinstance(value, dict) else {}


def _require_files(split: str, files: Any) -> None:
    """Refuse names of missing local files; what is at an address is fetched when it is read."""
    if not isinstance(files, list) or not all(isinstance(name, str) for name in files):
        return  # the types are checked later
    try:
        resolve_files([name for name in files if not is_remote(name)])
    except FileNotFoundError as error:
        raise FileNotFoundError(f"data.{split}.{error}") from None
