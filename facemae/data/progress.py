"""Progress on stderr: a bar on a terminal, plain lines elsewhere."""

import contextlib
import datetime as dt
import sys
import time
from collections.abc import Callable, Iterator

_BETWEEN_LINES = 10.0


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Report on the activity `what` while the block runs.

    Yields:
        A function of (done, in all).
    """
    if sys.stderr.isatty():
        with _bar(what) as report:
            yield report
    else:
        yield _lines(what)


@contextlib.contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    parts = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*parts, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(what: str) -> Callable[[int, int], None]:
    begin = last = time.monotonic()
    before: int | None = None

    def report(done: int, total: int) -> None:
        nonlocal last, before
        # What was there when this call began has no part in the rate.
        before = done - 1 if before is None else before
        now = time.monotonic()
        # Short work says nothing; a log of long work shows that it lives.
        if now - last >= _BETWEEN_LINES:
            last = now
            rate = (done - before) / (now - begin)
            left = dt.timedelta(seconds=round((total - done) / rate)) if rate > 0 else "unknown"
            print(f"{what}: {done} of {total}, {rate:.3g} a second, ETA {left}", file=sys.stderr, flush=True)

    return report
