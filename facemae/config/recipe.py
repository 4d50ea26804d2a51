"""The root of the tree: a whole pretraining system."""

from typing import Literal

from pydantic import Field, SerializeAsAny, model_validator

from facemae.config.base import Config
from facemae.config.data import DataConfig
from facemae.config.model import EncoderConfig, ObjectiveConfig
from facemae.config.monitor import MonitorConfig
from facemae.config.run import CheckpointConfig, EfficiencyConfig, LogConfig, OptimConfig
from facemae.config.sounds import SoundConfig
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
        for objective in self.objectives:
            for needed in objective.view_names():
                if needed not in self.views:
                    raise ValueError(
                        f"objective {objective.kind!r} needs view {needed!r}; the recipe has {sorted(self.views)}"
                    )
        for name, view in self.views.items():
            check_view(name, view, self.encoder)
        for name, sound in self.sounds.items():
            if sound.beneath not in self.views or self.views[sound.beneath].clip is None:
                clips = sorted(name for name, view in self.views.items() if view.clip is not None)
                raise ValueError(f"sounds.{name}.beneath is {sound.beneath!r}; views of clips are {clips or 'none'}")
        if self.monitor is not None and all(view.clip is not None for view in self.views.values()):
            raise ValueError("monitor measures pictures, and every view of the recipe is of clips; set monitor=null")
        if self.optim.batch_size % self.data.lanes:
            raise ValueError(
                f"optim.batch_size {self.optim.batch_size} is not a multiple of data.lanes {self.data.lanes}"
            )
        return self
