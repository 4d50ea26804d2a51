"""Features of mean zero and deviation one, as every head wants them, also where they are too many to copy."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facemae_probes.heads.mapped import forget

Floats: TypeAlias = NDArray[np.floating[Any]]
Rows: TypeAlias = NDArray[np.int64]

BLOCK_ELEMENTS = 2**19
"""Values read at once: 2 MB in single precision, so that a block is still in the processor's cache when it is used."""


@dataclass(frozen=True)
class Standardiser:
    """Per-dimension mean and scale of the training features; dimensions that do not vary keep scale one.

    Attributes:
        mean: [D].
        scale: [D].
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]

    @classmethod
    def fit(cls, features: Floats, rows: Rows | None = None) -> "Standardiser":
        """Measure some rows of features [N, D], all by default; sums run in double precision, in blocks."""
        view = View(features, rows)
        # Sums of squares about a nearby point: about zero they would lose the variance of a large mean to rounding.
        near = view.block(0, min(len(view), 256), torch.float64).mean(dim=0)
        total, squares = torch.zeros_like(near), torch.zeros_like(near)
        for _, block in view.blocks(torch.float64):
            block -= near
            total += block.sum(dim=0)
            squares += block.square_().sum(dim=0)
        off = total / len(view)
        mean = (near + off).numpy()
        deviation = (squares / len(view) - off**2).clamp_min_(0).sqrt_().numpy()
        flat = deviation <= 1e-6 * np.maximum(np.abs(mean), 1e-6)
        return cls(mean.astype(np.float32), np.where(flat, 1.0, deviation).astype(np.float32))

    def __call__(self, features: Floats, rows: Rows | None = None) -> NDArray[np.float32]:
        """Standardised copy of some rows, all by default: [M, D], fp32."""
        view = self.view(features, rows)
        out = np.empty(view.shape, dtype=np.float32)
        for start, block in view.blocks():
            out[start : start + len(block)] = block.numpy()
        return out

    def view(self, features: Floats, rows: Rows | None = None) -> "View":
        """The same without the copy: standardised block by block when a head reads it."""
        return View(features, rows, self)


@dataclass(frozen=True)
class View:
    """Some rows of a feature matrix, standardised when they are read. Every head takes one in place of an array.

    Attributes:
        features: [N, D], single or half precision, in memory or mapped.
        rows: [M] row numbers; None for all.
        scale: What to standardise by; None where that is done.
    """

    features: Floats
    rows: Rows | None = None
    scale: Standardiser | None = None

    def __len__(self) -> int:
        return len(self.features) if self.rows is None else len(self.rows)

    @property
    def width(self) -> int:
        """D."""
        return int(self.features.shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        """(M, D)."""
        return len(self), self.width

    def block(self, start: int, stop: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """A standardised copy of rows from `start` to `stop`, both counted in the view."""
        chosen = slice(start, stop) if self.rows is None else self.rows[start:stop]
        # The copy is made in the precision of the file: torch widens half precision twenty times as fast as NumPy.
        raw = torch.from_numpy(np.array(self.features[chosen]))
        forget(self.features)
        wide = raw.to(dtype)
        if self.scale is not None:
            wide.sub_(torch.from_numpy(self.scale.mean)).div_(torch.from_numpy(self.scale.scale))
        return wide

    def blocks(self, dtype: torch.dtype = torch.float32, size: int | None = None) -> Iterator[tuple[int, Tensor]]:
        """First row and standardised copy of each block, of `size` rows or of about `BLOCK_ELEMENTS` values."""
        size = size or max(64, BLOCK_ELEMENTS // self.width)
        for start in range(0, len(self), size):
            yield start, self.block(start, min(start + size, len(self)), dtype)

    def take(self, rows: Rows) -> "View":
        """Some of its rows."""
        return View(self.features, rows if self.rows is None else self.rows[rows], self.scale)

    def held(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """All of it in memory: [M, D]. An array that needs no change is not copied."""
        plain = self.rows is None and self.scale is None and self.features.flags.writeable
        if plain and self.features.flags.c_contiguous and not isinstance(self.features, np.memmap):
            return torch.from_numpy(self.features).to(dtype)
        out = torch.empty(self.shape, dtype=dtype)
        for start, block in self.blocks(dtype):
            out[start : start + len(block)] = block
        return out


def as_view(features: "Floats | View") -> View:
    """A view of an array, or the view itself."""
    return features if isinstance(features, View) else View(features)
