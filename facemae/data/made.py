"""What views and sounds of a batch share: tensors with a row for each sample that they were made of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Self

import torch


@dataclass(frozen=True)
class Made:
    """What views and sounds of a batch share.

    Attributes:
        rows: int64 [R], ascending: the samples of the batch that it was made of, one for each of its rows. None where
            it was made of all.
    """

    rows: torch.Tensor | None = field(default=None, kw_only=True)

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        """With each tensor changed."""
        found = {part.name: getattr(self, part.name) for part in fields(self)}
        return replace(self, **{name: change(value) for name, value in found.items() if value is not None})

    def contents(self) -> list[torch.Tensor]:
        """What was made: the tensors that there are, without `rows`."""
        found = [getattr(self, part.name) for part in fields(self) if part.name != "rows"]
        return [tensor for tensor in found if tensor is not None]

    def tensors(self) -> list[torch.Tensor]:
        """All tensors that there are."""
        return self.contents() + ([] if self.rows is None else [self.rows])

    def row(self, sample: int) -> int | None:
        """The row of a sample of the batch; None where it has none."""
        if self.rows is None:
            return sample
        place = int(torch.searchsorted(self.rows, sample))
        return place if place < len(self.rows) and int(self.rows[place]) == sample else None

    def of(self, samples: Sequence[int]) -> Self:
        """Of some samples of the batch, ascending, which become the samples 0, 1, 2 and so on."""
        wanted = torch.tensor(samples, dtype=torch.int64)
        if self.rows is None:
            return self.map(lambda tensor: tensor[wanted.to(tensor.device)])
        held = self.rows.cpu()
        kept = torch.isin(held, wanted).nonzero()[:, 0]
        part = self.map(lambda tensor: tensor[kept.to(tensor.device)])
        return replace(part, rows=torch.searchsorted(wanted, held[kept]).to(self.rows.device))

    def part(self, start: int, stop: int) -> Self:
        """Of the samples from `start` to `stop`, without a copy."""
        if self.rows is None:
            return self.map(lambda tensor: tensor[start:stop])
        first, last = torch.searchsorted(self.rows, torch.tensor([start, stop], device=self.rows.device)).tolist()
        part = self.map(lambda tensor: tensor[first:last])
        assert part.rows is not None
        return replace(part, rows=part.rows - start)
