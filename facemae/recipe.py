"""Reading, merging, printing and comparing recipes.

A recipe file may name a `base`, another recipe that it changes; `a.b=c` overrides from the command line come last. The
merged tree is validated once, by `facemae.config.Recipe`.
"""

import contextlib
import difflib
import importlib.resources
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from facemae.config import (
    ClipConfig,
    EncoderConfig,
    MaskConfig,
    ObjectiveConfig,
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

FREE_BLOCKS = ("efficiency", "log", "monitor")
"""Blocks that may differ between two starts of one run."""

FREE_KEYS = ("about", "checkpoint", "data.max_damage", "optim.max_bad_steps", "optim.spike.limit")
"""What may differ beside them: words, when to save, and when to give up. None changes what a finished run computed."""

_WHERE_TO_GO_BACK = "checkpoint.every"
"""Decides where a run goes back to, if `optim.spike.action` is rewind: then it is pinned."""


def list_recipes() -> list[str]:
    """Names of the recipes that come with the library."""
    folder = importlib.resources.files("facemae.recipes")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, its bases, and overrides.

    Args:
        name_or_path: Name of a recipe of the library, or path of a YAML file.
        overrides: Changes such as ``optim.batch_size=512`` or ``data.streams.0.shards=faces``; values are YAML.

    Raises:
        ConfigError: Unknown recipe or key, or a value that does not fit; the message names the nearest known one.
    """
    tree = _read_with_base(str(name_or_path), seen=())
    for override in overrides:
        _apply_override(tree, override)
    return parse_recipe(tree, origin=str(name_or_path))


def parse_recipe(tree: Mapping[str, Any], *, origin: str) -> Recipe:
    """Validate a merged tree; `origin` is named in errors."""
    try:
        return Recipe.model_validate(dict(tree))
    except ValidationError as error:
        raise ConfigError(
            _readable(error, tree, origin), fix="facemae config RECIPE prints every key and its value"
        ) from None


def recipe_tree(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain mappings, lists and numbers, as it is stored in checkpoints."""
    return recipe.model_dump(mode="json", by_alias=True)


def recipe_to_yaml(recipe: Recipe) -> str:
    """The resolved recipe as YAML that `load_recipe` reads back."""
    return yaml.safe_dump(recipe_tree(recipe), sort_keys=False, allow_unicode=True, width=100)


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What changed between two recipe trees, outside `FREE_BLOCKS` and `FREE_KEYS`.

    Where spikes make a run go back, `checkpoint.every` is compared too: it goes back to a checkpoint that was due.
    Keys that a tree lacks count as their defaults, so that a key added by a later release does not stop a run that was
    started before it. An old tree that no longer fits the schema is compared as it stands.

    Args:
        old: The tree that was saved.
        new: The tree asked for.

    Returns:
        Lines such as ``optim.batch_size: 256 -> 512``; empty when the recipes train the same.
    """
    with contextlib.suppress(ValidationError, ConfigError):
        # Free blocks are left out first: a key that a later release dropped there must not make the rest unreadable.
        pinned = ({key: value for key, value in tree.items() if key not in FREE_BLOCKS} for tree in (old, new))
        old, new = (recipe_tree(Recipe.model_validate(tree)) for tree in pinned)
    before, after = (dict(leaves(tree)) for tree in (old, new))
    goes_back = "rewind" in {before.get("optim.spike.action"), after.get("optim.spike.action")}
    return [
        f"{key}: {before.get(key, '(absent)')} -> {after.get(key, '(absent)')}"
        for key in sorted(before.keys() | after.keys())
        if not _is_free(key) or (goes_back and key.startswith(f"{_WHERE_TO_GO_BACK}."))
        if before.get(key, "(absent)") != after.get(key, "(absent)")
    ]


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


def _read_with_base(name: str, seen: tuple[str, ...]) -> dict[str, Any]:
    if name in seen:
        raise ConfigError(f"recipe {name!r} is its own base: {' -> '.join((*seen, name))}")
    tree = _read_yaml(name)
    base = tree.pop("base", None)
    if base is None:
        return tree
    if Path(name).suffix in {".yaml", ".yml"} and Path(name).with_name(str(base)).is_file():
        base = str(Path(name).with_name(str(base)))
    return _merge(_read_with_base(str(base), (*seen, name)), tree)


def _read_yaml(name: str) -> dict[str, Any]:
    if Path(name).suffix in {".yaml", ".yml"}:
        path = Path(name)
        if not path.is_file():
            raise ConfigError(
                f"no recipe file {name}",
                fix="give a path to a YAML file or one of the names: " + ", ".join(list_recipes()),
            )
        text = path.read_text(encoding="utf-8")
    elif name in list_recipes():
        text = importlib.resources.files("facemae.recipes").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    else:
        raise ConfigError(
            f"unknown recipe {name!r}{_nearest(name, list_recipes())}", expected=", ".join(list_recipes())
        )
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"recipe {name} is not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"recipe {name} holds {type(tree).__name__}", expected="a mapping of blocks")
    return tree


def _merge(base: dict[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged


def _apply_override(tree: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise ConfigError(
            f"override {override!r} has no key or no '='", expected="a.b=value, such as optim.batch_size=512"
        )
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"the value of override {override!r} is not valid YAML") from None
    *parents, last = path.split(".")
    node: Any = tree
    for depth, part in enumerate(parents):
        node = _child(node, part, ".".join(parents[: depth + 1]), override)
    _set(node, last, value, override)


def _child(node: Any, part: str, path: str, override: str) -> Any:
    if isinstance(node, list):
        return node[_position(part, node, override)]
    if node.get(part) is None:
        # A block that is null is one that nobody has asked for yet.
        node[part] = [{}] if path == "data.streams" else {}
    child = node[part]
    if not isinstance(child, dict | list):
        raise ConfigError(f"override {override!r}: {path} is {child!r}, not a block")
    return child


def _set(node: Any, part: str, value: Any, override: str) -> None:
    if isinstance(node, list):
        node[_position(part, node, override)] = value
    else:
        node[part] = value


def _position(part: str, node: list[Any], override: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        raise ConfigError(
            f"override {override!r}: {part!r} is no position in a list of {len(node)}",
            expected=f"a number below {len(node)}",
        )
    return int(part)


def leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a tree of mappings and lists under their dotted keys; an empty one is a value itself."""
    if isinstance(tree, Mapping) and tree:
        for key, value in tree.items():
            yield from leaves(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(tree, list | tuple) and tree:
        for position, value in enumerate(tree):
            yield from leaves(value, f"{prefix}.{position}")
    else:
        yield prefix, tree


def _is_free(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in (*FREE_BLOCKS, *FREE_KEYS))


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _readable(error: ValidationError, tree: Mapping[str, Any], origin: str) -> str:
    problems = error.errors()
    lines = [f"recipe {origin} does not fit:"]
    for problem in problems:
        location = problem["loc"]
        # A block with a wrong member also counts as missing from its list; the member's own line says it better.
        if any(other["loc"][: len(location)] == location and other is not problem for other in problems):
            continue
        where = ".".join(str(part) for part in location) or "(whole recipe)"
        if problem["type"] == "extra_forbidden":
            known = _known_keys(location, tree)
            nearest = _nearest(str(location[-1]), known)
            lines.append(f"  {where}: unknown key{nearest or '; known: ' + ', '.join(known)}")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            given = "" if problem["type"] in {"missing", "value_error"} else f" (found {problem['input']!r})"
            lines.append(f"  {where}: {message}{given}")
    return "\n".join(lines)


def _known_keys(location: Sequence[int | str], tree: Any) -> list[str]:
    """Keys of the block that holds the last part of an error's location."""
    block: Any = Recipe
    for part in location[:-1]:
        tree = tree[part]
        block = _member(block, part)
        if block is ObjectiveConfig:
            from facemae.objectives.registry import objective_config_class

            block = objective_config_class(tree["kind"])
    return [field.alias or name for name, field in block.model_fields.items()]


def _member(block: Any, part: int | str) -> Any:
    """The class of a block's field, or of the members of a tuple or mapping, seen through optionals."""
    if isinstance(block, type) and issubclass(block, BaseModel):
        block = block.model_fields[str(part)].annotation
    else:
        arguments = typing.get_args(block)
        block = arguments[0] if isinstance(part, int) else arguments[-1]
    while typing.get_origin(block) in {typing.Annotated, typing.Union, types.UnionType}:
        block = next(argument for argument in typing.get_args(block) if argument is not type(None))
    return block
