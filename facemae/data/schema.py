"""The types that cross from the data room into the others.

Nothing here knows a model: a view is described to the loader by plain integers (grid, keep count).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict

from facemae.config.sounds import MelSettings
from facemae.data.made import Made

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
"""Extensions of a sample's still image, in the order they are looked for."""
Part = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of a picture, as shares of its sides."""
WHOLE: Part = (0.0, 0.0, 1.0, 1.0)
"""All of it."""


class CropRecipe(BaseModel):
    """How faces were cut out and what the pixels mean.

    Travels in the shard set's card, in every checkpoint, feature file and result. `unknown` is legal and printed beside
    every number.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    detector: str = "unknown"
    """Face detector and its version, `none` where the source is already cropped."""
    margin: str = "unknown"
    """Margin around the detected box, as a share of its size."""
    alignment: str = "unknown"
    """How faces were turned: `none`, `eyes`, `five-point`, …"""
    size: int | None = None
    """Side of the stored image in pixels; None where it varies."""
    colour: Literal["rgb", "grey", "unknown"] = "unknown"
    """Colour of the stored image."""
    interpolation: str = "unknown"
    """Resampling used for the stored image."""
    smoothing: str = "none"
    """How the box was steadied over time, for clips."""
    fps: float | None = None
    """Frames a second of stored clips; None for stills and where it varies."""
    sound_rate: int | None = None
    """Samples a second of stored sound, mono; None without sound and where it varies."""


class ModelInput(BaseModel):
    """What an encoder expects of its pixels.

    Images are brought to it: decoded to its channels, scaled to its size, normalised with its numbers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    image_size: int
    """Side of the square input in pixels."""
    channels: Literal[1, 3]
    """1 grey, 3 RGB."""
    mean: tuple[float, ...]
    """Subtracted from pixels in [0, 1]."""
    std: tuple[float, ...]
    """Divides pixels after the mean."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Resampling to the input size, with antialiasing."""
    part: Part = WHOLE
    """The part of a picture that is scaled to the input size."""


class DatasetCard(BaseModel):
    """Where a shard set comes from and what may be done with it. Inherited by checkpoints and zoo entries."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: str
    """Name of the data set."""
    source: str = "unknown"
    """Where the images come from."""
    licence: str = "unknown"
    """Licence of the images and labels."""
    consent: str = "unknown"
    """Whether and how the people shown agreed."""
    terms: str = "unknown"
    """Conditions of use."""
    redistributable: bool = False
    """Whether the licence allows passing on weights trained on it."""
    packed: dict[str, str] = {}
    """How it was packed: command, facemae version, seed."""
    crop: CropRecipe = CropRecipe()
    """How faces were cut."""


@dataclass(frozen=True)
class MaskSpec:
    """A mask as the loader needs it: which patches of a grid stay visible.

    Attributes:
        kind: `random`, `block`, `tube`, `frame` or `region`.
        grid: Rows and columns of patches.
        keep: Patches that stay visible, in all steps together; the same in every sample.
        block: Side of a block in patches, for kind `block`.
        copies: Masks drawn for each sample.
        steps: Steps in time: the frames of a clip over those of a tubelet; 1 for a still.
        first: For kind `region`, the parts of a face that become visible first, in order; see
            `facemae.data.regions.AREAS`.
        last: Likewise those that become visible last.
    """

    kind: str
    grid: tuple[int, int]
    keep: int
    block: int = 1
    copies: int = 1
    steps: int = 1
    first: tuple[str, ...] = ()
    last: tuple[str, ...] = ()


@dataclass(frozen=True)
class PhotometricSpec:
    """Random changes of pixel values as the loader needs them; see `facemae.data.photometric.draw_change`.

    Attributes:
        colour: Probability of brightness, contrast, saturation and hue together.
        brightness: Range of the factor.
        contrast: Range of the factor.
        saturation: Range of the factor; only for RGB.
        hue: Range of the shift, as shares of the circle; only for RGB.
        grey: Probability; only for RGB.
        blur: Probability.
        sigma: Range of the blur's standard deviation in pixels of the view.
        solarise: Probability.
        threshold: Pixels from this level on are inverted.
    """

    colour: float = 0.0
    brightness: tuple[float, float] = (1.0, 1.0)
    contrast: tuple[float, float] = (1.0, 1.0)
    saturation: tuple[float, float] = (1.0, 1.0)
    hue: tuple[float, float] = (0.0, 0.0)
    grey: float = 0.0
    blur: float = 0.0
    sigma: tuple[float, float] = (0.1, 2.0)
    solarise: float = 0.0
    threshold: int = 128


@dataclass(frozen=True)
class ClipSpec:
    """Which frames of a clip make a view.

    Attributes:
        frames: How many.
        period: Seconds from one to the next.
        moment: Views with the same name here begin at the same place, in proportion to a clip's length; None: a view
            by itself.
        hold: Whether a clip shorter than the window ends with its last frame repeated; else it counts as damaged.
    """

    frames: int
    period: float
    moment: str | None = "main"
    hold: bool = True


@dataclass(frozen=True)
class SoundSpec:
    """The sound beneath a view as the loader needs it.

    Attributes:
        name: Name in the batch.
        beneath: The view.
        frames: Frames of the spectrogram.
        mel: The spectrogram and its normalisation.
        mask: Which patches are hidden, see `facemae.data.sound_masks`; None for none. The grid is time by frequency.
    """

    name: str
    beneath: str
    frames: int
    mel: MelSettings
    mask: MaskSpec | None = None


@dataclass(frozen=True)
class StageSpec:
    """What a view becomes in mid-run.

    Attributes:
        samples: It begins with the first global batch that has so many samples before it in the order, whether or not
            the run has passed some over.
        image_size: Side of the square view in pixels.
        mask: The mask, or None.
    """

    samples: int
    image_size: int
    mask: MaskSpec | None


@dataclass(frozen=True)
class ViewSpec:
    """A view as the loader needs it.

    Attributes:
        name: Name in the batch: that in the recipe, numbered where a view has several copies.
        image_size: Side of the square view in pixels.
        channels: 1 grey or 3 RGB.
        crop: `resize` or `random_resized`.
        scale: Range of the crop's area as a share of the image.
        ratio: Range of the crop's width over height.
        interpolation: `bilinear` or `bicubic`.
        part: Left, top, right and bottom of the part of the picture that is cropped, as shares of its sides.
        flip: Mirror half of the samples.
        photometric: Random changes of pixel values, or None.
        mask: The mask, or None.
        stages: Changes of size and mask during the run, in order.
        clip: Frames of a clip, or None for one picture.
        streams: The streams whose samples it is made of; None for all.
    """

    name: str
    image_size: int
    channels: int
    crop: str = "random_resized"
    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (0.75, 4 / 3)
    interpolation: str = "bilinear"
    part: Part = WHOLE
    flip: bool = True
    photometric: PhotometricSpec | None = None
    mask: MaskSpec | None = None
    stages: tuple[StageSpec, ...] = ()
    clip: ClipSpec | None = None
    streams: tuple[str, ...] | None = None

    def at(self, samples: int) -> "ViewSpec":
        """The view of a step before which so many samples were consumed; it has no stages."""
        begun = [stage for stage in self.stages if stage.samples <= samples]
        now = begun[-1] if begun else self
        return replace(self, image_size=now.image_size, mask=now.mask, stages=())


@dataclass(frozen=True)
class Sample:
    """One sample as it lies in a shard.

    Attributes:
        key: WebDataset key.
        index: Position in the shard set's index.
        members: Encoded bytes by extension, without the dot.
        meta: The parsed `json` member; empty where there is none.
    """

    key: str
    index: int
    members: dict[str, bytes]
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Replacement:
    """A sample that did not decode and the neighbour that took its place."""

    stream: str
    position: int
    requested: str
    used: str
    reason: str


@dataclass(frozen=True)
class ViewBatch(Made):
    """One view of a batch.

    Attributes:
        image: uint8 [R, C, H, W], not normalised; [R, T, C, H, W] of a clip. R is the number of samples, or of `rows`.
        visible: int64 [R, keep], ascending indices of visible patches in row-major order, of a clip in the order of
            step, row and column; [R, M, keep] where a sample has M > 1 masks; None without a mask.
    """

    image: torch.Tensor
    visible: torch.Tensor | None


@dataclass(frozen=True)
class SoundBatch(Made):
    """One sound of a batch.

    Attributes:
        mel: float32 [R, frames, mels], normalised; zeros where a sample has no sound. R as of the view above it.
        present: bool [R], whether it has.
        visible: int64 [R, keep], ascending indices of visible patches, row by row of the grid of time by frequency;
            also where a sample has no sound. None without a mask.
    """

    mel: torch.Tensor
    present: torch.Tensor
    visible: torch.Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """What one process receives for one step: its contiguous slots of the global batch.

    Attributes:
        step: The optimiser step it belongs to.
        first_slot: Slot of its first sample in the global batch.
        keys: WebDataset keys, one a sample, as used (after any replacement).
        streams: Stream names, one a sample.
        views: Views by name.
        meta: The samples' metadata.
        replaced: Samples that were replaced.
        sounds: Sounds by name.
        held: By view, for how many samples the last frame of a clip shorter than the window was repeated, if any; the
            parts of a batch do not tell.
    """

    step: int
    first_slot: int
    keys: tuple[str, ...]
    streams: tuple[str, ...]
    views: dict[str, ViewBatch]
    meta: tuple[dict[str, Any], ...]
    replaced: tuple[Replacement, ...] = ()
    sounds: dict[str, SoundBatch] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        """The batch with each tensor changed."""
        return replace(
            self,
            views={name: view.map(change) for name, view in self.views.items()},
            sounds={name: sound.map(change) for name, sound in self.sounds.items()},
        )

    def tensors(self) -> list[torch.Tensor]:
        """All of them: those of the views in the order of their names, then those of the sounds."""
        found = [tensor for name in sorted(self.views) for tensor in self.views[name].tensors()]
        return found + [tensor for name in sorted(self.sounds) for tensor in self.sounds[name].tensors()]

    def pin_memory(self) -> "Batch":
        """Copy the tensors into page-locked memory; called by torch's DataLoader."""
        return self.map(torch.Tensor.pin_memory)

    def rows(self, name: str) -> torch.Tensor | None:
        """The samples that a view or sound was made of, int64 [R]; None where it was made of all."""
        made = self.views.get(name) or self.sounds.get(name)
        return None if made is None else made.rows

    def part(self, samples: slice) -> "Batch":
        """Contiguous samples from `samples.start` on; what was replaced is told by the first part."""
        start, stop, _ = samples.indices(len(self))
        return Batch(
            self.step,
            self.first_slot + start,
            self.keys[samples],
            self.streams[samples],
            {name: view.part(start, stop) for name, view in self.views.items()},
            self.meta[samples],
            self.replaced if start == 0 else (),
            {name: sound.part(start, stop) for name, sound in self.sounds.items()},
        )

    def of(self, samples: Sequence[int]) -> "Batch":
        """Some samples, ascending, for looking at: their slots need not follow each other, so nothing may be drawn."""
        return replace(
            self,
            keys=tuple(self.keys[sample] for sample in samples),
            streams=tuple(self.streams[sample] for sample in samples),
            views={name: view.of(samples) for name, view in self.views.items()},
            meta=tuple(self.meta[sample] for sample in samples),
            replaced=(),
            sounds={name: sound.of(samples) for name, sound in self.sounds.items()},
        )

    def split(self, parts: int) -> list["Batch"]:
        """Cut into `parts` contiguous micro-batches of equal size."""
        size, rest = divmod(len(self), parts)
        if rest:
            raise ValueError(f"a batch of {len(self)} cannot be cut into {parts} equal parts")
        return [self.part(slice(i * size, (i + 1) * size)) for i in range(parts)]
