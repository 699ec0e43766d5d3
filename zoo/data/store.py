"""The zoo's own file: jagged jets as offsets and flat values in Arrow IPC, checksummed and memory-mapped."""

import contextlib
import dataclasses
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from zoo.files import atomic_write
from zoo.limits import parse_json

#: Flat columns that every table has: four-momenta in GeV.
MOMENTUM_COLUMNS = ("part_energy", "part_px", "part_py", "part_pz")

#: |p| may exceed E by this fraction of E: a massless particle rounded to float32 needs 2e-7, coarser detectors more.
MOMENTUM_TOLERANCE = 1e-5

FORMAT = "zoo-jets"
VERSION = 1
ARROW_MAGIC = b"ARROW1"


class NoJetsError(ValueError):
    """The requested rows of a file hold no usable jet.

    Args:
        message: naming the file and the remedy.
        rejected: number of bad jets among the rows, by the reasons of `bad_jets`.
    """

    def __init__(self, message: str, rejected: Mapping[str, int]) -> None:
        super().__init__(message)
        self.rejected = rejected


@dataclasses.dataclass(frozen=True, eq=False)
class JetTable:
    """Jets of any length as flat particle columns: jet ``j`` owns particles ``offsets[j]`` to ``offsets[j + 1]``.

    Args:
        particles: flat columns (particle,); `MOMENTUM_COLUMNS` are required, float32, in GeV.
        offsets: int64 (jet + 1,), from 0 to the number of particles.
        fields: further columns (jet,).
        label: int64 (jet,), index of the jet's class.
        weight: float32 (jet,).
        metadata: plain JSON values, such as ``dataset``, ``classes`` and ``units``.
        source_rows: int64 (jet,) or a range, row of each jet in the file that the table was read from; None: 0, 1, ...
        mapped: file and its size, if the columns stay on the disk and are mapped into memory.

    Raises:
        ValueError: if a column is missing, or has another type or length than stated here.

    Example:
        >>> ones = np.ones(3, dtype=np.float32)
        >>> table = JetTable(
        ...     particles=dict.fromkeys(MOMENTUM_COLUMNS, ones), offsets=np.array([0, 2, 3]), fields={},
        ...     label=np.array([1, 0]), weight=np.ones(2, dtype=np.float32), metadata={},
        ... )
        >>> len(table), table.counts.tolist()
        (2, [2, 1])
    """

    particles: dict[str, np.ndarray]
    offsets: np.ndarray
    fields: dict[str, np.ndarray]
    label: np.ndarray
    weight: np.ndarray
    metadata: dict[str, Any]
    source_rows: np.ndarray | range | None = None
    mapped: tuple[Path, int] | None = None

    def __post_init__(self) -> None:
        missing = [name for name in MOMENTUM_COLUMNS if name not in self.particles]
        if missing:
            raise ValueError(f"particle column {missing[0]!r} is missing; a table needs {', '.join(MOMENTUM_COLUMNS)}")
        _check_offsets(self.offsets)
        for name, values in self.particles.items():
            dtype = np.float32 if name in MOMENTUM_COLUMNS else values.dtype
            _check_column(f"particles.{name}", values, self.offsets[-1], dtype)
        _check_column("label", self.label, len(self), np.int64)
        _check_column("weight", self.weight, len(self), np.float32)
        for name, values in self.fields.items():
            _check_column(f"fields.{name}", values, len(self), values.dtype)
        if self.source_rows is None:
            object.__setattr__(self, "source_rows", np.arange(len(self), dtype=np.int64))
        if isinstance(self.source_rows, range):
            _check_range("source_rows", self.source_rows, len(self))
        else:
            _check_column("source_rows", self.source_rows, len(self), np.int64)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def counts(self) -> np.ndarray:
        """Number of particles of each jet, int64 (jet,)."""
        return np.diff(self.offsets)

    def field(self, name: str) -> np.ndarray:
        """The field of that name, (jet,).

        Raises:
            ValueError: if there is none; the message names those that there are.
        """
        if name not in self.fields:
            known = f"there are {', '.join(self.fields)}" if self.fields else "there are none"
            raise ValueError(f"field {name!r} is not among the numbers of the jets, of which {known}")
        return self.fields[name]

    def slice(self, start: int, stop: int) -> "JetTable":
        """The jets ``start`` to ``stop`` as a table that shares this one's particle memory."""
        first, last = self.offsets[start], self.offsets[stop]
        return JetTable(
            particles={name: values[first:last] for name, values in self.particles.items()},
            offsets=self.offsets[start : stop + 1] - first,
            fields={name: values[start:stop] for name, values in self.fields.items()},
            label=self.label[start:stop],
            weight=self.weight[start:stop],
            metadata=self.metadata,
            source_rows=self.source_rows[start:stop],
            mapped=self.mapped,
        )

    def take(self, rows: np.ndarray) -> "JetTable":
        """The jets ``rows``, int64 (jet,), in that order, as a table of their own."""
        particle, counts = self.particles_of(rows)
        return JetTable(
            particles={name: values[particle] for name, values in self.particles.items()},
            offsets=np.concatenate([[0], np.cumsum(counts)]),
            fields={name: values[rows] for name, values in self.fields.items()},
            label=self.label[rows],
            weight=self.weight[rows],
            metadata=self.metadata,
            source_rows=self.rows_in_source(rows),
        )

    def particles_of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the particles of the jets ``rows``, int64 (particle,), and their number, int64 (jet,).

        Raises:
            ValueError: if the file was truncated since it was opened; to read on would end the process by SIGBUS.
        """
        self._require_whole()
        starts = self.offsets[rows]
        counts = self.offsets[rows + 1] - starts
        ends = np.cumsum(counts)
        return np.arange(counts.sum()) + np.repeat(starts - ends + counts, counts), counts

    def _require_whole(self) -> None:
        if self.mapped is None:
            return
        path, size = self.mapped
        with contextlib.suppress(FileNotFoundError):  # what was deleted stays as long as it is mapped
            if (now := path.stat().st_size) < size:
                raise ValueError(
                    f"{path}: was cut from {size} to {now} bytes while it was read; leave files alone until their "
                    "readers end, and write a new one beside the old"
                )

    def rows_in_source(self, rows: np.ndarray) -> np.ndarray:
        """``source_rows`` of the jets ``rows``, int64 (jet,)."""
        if isinstance(self.source_rows, range):
            return rows * self.source_rows.step + self.source_rows.start
        return self.source_rows[rows]


def join_tables(tables: list[JetTable]) -> JetTable:
    """Tables of the same columns, one after the other."""
    first = tables[0]
    return JetTable(
        particles={name: np.concatenate([table.particles[name] for table in tables]) for name in first.particles},
        offsets=np.concatenate([[0], np.cumsum(np.concatenate([table.counts for table in tables]))]),
        fields={name: np.concatenate([table.fields[name] for table in tables]) for name in first.fields},
        label=np.concatenate([table.label for table in tables]),
        weight=np.concatenate([table.weight for table in tables]),
        metadata=first.metadata,
        source_rows=np.concatenate([table.source_rows for table in tables]),
    )


def _check_range(name: str, values: range, length: int) -> None:
    if len(values) != length:
        raise ValueError(f"column {name!r} must have shape ({length},), not ({len(values)},)")


def _check_offsets(offsets: np.ndarray) -> None:
    if offsets.dtype != np.int64 or offsets.ndim != 1 or not len(offsets):
        raise ValueError(f"offsets must be int64 (jet + 1,), not {offsets.dtype} {offsets.shape}")
    if offsets[0] != 0 or np.any(np.diff(offsets) < 0):
        raise ValueError("offsets must start at 0 and never fall")


def _check_column(name: str, values: np.ndarray, length: int, dtype: np.dtype | type) -> None:
    if values.shape != (length,):
        raise ValueError(f"column {name!r} must have shape ({length},), not {values.shape}")
    if values.dtype != dtype or values.dtype.kind not in "iuf":
        expected = np.dtype(dtype) if np.dtype(dtype).kind in "iuf" else "numbers"
        raise ValueError(f"column {name!r} must hold {expected}, not {values.dtype}; convert it with astype")


def bad_jets(table: JetTable) -> dict[str, np.ndarray]:
    """For each reason, a mask (jet,) of the jets that no model may see; a jet has at most one reason.

    The reasons in the order of precedence: ``not finite`` (NaN or infinity in any column), ``negative energy``,
    ``no particles``, ``momentum above energy``, that is :math:`|p| > (1 + 10^{-5}) E` (see `MOMENTUM_TOLERANCE`).
    """
    of_particles = {
        reason: _any_particle(mask, table.offsets) for reason, mask in bad_particles(table.particles).items()
    }
    finite_jet = np.logical_and.reduce([np.isfinite(values) for values in (table.weight, *table.fields.values())])
    reasons = {
        "not finite": of_particles["not finite"] | ~finite_jet,
        "negative energy": of_particles["negative energy"],
        "no particles": table.counts == 0,
        "momentum above energy": of_particles["momentum above energy"],
    }
    known = np.zeros(len(table), dtype=bool)
    for reason, mask in reasons.items():
        reasons[reason] = mask & ~known
        known |= mask
    return reasons


def bad_particles(particles: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """For each reason of `bad_jets`, a mask (particle,) of the particles that make a jet bad; one may have several."""
    energy, *momentum = (particles[name] for name in MOMENTUM_COLUMNS)
    with np.errstate(invalid="ignore", over="ignore"):
        return {
            "not finite": ~np.logical_and.reduce([np.isfinite(values) for values in particles.values()]),
            "negative energy": energy < 0,
            "momentum above energy": _squared_sum(momentum) > (1 + MOMENTUM_TOLERANCE) ** 2 * _squared_sum([energy]),
        }


def infinite_columns(table: JetTable) -> dict[str, int]:
    """Number of jets with NaN or infinity in a column, by its name; columns without any are left out."""
    of_particles = {
        name: _any_particle(~np.isfinite(values), table.offsets).sum() for name, values in table.particles.items()
    }
    of_jets = {name: (~np.isfinite(values)).sum() for name, values in {**table.fields, "weight": table.weight}.items()}
    return {name: int(count) for name, count in (of_particles | of_jets).items() if count}


def _squared_sum(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Sum of squares in float64, where those of float32 neither overflow nor vanish."""
    total = np.zeros(len(columns[0]))
    for values in columns:
        wide = values.astype(np.float64)
        total += np.square(wide, out=wide)
    return total


def _any_particle(flags: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    found = np.zeros(len(offsets) - 1, dtype=bool)
    found[np.searchsorted(offsets, np.flatnonzero(flags), side="right") - 1] = True
    return found


def write_store(path: str | Path, table: JetTable, *, compression: str | None = None, is_checked: bool = False) -> None:
    """Write a table as the zoo's own file; the same table gives the same bytes.

    Args:
        path: file to write; an older one is replaced only when the new one is complete.
        table: jets with finite, physical four-momenta in GeV.
        compression: None for a file that is mapped into memory when opened; ``"lz4"`` or ``"zstd"`` for a small one
            that is unpacked into memory: it holds the bytes of each float in four planes and, as most particles are
            massless, the energy as its distance from :math:`|p|` in float32 steps. Both are lossless.
        is_checked: whether `bad_jets` has just been called, as `zoo.data.source.JetSource` does, and can be skipped.

    Raises:
        ValueError: if the table holds a jet that `bad_jets` names, or the metadata are no JSON.
    """
    path = Path(path)
    for reason, mask in ({} if is_checked else bad_jets(table)).items():
        if mask.any():
            raise ValueError(f"{path}: jet {mask.argmax()} of the table: {reason}; remove such jets before writing")
    columns = _columns(table)
    header = {
        "format": FORMAT,
        "version": VERSION,
        "jets": len(table),
        "packed": compression is not None,
        "checksums": {name: _checksum(values) for name, values in columns.items()},
        "metadata": table.metadata,
    }
    text = json.dumps(header, sort_keys=True, allow_nan=False).encode()
    batch = _to_arrow(table, packed=compression is not None)
    schema = batch.schema.with_metadata({"zoo": text, "zoo_crc32": str(zlib.crc32(text))})
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with atomic_write(path) as file, pa.ipc.new_file(file, schema, options=options) as writer:
        writer.write_batch(batch.replace_schema_metadata(schema.metadata))


class StoreFile:
    """The zoo's own file, open; after closing, the columns of its table stay mapped.

    Args:
        path: file.

    Raises:
        ValueError: if the file is damaged or not the zoo's own; the message names the file and the remedy.
        FileNotFoundError: if there is no such file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with self._errors_named():
            # a thousand open files would be too many for a process, a thousand mapped ones are not
            self._source = pa.memory_map(str(path))
            is_arrow = self._source.read(len(ARROW_MAGIC)) == ARROW_MAGIC
            if is_arrow:
                self._source.seek(0)
                self._reader = pa.ipc.open_file(self._source)
                self._header = _read_header(self._reader.schema.metadata or {})
        if not is_arrow:
            raise ValueError(f"{path} is not a jet file of the zoo (no Arrow header); other formats: read_jets")

    def __enter__(self) -> "StoreFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def __len__(self) -> int:
        return self._header["jets"]

    @property
    def header_checksum(self) -> int:
        """Checksum of the header, which holds the checksums of the columns."""
        return int(self._reader.schema.metadata[b"zoo_crc32"])

    def table(self, *, verify: bool = True) -> JetTable:
        """The jets; see `open_store`."""
        with self._errors_named():
            if self._reader.num_record_batches != 1:
                raise ValueError(f"{self._reader.num_record_batches} record batches instead of 1")
            batch = self._reader.get_batch(0)
            batch.validate()
            table = _from_arrow(batch, self._header)
            if verify:
                _verify(table, self._header)
            if not self._header["packed"]:
                table = dataclasses.replace(table, mapped=(self.path.resolve(), self.path.stat().st_size))
            return table

    @contextlib.contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except (pa.ArrowException, ValueError, KeyError, OSError, MemoryError, TypeError) as error:
            raise ValueError(
                f"{self.path} cannot be read as a jet file of the zoo: {error}; write or fetch it again"
            ) from error


def open_store(path: str | Path, *, verify: bool = True) -> JetTable:
    """Open the zoo's own file and verify the checksum of every column.

    Columns of an uncompressed file stay on disk and are mapped into memory, so a file may be larger than the memory.
    If it is truncated meanwhile, the next access to jets raises an error; a read before that ends the process.

    Args:
        path: file.
        verify: whether to compare the checksums, which reads the file once from end to end; False: only its header, the
            offsets and the lengths of the columns are checked.

    Raises:
        ValueError: if the file is damaged or not the zoo's own; the message names the file, the column and the remedy.
        FileNotFoundError: if there is no such file.
    """
    with StoreFile(path) as file:
        return file.table(verify=verify)


def _read_header(schema_metadata: dict[bytes, bytes]) -> dict[str, Any]:
    text = schema_metadata.get(b"zoo")
    if text is None:
        raise ValueError("an Arrow file without the metadata 'zoo'")
    if str(zlib.crc32(text)).encode() != schema_metadata.get(b"zoo_crc32"):
        raise ValueError("column 'metadata' does not match its checksum")
    header = parse_json(text)
    if (header["format"], header["version"]) != (FORMAT, VERSION):
        found = f"{header['format']} version {header['version']}"
        raise ValueError(f"it is {found}, this zoo reads {FORMAT} version {VERSION}")
    return header


def _columns(table: JetTable) -> dict[str, np.ndarray]:
    return {
        "offsets": table.offsets,
        **{f"particles.{name}": values for name, values in table.particles.items()},
        "label": table.label,
        "weight": table.weight,
        **{f"fields.{name}": values for name, values in table.fields.items()},
    }


def _checksum(values: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(values), zlib.crc32(values.dtype.str.encode()))


def _to_arrow(table: JetTable, *, packed: bool) -> pa.RecordBatch:
    particles = dict(table.particles)
    if packed:
        steps = particles["part_energy"].view(np.int32) - _massless_energy(particles)
        particles["part_energy"] = steps.view(np.float32)
    values = {name: _to_planes(column) if packed else pa.array(column) for name, column in particles.items()}
    jagged = pa.LargeListArray.from_arrays(
        pa.array(table.offsets), pa.StructArray.from_arrays(list(values.values()), list(values))
    )
    columns = {"particles": jagged, "label": pa.array(table.label), "weight": pa.array(table.weight)}
    columns |= {f"fields.{name}": pa.array(column) for name, column in table.fields.items()}
    return pa.RecordBatch.from_pydict(columns)


def _from_arrow(batch: pa.RecordBatch, header: dict[str, Any]) -> JetTable:
    if batch.num_rows != header["jets"]:
        raise ValueError(f"{batch.num_rows} jets instead of {header['jets']}")
    jagged = batch.column("particles")
    offsets = _to_numpy("offsets", jagged.offsets)
    particles = {
        field.name: _from_planes(field.name, jagged.values.field(field.name)) for field in jagged.type.value_type
    }
    if header["packed"]:
        energy = particles["part_energy"].view(np.int32) + _massless_energy(particles)
        particles["part_energy"] = energy.view(np.float32)
    prefix = "fields."
    table = JetTable(
        particles=particles,
        offsets=offsets,
        fields={
            name.removeprefix(prefix): _to_numpy(name, batch.column(name))
            for name in batch.schema.names
            if name.startswith(prefix)
        },
        label=_to_numpy("label", batch.column("label")),
        weight=_to_numpy("weight", batch.column("weight")),
        metadata=header["metadata"],
    )
    names = _columns(table).keys()
    if names != header["checksums"].keys():
        raise ValueError(f"columns {sorted(names ^ header['checksums'].keys())} are missing or unknown")
    return table


def _verify(table: JetTable, header: dict[str, Any]) -> None:
    columns = _columns(table)
    # in a packed file the energy is made of the momenta, so the momenta are to blame first
    for name in sorted(columns, key="particles.part_energy".__eq__):
        if _checksum(columns[name]) != header["checksums"][name]:
            raise ValueError(f"column {name!r} does not match its checksum")


def _to_numpy(name: str, array: pa.Array) -> np.ndarray:
    if array.null_count or not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
        raise ValueError(f"column {name!r} must hold numbers, not {array.type} with {array.null_count} nulls")
    return array.to_numpy(zero_copy_only=True)


def _massless_energy(particles: dict[str, np.ndarray]) -> np.ndarray:
    """Bits of :math:`|p|` rounded to float32, whose distance to the bits of E counts float32 steps."""
    with np.errstate(over="ignore", invalid="ignore"):  # the numbers of a damaged file
        px, py, pz = (particles[name].astype(np.float64) for name in MOMENTUM_COLUMNS[1:])
        return np.sqrt(px * px + py * py + pz * pz).astype(np.float32).view(np.int32)


def _to_planes(values: np.ndarray) -> pa.Array:
    # exponents compress and mantissas do not, so they must not alternate
    if values.dtype != np.float32:
        return pa.array(values)
    planes = np.ascontiguousarray(values).view(np.uint8).reshape(-1, 4).T
    return pa.StructArray.from_arrays([pa.array(np.ascontiguousarray(plane)) for plane in planes], list("0123"))


def _from_planes(name: str, array: pa.Array) -> np.ndarray:
    if not pa.types.is_struct(array.type):
        return _to_numpy(name, array)
    planes = [_to_numpy(name, array.field(i)) for i in range(array.type.num_fields)]
    return np.stack(planes, axis=1).reshape(-1).view(np.float32)
