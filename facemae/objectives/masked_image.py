"""Masked image modelling: predict the pixels of hidden patches (He et al., "Masked Autoencoders", 2022)."""

from typing import ClassVar, Literal

import torch

from facemae.config import ObjectiveConfig, copy_names
from facemae.errors import ConfigError
from facemae.models.patches import patchify, unpatchify
from facemae.objectives.base import Setting
from facemae.objectives.masked_patches import (
    Masked,
    MaskedPatches,
    MaskedViewConfig,
    masked_view,
    normalise_patches,
    patch_statistics,
)


class MaskedImageConfig(MaskedViewConfig):
    """The pixels of hidden patches are predicted from the visible ones."""

    kind: Literal["masked_image"] = "masked_image"
    """Name in the registry."""
    target: Literal["norm_pix", "pixels"] = "norm_pix"
    """`norm_pix` normalises each patch by its own mean and variance; `pixels` takes them as the view gives them."""


class MaskedImage(MaskedPatches):
    """Mean squared error of the decoded hidden patches of pictures; see `MaskedPatches`."""

    Config: ClassVar[type[ObjectiveConfig]] = MaskedImageConfig

    def __init__(self, config: MaskedImageConfig, setting: Setting) -> None:
        encoder = setting.encoder
        if encoder.tubelet is not None:
            raise ConfigError(
                "objective 'masked_image' predicts patches of pictures and the encoder is one of clips",
                fix="choose kind: masked_video, which takes stills as clips of one step, or encoder.tubelet=null",
            )
        masked_view(config, setting)
        masked = Masked(
            copy_names(setting.views, config.view),
            width=setting.encoder_width,
            depth=setting.encoder_depth,
            grid=(encoder.grid, encoder.grid),
            patch_values=encoder.patch_size**2 * encoder.channels,
        )
        super().__init__(config, setting, masked)
        self.settings = config
        self.patch = encoder.patch_size

    def cut(self, pixels: torch.Tensor) -> torch.Tensor:
        """Images [B, C, H, W] as patches [B, N, values]."""
        return patchify(pixels, self.patch)

    def put_together(self, patches: torch.Tensor, grid: tuple[int, ...]) -> torch.Tensor:
        """The inverse of `cut`."""
        return unpatchify(patches, self.patch, grid)

    def targets(self, patches: torch.Tensor) -> torch.Tensor:
        """Patches, or MAE's normalised ones."""
        return normalise_patches(patches) if self.settings.target == "norm_pix" else patches

    def restore(self, predicted: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """Pixels from a prediction, with the true mean and contrast where it is a normalised one."""
        if self.settings.target == "pixels":
            return predicted
        mean, deviation = patch_statistics(patches)
        return predicted * deviation + mean
