"""Masks: which patches of a view the encoder sees.

The number of visible patches is the same in every sample, so that a batch is a rectangular tensor.
"""

import numpy as np
from numpy.typing import NDArray

from facemae.data.regions import AREAS, Map, Region
from facemae.data.schema import MaskSpec
from facemae.errors import UsageError

_BIT = np.left_shift(np.uint32(1), np.arange(32, dtype=np.uint32))
"""By region, a number with its bit alone."""

KINDS = ("random", "block", "tube", "frame", "region")


def draw_mask(spec: MaskSpec, rng: np.random.Generator, regions: Map | None = None) -> NDArray[np.int64]:
    """Draw one mask.

    Args:
        spec: Kind, grid and number of visible patches.
        rng: The sample's own generator.
        regions: For kind `region`, the region map of the view's first frame in each step, uint8 [steps, S, S].

    Returns:
        int64 [keep], ascending row-major indices of the visible patches in the grid of steps, rows and columns. For
        kind `block`, hidden patches are whole squares of `block` x `block`, except that one square is hidden in part
        where the count asks for it and squares are cut at the border of a grid they do not tile. Kind `tube` shows the
        same patches in every step (Tong et al., "VideoMAE", 2022), `frame` as many in each step, drawn anew. For kind
        `region`, Fasking of Cai et al., "MARLIN", 2023, as in their code, parts of the face are taken one after the
        other, those of `first`, others in random order, those of `last`, until the patches that show any of them are
        enough in each step; the visible ones are drawn from these, in all steps together.

    Raises:
        UsageError: Unknown kind, a keep count that the grid does not allow, or a kind that does not suit the steps.
    """
    rows, columns = spec.grid
    patches = spec.steps * rows * columns
    if not 0 < spec.keep <= patches:
        steps = f"{spec.steps}x" if spec.steps > 1 else ""
        raise UsageError(
            f"a mask keeps {spec.keep} patches", expected=f"1 to {patches} on a grid of {steps}{rows}x{columns}"
        )
    if spec.kind == "region":
        return _by_region(spec, rng, regions)
    if spec.kind in ("tube", "frame"):
        return _by_step(spec, rng)
    if spec.kind == "block" and spec.steps > 1:
        raise UsageError(f"mask kind 'block' on {spec.steps} steps", expected="a still, or kind tube, frame or random")
    if spec.kind == "random":
        order = rng.permutation(patches)
    elif spec.kind == "block":
        order = _block_order(rows, columns, spec.block, rng)
    else:
        raise UsageError(f"mask kind {spec.kind!r} is unknown", expected=f"one of {', '.join(KINDS)}")
    return np.sort(order[patches - spec.keep :]).astype(np.int64)


def _by_step(spec: MaskSpec, rng: np.random.Generator) -> NDArray[np.int64]:
    """The visible patches of a clip where each step shows equally many."""
    patches = spec.grid[0] * spec.grid[1]
    keep, rest = divmod(spec.keep, spec.steps)
    if rest:
        raise UsageError(
            f"mask kind {spec.kind!r} keeps {spec.keep} patches in {spec.steps} steps",
            expected="a multiple of the steps: as many in each",
        )
    draws = 1 if spec.kind == "tube" else spec.steps
    shown = np.sort(rng.random((draws, patches)).argsort(axis=1)[:, :keep], axis=1)
    first = np.arange(spec.steps, dtype=np.int64)[:, None] * patches
    return (first + shown).ravel()


def _by_region(spec: MaskSpec, rng: np.random.Generator, regions: Map | None) -> NDArray[np.int64]:
    """The visible patches of a view where parts of the face become visible one after the other."""
    if regions is None or len(regions) != spec.steps:
        found = "none" if regions is None else f"{len(regions)}"
        raise UsageError(f"mask kind 'region' of {spec.steps} steps and {found} region maps", expected="one a step")
    others = [area for area in AREAS if area not in (*spec.first, *spec.last)]
    drawn = [others[place] for place in rng.permutation(len(others))]
    parts = [part for area in (*spec.first, *drawn, *spec.last) for part in AREAS[area]]
    shown = _regions_of_patches(regions, spec.grid)
    enough = -(-spec.keep // spec.steps)
    taken = np.zeros(shown.shape, dtype=bool)
    for part in parts:
        wanting = taken.sum(axis=1) < enough
        taken[wanting] |= (shown[wanting] & _bits(part)) > 0
    # As many numbers whatever the map shows.
    order = rng.random(taken.size).argsort()
    return np.sort(order[taken.ravel()[order]][: spec.keep]).astype(np.int64)


def _bits(part: tuple[Region, ...]) -> np.uint32:
    return np.uint32(sum(1 << region for region in part))


def _regions_of_patches(regions: Map, grid: tuple[int, int]) -> NDArray[np.uint32]:
    """Which regions each patch shows, [steps, patches]: bit r for region r."""
    rows, columns = grid
    steps, height, width = regions.shape
    # One axis after the other, the long one first: three times as fast as both at once.
    by_row = np.bitwise_or.reduce(_BIT[regions].reshape(steps * rows, height // rows, width), axis=1)
    by_patch: NDArray[np.uint32] = np.bitwise_or.reduce(by_row.reshape(steps, rows, columns, width // columns), axis=3)
    return by_patch.reshape(steps, rows * columns)


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
