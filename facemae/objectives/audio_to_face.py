"""From sound to face: what was heard is decoded into the frames that it lies beneath.

Visual self-supervision of speech (Shukla et al., "Visually Guided Self Supervised Learning of Speech Representations",
2020, and "Does Visual Self-Supervision Improve Learning of Speech Representations for Emotion Recognition?", 2021): a
still tells who speaks, the sound how the face moves, and the error of the frames teaches the encoder of sound.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import model_validator

from facemae.config import DecoderConfig, EncoderConfig, ObjectiveConfig
from facemae.data.schema import Batch
from facemae.errors import ConfigError
from facemae.models.clip_positions import Position
from facemae.models.context_decoder import ContextDecoder
from facemae.models.encoding import Encoding
from facemae.models.patches import patchify, take, unpatchify
from facemae.models.tubelets import tubeletify, untubeletify
from facemae.objectives.base import Need, Objective, Reconstruction, Setting, Term
from facemae.objectives.checks import heard
from facemae.objectives.masked_patches import draw_subset
from facemae.objectives.rows import only, spread
from facemae.objectives.transfer import upload


class AudioToFaceConfig(ObjectiveConfig):
    """The frames above a sound are predicted from it."""

    kind: Literal["audio_to_face"] = "audio_to_face"
    """Name in the registry."""
    sound: str = "voice"
    """What is heard; of a sound with a mask, its visible patches."""
    view: str = "main"
    """The view above it, whose pixels are predicted. It is not encoded for that: nothing of it goes in."""
    still: str | None = "still"
    """A view of one picture of the same clip, at any moment, that tells who speaks: its visible patches go in
    beside the sound. null predicts from the sound alone."""
    loss: Literal["l1", "l2"] = "l1"
    """Mean absolute or squared error of the normalised pixels."""
    decoder: DecoderConfig = DecoderConfig(kind="cross")
    """The decoder, of kind `cross`: patches ask sound and still. `fraction` is the share of them that is decoded."""

    def view_names(self) -> tuple[str, ...]:
        """The frames, and the still."""
        return (self.view,) if self.still is None else (self.view, self.still)

    def sound_names(self) -> tuple[str, ...]:
        """The one sound."""
        return (self.sound,)

    @model_validator(mode="after")
    def _fits(self) -> "AudioToFaceConfig":
        if self.still == self.view:
            raise ValueError(f"still is {self.still!r}, the view to be predicted, which would be copied")
        decoder = self.decoder
        if decoder.kind != "cross" or decoder.mix_layers is not None:
            raise ValueError("audio_to_face decodes with decoder.kind=cross and no decoder.mix_layers")
        return self


class AudioToFace(Objective):
    """Error of frames decoded from the sound beneath them; samples without sound count for nothing."""

    Config: ClassVar[type[ObjectiveConfig]] = AudioToFaceConfig
    takes_parts: ClassVar[bool] = True

    def __init__(self, config: AudioToFaceConfig, setting: Setting) -> None:
        super().__init__(config)
        _check_views(config, setting)
        hears, encoder, view = heard(config.kind, setting), setting.encoder, setting.views[config.view]
        self.settings, self.seed = config, setting.seed
        self.patch, self.tubelet = encoder.patch_size, 1
        side = (view.image_size or encoder.image_size) // self.patch
        grid: tuple[int, ...] = (side, side)
        values = self.patch**2 * encoder.channels
        if view.clip is not None:
            self.tubelet = _tubelet(encoder)
            grid, values = (view.clip.frames // self.tubelet, side, side), values * self.tubelet
        widths = [hears.width, *([] if config.still is None else [setting.encoder_width])]
        position: Position = "sequence" if encoder.position == "sequence" else "sincos"
        self.decoder = ContextDecoder(config.decoder, widths=widths, grid=grid, patch_values=values, position=position)

    def needs(self) -> tuple[Need, ...]:
        """What is heard, the still, and the pixels of the view."""
        config = self.settings
        stills = [] if config.still is None else [Need(config.still)]
        return (Need(config.sound), *stills, Need(config.view, encoded=False))

    def count(self, batch: Batch) -> int:
        """The number of samples that have sound."""
        return int(batch.sounds[self.settings.sound].present.sum())

    def term(
        self, encodings: Mapping[str, Encoding], pixels: Mapping[str, torch.Tensor], batch: Batch, step: int
    ) -> Term:
        """The sum over samples with sound of the mean error over the decoded patches."""
        given, sound = pixels[self.settings.view], batch.sounds[self.settings.sound]
        if not len(given):
            nothing = given.new_zeros(len(batch))
            return Term(nothing.sum(), samples=nothing)
        patches, grid = self._cut(given)
        chosen = self._to_decode(patches, batch, step)
        predicted = self.decoder(self._heard(encodings), grid, chosen)
        with torch.autocast(given.device.type, enabled=False):
            difference = predicted.float() - (patches if chosen is None else take(patches, chosen))
            each = difference.abs() if self.settings.loss == "l1" else difference.square()
            error = torch.where(sound.present, each.mean(dim=(1, 2)), 0.0)
        return Term(error.sum(), samples=spread(error.detach(), sound.rows, len(batch)))

    def reconstruct(self, encodings: Mapping[str, Encoding], pixels: Mapping[str, torch.Tensor]) -> Reconstruction:
        """The frames as they are decoded from sound and still."""
        _, grid = self._cut(pixels[self.settings.view])
        patches = self.decoder(self._heard(encodings), grid).float()
        if len(grid) == 2:
            return Reconstruction(self.settings.view, unpatchify(patches, self.patch, grid))
        return Reconstruction(self.settings.view, untubeletify(patches, self.tubelet, self.patch, grid))

    def _heard(self, encodings: Mapping[str, Encoding]) -> list[torch.Tensor]:
        names = (self.settings.sound, *([] if self.settings.still is None else [self.settings.still]))
        return [encodings[name].tokens for name in names]

    def _cut(self, pixels: torch.Tensor) -> tuple[torch.Tensor, tuple[int, ...]]:
        """Pictures [R, C, H, W] or clips [R, T, C, H, W] as patches [R, N, values], and their grid."""
        rows, columns = (side // self.patch for side in pixels.shape[-2:])
        if pixels.ndim == 4:
            return patchify(pixels, self.patch), (rows, columns)
        return tubeletify(pixels, self.tubelet, self.patch), (pixels.shape[1] // self.tubelet, rows, columns)

    def _to_decode(self, patches: torch.Tensor, batch: Batch, step: int) -> torch.Tensor | None:
        """The patches that are decoded, [R, M]; None for all."""
        fraction = self.settings.decoder.fraction
        if fraction == 1:
            return None
        shape = (len(batch), patches.shape[1])
        chosen = draw_subset(shape, fraction, seed=self.seed, step=step, first_slot=batch.first_slot)
        return only(upload(chosen, patches.device), batch.rows(self.settings.view))


def _tubelet(encoder: EncoderConfig) -> int:
    assert encoder.tubelet is not None, "checked with the recipe"
    return encoder.tubelet


def _check_views(config: AudioToFaceConfig, setting: Setting) -> None:
    """Raise ConfigError where sound, frames and still are not of one sample, or one of them has several versions."""
    beneath = setting.sounds[config.sound].beneath
    if beneath != config.view:
        raise ConfigError(
            f"objective 'audio_to_face' predicts view {config.view!r} and sounds.{config.sound}.beneath is {beneath!r}",
            expected="the sound beneath the frames that are predicted",
        )
    for name in config.view_names():
        view = setting.views[name]
        if view.copies > 1:
            raise ConfigError(
                f"objective 'audio_to_face' takes view {name!r} and views.{name}.copies is {view.copies}",
                expected="one copy",
            )
        if view.streams != setting.views[config.view].streams:
            raise ConfigError(
                f"objective 'audio_to_face' takes views {config.view!r} and {name!r}, which are of different streams",
                fix=f"set views.{name}.streams to those of views.{config.view}",
            )
    if config.still is not None and setting.views[config.still].clip is not None:
        raise ConfigError(
            f"objective 'audio_to_face' takes view {config.still!r} as a still and it is of clips",
            fix=f"set views.{config.still}.clip=null",
        )
