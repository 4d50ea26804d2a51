"""Where features come from: an encoder, or the simple descriptors it has to beat.

All sources go through the same cache, probes and report, so a baseline's number differs from the encoder's by its
features only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from facemae.data.schema import ModelInput
from facemae.errors import MissingExtraError

if TYPE_CHECKING:
    from facemae.features.extractor import FeatureExtractor

Features = NDArray[np.floating[Any]]
POOLINGS = ("mean", "cls", "grid2", "grid4")
"""What is tried where nothing else is asked for; the first is taken where there is nothing to choose on."""


@dataclass(frozen=True, order=True)
class Setting:
    """Which features of a source.

    Attributes:
        layer: Encoder block, counted from 0; 0 for sources without layers.
        pooling: How tokens are brought together.
    """

    layer: int
    pooling: str


class FeatureSource(Protocol):
    """What the cache and the runner need to know of a source of features."""

    name: str
    input: ModelInput

    def identity(self) -> dict[str, str]:
        """What determines the numbers, besides pixels and setting: kind, digest of weights, arithmetic."""
        ...

    def describe(self) -> dict[str, Any]:
        """The result's `model` block."""
        ...

    def settings(self, layers: Sequence[int] | None, poolings: Sequence[str] | None) -> list[Setting]:
        """The settings that exist among the asked-for ones; None stands for all layers, and for the usual poolings."""
        ...

    def compute(self, images: NDArray[np.uint8], wanted: Sequence[Setting]) -> dict[Setting, Features]:
        """Features of uint8 images [B, C, S, S] for all settings, from one pass."""
        ...


class EncoderSource:
    """A frozen encoder, given by a feature extractor.

    Args:
        extractor: The extractor; its own layer and pooling play no part.
        name: What the encoder is called in results.
        path: Where its weights were read, for fine-tuning; None where they were not, or were drawn at random.
    """

    def __init__(self, extractor: "FeatureExtractor", name: str = "encoder", path: Path | None = None) -> None:
        self.path = path
        self.extractor = extractor
        self.name = name
        self.input = extractor.input

    def identity(self) -> dict[str, str]:
        """Digest of the weights, what the encoder is built from, and the arithmetic: precision and kind of device."""
        return {
            "kind": "encoder",
            "weights": self.extractor.digest,
            "encoder": self.extractor.loaded.config.model_dump_json(),
            "precision": self.extractor.precision,
            "device": self.extractor.device_type,
        }

    def describe(self) -> dict[str, Any]:
        """Name, digest, recipe, crop recipe, input and shape of the encoder."""
        loaded = self.extractor.loaded
        return {
            "name": self.name,
            "digest": loaded.digest,
            "recipe": loaded.about.get("recipe"),
            "about": dict(loaded.about),
            "crop": loaded.crop.model_dump(mode="json"),
            "input": self.input.model_dump(mode="json"),
            "encoder": loaded.config.model_dump(mode="json"),
            "precision": self.extractor.precision,
        }

    def settings(self, layers: Sequence[int] | None, poolings: Sequence[str] | None) -> list[Setting]:
        """All pairs of layers and poolings; negative layers count from the end.

        Of `POOLINGS`, what poolings are if they are not given, those that the encoder can give.
        """
        from facemae.features.pooling import can_pool, check_pooling, parse_pooling, prefix_of

        encoder = self.extractor.encoder
        prefix = prefix_of(encoder)
        if poolings is None:
            poolings = [name for name in POOLINGS if can_pool(name, prefix, encoder.grid)]
        for pooling in poolings:
            check_pooling(parse_pooling(pooling), prefix, encoder.grid)
        chosen = range(encoder.depth) if layers is None else layers
        known = sorted({self.extractor.resolve_layer(layer) for layer in chosen})
        return [Setting(layer, pooling) for layer in known for pooling in poolings]

    def compute(self, images: NDArray[np.uint8], wanted: Sequence[Setting]) -> dict[Setting, Features]:
        """One pass of the backbone gives every layer; poolings are taken from it."""
        import torch

        from facemae.features.pooling import pool_tokens, prefix_of

        encoder = self.extractor.encoder
        prefix = prefix_of(encoder)
        tokens = self.extractor.encode(torch.from_numpy(images), sorted({setting.layer for setting in wanted}))
        return {
            setting: _stored(pool_tokens(tokens[setting.layer], prefix, encoder.grid, setting.pooling), setting)
            for setting in wanted
        }


class PixelSource:
    """The pixels themselves, in [0, 1]."""

    name = "raw pixels"

    def __init__(self, input: ModelInput) -> None:
        self.input = input

    def identity(self) -> dict[str, str]:
        """The kind; pixels have no weights."""
        return {"kind": "pixels"}

    def describe(self) -> dict[str, Any]:
        """Name and input."""
        return {"name": self.name, "digest": None, "recipe": None, "input": self.input.model_dump(mode="json")}

    def settings(self, layers: Sequence[int] | None, poolings: Sequence[str] | None) -> list[Setting]:
        """One setting."""
        return [Setting(0, "pixels")]

    def compute(self, images: NDArray[np.uint8], wanted: Sequence[Setting]) -> dict[Setting, Features]:
        """[B, C·S·S]."""
        flat = images.reshape(len(images), -1).astype(np.float32) / 255
        return dict.fromkeys(wanted, flat)


class HogSource:
    """Histograms of oriented gradients (Dalal and Triggs 2005): 8-pixel cells, blocks of 2 x 2 cells, 9 directions."""

    name = "HOG"

    def __init__(self, input: ModelInput) -> None:
        self.input = input

    def identity(self) -> dict[str, str]:
        """The kind with its parameters and the version of scikit-image."""
        return {"kind": "hog-9-8-2", "library": _skimage().__version__}

    def describe(self) -> dict[str, Any]:
        """Name and input."""
        return {"name": self.name, "digest": None, "recipe": None, "input": self.input.model_dump(mode="json")}

    def settings(self, layers: Sequence[int] | None, poolings: Sequence[str] | None) -> list[Setting]:
        """One setting."""
        return [Setting(0, "hog")]

    def compute(self, images: NDArray[np.uint8], wanted: Sequence[Setting]) -> dict[Setting, Features]:
        """[B, F] descriptors of the grey image."""
        hog = _skimage().feature.hog
        rows = [
            hog(image.mean(axis=0), orientations=9, pixels_per_cell=(8, 8), cells_per_block=(2, 2)) for image in images
        ]
        return dict.fromkeys(wanted, np.stack(rows).astype(np.float32))


def _skimage() -> Any:
    try:
        import skimage.feature
    except ImportError as error:
        raise MissingExtraError(
            "the HOG baseline needs scikit-image, which is not installed", fix="pip install 'facemae[study]'"
        ) from error
    return skimage


def _stored(values: Any, setting: Setting) -> Features:
    array = values.detach().float().cpu().numpy()
    return array.astype(np.float16) if setting.pooling == "tokens" else np.asarray(array, dtype=np.float32)


def pixel_input(shards: Path, size: int | None = None) -> ModelInput:
    """Grey input for the baselines, at the size of the stored images (at most 64 pixels, where it is not given)."""
    from facemae.data.card import read_card

    stored = read_card(shards).crop.size
    side = size or min(stored or 64, 64)
    return ModelInput(image_size=side, channels=1, mean=(0.5,), std=(0.5,))
