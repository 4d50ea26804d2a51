"""What is measured on held-out faces while a run goes on."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from facemae.config.base import Config, OnlyWith, Span, SpanConfig
from facemae.config.data import Where


class MonitorConfig(Config):
    """Frozen features of held-out faces, measured during the run. They change nothing of the training."""

    data: str | None = None
    """Folder of an indexed shard set; null takes that of the run's first stream."""
    reference: Annotated[Where, OnlyWith("label")] = Field(default_factory=lambda: {"split": "train"})
    """Which of its samples the label of another is looked up among; needed with `label`."""
    query: Where = Field(default_factory=lambda: {"split": "valid"})
    """Which of its samples are measured: faces the run does not train on."""
    label: str | None = None
    """Metadata column with the classes for kNN accuracy; null measures the effective rank (RankMe) alone."""
    every: Span = SpanConfig(amount=5, unit="percent")
    """Distance between measurements; each is made with the next line of metrics."""
    samples: int = Field(default=1000, ge=2)
    """Samples taken of each part, at most; the same until shards are adopted or samples erased."""
    k: Annotated[int, OnlyWith("label")] = Field(default=20, ge=1)
    """Neighbours that vote."""
    layer: int = -1
    """Block whose output is the feature; -1 is the last, behind the encoder's final norm."""
    pooling: Literal["mean", "cls"] = "mean"
    """`mean` of the patch tokens, or the class token."""

    @model_validator(mode="after")
    def _held_out(self) -> "MonitorConfig":
        if self.label is not None and self.reference == self.query:
            raise ValueError(f"reference and query are the same samples, {self.query}: each would find itself")
        return self
