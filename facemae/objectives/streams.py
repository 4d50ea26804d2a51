"""The loss of each stream by itself, where a recipe mixes several: their mean hides one that does not learn."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch

from facemae.data.schema import Batch, SoundBatch, ViewBatch
from facemae.objectives.base import Objective
from facemae.objectives.transfer import upload


class StreamLosses:
    """Tells the streams of a batch apart.

    Args:
        names: The recipe's streams; with a single one there is nothing to tell.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names) if len(names) > 1 else ()

    def counts(self, objectives: Iterable[Objective], batch: Batch) -> tuple[int, ...]:
        """Each objective's count of each stream's samples: first objective by stream, second by stream, and so on."""
        parts = [_metadata_of(batch, name) for name in self.names]
        return tuple(objective.count(part) for objective in objectives for part in parts)

    def metrics(
        self, objective: str, samples: torch.Tensor | None, batch: Batch, counts: Sequence[int]
    ) -> dict[str, torch.Tensor]:
        """This batch's share of `loss/<objective>/<stream>`: the mean over what counts of the stream's samples.

        Args:
            objective: What it is called in the log.
            samples: What each sample adds to the term, [B]; None where the objective does not say.
            batch: The batch.
            counts: The objective's counts over the global batch, by stream.
        """
        if samples is None or not self.names:
            return {}
        # Made on the CPU and sent along: reading the samples' losses back would wait for the device.
        member = torch.tensor([[stream == name for stream in batch.streams] for name in self.names])
        divisor = torch.tensor(counts, dtype=torch.float32).clamp(min=1)
        member, divisor = (upload(part, samples.device) for part in (member, divisor))
        sums = torch.where(member, samples.detach().float(), 0.0).sum(dim=1) / divisor
        return {f"loss/{objective}/{name}": value for name, value in zip(self.names, sums, strict=True)}


def _metadata_of(batch: Batch, stream: str) -> Batch:
    """The samples of one stream without pixels and spectrograms, which a count does not look at."""
    light = replace(
        batch,
        views={name: ViewBatch(view.image[:, :0], None, rows=view.rows) for name, view in batch.views.items()},
        sounds={
            name: SoundBatch(sound.mel[:, :0], sound.present, rows=sound.rows) for name, sound in batch.sounds.items()
        },
    )
    return light.of([sample for sample, name in enumerate(batch.streams) if name == stream])
