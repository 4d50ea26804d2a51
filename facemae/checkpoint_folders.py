"""The folders of a run's checkpoints: their names, which are whole, and tidying up.

Kept apart from `facemae.checkpoint`, which reads and writes what is in them, so that `facemae status` needs no torch.
"""

import contextlib
import re
import shutil
from pathlib import Path

from facemae.errors import StorageError
from facemae.files import storage_errors

FOLDER = "checkpoints"
"""The folder in a run folder that holds them."""

_STEP = re.compile(r"step-(\d{8})")


def step_folder(run: Path, step: int) -> Path:
    """Where the checkpoint of a step belongs."""
    return run / FOLDER / f"step-{step:08d}"


def step_folders(run: Path) -> list[Path]:
    """Committed checkpoint folders of a run, oldest first. Says nothing about whether they are intact."""
    found = (path for path in (run / FOLDER).glob("step-*") if path.is_dir() and _STEP.fullmatch(path.name))
    return sorted(found, key=lambda path: path.name)


def step_of(folder: Path) -> int:
    """The step of a checkpoint folder, by its name."""
    return int(folder.name.removeprefix("step-"))


def remove_old(run: Path, keep: int, spare: int | None = None) -> None:
    """Remove all but the newest `keep` checkpoints of a run, and that of the step to be spared.

    A failure to do so is no reason to stop.
    """
    for folder in step_folders(run)[:-keep]:
        if step_of(folder) != spare:
            with contextlib.suppress(StorageError):
                remove(folder)


def remove(folder: Path) -> None:
    """Remove a checkpoint.

    Raises:
        StorageError: It is still there.
    """
    doomed = folder.with_name(f"{folder.name}.tmp")
    # Renamed first: a crash or an error halfway leaves something that is visibly not a checkpoint.
    with storage_errors(folder, "removing"):
        folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def remove_unfinished(run: Path) -> list[str]:
    """Remove what a killed save left behind; only the holder of the run's lease may call this.

    Returns:
        Names of what was removed.
    """
    stale = sorted((run / FOLDER).glob("step-*.tmp"))
    for folder in stale:
        shutil.rmtree(folder, ignore_errors=True)
    return [folder.name for folder in stale]


def set_aside(run: Path, newer_than: int) -> list[str]:
    """Rename checkpoints after a step to `….damaged`, out of the way of the ones that will replace them.

    Only the newest of them is kept, for whoever wants to know what happened to it.

    Returns:
        Sentences that say what was kept and what was removed.

    Raises:
        StorageError: One cannot be renamed.
    """
    newer = [folder for folder in step_folders(run) if step_of(folder) > newer_than]
    for folder in newer:
        aside = folder.with_name(f"{folder.name}.damaged")
        shutil.rmtree(aside, ignore_errors=True)
        with storage_errors(folder):
            folder.rename(aside)
    if not newer:
        return []
    kept = f"{newer[-1].name}.damaged"
    removed = [path for path in sorted((run / FOLDER).glob("step-*.damaged")) if path.name != kept]
    for path in removed:
        shutil.rmtree(path, ignore_errors=True)
    return [f"kept {kept}", *(f"removed {path.name}, an older damaged checkpoint" for path in removed)]
