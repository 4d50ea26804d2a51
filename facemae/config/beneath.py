"""Where sounds lie beneath views: names, lengths, and what must fit together."""

from collections.abc import Mapping

from facemae.config.sounds import SoundConfig, SoundEncoderConfig
from facemae.config.views import ViewConfig, check_name, numbered


def sound_frames(sound: SoundConfig, view: ViewConfig) -> int:
    """Frames of the spectrogram beneath a view."""
    if sound.frames is not None:
        return sound.frames
    assert view.clip is not None, "checked with the recipe"
    return max(1, round(view.clip.frames / view.clip.fps * sound.mel.rate / sound.mel.hop_samples))


def sound_copies(name: str, sound: SoundConfig, views: Mapping[str, ViewConfig]) -> tuple[str, ...]:
    """What a sound is called in a batch: its own name, or `name/0`, `name/1`, … where its view has copies."""
    return numbered(name, views[sound.beneath].copies)


def check_sound(
    name: str, sound: SoundConfig, views: Mapping[str, ViewConfig], encoder: SoundEncoderConfig | None
) -> None:
    """Raise ValueError where a sound does not fit its view or the encoder that is to hear it."""
    check_name("sound", name)
    if name in views:
        raise ValueError(f"{name!r} is a view and a sound: what is encoded needs a name of its own")
    if sound.beneath not in views:
        raise ValueError(f"sounds.{name}.beneath is {sound.beneath!r}; the views are {sorted(views)}")
    view = views[sound.beneath]
    if view.clip is None and sound.frames is None:
        raise ValueError(
            f"sounds.{name} lies beneath view {sound.beneath!r} of one picture, which has no length: "
            f"set sounds.{name}.frames"
        )
    if encoder is None:
        if sound.mask is not None:
            raise ValueError(f"sounds.{name}.mask hides patches, which only a sound_encoder has: add one")
        return
    found = (sound_frames(sound, view), sound.mel.mels)
    if found != (encoder.frames, encoder.mels):
        raise ValueError(
            f"sounds.{name} has {found[0]} frames of {found[1]} bands; sound_encoder has frames {encoder.frames} and "
            f"mels {encoder.mels}"
        )
