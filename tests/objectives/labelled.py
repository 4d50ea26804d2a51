"""An objective that needs labels, which most samples lack: the hard case of several processes."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import nn

from facemae.config import ObjectiveConfig
from facemae.data.schema import Batch
from facemae.models.encoding import Encoding
from facemae.objectives.base import Need, Objective, Setting, Term


class LabelledConfig(ObjectiveConfig):
    kind: Literal["labelled"] = "labelled"
    view: str = "main"

    def view_names(self) -> tuple[str, ...]:
        return (self.view,)


class Labelled(Objective):
    """Cross-entropy of the labelled samples; where there are none, a constant on which no parameter depends."""

    Config: ClassVar[type[ObjectiveConfig]] = LabelledConfig

    def __init__(self, config: LabelledConfig, setting: Setting) -> None:
        super().__init__(config)
        self.view = config.view
        self.head = nn.Linear(setting.encoder_width, 3)

    def needs(self) -> tuple[Need, ...]:
        return (Need(self.view),)

    def count(self, batch: Batch) -> int:
        return sum("label" in meta for meta in batch.meta)

    def term(
        self, encodings: Mapping[str, Encoding], pixels: Mapping[str, torch.Tensor], batch: Batch, step: int
    ) -> Term:
        rows = [row for row, meta in enumerate(batch.meta) if "label" in meta]
        if not rows:
            return Term(torch.zeros(()))
        logits = self.head(encodings[self.view].patches.mean(dim=1)[rows])
        labels = torch.tensor([batch.meta[row]["label"] for row in rows])
        return Term(F.cross_entropy(logits, labels, reduction="sum"), {"hits": (logits.argmax(1) == labels).sum()})
