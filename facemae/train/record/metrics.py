"""Metrics that stay on the device until a line is written."""

from collections.abc import Mapping
from typing import TypeVar

import torch

from facemae.train.processes.process_group import Processes

_WHOLE = ""
"""What metrics of the whole step are of."""
_STEPS = "steps"
"""Called so, in a state, is how many steps count; no metric is."""
_Number = TypeVar("_Number", float, torch.Tensor)


class MetricBag:
    """Sums of metrics over the steps of a log interval, in float64 on the device.

    Nothing is read back before `read`: the hot path has no synchronisation. A metric is named `<what>/<of what>`, or
    `<what>` where it is one of the whole step; its mean is over the steps in which something of that counted.

    Args:
        device: Where the metrics are.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sums: dict[str, torch.Tensor] = {}
        self._steps: dict[str, torch.Tensor] = {}

    def add(
        self, values: Mapping[str, torch.Tensor], bad: torch.Tensor, counted: Mapping[str, bool] | None = None
    ) -> None:
        """Add a step's values, unless `bad` is 1: a skipped update would make the mean useless.

        Args:
            values: By name; this process's share.
            bad: 1 where the update was skipped, else 0.
            counted: By what metrics are of, whether anything counted in the global batch, the same in all processes.
                Where nothing did, the step's share of 0 is no small loss.
        """
        for name, value in values.items():
            total = self._sums.setdefault(name, self._zero())
            total += torch.where(bad > 0, 0.0, value.detach().double())
        for name, something in {_WHOLE: True, **(counted or {})}.items():
            steps = self._steps.setdefault(name, self._zero())
            if something:
                steps += 1 - bad.double()

    def read(self, processes: Processes) -> dict[str, float | None]:
        """Means since the last reading, and start anew.

        Args:
            processes: Those of the run, all of which call this.

        Returns:
            Means by name; None where every step of the interval was skipped, or nothing counted in those that were not.
        """
        sums = self.state(processes)
        steps = _pop_steps(sums)
        self._sums, self._steps = {}, {}
        means: dict[str, float | None] = {}
        for name, value in sums.items():
            of = name.partition("/")[2]
            count = steps[of if of in steps else _WHOLE]
            means[name] = value / count if count else None
        return means

    def state(self, processes: Processes) -> dict[str, float]:
        """What a checkpoint keeps, so that a line over an interrupted interval is the undisturbed run's.

        Args:
            processes: Those of the run, all of which call this.
        """
        # Where no sample of a process counts for an objective, the process may not know its metrics.
        known = processes.gather_objects(list(self._sums))
        names = list(dict.fromkeys(name for found in known for name in found))
        sums = [self._sums.get(name, self._zero()) for name in names]
        added = processes.all_reduce_sum(torch.stack(sums)) if sums else ()
        steps = {f"{_STEPS}/{name}" if name else _STEPS: count for name, count in self._steps.items()}
        values = [*steps.values(), *added]
        return dict(zip((*steps, *names), torch.stack(values).tolist() if values else (), strict=True))

    def load(self, saved: Mapping[str, float], *, first: bool = True) -> None:
        """Put back what `state` gave.

        Args:
            saved: That.
            first: Whether this is the process that keeps the sums, which `read` adds up over all.
        """
        values = {name: torch.tensor(value, dtype=torch.float64, device=self._device) for name, value in saved.items()}
        self._steps = _pop_steps(values)
        self._sums = values if first else {name: self._zero() for name in values}

    def _zero(self) -> torch.Tensor:
        return torch.zeros((), dtype=torch.float64, device=self._device)


def _pop_steps(state: dict[str, _Number]) -> dict[str, _Number]:
    """Take the numbers of steps out of a state: by what metrics are of."""
    return {name.partition("/")[2]: state.pop(name) for name in list(state) if name.partition("/")[0] == _STEPS}
