"""Going back: a run that met a spike continues from an earlier checkpoint with the samples after it.

The order of samples stays a function of position. Going back sets another position for the steps from there on, and is
written down before anything else happens, so a run that is killed at any instant knows which samples it passes over.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from facemae.checkpoint import newest_valid
from facemae.errors import ResumeError
from facemae.files import storage_errors, write_text


@dataclass(frozen=True)
class Rewind:
    """One time a run went back.

    Attributes:
        spike: The step that stood out, from 0.
        step: The steps that were done at the checkpoint it went back to.
        position: Where in the order of global batches it went on: the one after the spike's.
    """

    spike: int
    step: int
    position: int


class GoBack(Exception):  # noqa: N818 (a request, not an error)
    """Ends the training loop, in all processes alike, for another start from an earlier checkpoint.

    Args:
        spike: The step that stood out.
        position: The global batch it read.
    """

    def __init__(self, spike: int, position: int) -> None:
        super().__init__(f"step {spike}")
        self.spike, self.position = spike, position


def read_rewinds(path: Path) -> tuple[Rewind, ...]:
    """The times a run went back, oldest first.

    Raises:
        ResumeError: The file is not what was written.
    """
    if not path.is_file():
        return ()
    with storage_errors(path, "reading"):
        text = path.read_text(encoding="utf-8")
    try:
        return tuple(Rewind(**entry) for entry in json.loads(text))
    except (ValueError, TypeError) as error:
        raise ResumeError(f"{path} does not say which samples the run passes over: {error}") from None


def record_rewind(run: Path, path: Path, request: GoBack) -> Rewind:
    """Write down that a run goes back to its newest intact checkpoint, which is older than the spike.

    Raises:
        CheckpointError: There is none.
        StorageError: It cannot be written.
    """
    checkpoint, _ = newest_valid(run)
    step = 0 if checkpoint is None else checkpoint.manifest.step
    rewind = Rewind(request.spike, step, request.position + 1)
    every = [*read_rewinds(path), rewind]
    write_text(path, json.dumps([asdict(entry) for entry in every], indent=2) + "\n")
    return rewind


def position(rewinds: Sequence[Rewind], step: int) -> int:
    """Which global batch of the order a step reads."""
    last = next((rewind for rewind in reversed(rewinds) if rewind.step <= step), None)
    return step if last is None else step - last.step + last.position


def check_rewinds(rewinds: Sequence[Rewind], step: int, saved: int) -> None:
    """Refuse to continue where the record of what was passed over is not the checkpoint's.

    Args:
        rewinds: The record.
        step: Steps done at the checkpoint.
        saved: Global batches passed at the checkpoint.

    Raises:
        ResumeError: They do not fit.
    """
    found = position(rewinds, step - 1) + 1 if step else 0
    if found != saved:
        raise ResumeError(
            f"after {step} steps the run had passed {saved} global batches; by its record rewinds.json it were {found}",
            expected="rewinds.json as the run left it",
            fix="put the file back, or start a new run",
        )
