"""The jets that a task has made predictions for, as trainer and task pass them on."""

from collections.abc import Mapping
from typing import NamedTuple

from zoo.data import JetDataModule


class Judged(NamedTuple):
    """Jets that a task has made predictions for.

    Args:
        data: data that they come from.
        split: ``val``, ``test`` or ``predict``.
        title: title of the report.
        jets: their number.
        logged: what the trainer logged for them, by name.
    """

    data: JetDataModule
    split: str
    title: str
    jets: int
    logged: Mapping[str, float]
