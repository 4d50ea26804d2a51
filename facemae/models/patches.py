"""Images as sequences of patches."""

import torch
from einops import rearrange


def patchify(images: torch.Tensor, patch: int) -> torch.Tensor:
    """Cut images into patches.

    Args:
        images: [B, C, H, W]; `patch` divides H and W.
        patch: Side of a patch in pixels.

    Returns:
        [B, N, patch * patch * C]: patches row by row; within a patch rows, then columns, then channels, as in MAE.
    """
    return rearrange(images, "b c (h p) (w q) -> b (h w) (p q c)", p=patch, q=patch)


def unpatchify(patches: torch.Tensor, patch: int, grid: tuple[int, ...]) -> torch.Tensor:
    """The inverse of `patchify`: [B, N, patch * patch * C] to [B, C, H, W] with `grid` rows and columns of patches."""
    return rearrange(patches, "b (h w) (p q c) -> b c (h p) (w q)", p=patch, q=patch, h=grid[0], w=grid[1])


def take(tokens: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Tokens of each sample: [B, N, D] and int64 [B, K] give [B, K, D]."""
    batch, length, width = tokens.shape
    first = torch.arange(batch, device=indices.device).unsqueeze(1) * length
    rows = (indices + first).flatten()
    return tokens.reshape(batch * length, width).index_select(0, rows).view(batch, -1, width)


def hidden_patches(visible: torch.Tensor, patches: int) -> torch.Tensor:
    """The patches that are not visible.

    Args:
        visible: int64 [B, K] without duplicates in a row.
        patches: Number N of patches in the grid.

    Returns:
        int64 [B, N - K], ascending. Shapes depend on shapes only, so a GPU is not waited for.
    """
    seen = torch.zeros(visible.shape[0], patches, dtype=torch.uint8, device=visible.device)
    seen.scatter_(1, visible, 1)
    return seen.argsort(dim=1, stable=True)[:, : patches - visible.shape[1]]
