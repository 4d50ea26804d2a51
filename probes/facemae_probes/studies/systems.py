"""Systems that a study compares: a recipe and changes to it, under a short name."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from facemae.config.base import Config
from facemae.errors import ConfigError, UsageError
from facemae.files import storage_errors

BASELINES = ("random", "hog")
"""Names of the lines that are not trained, and so no names of systems."""
_FORM = "a mapping NAME: {recipe: …, overrides: [a.b=c, …]}"
_NAME = re.compile(r"[a-z0-9][a-z0-9_]*")


class System(Config):
    """What is pretrained."""

    name: str
    """Name in the table and in the names of files."""
    recipe: str
    """A recipe of the library, or a path."""
    overrides: tuple[str, ...] = ()
    """Changes to it, each `a.b=c`."""
    about: str = Field(default="", max_length=300)
    """One sentence for the report."""


BUILT_IN = (
    System(name="fmae_tiny", recipe="fmae_tiny", about="masked autoencoder, joint decoder"),
    System(
        name="fmae_tiny_cross",
        recipe="fmae_tiny_cross",
        about="the same with a cross-attention decoder that decodes half of the hidden patches",
    ),
    System(
        name="fmae_tiny_rising",
        recipe="fmae_tiny_rising",
        about="fmae_tiny_cross with a mask ratio that rises from 75 to 90 %",
    ),
    System(name="swav_tiny", recipe="swav_tiny", about="online clustering of crops"),
    System(name="simclr_tiny", recipe="simclr_tiny", about="contrast of two crops"),
    System(
        name="cross_masks4",
        recipe="fmae_tiny_cross",
        overrides=("views.main.mask.copies=4",),
        about="fmae_tiny_cross with four masks of every image",
    ),
    System(
        name="cross_low_start",
        recipe="fmae_tiny_cross",
        overrides=("views.main.image_size=36", "views.main.stages=[{from: 80 percent, image_size: 48}]"),
        about="fmae_tiny_cross at 36 pixels for the first 80 % of the run",
    ),
)
"""Systems known by name."""
DEFAULT = ("fmae_tiny", "fmae_tiny_cross", "fmae_tiny_rising", "swav_tiny", "simclr_tiny")
"""Those that are compared where none are named."""


def find_systems(names: Sequence[str]) -> tuple[System, ...]:
    """Built-in systems by name.

    Args:
        names: Their names; `all` stands for all of them; none takes the default ones.

    Raises:
        UsageError: A name is not known, or comes twice.
    """
    known = {system.name: system for system in BUILT_IN}
    wanted = list(known) if list(names) == ["all"] else list(names) or list(DEFAULT)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise UsageError(
            f"no built-in system {unknown[0]!r}",
            expected=f"all, or some of {', '.join(known)}",
            fix="give a YAML file of systems: NAME: {recipe: …, overrides: [a.b=c, …]}",
        )
    return _different(tuple(known[name] for name in wanted))


def read_systems(path: Path) -> tuple[System, ...]:
    """Systems of a YAML file, which maps each name to `recipe` and, where it has them, `overrides` and `about`.

    Raises:
        ConfigError: The file does not hold that.
        StorageError: It cannot be read.
    """
    with storage_errors(path, "reading"):
        text = path.read_text(encoding="utf-8")
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}", expected=_FORM) from None
    if not isinstance(tree, dict) or not tree:
        raise ConfigError(f"{path} holds no systems", expected=_FORM)
    return _different(tuple(_parse(str(name), entry, path) for name, entry in tree.items()))


def _parse(name: str, entry: Any, path: Path) -> System:
    if not _NAME.fullmatch(name) or name in BASELINES:
        raise ConfigError(
            f"{path}: {name!r} is no name of a system",
            expected=f"small letters, digits and underscores, and none of {', '.join(BASELINES)}",
        )
    if not isinstance(entry, dict):
        raise ConfigError(f"{path}: system {name} is {entry!r}", expected="{recipe: …, overrides: [a.b=c, …]}")
    try:
        return System(name=name, **entry)
    except (ValidationError, TypeError) as error:
        problem = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        where = ".".join(str(part) for part in problem["loc"])
        raise ConfigError(
            f"{path}: system {name}: {where}: {problem['msg']}", expected="recipe, overrides (a list of texts), about"
        ) from None


def _different(systems: tuple[System, ...]) -> tuple[System, ...]:
    names = [system.name for system in systems]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"system {twice[0]} is named twice", expected="each system once")
    return systems
