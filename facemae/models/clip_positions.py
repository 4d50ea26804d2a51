"""Where a tubelet lies: positions over time and place, and VideoMAE's positions over the sequence of all tokens."""

from functools import partial
from typing import Literal

import torch
from timm.layers import freq_bands

from facemae.errors import ConfigError
from facemae.models.positions import ClipGrid, GridTables, centres, sincos_positions, waves

Position = Literal["sincos", "sequence"]
"""Kinds of fixed positions of clips."""


def clip_positions(
    kind: Position, grid: ClipGrid, width: int, prefix: int = 0, *, native: ClipGrid | None = None
) -> torch.Tensor:
    """Positions of the tubelets of a clip.

    Kind `sincos` is separable: the first half of the features encodes the step as V-JEPA's do (Bardes et al., 2024),
    sines, then cosines; the second half is MAE's layout of the place. Kind `sequence` is VideoMAE's table: a token's
    number n in the whole sequence gives sin and cos of n / 10000^(2i / width) as features 2i and 2i + 1.

    Args:
        kind: Which of the two.
        grid: Steps, rows and columns.
        width: Number of features; a multiple of 8, for `sequence` of 2.
        prefix: Leading tokens that have no place in the grid; their position is zero.
        native: The grid whose tubelets have the coordinates 0, 1, 2, … along each axis; `grid` itself by default. Both
            cover the whole clip: a tubelet of another grid gets the coordinates its centre has in this one, and a
            still, one step, those of the clip's middle.

    Returns:
        [1, prefix + steps * rows * columns, width], fp32.

    Raises:
        ConfigError: The width does not suit the kind.
    """
    unit = 8 if kind == "sincos" else 2
    if width % unit:
        raise ConfigError(f"token width {width}", expected=f"a multiple of {unit}, for positions {kind!r} of clips")
    make = _separable if kind == "sincos" else _sequence
    return torch.cat([torch.zeros(prefix, width), make(grid, native or grid, width)]).unsqueeze(0)


def _separable(grid: ClipGrid, native: ClipGrid, width: int) -> torch.Tensor:
    steps, rows, columns = grid
    times = waves(centres(steps, native[0]), freq_bands(width // 4, step=1))
    places = sincos_positions((rows, columns), width // 2, native=native[1:])[0]
    return torch.cat([times.repeat_interleave(rows * columns, dim=0), places.repeat(steps, 1)], dim=1)


def _sequence(grid: ClipGrid, native: ClipGrid, width: int) -> torch.Tensor:
    # In double precision, as VideoMAE's: numbers beyond a thousand times a frequency leave fp32 few digits.
    step, row, column = (centres(count, whole).double() for count, whole in zip(grid, native, strict=True))
    _, rows, columns = native
    numbers = (step.view(-1, 1, 1) * rows + row.view(1, -1, 1)) * columns + column.view(1, 1, -1)
    bands = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = numbers.flatten().unsqueeze(1) * bands
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1).float()


def fixed_kind(position: str) -> Position:
    """The kind of fixed positions that a recipe names, or that learned ones start from."""
    return "sequence" if position == "sequence" else "sincos"


def fixed_positions(position: Position, grid: tuple[int, ...], width: int) -> torch.Tensor:
    """Positions [patches, width] of a native grid: rows and columns of stills, or steps, rows and columns of clips."""
    return _scaled(position, grid, width, grid)


def fixed_tables(position: Position, native: tuple[int, ...], width: int) -> GridTables:
    """Such positions of other grids than a native one, on the native one's coordinates."""
    return GridTables(partial(_scaled, position, native, width))


def _scaled(position: Position, native: tuple[int, ...], width: int, grid: tuple[int, ...]) -> torch.Tensor:
    if len(grid) == 2 and position == "sincos":
        return sincos_positions((grid[0], grid[1]), width, native=(native[0], native[1]))[0]
    return clip_positions(position, _clip(grid), width, native=_clip(native))[0]


def _clip(grid: tuple[int, ...]) -> ClipGrid:
    """Steps, rows and columns; rows and columns alone are those of one step."""
    steps, rows, columns = grid if len(grid) == 3 else (1, *grid)
    return steps, rows, columns
