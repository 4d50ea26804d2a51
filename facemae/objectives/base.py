"""What the trainer knows of an objective."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import nn

from facemae.config import EncoderConfig, LabelCounts, ObjectiveConfig, SoundConfig, SoundEncoderConfig, ViewConfig
from facemae.data.schema import Batch
from facemae.models.encoding import Encoding
from facemae.objectives.exchange import Alone, Exchange


@dataclass(frozen=True)
class Need:
    """An encoding an objective asks for.

    Attributes:
        view: Name of the view, or of the sound.
        layers: 0-based blocks whose outputs are needed beside the last.
        fused: Whether its tokens after fusion are needed too: `Encoding.fused`.
        encoded: Whether it is encoded; else only its pixels are wanted.
    """

    view: str
    layers: tuple[int, ...] = ()
    fused: bool = False
    encoded: bool = True


@dataclass(frozen=True)
class Term:
    """An objective's share of the loss, before it is divided.

    Attributes:
        sum: Scalar: the loss summed over what `Objective.count` counts.
        metrics: Further sums for the log, divided by the same count.
        samples: [B], what each sample of the batch adds to `sum`, 0 where it does not count; for the log, which tells
            streams apart by it. None where the loss has no such parts.
    """

    sum: torch.Tensor
    metrics: dict[str, torch.Tensor] = field(default_factory=dict)
    samples: torch.Tensor | None = None


@dataclass(frozen=True)
class Reconstruction:
    """A predicted view, for pictures.

    Attributes:
        view: Name of the view, or of the sound.
        pixels: [B, C, H, W], of clips [B, T, C, H, W], of a sound [B, 1, frames, mels], normalised, as predicted at the
            hidden patches and as given elsewhere.
    """

    view: str
    pixels: torch.Tensor


@dataclass(frozen=True)
class SoundSetting:
    """The sound encoder that an objective is built for.

    Attributes:
        config: Its configuration.
        width: Dimension of its tokens.
        depth: Number of its blocks.
    """

    config: SoundEncoderConfig
    width: int
    depth: int


@dataclass(frozen=True)
class Setting:
    """What an objective is built for.

    Attributes:
        encoder: The encoder's configuration.
        encoder_width: Dimension of its tokens.
        encoder_depth: Number of its blocks.
        class_token: Whether its first token is a class token.
        views: The recipe's views.
        seed: The run's seed.
        batch_size: Samples of a global batch.
        exchange: The processes that share a step.
        sounds: The recipe's sounds.
        sound_encoder: The sound encoder; None without one.
    """

    encoder: EncoderConfig
    encoder_width: int
    encoder_depth: int
    class_token: bool
    views: Mapping[str, ViewConfig]
    seed: int
    batch_size: int
    exchange: Exchange = field(default_factory=Alone)
    sounds: Mapping[str, SoundConfig] = field(default_factory=dict)
    sound_encoder: SoundSetting | None = None


class Objective(nn.Module, ABC):
    """A term of the loss, with the modules only it needs.

    The trainer sums counts over micro-batches and processes before the first backward pass and divides by them, so a
    sample weighs the same at any number of processes and accumulation steps.

    One that compares samples says in `ObjectiveConfig.group_size` how many, N: positions [kN, (k+1)N) of the global
    batch. The trainer refuses settings in which such a group would not lie within one micro-step over all processes.
    """

    Config: ClassVar[type[ObjectiveConfig]]
    takes_masks: ClassVar[bool] = False
    """Whether it understands encodings of several masked versions of a sample (`Encoding.masks`)."""

    takes_mixup: ClassVar[bool] = False
    """Whether it mixes losses as views mix their samples (`views.NAME.mixup`)."""

    takes_parts: ClassVar[bool] = False
    """Whether it understands views of some samples of a batch only (`views.NAME.streams`, `Batch.rows`)."""

    def __init__(self, config: ObjectiveConfig) -> None:
        super().__init__()
        self.config: ObjectiveConfig = config

    @abstractmethod
    def needs(self) -> tuple[Need, ...]:
        """The encodings to be computed."""

    @abstractmethod
    def count(self, batch: Batch) -> int:
        """How many units of the batch take part: a pure function of its metadata, on the CPU."""

    @abstractmethod
    def term(
        self, encodings: Mapping[str, Encoding], pixels: Mapping[str, torch.Tensor], batch: Batch, step: int
    ) -> Term:
        """The term of a batch.

        Encodings and pixels of a view have R rows: one for each of `Batch.rows`, or for each of all B samples.

        Args:
            encodings: By view and sound; visible patches as the batch says.
            pixels: By view, [R, C, H, W], of clips [R, T, C, H, W], normalised, fp32; by sound, [R, 1, frames, mels].
            batch: The batch.
            step: The optimiser step.
        """

    def check_labels(self, found: LabelCounts) -> str | None:
        """Refuse labels it does not understand, before a run starts; what it found, for the log.

        Args:
            found: The values of its label columns.

        Raises:
            FacemaeError: A column is missing, or a value has no meaning.
        """
        return None

    def reconstruct(
        self, encodings: Mapping[str, Encoding], pixels: Mapping[str, torch.Tensor]
    ) -> Reconstruction | None:
        """The view as this objective predicts it, or None where it predicts no pixels."""
        return None
