"""Pretrained folders: a model with all that is needed to use it correctly, checked before it is trusted.

A folder holds ``config.json``, the weights, ``golden.safetensors`` (inputs and their outputs), a card ``README.md``,
and ``SHA256SUMS`` over the others. The kinds of folders are in `zoo.hub.kinds`. Nothing in it is ever unpickled.
"""

from zoo.hub.config import FORMAT_VERSION, PretrainedConfig, PretrainedError, parse_config
from zoo.hub.contents import FILES, read_checked
from zoo.hub.folder import (
    KIND,
    PACKAGED,
    Pretrained,
    find_pretrained,
    list_pretrained,
    load_contents,
    load_pretrained,
    replace_card,
    save_parts,
    save_pretrained,
    write_folder,
)
from zoo.hub.golden import GOLDEN_JETS, MAX_PAIRS, largest_change
from zoo.hub.kinds import Kind, Parts, untrained
from zoo.hub.tasks import build_task, find_task

__all__ = [
    "FILES",
    "FORMAT_VERSION",
    "GOLDEN_JETS",
    "KIND",
    "MAX_PAIRS",
    "PACKAGED",
    "Kind",
    "Parts",
    "Pretrained",
    "PretrainedConfig",
    "PretrainedError",
    "build_task",
    "find_pretrained",
    "find_task",
    "largest_change",
    "list_pretrained",
    "load_contents",
    "load_pretrained",
    "parse_config",
    "read_checked",
    "replace_card",
    "save_parts",
    "save_pretrained",
    "untrained",
    "write_folder",
]
