"""Metrics that stay on the device until a line is written."""

from collections.abc import Callable, Mapping

import torch


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

    def read(self, reduce: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, float | None]:
        """Means since the last reading, and start anew.

        Args:
            reduce: Adds a tensor up over all processes.

        Returns:
            Means by name; None where every step of the interval was skipped.
        """
        if not self._sums:
            return {}
        names = list(self._sums)
        steps, *sums = torch.stack([self._steps, *reduce(torch.stack(list(self._sums.values())))]).tolist()
        self._sums, self._steps = {}, self._zero()
        return {name: value / steps if steps else None for name, value in zip(names, sums, strict=True)}

    def state(self, reduce: Callable[[torch.Tensor], torch.Tensor] = torch.clone) -> dict[str, float]:
        """What a checkpoint keeps, so that a line over an interrupted interval is the undisturbed run's.

        Args:
            reduce: Adds a tensor up over all processes.
        """
        sums = reduce(torch.stack(list(self._sums.values()))) if self._sums else ()
        values = torch.stack([self._steps, *sums]).tolist()
        return dict(zip(("steps", *self._sums), values, strict=True))

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
