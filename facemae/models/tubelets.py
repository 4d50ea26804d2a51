"""Clips as sequences of tubelets: patches of a picture that last some frames (Arnab et al., "ViViT", 2021)."""

from typing import Any

import torch
from einops import rearrange
from torch import nn


def tubeletify(clips: torch.Tensor, tubelet: int, patch: int) -> torch.Tensor:
    """Cut clips into tubelets.

    Args:
        clips: [B, T, C, H, W]; `tubelet` divides T, and `patch` H and W.
        tubelet: Frames of a tubelet.
        patch: Side of a patch in pixels.

    Returns:
        [B, N, tubelet * patch * patch * C]: tubelets step by step, row by row; within a tubelet frames, then rows, then
        columns, then channels, as VideoMAE's targets.
    """
    return rearrange(clips, "b (n t) c (h p) (w q) -> b (n h w) (t p q c)", t=tubelet, p=patch, q=patch)


def untubeletify(tubelets: torch.Tensor, tubelet: int, patch: int, grid: tuple[int, ...]) -> torch.Tensor:
    """The inverse of `tubeletify`: to [B, T, C, H, W] with a `grid` of steps, rows and columns."""
    steps, rows, columns = grid
    pattern = "b (n h w) (t p q c) -> b (n t) c (h p) (w q)"
    return rearrange(tubelets, pattern, t=tubelet, p=patch, q=patch, n=steps, h=rows, w=columns)


def as_clips(pixels: torch.Tensor, tubelet: int) -> torch.Tensor:
    """Clips [B, T, C, H, W] as they are; stills [B, C, H, W] as clips of one step, the picture `tubelet` times.

    As OmniMAE does (Girdhar et al., 2023), and S4D after it.
    """
    return pixels if pixels.ndim == 5 else pixels.unsqueeze(1).expand(-1, tubelet, -1, -1, -1)


class TubeletEmbed(nn.Module):
    """What takes the place of timm's PatchEmbed in a ViT of clips.

    Its weights are those of a Conv3d whose stride is its kernel, `proj.weight` [D, C, tubelet, patch, patch], as in
    VideoMAE. The masked encoder applies them to visible tubelets alone.

    Args:
        img_size: Side of the pictures in pixels.
        patch_size: Side of a patch in pixels.
        in_chans: Channels.
        embed_dim: Dimension of tokens.
        frames: Frames of a clip.
        tubelet: Frames of a tubelet.
        bias: Whether the projection has one.
        further: What timm also says, of no meaning here.

    Attributes:
        img_size: Height and width.
        patch_size: Height and width of a patch.
        grid_size: Rows and columns of a step.
        num_patches: Tubelets of a clip.
    """

    def __init__(
        self,
        img_size: int,
        patch_size: int,
        in_chans: int,
        embed_dim: int,
        *,
        frames: int,
        tubelet: int,
        bias: bool = True,
        **further: Any,
    ) -> None:
        super().__init__()
        side = img_size // patch_size
        self.img_size, self.patch_size, self.grid_size = (img_size,) * 2, (patch_size,) * 2, (side, side)
        self.frames, self.tubelet = frames, tubelet
        self.num_patches = frames // tubelet * side * side
        kernel = (tubelet, patch_size, patch_size)
        self.proj = nn.Conv3d(in_chans, embed_dim, kernel_size=kernel, stride=kernel, bias=bias)
        self.norm = nn.Identity()

    def feat_ratio(self) -> int:
        """By how much rows and columns are fewer than pixels, as timm asks."""
        return self.patch_size[0]

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """All tubelets of clips [B, T, C, H, W] as tokens [B, N, D], by the convolution itself."""
        return self.norm(self.proj(clips.transpose(1, 2)).flatten(2).transpose(1, 2))  # type: ignore[no-any-return]
