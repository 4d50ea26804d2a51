"""Columns of the index on disk: fixed-width numbers as `.npy`, strings as bytes beside their offsets.

Look-ups read with `os.pread` and not through a memory map. A map would make every page that was ever touched count as
memory of the process, and ten million samples touched at random are all of it; what `pread` touches stays in the
system's cache, shared by every process on the machine.
"""

import itertools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self, overload

import numpy as np

from facemae.errors import DataError


class PositionalFile:
    """A file read at positions; safe to share with forked and spawned processes.

    Raises:
        OSError: It cannot be opened or read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer only at the end of the file."""
        data = os.pread(self._descriptor, size, offset)
        if len(data) == size or not data:
            return data
        # The kernel may return less than asked for, above all for reads beyond 2 GiB.
        parts = [data]
        missing = size - len(data)
        while missing and parts[-1]:
            parts.append(os.pread(self._descriptor, missing, offset + size - missing))
            missing -= len(parts[-1])
        return b"".join(parts)

    def size(self) -> int:
        """Length of the file in bytes."""
        return os.fstat(self._descriptor).st_size

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.path,))

    def __del__(self) -> None:
        descriptor = getattr(self, "_descriptor", None)
        if descriptor is not None:
            os.close(descriptor)


class Column:
    """One fixed-width column of an index, `[N]`, read in place.

    Args:
        path: A one-dimensional `.npy` file.
    """

    def __init__(self, path: Path) -> None:
        self._file = PositionalFile(path)
        with path.open("rb") as handle:
            try:
                np.lib.format.read_magic(handle)
                shape, _, dtype = np.lib.format.read_array_header_1_0(handle)
            except ValueError as error:
                raise DataError(
                    f"{path} is not a readable index column: {error}", fix=f"facemae data index {path.parents[2]}"
                ) from error
            self._start = handle.tell()
        self.dtype = dtype
        self._length = int(shape[0])
        if self._file.size() < self._start + self._length * dtype.itemsize:
            raise DataError(
                f"{path} is shorter than its {self._length} entries", fix=f"facemae data index {path.parents[2]}"
            )

    def __len__(self) -> int:
        return self._length

    def read(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Entries `start` to `stop` as an array of their own."""
        width = self.dtype.itemsize
        data = self._file.read(self._start + start * width, max(stop - start, 0) * width)
        return np.frombuffer(data, dtype=self.dtype)

    def item(self, position: int) -> Any:
        """One entry as a Python number."""
        return self.read(position, position + 1)[0].item()

    def memmap(self) -> "np.memmap[Any, Any]":
        """The whole column, memory-mapped read-only."""
        return np.memmap(self._file.path, self.dtype, "r", self._start, (self._length,))


class StringColumn(Sequence[str]):
    """A column of strings, `[N]`: UTF-8 bytes one after the other, and where each begins.

    Args:
        folder: Folder of the columns.
        name: Name of the column; files `NAME.bin` and `NAME_start.npy`.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._starts = Column(folder / f"{name}_start.npy")
        self._bytes = PositionalFile(folder / f"{name}.bin")

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, position: int) -> str: ...
    @overload
    def __getitem__(self, position: slice) -> list[str]: ...
    def __getitem__(self, position: int | slice) -> str | list[str]:
        if isinstance(position, slice):
            start, stop, step = position.indices(len(self))
            return self.read(start, stop)[::step] if step > 0 else [self[i] for i in range(start, stop, step)]
        if not -len(self) <= position < len(self):
            raise IndexError(position)
        position %= len(self)
        return self.read(position, position + 1)[0]

    def read(self, start: int, stop: int) -> list[str]:
        """Strings `start` to `stop`."""
        if stop <= start:
            return []
        bounds = self._starts.read(start, stop + 1).tolist()
        data = self._bytes.read(bounds[0], bounds[-1] - bounds[0])
        return [data[a - bounds[0] : b - bounds[0]].decode() for a, b in itertools.pairwise(bounds)]


class ColumnWriter:
    """Writes a `.npy` column piece by piece, its length being known only at the end."""

    def __init__(self, path: Path, dtype: np.typing.DTypeLike) -> None:
        self.dtype = np.dtype(dtype)
        self._handle: BinaryIO = path.open("wb")
        self._length = 0
        self._write_header()
        self._header_end = self._handle.tell()

    def _write_header(self) -> None:
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": (self._length,)}
        np.lib.format.write_array_header_1_0(self._handle, header)

    def append(self, values: "np.typing.ArrayLike") -> None:
        """Add entries at the end."""
        array = np.ascontiguousarray(values, dtype=self.dtype)
        self._handle.write(array.tobytes())
        self._length += len(array)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                # NumPy pads headers so that a growing first axis never moves the data.
                self._handle.seek(0)
                self._write_header()
                if self._handle.tell() != self._header_end:
                    raise AssertionError("the .npy header changed its length")
                self._handle.flush()
                os.fsync(self._handle.fileno())
        finally:
            self._handle.close()


class StringColumnWriter:
    """Writes a column of strings piece by piece; see `StringColumn`."""

    def __init__(self, folder: Path, name: str) -> None:
        self._starts = ColumnWriter(folder / f"{name}_start.npy", np.int64)
        self._handle = (folder / f"{name}.bin").open("wb")
        self._end = 0
        self._starts.append([0])

    def append(self, values: Iterable[str]) -> None:
        """Add strings at the end."""
        encoded = [value.encode() for value in values]
        ends = self._end + np.cumsum([len(part) for part in encoded], dtype=np.int64)
        if len(ends):
            self._handle.write(b"".join(encoded))
            self._starts.append(ends)
            self._end = int(ends[-1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        try:
            if kind is None:
                self._handle.flush()
                os.fsync(self._handle.fileno())
        finally:
            self._handle.close()
            self._starts.__exit__(kind, *rest)
