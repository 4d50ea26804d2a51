"""Feature files, written row by row: memory does not grow with the number of images.

Both kinds hold the same three things: the keys, the features and one JSON object of metadata (see
`facemae.features.extraction`). `read_features` reads either back.

- ``.npz``: arrays `features` float32 [N, …], `keys` str [N] and `meta`, the JSON text, for ``numpy.load``.
- ``.parquet``: columns `key` and `features` (a fixed-size list of float32); the JSON stands in the file's key-value
  metadata under ``facemae`` and the shape of one image's features in it under `feature_shape`.
"""

import contextlib
import io
import json
import math
import zipfile
from collections.abc import Iterator, Sequence
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


class FeatureWriter(Protocol):
    """Takes rows as they come; metadata is given at the end, when what was skipped is known."""

    def append(self, keys: Sequence[str], features: np.ndarray) -> None:
        """Add rows: keys [B] and float32 features [B, …]."""

    def finish(self, meta: dict[str, Any]) -> None:
        """Write metadata and close; without it nothing appears under the final name."""


def check_output(path: Path) -> None:
    """Raise `UsageError` unless the extension names a kind of feature file."""
    if path.suffix not in _WRITERS:
        raise UsageError(
            f"{path} has the extension {path.suffix or '(none)'!r}", expected=" or ".join(sorted(_WRITERS))
        )


@contextlib.contextmanager
def open_writer(path: Path, shape: tuple[int, ...]) -> Iterator[FeatureWriter]:
    """A writer for `path`, chosen by its extension. The file appears only when the block ends well.

    Args:
        path: Ends in `.npz` or `.parquet`.
        shape: Shape of one image's features.

    Raises:
        UsageError: Another extension.
        StorageError: Writing failed underneath; nothing is left behind and an older file is untouched.
    """
    check_output(path)
    with atomic_path(path) as temporary, contextlib.ExitStack() as stack:
        yield _WRITERS[path.suffix](temporary, shape, stack)


class NpzWriter:
    """Streams rows to scratch files beside the target, then into a zip of `.npy` members.

    A `.npy` header states the number of rows, known only at the end, so the rows wait in scratch files: while a file is
    finished, the volume holds the features twice.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], stack: contextlib.ExitStack) -> None:
        self._path = path
        self._shape = shape
        self._rows = 0
        self._longest = 1
        self._data = self._scratch(stack, "features")
        self._keys = self._scratch(stack, "keys")

    def _scratch(self, stack: contextlib.ExitStack, part: str) -> BinaryIO:
        path = self._path.with_name(f"{self._path.name}.{part}.tmp")
        stack.callback(path.unlink, missing_ok=True)
        return stack.enter_context(path.open("w+b"))

    def append(self, keys: Sequence[str], features: np.ndarray) -> None:
        """Add rows."""
        rows = _checked(keys, features, self._shape)
        self._data.write(rows.data.cast("B"))
        self._keys.writelines(json.dumps(key).encode() + b"\n" for key in keys)
        self._rows += len(keys)
        self._longest = max([self._longest, *map(len, keys)])

    def finish(self, meta: dict[str, Any]) -> None:
        """Write the zip."""
        with zipfile.ZipFile(self._path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            with self._member(archive, "features", np.dtype("<f4"), (self._rows, *self._shape)) as member:
                self._data.seek(0)
                while chunk := self._data.read(_CHUNK_BYTES):
                    member.write(chunk)
            dtype = np.dtype(f"<U{self._longest}")
            with self._member(archive, "keys", dtype, (self._rows,)) as member:
                self._keys.seek(0)
                for chunk_keys in _batches(self._keys, _CHUNK_ROWS):
                    member.write(np.array([json.loads(line) for line in chunk_keys], dtype=dtype).tobytes())
            text = np.array(json.dumps(meta))
            with self._member(archive, "meta", text.dtype, ()) as member:
                member.write(text.tobytes())

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

    def __init__(self, path: Path, shape: tuple[int, ...], stack: contextlib.ExitStack) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._pa = pa
        self._shape = shape
        self._size = math.prod(shape)
        self._schema = pa.schema([("key", pa.string()), ("features", pa.list_(pa.float32(), self._size))])
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
        stack.callback(self._writer.close)
        self._group_rows = max(1, _ROW_GROUP_BYTES // (4 * self._size))
        self._keys: list[str] = []
        self._pending: list[np.ndarray] = []

    def append(self, keys: Sequence[str], features: np.ndarray) -> None:
        """Add rows."""
        self._pending.append(_checked(keys, features, self._shape).reshape(-1))
        self._keys.extend(keys)
        if len(self._keys) >= self._group_rows:
            self._flush()

    def finish(self, meta: dict[str, Any]) -> None:
        """Write the last rows and the metadata."""
        self._flush()
        self._writer.add_key_value_metadata({META_KEY: json.dumps(meta)})
        self._writer.close()

    def _flush(self) -> None:
        if not self._keys:
            return
        values = self._pa.array(np.concatenate(self._pending))
        features = self._pa.FixedSizeListArray.from_arrays(values, self._size)
        self._writer.write_table(self._pa.table([self._pa.array(self._keys), features], schema=self._schema))
        self._keys, self._pending = [], []


_WRITERS: dict[str, Any] = {".npz": NpzWriter, ".parquet": ParquetWriter}


@dataclass(frozen=True)
class FeatureFile:
    """A feature file in memory.

    Attributes:
        keys: str [N].
        features: float32 [N, …].
        meta: Where the features come from.
    """

    keys: np.ndarray
    features: np.ndarray
    meta: dict[str, Any]


def read_features(path: Path | str) -> FeatureFile:
    """Read a file that `facemae extract` wrote.

    Raises:
        UsageError: Another extension.
        DataError: Not a feature file.
        StorageError: Reading failed underneath.
    """
    path = Path(path)
    check_output(path)
    with storage_errors(path, "reading"):
        return _read_npz(path) if path.suffix == ".npz" else _read_parquet(path)


def _read_npz(path: Path) -> FeatureFile:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return FeatureFile(archive["keys"], archive["features"], json.loads(str(archive["meta"])))
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise _not_features(path, error) from error


def _read_parquet(path: Path) -> FeatureFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            meta = json.loads(file.metadata.metadata[META_KEY])
            table = file.read()
        values = table["features"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        keys = np.array(table["key"].to_pylist(), dtype=np.str_)
        return FeatureFile(keys, values.reshape(len(keys), *meta["feature_shape"]), meta)
    except (KeyError, ValueError, pa.ArrowInvalid) as error:
        raise _not_features(path, error) from error


def _not_features(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is not a feature file ({error})", expected="a file written by `facemae extract`")


def _checked(keys: Sequence[str], features: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if features.shape != (len(keys), *shape):
        raise ValueError(f"{len(keys)} keys with features of shape {features.shape}; expected rows of {shape}")
    return np.ascontiguousarray(features, dtype="<f4")


def _batches(lines: BinaryIO, size: int) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    for line in lines:
        batch.append(line)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
