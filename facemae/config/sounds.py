"""What is made of the sound of a clip, and the encoder that hears it."""

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from facemae.config.base import Config


class MelSettings(Config):
    """Everything that determines a log-mel spectrogram; part of the crop recipe of sound."""

    rate: int = Field(default=16000, gt=0)
    """Samples a second. AudioMAE, HiCMAE and CAV-MAE 16000; TVLT 44100. MMA-DFER takes the file's own rate into a
    model of 16000, which shifts every band: never do so, resample."""
    window_ms: float = Field(default=25.0, gt=0)
    """Length of a frame in milliseconds, cut to whole samples. All of Kaldi's users 25."""
    hop_ms: float = Field(default=10.0, gt=0)
    """From one frame's start to the next one's, in milliseconds, cut to whole samples. All of Kaldi's users 10."""
    mels: int = Field(default=128, gt=0)
    """Bands. AudioMAE, HiCMAE, CAV-MAE, MMA-DFER and TVLT 128; speech recognition 80."""
    low: float = Field(default=20.0, ge=0)
    """Lower end of the lowest band in Hz. Kaldi 20; librosa 0."""
    high: float = 0.0
    """Upper end of the highest band in Hz; zero or less counts down from half the rate, as in Kaldi."""
    window: Literal["hanning", "hamming", "povey", "blackman", "rectangular"] = "hanning"
    """Window function, symmetric. AudioMAE and its heirs Hann; Kaldi itself povey, Hann to the power 0.85."""
    preemphasis: float = Field(default=0.97, ge=0, le=1)
    """Share of the sample before that is subtracted; 0: none. Kaldi 0.97; librosa has none."""
    remove_dc: bool = True
    """Whether each frame's mean is subtracted. Kaldi does, librosa does not."""
    centre: bool = True
    """Whether the mean of the wave that is given is subtracted first. AudioMAE, HiCMAE and CAV-MAE do."""
    power: Literal["power", "magnitude"] = "power"
    """What the bands sum. Kaldi the power |X|^2; some text-to-speech front ends the magnitude |X|."""
    floor: float = Field(default=float(np.finfo(np.float32).eps), gt=0)
    """Least value a band takes before the logarithm. Kaldi float32's epsilon, whose logarithm is -15.94."""
    mean: float = -4.2677393
    """Subtracted from every value. AudioMAE, HiCMAE and MMA-DFER -4.2677393, of AudioSet; CAV-MAE -5.081."""
    std: float = Field(default=4.5689974, gt=0)
    """Standard deviation of the values. AudioMAE, HiCMAE and MMA-DFER 4.5689974; CAV-MAE 4.4849."""
    scale: float = Field(default=2.0, gt=0)
    """How many standard deviations values are divided by. AudioMAE, HiCMAE and MMA-DFER 2, so their inputs have
    a deviation of a half; CAV-MAE 1."""
    pad: Literal["zero", "floor"] = "zero"
    """What missing frames hold before normalisation. AudioMAE, HiCMAE and CAV-MAE 0, which is louder than the mean of
    AudioSet; `floor` is digital silence."""

    @property
    def window_samples(self) -> int:
        """Samples of a frame."""
        return int(self.rate * self.window_ms * 0.001)

    @property
    def hop_samples(self) -> int:
        """Samples from a frame's start to the next one's."""
        return int(self.rate * self.hop_ms * 0.001)

    @property
    def high_hz(self) -> float:
        """Upper end of the highest band."""
        return self.high if self.high > 0 else self.rate / 2 + self.high

    @model_validator(mode="after")
    def _consistent(self) -> "MelSettings":
        if self.hop_samples < 1 or self.window_samples < 2:
            raise ValueError(
                f"a window of {self.window_ms} ms and a hop of {self.hop_ms} ms at {self.rate} Hz are empty"
            )
        if not self.low < self.high_hz <= self.rate / 2:
            raise ValueError(f"bands from {self.low} to {self.high_hz} Hz; half the rate is {self.rate / 2} Hz")
        return self


class SoundMaskConfig(Config):
    """Which patches of a spectrogram its encoder does not see."""

    kind: Literal["random", "time", "frequency", "time_frequency"] = "random"
    """`random` draws single patches: pretraining of AudioMAE, HiCMAE, CAV-MAE and TVLT. `time` hides whole moments,
    `frequency` whole bands, `time_frequency` as large a share of the moments as of the bands, as AudioMAE when it is
    fine-tuned; of one moment or band a part, where the count asks for it."""
    ratio: float = Field(default=0.8, gt=0, lt=1)
    """Share of patches hidden. The count is the same in every sample. AudioMAE and HiCMAE 0.8; CAV-MAE 0.75."""


class SoundConfig(Config):
    """The sound beneath a view, as a log-mel spectrogram."""

    beneath: str = "main"
    """View whose sound this is. Of a view of a clip the window begins with the first sampled frame and ends when the
    last one does, a frame standing for all that passes until the next is sampled. Of a view of one picture it is
    centred on the frame that is drawn from a clip, and `frames` says how long it is; a still has no sound."""
    frames: int | None = Field(default=None, ge=1)
    """Frames of the spectrogram; null takes one for each hop of the window. A number that spans more or less than the
    window keeps its centre."""
    mel: MelSettings = MelSettings()
    """The spectrogram and its normalisation."""
    mask: SoundMaskConfig | None = None
    """The mask; null lets the sound encoder see everything."""


class SoundEncoderConfig(Config):
    """The encoder of spectrograms: any plain ViT of timm, on [1, frames, mels]."""

    name: str = "vit_base_patch16_224"
    """timm model name; gives width, depth and heads."""
    width: int | None = Field(default=None, ge=1)
    """Token dimension; null: as the named model has it."""
    depth: int | None = Field(default=None, ge=1)
    """Number of blocks; likewise."""
    heads: int | None = Field(default=None, ge=1)
    """Attention heads; likewise."""
    blocks: Literal["own", "shared"] = "own"
    """`shared` runs on the blocks and the final norm of `encoder`: one transformer for frames and sound, with patches
    and positions for each. Name, width, depth, heads and drop_path must then be those of `encoder`."""
    frames: int = Field(default=256, ge=1)
    """Frames of the spectrogram. HiCMAE 256; MMA-DFER 512; AudioMAE and CAV-MAE 1024."""
    mels: int = Field(default=128, ge=1)
    """Its bands. All of them 128."""
    patch_size: int = Field(default=16, ge=1)
    """Side of a patch in frames and in bands; divides both. All of them 16."""
    registers: int = Field(default=0, ge=0)
    """Extra learned tokens beside the class token."""
    class_token: bool | None = None
    """Whether there is a class token; null: as the named model has it."""
    position: Literal["sincos", "learned", "sequence"] = "sincos"
    """Fixed sine-cosine positions in time and frequency, or learned ones that start from them; `sequence` is HiCMAE's:
    sine-cosine of a patch's number, moment by moment."""
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    """Stochastic depth, as `encoder.drop_path`."""

    @model_validator(mode="after")
    def _patches_fit(self) -> "SoundEncoderConfig":
        for key in ("frames", "mels"):
            length, patch = getattr(self, key), self.patch_size
            if length % patch:
                multiples = (length // patch * patch, -(-length // patch) * patch)
                nearest = " and ".join(str(multiple) for multiple in multiples if multiple)
                raise ValueError(
                    f"{key} {length} is not a multiple of patch_size {patch}; the nearest multiples are {nearest}"
                )
        return self

    @property
    def grid(self) -> tuple[int, int]:
        """Patches in time and in frequency."""
        return self.frames // self.patch_size, self.mels // self.patch_size
