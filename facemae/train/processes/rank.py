"""One process of a run that `facemae.train.processes.launcher` has started: it works, listens, and says how it ended.

Light until the job is unpickled, so that it listens from the first moment.
"""

import contextlib
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from facemae.errors import FacemaeError, ProcessError
from facemae.train.saving.preempt import WATCHED, StopRequest


@dataclass(frozen=True)
class Began:
    """The process has taken the run folder."""


@dataclass(frozen=True)
class Ending:
    """The process has an error, and writes down what it must; that may last, as loggers get time to send all."""


@dataclass(frozen=True)
class Done:
    """The job's result."""

    result: Any


@dataclass(frozen=True)
class Failed:
    """The job's error.

    Attributes:
        error: The error, where it is one of ours.
        text: Its traceback.
        moment: When it was caught, in seconds of the machine's monotonic clock, which all its processes share.
    """

    error: FacemaeError | None
    text: str
    moment: float

    @property
    def is_consequence(self) -> bool:
        """Whether it may only say that another process is gone."""
        return isinstance(self.error, ProcessError)


Tell = Callable[[Began | Ending], None]
Job = Callable[[StopRequest, Tell], Any]
"""What each process does; picklable. It heeds the request, and tells how far it is."""


def main(connection: "Connection[Any, Any]") -> NoReturn:
    """Receive the job, do it, send back how it went. Ends at once when the process that started this one is gone.

    Args:
        connection: To that process.
    """
    # Passed on by number, hence inheritable; a grandchild that kept it open would hide this process's end.
    os.set_inheritable(connection.fileno(), False)
    with StopRequest(abort=False) as stop:
        # They were held back since before this process began.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)
        try:
            given = connection.recv_bytes()
        except EOFError:
            raise SystemExit(1) from None
        threading.Thread(target=_listen, args=(connection, stop), name="facemae-listen", daemon=True).start()
        message = _work(given, connection, stop)
        with contextlib.suppress(OSError):
            connection.send(message)
    raise SystemExit(int(isinstance(message, Failed)))


def _work(given: bytes, connection: "Connection[Any, Any]", stop: StopRequest) -> Done | Failed:
    try:
        job: Job = pickle.loads(given)  # noqa: S301  from the process that started this one
        return Done(job(stop, connection.send))
    except BaseException as error:  # noqa: BLE001  whatever it was, the process that started this one reports it
        own = error if isinstance(error, FacemaeError) else None
        return Failed(own, "".join(traceback.format_exception(error)), time.monotonic())


def _listen(connection: "Connection[Any, Any]", stop: StopRequest) -> None:
    try:
        while True:
            stop.request(connection.recv())
    except (EOFError, OSError):
        # Not an orderly end: nobody is left to whom this process could report, or who would end it.
        os._exit(1)
