"""What brings the encodings of a view and of its sound together."""

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field, model_validator

from facemae.config.base import Config
from facemae.config.model import EncoderConfig, ObjectiveConfig
from facemae.config.sounds import SoundConfig, SoundEncoderConfig
from facemae.config.views import ViewConfig


class FusionConfig(Config):
    """What the visible tokens of a view and those of the sound beneath it see of each other."""

    kind: Literal["cross", "joint"] = "cross"
    """`cross` is HiCMAE's, blocks behind both encoders: in each the tokens of either side look at the other side's,
    then at their own. `joint` runs the encoder itself on both together, in one sequence; it needs
    sound_encoder.blocks=shared."""
    view: str = "main"
    """The view."""
    sound: str = "voice"
    """The sound, which lies beneath that view."""
    depth: int = Field(default=2, ge=1)
    """Blocks on each side, of kind `cross`. HiCMAE 2."""
    heads: int = Field(default=8, ge=1)
    """Their attention heads; divides the width of both encoders. HiCMAE 8 at width 512."""
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    """Their stochastic depth, as `encoder.drop_path`; `joint` has that of the encoder."""

    @model_validator(mode="after")
    def _has_no_blocks(self) -> "FusionConfig":
        if self.kind == "joint":
            for key in ("depth", "heads", "drop_path"):
                if getattr(self, key) != FusionConfig.model_fields[key].default:
                    raise ValueError(
                        f"{key} is of kind 'cross'; kind 'joint' runs the encoder's own blocks: leave it out"
                    )
        return self


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
    if fusion.kind == "joint" and sound_encoder.blocks != "shared":
        raise ValueError("fusion.kind 'joint' runs one transformer on both: set sound_encoder.blocks=shared")


def check_shared(encoder: EncoderConfig, sound_encoder: SoundEncoderConfig | None) -> None:
    """Raise ValueError where two encoders are to share blocks and do not agree on them."""
    if sound_encoder is None or sound_encoder.blocks == "own":
        return
    for key in ("name", "width", "depth", "heads", "drop_path"):
        mine, theirs = getattr(sound_encoder, key), getattr(encoder, key)
        if mine != theirs:
            raise ValueError(
                f"sound_encoder.blocks is shared and sound_encoder.{key} is {mine!r} where encoder.{key} is "
                f"{theirs!r}; set both the same"
            )


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
