"""Small images and shard sets for the tests of the data room."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facemae.data.index import ShardIndex
from facemae.data.pack import PackItem, pack_samples

Encode = Callable[..., bytes]


def _encode(number: int, kind: str = "PNG", size: tuple[int, int] = (20, 16), **options: Any) -> bytes:
    low = np.random.default_rng(number).integers(0, 255, (5, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(low).resize(size, Image.Resampling.BICUBIC).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def encode() -> Encode:
    """Makes the bytes of a small colour image that differs for each number."""
    return _encode


@pytest.fixture
def shard_set(tmp_path: Path) -> Path:
    """A set of 40 samples in four shards: eight subjects of five samples, two splits, labels of all kinds."""
    items = [
        PackItem(
            f"face{i:02d}",
            _encode(i),
            "png",
            {
                "path": f"face{i:02d}.png",
                "split": "test" if i % 8 == 0 else "train",
                "subject": f"person-{i % 8}",
                "labels": {"emotion": ("joy", "fear")[i % 2], "votes": i % 3, "age": 20.5 + i},
            },
        )
        for i in range(40)
    ]
    out = tmp_path / "set"
    pack_samples(items, out, shard_size=10)
    return out


@pytest.fixture
def index(shard_set: Path) -> ShardIndex:
    """The index of `shard_set`."""
    return ShardIndex.open(shard_set)
