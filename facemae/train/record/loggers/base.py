"""What a logger is, and why none can stop or delay a run.

A run's own files hold everything. Loggers show it elsewhere, some of them over a network, so each works in a thread of
its own, from its construction on: a server that does not answer costs the run nothing, and what fails is counted and
said once.
"""

import importlib
import json
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from facemae.errors import MissingExtraError
from facemae.files import write_text
from facemae.train.saving.folder import RunFolder

KINDS: dict[str, tuple[str, str]] = {
    "tensorboard": ("facemae.train.record.loggers.tensorboard:TensorBoard", "facemae[train]"),
    "wandb": ("facemae.train.record.loggers.wandb:WeightsAndBiases", "facemae[wandb]"),
    "mlflow": ("facemae.train.record.loggers.mlflow:MLflow", "facemae[mlflow]"),
}
"""Class of each logger, as `module:Class`, and what brings its library. Its module imports that library at the top."""

WAITING = 1000
"""Records that may wait for a logger; more are dropped and counted."""

PATIENCE = 60.0
"""Seconds the loggers get at the end of a run, all together, to send what is waiting."""

SENT = "sent"
"""Under that name of no logger is kept how far all have come."""
_REMEMBERING = threading.Lock()


@dataclass(frozen=True)
class LoggerRun:
    """The run a logger is opened for.

    Attributes:
        folder: Its folder.
        recipe: Its resolved recipe.
        samples: Samples consumed so far.
        sent: Samples up to which an earlier process has logged, at least `samples` where that one was killed; but only
            of the stretch the run is on, not of one it went back from.
    """

    folder: RunFolder
    recipe: Mapping[str, Any]
    samples: int
    sent: int

    @property
    def name(self) -> str:
        """What the run is called elsewhere: its recipe and its folder."""
        return f"{self.recipe.get('name', 'run')}/{self.folder.root.resolve().name}"

    def identity(self, kind: str) -> str | None:
        """The run's id with a service, from an earlier process; None where it has none yet."""
        found = remembered(self.folder.identities).get(kind)
        return None if found is None else str(found)

    def remember(self, kind: str, identity: str) -> None:
        """Keep the run's id, so that the run is continued there too.

        Raises:
            StorageError: It cannot be written.
        """
        remember(self.folder.identities, kind, identity)


class Logger(Protocol):
    """Shows a run somewhere. Constructed with a `LoggerRun`; may raise anything at any time, or never come back."""

    def metrics(self, record: Mapping[str, Any]) -> None:
        """Show a line of metrics; it has `step` and `samples`, and None for what is not finite."""
        ...

    def event(self, record: Mapping[str, Any]) -> None:
        """Show an event; it has `event` (its kind), `text`, `step` and `samples`."""
        ...

    def picture(self, name: str, path: Path, samples: int) -> None:
        """Show a picture that lies in the run folder."""
        ...

    def close(self) -> None:
        """Send what is left."""
        ...


class Loggers:
    """All loggers of a run.

    Args:
        names: Their names in `KINDS`.
        run: The run.

    Raises:
        MissingExtraError: The library of one is not installed.
    """

    def __init__(self, names: Sequence[str], run: LoggerRun) -> None:
        classes = {name: _logger_class(name) for name in names}
        self._workers = [_Worker(name, make, run) for name, make in classes.items()]

    def metrics(self, record: Mapping[str, Any]) -> None:
        """See `Logger`."""
        self._send(lambda logger: logger.metrics(record))

    def event(self, record: Mapping[str, Any]) -> None:
        """See `Logger`."""
        self._send(lambda logger: logger.event(record))

    def picture(self, name: str, path: Path, samples: int) -> None:
        """See `Logger`."""
        self._send(lambda logger: logger.picture(name, path, samples))

    def close(self) -> None:
        """Let all send what they have, for `PATIENCE` seconds at most."""
        deadline = time.monotonic() + PATIENCE
        for worker in self._workers:
            worker.end()
        for worker in self._workers:
            worker.join(deadline)

    def complaints(self) -> list[str]:
        """What has to be said since the last call: the first failure of each logger, and all of them at the end."""
        return [text for worker in self._workers for text in worker.complaints()]

    def _send(self, call: Callable[[Logger], None]) -> None:
        for worker in self._workers:
            worker.send(call)


class _Worker:
    """One logger and the thread it is constructed and works in."""

    def __init__(self, name: str, make: Callable[[LoggerRun], Logger], run: LoggerRun) -> None:
        self._name = name
        self._failures = self._said = 0
        self._first = ""
        self._opened = self._closed = False
        self._lock = threading.Lock()
        self._calls: queue.SimpleQueue[Callable[[Logger], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, args=(make, run), name=f"facemae-{name}", daemon=True)
        self._thread.start()

    def send(self, call: Callable[[Logger], None]) -> None:
        if not self._thread.is_alive():
            return  # it could not be opened
        if self._calls.qsize() < WAITING:
            self._calls.put(call)
        else:
            self._fail(f"does not keep up: {WAITING} records wait")

    def end(self) -> None:
        """Ask it to send what is waiting and to close."""
        self._closed = True
        self._calls.put(None)

    def join(self, deadline: float) -> None:
        """Wait until it has done so.

        Args:
            deadline: When to give it up, in seconds of `time.monotonic`.
        """
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            undone = "send everything" if self._opened else "open"
            self._fail(f"did not {undone} within {PATIENCE:.0f} s of the end")

    def complaints(self) -> list[str]:
        if self._failures == self._said or (self._said and not self._closed):
            return []
        first, self._said = not self._said, self._failures
        if first and not (self._closed and self._failures > 1):
            return [f"logger {self._name} {self._first}; the run goes on, and its own files hold everything"]
        return [f"logger {self._name} failed {self._failures} times; the first: {self._first}"]

    def _work(self, make: Callable[[LoggerRun], Logger], run: LoggerRun) -> None:
        try:
            logger = make(run)
        except Exception as error:  # noqa: BLE001  whatever a service does, the run goes on
            self._fail(f"cannot be opened: {_short(error)}")
            return
        self._opened = True
        for call in iter(self._calls.get, None):
            self._try(call, logger)
        self._try(lambda closing: closing.close(), logger)

    def _try(self, call: Callable[[Logger], None], logger: Logger) -> None:
        try:
            call(logger)
        except Exception as error:  # noqa: BLE001  as above
            self._fail(f"fails: {_short(error)}")
            # TensorBoard raises the same one at every call: its frames would hold every record and picture since.
            error.__traceback__ = None

    def _fail(self, text: str) -> None:
        with self._lock:
            self._first = self._first or text
            self._failures += 1


def _logger_class(name: str) -> Callable[[LoggerRun], Logger]:
    place, extra = KINDS[name]
    module, _, class_name = place.partition(":")
    try:
        found: Callable[[LoggerRun], Logger] = getattr(importlib.import_module(module), class_name)
    except ImportError as error:
        raise MissingExtraError(
            f"log.loggers names {name}, which is not installed: {error}",
            fix=f"pip install '{extra}', or leave it out: log.loggers=[]",
        ) from None
    return found


def remember(path: Path, name: str, value: Any) -> None:
    """Keep something for later starts of the run.

    Args:
        path: `RunFolder.identities`.
        name: A logger, or `SENT`.
        value: The run's id there; or how often the run had gone back, and the samples up to which it has logged.

    Raises:
        StorageError: It cannot be written.
    """
    # Another logger's thread may remember its own at the same time.
    with _REMEMBERING:
        write_text(path, json.dumps({**remembered(path), name: value}, indent=2) + "\n")


def remembered(path: Path) -> dict[str, Any]:
    """What `remember` kept; nothing where it cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _short(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
