"""The groups of samples that an objective compares with each other, across processes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from facemae.data.schema import Batch
from facemae.errors import UsageError
from facemae.objectives.base import Term
from facemae.objectives.exchange import Exchange


@dataclass(frozen=True)
class Group:
    """Samples that are compared, and which of them are this process's own.

    Attributes:
        rows: [N, …], one row for each sample of the group, in the order of the global batch.
        own: Which of this process's samples belong to it; in `rows` they follow each other from `start`.
        start: Row of the first own sample.
    """

    rows: torch.Tensor
    own: slice
    start: int

    @property
    def count(self) -> int:
        """How many own samples belong to the group."""
        return int(self.own.stop - self.own.start)

    @property
    def places(self) -> slice:
        """The own samples' rows."""
        return slice(self.start, self.start + self.count)


def split_groups(rows: torch.Tensor, batch: Batch, size: int, exchange: Exchange) -> Iterator[Group]:
    """The groups that this process's samples belong to.

    Groups that lie within the batch are cut from it. Others need the rows of the other processes, which are gathered
    once; gradients of gathered rows return to their owners.

    Args:
        rows: [B, …], one row for each sample of the batch.
        batch: The batch.
        size: Samples N of a group: positions [kN, (k+1)N) of the global batch.
        exchange: The processes that share the step.

    Raises:
        UsageError: A group does not lie within this micro-step. The trainer refuses such settings before.
    """
    first, last = batch.first_slot, batch.first_slot + len(batch)
    if first % size == 0 and last % size == 0:
        offset, gathered = first, rows
    else:
        # In a single micro-step the processes' rows, one after another, are the global batch.
        offset, gathered = 0, exchange.gather(rows)
        if first != exchange.rank * len(batch) or len(gathered) % size:
            raise UsageError(
                f"groups of {size} samples do not lie within a micro-step: positions {first} to {last - 1} of "
                f"{exchange.world} processes with {len(batch)} samples each",
                expected="efficiency.micro_batch that is a multiple of the objective's group, or null",
            )
    for number in range(first // size, -(-last // size)):
        begin, end = number * size, (number + 1) * size
        own = slice(max(begin, first) - first, min(end, last) - first)
        yield Group(gathered[begin - offset : end - offset], own, first + own.start - begin)


def add_terms(terms: Iterable[Term]) -> Term:
    """The term of a batch from those of its groups' own samples, in the order of `split_groups`."""
    parts = list(terms)
    metrics = {name: torch.stack([part.metrics[name] for part in parts]).sum() for name in parts[0].metrics}
    samples = torch.cat([part.samples for part in parts if part.samples is not None])
    return Term(torch.stack([part.sum for part in parts]).sum(), metrics, samples)
