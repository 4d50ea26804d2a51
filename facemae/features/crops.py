"""How faces were cut: what differs between a model's and others, and how those of a video are cut for a model."""

import re
from dataclasses import dataclass
from typing import Any

from facemae.data.clips.settings import ClipSettings, People
from facemae.data.schema import CropRecipe

_MARGIN = re.compile(r"(-?[\d.]+(?:e-?\d+)?) of the longer side of the box, on each side")
_SMOOTHING = re.compile(r"([\d.]+(?:e[+-]?\d+)?) s, looked for ([\d.]+(?:e[+-]?\d+)?) times a second")
_WHOLE = 86_400.0
"""Seconds, the most there may be: a stretch with one face is not cut to pieces, since windows are streamed."""


class CropMismatchWarning(UserWarning):
    """Faces were cut otherwise than those the model was trained on; features may be worse than reported ones."""


def compare_crops(model: CropRecipe, data: CropRecipe) -> list[str]:
    """What differs between how a model's training faces and these were cut, as far as both are known."""
    return [
        f"faces were cut otherwise than for the model: {name} is {found!r} here, {trained!r} in its training"
        for name in ("detector", "margin", "alignment", "colour")
        if (found := getattr(data, name)) != (trained := getattr(model, name)) and "unknown" not in (found, trained)
    ]


@dataclass(frozen=True)
class Cutting:
    """How faces are found and cut.

    Attributes:
        settings: As for packing.
        unknown: What the model's crop recipe does not say in packing's terms; packing's usual value is taken.
    """

    settings: ClipSettings
    unknown: tuple[str, ...]


def cutting_for(
    crop: CropRecipe, *, side: int, sound_rate: int | None, detector: str = "default", people: People = "main"
) -> Cutting:
    """The settings of packing behind a model's crop recipe, so that a video's faces are cut as in its training.

    Args:
        crop: How the training faces were cut.
        side: Side of the model's square in pixels, where the recipe has no size.
        sound_rate: Rate at which the model hears; None for one that does not.
        detector: See `facemae.faces.registry.open_detector`. A recipe has the detector's name, not its file.
        people: As for packing.
    """
    found: dict[str, Any] = {}
    if margin := _MARGIN.fullmatch(crop.margin):
        found["margin"] = float(margin[1])
    if smoothing := _SMOOTHING.fullmatch(crop.smoothing):
        found |= {"smoothing": float(smoothing[1]), "detections": float(smoothing[2])}
    found |= {} if crop.size is None else {"size": crop.size}
    found |= {} if crop.fps is None else {"fps": crop.fps}
    unknown = [name for name in ("size", "fps", "margin", "smoothing") if name not in found]
    unknown += ["detector"] if crop.detector == "unknown" else []
    found.setdefault("size", side)
    rate = None if sound_rate is None else crop.sound_rate or sound_rate
    settings = ClipSettings(**found, detector=detector, people=people, sound_rate=rate, longest=_WHOLE)
    return Cutting(settings, tuple(unknown))


def compare_clip_crops(model: CropRecipe, data: CropRecipe) -> list[str]:
    """As `compare_crops`, with how boxes were steadied, where both say it."""
    messages = compare_crops(model, data)
    if data.smoothing != model.smoothing and "none" not in (data.smoothing, model.smoothing):
        messages.append(
            "faces were cut otherwise than for the model: "
            f"smoothing is {data.smoothing!r} here, {model.smoothing!r} in its training"
        )
    return messages
