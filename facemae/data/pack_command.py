"""`facemae data pack`: shards of images or of face clips."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facemae.data.choices import Files, People, given_options
from facemae.errors import UsageError

if TYPE_CHECKING:
    from facemae.data.ingest.folder import Media
    from facemae.data.pack import PackReport

_VIDEOS = "Videos"
_TEMPLATE = "template"


def register(app: typer.Typer) -> None:
    """Add `pack` to the commands of `facemae data`."""
    app.command("pack")(pack)


class Folders(StrEnum):
    """What folders below the splits name."""

    CLASS = "class"
    SUBJECT = "subject"
    NOTHING = "nothing"


class Store(StrEnum):
    """How frames of clips are stored."""

    MJPEG = "mjpeg"
    MP4 = "mp4"


Source = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="Folder of images or videos, with or without labels.csv.")
]
OutOption = Annotated[Path, typer.Option("--out", help="Shard set to make.")]
FilesOption = Annotated[
    Files, typer.Option(help="What to pack; auto: by the table of labels, else by the files there are.")
]
LabelsOption = Annotated[Path | None, typer.Option(help="Table of labels; default: labels.csv in the folder.")]
PathColumnOption = Annotated[str | None, typer.Option(help="Column with the files' paths.")]
SplitColumnOption = Annotated[str | None, typer.Option(help="Column with the split.")]
SubjectColumnOption = Annotated[str | None, typer.Option(help="Column with the subject.")]
LabelColumnsOption = Annotated[str | None, typer.Option(help="Columns to keep, separated by commas.")]
FoldersAreOption = Annotated[Folders, typer.Option(help="What folders below the splits name, without a table.")]
ResizeOption = Annotated[int | None, typer.Option(min=1, help="Images: scale down to this shorter side in pixels.")]
ShardSizeOption = Annotated[
    int | None, typer.Option(min=1, help="Images a shard, 2000 unless given; or clips a shard, 500.")
]
SeedOption = Annotated[int, typer.Option(help="Seed of the random assignment to shards.")]
CardOption = Annotated[Path | None, typer.Option(help="Dataset card, a JSON file: name, source, licence, …")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace an older shard set.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be packed and write nothing.")]
AsJsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
SizeOption = Annotated[int, typer.Option(min=16, help="Side of the stored frames.", rich_help_panel=_VIDEOS)]
FpsOption = Annotated[
    float, typer.Option(min=0, help="Frames a second stored; 0: each video's own.", rich_help_panel=_VIDEOS)
]
DetectorOption = Annotated[
    str,
    typer.Option(help="default, or yunet:PATH, retinaface:PATH, onnx:PATH[#sha256=…].", rich_help_panel=_VIDEOS),
]
DetectionsOption = Annotated[float, typer.Option(help="Times a second faces are looked for.", rich_help_panel=_VIDEOS)]
MarginOption = Annotated[
    float, typer.Option(help="Added on each side, as a share of the detected box.", rich_help_panel=_VIDEOS)
]
SmoothingOption = Annotated[
    float, typer.Option(min=0, help="Seconds over which the box is steadied.", rich_help_panel=_VIDEOS)
]
RegionsOption = Annotated[
    str | None,
    typer.Option(help="Region maps: a folder of NAME.region.png; or template, an average face (videos only)."),
]
PeopleOption = Annotated[
    People, typer.Option(help="main: the most prominent face; all: a clip of each.", rich_help_panel=_VIDEOS)
]
ShortestOption = Annotated[
    float, typer.Option(min=0, help="Leave shorter clips out, seconds.", rich_help_panel=_VIDEOS)
]
LongestOption = Annotated[
    float, typer.Option(help="Cut longer clips into equal pieces, seconds.", rich_help_panel=_VIDEOS)
]
SoundOption = Annotated[
    Path | None,
    typer.Option(help="Folder of separate sound files; default: beside the videos.", rich_help_panel=_VIDEOS),
]
SoundRateOption = Annotated[
    int, typer.Option(min=0, help="Samples a second of stored sound; 0: none.", rich_help_panel=_VIDEOS)
]
StoreOption = Annotated[
    Store, typer.Option(help="JPEG frames, read singly; or H.264, smaller.", rich_help_panel=_VIDEOS)
]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="Processes; default: the cores.", rich_help_panel=_VIDEOS)
]


def pack(
    context: typer.Context,
    source: Source,
    out: OutOption,
    files: FilesOption = Files.AUTO,
    labels: LabelsOption = None,
    path_column: PathColumnOption = None,
    split_column: SplitColumnOption = None,
    subject_column: SubjectColumnOption = None,
    label_columns: LabelColumnsOption = None,
    folders_are: FoldersAreOption = Folders.CLASS,
    resize: ResizeOption = None,
    shard_size: ShardSizeOption = None,
    seed: SeedOption = 0,
    card: CardOption = None,
    overwrite: OverwriteOption = False,
    regions: RegionsOption = None,
    dry_run: DryRunOption = False,
    as_json: AsJsonOption = False,
    size: SizeOption = 160,
    fps: FpsOption = 25.0,
    detector: DetectorOption = "default",
    detections: DetectionsOption = 10.0,
    margin: MarginOption = 0.1,
    smoothing: SmoothingOption = 1.0,
    people: PeopleOption = People.MAIN,
    shortest: ShortestOption = 0.5,
    longest: LongestOption = 30.0,
    sound: SoundOption = None,
    sound_rate: SoundRateOption = 16_000,
    store: StoreOption = Store.MJPEG,
    workers: WorkersOption = None,
) -> None:
    """Pack a folder of images, or of videos, into shards.

    Images and labels: every column of labels.csv but path, split, subject and source (the video that a
    frame is from) is a label. Without a table, folders named train, valid (val, dev, …) and test are the splits, and
    the next level is the class. Files that are empty, do not decode, are listed and missing, or are not listed, are
    left out and named in SHARDS/skipped.jsonl.

    Videos: faces are found and followed, and cut out by one steady box a person, with the sound beneath. A video
    without a face is left out and named. A pack that was killed goes on with the same command.

    Example: facemae data pack fer2013plus --out shards/ferplus --path-column file

    Example: facemae data pack videos/ --out shards/clips --size 160 --fps 25
    """
    from facemae.data.card import load_card
    from facemae.data.ingest.folder import IMAGES, VIDEOS
    from facemae.data.ingest.videos import media_of
    from facemae.data.pack import pack_folder
    from facemae.data.progress import progress

    columns: dict[str, Any] = {
        "labels": labels,
        "path_column": path_column,
        "split_column": split_column,
        "subject_column": subject_column,
        "label_columns": None if label_columns is None else [name.strip() for name in label_columns.split(",")],
        "folders_are": folders_are.value,
    }
    media = {Files.IMAGES: IMAGES, Files.VIDEOS: VIDEOS}.get(files) or media_of(source, labels, path_column)
    videos = media is VIDEOS
    _refuse_others(context, videos=videos)
    if dry_run:
        more_notes = _check_videos(source, detector, sound, columns) if videos else []
        _say_listing(source, media, columns, as_json, more_notes)
        return
    shared: dict[str, Any] = {
        "seed": seed,
        "card": None if card is None else load_card(card),
        "overwrite": overwrite,
        **({} if shard_size is None else {"shard_size": shard_size}),
    }
    with progress("packing videos" if videos else "packing") as report:
        if videos:
            more = {"sound": sound, "columns": columns, "workers": workers, "progress": report, **shared}
            more["regions"] = None if regions in (None, _TEMPLATE) else Path(regions)
            result = _pack_videos(source, out, context.params, more)
        else:
            maps = _folder_of_maps(regions)
            result = pack_folder(source, out, **columns, resize=resize, regions=maps, progress=report, **shared)
    if as_json:
        print(json.dumps(result.as_dict(), indent=2, default=str, ensure_ascii=False))
    else:
        print("\n".join(result.lines()))


def _pack_videos(source: Path, out: Path, given: dict[str, Any], more: dict[str, Any]) -> "PackReport":
    from facemae.data.clips.pack import pack_videos
    from facemae.data.clips.settings import ClipSettings
    from facemae.video.store import Storage

    named = ("size", "detector", "detections", "margin", "smoothing", "shortest", "longest")
    settings = ClipSettings(
        **{name: given[name] for name in named},
        fps=given["fps"] or None,
        people=given["people"].value,
        sound_rate=given["sound_rate"] or None,
        storage=Storage(given["store"].value),
        regions="none" if given["regions"] is None else "template" if given["regions"] == _TEMPLATE else "files",
    )
    return pack_videos(source, out, settings=settings, say=_tell, **more)


def _folder_of_maps(regions: str | None) -> Path | None:
    if regions == _TEMPLATE:
        raise UsageError(
            "--regions template with a folder of images",
            expected="a folder of region maps: where the face lies in a finished crop, nothing says",
            fix="name a folder of NAME.region.png; a folder of that name is ./template",
        )
    return None if regions is None else Path(regions)


def _tell(text: str) -> None:
    print(f"facemae: {text}", file=sys.stderr)


_OF_IMAGES = ("resize",)
_OF_VIDEOS = (
    *("size", "fps", "detector", "detections", "margin", "smoothing", "people", "shortest", "longest"),
    *("sound", "sound_rate", "store", "workers"),
)


def _refuse_others(context: typer.Context, *, videos: bool) -> None:
    """Refuse options that were given and would do nothing."""
    given = given_options(context, _OF_IMAGES if videos else _OF_VIDEOS)
    if given:
        kind, other = ("videos", "images") if videos else ("images", "videos")
        raise UsageError(
            f"{', '.join(given)} with a folder of {kind}", expected=f"options for {kind}", fix=f"see --files {other}"
        )


def _check_videos(source: Path, detector: str, sound: Path | None, columns: dict[str, Any]) -> list[str]:
    """What is worth knowing before videos are packed."""
    from facemae.data.ingest.videos import list_videos, separate_sounds, without_separate
    from facemae.faces.registry import open_detector

    open_detector(detector)
    paths = [file.path for file in list_videos(source, **columns).files]
    return without_separate(paths, separate_sounds(paths, source, sound), sound)


def _say_listing(source: Path, media: "Media", columns: dict[str, Any], as_json: bool, more_notes: list[str]) -> None:
    from facemae.data.ingest.folder import list_folder

    listing = list_folder(source, media=media, **columns)
    notes = [*listing.notes, *more_notes]
    if as_json:
        print(
            json.dumps(
                {"would_pack": len(listing.files), "skipped": listing.skipped, "notes": notes},
                indent=2,
                ensure_ascii=False,
            )
        )
        return
    print(f"{len(listing.files)} {media.name} would be packed, {len(listing.skipped)} left out")
    for note in notes:
        print(note)
