"""From the owner's folder to shards that a probe can read, with the benchmark's labels, splits and units."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from facemae.data.decode import decode_image
from facemae.data.ingest.folder import EXTENSIONS
from facemae.data.ingest.keys import make_keys
from facemae.data.pack import SHARD_SIZE, PackItem, PackReport, pack_samples
from facemae.data.reencode import INTERPOLATION, shrink, to_png
from facemae.data.schema import DatasetCard
from facemae.data.target import check_apart, check_target
from facemae.errors import DataError, DecodeError
from facemae_probes.benchmarks.base import CLUSTER, CROSSES, Benchmark
from facemae_probes.benchmarks.clusters import crossing, near_duplicates
from facemae_probes.benchmarks.counts import compare
from facemae_probes.benchmarks.doctor import row_reader
from facemae_probes.benchmarks.listing import Listing, Row
from facemae_probes.benchmarks.open_layout import Found, expected_layouts, find_layout, match_files, read_layout
from facemae_probes.tasks.units import tells

_QUALITY = 95

Progress = Callable[[int, int], None]


def pack_benchmark(
    benchmark: Benchmark,
    data: Path,
    out: Path,
    *,
    clusters: bool = True,
    resize: int | None = None,
    shard_size: int = SHARD_SIZE,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> PackReport:
    """Pack a benchmark's data; bytes are stored as they come, but for faces cut out of larger images.

    Args:
        benchmark: The benchmark.
        data: The owner's folder.
        out: Shard set to make.
        clusters: Look for near-duplicate images where they are the benchmark's unit, or where its list names neither
            persons nor sources; else samples count as independent.
        resize: Scale larger images down to this shorter side in pixels.
        shard_size: Samples a shard.
        overwrite: Replace an older shard set under `out`.
        progress: Called with (images done, images in all), in both passes where clusters are looked for.

    Raises:
        DataError: No known layout, something missing, or lists with unknown labels or lines; see `probe doctor`.
    """
    found, listing = _open(benchmark, data)
    check_apart(data, out)
    check_target(out.resolve(), overwrite=overwrite)
    there, absent, unlisted = match_files(listing, found.root)
    readers = [_cut(row, found.root) for row in there]
    extra: list[dict[str, Any]] = [{} for _ in there]
    if clusters and (benchmark.unit == CLUSTER or not _names_units(there)):
        extra = _units(there, near_duplicates(readers, progress=progress))
    keys = make_keys([row.path for row in there])
    items = [
        _item(key, row, reader, more, resize)
        for key, row, reader, more in zip(keys, there, readers, extra, strict=True)
    ]
    version = compare(listing.counts(), listing.digest(), benchmark.versions)
    left = [f"left out, {reason}: {count:,}" for reason, count in listing.left_out.items()]
    if version.version is not None:
        known = f"counts of the version {version.version.name}"
        left.append(
            known if version.exact else f"counts of no known version, see facemae probe doctor {benchmark.name}"
        )
    return pack_samples(
        items,
        out,
        card=_card(
            benchmark, found, version.version.name if version.exact and version.version else None, resize, there
        ),
        shard_size=shard_size,
        overwrite=overwrite,
        progress=progress,
        skipped=[(path, "listed and not there") for path in absent] + [(path, "not listed") for path in unlisted],
        notes=[f"layout: {found.layout.name}", *listing.notes, *left],
    )


def _open(benchmark: Benchmark, data: Path) -> tuple[Found, Listing]:
    doctor = f"facemae probe doctor {benchmark.name} --data {data}"
    found = find_layout(benchmark, data)
    if found is None or found.missing:
        lacks = "none of its layouts" if found is None else f"{found.layout.name!r} without {', '.join(found.missing)}"
        raise DataError(f"{data}: {lacks}", expected=expected_layouts(benchmark), fix=doctor)
    listing = read_layout(found)
    if listing.problems:
        text = "; ".join(problem.line() for problem in listing.problems[:3])
        raise DataError(f"{data}: {text}", expected=f"the lists of {benchmark.title}", fix=doctor)
    if not listing.rows:
        raise DataError(f"{data} lists no images of {benchmark.title}", expected=found.layout.name, fix=doctor)
    return found, listing


def _names_units(rows: Sequence[Row]) -> bool:
    """Whether the list says which images show one person or come from one source."""
    return any(tells(values) for values in ([row.subject for row in rows], [row.source for row in rows]))


def _units(rows: list[Row], cluster: "np.ndarray[Any, Any]") -> list[dict[str, Any]]:
    crosses = crossing(cluster, [row.split for row in rows])
    return [
        {CLUSTER: rows[int(first)].path, CROSSES: int(crossed)} for first, crossed in zip(cluster, crosses, strict=True)
    ]


def _item(key: str, row: Row, read: Callable[[], bytes], extra: dict[str, Any], resize: int | None) -> PackItem:
    extension = EXTENSIONS.get(PurePosixPath(row.path).suffix.lower().lstrip("."))

    def image() -> bytes:
        data = read()
        if extension is None:
            data = to_png(data, row.path)
        return data if resize is None or not data else shrink(data, resize, extension or "png", row.path)

    meta = {
        "path": row.path,
        "source": row.source,
        "split": row.split,
        "subject": row.subject,
        "labels": {**row.labels, **extra},
    }
    known = {name: value for name, value in meta.items() if value is not None}
    return PackItem(key, image, extension or "png", known, row.path)


def _cut(row: Row, root: Path) -> Callable[[], bytes]:
    """Reads an image, and cuts the face out where the owner gives a box."""
    read = row_reader(row, root)
    return read if row.box is None else lambda: cut_face(read(), row.box or (0, 0, 0, 0), row.path)


def cut_face(data: bytes, box: tuple[int, int, int, int], name: str) -> bytes:
    """The part of an image inside a box, as JPEG of quality 95, or PNG where the name ends so.

    Args:
        data: Encoded image.
        box: Left, top, width and height in pixels; what lies outside of the image is left out.
        name: For messages, and by its ending the format.

    Raises:
        DecodeError: The image does not decode, or the box is empty or wholly outside.
    """
    pixels = decode_image(data, channels=3, name=name)
    left, top, width, height = box
    face = pixels[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)]
    if not face.size:
        size = f"{pixels.shape[1]}x{pixels.shape[0]}"
        raise DecodeError(f"{name}: the face box {box} holds nothing of an image of {size} pixels")
    buffer = io.BytesIO()
    kind = EXTENSIONS.get(PurePosixPath(name).suffix.lower().lstrip("."), "png")
    form = {"jpg": "jpeg", "png": "png", "webp": "webp"}[kind]
    Image.fromarray(np.ascontiguousarray(face)).save(buffer, form, quality=_QUALITY)
    return buffer.getvalue()


def _card(benchmark: Benchmark, found: Found, version: str | None, resize: int | None, rows: list[Row]) -> DatasetCard:
    crop = benchmark.crop
    if any(row.box is not None for row in rows):
        crop = crop.model_copy(update={"detector": "owner's boxes", "margin": "0", "size": None})
    if resize is not None:
        crop = crop.model_copy(update={"size": None, "interpolation": INTERPOLATION})
    how = {"benchmark": benchmark.name, "layout": found.layout.name, "version": version or "none known"}
    return DatasetCard(
        name=benchmark.name,
        source=f"{benchmark.title}: {benchmark.citation}",
        licence=benchmark.licence,
        consent=benchmark.consent,
        terms=benchmark.access,
        packed={**how, **({"resize": str(resize)} if resize is not None else {})},
        crop=crop,
    )
