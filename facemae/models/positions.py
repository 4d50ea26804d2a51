"""Fixed two-dimensional sine-cosine positions."""

import torch
from timm.layers import build_sincos2d_pos_embed

from facemae.errors import ConfigError


def sincos_positions(grid: tuple[int, int], width: int, prefix: int = 0) -> torch.Tensor:
    """Positions of a grid of patches in MAE's layout.

    The first half of the features encodes the column, the second the row; each half is sines, then cosines.

    Args:
        grid: Rows and columns of patches.
        width: Number of features; a multiple of 4.
        prefix: Leading tokens that have no place in the grid; their position is zero.

    Returns:
        [1, prefix + rows * columns, width], fp32.

    Raises:
        ConfigError: The width is not a multiple of 4.
    """
    if width % 4:
        raise ConfigError(f"token width {width}", expected="a multiple of 4, for two-dimensional positions")
    row_first: torch.Tensor = build_sincos2d_pos_embed(list(grid), width, interleave_sin_cos=True)
    column_first = row_first.roll(width // 2, dims=1)
    return torch.cat([torch.zeros(prefix, width), column_first]).unsqueeze(0)
