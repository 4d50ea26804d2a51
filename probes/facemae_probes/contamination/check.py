"""The check itself: look at every image once, search across, count by split; kept by everything that determines it."""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from facemae.data.select import check_columns, metadata
from facemae.errors import DataError, UsageError
from facemae.files import storage_errors, write_text
from facemae_probes.contamination.matching import RULES, Match, find_matches
from facemae_probes.contamination.parts import Fingerprints, Images, Part, Progress, facts_key
from facemae_probes.contamination.result import Contamination, Counts, Pair
from facemae_probes.results.identity import code_digest, versions

SCHEMA = 2
MODULES = (
    "facemae.config.base",
    "facemae.config.sounds",
    "facemae.data.decode",
    "facemae.data.duplicates",
    "facemae.data.index",
    "facemae.data.made",
    "facemae.data.material",
    "facemae.data.reader",
    "facemae.data.regions",
    "facemae.data.schema",
    "facemae.data.select",
    "facemae.data.verify",
    "facemae.rng",
    "facemae.sound.align",
    "facemae.sound.level",
    "facemae.sound.mel",
    "facemae.sound.resample",
    "facemae.sound.store",
    "facemae.sound.wave",
    "facemae.video.decoding",
    "facemae.video.library",
    "facemae.video.picture",
    "facemae.video.read",
    "facemae.video.sampling",
    "facemae_probes.contamination.check",
    "facemae_probes.contamination.matching",
    "facemae_probes.contamination.parts",
    "facemae_probes.contamination.result",
)
"""Modules that decide what is found."""
LIBRARIES = ("opencv-python-headless", "pillow", "simplejpeg", "numpy", "faiss-gpu", "faiss-cpu")
"""Distributions that decode, resize and search on the way."""


def contamination(
    pretraining: Sequence[Path | Part],
    probing: Path,
    *,
    split: str = "split",
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Contamination:
    """Find the samples of a probing set whose images were pretrained on.

    Every image is decoded once, of which 33 bytes stay in memory, and a thumbnail of one kilobyte in a temporary file.
    So what it needs grows with neither the size of images nor the number of pairs that only look alike.

    Args:
        pretraining: Shard sets, or what a run reads of them; see `streams_of`.
        probing: The probing set.
        split: Its column of splits.
        cache: Folder of earlier results, by the digests of all sets and all else that determines them.
        progress: Called with (images looked at, images in all).

    Raises:
        DataError: A folder has no index, or a set has not one image that decodes.
        UsageError: No pretraining set is given, nothing is chosen of one, or the probing set has no such column.
        IndexMismatchError: A shard is not what its index describes.
        StorageError: Reading or writing failed underneath.
    """
    if not pretraining:
        raise UsageError("no pretraining set to compare with", expected="at least one")
    asked = Images(Part(probing))
    known = [Images(part if isinstance(part, Part) else Part(part)) for part in pretraining]
    check_columns(asked.index, [split])
    facts = {
        "schema": SCHEMA,
        "rule": RULES,
        "code": {"source": code_digest(MODULES), **versions(LIBRARIES)},
        "split": split,
        "splits": _splits(asked, split),
        "probing": asked.describe(),
        "pretraining": [images.describe() for images in known],
    }
    path = None if cache is None else cache / f"contamination-{facts_key(facts)}.json"
    if path is not None and path.is_file():
        with storage_errors(path, "reading"):
            text = path.read_text(encoding="utf-8")
        return _named(Contamination.from_json(json.loads(text)), known, asked)
    with tempfile.TemporaryDirectory(prefix="facemae-contamination-") as folder:
        found = _check(known, asked, split, Path(folder), progress or _silent)
    if path is not None:
        write_text(path, json.dumps(found.to_json()) + "\n")
    return found


def _named(found: Contamination, known: Sequence[Images], asked: Images) -> Contamination:
    """What was found of the same images in folders that may have had other names."""
    sets = tuple(
        {**part, "folder": str(images.part.folder)} for part, images in zip(found.pretraining, known, strict=True)
    )
    return replace(found, probing={**found.probing, "folder": str(asked.part.folder)}, pretraining=sets)


def _check(known: Sequence[Images], asked: Images, split: str, folder: Path, progress: Progress) -> Contamination:
    total, before = len(asked) + sum(map(len, known)), 0

    def counting(start: int) -> Callable[[int], None]:
        return lambda done: progress(start + done, total)

    prints = Fingerprints.of(asked, folder / "asked", counting(0))
    _need_images(asked, prints)
    before = len(asked)
    splits = _splits(asked, split)
    pairs: list[Pair] = []
    sets: list[dict[str, Any]] = []
    for number, images in enumerate(known):
        theirs = Fingerprints.of(images, folder / f"known-{number}", counting(before))
        _need_images(images, theirs)
        before += len(images)
        pairs += [_pair(match, asked, splits, number, images) for match in find_matches(prints, theirs)]
        undecodable = int((~theirs.decoded).sum())
        sets.append({"folder": str(images.part.folder), **images.describe(), "undecodable": undecodable})
    pairs.sort(key=lambda pair: (pair.key, pair.pretraining, pair.kind, pair.pretraining_key))
    keys = [asked.key(place) for place in range(len(asked))]
    exact = {pair.key for pair in pairs if pair.kind == "exact"}
    either = {pair.key for pair in pairs}
    counts, clean = {}, {}
    for name in sorted(set(splits), key=lambda name: (name not in ("train", "valid", "test"), name)):
        places = [place for place, other in enumerate(splits) if other == name]
        own = [keys[place] for place in places]
        same, any_match = sum(key in exact for key in own), sum(key in either for key in own)
        counts[name] = Counts(len(own), same, any_match - same, int((~prints.decoded[places]).sum()))
        clean[name] = tuple(key for key in own if key not in either)
    about = {"folder": str(asked.part.folder), **asked.describe()}
    return Contamination(about, tuple(sets), counts, tuple(pairs), clean)


def _need_images(images: Images, prints: Fingerprints) -> None:
    """Refuse a set in which nothing can be compared: that none of it was found would say nothing."""
    if len(images) and not prints.decoded.any():
        raise DataError(
            f"none of the {len(images)} samples of {images.part.folder} has an image that decodes",
            expected="still images: frames of clips are not compared yet",
        )


def _splits(images: Images, column: str) -> list[str]:
    """The split of each image; empty for none."""
    values = metadata(images.index, [column])[column].take(np.asarray(images.samples)).to_pylist()
    return ["" if value is None else str(value) for value in values]


def _pair(match: Match, asked: Images, splits: Sequence[str], number: int, images: Images) -> Pair:
    value = None if match.correlation is None else round(match.correlation, 4)
    return Pair(
        key=asked.key(match.probing),
        split=splits[match.probing],
        kind=match.kind,
        bits=match.bits,
        correlation=value,
        pretraining=number,
        pretraining_key=images.key(match.pretraining),
        copies=match.copies,
    )


def _silent(done: int, total: int) -> None:
    pass
