"""The images of some samples of a shard set, as a source of features wants them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facemae_probes.features.sources import FeatureSource

BLOCK = 128
"""Images an encoder sees at once."""


def images_of(
    shards: Path, source: FeatureSource, samples: NDArray[np.int64], say: Callable[[str], None]
) -> Callable[[], Iterator[NDArray[np.uint8]]]:
    """Images of samples in their order.

    Args:
        shards: The shard set.
        source: Which has an input.
        samples: Their numbers in the set.
        say: Told how it goes, ten times.

    Returns:
        What gives blocks of uint8 images [B, C, S, S] when it is called.
    """

    def blocks() -> Iterator[NDArray[np.uint8]]:
        from facemae.features.sources import ShardSource
        from facemae.features.stream import stream_batches

        done = 0
        for batch in stream_batches(ShardSource(shards, samples=samples), source.input, batch_size=BLOCK, workers=2):
            yield batch.images.numpy()
            before, done = done, done + len(batch.keys)
            if before * 10 // len(samples) != done * 10 // len(samples):
                say(f"features of {source.name}: {done} of {len(samples)} images")

    return blocks
