"""Metrics that stay on the device until a line is written."""

from collections.abc import Mapping

import torch

from facemae.train.processes.process_group import Processes


class MetricBag:
    """Sums of metrics over the steps of a log interval, in float64 on the device.

    Nothing is read back before `read`: the hot path has no synchronisation.

    Args:
        device: Where the metrics are.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sums: dict[str, torch.Tensor] = {}
        self._steps = self._zero()

    def add(self, values: Mapping[str, torch.Tensor], bad: torch.Tensor) -> None:
        """Add a step's values, unless `bad` is 1: a skipped update would make the mean useless."""
        for name, value in values.items():
            total = self._sums.setdefault(name, self._zero())
            total += torch.where(bad > 0, 0.0, value.detach().double())
        self._steps += 1 - bad.double()

    def read(self, processes: Processes) -> dict[str, float | None]:
        """Means since the last reading, and start anew.

        Args:
            processes: Those of the run, all of which call this.

        Returns:
            Means by name; None where every step of the interval was skipped.
        """
        sums = self.state(processes)
        steps = sums.pop("steps")
        self._sums, self._steps = {}, self._zero()
        return {name: value / steps if steps else None for name, value in sums.items()}

    def state(self, processes: Processes) -> dict[str, float]:
        """What a checkpoint keeps, so that a line over an interrupted interval is the undisturbed run's.

        Args:
            processes: Those of the run, all of which call this.
        """
        # Where no sample of a process counts for an objective, the process may not know its metrics.
        known = processes.gather_objects(list(self._sums))
        names = list(dict.fromkeys(name for found in known for name in found))
        sums = [self._sums.get(name, self._zero()) for name in names]
        values = torch.stack([self._steps, *processes.all_reduce_sum(torch.stack(sums))] if sums else [self._steps])
        return dict(zip(("steps", *names), values.tolist(), strict=True))

    def load(self, saved: Mapping[str, float], *, first: bool = True) -> None:
        """Put back what `state` gave.

        Args:
            saved: That.
            first: Whether this is the process that keeps the sums, which `read` adds up over all.
        """
        values = {name: torch.tensor(value, dtype=torch.float64, device=self._device) for name, value in saved.items()}
        self._steps = values.pop("steps", self._zero())
        self._sums = values if first else {name: self._zero() for name in values}

    def _zero(self) -> torch.Tensor:
        return torch.zeros((), dtype=torch.float64, device=self._device)
