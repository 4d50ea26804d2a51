"""What is made of a sample: crop, flip, colour, normalisation and mask."""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from facemae.config.base import Config, OnlyWith, Span
from facemae.config.model import EncoderConfig


class CropConfig(Config):
    """How a square view is cut from a face image."""

    kind: Literal["resize", "random_resized"] = "random_resized"
    """`resize` scales the whole image; `random_resized` takes a random part of it."""
    scale: Annotated[tuple[float, float], OnlyWith("kind", lambda kind: kind == "random_resized")] = (0.2, 1.0)
    """Range of the part's area, as a share of the image's."""
    ratio: Annotated[tuple[float, float], OnlyWith("kind", lambda kind: kind == "random_resized")] = (0.75, 4 / 3)
    """Range of the part's width over height."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """How pixels are resampled; always with antialiasing."""
    part: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    """Left, top, right and bottom of the part of the picture that is cropped, as shares of its sides: the
    lower middle of a face, with the mouth, is [0.2, 0.5, 0.8, 1]."""

    @model_validator(mode="after")
    def _ranges(self) -> "CropConfig":
        left, top, right, bottom = self.part
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise ValueError(
                f"part {list(self.part)} is none of a picture: left, top, right and bottom, "
                "0 <= left < right <= 1, 0 <= top < bottom <= 1"
            )
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"scale {list(self.scale)} is no range of shares: 0 < lowest <= highest <= 1")
        low, high = self.ratio
        if not 0 < low <= high < math.inf:
            raise ValueError(f"ratio {list(self.ratio)} is no range of width over height: 0 < lowest <= highest")
        return self


class ColourConfig(Config):
    """Random changes of colour, with factors drawn as by torchvision's ColorJitter and applied in random order."""

    probability: float = Field(default=0.8, gt=0, le=1)
    """Share of the samples that are changed."""
    brightness: float = Field(default=0.0, ge=0)
    """Factor of the pixels, uniform in [max(0, 1 - brightness), 1 + brightness]."""
    contrast: float = Field(default=0.0, ge=0)
    """Factor of the distance from the image's mean grey, uniform in [max(0, 1 - contrast), 1 + contrast]."""
    saturation: float = Field(default=0.0, ge=0)
    """Factor of the distance from each pixel's grey, uniform in [max(0, 1 - saturation), 1 + saturation]; RGB only."""
    hue: float = Field(default=0.0, ge=0, le=0.5)
    """Shift as a share of the colour circle, uniform in [-hue, hue]; RGB only."""

    @model_validator(mode="after")
    def _changes(self) -> "ColourConfig":
        if not any((self.brightness, self.contrast, self.saturation, self.hue)):
            raise ValueError("changes nothing: set brightness, contrast, saturation or hue, or leave the block out")
        return self


class BlurConfig(Config):
    """Random Gaussian blur."""

    probability: float = Field(default=0.5, gt=0, le=1)
    """Share of the samples that are blurred."""
    sigma: tuple[float, float] = (0.1, 2.0)
    """Range of the standard deviation, in pixels of the view: published ranges are for 224 pixels."""

    @model_validator(mode="after")
    def _range(self) -> "BlurConfig":
        low, high = self.sigma
        if not 0 < low <= high < math.inf:
            raise ValueError(f"sigma {list(self.sigma)} is no range of deviations: 0 < lowest <= highest")
        return self


class SolariseConfig(Config):
    """Random solarisation: bright pixels are inverted."""

    probability: float = Field(default=0.2, gt=0, le=1)
    """Share of the samples that are solarised."""
    threshold: int = Field(default=128, ge=0, le=255)
    """Pixels from this level on, of 0 to 255, are inverted."""


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


class MixupConfig(Config):
    """Samples mixed in pairs: slots 2j and 2j + 1 of the global batch (Zhang et al., "mixup", 2018).

    Both of a pair are mixed with one share: x = share * own + (1 - share) * other. An objective has to mix the losses
    of the labels likewise, so only those that learn from labels take such a view.
    """

    alpha: float = Field(default=0.8, gt=0)
    """The share is drawn from Beta(alpha, alpha), anew for each pair and step."""


Area = Literal["background", "skin", "left_eye", "right_eye", "nose", "mouth", "hair"]
"""Parts of a face in region maps; eyes with their brows. What they are made of: `facemae.data.regions.AREAS`."""


class MaskConfig(Config):
    """Which patches of a view the encoder does not see."""

    kind: Literal["random", "block", "tube", "frame", "region"] = "random"
    """`random` draws single patches, of a clip among those of all time steps; `block` draws squares of patches of one
    picture. Of clips only: `tube` hides the same patches of the picture in every time step, `frame` draws as many
    anew in each. `region` shows parts of the face one after the other (MARLIN's Fasking) and needs region maps."""
    ratio: float = Field(default=0.75, gt=0, lt=1)
    """Share of patches hidden. The count is the same in every sample: of N patches MAE's int(N * (1 - ratio)) stay
    visible, for `random` and `region` of a clip in all steps together; `tube` and `frame` hide VideoMAE's
    int(N * ratio) of the N in each step."""
    first: Annotated[tuple[Area, ...], OnlyWith("kind", lambda kind: kind == "region")] = ("background", "skin")
    """Parts of the face that become visible first, in this order, for kind `region`. Those not named here or in `last`
    follow in random order, drawn anew for each sample and epoch. Parts are taken until the patches that show them are
    enough in each step; the visible ones are drawn from these."""
    last: Annotated[tuple[Area, ...], OnlyWith("kind", lambda kind: kind == "region")] = ()
    """Parts that become visible last, in this order, for kind `region`."""
    block: Annotated[int, OnlyWith("kind", lambda kind: kind == "block")] = Field(default=2, ge=1)
    """Side of a block in patches, for kind `block`."""
    copies: int = Field(default=1, ge=1)
    """Masks drawn for each sample: it is read, decoded and cropped once, and each masked version is encoded."""

    @model_validator(mode="after")
    def _each_part_once(self) -> "MaskConfig":
        named = (*self.first, *self.last)
        twice = sorted({area for area in named if named.count(area) > 1})
        if twice:
            raise ValueError(f"first and last name {', '.join(twice)} more than once; each part has one place")
        return self


class ClipConfig(Config):
    """Which frames of a clip make a view."""

    frames: int = Field(default=16, ge=1)
    """How many."""
    fps: float = Field(default=6.25, gt=0)
    """How many a second of the clip. A stride of 4 at 25 frames a second is 6.25. Stored frames nearest in time are
    taken, whatever rate they are stored at."""
    moment: str | None = "main"
    """Views with the same name here begin at the same place of a clip, in proportion to its length; drawn anew for each
    sample and epoch. null draws it for each view, and for each of its `copies`, by itself."""
    short: Literal["hold", "refuse"] = "hold"
    """A clip shorter than the window: `hold` repeats its last frame; `refuse` counts it as damaged, so that a neighbour
    takes its place and its name is kept."""


class StageConfig(Config):
    """A change of a view in mid-run, such as a higher mask ratio, or the full size after a start at a lower one."""

    begins: Span = Field(alias="from")
    """When: the first global batch of the data order before which this much of the run lies, so a sample's views never
    depend on what the optimiser did; a run that went back from a spike reaches it sooner, by the steps it passes over.
    Fixed when the run is started: a run that is extended keeps its stages where they were."""
    image_size: int | None = Field(default=None, ge=1)
    """Side of the view in pixels from then on, a multiple of the encoder's patch size; null leaves it as it was."""
    mask_ratio: float | None = Field(default=None, gt=0, lt=1)
    """Share of patches hidden from then on; null leaves it as it was."""

    @model_validator(mode="after")
    def _changes(self) -> "StageConfig":
        if self.image_size is None and self.mask_ratio is None:
            raise ValueError("changes nothing: set image_size or mask_ratio")
        if not self.begins.amount:
            raise ValueError("begins with the run: give these values to the view itself")
        return self


class ViewConfig(Config):
    """One view of a sample, made in this order: crop, colour, grey, blur, solarise, flip, normalisation, mixup, mask.

    Mixing is the only part that takes two samples.
    """

    image_size: int | None = Field(default=None, ge=1)
    """Side of the view in pixels, a multiple of the encoder's patch size; null takes the encoder's image size."""
    streams: tuple[str, ...] | None = Field(default=None, min_length=1)
    """The streams whose samples it is made of, by name; null for all. Encoders and objectives see only those, and the
    sound beneath it is heard only there."""
    clip: ClipConfig | None = None
    """Frames of a clip; null makes a view of one picture: a still, or one frame of a clip drawn at random."""
    copies: int = Field(default=1, ge=1)
    """Independent draws of this view from each sample. Objectives name the view and get all its copies. Copies of a
    view of clips begin at one place, unless `clip.moment` is null."""
    crop: CropConfig = CropConfig()
    """The crop."""
    flip: bool = True
    """Mirror half of the samples."""
    colour: ColourConfig | None = None
    """Random brightness, contrast, saturation and hue; null for none."""
    grey: float = Field(default=0.0, ge=0, le=1)
    """Share of the samples that lose their colour; RGB only."""
    blur: BlurConfig | None = None
    """Random Gaussian blur; null for none."""
    solarise: SolariseConfig | None = None
    """Random solarisation; null for none."""
    normalise: NormaliseConfig = NormaliseConfig()
    """Pixel normalisation."""
    mixup: MixupConfig | None = None
    """Pairs of samples mixed; null for none. For objectives that learn from labels."""
    mask: MaskConfig | None = MaskConfig()
    """The mask; null lets the encoder see everything."""
    stages: tuple[StageConfig, ...] = ()
    """Changes of size and mask ratio during the run, in order; the values above are the first stage."""

    @model_validator(mode="after")
    def _mask_fits(self) -> "ViewConfig":
        kind = None if self.mask is None else self.mask.kind
        if kind in ("tube", "frame") and self.clip is None:
            raise ValueError(f"mask.kind {kind!r} needs the time steps of a clip; set clip, or mask.kind=random")
        if kind == "block" and self.clip is not None:
            raise ValueError("mask.kind 'block' hides squares of one picture; of a clip choose tube, frame or random")
        return self

    @model_validator(mode="after")
    def _mixes_whole_pairs(self) -> "ViewConfig":
        if self.mixup is not None and self.streams is not None:
            raise ValueError(
                "mixup mixes samples of neighbouring slots, and a view of some streams has not all of them; "
                "set mixup=null, or streams=null"
            )
        return self

    @model_validator(mode="after")
    def _ordered(self) -> "ViewConfig":
        if self.mask is None and any(stage.mask_ratio is not None for stage in self.stages):
            raise ValueError("stages change the mask's ratio and the view has no mask")
        for earlier, later in pairwise(self.stages):
            # Lengths of different units are compared when those of the run are known.
            if earlier.begins.unit == later.begins.unit and earlier.begins.amount >= later.begins.amount:
                unit = later.begins.unit
                raise ValueError(
                    f"stages are not in order: from {earlier.begins.amount:g} {unit}, then from "
                    f"{later.begins.amount:g} {unit}"
                )
        return self


def copy_names(views: Mapping[str, ViewConfig], name: str) -> tuple[str, ...]:
    """What a view of the recipe is called in a batch: its own name, or `name/0`, `name/1`, … where it has copies."""
    return numbered(name, views[name].copies)


def numbered(name: str, copies: int) -> tuple[str, ...]:
    """Names of so many copies."""
    return (name,) if copies == 1 else tuple(f"{name}/{copy}" for copy in range(copies))


def check_name(what: str, name: str) -> None:
    """Raise ValueError where the name of a view or a sound could be that of a copy."""
    if not name or "/" in name:
        raise ValueError(f"{what} {name!r}: a name has one character or more and no '/', which numbers copies")


def check_view(name: str, view: ViewConfig, encoder: EncoderConfig) -> None:
    """Raise ValueError where a view does not fit the encoder that is to see it."""
    check_name("view", name)
    for part in ("mean", "std"):
        values = getattr(view.normalise, part)
        if len(values) != encoder.channels:
            raise ValueError(
                f"views.{name}.normalise.{part} has {len(values)} numbers; encoder.channels is {encoder.channels}"
            )
    _check_clip(name, view.clip, encoder)
    _check_size(f"views.{name}.image_size", view.image_size, encoder.patch_size)
    for number, stage in enumerate(view.stages):
        _check_size(f"views.{name}.stages.{number}.image_size", stage.image_size, encoder.patch_size)
    if encoder.channels == 1:
        colour = view.colour
        coloured = {
            "colour.saturation": 0 if colour is None else colour.saturation,
            "colour.hue": 0 if colour is None else colour.hue,
            "grey": view.grey,
        }
        for key, value in coloured.items():
            if value:
                raise ValueError(f"views.{name}.{key} is {value} and encoder.channels is 1: grey has no colour; set 0")


def _check_clip(name: str, clip: ClipConfig | None, encoder: EncoderConfig) -> None:
    if clip is None:
        return
    if encoder.tubelet is None:
        frames = -(-clip.frames // 2) * 2
        raise ValueError(
            f"views.{name}.clip has {clip.frames} frames and the encoder is one of stills; "
            f"set encoder.tubelet=2 and encoder.frames={frames}, or views.{name}.clip=null"
        )
    if clip.frames % encoder.tubelet:
        raise ValueError(
            f"views.{name}.clip.frames {clip.frames} is not a multiple of encoder.tubelet {encoder.tubelet}; "
            f"the nearest multiples are {_nearest_multiples(clip.frames, encoder.tubelet)}"
        )


def _check_size(key: str, size: int | None, patch: int) -> None:
    if size is not None and size % patch:
        raise ValueError(
            f"{key} {size} is not a multiple of encoder.patch_size {patch}; the nearest multiples are "
            f"{_nearest_multiples(size, patch)}"
        )


def _nearest_multiples(number: int, unit: int) -> str:
    below, above = number // unit * unit, -(-number // unit) * unit
    return " and ".join(str(multiple) for multiple in (below, above) if multiple)
