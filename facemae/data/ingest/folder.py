"""A folder of images or videos, with or without a table of labels.

With `labels.csv` (or another table) the listed files are packed. Without one, folders speak: first-level folders named
like splits are the splits, and the next level is the class, as ImageFolder has it; or the subject, as in identity data
sets, if asked.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from facemae.data.ingest.labels import normal_path, read_labels, split_notes
from facemae.data.regions import MEMBER
from facemae.data.splits import canonical_split
from facemae.errors import DataError

EXTENSIONS = {"jpg": "jpg", "jpeg": "jpg", "jpe": "jpg", "png": "png", "webp": "webp"}
"""Formats stored as they come, by the file's ending."""

CONVERTED = ("bmp", "tif", "tiff", "pgm", "ppm", "jp2")
"""Formats stored as PNG, without loss."""

_SHOWN = 8
_DRIVE = re.compile(r"[A-Za-z]:/")

FoldersAre = Literal["class", "subject", "nothing"]


@dataclass(frozen=True)
class Media:
    """A kind of files to look for.

    Attributes:
        name: What they are called in messages.
        endings: Endings of their names.
        beside: Endings of what often lies beside them; files that end otherwise still are noted. None: none is.
    """

    name: str
    endings: tuple[str, ...]
    beside: tuple[str, ...] | None = None


SOUND_ENDINGS = ("wav", "flac", "mp3", "m4a", "ogg", "opus", "aac")
"""Files with sound, the best first."""

IMAGES = Media("images", (*EXTENSIONS, *CONVERTED))
VIDEOS = Media(
    "videos",
    (
        *("mp4", "m4v", "mov", "qt", "3gp", "3g2", "mj2", "f4v", "mkv", "webm", "avi", "divx", "wmv", "asf", "flv"),
        *("mpg", "mpeg", "mpe", "m1v", "m2v", "mpv", "vob", "ts", "mts", "m2ts", "m2t", "mxf", "dv", "ogv", "ivf"),
        *("h264", "264", "h265", "265", "hevc", "mjpeg", "mjpg"),
    ),
    (
        *IMAGES.endings,
        *SOUND_ENDINGS,
        *("csv", "tsv", "txt", "json", "jsonl", "xml", "yaml", "md", "pdf", "srt", "vtt"),
    ),
)


@dataclass(frozen=True)
class SourceFile:
    """An image or video to pack.

    Attributes:
        file: Where it lies.
        path: Its path relative to the folder.
        split: Its split, where known.
        subject: The person shown, where known.
        labels: Its labels.
        source: What it was taken from, such as the video of a frame, where the owner says.
    """

    file: Path
    path: str
    split: str | None = None
    subject: str | None = None
    labels: dict[str, Any] = field(default_factory=dict)
    source: str | None = None

    def meta(self) -> dict[str, Any]:
        """The known fields of the `json` member."""
        fields = {
            "path": self.path,
            "source": self.source,
            "split": self.split,
            "subject": self.subject,
            "labels": self.labels or None,
        }
        return {name: value for name, value in fields.items() if value is not None}


@dataclass(frozen=True)
class Listing:
    """What a source holds.

    Attributes:
        files: Files to pack.
        skipped: (path, reason) of files that are listed and missing, or there and not listed.
        notes: What was decided about splits and folders.
    """

    files: list[SourceFile]
    skipped: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def ending(name: str) -> str:
    """Ending of a file's name in lower case, without the dot."""
    return name.rpartition(".")[2].lower()


def walk(source: Path, media: Media) -> Iterator[str]:
    """Files of a kind below a folder as relative paths with forward slashes; neither hidden ones nor region maps."""
    return (name for name in _files(source) if ending(name) in media.endings)


def _files(source: Path) -> Iterator[str]:
    seen: set[str] = set()
    for root, folders, files in os.walk(source, followlinks=True):
        # Linked folders are followed, each real one once, so that a circle of links ends.
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and not name.endswith(f".{MEMBER}"):
                yield Path(root, name).relative_to(source).as_posix()


def table_of(source: Path, labels: Path | None) -> Path | None:
    """The table of labels of a folder: the one that was named, else its `labels.csv`; None where it has none."""
    usual = source / "labels.csv"
    return labels or (usual if usual.is_file() else None)


def list_folder(
    source: Path,
    *,
    media: Media = IMAGES,
    labels: Path | None = None,
    path_column: str | None = None,
    split_column: str | None = None,
    subject_column: str | None = None,
    label_columns: Sequence[str] | None = None,
    folders_are: FoldersAre = "class",
) -> Listing:
    """List the images or videos of a folder and what is known about them.

    Args:
        source: The folder.
        media: Which files to look for.
        labels: Table of labels; None takes `labels.csv` in the folder, if there is one.
        path_column: See `read_labels`.
        split_column: See `read_labels`.
        subject_column: See `read_labels`.
        label_columns: See `read_labels`.
        folders_are: What the folders below the splits name, where there is no table.

    Raises:
        DataError: No such folder, no such files, or what `read_labels` refuses.
    """
    if not source.is_dir():
        raise DataError(f"there is no folder {source}", expected=f"a folder of {media.name}")
    files = list(_files(source))
    found = [name for name in files if ending(name) in media.endings]
    table = table_of(source, labels)
    if table is not None:
        listing = _from_table(
            source,
            found,
            table,
            path_column=path_column,
            split_column=split_column,
            subject_column=subject_column,
            label_columns=label_columns,
        )
    else:
        if any((path_column, split_column, subject_column, label_columns)):
            raise DataError(f"columns were named and {source} has no labels.csv", fix="name the table: --labels FILE")
        listing = _from_folders(source, found, folders_are)
        listing.notes.extend(_others(files, media))
    if not listing.files:
        listed = [path for path, _ in listing.skipped if path not in found]
        if table is not None and found:
            raise _nothing_meets(source, media, table, listed, found)
        detail = f"; none of the {len(listed)} listed is there" if listed else ""
        detail += "".join(f"; {note}" for note in listing.notes if not listing.skipped)
        endings = ", ".join(media.endings)
        other = VIDEOS if media.name == IMAGES.name else IMAGES
        packed = f"shards are packed already: --data {source} takes them, after `facemae data index {source}`"
        raise DataError(
            f"{source} holds no {media.name} to pack{detail}",
            expected=f"files ending in {endings}; or {other.name}, in {', '.join(other.endings[:6])}, …",
            fix=packed if any(source.glob("*.tar")) else None,
        )
    return listing


def _nothing_meets(source: Path, media: Media, table: Path, listed: Sequence[str], found: Sequence[str]) -> DataError:
    return DataError(
        f"none of the {len(listed)} {media.name} that {table.name} lists is in {source}, and none of the {len(found)} "
        f"that are there is listed: it lists {listed[0]}, and there is {found[0]}",
        expected=f"paths relative to {source}",
        fix=f"correct the paths in {table}, or name the folder that they are relative to",
    )


def _others(files: Sequence[str], media: Media) -> list[str]:
    """A note of the files whose endings say nothing: one may be a video all the same."""
    known = None if media.beside is None else {*media.endings, *media.beside}
    others = [name for name in files if known is not None and ending(name) not in known]
    if not others:
        return []
    kinds = Counter(f".{ending(name)}" if "." in name.rpartition("/")[2] else "without" for name in others)
    counted = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(_SHOWN))
    more = f" and {len(kinds) - _SHOWN} more kinds" if len(kinds) > _SHOWN else ""
    what = f"{counted}{more}, such as {others[0]}"
    then = f"those that are {media.name} are packed once they are renamed, or listed in a labels.csv"
    return [f"files with unknown endings are not looked at: {what}; {then}"]


def _from_table(source: Path, found: list[str], path: Path, **columns: Any) -> Listing:
    table = read_labels(path, **columns)
    present = set(found)
    files, skipped, listed = [], [], set()
    for row in table.rows:
        relative = normal_path(row.path)
        _check_inside(source, path, row.path, relative)
        listed.add(relative)
        file = source / relative
        if relative not in present and not file.is_file():
            skipped.append((row.path, f"listed in {path.name} and missing in the folder"))
            continue
        files.append(SourceFile(file, relative, row.split, row.subject, row.labels, row.source))
    skipped += [(name, f"in the folder and not listed in {path.name}") for name in found if name not in listed]
    return Listing(files, skipped, table.notes)


def inside(path: str) -> bool:
    """Whether a path, relative to a folder, stays in it: neither absolute nor up and out of it."""
    relative = normal_path(path)
    return not (relative.startswith(("/", "../")) or relative == ".." or _DRIVE.match(relative))


def _check_inside(source: Path, table: Path, written: str, relative: str) -> None:
    """Refuse a path out of the source: what is packed, and named in the shards, must be what the folder holds."""
    if not inside(relative):
        raise DataError(
            f"{table} lists {written!r}, which is not inside {source}",
            expected="paths relative to that folder",
            fix="write the paths relative to it, or pack the folder that contains them all",
        )


def _from_folders(source: Path, found: list[str], folders_are: FoldersAre) -> Listing:
    parts = [name.split("/") for name in found]
    first = sorted({part[0] for part in parts if len(part) > 1})
    splits = {name: canonical for name in first if (canonical := canonical_split(name)) is not None}
    notes = split_notes(splits)
    if splits and (len(splits) < len(first) or any(len(part) == 1 for part in parts)):
        others = [name for name in first if name not in splits] or ["files beside the folders"]
        raise DataError(
            f"{source} holds folders named like splits ({', '.join(splits)}) and others ({', '.join(others[:10])})",
            expected="only split folders on the first level, or none",
            fix="move the others away, or list the files in a labels.csv with a split column",
        )
    depth = 1 if splits else 0
    named = folders_are != "nothing" and bool(parts) and all(len(part) > depth + 1 for part in parts)
    if named:
        notes.append(f"{'second' if splits else 'first'}-level folders are read as the {folders_are}")
    files = []
    for name, part in zip(found, parts, strict=True):
        value = part[depth] if named else None
        files.append(
            SourceFile(
                source / name,
                name,
                splits[part[0]] if splits else None,
                value if folders_are == "subject" else None,
                {"class": value} if value is not None and folders_are == "class" else {},
            )
        )
    return Listing(files, [], notes)
