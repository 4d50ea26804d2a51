"""Stopping on request: the signal only raises a flag, the training loop saves at its next step boundary."""

import contextlib
import os
import signal
import threading
from types import FrameType
from typing import Any, Self

WATCHED = (signal.SIGTERM, signal.SIGINT)
"""Signals that ask for a stop."""
INSISTED = ("KeyboardInterrupt", "a second Ctrl-C ended it at once")
"""Reason and sentence for the folder of a run that did not end in an orderly way."""
_HEARD = "Ctrl-C: saving at the end of this step; again, it ends at once"
_AGAIN = "Ctrl-C again: ended at once; the same command continues from the last checkpoint"


class StopRequest:
    """Watches for SIGTERM and SIGINT while a run is going; a context manager.

    The first signal asks for a clean stop. A second Ctrl-C aborts at once, a SIGTERM before the first counts for none,
    and one after it does not hide that a person stopped the run. A step may be long, so Ctrl-C is answered.
    Outside the main thread, where Python cannot handle signals, nothing is watched.

    Args:
        abort: Whether a second Ctrl-C aborts. It does not in the processes of a run that another one has started: that
            one hears it too, answers, and ends them.
    """

    def __init__(self, *, abort: bool = True) -> None:
        self._abort = abort
        self._received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    @property
    def reason(self) -> str | None:
        """Name of the signal that asked for a stop, or None."""
        return None if self._received is None else self._received.name

    def request(self, number: signal.Signals) -> None:
        """Ask for a stop as the signal would."""
        if self._received is not signal.SIGINT:
            self._received = number

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in WATCHED}
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again = self._received is signal.SIGINT
        self.request(signal.Signals(number))
        if not self._abort or number != signal.SIGINT:
            return
        _answer(_AGAIN if again else _HEARD)
        if again:
            raise KeyboardInterrupt


def _answer(text: str) -> None:
    # Python's own stream may be in the middle of a line that the signal has interrupted.
    with contextlib.suppress(OSError):
        os.write(2, f"{text}\n".encode())
