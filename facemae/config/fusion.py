"""What brings the encodings of a view and of its sound together."""

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from facemae.config.base import Config
from facemae.config.model import ObjectiveConfig
from facemae.config.sounds import SoundConfig, SoundEncoderConfig
from facemae.config.views import ViewConfig


class FusionConfig(Config):
    """Blocks on the visible tokens of a view and on those of the sound beneath it, which look at each other."""

    kind: Literal["cross"] = "cross"
    """`cross` is HiCMAE's: in each block the tokens of either side look at the other side's, then at their own."""
    view: str = "main"
    """The view."""
    sound: str = "voice"
    """The sound, which lies beneath that view."""
    depth: int = Field(default=2, ge=1)
    """Blocks on each side. HiCMAE 2."""
    heads: int = Field(default=8, ge=1)
    """Attention heads; divides the width of both encoders. HiCMAE 8 at width 512."""
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    """Stochastic depth, as `encoder.drop_path`."""


def check_fusion(
    fusion: FusionConfig | None,
    objectives: Sequence[ObjectiveConfig],
    views: Mapping[str, ViewConfig],
    sounds: Mapping[str, SoundConfig],
    sound_encoder: SoundEncoderConfig | None,
) -> None:
    """Raise ValueError where objectives take fused encodings that there are not, or nobody takes those there are."""
    taken = {name: objective.kind for objective in objectives for name in objective.fused_names()}
    there = () if fusion is None else (fusion.view, fusion.sound)
    for name, kind in taken.items():
        if name not in there:
            has = "and the recipe has no block fusion" if fusion is None else f"which is of {' and '.join(there)}"
            raise ValueError(f"objective {kind!r} takes {name!r} after fusion, {has}")
    if fusion is None:
        return
    _check_sides(fusion, views, sounds)
    if sound_encoder is None:
        raise ValueError("fusion takes what a sound_encoder hears: add one")
    if not taken:
        raise ValueError("fusion would learn nothing: give an objective of its view or sound fused=true")


def _check_sides(fusion: FusionConfig, views: Mapping[str, ViewConfig], sounds: Mapping[str, SoundConfig]) -> None:
    for key, name, known in (("view", fusion.view, views.keys()), ("sound", fusion.sound, sounds.keys())):
        if name not in known:
            raise ValueError(f"fusion.{key} is {name!r}; the recipe has {sorted(known)}")
    beneath = sounds[fusion.sound].beneath
    if beneath != fusion.view:
        raise ValueError(
            f"fusion is of a view and the sound beneath it; sounds.{fusion.sound}.beneath is {beneath!r} and "
            f"fusion.view {fusion.view!r}"
        )
    mask = views[fusion.view].mask
    if mask is not None and mask.copies > 1:
        raise ValueError(f"fusion takes one mask of a view and views.{fusion.view}.mask.copies is {mask.copies}; set 1")
