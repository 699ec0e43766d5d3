"""The predictions of a model for the jets of a split, and the file that holds them."""

import dataclasses
import hashlib
import io
import json
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from zoo.files import atomic_write
from zoo.limits import parse_json

#: Columns of the file besides the fields.
_COLUMNS = ("logits", "label", "weight", "index", "source")


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions of a model for each jet of a split.

    Args:
        logits: (batch, class), kept as float32.
        label: class number of each jet, (batch,), -1 where it is unknown.
        weight: (batch,).
        index: row number of each jet in the source of its split, (batch,).
        classes: names of the classes; a label is a position in it.
        source: if classes were merged from others, the number of each jet's original class, (batch,).
        sources: names of the original classes; empty if no class was merged.
        rows: what the rows are, ``jets`` or ``events``.
        fields: further numbers of the jets, (batch,) each, by names that no other column has.

    Raises:
        ValueError: if types or shapes do not fit, or a label is not a class.
    """

    logits: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    index: np.ndarray
    classes: tuple[str, ...]
    source: np.ndarray | None = None
    sources: tuple[str, ...] = ()
    rows: str = "jets"
    fields: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.source is None) == bool(self.sources):
            raise ValueError("source and sources belong together: give both or none")
        for name, dtype in self._types.items():
            found = np.asarray(getattr(self, name)).dtype
            if found.kind not in ("iub" if dtype is np.int64 else "iubf"):
                raise ValueError(f"{name} must hold {np.dtype(dtype)}, got {found}")
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=dtype))
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "sources", tuple(self.sources))
        if self.logits.ndim != 2 or self.logits.shape[1] != len(self.classes):
            raise ValueError(f"logits must be (batch, {len(self.classes)} classes), got shape {self.logits.shape}")
        for name in self._of_jets:
            if getattr(self, name).shape != (len(self),):
                raise ValueError(f"{name} must be ({len(self)},) like logits, got shape {getattr(self, name).shape}")
        for name, values in self.fields.items():
            if name in _COLUMNS:
                raise ValueError(f"field {name!r} has the name of a column of predictions; give it another")
            if values.shape != (len(self),) or values.dtype.kind not in "iuf":
                raise ValueError(f"field {name!r} must be ({len(self)},) numbers, not {values.dtype} {values.shape}")
        for name, known in {"label": self.classes, **({"source": self.sources} if self.sources else {})}.items():
            values = getattr(self, name)
            if len(self) and not -1 <= values.min() <= values.max() < len(known):
                raise ValueError(f"{name} must lie in 0..{len(known) - 1} (or be -1), got {np.unique(values)[:8]}")

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def _types(self) -> dict[str, type]:
        """Columns of the file in order, with their types."""
        types = {"logits": np.float32, "label": np.int64, "weight": np.float32, "index": np.int64}
        return types | ({"source": np.int64} if self.sources else {})

    @property
    def _of_jets(self) -> tuple[str, ...]:
        """Columns with one number per jet."""
        return tuple(name for name in self._types if name != "logits")

    def save(self, path: Path) -> None:
        """Write an Arrow IPC file with a checksum, first beside ``path``."""
        with atomic_write(Path(path)) as file:
            self._write(file)

    def to_bytes(self) -> bytes:
        """What :meth:`save` writes."""
        content = io.BytesIO()
        self._write(content)
        return content.getvalue()

    def _write(self, file: BinaryIO) -> None:
        flat = pa.array(self.logits.ravel())
        logits = pa.FixedSizeListArray.from_arrays(flat, len(self.classes))
        columns = [logits, *(pa.array(getattr(self, name)) for name in self._of_jets)]
        columns += [pa.array(values) for values in self.fields.values()]
        metadata = {"classes": json.dumps(self.classes), "rows": self.rows, "sha256": self._checksum()}
        if self.sources:
            metadata["sources"] = json.dumps(self.sources)
        types = {name: values.dtype.str for name, values in self.fields.items()}
        if types:
            metadata["fields"] = json.dumps(types)
        schema = _prediction_schema(len(self.classes), bool(self.sources), types)
        table = pa.table(columns, schema.with_metadata(metadata))
        with pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)

    @classmethod
    def load(cls, path: Path) -> "Predictions":
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
            metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
            classes, sources = (tuple(parse_json(metadata.get(key, "[]"))) for key in ("classes", "sources"))
            types = parse_json(metadata.get("fields", "{}"))
            schema = _prediction_schema(len(classes), bool(sources), types)
            if not table.schema.remove_metadata().equals(schema):
                raise ValueError(f"its columns are {', '.join(f'{f.name}: {f.type}' for f in table.schema)}")
            if any(column.null_count for column in table.columns):
                raise ValueError("it has empty cells")
            logits = table["logits"].combine_chunks()
            columns = {name: table[name].to_numpy() for name in schema.names if name not in {"logits", *types}}
            columns["fields"] = {name: table[name].to_numpy() for name in types}
            columns["logits"] = logits.flatten().to_numpy().reshape(len(table), len(classes))
            predictions = cls(**columns, classes=classes, sources=sources, rows=metadata.get("rows", "jets"))
            intact = metadata["sha256"] == predictions._checksum()
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{path} holds no predictions ({error}): test the run again") from error
        if not intact:
            raise ValueError(f"{path} is damaged (its checksum differs): test the run again")
        return predictions

    def _checksum(self) -> str:
        names = [*self.classes, self.sources] if self.sources else self.classes
        digest = hashlib.sha256(json.dumps(names).encode())
        for name in self._types:
            digest.update(getattr(self, name).tobytes())
        for name, values in self.fields.items():
            digest.update(json.dumps([name, values.dtype.str]).encode())
            digest.update(values.tobytes())
        return digest.hexdigest()


def _prediction_schema(num_classes: int, is_merged: bool, fields: dict[str, str]) -> pa.Schema:
    logits = pa.list_(pa.float32(), num_classes)
    columns = {"logits": logits, "label": pa.int64(), "weight": pa.float32(), "index": pa.int64()}
    of_fields = {name: pa.from_numpy_dtype(np.dtype(dtype)) for name, dtype in fields.items()}
    return pa.schema(columns | ({"source": pa.int64()} if is_merged else {}) | of_fields)
