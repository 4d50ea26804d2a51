"""How objectives that compare samples with each other see those of other processes."""

from typing import Protocol

import torch


class Exchange(Protocol):
    """The processes that share a step; see `facemae.train.processes.process_group` for those of several processes.

    Every process computes the terms of its own samples against the gathered ones; the strategy then sums gradients over
    processes. So `gather` must hand the gradient of what another process did with a row back to the row's owner.
    That is an exchange too: if rows need a gradient, each process's loss depends on what it gathered, be it times zero.
    """

    @property
    def rank(self) -> int:
        """This process's number."""
        ...

    @property
    def world(self) -> int:
        """Number of processes."""
        ...

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows of all processes, in rank order: the order of the global batch within a micro-step.

        Args:
            rows: [B, …]; every process gives as many.

        Returns:
            [world * B, …]. Its gradient is summed over processes and returned to the owners.
        """
        ...


class Alone:
    """One process: there is nobody to exchange with."""

    rank = 0
    world = 1

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """See `Exchange`."""
        return rows
