"""A tiny labelled shard set and a tiny encoder for the probes."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facemae.config import EncoderConfig
from facemae.data.pack import PackItem, pack_samples
from facemae.data.schema import CropRecipe, DatasetCard, ModelInput
from facemae.features.extractor import FeatureExtractor
from facemae.models.encoder import build_encoder
from facemae.models.init import initialise
from facemae.rng import generator

CLASSES = ("happy", "neutral", "sad")


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    return buffer.getvalue()


def make_items(count: int, *, splits: tuple[str, ...] = ("train", "train", "valid", "test")) -> list[PackItem]:
    """Noise images with a bright patch whose place tells the class; three samples a subject."""
    items = []
    for i in range(count):
        rng = generator(7, "probe-item", i)
        subject = i // 3
        code = int(rng.integers(3))
        pixels = rng.integers(0, 90, size=(16, 16), dtype=np.uint8)
        pixels[4:12, 5 * code : 5 * code + 5] += 110
        labels = {"emotion": CLASSES[code], "AU1": int(code == 0), "AU2": int(code != 1), "odd": str(i % 2)}
        meta = {"split": splits[subject % len(splits)], "subject": f"s{subject}", "labels": labels}
        items.append(PackItem(f"f{i:04d}", _png(pixels), "png", meta))
    return items


@pytest.fixture(scope="session")
def labelled_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """180 grey images of 16 pixels, three classes, splits by subject."""
    out = tmp_path_factory.mktemp("probe") / "shards"
    card = DatasetCard(name="tiny", crop=CropRecipe(detector="none", size=16, colour="grey"))
    pack_samples(make_items(180), out, card=card, shard_size=60)
    return out


@pytest.fixture(scope="session")
def tiny_extractor() -> FeatureExtractor:
    """A randomly initialised ViT on 16-pixel grey images with a 4x4 grid."""
    config = EncoderConfig(name="vit_tiny_patch16_224", image_size=16, patch_size=4, channels=1)
    encoder = build_encoder(config)
    initialise(encoder, 0, prefix="encoder.")
    model_input = ModelInput(image_size=16, channels=1, mean=(0.5,), std=(0.25,))
    return FeatureExtractor.from_encoder(encoder, config, model_input, crop=CropRecipe(detector="none"), device="cpu")


@pytest.fixture(scope="session")
def ferplus_folder(session_folder: Path) -> Path:
    """A tiny set in the layout of FER+."""
    from tests.probes.ferplus_layout import write_ferplus

    return write_ferplus(session_folder / "ferplus" / "data")
