"""Where a patch lies: sine-cosine positions, and positions for other grids than the one a model was built for."""

from collections.abc import Callable

import torch
from timm.layers import freq_bands, resample_abs_pos_embed

from facemae.errors import ConfigError

Grid = tuple[int, int]
"""Rows and columns of patches."""
ClipGrid = tuple[int, int, int]
"""Steps, rows and columns of tubelets."""


def sincos_positions(grid: Grid, width: int, prefix: int = 0, *, native: Grid | None = None) -> torch.Tensor:
    """Positions of a grid of patches in MAE's layout.

    The first half of the features encodes the column, the second the row; each half is sines, then cosines.

    Args:
        grid: Rows and columns of patches.
        width: Number of features; a multiple of 4.
        prefix: Leading tokens that have no place in the grid; their position is zero.
        native: The grid whose patches have the coordinates 0, 1, 2, …; `grid` itself by default. Both grids cover the
            whole image, so that a patch of another grid gets the coordinates its centre has in this one.

    Returns:
        [1, prefix + rows * columns, width], fp32.

    Raises:
        ConfigError: The width is not a multiple of 4.
    """
    if width % 4:
        raise ConfigError(f"token width {width}", expected="a multiple of 4, for two-dimensional positions")
    native = native or grid
    bands = freq_bands(width // 4, step=1)
    rows, columns = (waves(centres(count, reference), bands) for count, reference in zip(grid, native, strict=True))
    places = torch.cat([columns.repeat(grid[0], 1), rows.repeat_interleave(grid[1], dim=0)], dim=1)
    return torch.cat([torch.zeros(prefix, width), places]).unsqueeze(0)


def centres(count: int, native: int) -> torch.Tensor:
    """Centres of `count` equal parts of an axis, in coordinates in which those of `native` parts are whole numbers."""
    return (torch.arange(count) + 0.5) * (native / count) - 0.5


def waves(coordinates: torch.Tensor, bands: torch.Tensor) -> torch.Tensor:
    """Sines, then cosines, of coordinates [N] times frequencies [F]: [N, 2 * F]."""
    angles = coordinates.unsqueeze(1) * bands
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def resampling(old: Grid, new: Grid) -> torch.Tensor:
    """The matrix that brings learned positions from one grid to another, as timm's `resample_abs_pos_embed` does.

    That function is linear in the positions; as a matrix it costs one small product a step, and its gradient is
    deterministic on every device.

    Returns:
        [patches of `new`, patches of `old`], fp32.
    """
    unit = torch.eye(old[0] * old[1]).unsqueeze(0)
    matrix: torch.Tensor = resample_abs_pos_embed(unit, list(new), list(old), num_prefix_tokens=0)
    return matrix[0]


class GridTables:
    """Tables for grids, each made once for a device. They are functions of the grid alone and never saved.

    Args:
        make: Makes the table of a grid, on the CPU.
    """

    def __init__(self, make: Callable[..., torch.Tensor]) -> None:
        self._make = make
        self._made: dict[tuple[tuple[int, ...], torch.device], torch.Tensor] = {}

    def __call__(self, grid: tuple[int, ...], device: torch.device) -> torch.Tensor:
        """The table of a grid, on a device."""
        key = (grid, device)
        if key not in self._made:
            # A tensor first made in inference mode could not be used in training.
            with torch.inference_mode(mode=False):
                self._made[key] = self._make(grid).to(device)
        return self._made[key]
