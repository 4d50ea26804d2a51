"""Going back: a run that met a spike continues from an earlier checkpoint with the samples after it.

The order of samples stays a function of position. Going back sets another position for the steps from there on, and is
written down before anything else happens, so a run that is killed at any instant knows which samples it passes over.
"""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from facemae.checkpoint import newest_valid, open_checkpoint
from facemae.checkpoint_folders import remove, step_folders, step_of
from facemae.errors import CheckpointError, ResumeError
from facemae.files import storage_errors, write_text
from facemae.train.optim.schedule import Lengths

_AS_LEFT = "rewinds.json as the run left it"
_PUT_BACK = "put the file back, or start a new run"


@dataclass(frozen=True)
class Rewind:
    """One time a run went back.

    Attributes:
        spike: The step that stood out, from 0.
        step: The steps that were done where it went back to.
        position: Where in the order of global batches it went on: the one after the spike's.
        undisturbed: Whether a run that was never interrupted would have gone back there for the same spike.
    """

    spike: int
    step: int
    position: int
    undisturbed: bool = True


class GoBack(Exception):  # noqa: N818 (a request, not an error)
    """Ends the training loop, in all processes alike, for another start from an earlier checkpoint.

    Args:
        spike: The step that stood out.
        position: The global batch it read.
        target: The steps to go back to; see `scheduled`.
    """

    def __init__(self, spike: int, position: int, target: int) -> None:
        super().__init__(f"step {spike}")
        self.spike, self.position, self.target = spike, position, target


def scheduled(lengths: Lengths, step: int) -> int:
    """The last step, up to this one, after which a checkpoint was due.

    A run that was stopped and continued has further checkpoints; going back to one of those would make it another run.
    """
    every = max(lengths.save, lengths.batch)
    return -(-(step * lengths.batch // every * every) // lengths.batch)


def read_rewinds(path: Path) -> tuple[Rewind, ...]:
    """The times a run went back, oldest first.

    Raises:
        ResumeError: The file is not what was written.
        StorageError: It cannot be read.
    """
    if not path.is_file():
        return ()
    with storage_errors(path, "reading"):
        text = path.read_text(encoding="utf-8")
    try:
        return tuple(Rewind(**entry) for entry in json.loads(text))
    except (ValueError, TypeError) as error:
        raise ResumeError(
            f"{path} does not say which samples the run passes over: {error}", expected=_AS_LEFT, fix=_PUT_BACK
        ) from None


def record_rewind(run: Path, path: Path, request: GoBack, changed_at: int | None) -> Rewind:
    """Write down that a run goes back to the checkpoint it should, or to the one before where that is damaged.

    Args:
        run: The run folder.
        path: The record.
        request: What the training loop ended with.
        changed_at: Steps done where the run last went on on other terms; None where every start kept them.

    Raises:
        CheckpointError: None is intact.
        ResumeError: The record so far is not what was written.
        StorageError: The record cannot be read or written.
    """
    intact = _newest_until(run, request.target)
    if intact is None:
        # Those so old are damaged, or removed by hand; all there are were made before the spike.
        checkpoint, _ = newest_valid(run)
        assert checkpoint is not None, "a run saves before its first step"
        intact = checkpoint.manifest.step
    # Other terms in the stretch that is left behind may be what made the spike.
    undisturbed = intact == request.target and (changed_at is None or changed_at <= intact)
    rewind = Rewind(request.spike, intact, request.position + 1, undisturbed)
    every = [*read_rewinds(path), rewind]
    write_text(path, json.dumps([asdict(entry) for entry in every], indent=2) + "\n")
    return rewind


def remove_abandoned(run: Path, rewinds: Sequence[Rewind]) -> list[str]:
    """Remove the checkpoints of stretches that the run went back from.

    Returns:
        Names of what was removed.

    Raises:
        StorageError: One cannot be removed; the run would otherwise continue from it.
    """
    gone = [folder for folder in step_folders(run) if _is_abandoned(folder, rewinds)]
    for folder in gone:
        remove(folder)
    return [folder.name for folder in gone]


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
            expected=_AS_LEFT,
            fix=_PUT_BACK,
        )


def _newest_until(run: Path, step: int) -> int | None:
    for folder in reversed(step_folders(run)):
        if step_of(folder) <= step:
            with contextlib.suppress(CheckpointError):
                return open_checkpoint(folder).manifest.step
    return None


def _is_abandoned(folder: Path, rewinds: Sequence[Rewind]) -> bool:
    try:
        known = int(json.loads((folder / "trainer.json").read_text(encoding="utf-8")).get("rewinds", 0))
    except (OSError, ValueError):
        return False  # damaged, which is found out and said elsewhere
    return any(rewind.step < step_of(folder) for rewind in rewinds[known:])
