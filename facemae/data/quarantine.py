"""The record of samples that did not decode, and the limit above which a run stops."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from facemae.data.schema import Batch, Replacement
from facemae.errors import DamageLimitError
from facemae.files import storage_errors

_FORGIVEN = 8


class Quarantine:
    """Writes replacements to `quarantine.jsonl` and stops a run that has too many.

    Lives in the training processes, which all count and of which one writes. A run that continues from a checkpoint
    meets some replacements again; they are not written twice.

    Args:
        path: The file; one JSON object a line: step, stream, position, requested, used, reason.
        limit: Highest share of samples that may be replaced. The first eight are forgiven, so that one damaged
            sample in the first batch does not stop a run; with a limit of 0 none is.
        writes: Whether this process is the one that writes.
        seen: Samples of the run before this start.
        replaced: Replacements among them.

    Attributes:
        seen: Samples of the run that were recorded.
        replaced: Replacements among them.
    """

    def __init__(self, path: Path, limit: float, *, writes: bool = True, seen: int = 0, replaced: int = 0) -> None:
        self.path = path
        self.limit = limit
        self._writes = writes
        self.seen = seen
        self.replaced = replaced
        self._known, self._torn = _known(path)

    def record(self, batch: Batch, replaced: Sequence[Replacement] | None = None, *, world: int = 1) -> None:
        """Take note of one global batch.

        Args:
            batch: This process's part of it.
            replaced: The replacements of all processes; None for those of this one.
            world: Number of processes.

        Raises:
            DamageLimitError: More samples were replaced than the limit allows.
            StorageError: The file cannot be written.
        """
        replaced = batch.replaced if replaced is None else replaced
        self.seen += len(batch) * world
        self.replaced += len(replaced)
        for replacement in replaced:
            if self._writes and (batch.step, replacement.position) not in self._known:
                self._append(batch.step, replacement)
        if not replaced:
            return
        allowed = self.limit * self.seen + _FORGIVEN if self.limit else 0
        if self.replaced > allowed:
            last = replaced[-1]
            raise DamageLimitError(
                f"{self.replaced} of {self.seen} samples did not decode; the last: {last.requested} ({last.reason})",
                expected=f"a share of at most {self.limit:g} (data.max_damage), beyond the first {_FORGIVEN}",
                fix=f"see {self.path}; find all with `facemae data verify`, or continue with a higher data.max_damage",
            )

    def _append(self, step: int, replacement: Replacement) -> None:
        line = json.dumps({"step": step, **asdict(replacement)}, ensure_ascii=False) + "\n"
        line, self._torn = "\n" * self._torn + line, False
        with storage_errors(self.path):
            # One write in append mode: a reader never sees half a line.
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                os.write(handle, line.encode())
            finally:
                os.close(handle)
        self._known.add((step, replacement.position))


def _known(path: Path) -> tuple[set[tuple[int, int]], bool]:
    """Step and position of the replacements already written, and whether a crash cut off the last line."""
    known: set[tuple[int, int]] = set()
    if not path.exists():
        return known, False
    with storage_errors(path, "reading"):
        text = path.read_text(encoding="utf-8", errors="replace")
    for line in text.splitlines():
        try:
            entry = json.loads(line)
            known.add((int(entry["step"]), int(entry["position"])))
        except (ValueError, KeyError, TypeError):
            continue  # cut off by a crash: it will be written again
    return known, bool(text) and not text.endswith("\n")
