"""Jets from files to batches."""

from typing import Any

__all__ = ["JetDataModule"]


def __getattr__(name: str) -> Any:
    # lightning takes seconds to import and only the trainer needs it
    if name == "JetDataModule":
        from zoo.data.datamodule import JetDataModule

        return JetDataModule
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
