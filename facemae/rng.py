"""Randomness as a pure function of a seed and a path of names.

Nothing in facemae draws from global random state. Every draw comes from a generator keyed by its purpose, for example
``generator(seed, "crop", view, epoch, sample)``, so it does not depend on process, worker, order or what was drawn
before. That is what lets a killed run continue with the same samples, crops and masks at any number of workers.
"""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

Part = str | int


def _digest(seed: int, path: tuple[Part, ...]) -> bytes:
    # Each part is tagged with its type and length, so ("a", 1), ("a1",) and ("a", "1") give different keys.
    hasher = hashlib.blake2b(digest_size=16)
    for part in (seed, *path):
        text = str(int(part)) if not isinstance(part, str) else part
        tag = "s" if isinstance(part, str) else "i"
        encoded = text.encode()
        hasher.update(f"{tag}{len(encoded)}:".encode())
        hasher.update(encoded)
    return hasher.digest()


def generator(seed: int, *path: Part) -> np.random.Generator:
    """A NumPy generator for one purpose.

    Args:
        seed: The run's seed.
        *path: What the draw is for, from the general to the particular: purpose, then step or sample.

    Returns:
        A generator over the counter-based Philox bit generator, keyed by a hash of seed and path.
    """
    key = np.frombuffer(_digest(seed, path), dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def uniform_by_slot(seed: int, *path: Part, first: int, slots: int, each: int) -> np.ndarray:
    """Numbers uniform in [0, 1) for some slots of a global batch; how the batch is divided does not change them.

    Args:
        seed: The run's seed.
        *path: What the draw is for, with the step; see `generator`.
        first: The first slot.
        slots: How many follow each other from it.
        each: Numbers for a slot.

    Returns:
        float64 [slots, each].
    """
    # One Philox stream serves the step: a slot owns a fixed run of its counters, four draws to a counter.
    counters = -(-each // 4)
    rng = generator(seed, *path)
    rng.bit_generator.advance(first * counters)  # type: ignore[attr-defined]
    return rng.random((slots, 4 * counters))[:, :each]


def integer_seed(seed: int, *path: Part) -> int:
    """A 63-bit integer for libraries that take a seed, such as scikit-learn's or torch's."""
    return int.from_bytes(_digest(seed, path)[:8], "little") >> 1


def torch_generator(seed: int, *path: Part) -> "torch.Generator":
    """A CPU torch generator for one purpose; see `generator`."""
    # Here, so that worker processes that only need NumPy start in a fraction of a second.
    import torch

    return torch.Generator().manual_seed(integer_seed(seed, *path))
