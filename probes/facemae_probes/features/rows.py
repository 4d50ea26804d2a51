"""Rows of several feature matrices in any order as those of one, none of which is copied."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from facemae_probes.heads.mapped import forget

Features: TypeAlias = NDArray[np.floating[Any]]
Rows: TypeAlias = NDArray[np.int64]

_READ_ONLY = np.empty(0)
_READ_ONLY.setflags(write=False)


class RowsOf:
    """Some rows of one or more matrices [N_i, ...], read when they are asked for.

    It has what heads use of an array: shape, type, flags, and rows by slice or numbers, which are copies.

    Args:
        parts: The matrices, in memory or mapped, of one type and alike but for their length.
        place: [M] which of all their rows, numbered through, stands where; None for all as they come.
    """

    flags = _READ_ONLY.flags

    def __init__(self, parts: Sequence[Features], place: Rows | None = None) -> None:
        self.parts = tuple(parts)
        self.place = place
        self.starts = np.cumsum([0, *(len(part) for part in parts)])

    def __len__(self) -> int:
        return int(self.starts[-1]) if self.place is None else len(self.place)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """(M, ...)."""
        return (len(self), *self.parts[0].shape[1:])

    @property
    def ndim(self) -> int:
        """Dimensions."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the matrices."""
        return self.parts[0].dtype

    def __getitem__(self, rows: slice | Rows) -> Features:
        """A copy of some rows, which are counted from the start.

        Raises:
            IndexError: There is no such row.
        """
        chosen = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else np.asarray(rows, dtype=np.int64)
        if len(chosen) and not 0 <= chosen.min() <= chosen.max() < len(self):
            raise IndexError(f"rows {chosen.min()} to {chosen.max()} of {len(self)}")
        known = chosen if self.place is None else self.place[chosen]
        out = np.empty((len(known), *self.shape[1:]), dtype=self.dtype)
        for start, part in zip(self.starts, self.parts, strict=False):
            own = (known >= start) & (known < start + len(part))
            if own.any():
                out[own] = part[known[own] - start]
                forget(part)
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """All of it in memory."""
        whole = self[:]
        return whole if dtype is None else whole.astype(dtype)


def rows_of(parts: Sequence[Features], place: Rows | None = None) -> Features:
    """A matrix as it is where nothing has to be put together, else `RowsOf`, which stands for an array."""
    return parts[0] if len(parts) == 1 and place is None else cast("Features", RowsOf(parts, place))
