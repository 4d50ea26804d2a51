"""Features of many images into one file, at constant memory."""

import importlib.metadata
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from facemae.data.schema import CropRecipe
from facemae.errors import DataError, UsageError
from facemae.features.crops import compare_crops
from facemae.features.extractor import FeatureExtractor
from facemae.features.sources import JoinedSource, Source
from facemae.features.stream import Skip
from facemae.features.writers import check_output, feature_columns, open_writer

Progress = Callable[[int, int], None]
"""Called with the number of images done, skipped ones included, and of all."""


@dataclass
class Sizes:
    """Smallest and largest image seen, and how many were scaled."""

    side: int
    scaled: int = 0
    heights: tuple[int, int] | None = None
    widths: tuple[int, int] | None = None

    def add(self, sizes: Iterable[tuple[int, int]]) -> None:
        """Count images of these (height, width)."""
        for height, width in sizes:
            self.scaled += (height, width) != (self.side, self.side)
            self.heights = _stretch(self.heights, height)
            self.widths = _stretch(self.widths, width)

    def describe(self) -> dict[str, Any]:
        """For metadata."""
        return {"model": self.side, "heights": self.heights, "widths": self.widths, "scaled": self.scaled}


def _stretch(span: tuple[int, int] | None, value: int) -> tuple[int, int]:
    return (value, value) if span is None else (min(span[0], value), max(span[1], value))


@dataclass(frozen=True)
class Plan:
    """What an extraction will do.

    Attributes:
        images: How many images the source lists.
        feature_shape: Of one image.
        bytes: Size of the features, uncompressed.
        warnings: Differences between how these faces and the model's were cut.
        meta: What will stand in the file, apart from what only the run shows.
    """

    images: int
    feature_shape: tuple[int, ...]
    bytes: int
    warnings: list[str]
    meta: dict[str, Any]


@dataclass(frozen=True)
class Report:
    """What an extraction did.

    Attributes:
        out: The file.
        images: Rows written.
        skipped: Images that did not decode.
        seconds: Wall time.
        meta: The metadata in the file.
    """

    out: Path
    images: int
    skipped: list[Skip]
    seconds: float
    meta: dict[str, Any] = field(repr=False)


def plan_extraction(extractor: FeatureExtractor, source: JoinedSource) -> Plan:
    """Open the model, count the images and compare crop recipes, without reading an image.

    Raises:
        CheckpointError: The model cannot be opened.
        UsageError: Layer or pooling do not suit the model, or the source lists no image.
    """
    extractor.fit()
    images = source.count()
    if images == 0:
        raise UsageError(f"no image in {source.name}", expected="at least one image", fix="check path and extensions")
    shape = extractor.feature_shape
    warnings: dict[str, None] = {}
    for part in source.parts:
        warnings |= dict.fromkeys(compare_crops(extractor.crop, _crop(part)))
    return Plan(images, shape, images * math.prod(shape) * 4, list(warnings), _describe(extractor, source, [*warnings]))


def extract_features(
    extractor: FeatureExtractor,
    source: JoinedSource,
    out: Path,
    *,
    plan: Plan | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Stream the features of a source into a file.

    An image that does not decode is left out, counted and named in the metadata under `skipped`. The file appears whole
    or not at all.

    Args:
        extractor: The model, layer and pooling.
        source: The images; see `facemae.features.sources.open_paths`.
        out: `.npz` or `.parquet`; see `facemae.features.writers`.
        plan: From `plan_extraction`, to save a second count.
        overwrite: Replace an existing file.
        progress: Called as images are done.

    Raises:
        UsageError: The file exists, has another extension, or the source lists no image.
        DataError: Not one image decoded; no file is written.
        StorageError: Reading or writing failed underneath; no file is written.
    """
    check_new(out, overwrite)
    plan = plan or plan_extraction(extractor, source)
    skipped: list[Skip] = []
    sizes = Sizes(extractor.input.image_size)
    done, began = 0, time.monotonic()
    with open_writer(out, feature_columns(plan.feature_shape)) as writer:
        for batch in extractor.iter_images(source, on_skip=skipped.append):
            writer.append({"keys": batch.keys, "features": extractor.features(batch.images)})
            sizes.add(batch.sizes)
            done += len(batch.keys)
            if progress is not None:
                progress(done + len(skipped), plan.images)
        if progress is not None:
            progress(done + len(skipped), plan.images)
        if done == 0:
            raise DataError(
                f"none of the {len(skipped)} images in {source.name} decodes; the first: {skipped[0].reason}",
                expected="encoded images",
            )
        meta = plan.meta | {
            "images": done,
            "skipped": [{"key": skip.key, "reason": skip.reason} for skip in skipped],
            "sizes": sizes.describe(),
        }
        writer.finish(meta)
    return Report(out, done, skipped, time.monotonic() - began, meta)


def check_new(out: Path, overwrite: bool) -> None:
    """Raise `UsageError` for a file that exists or has an extension that is not ours."""
    check_output(out)
    if out.exists() and not overwrite:
        raise UsageError(f"{out} exists", expected="a new file", fix="choose another name, or pass --overwrite")


def describe_model(extractor: FeatureExtractor) -> dict[str, Any]:
    """Metadata of the model and of how it is used."""
    loaded = extractor.loaded
    return {
        "facemae": importlib.metadata.version("facemae"),
        "model": {
            "name": str(extractor.model) if isinstance(extractor.model, str | Path) else "in memory",
            "digest": loaded.digest,
            **loaded.about,
        },
        "layer": extractor.resolve_layer(extractor.layer),
        "pooling": extractor.pooling,
        "precision": extractor.precision,
        "input": loaded.input.model_dump(mode="json"),
        "crop": {"model": loaded.crop.model_dump(mode="json")},
        "cards": {name: card.model_dump(mode="json") for name, card in loaded.cards.items()},
    }


def _describe(extractor: FeatureExtractor, source: JoinedSource, warnings: list[str]) -> dict[str, Any]:
    return {
        "kind": "features",
        **describe_model(extractor),
        "feature_shape": list(extractor.feature_shape),
        "sources": [
            {
                "name": part.name,
                "crop": _crop(part).model_dump(mode="json"),
                "card": part.card.model_dump(mode="json") if part.card else None,
                **part.notes,
            }
            for part in source.parts
        ],
        "warnings": warnings,
    }


def _crop(part: Source) -> CropRecipe:
    return part.card.crop if part.card else CropRecipe()
