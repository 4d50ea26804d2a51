"""Masked audio modelling: predict the hidden patches of a spectrogram (Huang et al., "AudioMAE", 2022)."""

from typing import ClassVar, Literal

import torch

from facemae.config import DecoderConfig, ObjectiveConfig, sound_copies
from facemae.data.schema import Batch
from facemae.errors import ConfigError
from facemae.models.clip_positions import fixed_kind
from facemae.models.patches import patchify, unpatchify
from facemae.objectives.base import Setting
from facemae.objectives.checks import heard
from facemae.objectives.masked_patches import (
    Masked,
    MaskedPatches,
    MaskedPatchesConfig,
    channel_statistics,
    patch_statistics,
)


class MaskedAudioConfig(MaskedPatchesConfig):
    """The hidden patches of a spectrogram are predicted from the visible ones."""

    kind: Literal["masked_audio"] = "masked_audio"
    """Name in the registry."""
    sound: str = "voice"
    """The sound whose hidden patches are predicted."""
    decoder: DecoderConfig = DecoderConfig()
    """The decoder. HiCMAE 4 blocks of width 384; CAV-MAE 8 of width 512."""
    target: Literal["norm_patch", "norm_pix", "values"] = "norm_patch"
    """`norm_patch` normalises each patch by its own mean and variance, as AudioMAE and CAV-MAE; `norm_pix` too, with
    the epsilon beside the root of the variance, not beneath it, as HiCMAE and `masked_video`; `values` takes the
    normalised spectrogram as it is."""

    def sound_names(self) -> tuple[str, ...]:
        """The one sound."""
        return (self.sound,)


class MaskedAudio(MaskedPatches):
    """Mean squared error of the decoded hidden patches; samples without sound count for nothing.

    With all hidden patches and sound everywhere the loss is AudioMAE's: the mean over the hidden patches of the batch.
    HiCMAE divides by the deviation plus 1e-6, `norm_pix`; AudioMAE has the variance plus 1e-6 under the root.
    """

    Config: ClassVar[type[ObjectiveConfig]] = MaskedAudioConfig

    def __init__(self, config: MaskedAudioConfig, setting: Setting) -> None:
        encoder, sound = heard(config.kind, setting), setting.sounds[config.sound]
        if sound.mask is None:
            raise ConfigError(
                f"objective 'masked_audio' predicts hidden patches and sound {config.sound!r} hides none",
                fix=f"give sounds.{config.sound} a mask",
            )
        masked = Masked(
            sound_copies(config.sound, sound, setting.views),
            width=encoder.width,
            depth=encoder.depth,
            grid=encoder.config.grid,
            patch_values=encoder.config.patch_size**2,
            position=fixed_kind(encoder.config.position),
        )
        super().__init__(config, setting, masked)
        self.settings = config
        self.patch = encoder.config.patch_size

    def present(self, batch: Batch) -> torch.Tensor:
        """Bool [R], which samples have sound."""
        return batch.sounds[self.names[0]].present

    def cut(self, pixels: torch.Tensor) -> torch.Tensor:
        """Spectrograms [B, 1, frames, mels] as patches [B, N, values]."""
        return patchify(pixels, self.patch)

    def put_together(self, patches: torch.Tensor, grid: tuple[int, ...]) -> torch.Tensor:
        """The inverse of `cut`."""
        return unpatchify(patches, self.patch, grid)

    def targets(self, patches: torch.Tensor) -> torch.Tensor:
        """Patches, or AudioMAE's normalised ones."""
        if self.settings.target == "values":
            return patches
        mean, deviation = self._statistics(patches)
        return (patches - mean) / deviation

    def restore(self, predicted: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """Values from a prediction, with the true mean and contrast where it is a normalised one."""
        if self.settings.target == "values":
            return predicted
        mean, deviation = self._statistics(patches)
        return predicted * deviation + mean

    def _statistics(self, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and deviation of each patch, [B, M, 1]."""
        if self.settings.target == "norm_patch":
            return patch_statistics(patches)
        mean, deviation = channel_statistics(patches.unsqueeze(-1))
        return mean.squeeze(-1), deviation.squeeze(-1)
