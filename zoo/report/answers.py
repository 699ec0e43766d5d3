"""The predictions of a task for the jets of a split, one column per number, and the file that holds them."""

import dataclasses
import hashlib
import io
import json
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from zoo.files import atomic_write


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
    """Numbers per jet by name, ``index`` among them; `zoo.report.Predictions` holds logits of classes.

    Args:
        columns: (jet,) each, by name.

    Raises:
        ValueError: if ``index`` is missing, a column does not hold numbers, or its length differs.
    """

    columns: dict[str, np.ndarray]

    def __post_init__(self) -> None:
        if "index" not in self.columns:
            raise ValueError(f"answers need the column 'index', and have {', '.join(self.columns) or 'none'}")
        for name, values in self.columns.items():
            if values.shape != self.index.shape or values.dtype.kind not in "iuf":
                raise ValueError(f"{name} must be ({len(self)},) numbers, not {values.dtype} {values.shape}")

    @property
    def index(self) -> np.ndarray:
        """Row number of each jet in the source of its split, (jet,)."""
        return self.columns["index"]

    def __len__(self) -> int:
        return len(self.index)

    def sorted(self) -> dict[str, np.ndarray]:
        """The columns in the order of the files; batches hold jets of similar length."""
        order = np.argsort(self.index, kind="stable")
        return {name: values[order] for name, values in self.columns.items()}

    def save(self, path: Path) -> None:
        """Write an Arrow IPC file with a checksum, first beside ``path``."""
        with atomic_write(Path(path)) as file:
            self._write(file)

    def to_bytes(self) -> bytes:
        """What :meth:`save` writes."""
        content = io.BytesIO()
        self._write(content)
        return content.getvalue()

    @classmethod
    def load(cls, path: Path) -> "Answers":
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is damaged or holds something else.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: test the run again to write its predictions")
        try:
            table = pa.ipc.open_file(pa.py_buffer(path.read_bytes())).read_all()
            answers = cls({name: table[name].to_numpy() for name in table.column_names})
            intact = (table.schema.metadata or {})[b"sha256"].decode() == answers._checksum()
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{path} holds no predictions ({error}): test the run again") from error
        if not intact:
            raise ValueError(f"{path} is damaged (its checksum differs): test the run again")
        return answers

    def _write(self, file: BinaryIO) -> None:
        table = pa.table(dict(self.columns)).replace_schema_metadata({"sha256": self._checksum()})
        with pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)

    def _checksum(self) -> str:
        digest = hashlib.sha256()
        for name, values in self.columns.items():
            digest.update(json.dumps([name, values.dtype.str]).encode())
            digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()
