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
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from facemae.config import (
    ObjectiveConfig,
    Recipe,
)
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


def _read_with_base(name: str, seen: tuple[str, ...]) -> dict[str, Any]:
    if name in seen:
        raise ConfigError(
            f"recipe {name!r} is its own base: {' -> '.join((*seen, name))}",
            fix="name another recipe as the base of one of them, or none",
        )
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
        raise ConfigError(
            f"recipe {name} is not valid YAML: {error}", expected="what `facemae config RECIPE` prints"
        ) from None
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
        raise ConfigError(
            f"the value of override {override!r} is not valid YAML",
            expected="a value such as 0.1, mean, [1, 2] or {a: 1}",
            fix="quote it for the shell: 'a.b={c: 1}'",
        ) from None
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
        raise ConfigError(f"override {override!r}: {path} is {child!r}, not a block", fix=f"set it whole: {path}=…")
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
