"""Watching for values that are not finite, without waiting for the device."""

import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from facemae.data.schema import Batch
from facemae.errors import NonFiniteError
from facemae.files import write_text
from facemae.train.folder import RunFolder
from facemae.train.process_group import Processes
from facemae.train.strategy import Update

REMEMBERED = 8
"""Steps whose keys are kept for the debug bundle."""


@dataclass(frozen=True)
class Skip:
    """An update that was skipped.

    Attributes:
        step: Its step, from 0.
        streak: How many in a row, this one included.
        parameters: Names of those whose gradients were not finite; empty where only the loss was not.
    """

    step: int
    streak: int
    parameters: tuple[str, ...]


class _Flags:
    """An update's flags on their way to the host: whether it was skipped, then one for each gradient."""

    def __init__(self, update: Update) -> None:
        self._names = update.names
        self._event: torch.cuda.Event | None = None
        self._host = value = torch.cat([update.bad.view(1), update.broken])
        if value.is_cuda:
            # An ordinary read would wait for everything queued since, the step now running included.
            self._host = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
            self._host.copy_(value, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()

    def skipped(self) -> bool:
        if self._event is not None:
            self._event.synchronize()
        return bool(self._host[0] > 0)

    def parameters(self) -> tuple[str, ...]:
        return tuple(name for name, broken in zip(self._names, self._host[1:].tolist(), strict=True) if broken)


class Guard:
    """Reads each step's flags one step late and counts skipped updates.

    Args:
        limit: Updates in a row that may be skipped.
        streak: Skipped updates in a row before the first step, from a checkpoint.
        skipped: Skipped updates of the run before the first step, from a checkpoint.
    """

    def __init__(self, limit: int, streak: int = 0, skipped: int = 0) -> None:
        self._limit = limit
        self._pending: tuple[int, _Flags] | None = None
        self._recent: deque[dict[str, Any]] = deque(maxlen=REMEMBERED)
        self.streak = streak
        self.skipped = skipped

    def push(self, batch: Batch, update: Update) -> Skip | None:
        """Remember a step, and read the flags of the one before it."""
        skip = self.read()
        self._pending = (batch.step, _Flags(update))
        self._recent.append({"step": batch.step, "first_slot": batch.first_slot, "keys": list(batch.keys)})
        return skip

    def read(self) -> Skip | None:
        """Read the flags that are still on their way, if any: between steps, before a save, and at the end."""
        if self._pending is None:
            return None
        step, flags = self._pending
        self._pending = None
        if not flags.skipped():
            self.streak = 0
            return None
        self.streak += 1
        self.skipped += 1
        return Skip(step, self.streak, flags.parameters())

    def exhausted(self) -> bool:
        """Whether more updates in a row were skipped than allowed."""
        return self.streak > self._limit

    def stop(self, folder: RunFolder, skip: Skip, facts: dict[str, Any], processes: Processes) -> NonFiniteError:
        """Save the debug bundle; called by all processes.

        Args:
            folder: The run.
            skip: The last update that was skipped.
            facts: What else may explain it: precision, learning rate.
            processes: The processes of the run, each of which knows the keys of its part of a batch.

        Returns:
            The error to raise.
        """
        step, parameters = skip.step, list(skip.parameters)
        path = folder.debug / f"nonfinite-step-{step:08d}.json"
        # The step after it is done by now, since flags are read late; it has nothing to do with this.
        recent = _merged(processes.gather_objects([entry for entry in self._recent if entry["step"] <= step]))
        bundle = {"step": step, "streak": self.streak, "bad_parameters": parameters, **facts, "recent": recent}
        if processes.rank == 0:
            write_text(path, json.dumps(bundle, indent=2) + "\n")
        # Whoever ended now would end the others too, also the one that still writes.
        processes.barrier()
        return NonFiniteError(
            f"loss or gradients were not finite in {self.streak} updates in a row, the last at step {step}; "
            f"all were skipped, and the keys of the last {len(recent)} steps are in {path}",
            expected=f"at most {self._limit} in a row (optim.max_bad_steps)",
            fix="try efficiency.precision=fp32, which continues this run; or start another with a lower optim.base_lr "
            "or with optim.clip set",
        )


def _merged(by_rank: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The steps that every process remembers, with the keys of the whole global batch in the order of its slots."""
    return [
        {**parts[0], "keys": [key for part in parts for key in part["keys"]]} for parts in zip(*by_rank, strict=True)
    ]
