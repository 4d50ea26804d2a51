"""A folder of talking faces: videos with sound and one table of labels, as people who record faces have them."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from facemae.data.regions import MEMBER
from facemae.data.synthetic.dataset import process_map, subject_splits
from facemae.data.synthetic.params import Label
from facemae.data.synthetic.talking.film import frame_count
from facemae.data.synthetic.talking.video import EXTENSION
from facemae.data.synthetic.talking.worker import TalkSettings, make_clip
from facemae.errors import DataError
from facemae.files import storage_errors, write_text
from facemae.parallel import usable_cores

TABLE = "labels.csv"
SETTINGS = "synthetic.json"
_FIRST = ("path", "subject", "split", "identity_split")
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class TalkReport:
    """What was written.

    Attributes:
        clips: Clips in the folder.
        drawn: How many of them this call drew; the others were there.
        frames: Frames in all.
    """

    clips: int
    drawn: int
    frames: int


def make_clips(
    out: Path | str,
    settings: TalkSettings | None = None,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> TalkReport:
    """Draw clips as video files under `out`, with `labels.csv` (path, subject, split, labels) written last.

    Beside each lie its region maps, `NAME.region.png`, one a frame; see `facemae.data.regions`.

    Every file is there whole or not at all, and the same settings give the same bytes at any number of processes. A
    call that was stopped goes on when it is made again: clips that are there are kept. Splits share no person.

    Args:
        out: Folder to make, or to go on with.
        settings: What to draw.
        workers: Worker processes; None takes one a core.
        overwrite: Replace a folder of clips of other settings.
        progress: Called with (clips done, clips in all).

    Raises:
        UsageError: Settings that make no clips.
        DataError: `out` holds something else, or clips of other settings.
        MissingExtraError: PyAV is not installed.
        StorageError: Writing failed underneath.
    """
    settings = settings or TalkSettings()
    out = Path(out)
    splits = subject_splits(settings.seed, settings.identities)
    settings.clip(0)
    _claim(out, settings, overwrite)
    rows: list[dict[str, Label]] = []
    drawn = 0
    with process_map(min(workers or usable_cores(), settings.count)) as run:
        for row, new in run(partial(make_clip, out, settings, splits), range(settings.count)):
            rows.append(row)
            drawn += new
            if progress is not None:
                progress(len(rows), settings.count)
    write_text(out / TABLE, _table(rows))
    return TalkReport(settings.count, drawn, settings.count * frame_count(settings.seconds, settings.fps))


def _claim(out: Path, settings: TalkSettings, overwrite: bool) -> None:
    """Make the folder, or make sure that it is one of these settings."""
    wanted = {"settings": asdict(settings), "source": "procedural: no person is shown", "licence": "CC0-1.0"}
    found = out / SETTINGS
    with storage_errors(out):
        if out.exists() and not out.is_dir():
            raise DataError(f"{out} is a file", expected="a folder, or nothing")
        taken = out.is_dir() and any(not _half_written(path) for path in out.iterdir())
        if taken and not found.is_file():
            raise DataError(
                f"{out} is not empty and not a folder of procedural clips",
                expected="no such folder, an empty one, or one that was begun with these settings",
                fix="choose another folder",
            )
        if taken and json.loads(found.read_text()) != wanted:
            if not overwrite:
                raise DataError(
                    f"{out} holds procedural clips of other settings",
                    expected=f"those in {found}",
                    fix="choose another folder, or replace it: --overwrite",
                )
            for old in (*out.glob(f"id*/id*.{EXTENSION}"), *out.glob(f"id*/id*.{MEMBER}"), out / TABLE):
                old.unlink(missing_ok=True)
        for left in (*out.glob(".*"), *out.glob("id*/.*")):
            if _half_written(left):
                left.unlink()
        write_text(found, json.dumps(wanted, indent=1))


def _half_written(path: Path) -> bool:
    """Whether it is what a killed call was writing, as `facemae.files` names it."""
    return path.name.startswith(".") and ".tmp." in path.name


def _table(rows: list[dict[str, Label]]) -> str:
    """Rows as CSV; a label that a clip does not have is an empty cell."""
    names = list(dict.fromkeys([*_FIRST, *(name for row in rows for name in row)]))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
