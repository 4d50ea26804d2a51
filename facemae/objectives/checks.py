"""What several objectives ask of a recipe before anything runs."""

from collections.abc import Mapping, Sequence

from facemae.config import ViewConfig, copy_names
from facemae.errors import ConfigError
from facemae.objectives.base import Setting, SoundSetting


def several_views(kind: str, names: Sequence[str], views: Mapping[str, ViewConfig]) -> tuple[str, ...]:
    """The names in a batch of views that are compared with each other: every copy of each.

    Raises:
        ConfigError: They are fewer than two, or one is named twice.
    """
    if len(set(names)) < len(names):
        raise ConfigError(
            f"objective {kind!r} names a view twice: {', '.join(names)}",
            expected="different views",
            fix="views.NAME.copies draws one view several times",
        )
    found = tuple(copy for name in names for copy in copy_names(views, name))
    if len(found) < 2:
        raise ConfigError(
            f"objective {kind!r} compares views with each other and has only {found[0]!r}",
            expected="two or more",
            fix=f"set views.{found[0]}.copies=2, or name another view",
        )
    return found


def group_size(kind: str, group: int | None, batch_size: int) -> int:
    """Samples that are compared with each other: the group, or the whole batch.

    Raises:
        ConfigError: The group does not divide the batch, or has one sample.
    """
    size = batch_size if group is None else group
    if size < 2 or batch_size % size:
        divisors = [str(number) for number in range(2, batch_size + 1) if batch_size % number == 0]
        raise ConfigError(
            f"objective {kind!r} compares groups of {size} samples and optim.batch_size is {batch_size}",
            expected=f"a group of {', '.join(divisors)}" if divisors else "a batch of two or more",
        )
    return size


def check_pool(kind: str, pool: str, setting: Setting) -> None:
    """Raise ConfigError where a class token is to be pooled and the encoder has none."""
    if pool == "cls" and not setting.class_token:
        raise ConfigError(
            f"objective {kind!r} pools the class token and encoder.name {setting.encoder.name!r} has none",
            fix="set pool=mean",
        )


def check_mix(layers: tuple[int, ...] | None, depth: int) -> None:
    """Raise ConfigError where a decoder's mix of encoder blocks does not end with the encoder's last one."""
    if layers is not None and layers[-1] != depth - 1:
        raise ConfigError(
            f"decoder.mix_layers {list(layers)} ends with block {layers[-1]} of an encoder with {depth} blocks",
            expected=f"{depth - 1} as the last one: blocks behind it would learn nothing",
        )


def check_skips(skips: tuple[int, ...] | None, depth: int) -> None:
    """Raise ConfigError where a decoder looks at encoder blocks that are not there."""
    if skips is not None and max(skips) >= depth:
        raise ConfigError(
            f"decoder.skips {list(skips)} names block {max(skips)} of an encoder with {depth} blocks",
            expected=f"0 to {depth - 1}",
        )


def heard(kind: str, setting: Setting) -> SoundSetting:
    """The sound encoder of an objective that needs one.

    Raises:
        ConfigError: There is none.
    """
    if setting.sound_encoder is None:
        raise ConfigError(
            f"objective {kind!r} hears sounds and the recipe has no sound_encoder", fix="add a block sound_encoder"
        )
    return setting.sound_encoder
