"""What is missing or wrong in a user's copy of a benchmark: the owner's folder, or shards packed from it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from facemae.data.decode import decode_image
from facemae.data.duplicates import exact_groups, pixel_digest
from facemae.errors import DecodeError, FacemaeError
from facemae.parallel import in_threads
from facemae_probes.benchmarks.base import Benchmark, Counts
from facemae_probes.benchmarks.counts import Comparison, compare
from facemae_probes.benchmarks.listing import Problem, Row
from facemae_probes.benchmarks.open_layout import expected_layouts, find_layout, match_files, read_layout
from facemae_probes.benchmarks.packed import missing_columns, packed_listing

SAMPLED = 200
"""Images that are decoded unless all are asked for, evenly spread over the list."""

Read = Callable[[], bytes]
Progress = Callable[[int, int], None]


@dataclass
class Diagnosis:
    """What was found.

    Attributes:
        benchmark: Name.
        data: The folder.
        layout: The form it has, or `packed shards`.
        counts: Labelled samples by split and class.
        digest: Digest of the list.
        version: The known version whose counts these are; None where there is none.
        nearest: The version they were compared with.
        problems: What is wrong.
        notes: What is worth knowing and not wrong.
        decoded: Images that were decoded.
    """

    benchmark: str
    data: Path
    layout: str | None = None
    counts: dict[str, Counts] = field(default_factory=dict)
    digest: str | None = None
    version: str | None = None
    nearest: str | None = None
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    decoded: int = 0

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """The report for a script."""
        problems = [vars(problem) for problem in self.problems]
        return {**vars(self), "data": str(self.data), "problems": problems, "sound": self.sound}

    def lines(self) -> list[str]:
        """The report for a person."""
        lines = [f"{self.benchmark}: {self.data}, {self.layout or 'no known layout'}"]
        for split, per in self.counts.items():
            classes = ", ".join(f"{name} {count:,}" for name, count in per.items())
            lines.append(f"{split}: {sum(per.values()):,} samples ({classes})")
        if self.digest is not None:
            lines.append(f"list digest {self.digest[:16]}, {self.decoded:,} images decoded")
        if self.version is not None:
            lines.append(f"version: {self.version}")
        lines += [f"note: {text}" for text in self.notes]
        lines += [f"wrong ({problem.kind}): {problem.line()}" for problem in self.problems]
        many = "1 thing is wrong" if len(self.problems) == 1 else f"{len(self.problems)} things are wrong"
        return [*lines, many if self.problems else "nothing is wrong"]

    def judge(self, benchmark: Benchmark, counts: dict[str, Counts], digest: str) -> None:
        """Compare counts with the known versions, and note them in the classes' order."""
        order = {name: place for place, name in enumerate(benchmark.headline.classes)}
        splits = sorted(counts, key=("train", "valid", "test").index)
        self.counts = {
            split: {name: counts[split][name] for name in sorted(counts[split], key=lambda n: (order.get(n, -1), n))}
            for split in splits
        }
        self.digest = digest
        found: Comparison = compare(counts, digest, benchmark.versions)
        if found.version is None:
            return
        self.nearest = found.version.name
        if found.exact:
            self.version = found.version.name
            if found.version.about:
                self.notes.append(f"version {self.version}: {found.version.about}")
            return
        text = f"these are the counts of no known version; against the nearest, {self.nearest}"
        self.problems.append(_listed("wrong counts", text, found.differences))


def examine(
    benchmark: Benchmark,
    data: Path,
    *,
    decode_all: bool = False,
    duplicates: bool = False,
    progress: Progress | None = None,
) -> Diagnosis:
    """Examine the owner's folder, or a shard set made by `facemae probe pack`.

    Args:
        benchmark: What it should be.
        data: The folder.
        decode_all: Decode every image, not a sample.
        duplicates: Look for equal images in different splits; decodes every image.
        progress: Called with (images decoded, images to decode).

    Raises:
        DataError: There is no such folder.
    """
    from facemae.features.sources import is_shard_set

    if data.is_dir() and is_shard_set(data):
        report, images = _examine_shards(benchmark, data)
    else:
        report, images = _examine_folder(benchmark, data)
    every = decode_all or duplicates
    chosen = images if every else _spread(images, SAMPLED)
    _decode(report, chosen, duplicates, progress)
    return report


@dataclass(frozen=True)
class _Image:
    name: str
    split: str
    read: Read


def _examine_folder(benchmark: Benchmark, data: Path) -> tuple[Diagnosis, list[_Image]]:
    report = Diagnosis(benchmark.name, data)
    found = find_layout(benchmark, data)
    if found is None:
        text = f"{data} has none of the known layouts of {benchmark.title}: {expected_layouts(benchmark)}"
        report.problems.append(_listed("missing", text, ()))
        return report, []
    report.layout = found.layout.name
    if found.missing:
        text = f"the layout is {found.layout.name!r}, and of what it needs there is not"
        report.problems.append(_listed("missing", text, found.missing))
        return report, []
    listing = read_layout(found)
    report.problems += listing.problems
    if not listing.rows and listing.problems:
        return report, []
    there, absent, unlisted = match_files(listing, found.root)
    if absent:
        report.problems.append(_listed("absent images", "images that are listed and not there", absent))
    if unlisted:
        report.problems.append(_listed("unlisted images", "images that are there and not listed", unlisted))
    report.notes += [*listing.notes, *(f"left out, {reason}: {count:,}" for reason, count in listing.left_out.items())]
    if found.layout.sources == "unverified":
        report.notes.append("this layout was not confirmed by two public sources")
    report.judge(benchmark, listing.counts(), listing.digest())
    return report, [_Image(row.path, row.split, row_reader(row, found.root)) for row in there]


def _examine_shards(benchmark: Benchmark, data: Path) -> tuple[Diagnosis, list[_Image]]:
    from facemae.data.card import read_card
    from facemae.data.index import ShardIndex
    from facemae.data.reader import ShardReader
    from facemae_probes.tasks.columns import read_columns

    report = Diagnosis(benchmark.name, data, "packed shards")
    packed = read_card(data).packed
    if packed.get("benchmark", benchmark.name) != benchmark.name:
        text = f"the shards were packed as {packed['benchmark']}, not as {benchmark.name}"
        report.problems.append(_listed("another benchmark", text, ()))
    columns = read_columns(data)
    lacking = {target.name: missing_columns(benchmark, columns, target.name) for target in benchmark.targets}
    if missing := list(dict.fromkeys(name for names in lacking.values() for name in names)):
        text = f"the shards lack columns that facemae probe pack {benchmark.name} makes"
        report.problems.append(_listed("missing", text, missing))
    if lacking[benchmark.headline.name]:
        return report, []
    listing = packed_listing(benchmark, columns)
    report.problems += listing.problems
    report.judge(benchmark, listing.counts(), listing.digest())
    reader = ShardReader(ShardIndex.open(data))
    images = [
        _Image(key or "", split or "", _member_reader(reader, int(sample)))
        for sample, key, split in zip(columns.samples, columns.text("key"), columns.text("split"), strict=True)
    ]
    return report, images


def row_reader(row: Row, root: Path) -> Read:
    """Reads the encoded image of a row."""
    return row.image if row.image is not None else (root / row.path).read_bytes


def _member_reader(reader: Any, sample: int) -> Read:
    from facemae.data.reader import image_extension

    def read() -> bytes:
        members = reader.read(sample).members
        extension = image_extension(members)
        return bytes(members[extension]) if extension is not None else b""

    return read


def _spread(images: list[_Image], count: int) -> list[_Image]:
    if len(images) <= count:
        return images
    return [images[place] for place in np.linspace(0, len(images) - 1, count).astype(int)]


def _decode(report: Diagnosis, images: Sequence[_Image], duplicates: bool, progress: Progress | None) -> None:
    """Decode images; note those that cannot be, and equal ones in different splits."""
    digests: list[bytes | None] = []
    unreadable = []
    for done, (image, (digest, fault)) in enumerate(
        zip(images, in_threads(_look, images), strict=True),
        1,
    ):
        digests.append(digest)
        if fault is not None:
            unreadable.append(f"{image.name} ({fault})")
        if progress is not None:
            progress(done, len(images))
    report.decoded = len(images)
    if unreadable:
        report.problems.append(_listed("unreadable images", "images that do not decode", unreadable))
    if duplicates:
        groups = [group for group in exact_groups(digests) if len({images[place].split for place in group}) > 1]
        examples = [" = ".join(images[place].name for place in group[:3]) for group in groups]
        found = _listed("duplicates", "groups of equal images in more than one split", examples)
        report.notes.append(f"{len(groups)} {found.line()}" if groups else "no equal images in different splits")


def _look(image: _Image) -> tuple[bytes | None, str | None]:
    try:
        return pixel_digest(decode_image(image.read(), channels=3, name=image.name)), None
    except DecodeError as error:
        return None, error.found.removeprefix(f"{image.name}: ")
    except (FacemaeError, OSError) as error:
        return None, str(error).splitlines()[0]


def _listed(kind: str, text: str, examples: Sequence[str]) -> Problem:
    problem = Problem(kind, text)
    for example in examples:
        problem.add(example)
    return problem
