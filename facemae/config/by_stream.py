"""Which streams views are made of: what must fit together."""

from collections.abc import Mapping, Sequence

from facemae.config.model import ObjectiveConfig
from facemae.config.sounds import SoundConfig
from facemae.config.views import ViewConfig


def check_streams(
    views: Mapping[str, ViewConfig],
    sounds: Mapping[str, SoundConfig],
    objectives: Sequence[ObjectiveConfig],
    streams: Sequence[str],
) -> None:
    """Raise ValueError where a view is made of a stream that is not there, or something is read or asked for in vain.

    Args:
        views: The recipe's views.
        sounds: Its sounds.
        objectives: Its objectives.
        streams: Names of its streams.
    """
    if all(view.streams is None for view in views.values()):
        return
    for name, view in views.items():
        for stream in view.streams or ():
            if stream not in streams:
                raise ValueError(f"views.{name}.streams names {stream!r}; data.streams has {', '.join(streams)}")
    for stream in streams:
        if not any(view.streams is None or stream in view.streams for view in views.values()):
            raise ValueError(
                f"stream {stream!r} is read and no view is made of it: name it in views.NAME.streams, or take it out "
                "of data.streams"
            )
    for objective in objectives:
        _check_objective(objective, views, sounds, streams)


def _check_objective(
    objective: ObjectiveConfig,
    views: Mapping[str, ViewConfig],
    sounds: Mapping[str, SoundConfig],
    streams: Sequence[str],
) -> None:
    """Raise ValueError where no sample has all that an objective encodes."""
    names = (*objective.view_names(), *objective.sound_names(), *objective.either_names())
    made_of = {name: views[sounds[name].beneath if name in sounds else name].streams or streams for name in names}
    if made_of and not set.intersection(*(set(found) for found in made_of.values())):
        listed = "; ".join(f"{name!r} of {', '.join(found)}" for name, found in made_of.items())
        raise ValueError(
            f"objective {objective.kind!r} takes what no stream has together: {listed}; set views.NAME.streams so that "
            "they share one"
        )
