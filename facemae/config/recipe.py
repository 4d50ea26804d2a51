"""The root of the tree: a whole pretraining system."""

from typing import Literal

from pydantic import Field, SerializeAsAny, model_validator

from facemae.config.base import Config
from facemae.config.beneath import check_sound
from facemae.config.by_stream import check_streams
from facemae.config.data import DataConfig
from facemae.config.fusion import FusionConfig, check_fusion, check_shared
from facemae.config.model import EncoderConfig, ObjectiveConfig
from facemae.config.monitor import MonitorConfig
from facemae.config.run import CheckpointConfig, EfficiencyConfig, LogConfig, OptimConfig
from facemae.config.sounds import SoundConfig, SoundEncoderConfig
from facemae.config.views import ViewConfig, check_view


class Recipe(Config):
    """A whole pretraining system."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    """Version of this tree."""
    name: str
    """Name of the system."""
    about: str = ""
    """What it is, where its values come from."""
    fidelity: Literal["reference", "paper", "approximate", "own"] = "own"
    """How close it is to a published system: its code, its text, roughly, or none."""
    seed: int = Field(default=0, ge=0)
    """The one seed of the run."""
    data: DataConfig = DataConfig()
    """Streams and their order."""
    views: dict[str, ViewConfig] = Field(default_factory=lambda: {"main": ViewConfig()})
    """Views by name."""
    sounds: dict[str, SoundConfig] = Field(default_factory=dict)
    """Sounds of clips by name."""
    encoder: EncoderConfig = EncoderConfig()
    """The encoder."""
    sound_encoder: SoundEncoderConfig | None = None
    """The encoder of sounds; null where no objective hears any."""
    fusion: FusionConfig | None = None
    """What brings a view and its sound together; objectives take it with `fused`. null for nothing."""
    objectives: tuple[SerializeAsAny[ObjectiveConfig], ...] = Field(min_length=1)
    """What is minimised; terms are weighted and added."""
    optim: OptimConfig = OptimConfig()
    """Optimiser and schedule."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """Saving."""
    efficiency: EfficiencyConfig = EfficiencyConfig()
    """Speed; may change between starts of one run."""
    log: LogConfig = LogConfig()
    """Logging; may change between starts of one run."""
    monitor: MonitorConfig | None = None
    """What is measured on held-out faces; null measures nothing. May change between starts of one run."""

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        self._check_objectives()
        for name, view in self.views.items():
            check_view(name, view, self.encoder)
        for name, sound in self.sounds.items():
            check_sound(name, sound, self.views, self.sound_encoder)
        check_shared(self.encoder, self.sound_encoder)
        check_fusion(self.fusion, self.objectives, self.views, self.sounds, self.sound_encoder)
        check_streams(self.views, self.sounds, self.objectives, [stream.name for stream in self.data.streams])
        if self.monitor is not None and all(view.clip is not None for view in self.views.values()):
            raise ValueError("monitor measures pictures, and every view of the recipe is of clips; set monitor=null")
        if self.optim.batch_size % self.data.lanes:
            raise ValueError(
                f"optim.batch_size {self.optim.batch_size} is not a multiple of data.lanes {self.data.lanes}"
            )
        return self

    def _check_objectives(self) -> None:
        """Raise ValueError where an objective encodes what the recipe does not have."""
        for objective in self.objectives:
            wanted = {
                "view": (objective.view_names(), self.views.keys()),
                "sound": (objective.sound_names(), self.sounds.keys()),
                "view or sound": (objective.either_names(), self.views.keys() | self.sounds.keys()),
            }
            for what, (names, known) in wanted.items():
                for needed in names:
                    if needed not in known:
                        raise ValueError(
                            f"objective {objective.kind!r} needs {what} {needed!r}; the recipe has {sorted(known)}"
                        )
                    if needed in self.sounds and self.sound_encoder is None:
                        raise ValueError(
                            f"objective {objective.kind!r} needs sound {needed!r} and the recipe has no sound_encoder"
                        )

    def unused(self) -> tuple[str, ...]:
        """Views and sounds that are made of every sample, and taken by no objective."""
        used = {
            name
            for objective in self.objectives
            for name in (*objective.view_names(), *objective.sound_names(), *objective.either_names())
        }
        used |= {sound.beneath for name, sound in self.sounds.items() if name in used}
        return tuple(name for name in (*self.views, *self.sounds) if name not in used)
