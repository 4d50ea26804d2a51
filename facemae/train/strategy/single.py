"""One process."""

import torch

from facemae.train.processes.process_group import OneProcess
from facemae.train.strategy.replicated import Replicated


class SingleProcess(Replicated):
    """The whole step in this process."""

    name = "single"

    def __init__(self) -> None:
        super().__init__()
        self.processes = OneProcess()

    def _sum_over_processes(self, loss: torch.Tensor) -> torch.Tensor:
        return loss
