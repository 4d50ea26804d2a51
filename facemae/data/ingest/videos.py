"""A folder of videos, each with sound of its own or in a file of the same name."""

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from facemae.data.ingest.folder import (
    IMAGES,
    SOUND_ENDINGS,
    VIDEOS,
    Listing,
    Media,
    ending,
    list_folder,
    table_of,
    walk,
)
from facemae.data.ingest.labels import read_labels
from facemae.data.regions import MEMBER
from facemae.errors import DataError


def media_of(source: Path, labels: Path | None = None, path_column: str | None = None) -> Media:
    """Whether a folder is one of images or of videos: by its table of labels, where there is one, else by its files.

    Raises:
        DataError: There are both, or what `read_labels` refuses.
    """
    table = table_of(source, labels)
    if table is not None:
        names: Iterable[str] = (row.path for row in read_labels(table, path_column=path_column).rows)
    else:
        names = (name for media in (IMAGES, VIDEOS) for name in itertools.islice(walk(source, media), 1))
    found = {media.name: media for name in names for media in (IMAGES, VIDEOS) if ending(name) in media.endings}
    if len(found) > 1:
        where = f"{table} lists" if table is not None else f"{source} holds"
        raise DataError(f"{where} images and videos", expected="one of them", fix="--files images or --files videos")
    return next(iter(found.values()), IMAGES)


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
    places = [(source if folder is None else folder) / PurePosixPath(path) for path in paths]
    sounds = {place: _sounds_in(place) for place in {place.parent for place in places}}
    found = [_best(sounds[place.parent].get(place.stem, {})) for place in places]
    if folder is not None and not any(found):
        raise DataError(
            f"{folder} holds the sound of none of {len(paths)} videos",
            expected=f"files called like the videos and ending in {', '.join(SOUND_ENDINGS)}, in the same folders",
        )
    return found


def without_separate(paths: Sequence[str], sounds: Sequence[Path | None], folder: Path | None) -> list[str]:
    """A note where a named folder has the sound of some of the videos only: a set then mixes two kinds of it.

    Args:
        paths: Of the videos.
        sounds: What `separate_sounds` gave for them.
        folder: The folder that was named; None where none was.
    """
    lacking = [path for path, sound in zip(paths, sounds, strict=True) if sound is None]
    if folder is None or not lacking:
        return []
    named = ", ".join(lacking[:3]) + (", …" if len(lacking) > 3 else "")
    return [f"{len(lacking)} of {len(paths)} videos have no file in {folder}, and are taken with their own: {named}"]


def separate_maps(paths: Sequence[str], folder: Path, wanted: bool = True) -> list[Path | None]:
    """The file with the region maps of each video or image: called like it, but ending in `.region.png`.

    Args:
        paths: Of the videos or images, relative to the source.
        folder: Where the maps are.
        wanted: Whether maps are wanted; else there are none.

    Returns:
        A file each; None where there is none.

    Raises:
        DataError: There is no such folder, or it holds maps of none of them.
    """
    if not wanted:
        return [None] * len(paths)
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}", expected="a folder of region maps, or the word template")
    named = [(folder / PurePosixPath(path)).with_suffix(f".{MEMBER}") for path in paths]
    found = [path if path.is_file() else None for path in named]
    if not any(found):
        raise DataError(
            f"{folder} holds the region maps of none of {len(paths)} files",
            expected=f"files called like them and ending in .{MEMBER}, in the same folders, such as {named[0]}",
        )
    return found


def _best(beside: dict[str, Path]) -> Path | None:
    return next((beside[name] for name in SOUND_ENDINGS if name in beside), None)


def _sounds_in(folder: Path) -> dict[str, dict[str, Path]]:
    """Sound files of a folder by stem and ending, whatever case the ending is in."""
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if ending(path.name) in SOUND_ENDINGS and path.is_file():
            found.setdefault(path.stem, {})[ending(path.name)] = path
    return found
