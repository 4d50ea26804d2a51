"""Lists of image pairs: the `pairs.txt` of LFW, or a CSV.

LFW's list (Huang et al. 2007, Labeled Faces in the Wild, section 4, "View 2") begins with a line of two numbers, folds
and pairs of a kind in each: 10 and 300. For every fold follow so many lines `NAME N M`, images N and M of one person,
and so many `NAME N OTHER M`. The persons of its folds are disjoint.
"""

import csv
import hashlib
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facemae.data.ingest.keys import make_keys
from facemae.errors import ProbeError
from facemae.files import storage_errors

COLUMNS = ("first", "second", "same", "fold")
_TRUE, _FALSE = ("1", "true", "yes"), ("0", "false", "no")


@dataclass(frozen=True)
class Pairs:
    """Pairs of images.

    Attributes:
        name: Of the list.
        layout: `lfw` or `csv`.
        digest: Hexadecimal sha256 of the list.
        images: What the list calls its images, [M] different names.
        persons: Who is on each, or None where the list does not say.
        rows: The two images of each pair, int64 [P, 2].
        same: Whether they show the same person, bool [P].
        folds: Number of each pair's fold, int64 [P], from 0.
        fold_names: What the list calls the folds.
    """

    name: str
    layout: str
    digest: str
    images: tuple[str, ...]
    persons: tuple[str | None, ...]
    rows: NDArray[np.int64]
    same: NDArray[np.bool_]
    folds: NDArray[np.int64]
    fold_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class _Line:
    number: int
    first: tuple[str, str | None]
    second: tuple[str, str | None]
    same: bool
    fold: str


def read_pairs(path: Path) -> Pairs:
    """Read a list of pairs: CSV where the name ends in `.csv`, else LFW's layout.

    The CSV has the columns `first` and `second`, keys of samples; `same`, 1 or 0; and `fold`, any name.

    Raises:
        ProbeError: A line is not as it must be, naming it; fewer than two folds; a fold without pairs of both kinds; or
            a pair in two folds.
        StorageError: It cannot be read.
    """
    with storage_errors(path, "reading"):
        data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ProbeError(f"{path} is no UTF-8 text: {error}", expected="a list of pairs") from None
    is_csv = path.suffix.lower() == ".csv"
    lines = _read_csv(path, text) if is_csv else _read_lfw(path, text)
    digest = hashlib.sha256(data).hexdigest()
    return _pairs(path, "csv" if is_csv else "lfw", digest, lines)


def _read_lfw(path: Path, text: str) -> list[_Line]:
    lines = [line.split() for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    head = lines[0] if lines else []
    if len(head) != 2 or not all(word.isdigit() for word in head):
        raise ProbeError(
            f"{path} does not begin with two numbers but with {' '.join(head)!r}",
            expected="folds and pairs of a kind, such as `10 300`: LFW's pairs.txt (View 2)",
            fix="pairsDevTrain.txt and pairsDevTest.txt are View 1, which has no folds",
        )
    folds, each = int(head[0]), int(head[1])
    if len(lines) - 1 != 2 * folds * each:
        raise ProbeError(
            f"{path} has {len(lines) - 1} pairs",
            expected=f"2 times {each} in each of {folds} folds, {2 * folds * each}",
        )
    found = []
    for place, words in enumerate(lines[1:]):
        fold, within = divmod(place, 2 * each)
        same = within < each
        numbers = words[1:] if same else words[1::2]
        if len(words) != (3 if same else 4) or not all(word.isdigit() for word in numbers):
            wanted = "NAME N M, two images of one person" if same else "NAME N OTHER M, images of two persons"
            raise ProbeError(f"{path}, line {place + 2}: {' '.join(words)!r}", expected=wanted)
        names = (words[0], words[0] if same else words[2])
        first, second = ((f"{name}_{int(number):04d}", name) for name, number in zip(names, numbers, strict=True))
        found.append(_Line(place + 2, first, second, same, str(fold + 1)))
    return found


def _read_csv(path: Path, text: str) -> list[_Line]:
    reader = csv.DictReader(io.StringIO(text))
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise ProbeError(
            f"{path} has no column {', '.join(missing)}", expected=f"columns {', '.join(COLUMNS)} in its first line"
        )
    found = []
    for number, row in enumerate(reader, start=2):
        value = (row["same"] or "").strip().lower()
        first, second, fold = ((row[name] or "").strip() for name in ("first", "second", "fold"))
        if value not in _TRUE + _FALSE or not first or not second or not fold:
            raise ProbeError(
                f"{path}, line {number}: {first},{second},{row['same']},{fold}",
                expected="two keys, same as 1 or 0, and the name of a fold",
            )
        found.append(_Line(number, (first, None), (second, None), value in _TRUE, fold))
    return found


def _pairs(path: Path, layout: str, digest: str, lines: Sequence[_Line]) -> Pairs:
    images: dict[str, str | None] = {}
    for line in lines:
        if line.first[0] == line.second[0]:
            raise ProbeError(f"{path}, line {line.number}: {line.first[0]} twice", expected="two images")
        images.update([line.first, line.second])
    places = {name: place for place, name in enumerate(images)}
    folds = {name: place for place, name in enumerate(dict.fromkeys(line.fold for line in lines))}
    found = Pairs(
        path.name,
        layout,
        digest,
        tuple(images),
        tuple(images.values()),
        np.array([[places[line.first[0]], places[line.second[0]]] for line in lines], dtype=np.int64).reshape(-1, 2),
        np.array([line.same for line in lines], dtype=bool),
        np.array([folds[line.fold] for line in lines], dtype=np.int64),
        tuple(folds),
    )
    if len(folds) < 2:
        raise ProbeError(f"{path} has {len(folds)} folds", expected="two or more: one is tested, the others choose")
    for name, place in folds.items():
        kinds = set(found.same[found.folds == place].tolist())
        if len(kinds) < 2:
            raise ProbeError(f"fold {name} of {path} has pairs of one kind only", expected="of the same and of others")
    _check_apart(path, lines)
    return found


def _check_apart(path: Path, lines: Sequence[_Line]) -> None:
    """Refuse a pair that stands in two folds: the threshold of the one would be chosen on what the other tests."""
    seen: dict[frozenset[str], _Line] = {}
    for line in lines:
        earlier = seen.setdefault(frozenset((line.first[0], line.second[0])), line)
        if earlier.fold != line.fold:
            pair = f"the pair {line.first[0]}, {line.second[0]} of fold {line.fold}"
            raise ProbeError(
                f"{path}, line {line.number}: {pair} is in fold {earlier.fold} too (line {earlier.number})",
                expected="every pair in one fold, in whatever order its images are named",
            )


def find_samples(pairs: Pairs, keys: Sequence[str]) -> NDArray[np.int64]:
    """Which sample each image of a list is.

    A CSV names keys, or the paths that they were made from. LFW's `NAME N` is the file `NAME/NAME_000N.jpg`, whose key
    has both parts where the folder of all persons was packed, perhaps behind that of a folder above.

    Args:
        pairs: The list.
        keys: Keys of the samples.

    Returns:
        int64 [M], places in `keys`.

    Raises:
        ProbeError: Images that are not there, with some of their names.
    """
    known = {key: place for place, key in enumerate(keys)}
    wanted = max(_spellings(pairs, keys), key=lambda names: sum(name in known for name in names))
    missing = [image for image, name in zip(pairs.images, wanted, strict=True) if name not in known]
    if missing:
        raise ProbeError(
            f"{len(missing)} of {len(wanted)} images in {pairs.name} are not in the shard set, such as "
            f"{', '.join(missing[:3])}",
            expected="all of them: leaving pairs out would make it another test",
            fix="pack the folder that has a folder for each person"
            if pairs.layout == "lfw"
            else "name keys, or paths relative to the folder that was packed",
        )
    return np.array([known[name] for name in wanted], dtype=np.int64)


def _spellings(pairs: Pairs, keys: Sequence[str]) -> list[list[str]]:
    """What the keys of all images may be."""
    if pairs.layout == "csv":
        # One at a time: a path whose plain key another path has too is stored under neither.
        return [list(pairs.images), [make_keys([image])[0] for image in pairs.images]]
    files = [f"{person}/{image}.jpg" for person, image in zip(pairs.persons, pairs.images, strict=True)]
    packed = make_keys(files)
    above = {key[: -len(packed[0])] for key in keys if key.endswith(packed[0])}
    return [list(pairs.images), *([prefix + key for key in packed] for prefix in sorted(above))]


def persons_in_several_folds(pairs: Pairs, persons: Sequence[str | None]) -> list[str]:
    """Persons of which pairs in two folds or more have images: what is chosen on one fold has seen those of another."""
    return _in_several_folds(pairs, persons)


def images_in_several_folds(pairs: Pairs, persons: Sequence[str | None]) -> list[str]:
    """Images of nobody known that are in pairs of two folds or more; of the others their persons are told."""
    return _in_several_folds(
        pairs, [image if person is None else None for image, person in zip(pairs.images, persons, strict=True)]
    )


def _in_several_folds(pairs: Pairs, names: Sequence[str | None]) -> list[str]:
    seen: dict[str, set[int]] = defaultdict(set)
    for row, fold in zip(pairs.rows.tolist(), pairs.folds.tolist(), strict=True):
        for image in row:
            name = names[image]
            if name is not None:
                seen[name].add(fold)
    return sorted(name for name, folds in seen.items() if len(folds) > 1)
