"""The log of every process but the first: the run has one voice."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from facemae.train.record.audit import Consumed
from facemae.train.record.log import RunLog


class QuietLog(RunLog):
    """Takes what `RunLog` takes; writes nothing, prints nothing, keeps nothing."""

    def __init__(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        """See `RunLog`."""

    def event(self, kind: str, text: str, **facts: Any) -> None:
        """See `RunLog`."""

    @contextlib.contextmanager
    def failures(self) -> Iterator[None]:
        """See `RunLog`."""
        yield

    def consumed(self, step: int, what: Consumed | None = None) -> None:
        """See `RunLog`."""

    def metrics(self, record: Mapping[str, Any]) -> None:
        """See `RunLog`."""

    def picture(self, name: str, path: Path, samples: int) -> None:
        """See `RunLog`."""

    def sync(self) -> None:
        """See `RunLog`."""
