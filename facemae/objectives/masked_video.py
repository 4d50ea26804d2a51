"""Masked video modelling: predict the pixels of hidden tubelets (Tong et al., "VideoMAE", 2022)."""

import math
from typing import ClassVar, Literal

import torch

from facemae.config import ObjectiveConfig, copy_names
from facemae.errors import ConfigError
from facemae.models.clip_positions import fixed_kind
from facemae.models.tubelets import as_clips, tubeletify, untubeletify
from facemae.objectives.base import Setting
from facemae.objectives.masked_patches import (
    EPSILON,
    Masked,
    MaskedPatches,
    MaskedViewConfig,
    channel_statistics,
    masked_view,
    normalise_patches,
    patch_statistics,
)

_PAIR = 2


class MaskedVideoConfig(MaskedViewConfig):
    """The pixels of hidden tubelets of a clip are predicted from the visible ones."""

    kind: Literal["masked_video"] = "masked_video"
    """Name in the registry."""
    target: Literal["norm_pix", "pixels", "joint"] = "norm_pix"
    """`norm_pix`, VideoMAE's, normalises each channel of a tubelet by its own mean and deviation; `joint`, MAE's, all
    values of a tubelet together; `pixels` takes them as the view gives them."""
    difference: bool = False
    """Of the two frames of a tubelet, predict the first and what changes to the second, as HiCMAE and MAE-DFER do.
    Taken after normalisation; `tubelet` must be 2."""


class MaskedVideo(MaskedPatches):
    """Mean squared error of the decoded hidden tubelets; see `MaskedPatches`.

    A view of stills is one of clips of one step: a picture repeated over the frames of a tubelet (OmniMAE, S4D).
    """

    Config: ClassVar[type[ObjectiveConfig]] = MaskedVideoConfig

    def __init__(self, config: MaskedVideoConfig, setting: Setting) -> None:
        encoder, view = setting.encoder, masked_view(config, setting)
        if encoder.tubelet is None:
            raise ConfigError(
                "objective 'masked_video' predicts tubelets and the encoder is one of stills",
                fix="set encoder.tubelet=2 and encoder.frames=16, or choose kind: masked_image",
            )
        if config.difference and encoder.tubelet != _PAIR:
            raise ConfigError(
                f"difference takes the two frames of a tubelet and encoder.tubelet is {encoder.tubelet}",
                fix="set encoder.tubelet=2, or difference=false",
            )
        if config.difference and view.clip is None:
            raise ConfigError(
                f"difference is of clips and view {config.view!r} has stills, in which nothing changes",
                fix=f"give views.{config.view} a clip, or set difference=false",
            )
        masked = Masked(
            copy_names(setting.views, config.view),
            width=setting.encoder_width,
            depth=setting.encoder_depth,
            grid=(encoder.steps, encoder.grid, encoder.grid),
            patch_values=encoder.tubelet * encoder.patch_size**2 * encoder.channels,
            position=fixed_kind(encoder.position),
        )
        super().__init__(config, setting, masked)
        self.settings = config
        self.patch, self.tubelet, self.channels = encoder.patch_size, encoder.tubelet, encoder.channels
        self._normalisation = view.normalise
        self._still = view.clip is None

    def cut(self, pixels: torch.Tensor) -> torch.Tensor:
        """Clips [B, T, C, H, W], or stills without T, as tubelets [B, N, values]."""
        return tubeletify(as_clips(pixels, self.tubelet), self.tubelet, self.patch)

    def put_together(self, patches: torch.Tensor, grid: tuple[int, ...]) -> torch.Tensor:
        """The inverse of `cut`; of a still the first of its repetitions."""
        clips = untubeletify(patches, self.tubelet, self.patch, grid)
        return clips[:, 0] if self._still else clips

    def targets(self, patches: torch.Tensor) -> torch.Tensor:
        """Tubelets as they are to be predicted, [B, M, values]."""
        if self.settings.target == "norm_pix":
            patches = self._normalised(patches)
        elif self.settings.target == "joint":
            patches = normalise_patches(patches)
        if not self.settings.difference:
            return patches
        first, second = patches.chunk(_PAIR, dim=-1)
        return torch.cat([first, second - first], dim=-1)

    def _normalised(self, patches: torch.Tensor) -> torch.Tensor:
        """Tubelets by the mean and deviation that each channel has in [0, 1]: `channel_statistics` of `_levels`.

        A view's normalisation moves and scales a channel, so it need not be undone first: half of the passes over what
        are the largest tensors of a step.
        """
        _, scale = self._scale(patches)
        values = self._by_channel(patches)
        centred = values - values.mean(dim=-2, keepdim=True)
        deviation = torch.linalg.vector_norm(centred, dim=-2, keepdim=True) / math.sqrt(values.shape[-2] - 1)
        return centred.mul_(scale / (deviation * scale + EPSILON)).flatten(-2)

    def restore(self, predicted: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """Pixels from a prediction, with the true mean and contrast where it is a normalised one."""
        if self.settings.difference:
            first, change = predicted.chunk(_PAIR, dim=-1)
            predicted = torch.cat([first, first + change], dim=-1)
        if self.settings.target == "norm_pix":
            mean, deviation = channel_statistics(self._levels(patches))
            shift, scale = self._scale(patches)
            levels = self._by_channel(predicted) * deviation + mean
            return ((levels - shift) / scale).flatten(-2)
        if self.settings.target == "joint":
            mean, deviation = patch_statistics(patches)
            return predicted * deviation + mean
        return predicted

    def _levels(self, patches: torch.Tensor) -> torch.Tensor:
        """Pixels in [0, 1] by channel, [B, M, values of a channel, C]: VideoMAE normalises these, not the view's."""
        shift, scale = self._scale(patches)
        return self._by_channel(patches) * scale + shift

    def _by_channel(self, patches: torch.Tensor) -> torch.Tensor:
        return patches.reshape(*patches.shape[:-1], -1, self.channels)

    def _scale(self, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        settings = self._normalisation
        return patches.new_tensor(settings.mean), patches.new_tensor(settings.std)
