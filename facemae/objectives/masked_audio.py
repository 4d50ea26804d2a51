"""Masked audio modelling: predict the hidden patches of a spectrogram (Huang et al., "AudioMAE", 2022)."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch

from facemae.config import DecoderConfig, ObjectiveConfig, sound_copies
from facemae.data.schema import Batch
from facemae.errors import ConfigError
from facemae.models.encoding import Encoding
from facemae.models.patches import hidden_patches, patchify, take, unpatchify
from facemae.objectives.base import Need, Objective, Reconstruction, Setting, Term
from facemae.objectives.checks import check_mix, heard
from facemae.objectives.masked_patches import draw_subset, normalise_patches, patch_statistics


class MaskedAudioConfig(ObjectiveConfig):
    """The hidden patches of a spectrogram are predicted from the visible ones."""

    kind: Literal["masked_audio"] = "masked_audio"
    """Name in the registry."""
    sound: str = "voice"
    """The sound whose hidden patches are predicted."""
    decoder: DecoderConfig = DecoderConfig()
    """The decoder. HiCMAE 4 blocks of width 384; CAV-MAE 8 of width 512."""
    target: Literal["norm_patch", "values"] = "norm_patch"
    """`norm_patch` normalises each patch by its own mean and variance, as AudioMAE, HiCMAE and CAV-MAE; `values` takes
    the normalised spectrogram as it is."""

    def sound_names(self) -> tuple[str, ...]:
        """The one sound."""
        return (self.sound,)


class MaskedAudio(Objective):
    """Mean squared error of the decoded hidden patches; samples without sound count for nothing.

    With all hidden patches and sound everywhere the loss is AudioMAE's: the mean over the hidden patches of the batch.
    HiCMAE divides by the deviation plus 1e-6 where the variance plus 1e-6 stands under the root here, as in AudioMAE.
    """

    Config: ClassVar[type[ObjectiveConfig]] = MaskedAudioConfig

    def __init__(self, config: MaskedAudioConfig, setting: Setting) -> None:
        from facemae.models.decoder import build_decoder

        super().__init__(config)
        encoder = heard(config.kind, setting)
        sound = setting.sounds[config.sound]
        if sound.mask is None:
            raise ConfigError(
                f"objective 'masked_audio' predicts hidden patches and sound {config.sound!r} hides none",
                fix=f"give sounds.{config.sound} a mask",
            )
        check_mix(config.decoder.mix_layers, encoder.depth)
        self.settings = config
        self.sounds = sound_copies(config.sound, sound, setting.views)
        self.seed = setting.seed
        self.patch, self.grid = encoder.config.patch_size, encoder.config.grid
        self.decoder = build_decoder(
            config.decoder, encoder_width=encoder.width, grid=self.grid, patch_values=self.patch**2
        )

    def needs(self) -> tuple[Need, ...]:
        """One encoding of the sound of each copy of its view; the last layer, and those the decoder mixes with it."""
        return tuple(Need(sound, (self.settings.decoder.mix_layers or ())[:-1]) for sound in self.sounds)

    def count(self, batch: Batch) -> int:
        """The number of samples with sound."""
        return int(batch.sounds[self.sounds[0]].present.sum())

    def term(
        self, encodings: Mapping[str, Encoding], pixels: Mapping[str, torch.Tensor], batch: Batch, step: int
    ) -> Term:
        """The sum over samples with sound of the mean squared error over their decoded patches."""
        errors = []
        for copy, sound in enumerate(self.sounds):
            hidden = self._hidden(encodings[sound])
            if self.settings.decoder.fraction < 1:
                fraction, first = self.settings.decoder.fraction, batch.first_slot
                chosen = draw_subset(hidden.shape, fraction, seed=self.seed, step=step, first_slot=first, copy=copy)
                hidden = hidden.gather(1, chosen.to(hidden.device, non_blocking=True))
            errors.append(self._error(encodings[sound], pixels[sound], hidden))
        error = torch.stack(errors, dim=1).mean(dim=1)
        # Silence in place of missing sound gives finite numbers: they are left out, not multiplied away.
        error = torch.where(batch.sounds[self.sounds[0]].present, error, 0.0)
        return Term(error.sum(), samples=error.detach())

    def _hidden(self, encoding: Encoding) -> torch.Tensor:
        """The patches that an encoding does not show, [B, M]."""
        assert encoding.visible is not None
        return hidden_patches(encoding.visible, self.grid[0] * self.grid[1])

    def _error(self, encoding: Encoding, mel: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Mean squared error of the hidden patches to be decoded, [B]."""
        predicted: torch.Tensor = self.decoder(encoding, hidden)
        with torch.autocast(mel.device.type, enabled=False):
            target = take(patchify(mel.float(), self.patch), hidden)
            if self.settings.target == "norm_patch":
                target = normalise_patches(target)
            return (predicted.float() - target).square().mean(dim=(1, 2))

    def reconstruct(self, encodings: Mapping[str, Encoding], pixels: Mapping[str, torch.Tensor]) -> Reconstruction:
        """All hidden patches of the first copy predicted; a norm-patch prediction with the true mean and contrast."""
        sound = self.sounds[0]
        encoding = encodings[sound]
        hidden = self._hidden(encoding)
        patches = patchify(pixels[sound].float(), self.patch)
        predicted = self.decoder(encoding, hidden).float()
        if self.settings.target == "norm_patch":
            mean, deviation = patch_statistics(take(patches, hidden))
            predicted = predicted * deviation + mean
        pasted = patches.scatter(1, hidden.unsqueeze(-1).expand_as(predicted), predicted)
        return Reconstruction(sound, unpatchify(pasted, self.patch, self.grid))
