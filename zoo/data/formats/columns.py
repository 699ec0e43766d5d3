"""Named columns of a file, whatever its format: ROOT (TTree and RNTuple), parquet and HDF5."""

import contextlib
import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import h5py
import hdf5plugin  # noqa: F401 - registers the compressions that PyTables writes
import numpy as np
import pyarrow as pa
import xxhash
from pyarrow import compute, parquet

from zoo.data.hints import did_you_mean
from zoo.limits import LARGE_BYTES, MAX_EXPANSION, MAX_GROUP_VALUES, MAX_PARTICLES, MAX_ROW_BYTES

ROOT_MAGIC = b"root"
PARQUET_MAGIC = b"PAR1"
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"

#: Names of ROOT classes that hold one jet or event per row.
_TREES = ("TTree", "ROOT::RNTuple")

#: Most bytes of a padded array that are read at a time.
BLOCK_BYTES = 64 * 2**20

#: Bytes of a file that are examined to find its format.
_START_BYTES = 4096


class Kind(NamedTuple):
    """What a column holds: one number or text per row, a list of numbers, or a list of lists."""

    is_list: bool
    dtype: np.dtype  #: ``object`` for anything that is neither number nor text
    is_padded: bool = False  #: whether the lists are padded to one length with zeros
    is_nested: bool = False  #: whether the lists hold lists

    def __str__(self) -> str:
        content = {"O": "objects", "U": "text"}.get(self.dtype.kind, str(self.dtype))
        return "lists of " * (self.is_list + self.is_nested) + content


#: The kind of a column of text.
TEXT = Kind(False, np.dtype(np.str_))


class Lists(NamedTuple):
    """A list of numbers for each row."""

    counts: np.ndarray  #: (jet,)
    values: np.ndarray  #: one after the other


class Nested(NamedTuple):
    """Lists of lists of numbers for each row."""

    counts: np.ndarray  #: (row,), number of lists
    lists: Lists  #: one list after the other


#: Some columns of some rows.
Block = dict[str, np.ndarray | Lists | Nested]


class Columns(Protocol):
    """Named columns of a file, whatever its format."""

    names: Sequence[str]

    def count_rows(self, names: Sequence[str]) -> int:
        """Number of rows of some columns."""

    def kind(self, name: str) -> Kind:
        """What a column holds."""

    def blocks(self, names: Sequence[str], start: int, stop: int, size: int) -> Iterator[Block]:
        """Some columns of the rows ``start`` to ``stop`` in order, at most ``size`` rows at a time."""


def damaged(path: Path, error: Exception, column: str | None = None) -> ValueError:
    """The error for a file, or a column of it, that cannot be read."""
    where = "" if column is None else f": column {column!r}"
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ValueError(f"{path}{where} cannot be read: {reason}; it is truncated or damaged, fetch it again")


def unless_damaged(
    path: Path, blocks: Iterator[Any], names: Sequence[str], read_column: Callable[[str], object]
) -> Iterator[Any]:
    """The blocks of a file; if one cannot be read, an error that names the first unreadable column."""
    while True:
        try:
            block = next(blocks, None)
        except Exception as error:  # the libraries raise many kinds for a damaged file
            for name in names:
                try:
                    read_column(name)
                except Exception as cause:
                    raise damaged(path, cause, name) from cause
            raise damaged(path, error) from error
        if block is None:
            return
        yield block


def first_bytes(path: Path) -> bytes:
    """The start of a file, which shows its kind.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    with path.open("rb") as file:
        return file.read(_START_BYTES)


@contextlib.contextmanager
def open_columns(path: Path, start: bytes, key: str | None = None) -> Iterator[Columns]:
    """Open the columns of a ROOT, parquet or HDF5 file, recognised by its content.

    Args:
        path: file.
        start: its `first_bytes`.
        key: tree of a ROOT file (None: ``tree``, or the only one) or group of an HDF5 file (None: the whole file).

    Raises:
        ValueError: if the file is of another format, is damaged, or has no such tree or group.
    """
    openers = {ROOT_MAGIC: open_root, PARQUET_MAGIC: open_parquet, HDF5_MAGIC: open_hdf5}
    for magic, opener in openers.items():
        if start.startswith(magic):
            with opener(path, key) as columns:
                yield columns
            return
    raise ValueError(f"{path}: a layout describes ROOT, parquet and HDF5 files; this one starts with {start[:8]!r}")


@contextlib.contextmanager
def open_root(path: Path, key: str | None = None) -> Iterator[Columns]:
    """Open a TTree or RNTuple of a ROOT file; only its compressed baskets carry checksums.

    Raises:
        ValueError: if the file is damaged or has no such tree.
    """
    import uproot  # slow to import, and few need it

    try:
        # by default two colons in a name make it an address
        file = uproot.open(path, **({"handler": uproot.MemmapSource} if "::" in str(path) else {}))
        trees = [name for name, kind in file.classnames(cycle=False).items() if kind in _TREES]
        name = key or ("tree" if "tree" in trees else trees[0] if len(trees) == 1 else None)
        tree = file[name] if name in trees else None
        is_ntuple = tree is not None and not isinstance(tree, uproot.TTree)
        names = [] if tree is None else _field_names(tree.fields) if is_ntuple else tree.keys(full_paths=False)
        facts = None if tree is None else (names, tree.num_entries)
        if is_ntuple:
            _verify_page_lists(tree)
    except Exception as error:  # uproot raises many kinds for a damaged file
        raise damaged(path, error) from error
    with file:
        if tree is not None:
            yield (_NTuple if is_ntuple else _Tree)(path, tree, *facts)
        elif key is not None:
            raise ValueError(
                f"{path}: there is no tree {key!r}; {did_you_mean(key, trees)} Change 'tree' of the layout"
            )
        else:
            found = ", ".join(trees) or "none"
            raise ValueError(f"{path} must hold a TTree 'tree', or only one; found {found}; name it in a layout")


def _field_names(fields: Sequence[Any], above: str = "") -> list[str]:
    """Names of fields and of those in them, such as ``jet.pt``; uproot's own takes seconds for a thousand."""
    names = []
    for field in fields:
        names += [above + field.name, *_field_names(field.fields, f"{above}{field.name}.")]
    return names


def _verify_page_lists(ntuple: Any) -> None:
    """Compare the lists of pages of an RNTuple with their checksums, which uproot does for its other headers."""
    for group in ntuple.footer.cluster_group_records:
        link = group.page_list_link
        chunk, _ = ntuple.read_locator(link.locator, link.env_uncomp_size)
        content = chunk.raw_data.tobytes()
        if xxhash.xxh3_64_intdigest(content[:-8]) != int.from_bytes(content[-8:], "little"):
            raise ValueError("a list of pages does not match its checksum")


@dataclasses.dataclass(frozen=True)
class _Tree:
    """Branches of a ROOT tree; baskets of other rows are not read."""

    path: Path
    tree: Any  #: uproot.TTree or an RNTuple
    names: Sequence[str]
    rows: int

    def count_rows(self, names: Sequence[str]) -> int:
        return self.rows

    def kind(self, name: str) -> Kind:
        import uproot

        try:
            found = self.tree[name].interpretation
            if isinstance(found, uproot.AsObjects):
                return _kind_of_type(self._array(name, 0, 0))
        except Exception as error:  # uproot raises many kinds for a damaged file
            raise damaged(self.path, error, name) from error
        if isinstance(found, uproot.AsStrings):
            return TEXT
        is_list = isinstance(found, uproot.AsJagged)
        content = found.content if is_list else found
        dtype = content.to_dtype if isinstance(content, uproot.AsDtype) else np.dtype(object)
        is_array = not is_list and len(dtype.shape) == 1
        known = dtype.base if is_array or not dtype.shape else np.dtype(object)
        return Kind(is_list or is_array, known.newbyteorder("="), is_array)

    def blocks(self, names: Sequence[str], start: int, stop: int, size: int) -> Iterator[Block]:
        self._require_few(names)
        arrays = self._iterate(list(names), entry_start=start, entry_stop=stop, step_size=size, library="ak")

        def read_column(name: str) -> object:
            return self._array(name, start, stop)

        for block in unless_damaged(self.path, arrays, names, read_column):
            yield {name: self._convert(name, self._column(block, name)) for name in names}

    def _convert(self, name: str, array: Any) -> np.ndarray | Lists | Nested:
        import awkward as ak

        if set(ak.fields(array)) >= _LINK:
            keys = np.unique(ak.to_numpy(ak.flatten(array.m_persKey, axis=None)))
            if np.count_nonzero(keys) > 1:
                raise ValueError(f"{self.path}: column {name!r} has links to several collections; take another one")
            array = ak.where(array.m_persKey != 0, ak.values_astype(array.m_persIndex, np.int64), -1)
        return _of_awkward(array)

    def _iterate(self, names: list[str], **options: Any) -> Iterator[Any]:
        return self.tree.iterate(names, **options)

    def _array(self, name: str, start: int, stop: int) -> Any:
        return self.tree[name].array(entry_start=start, entry_stop=stop, library="ak")

    def _column(self, block: Any, name: str) -> Any:
        return block[name]

    def _require_few(self, names: Sequence[str]) -> None:
        """Refuse branches that unpack to more than jets can hold."""
        for name in names:
            size = self.tree[name].uncompressed_bytes
            if size > MAX_ROW_BYTES * max(1, self.rows):
                raise ValueError(
                    f"{self.path}: column {name!r} unpacks to {size:.3g} bytes in {self.rows} rows, more than "
                    f"{MAX_ROW_BYTES:.3g} a row; write shorter lists"
                )


class _NTuple(_Tree):
    """Fields of an RNTuple."""

    def _require_few(self, names: Sequence[str]) -> None:
        """Nothing to refuse: pages are compared with their checksums, and the sizes in a header are not used."""

    def kind(self, name: str) -> Kind:
        try:
            return _kind_of_type(self._array(name, 0, 0))
        except Exception as error:  # uproot raises many kinds for a damaged file
            raise damaged(self.path, error, name) from error

    def _iterate(self, names: list[str], **options: Any) -> Iterator[Any]:
        return self.tree.iterate(filter_name=names.__contains__, **options)

    def _array(self, name: str, start: int, stop: int) -> Any:
        try:
            return super()._array(name, start, stop)
        except KeyError:  # uproot's, of a field whose own name has dots; a filter finds it, but takes seconds
            block = self.tree.arrays(filter_name=name.__eq__, entry_start=start, entry_stop=stop, library="ak")
            return self._column(block, name)

    def _column(self, block: Any, name: str) -> Any:
        return block[name] if name in block.fields else block[tuple(name.split("."))]


#: Members of links in ATLAS files: the collection, 0 for none, and the index in it, which stands for the link.
_LINK = {"m_persKey", "m_persIndex"}


def _kind_of_type(array: Any) -> Kind:
    """The kind of a column by the type of an awkward array of it."""
    import awkward as ak

    content, depth, is_array = array.type.content, 0, isinstance(array.type.content, ak.types.RegularType)
    while isinstance(content, ak.types.ListType | ak.types.RegularType) and not content.parameters:
        content, depth = content.content, depth + 1
    if depth == 0 and content.parameters.get("__array__") == "string":
        return TEXT
    if isinstance(content, ak.types.RecordType) and set(content.fields or ()) >= _LINK:
        return Kind(depth > 0, np.dtype(np.int64), is_array, is_nested=depth > 1)
    dtype = np.dtype(content.primitive if isinstance(content, ak.types.NumpyType) and depth <= 2 else object)
    return Kind(depth > 0, dtype, is_array, is_nested=depth > 1)


def _of_awkward(array: Any) -> np.ndarray | Lists | Nested:
    import awkward as ak

    if array.ndim == 1:
        return ak.to_numpy(array)
    if array.ndim == 3:
        return Nested(ak.to_numpy(ak.num(array)), _of_awkward(ak.flatten(array)))
    return Lists(ak.to_numpy(ak.num(array)), ak.to_numpy(ak.flatten(array)))


@contextlib.contextmanager
def open_parquet(path: Path, key: str | None = None) -> Iterator[Columns]:
    """Open a parquet file; pages are compared with their checksums if the writer stored any.

    Raises:
        ValueError: if the file is damaged, or a ``key`` is given, which no parquet file has.
    """
    if key is not None:
        raise ValueError(f"{path}: a parquet file has no tree {key!r}; leave 'tree' out of the layout")
    try:
        file = parquet.ParquetFile(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged(path, error) from error
    with file:
        yield _Parquet(path, file)


def _without_lists(path: str) -> str:
    """The name of a column in parquet without its parts for lists, as in ``particles.list.element.pt``."""
    return re.sub(r"\.list\.(element|item)(?=\.|$)", "", path)


@dataclasses.dataclass(frozen=True)
class _Parquet:
    """Columns of a parquet file; row groups of other rows are not read."""

    path: Path
    file: parquet.ParquetFile

    @property
    def names(self) -> list[str]:
        return list(self._types)

    @functools.cached_property
    def _types(self) -> dict[str, pa.DataType]:
        """Type of each column; those of a struct, or of lists of structs, are ``particles.pt`` and the like."""
        types = {}

        def add(name: str, found: pa.DataType) -> None:
            types.setdefault(name, found)
            is_list = pa.types.is_list(found) or pa.types.is_large_list(found)
            inner = found.value_type if is_list else found
            for part in inner if pa.types.is_struct(inner) else ():
                add(f"{name}.{part.name}", pa.list_(part.type) if is_list else part.type)

        for field in self.file.schema_arrow:
            add(field.name, field.type)
        return types

    def count_rows(self, names: Sequence[str]) -> int:
        return self.file.metadata.num_rows

    def kind(self, name: str) -> Kind:
        found = self._types[name]
        if pa.types.is_dictionary(found):
            found = found.value_type
        if pa.types.is_string(found) or pa.types.is_large_string(found):
            return TEXT
        depth, is_array = 0, pa.types.is_fixed_size_list(found)
        while pa.types.is_list(found) or pa.types.is_large_list(found) or pa.types.is_fixed_size_list(found):
            found, depth = found.value_type, depth + 1
        is_number = pa.types.is_integer(found) or pa.types.is_floating(found) or pa.types.is_boolean(found)
        dtype = np.dtype(found.to_pandas_dtype() if is_number and depth <= 2 else object)
        return Kind(depth > 0, dtype, is_array, is_nested=depth > 1)

    def blocks(self, names: Sequence[str], start: int, stop: int, size: int) -> Iterator[Block]:
        self._require_few(names)
        groups = range(self.file.num_row_groups)
        ends = np.cumsum([self.file.metadata.row_group(group).num_rows for group in groups])
        first, last = np.searchsorted(ends, [start, stop - 1], side="right").tolist()
        needed = list(groups)[first : last + 1]
        row = int(ends[first - 1]) if first else 0
        paths = {name: self._paths(name) for name in names}
        columns = [path for name in names for path in paths[name]]
        batches = self.file.iter_batches(size, row_groups=needed, columns=columns)

        def read_column(name: str) -> object:
            return self.file.read_row_groups(needed, columns=paths[name])

        for batch in unless_damaged(self.path, batches, names, read_column):
            wanted = batch.slice(max(start - row, 0), max(min(stop, row + len(batch)) - max(start, row), 0))
            row += len(batch)
            if len(wanted):
                yield {name: self._convert(name, self._column(wanted, name)) for name in names}

    def _paths(self, name: str) -> list[str]:
        """The columns in the file that a column is made of, by the names that parquet gives them."""
        schema = self.file.schema
        paths = (schema.column(i).path for i in range(len(schema)))
        return [path for path in paths if f"{_without_lists(path)}.".startswith(f"{name}.")]

    def _column(self, batch: pa.RecordBatch, name: str) -> pa.Array:
        """A column, or the part of a struct that its name leads to."""
        if name in batch.schema.names:
            return batch.column(name)
        above, _, part = name.rpartition(".")
        column = self._column(batch, above)
        if pa.types.is_struct(column.type):
            return compute.struct_field(column, part)
        offsets = compute.subtract(column.offsets, column.offsets[0])
        return type(column).from_arrays(offsets, compute.struct_field(column.flatten(), part))

    def _require_few(self, names: Sequence[str]) -> None:
        """Refuse lists longer than a jet has particles, and row groups that are too large, as the footer gives them."""
        footer = self.file.metadata
        for group in map(footer.row_group, range(footer.num_row_groups)):
            most = min(MAX_GROUP_VALUES, MAX_PARTICLES * group.num_rows)
            for column in map(group.column, range(group.num_columns)):
                path = _without_lists(column.path_in_schema)
                if column.num_values > most and any(f"{path}.".startswith(f"{name}.") for name in names):
                    raise ValueError(
                        f"{self.path}: column {path!r} has {column.num_values} values in a row group of "
                        f"{group.num_rows} rows, more than {most}; write smaller row groups, or shorter lists"
                    )

    def _convert(self, name: str, column: pa.Array) -> np.ndarray | Lists | Nested:
        kind = self.kind(name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if column.null_count:
            raise self._has_nulls(name)
        if not kind.is_list:
            values = column.to_numpy(zero_copy_only=False)
            return values.astype(np.str_) if kind.dtype.kind == "U" else values
        counts, values = compute.list_value_length(column).to_numpy(), column.flatten()
        if values.null_count:
            raise self._has_nulls(name)
        if not kind.is_nested:
            return Lists(counts, values.to_numpy(zero_copy_only=False))
        inner = values.flatten()
        if inner.null_count:
            raise self._has_nulls(name)
        lists = Lists(compute.list_value_length(values).to_numpy(), inner.to_numpy(zero_copy_only=False))
        return Nested(counts, lists)

    def _has_nulls(self, name: str) -> ValueError:
        return ValueError(f"{self.path}: column {name!r} holds nulls; leave those jets out or fill them")


@contextlib.contextmanager
def open_hdf5(path: Path, key: str | None = None) -> Iterator[Columns]:
    """Open the data sets of an HDF5 file, or of one group, as columns; see `Hdf5Columns`.

    Raises:
        ValueError: if the file is damaged, or has no such group.
    """
    with open_hdf5_file(path) as file:
        group = file if key is None else file.get(key)
        if not isinstance(group, h5py.Group):
            raise ValueError(
                f"{path}: there is no group {key!r}; {did_you_mean(key, file)} Change 'tree' of the layout"
            )
        yield Hdf5Columns(path, group)


@contextlib.contextmanager
def open_hdf5_file(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file; if anything in it cannot be read while it is open, the error names the file.

    Raises:
        ValueError: if the file is damaged, or has data sets of different lengths or with numbers stored elsewhere.
    """
    try:
        with h5py.File(path) as file:
            _require_own(path, file)
            yield file
    except (OSError, RuntimeError, KeyError) as error:  # a member with a damaged header is a KeyError
        raise damaged(path, error) from error


def require_stored(path: Path, data: h5py.Dataset) -> None:
    """Refuse an array that claims far more than is stored, or rows larger than any jet; see `zoo.limits`.

    Raises:
        ValueError: naming the array and the limit.
    """
    of_row = data.dtype.itemsize * math.prod(data.shape[1:])
    if of_row > MAX_ROW_BYTES:
        raise ValueError(
            f"{path}: data set {data.name!r} claims {of_row:.3g} bytes for each row, more than {MAX_ROW_BYTES:.3g}; "
            "write shorter rows"
        )
    claimed, stored = of_row * len(data), data.id.get_storage_size()
    if claimed > max(LARGE_BYTES, MAX_EXPANSION * stored):
        raise ValueError(
            f"{path}: data set {data.name!r} claims {claimed:.3g} bytes and stores {stored}; write the file again"
        )


def _require_own(path: Path, file: h5py.File) -> None:
    """Refuse a file with a member in another file: whoever made it would choose which file is read here."""
    groups, seen = [file], set()
    while groups:
        group = groups.pop()
        for name in group:
            with contextlib.suppress(OSError, RuntimeError, KeyError):  # damaged: an error if it is read
                link = group.get(name, getlink=True)
                elsewhere = link.filename if isinstance(link, h5py.ExternalLink) else None
                member = group[name] if isinstance(link, h5py.HardLink) else None
                elsewhere = elsewhere or _elsewhere(member)
                if elsewhere is not None:
                    raise ValueError(
                        f"{path}: {group.name.rstrip('/')}/{name} lies in another file, {elsewhere!r}, which is not "
                        "read; copy it into this one, as with h5repack"
                    )
                if isinstance(member, h5py.Group) and (address := h5py.h5o.get_info(member.id).addr) not in seen:
                    seen.add(address)
                    groups.append(member)


def _elsewhere(member: object) -> str | None:
    """The other file that holds the numbers of a member; None if this one does."""
    if not isinstance(member, h5py.Dataset):
        return None
    if member.external:
        return member.external[0][0]
    sources = member.virtual_sources() if member.is_virtual else []
    return next((source.file_name for source in sources if source.file_name != "."), None)


class _Place(NamedTuple):
    """Where a column lies in an HDF5 file: a data set, and a field of its rows or a position on its last axis."""

    data: h5py.Dataset
    part: str | int | None


@dataclasses.dataclass(frozen=True)
class Hdf5Columns:
    """Data sets of an HDF5 group, whose first axis counts the rows.

    A data set (row,) or (row, particle) is a column under its own name; lists may also be of variable length. The parts
    of a data set, whether fields of a compound type or positions on its last axis, are columns too: ``tracks/pt``, or
    ``PFCands/3`` for the fourth number of each particle.

    Args:
        path: the file, for messages.
        group: what holds the data sets.
        parts: names of the positions on the last axis of some data sets, which then replace the numbers.
    """

    path: Path
    group: h5py.Group
    parts: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def names(self) -> list[str]:
        return list(self._places)

    @functools.cached_property
    def _places(self) -> dict[str, _Place]:
        places = {}

        def add(name: str, data: object) -> None:
            if not isinstance(data, h5py.Dataset) or not data.shape:
                return
            if not data.dtype.names and data.ndim <= 2:
                places[name] = _Place(data, None)
            has_parts = 2 <= data.ndim <= 3 and data.shape[-1] <= MAX_PARTICLES
            parts = data.dtype.names or (range(data.shape[-1]) if has_parts else ())
            labels = self.parts.get(name, parts)
            places.update({f"{name}/{label}": _Place(data, part) for label, part in zip(labels, parts, strict=False)})

        self.group.visititems(add)
        return places

    def count_rows(self, names: Sequence[str]) -> int:
        data_sets = [self._places[name].data for name in names]
        first = data_sets[0]
        for data in data_sets:
            if len(data) != len(first):
                raise ValueError(
                    f"{self.path}: data set {data.name!r} has {len(data)} rows, {first.name!r} has {len(first)}; write "
                    "the file again"
                )
        return len(first)

    def kind(self, name: str) -> Kind:
        data, part = self._places[name]
        if h5py.check_string_dtype(data.dtype[part] if isinstance(part, str) else data.dtype) is not None:
            return TEXT if data.ndim == 1 else Kind(True, np.dtype(object))
        content = h5py.check_vlen_dtype(data.dtype)
        if content is not None:
            return Kind(True, np.dtype(content))
        dtype = data.dtype[part] if isinstance(part, str) else data.dtype
        is_array = data.ndim - isinstance(part, int) == 2
        return Kind(is_array, np.dtype(object) if dtype.shape else dtype, is_array)

    def blocks(self, names: Sequence[str], start: int, stop: int, size: int) -> Iterator[Block]:
        for name in names:
            require_stored(self.path, self._places[name].data)
        places = {name: self._places[name] for name in names}
        data_sets = {place.data.name: place.data for place in places.values()}
        widest = max(data.dtype.itemsize * int(np.prod(data.shape[1:])) for data in data_sets.values())
        size = min(size, max(1, BLOCK_BYTES // max(widest, 1)))
        for first in range(start, stop, size):
            rows = slice(first, min(first + size, stop))
            read = {name: self._read(data, rows) for name, data in data_sets.items()}
            yield {name: self._convert(read[data.name], part, name) for name, (data, part) in places.items()}

    def _read(self, data: h5py.Dataset, rows: slice) -> np.ndarray:
        try:
            return data[rows]
        except (OSError, RuntimeError) as error:
            raise damaged(self.path, error, data.name) from error

    def _convert(self, block: np.ndarray, part: str | int | None, name: str) -> np.ndarray | Lists:
        if self.kind(name) == TEXT:
            texts = block[part] if isinstance(part, str) else block
            return np.array([text.decode() if isinstance(text, bytes) else str(text) for text in texts], dtype=np.str_)
        if block.dtype == object:
            counts = np.array([len(row) for row in block], dtype=np.int64)
            return Lists(counts, np.concatenate([*block, np.empty(0, dtype=self.kind(name).dtype)]))
        if part is not None:
            block = block[part] if isinstance(part, str) else block[..., part]
        if block.ndim == 1:
            return np.ascontiguousarray(block)
        return Lists(np.full(len(block), block.shape[1]), block.reshape(-1))
