"""What is to be read where clips are asked for: videos and sound files, folders of them, packed sets of clips."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from facemae.data.ingest.folder import SOUND_ENDINGS, VIDEOS, ending
from facemae.data.ingest.videos import separate_sounds
from facemae.data.material import clip_extension
from facemae.data.schema import IMAGE_EXTENSIONS
from facemae.errors import UsageError
from facemae.features.raw_videos import MediaFile
from facemae.features.sources import ShardSource, is_shard_set, loose_files, prefixes_of, walk

Kind = Literal["images", "videos"]
Files = Literal["auto", "images", "videos"]


@dataclass
class FilesPart:
    """Videos and sounds of one path.

    Attributes:
        name: The path as it was given.
        files: In the order of their names.
        notes: Counts of files of other kinds, by extension.
    """

    name: str
    files: list[MediaFile]
    notes: dict[str, Any] = field(default_factory=dict)

    def count(self) -> int:
        """How many there are."""
        return len(self.files)


ClipPart = FilesPart | ShardSource


def kind_of(paths: Sequence[Path | str], files: Files = "auto") -> Kind:
    """Whether paths hold images, or videos, sounds and clips.

    Args:
        paths: Files, folders and shard sets.
        files: What is wanted where folders hold both.

    Raises:
        UsageError: They hold both, and nothing is said.
    """
    if files != "auto":
        return files
    held = {str(path): _held(Path(path)) for path in paths}
    images = [name for name, kinds in held.items() if "images" in kinds]
    videos = [name for name, kinds in held.items() if "videos" in kinds]
    if images and videos:
        where = f"{images[0]} holds" if images[0] in videos else f"{images[0]} and {videos[0]} hold"
        raise UsageError(
            f"{where} images and videos", expected="one of them", fix="--files images, or --files videos, takes those"
        )
    sounds = any("sounds" in kinds for kinds in held.values())
    return "videos" if videos or (sounds and not images) else "images"


def _held(path: Path) -> set[str]:
    if path.is_dir() and is_shard_set(path):
        return {"videos"} if _holds_clips(path) else {"images"}
    if path.is_dir():
        found: set[str] = set()
        for entry in walk(path):
            found |= _kind(entry)
            if len(found) > 2:
                break
        return found
    return _kind(path)


def _kind(path: Path) -> set[str]:
    kind = ending(path.name)
    kinds = {"images": IMAGE_EXTENSIONS, "videos": VIDEOS.endings, "sounds": SOUND_ENDINGS}
    return {name for name, endings in kinds.items() if kind in endings}


def _holds_clips(folder: Path) -> bool:
    from facemae.data.index import ShardIndex

    index = ShardIndex.open(folder)
    return len(index) > 0 and clip_extension(index.members(0)) is not None


def open_clips(
    paths: Sequence[Path | str], *, where: Mapping[str, str] | None = None, sound: Path | None = None
) -> list[ClipPart]:
    """Several paths. With more than one, names start with the path as it was given.

    Args:
        paths: Videos, sound files, folders of them, and shard sets of clips.
        where: Only samples whose metadata has these values; for shard sets.
        sound: Folder of separate sound files; None looks beside the videos, as packing does.

    Raises:
        UsageError: A path is given twice or is not there, none is given, or `where` is given for files.
        DataError: `sound` holds nothing that fits.
    """
    return [_open(Path(name), prefix, where, sound) for name, prefix in prefixes_of(paths).items()]


def _open(path: Path, prefix: str, where: Mapping[str, str] | None, sound: Path | None) -> ClipPart:
    if path.is_dir() and is_shard_set(path):
        return ShardSource(path, where=where, prefix=prefix)
    if where:
        raise loose_files(path, "files")
    if path.is_dir():
        return _folder(path, prefix, sound)
    if not path.is_file():
        raise UsageError(f"{path} does not exist", expected="a video, a sound file, a folder of them or a shard set")
    if not _kind(path) & {"videos", "sounds"}:
        raise UsageError(f"{path} has no ending of a video or a sound", expected=_endings())
    video = "videos" in _kind(path)
    (beside,) = separate_sounds([path.name], path.parent, sound) if video else [None]
    return FilesPart(str(path), [MediaFile(path, str(path), video, beside)])


def _folder(folder: Path, prefix: str, sound: Path | None) -> FilesPart:
    names: dict[str, list[str]] = {"videos": [], "sounds": []}
    other: dict[str, int] = {}
    for path in walk(folder):
        kinds = _kind(path) & set(names)
        if kinds:
            names[kinds.pop()].append(path.relative_to(folder).as_posix())
        else:
            extension = path.suffix.lower() or "(none)"
            other[extension] = other.get(extension, 0) + 1
    beside = separate_sounds(names["videos"], folder, sound) if names["videos"] else []
    files = [
        MediaFile(folder / name, prefix + name, True, own) for name, own in zip(names["videos"], beside, strict=True)
    ]
    # A sound called like a video is that video's, whether or not another one goes before it.
    taken = {file.path.with_suffix("") for file in files}
    alone = [name for name in names["sounds"] if (folder / name).with_suffix("") not in taken]
    files += [MediaFile(folder / name, prefix + name, False) for name in alone]
    return FilesPart(str(folder), sorted(files, key=lambda file: file.name), {"other_files": other} if other else {})


def _endings() -> str:
    return ", ".join((*VIDEOS.endings, *SOUND_ENDINGS))
