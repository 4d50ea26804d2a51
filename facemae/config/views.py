"""What is made of a sample: crop, flip, normalisation and mask."""

import math
from typing import Literal

from pydantic import Field, model_validator

from facemae.config.base import Config


class CropConfig(Config):
    """How a square view is cut from a face image."""

    kind: Literal["resize", "random_resized"] = "random_resized"
    """`resize` scales the whole image; `random_resized` takes a random part of it."""
    scale: tuple[float, float] = (0.2, 1.0)
    """Range of the part's area, as a share of the image's."""
    ratio: tuple[float, float] = (0.75, 4 / 3)
    """Range of the part's width over height."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """How pixels are resampled; always with antialiasing."""

    @model_validator(mode="after")
    def _ranges(self) -> "CropConfig":
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"scale {list(self.scale)} is no range of shares: 0 < lowest <= highest <= 1")
        low, high = self.ratio
        if not 0 < low <= high < math.inf:
            raise ValueError(f"ratio {list(self.ratio)} is no range of width over height: 0 < lowest <= highest")
        return self


class NormaliseConfig(Config):
    """Normalisation applied to pixels in [0, 1], per channel."""

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    """Subtracted; one number a channel."""
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    """Divided by; one number a channel."""

    @model_validator(mode="after")
    def _divides(self) -> "NormaliseConfig":
        if not all(0 < value < math.inf for value in self.std):
            raise ValueError(f"std {list(self.std)} divides pixels; every number must be greater than 0")
        return self


class MaskConfig(Config):
    """Which patches of a view the encoder does not see."""

    kind: Literal["random", "block"] = "random"
    """`random` draws single patches; `block` draws squares of patches."""
    ratio: float = Field(default=0.75, gt=0, lt=1)
    """Share of patches hidden. The count is the same in every sample."""
    block: int = Field(default=2, ge=1)
    """Side of a block in patches, for kind `block`."""


class ViewConfig(Config):
    """One view of a sample: crop, flip, normalisation and mask."""

    crop: CropConfig = CropConfig()
    """The crop."""
    flip: bool = True
    """Mirror half of the samples."""
    normalise: NormaliseConfig = NormaliseConfig()
    """Pixel normalisation."""
    mask: MaskConfig | None = MaskConfig()
    """The mask; null lets the encoder see everything."""
