"""The configs of the project inside an installed package, which has no checkout beside it."""

from collections.abc import Sequence
from pathlib import Path

import yaml

#: In a checkout this is a link to the folder at the top.
PACKAGED = Path(__file__).parents[1] / "configs"


def find_config(name: str) -> str:
    """The path of a config: as given, or, if there is no such file, the packaged one of that name.

    Args:
        name: such as ``configs/quickstart.yaml``.

    Raises:
        FileNotFoundError: if only older versions had a config of this name; the message says what replaces it.

    Example:
        >>> find_config("configs/mine.yaml")
        'configs/mine.yaml'
    """
    path = Path(name)
    if path.exists() or path.parts[:1] != ("configs",) or ".." in path.parts:
        return name
    packaged = PACKAGED.joinpath(*path.parts[1:])
    if packaged.is_file():
        return str(packaged)
    if new := _options_of_row("/".join(path.with_suffix("").parts[1:])):
        raise FileNotFoundError(f"{name}: is put together from several files now, see configs/README.md: {new}")
    return name


def _options_of_row(row: str) -> str | None:
    """The options of a row of the results, for which older versions had a whole config; None for no such row."""
    if row == "finetune/quickstart":
        return "--config configs/quickstart.yaml"
    found = yaml.safe_load((PACKAGED / "rows.yaml").read_text()).get(row)
    if found is None:
        return None
    configs = ",".join(found["configs"])
    return f"--config=configs/{{{configs}}}.yaml --run-folder {found['run_folder']} {found.get('options', '')}".rstrip()


def find_configs(arguments: Sequence[str]) -> list[str]:
    """Arguments of a training, with the files after ``--config`` replaced by those found; see `find_config`.

    Example:
        >>> find_configs(["fit", "--config", "my.yaml", "--config=configs/mine.yaml"])
        ['fit', '--config', 'my.yaml', '--config=configs/mine.yaml']
    """
    found = []
    follows = False
    for argument in arguments:
        option, is_joined, value = argument.partition("=")
        if follows:
            argument = find_config(argument)
        elif option == "--config" and is_joined:
            argument = f"{option}={find_config(value)}"
        found.append(argument)
        follows = not follows and argument in ("-c", "--config")
    return found
