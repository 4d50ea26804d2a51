"""A small checkpoint and small pictures for the feature tests."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facemae.checkpoint import Manifest, write_checkpoint
from facemae.config import EncoderConfig
from facemae.data.schema import CropRecipe, DatasetCard, ModelInput
from facemae.models.encoder import build_encoder
from facemae.models.init import initialise
from facemae.rng import generator
from tests.features import clip_models

SIDE = 32
WIDTH = 192
DEPTH = 12
CROP = CropRecipe(detector="boxes 1.0", margin="0.05", alignment="none", size=48, colour="rgb")
FREE = DatasetCard(name="toy", licence="CC0-1.0", redistributable=True, crop=CROP)
PINNED = {"faces": {"shards": 3, "digest": "ab" * 32}}

Save = Callable[..., Path]


def picture(number: int, *, side: int = 48, channels: int = 3) -> np.ndarray:
    """A smooth random picture: uint8 [side, side, channels]."""
    small = generator(0, "picture", number).integers(0, 256, (6, 6, channels), dtype=np.uint8)
    image = Image.fromarray(small if channels == 3 else small[:, :, 0])
    pixels = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))
    return pixels.reshape(side, side, channels)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0]).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def save_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Save:
    """Write a tiny run with one checkpoint; returns the run folder."""

    def save(
        *,
        channels: int = 3,
        registers: int = 0,
        class_token: bool | None = None,
        ema: bool = True,
        seed: int = 1,
        step: int = 7,
        cards: dict[str, DatasetCard] | None = None,
    ) -> Path:
        config = EncoderConfig(
            name="vit_tiny_patch16_224",
            image_size=SIDE,
            patch_size=8,
            channels=channels,
            registers=registers,
            class_token=class_token,
        )
        parts = {"model": seed, "ema": seed + 1} if ema else {"model": seed}
        tensors = {}
        for part, part_seed in parts.items():
            encoder = build_encoder(config)
            initialise(encoder, part_seed, prefix="encoder.")
            tensors[part] = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
        run = tmp_path_factory.mktemp("run")
        mean, std = ((0.5,), (0.25,)) if channels == 1 else ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        manifest = Manifest(
            step=step,
            samples=8 * step,
            recipe={
                "name": "fmae_test",
                "encoder": config.model_dump(mode="json"),
                "data": {"streams": [{"name": "faces", "shards": "somewhere", "where": {"split": "train"}}]},
            },
            input=ModelInput(image_size=SIDE, channels=channels, mean=mean, std=std),
            cards=cards if cards is not None else {"faces": FREE},
        )
        folder = run / "checkpoints" / f"step-{step:08d}"
        write_checkpoint(folder, manifest, tensors=tensors, documents={"trainer": {}, "data": {"streams": PINNED}})
        return run

    return save


@pytest.fixture(scope="session")
def run(save_checkpoint: Save) -> Path:
    """A colour model with averaged weights."""
    return save_checkpoint()


@pytest.fixture(scope="session")
def clip_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that sees clips and hears."""
    return clip_models.save(tmp_path_factory.mktemp("both"))


@pytest.fixture(scope="session")
def deaf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that sees clips and hears nothing."""
    return clip_models.save(tmp_path_factory.mktemp("deaf"), sound=False)


@pytest.fixture(scope="session")
def pictures() -> list[np.ndarray]:
    return [picture(i) for i in range(7)]


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory, pictures: list[np.ndarray]) -> Path:
    """The pictures as files of a folder with a subfolder."""
    folder = tmp_path_factory.mktemp("faces")
    (folder / "a").mkdir()
    for i, pixels in enumerate(pictures):
        name = f"a/{i}.png" if i < 3 else f"b{i}.png"
        (folder / name).write_bytes(png(pixels))
    return folder


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory, pictures: list[np.ndarray]) -> Path:
    """The pictures as an indexed shard set."""
    from facemae.data.pack import PackItem, pack_samples

    out = tmp_path_factory.mktemp("packed") / "shards"
    items = [
        PackItem(key=f"k{i}", image=png(pixels), extension="png", meta={"split": "test" if i % 2 else "train"})
        for i, pixels in enumerate(pictures)
    ]
    card = DatasetCard(name="toy", crop=CROP.model_copy(update={"margin": "0.2"}))
    pack_samples(items, out, card=card, shard_size=3)
    return out
