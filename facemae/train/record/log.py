"""What a run writes about itself: metrics, events, consumed keys, lines for people, and what its loggers get."""

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TextIO

from facemae.errors import FacemaeError
from facemae.files import storage_errors
from facemae.train.record.audit import Consumed
from facemae.train.record.loggers import LoggerRun, Loggers
from facemae.train.record.loggers.base import SENT, remember, remembered
from facemae.train.record.progress import Progress
from facemae.train.saving.folder import RunFolder
from facemae.train.saving.preempt import INSISTED


class StepLog:
    """A JSON-lines file with a step in every line, cut back to the checkpoint when a run continues.

    Args:
        path: The file.
        step: Lines after this many steps are removed: those steps will be done again.

    Raises:
        StorageError: It cannot be written.
    """

    def __init__(self, path: Path, step: int) -> None:
        self._path = path
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _cut_after(path, step)
            self._handle: TextIO = path.open("a", encoding="utf-8")
        self._unsynced = False

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a line. Numbers that JSON does not know become null.

        Raises:
            StorageError: It cannot be written.
        """
        clean = {name: _finite(value) for name, value in record.items()}
        with storage_errors(self._path):
            self._handle.write(json.dumps(clean, ensure_ascii=False) + "\n")
            self._handle.flush()
            self._unsynced = True

    def sync(self) -> None:
        """Bring all lines to the disk.

        Raises:
            StorageError: That failed.
        """
        if not self._unsynced:
            return
        with storage_errors(self._path):
            os.fsync(self._handle.fileno())
        self._unsynced = False

    def close(self) -> None:
        """Close the file."""
        # Every line was flushed when it was written; where that failed, it was said, and closing would say it again.
        with contextlib.suppress(OSError):
            self._handle.close()


class RunLog:
    """All logs of a run; a context manager.

    Args:
        folder: The run folder.
        step: Steps already done.
        batch: Samples in a step.
        steps: Steps of the whole run.
        keys: Also write what every step consumed.
        loggers: Names of what else shows the run; see `facemae.train.record.loggers`.
        recipe: The resolved recipe, for them.
        rewinds: How often the run has gone back.

    Raises:
        MissingExtraError: A logger's library is not installed.
        StorageError: What is there cannot be read or continued. So from every method that writes.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        step: int,
        batch: int,
        steps: int,
        keys: bool,
        loggers: Sequence[str] = (),
        recipe: Mapping[str, Any] | None = None,
        rewinds: int = 0,
    ) -> None:
        self._folder, self._step, self._batch = folder, step, batch
        sent = _sent(folder, rewinds, step * batch)
        if loggers and sent > step * batch:
            # The lines that tell are cut off below; a second crash must not make them be sent again.
            remember(folder.identities, SENT, [rewinds, sent])
        self._loggers = Loggers(loggers, LoggerRun(folder, recipe or {}, step * batch, sent))
        self._metrics = StepLog(folder.metrics, step)
        self._keys = StepLog(folder.keys, step) if keys else None
        self._progress = Progress(step, steps)

    def __enter__(self) -> Self:
        self._progress.start()
        self._complain()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()
        self._metrics.close()
        if self._keys is not None:
            self._keys.close()
        self._loggers.close()
        # The reason for ending may be that nothing can be written; the error itself is what the person must see.
        with contextlib.suppress(FacemaeError):
            self._complain()

    def event(self, kind: str, text: str, **facts: Any) -> None:
        """Record that something happened to the run, and tell the person watching."""
        self._record(kind, text, facts)
        self._progress.say(text)

    @contextlib.contextmanager
    def failures(self) -> Iterator[None]:
        """Record an error that ends the run in the block, or a second Ctrl-C, so that its folder says how it ended."""
        try:
            yield
        except FacemaeError as error:
            self._record_end(type(error).__name__, error.found)
            raise
        except KeyboardInterrupt:
            self._record_end(*INSISTED)
            raise

    def _record_end(self, reason: str, found: str) -> None:
        # The reason may be that nothing can be written; the error itself is what the person must see.
        with contextlib.suppress(FacemaeError):
            self._record("stop", f"stopped after step {self._step}: {found}", {"reason": reason})

    def _record(self, kind: str, text: str, facts: Mapping[str, Any]) -> None:
        record = {"time": time.time(), "event": kind, "step": self._step, "text": text, **facts}
        append_line(self._folder.events, record)
        self._loggers.event({**record, "samples": self._step * self._batch})

    def _complain(self) -> None:
        """Say which loggers fail."""
        for text in self._loggers.complaints():
            self.event("logger", text)

    def consumed(self, step: int, what: Consumed | None = None) -> None:
        """Record a finished step.

        Args:
            step: Steps done.
            what: What it consumed, where that is logged.
        """
        self._step = step
        if self._keys is not None and what is not None:
            self._keys.write({"step": step, "keys": list(what.keys), "views": what.views})
        self._progress.advance(step)

    def metrics(self, record: Mapping[str, Any]) -> None:
        """Write one line of metrics."""
        self._metrics.write(record)
        self._loggers.metrics({name: _finite(value) for name, value in record.items()})
        self._progress.show(record)
        self._complain()

    def picture(self, name: str, path: Path, samples: int) -> None:
        """Show a picture in the loggers.

        Args:
            name: What it is called there.
            path: Where it lies.
            samples: Samples seen.
        """
        self._loggers.picture(name, path, samples)

    def sync(self) -> None:
        """Bring metrics and keys to the disk; done before a checkpoint that counts their steps."""
        self._metrics.sync()
        if self._keys is not None:
            self._keys.sync()


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Append one JSON line to a file, whole, also where an earlier write was cut off.

    Raises:
        StorageError: It cannot be written.
    """
    line = json.dumps({name: _finite(value) for name, value in record.items()}, ensure_ascii=False) + "\n"
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as handle:
            if handle.tell() and _last_byte(path) != b"\n":
                line = "\n" + line
            handle.write(line.encode())


def read_lines(path: Path, last: int | None = None) -> list[dict[str, Any]]:
    """Records of a JSON-lines file, without lines that were cut off.

    Args:
        path: The file; a missing one has no records.
        last: Only this many from the end.

    Raises:
        StorageError: It cannot be read.
    """
    if not path.is_file():
        return []
    with storage_errors(path, "reading"):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    records = []
    for line in lines if last is None else lines[-last:]:
        with contextlib.suppress(ValueError):
            records.append(json.loads(line))
    return records


def _sent(folder: RunFolder, rewinds: int, samples: int) -> int:
    """Samples up to which a run's present stretch was logged: steps it goes back from are not those it does then."""
    marks = [(line.get("rewinds", rewinds), line.get("samples", 0)) for line in read_lines(folder.metrics, last=1)]
    marks.append(remembered(folder.identities).get(SENT, (0, 0)))
    return max([samples, *(int(sent) for back, sent in marks if back == rewinds)])


def _cut_after(path: Path, step: int) -> None:
    """Shorten a file to its lines of the first `step` steps; steps ascend."""
    if not path.is_file():
        return
    end = 0
    with path.open("rb") as handle:
        for line in handle:
            try:
                whole = line.endswith(b"\n") and int(json.loads(line)["step"]) <= step
            except (ValueError, KeyError, TypeError):
                whole = False
            if not whole:
                break
            end += len(line)
    if end < path.stat().st_size:
        os.truncate(path, end)


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as handle:
        handle.seek(-1, os.SEEK_END)
        return handle.read(1)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
