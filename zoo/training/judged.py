"""Which jets the answers of a task are of, as trainer and task hand it on."""

from collections.abc import Mapping
from typing import NamedTuple

from zoo.data import JetDataModule


class Judged(NamedTuple):
    """Jets that a task gave answers for.

    Args:
        data: that they come from.
        split: ``val``, ``test`` or ``predict``.
        title: of the report.
        jets: how many.
        logged: what the trainer logged of them, by name.
    """

    data: JetDataModule
    split: str
    title: str
    jets: int
    logged: Mapping[str, float]
