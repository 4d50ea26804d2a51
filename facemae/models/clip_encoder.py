"""The encoder of clips: the image encoder on tubelets; a still is a clip of one step."""

from collections.abc import Sequence
from typing import Any

import torch

from facemae.errors import UsageError
from facemae.models.clip_positions import Position, fixed_tables
from facemae.models.encoder import MaskedEncoder
from facemae.models.tubelets import as_clips, tubeletify


class ClipEncoder(MaskedEncoder):
    """A ViT on tubelets that can encode a part of them, clips of other lengths and sizes, and stills.

    Encodings of clips have a grid of steps, rows and columns. Stills may be given as [B, C, H, W]: they are repeated
    over the frames of one tubelet and get the position of the middle of a clip.

    Attributes:
        grid: Rows and columns of one step of the clips it was built for: the grid of a still's tokens.
        steps: Steps of those clips.
        tubelet: Frames of a tubelet.
    """

    def __init__(self, vit: Any, *, position: Position, drop_path: float = 0.0) -> None:
        super().__init__(vit, learned_positions=False, drop_path=drop_path, position=position)
        self.tubelet = int(vit.patch_embed.tubelet)
        self.steps = int(vit.patch_embed.frames) // self.tubelet
        self._tables = fixed_tables(position, self._native, self.width)

    def _grid_of(self, pixels: torch.Tensor) -> tuple[int, ...]:
        steps = pixels.shape[1] // self.tubelet if pixels.ndim == 5 else 1
        return (steps, pixels.shape[-2] // self.patch, pixels.shape[-1] // self.patch)

    @property
    def _native(self) -> tuple[int, ...]:
        return (self.steps, *self.grid)

    def _cut(self, pixels: torch.Tensor) -> torch.Tensor:
        return tubeletify(as_clips(pixels, self.tubelet), self.tubelet, self.patch)

    def _weight(self) -> torch.Tensor:
        weight: torch.Tensor = self.vit.patch_embed.proj.weight
        return weight.permute(0, 2, 3, 4, 1).flatten(1)

    def _check(self, pixels: torch.Tensor, layers: Sequence[int]) -> None:
        whole = pixels.ndim in (4, 5) and not any(side % self.patch or not side for side in pixels.shape[-2:])
        timed = whole and (pixels.ndim == 4 or (pixels.shape[1] > 0 and pixels.shape[1] % self.tubelet == 0))
        if not timed or pixels.shape[-3] != self.vit.in_chans:
            raise UsageError(
                f"clips of shape {tuple(pixels.shape)}",
                expected=f"[batch, frames, {self.vit.in_chans}, height, width], a multiple of {self.tubelet} frames "
                f"and multiples of {self.patch} for height and width, or stills without frames",
            )
        self._check_layers(layers)
