"""TensorBoard files in the run folder."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from facemae.train.record.loggers.base import LoggerRun
from facemae.train.record.loggers.numbers import numbers


class TensorBoard:
    """Curves over samples seen, pictures, and events as texts."""

    def __init__(self, run: LoggerRun) -> None:
        _silence_writers()
        # Points after the checkpoint are drawn again, also where that is the one before the first step.
        self._writer: Any = SummaryWriter(str(run.folder.tensorboard), purge_step=run.samples + 1)

    def metrics(self, record: Mapping[str, Any]) -> None:
        """See `Logger`."""
        for name, value in numbers(record).items():
            self._writer.add_scalar(name, value, global_step=record["samples"])

    def event(self, record: Mapping[str, Any]) -> None:
        """See `Logger`."""
        self._writer.add_text(f"events/{record['event']}", record["text"], record["samples"])

    def picture(self, name: str, path: Path, samples: int) -> None:
        """See `Logger`."""
        with Image.open(path) as image:
            self._writer.add_image(name, np.asarray(image.convert("RGB")), samples, dataformats="HWC")

    def close(self) -> None:
        """See `Logger`."""
        self._writer.close()


def _silence_writers() -> None:
    """Keep the traceback of a writer's thread off the terminal: its error is raised again by the next call, and told.

    Such as that of a full disk, which ends the run with a message of its own.
    """
    before = threading.excepthook
    if getattr(before, "without_writers", False):
        return

    def tell(failure: threading.ExceptHookArgs) -> None:
        if not type(failure.thread).__module__.startswith("tensorboard."):
            before(failure)

    tell.without_writers = True  # type: ignore[attr-defined]
    threading.excepthook = tell
