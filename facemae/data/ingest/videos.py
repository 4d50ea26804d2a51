"""A folder of videos, each with sound of its own or in a file of the same name."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from facemae.data.ingest.folder import VIDEOS, Listing, list_folder
from facemae.errors import DataError

SOUND_ENDINGS = ("wav", "flac", "mp3", "m4a", "ogg", "opus", "aac")
"""Files with sound, the first of these that there is."""


def holds_videos(source: Path) -> bool:
    """Whether a folder holds a file that is called like a video, at any depth."""
    return any(path.suffix.lower().lstrip(".") in VIDEOS.endings for path in source.rglob("*") if path.is_file())


def list_videos(source: Path, **columns: Any) -> Listing:
    """List the videos of a folder and what is known about them; arguments as for `list_folder`.

    Raises:
        DataError: As `list_folder`.
    """
    return list_folder(source, media=VIDEOS, **columns)


def separate_sounds(paths: Sequence[str], source: Path, folder: Path | None) -> list[Path | None]:
    """The sound file of each video: called like it but for the ending, in the same place below `folder`.

    Args:
        paths: Of the videos, relative to the source.
        source: Where the videos are.
        folder: Where sound files are; None looks beside the videos.

    Returns:
        A file a video; None where there is none and the video's own sound is taken.

    Raises:
        DataError: `folder` was named and is not there, or holds the sound of none of the videos.
    """
    if folder is not None and not folder.is_dir():
        raise DataError(f"there is no folder {folder}", expected="a folder of sound files")
    found = [_sound((source if folder is None else folder) / PurePosixPath(path)) for path in paths]
    if folder is not None and not any(found):
        raise DataError(
            f"{folder} holds the sound of none of {len(paths)} videos",
            expected=f"files called like the videos and ending in {', '.join(SOUND_ENDINGS)}, in the same folders",
        )
    return found


def _sound(video: Path) -> Path | None:
    candidates = (video.with_suffix(f".{ending}") for ending in SOUND_ENDINGS)
    return next((path for path in candidates if path.is_file()), None)
