"""One process."""

from facemae.train.processes.process_group import OneProcess
from facemae.train.strategy.replicated import Replicated


class SingleProcess(Replicated):
    """The whole step in this process."""

    name = "single"

    def __init__(self) -> None:
        super().__init__()
        self.processes = OneProcess()

    def _sum_over_processes(self) -> list[bool]:
        return [value.grad is not None for value in self._parameters.values()]
