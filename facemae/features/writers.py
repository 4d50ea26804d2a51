"""Feature files, written row by row: memory does not grow with the number of rows.

Both kinds hold columns and one JSON object of metadata (see `facemae.features.extraction` and
`facemae.features.clip_extraction`). `read_features` and `read_clip_features` read either back.

- ``.npz``: an array a column, the first dimension counts rows: `keys` str [N], `features` float32 [N, …], …, and
  `meta`, the JSON text, for ``numpy.load``.
- ``.parquet``: the same columns, `keys` is called `key`; those of several numbers are fixed-size lists whose shape
  stands in the field's metadata. The JSON stands in the file's key-value metadata under ``facemae``.
"""

import contextlib
import io
import json
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from facemae.errors import DataError, UsageError
from facemae.files import atomic_path, storage_errors

_CHUNK_ROWS = 65536
_CHUNK_BYTES = 1 << 22
_ROW_GROUP_BYTES = 1 << 22
META_KEY = b"facemae"
_SHAPE_KEY = b"shape"
_NAMES = {"keys": "key"}
"""What columns are called in parquet, where it is not their name in npz."""


@dataclass(frozen=True)
class Column:
    """A column of a feature file.

    Attributes:
        dtype: NumPy's name of little-endian numbers, such as `<f4` or `|b1`; None of text.
        shape: Shape of one row's value.
    """

    dtype: str | None = "<f4"
    shape: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Numbers a row."""
        return math.prod(self.shape)


TEXT = Column(None)
Columns = Mapping[str, Column]
Rows = Mapping[str, Sequence[str] | np.ndarray]


def feature_columns(shape: tuple[int, ...]) -> dict[str, Column]:
    """Columns of a file of pictures' features: `keys` and `features`, float32 of this shape a row."""
    return {"keys": TEXT, "features": Column("<f4", shape)}


class FeatureWriter(Protocol):
    """Takes rows as they come; metadata is given at the end, when what was skipped is known."""

    def append(self, rows: Rows) -> None:
        """Add rows: for each column B texts or numbers [B, …]."""

    def finish(self, meta: dict[str, Any]) -> None:
        """Write metadata and close; without it nothing appears under the final name."""


def check_output(path: Path) -> None:
    """Raise `UsageError` unless the extension names a kind of feature file."""
    if path.suffix not in _WRITERS:
        raise UsageError(
            f"{path} has the extension {path.suffix or '(none)'!r}", expected=" or ".join(sorted(_WRITERS))
        )


@contextlib.contextmanager
def open_writer(path: Path, columns: Columns) -> Iterator[FeatureWriter]:
    """A writer for `path`, chosen by its extension. The file appears only when the block ends well.

    Args:
        path: Ends in `.npz` or `.parquet`.
        columns: What a row has, in the order in which it is written.

    Raises:
        UsageError: Another extension.
        StorageError: Writing failed underneath; nothing is left behind and an older file is untouched.
    """
    check_output(path)
    with atomic_path(path) as temporary, contextlib.ExitStack() as stack:
        yield _WRITERS[path.suffix](temporary, columns, stack)


class NpzWriter:
    """Streams rows to scratch files beside the target, then into a zip of `.npy` members.

    A `.npy` header states the number of rows, known only at the end, so the rows wait in scratch files: while a file is
    finished, the volume holds the features twice.
    """

    def __init__(self, path: Path, columns: Columns, stack: contextlib.ExitStack) -> None:
        self._path = path
        self._columns = dict(columns)
        self._rows = 0
        self._longest = dict.fromkeys(columns, 1)
        self._scratch = {name: self._scratch_file(stack, name) for name in columns}

    def _scratch_file(self, stack: contextlib.ExitStack, part: str) -> BinaryIO:
        path = self._path.with_name(f"{self._path.name}.{part}.tmp")
        stack.callback(path.unlink, missing_ok=True)
        return stack.enter_context(path.open("w+b"))

    def append(self, rows: Rows) -> None:
        """Add rows."""
        count, checked = _checked(rows, self._columns)
        for name, values in checked.items():
            if isinstance(values, np.ndarray):
                self._scratch[name].write(values.reshape(-1).view(np.uint8).data)
            else:
                self._scratch[name].writelines(json.dumps(text).encode() + b"\n" for text in values)
                self._longest[name] = max([self._longest[name], *map(len, values)])
        self._rows += count

    def finish(self, meta: dict[str, Any]) -> None:
        """Write the zip."""
        with zipfile.ZipFile(self._path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, column in self._columns.items():
                self._scratch[name].seek(0)
                if column.dtype is None:
                    self._write_text(archive, name)
                else:
                    self._write_numbers(archive, name, column)
            text = np.array(json.dumps(meta))
            with self._member(archive, "meta", text.dtype, ()) as member:
                member.write(text.tobytes())

    def _write_numbers(self, archive: zipfile.ZipFile, name: str, column: Column) -> None:
        with self._member(archive, name, np.dtype(column.dtype), (self._rows, *column.shape)) as member:
            while chunk := self._scratch[name].read(_CHUNK_BYTES):
                member.write(chunk)

    def _write_text(self, archive: zipfile.ZipFile, name: str) -> None:
        dtype = np.dtype(f"<U{self._longest[name]}")
        with self._member(archive, name, dtype, (self._rows,)) as member:
            for lines in _batches(self._scratch[name], _CHUNK_ROWS):
                member.write(np.array([json.loads(line) for line in lines], dtype=dtype).tobytes())

    @staticmethod
    @contextlib.contextmanager
    def _member(
        archive: zipfile.ZipFile, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> Iterator[io.BufferedIOBase]:
        # A fixed date makes equal extractions equal files.
        info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
        with archive.open(info, "w", force_zip64=True) as member:
            header = {
                "descr": np.lib.format.dtype_to_descr(dtype),
                "fortran_order": False,
                "shape": shape,
            }
            np.lib.format.write_array_header_1_0(member, header)
            yield member  # type: ignore[misc]


class ParquetWriter:
    """Appends row groups of about four megabytes."""

    def __init__(self, path: Path, columns: Columns, stack: contextlib.ExitStack) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._pa = pa
        self._columns = dict(columns)
        self._schema = pa.schema([self._field(name, column) for name, column in columns.items()])
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
        stack.callback(self._writer.close)
        width = sum(4 * column.size for column in columns.values() if column.shape)
        self._group_rows = max(1, _ROW_GROUP_BYTES // max(width, 1))
        self._pending: dict[str, list[Any]] = {name: [] for name in columns}
        self._waiting = 0

    def _field(self, name: str, column: Column) -> Any:
        pa, called = self._pa, _NAMES.get(name, name)
        if column.dtype is None:
            return pa.field(called, pa.string())
        plain = pa.from_numpy_dtype(np.dtype(column.dtype))
        if not column.shape:
            return pa.field(called, plain)
        return pa.field(called, pa.list_(plain, column.size), metadata={_SHAPE_KEY: json.dumps(column.shape)})

    def append(self, rows: Rows) -> None:
        """Add rows."""
        count, checked = _checked(rows, self._columns)
        for name, values in checked.items():
            self._pending[name].append(values.reshape(-1) if isinstance(values, np.ndarray) else values)
        self._waiting += count
        if self._waiting >= self._group_rows:
            self._flush()

    def finish(self, meta: dict[str, Any]) -> None:
        """Write the last rows and the metadata."""
        self._flush()
        self._writer.add_key_value_metadata({META_KEY: json.dumps(meta)})
        self._writer.close()

    def _flush(self) -> None:
        if not self._waiting:
            return
        arrays = [self._array(name, column) for name, column in self._columns.items()]
        self._writer.write_table(self._pa.table(arrays, schema=self._schema))
        self._pending, self._waiting = {name: [] for name in self._columns}, 0

    def _array(self, name: str, column: Column) -> Any:
        parts = self._pending[name]
        if column.dtype is None:
            return self._pa.array([text for part in parts for text in part], self._pa.string())
        values = self._pa.array(np.concatenate(parts))
        return self._pa.FixedSizeListArray.from_arrays(values, column.size) if column.shape else values


_WRITERS: dict[str, Any] = {".npz": NpzWriter, ".parquet": ParquetWriter}


@dataclass(frozen=True)
class FeatureFile:
    """A file of pictures' features in memory.

    Attributes:
        keys: str [N].
        features: float32 [N, …].
        meta: Where the features come from.
    """

    keys: np.ndarray
    features: np.ndarray
    meta: dict[str, Any]


@dataclass(frozen=True)
class ClipFeatureFile:
    """A file of clips' features in memory, a row a window or a time step; see `facemae.features.clip_extraction`.

    Attributes:
        columns: Arrays by name, [N, …] each: `keys`, `source`, `clip`, `person`, `start`, `end`, `partial`, `real`,
            `has_video` and `video`, and of a model that hears `has_sound` and `sound`.
        meta: Where the features come from.
    """

    columns: dict[str, np.ndarray]
    meta: dict[str, Any]


def read_features(path: Path | str) -> FeatureFile:
    """Read a file that `facemae extract` wrote of pictures.

    Raises:
        UsageError: Another extension, or features of clips.
        DataError: Not a feature file.
        StorageError: Reading failed underneath.
    """
    columns, meta = _read(Path(path))
    if "features" not in columns:
        raise UsageError(f"{path} holds features of clips", expected="features of pictures", fix="read_clip_features")
    return FeatureFile(columns["keys"], columns["features"], meta)


def read_clip_features(path: Path | str) -> ClipFeatureFile:
    """Read a file that `facemae extract` wrote of videos, sounds or packed clips.

    Raises:
        UsageError: Another extension, or features of pictures.
        DataError: Not a feature file.
        StorageError: Reading failed underneath.
    """
    columns, meta = _read(Path(path))
    if "start" not in columns:
        raise UsageError(f"{path} holds features of pictures", expected="features of clips", fix="read_features")
    return ClipFeatureFile(columns, meta)


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    check_output(path)
    with storage_errors(path, "reading"):
        columns, meta = _read_npz(path) if path.suffix == ".npz" else _read_parquet(path)
    if "keys" not in columns:
        raise _not_features(path, KeyError("keys"))
    return columns, meta


def _read_npz(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            meta = json.loads(str(archive["meta"]))
            return {name: archive[name] for name in archive.files if name != "meta"}, meta
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise _not_features(path, error) from error


def _read_parquet(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = {called: name for name, called in _NAMES.items()}
    try:
        with pq.ParquetFile(path) as file:
            meta = json.loads(file.metadata.metadata[META_KEY])
            table = file.read()
        return {names.get(field.name, field.name): _values(table, field) for field in table.schema}, meta
    except (KeyError, ValueError, pa.ArrowInvalid) as error:
        raise _not_features(path, error) from error


def _values(table: Any, field: Any) -> np.ndarray:
    """A column of a parquet table as an array."""
    import pyarrow as pa

    held = table[field.name].combine_chunks()
    if pa.types.is_string(field.type):
        return np.array(held.to_pylist(), dtype=np.str_)
    shape = json.loads((field.metadata or {}).get(_SHAPE_KEY, b"[]"))
    values: np.ndarray = (held.flatten() if shape else held).to_numpy(zero_copy_only=False)
    return values.reshape(len(held), *shape)


def _not_features(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is not a feature file ({error})", expected="a file written by `facemae extract`")


def _checked(rows: Rows, columns: Columns) -> tuple[int, dict[str, Sequence[str] | np.ndarray]]:
    """The number of rows, and their values as they are written."""
    count = len(rows["keys"])
    found: dict[str, Sequence[str] | np.ndarray] = {}
    for name, column in columns.items():
        values = rows[name]
        if column.dtype is None:
            found[name] = [str(text) for text in values]
            continue
        values = np.asarray(values)
        if values.shape != (count, *column.shape):
            raise ValueError(f"{count} keys with {name} of shape {values.shape}; expected rows of {column.shape}")
        found[name] = np.ascontiguousarray(values, dtype=column.dtype)
    return count, found


def _batches(lines: BinaryIO, size: int) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    for line in lines:
        batch.append(line)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
