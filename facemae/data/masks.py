"""Masks: which patches of a view the encoder sees.

The number of visible patches is the same in every sample, so that a batch is a rectangular tensor.
"""

import numpy as np
from numpy.typing import NDArray

from facemae.data.schema import MaskSpec
from facemae.errors import UsageError

KINDS = ("random", "block")


def draw_mask(spec: MaskSpec, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw one mask.

    Args:
        spec: Kind, grid and number of visible patches.
        rng: The sample's own generator.

    Returns:
        int64 [keep], ascending row-major indices of the visible patches. For kind `block`, hidden patches are whole
        squares of `block` x `block`, except that one square is hidden in part where the count asks for it and squares
        are cut at the border of a grid they do not tile.

    Raises:
        UsageError: Unknown kind, or a keep count that the grid does not allow.
    """
    rows, columns = spec.grid
    patches = rows * columns
    if not 0 < spec.keep <= patches:
        raise UsageError(f"a mask keeps {spec.keep} patches", expected=f"1 to {patches} on a grid of {rows}x{columns}")
    if spec.kind == "random":
        order = rng.permutation(patches)
    elif spec.kind == "block":
        order = _block_order(rows, columns, spec.block, rng)
    else:
        raise UsageError(f"mask kind {spec.kind!r} is unknown", expected=f"one of {', '.join(KINDS)}")
    return np.sort(order[patches - spec.keep :]).astype(np.int64)


def _block_order(rows: int, columns: int, block: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Patches square by square, squares in random order and patches at random within each.

    Hiding a prefix of this order hides whole squares and, to meet an exact count, a part of the last one.
    """
    # Where squares do not tile the grid they are shifted at random; else the cut ones would always lie at one border.
    down = int(rng.integers(block)) if rows % block else 0
    right = int(rng.integers(block)) if columns % block else 0
    row, column = np.divmod(np.arange(rows * columns), columns)
    across = -(-(columns + right) // block)
    square = (row + down) // block * across + (column + right) // block
    rank = rng.permutation(int(square.max()) + 1)[square]
    return np.lexsort((rng.random(rows * columns), rank))
