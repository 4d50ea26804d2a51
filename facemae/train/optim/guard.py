"""Watching for updates that had to be skipped, without waiting for the device."""

import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

from facemae.config import OptimConfig
from facemae.data.schema import Batch
from facemae.errors import FacemaeError, NonFiniteError, SpikeError
from facemae.files import write_text
from facemae.train.processes.process_group import Processes
from facemae.train.saving.folder import RunFolder
from facemae.train.strategy import Update

REMEMBERED = 8
"""Steps whose keys are kept for the debug bundle."""


@dataclass(frozen=True)
class Skip:
    """An update that was skipped.

    Attributes:
        step: Its step, from 0.
        position: The global batch it read.
        streak: How many in a row were skipped for the same reason, this one included.
        parameters: Names of those whose gradients were not finite; empty where only the loss was not.
        spike: For a gradient norm that stood out, itself and the largest that would not; None for other reasons.
    """

    step: int
    position: int
    streak: int
    parameters: tuple[str, ...]
    spike: tuple[float, float] | None = None

    @property
    def text(self) -> str:
        """A sentence for the log; people count steps from 1, as lines of progress do."""
        if self.spike is None:
            return f"step {self.step + 1}: loss or gradients not finite, update skipped ({self.streak} in a row)"
        norm, ceiling = self.spike
        return f"step {self.step + 1}: gradient norm {norm:.4g} is above {ceiling:.4g}, update skipped"


class _Flags:
    """An update's flags on their way to the host: whether it was skipped, and why; then one for each gradient."""

    def __init__(self, update: Update) -> None:
        self._names = update.names
        self._event: torch.cuda.Event | None = None
        self._host = value = torch.cat(
            [torch.stack([update.bad, update.spike, update.norm, update.ceiling]), update.broken]
        )
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

    def spike(self) -> tuple[float, float] | None:
        return (float(self._host[2]), float(self._host[3])) if self._host[1] > 0 else None

    def parameters(self) -> tuple[str, ...]:
        return tuple(name for name, broken in zip(self._names, self._host[4:].tolist(), strict=True) if broken)


class Guard:
    """Reads each step's flags one step late and counts skipped updates.

    Args:
        config: The recipe's block: how many may be skipped, and what is done about a gradient that stands out.
        state: What `state` gave at the checkpoint; empty for a fresh run.
        rewinds: How often the run has gone back.
    """

    def __init__(self, config: OptimConfig, state: Mapping[str, Any] = MappingProxyType({}), rewinds: int = 0) -> None:
        self._limit, self._policy, self._rewinds = config.max_bad_steps, config.spike, rewinds
        self._pending: tuple[int, int, _Flags] | None = None
        self._recent: deque[dict[str, Any]] = deque(maxlen=REMEMBERED)
        self._streaks = {False: int(state.get("bad_streak", 0)), True: int(state.get("spike_streak", 0))}
        self._skipped, self._spikes = int(state.get("skipped", 0)), int(state.get("spikes", 0))

    def state(self) -> dict[str, int]:
        """What a checkpoint keeps."""
        return {
            "bad_streak": self._streaks[False],
            "spike_streak": self._streaks[True],
            "skipped": self._skipped,
            "spikes": self._spikes,
            "rewinds": self._rewinds,
        }

    def counts(self) -> dict[str, int]:
        """For a line of metrics: skipped updates of the run, and what became of gradients that stood out."""
        if self._policy is None:
            return {"skipped": self._skipped}
        if self._policy.action == "skip":
            return {"skipped": self._skipped, "spikes": self._spikes}
        return {"skipped": self._skipped, "rewinds": self._rewinds}

    def push(self, step: int, batch: Batch, update: Update) -> Skip | None:
        """Remember a step, and read the flags of the one before it."""
        skip = self.read()
        self._pending = (step, batch.step, _Flags(update))
        self._recent.append({"step": step, "first_slot": batch.first_slot, "keys": list(batch.keys)})
        return skip

    def read(self) -> Skip | None:
        """Read the flags that are still on their way, if any: between steps, before a save, and at the end."""
        if self._pending is None:
            return None
        step, position, flags = self._pending
        self._pending = None
        if not flags.skipped():
            self._streaks = dict.fromkeys(self._streaks, 0)
            return None
        spike = flags.spike()
        stood_out = spike is not None
        self._streaks[stood_out] += 1
        self._skipped += 1
        self._spikes += stood_out
        return Skip(step, position, self._streaks[stood_out], flags.parameters(), spike)

    def goes_back(self, skip: Skip) -> bool:
        """Whether the run is to go back to a checkpoint before this step."""
        return skip.spike is not None and self._policy is not None and self._policy.action == "rewind"

    def exhausted(self, skip: Skip) -> bool:
        """Whether more updates in a row were skipped than allowed, or the run may not go back once more."""
        if skip.spike is None or self._policy is None:
            return skip.streak > self._limit
        return self._rewinds >= self._policy.limit if self.goes_back(skip) else skip.streak > self._policy.limit

    def stop(self, folder: RunFolder, skip: Skip, facts: dict[str, Any], processes: Processes) -> FacemaeError:
        """Save the debug bundle; called by all processes.

        Args:
            folder: The run.
            skip: The last update that was skipped.
            facts: What else may explain it: precision, learning rate.
            processes: The processes of the run, each of which knows the keys of its part of a batch.

        Returns:
            The error to raise.

        Raises:
            StorageError: The bundle cannot be written.
        """
        step, parameters = skip.step, list(skip.parameters)
        path = folder.debug / f"{'nonfinite' if skip.spike is None else 'spike'}-step-{step:08d}.json"
        # The step after it is done by now, since flags are read late; it has nothing to do with this.
        recent = _merged(processes.gather_objects([entry for entry in self._recent if entry["step"] <= step]))
        bundle = {"step": step, "streak": skip.streak, "bad_parameters": parameters, **facts, "recent": recent}
        if skip.spike is not None:
            bundle["gradient_norm"], bundle["ceiling"] = skip.spike
        if processes.rank == 0:
            write_text(path, json.dumps(bundle, indent=2) + "\n")
        # Whoever ended now would end the others too, also the one that still writes.
        processes.barrier()
        if skip.spike is not None:
            return self._spike_error(skip, f"the keys of the last {len(recent)} steps are in {path}")
        return NonFiniteError(
            f"loss or gradients were not finite in {skip.streak} updates in a row, the last at step {step + 1}; "
            f"all were skipped, and the keys of the last {len(recent)} steps are in {path}",
            expected=f"at most {self._limit} in a row (optim.max_bad_steps)",
            fix="try efficiency.precision=fp32, which continues this run; or start another with a lower optim.base_lr "
            "or with optim.clip set",
        )

    def _spike_error(self, skip: Skip, where: str) -> SpikeError:
        assert skip.spike is not None
        assert self._policy is not None
        norm, ceiling = skip.spike
        limit = self._policy.limit
        found = f"the gradient norm of step {skip.step + 1} is {norm:.4g}, above {ceiling:.4g}, "
        if self.goes_back(skip):
            found += f"and the run has gone back {self._rewinds} times already"
            allowed = f"at most {limit} times (optim.spike.limit)"
        else:
            found += f"as in the {skip.streak - 1} updates before it, which were skipped"
            allowed = f"at most {limit} in a row (optim.spike.limit)"
        return SpikeError(
            f"{found}; {where}",
            expected=allowed,
            fix="so many are no accident: start another run with a lower optim.base_lr, a longer optim.warmup or a "
            "higher optim.spike.factor; a higher optim.spike.limit continues this one",
        )


def _merged(by_rank: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The steps that every process remembers, with the keys of the whole global batch in the order of its slots."""
    return [
        {**parts[0], "keys": [key for part in parts for key in part["keys"]]} for parts in zip(*by_rank, strict=True)
    ]
