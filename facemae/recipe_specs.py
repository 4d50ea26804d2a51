"""A recipe in the loader's terms, plain integers: the data knows no model."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from facemae.config import (
    ClipConfig,
    EncoderConfig,
    MaskConfig,
    Recipe,
    SoundConfig,
    SoundEncoderConfig,
    ViewConfig,
    copy_names,
    sound_copies,
    sound_frames,
)
from facemae.data.schema import ClipSpec, MaskSpec, ModelInput, PhotometricSpec, SoundSpec, StageSpec, ViewSpec
from facemae.errors import ConfigError


def view_specs(recipe: Recipe, stages: Mapping[str, Sequence[int]] | None = None) -> tuple[ViewSpec, ...]:
    """The views of a recipe in the loader's terms: plain integers, no model; one for each copy of a view.

    Args:
        recipe: The recipe.
        stages: For each view with stages, the samples after which each begins (see
            `facemae.train.optim.schedule.Lengths`); None leaves all views in their first stage.

    Raises:
        ConfigError: A mask leaves no patch visible.
    """
    specs = []
    for name, view in recipe.views.items():
        spec = _view_spec(name, view, recipe.encoder)
        later = _stage_specs(name, view, recipe.encoder)
        if stages is not None:
            begins = stages.get(name, ())
            spec = replace(spec, stages=tuple(replace(s, samples=n) for s, n in zip(later, begins, strict=True)))
        specs += [replace(spec, name=copy) for copy in copy_names(recipe.views, name)]
    return tuple(specs)


def _view_spec(name: str, view: ViewConfig, encoder: EncoderConfig) -> ViewSpec:
    size = view.image_size or encoder.image_size
    return ViewSpec(
        name=name,
        image_size=size,
        channels=encoder.channels,
        crop=view.crop.kind,
        scale=view.crop.scale,
        ratio=view.crop.ratio,
        interpolation=view.crop.interpolation,
        part=view.crop.part,
        flip=view.flip,
        photometric=_photometric_spec(view),
        mask=_mask_spec(view.mask, size // encoder.patch_size, _steps(view, encoder), f"views.{name}.mask.ratio"),
        clip=None if view.clip is None else _clip_spec(view.clip),
        streams=view.streams,
    )


def _clip_spec(clip: ClipConfig) -> ClipSpec:
    return ClipSpec(clip.frames, 1 / clip.fps, clip.moment, hold=clip.short == "hold")


def sound_specs(recipe: Recipe) -> tuple[SoundSpec, ...]:
    """The sounds of a recipe in the loader's terms; of each copy of the view that they lie beneath.

    Raises:
        ConfigError: A mask leaves no patch visible.
    """
    specs = []
    for name, sound in recipe.sounds.items():
        names, copies = sound_copies(name, sound, recipe.views), copy_names(recipe.views, sound.beneath)
        frames, mask = sound_frames(sound, recipe.views[sound.beneath]), _sound_mask(name, sound, recipe.sound_encoder)
        specs += [SoundSpec(own, view, frames, sound.mel, mask) for own, view in zip(names, copies, strict=True)]
    return tuple(specs)


def _sound_mask(name: str, sound: SoundConfig, encoder: SoundEncoderConfig | None) -> MaskSpec | None:
    if sound.mask is None or encoder is None:
        return None
    moments, bands = encoder.grid
    # MAE's rounding, as for images.
    keep = int(moments * bands * (1 - sound.mask.ratio))
    if keep < 1:
        raise ConfigError(
            f"sounds.{name}.mask.ratio {sound.mask.ratio} leaves none of the {moments * bands} patches visible",
            expected=f"a ratio of at most {1 - 1 / (moments * bands):.4f}",
        )
    return MaskSpec(kind=sound.mask.kind, grid=encoder.grid, keep=keep)


def _stage_specs(name: str, view: ViewConfig, encoder: EncoderConfig) -> list[StageSpec]:
    """The stages after the first, which begin nowhere yet; each inherits what it does not set."""
    size, mask, specs = view.image_size or encoder.image_size, view.mask, []
    for number, stage in enumerate(view.stages):
        size = stage.image_size or size
        if mask is not None and stage.mask_ratio is not None:
            mask = mask.model_copy(update={"ratio": stage.mask_ratio})
        key = f"views.{name}.stages.{number}: mask ratio"
        specs.append(StageSpec(0, size, _mask_spec(mask, size // encoder.patch_size, _steps(view, encoder), key)))
    return specs


def _photometric_spec(view: ViewConfig) -> PhotometricSpec | None:
    changes: dict[str, Any] = {"grey": view.grey}
    if view.colour is not None:
        changes["colour"] = view.colour.probability
        for name in ("brightness", "contrast", "saturation"):
            strength = getattr(view.colour, name)
            changes[name] = (max(0.0, 1 - strength), 1 + strength)
        changes["hue"] = (-view.colour.hue, view.colour.hue)
    if view.blur is not None:
        changes |= {"blur": view.blur.probability, "sigma": view.blur.sigma}
    if view.solarise is not None:
        changes |= {"solarise": view.solarise.probability, "threshold": view.solarise.threshold}
    spec = PhotometricSpec(**changes)
    return None if spec == PhotometricSpec() else spec


def _steps(view: ViewConfig, encoder: EncoderConfig) -> int:
    """Time steps of a view."""
    return 1 if view.clip is None or encoder.tubelet is None else view.clip.frames // encoder.tubelet


def _mask_spec(mask: MaskConfig | None, grid: int, steps: int, key: str) -> MaskSpec | None:
    if mask is None:
        return None
    patches = grid * grid
    if mask.kind in ("tube", "frame"):
        # VideoMAE's rounding, in each step: the number of hidden patches is the integer part.
        keep = (patches - int(mask.ratio * patches)) * steps
        if keep == patches * steps:
            raise ConfigError(
                f"{key} {mask.ratio} hides none of the {patches} patches in a step",
                expected=f"a ratio of at least {1 / patches:.4f}",
            )
    else:
        # MAE's rounding: the number of visible patches is the integer part of what remains.
        patches *= steps
        keep = int(patches * (1 - mask.ratio))
    if keep < 1:
        raise ConfigError(
            f"{key} {mask.ratio} leaves none of the {patches} patches visible",
            expected=f"a ratio of at most {1 - 1 / patches:.4f}",
        )
    first, last = (mask.first, mask.last) if mask.kind == "region" else ((), ())
    return MaskSpec(
        mask.kind, (grid, grid), keep, block=mask.block, copies=mask.copies, steps=steps, first=first, last=last
    )


def model_input(recipe: Recipe) -> ModelInput:
    """What the recipe's encoder expects of its pixels: size, channels and the first view's normalisation."""
    view = next(iter(recipe.views.values()))
    return ModelInput(
        image_size=recipe.encoder.image_size,
        channels=recipe.encoder.channels,
        mean=view.normalise.mean,
        std=view.normalise.std,
        interpolation=view.crop.interpolation,
        part=view.crop.part,
    )
