"""Objectives by name, imported when asked for."""

import difflib
import importlib

from facemae.config import ObjectiveConfig
from facemae.errors import ConfigError
from facemae.objectives.base import Objective, Setting

OBJECTIVES: dict[str, str] = {
    "audio_to_face": "facemae.objectives.audio_to_face:AudioToFace",
    "clustering": "facemae.objectives.clustering:Clustering",
    "contrastive": "facemae.objectives.contrastive:Contrastive",
    "contrastive_image": "facemae.objectives.contrastive_image:ContrastiveImage",
    "masked_audio": "facemae.objectives.masked_audio:MaskedAudio",
    "masked_image": "facemae.objectives.masked_image:MaskedImage",
    "masked_video": "facemae.objectives.masked_video:MaskedVideo",
    "supervised": "facemae.objectives.supervised:Supervised",
}
"""Class of each objective, as `module:Class`. Another objective is one more file and one more line here."""


def objective_class(kind: str) -> type[Objective]:
    """The class of an objective.

    Raises:
        ConfigError: No objective has this name; the nearest names are given.
    """
    place = OBJECTIVES.get(kind)
    if place is None:
        near = difflib.get_close_matches(str(kind), OBJECTIVES, n=3, cutoff=0.3)
        raise ConfigError(
            f"objective kind {kind!r}",
            expected=f"one of {', '.join(sorted(OBJECTIVES))}",
            fix=f"did you mean {' or '.join(near)}?" if near else None,
        )
    module, _, name = place.partition(":")
    found: type[Objective] = getattr(importlib.import_module(module), name)
    return found


def objective_config_class(kind: str) -> type[ObjectiveConfig]:
    """The configuration class of an objective; errors as `objective_class`."""
    return objective_class(kind).Config


def build_objective(config: ObjectiveConfig, setting: Setting) -> Objective:
    """Build the objective a recipe asks for.

    Raises:
        ConfigError: It does not understand several masks a sample, mixed samples, or views of some streams, and a view
            of its own has them.
    """
    found = objective_class(config.kind)
    if not found.takes_parts:
        _check_whole(config, setting)
    for view in (*config.view_names(), *(name for name in config.either_names() if name in setting.views)):
        if setting.views[view].mixup is not None and not found.takes_mixup:
            raise ConfigError(
                f"views.{view}.mixup mixes samples, and objective {config.kind!r} has no labels to mix with them",
                fix=f"set views.{view}.mixup=null, or give objective {config.kind!r} another view",
            )
        mask = setting.views[view].mask
        if mask is not None and mask.copies > 1 and not found.takes_masks:
            raise ConfigError(
                f"views.{view}.mask.copies is {mask.copies} and objective {config.kind!r} takes one mask a sample",
                fix=f"set views.{view}.mask.copies=1, or views.{view}.copies for several draws of the whole view",
            )
    return found(config, setting)  # type: ignore[call-arg]


def _check_whole(config: ObjectiveConfig, setting: Setting) -> None:
    """Raise ConfigError where what an objective encodes is made of some streams only."""
    for name in (*config.view_names(), *config.sound_names(), *config.either_names()):
        view = setting.sounds[name].beneath if name in setting.sounds else name
        streams = setting.views[view].streams
        if streams is not None:
            raise ConfigError(
                f"objective {config.kind!r} takes all samples of a batch and view {view!r} is made of stream "
                f"{', '.join(streams)} only",
                fix=f"set views.{view}.streams=null, or give the objective another view",
            )
