"""Test images that an encoder saw in its training, as far as its papers tell: streams, and cards of initial weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facemae.errors import IndexMismatchError, StorageError, UsageError
from facemae_probes.features.pool import Pool
from facemae_probes.features.sources import EncoderSource, FeatureSource
from facemae_probes.tasks.task import Task

LABELLED = ("supervised",)
"""Kinds of objectives that learn from labels."""
EARLIER = "init/"
"""What names of the cards of initial weights begin with, once for each run back."""


def pretraining_warnings(source: FeatureSource, pool: Pool, facts: Sequence[dict[str, Any]], task: Task) -> list[str]:
    """Where the encoder saw test images in its training.

    The data of each stream is compared by digest; streams of a set that was erased from since are known by its former
    digests. Where only the name of the data set is the same, the warning says `may`, and so it does of the data of
    weights that a run started from, of which there are only cards.

    Args:
        source: The source of features.
        pool: The probed shard sets.
        facts: What a result says of each.
        task: The task.
    """
    if not isinstance(source, EncoderSource) or "random_init" in source.extractor.loaded.about:
        return []
    tested = task.samples[task.splits.tested]
    found = [
        text
        for number, (shards, about) in enumerate(zip(pool.shards, facts, strict=True))
        if len(own := pool.own(tested, number))
        for text in (*_seen_images(source, shards, about, own), *_seen_before(source, about, len(own)))
    ]
    unknown = [name for name, card in source.extractor.loaded.cards.items() if _before(name) and card.name == "unknown"]
    if unknown:
        found.append(
            "the encoder started from weights that do not say what they were trained on: whether its pretraining saw "
            "test images is not known"
        )
    return found


def _seen_images(source: EncoderSource, shards: Path, facts: dict[str, Any], tested: NDArray[np.int64]) -> list[str]:
    """Warnings on the tested samples of one shard set, given in its own numbers."""
    found = []
    loaded = source.extractor.loaded
    for name, stream in loaded.streams.items():
        card = loaded.cards.get(name)
        shown = _same_data(shards, stream)
        if shown is None and (card is None or card.name != facts["card"]["name"]):
            continue
        where = dict(stream.get("where") or {})
        seen, sure = _passing(shards, stream, shown, tested)
        if seen:
            filtered = ", ".join(f"{column}={value}" for column, value in where.items()) or "no filter"
            listed = f", keys of {Path(stream['keys']).name}" if stream.get("keys") else ""
            verb = "saw" if shown is not None and sure else "may have seen"
            found.append(
                f"the encoder {verb} {seen} of the {len(tested)} test images, {_labels(source)}, in "
                f"pretraining (stream {name!r}, {filtered}{listed}): this is no test on unseen images"
            )
    return found


def _labels(source: EncoderSource) -> str:
    """Whether labels were learnt from with the images; which ones the recipe says."""
    manifest = source.extractor.loaded.manifest
    kinds = [] if manifest is None else [each.get("kind") for each in manifest.recipe.get("objectives", ())]
    return "with labels" if set(kinds) & set(LABELLED) else "without labels"


def _seen_before(source: EncoderSource, facts: dict[str, Any], count: int) -> list[str]:
    """Initial weights, of the run and of those before it, whose data set has the name of the tested one."""
    name = facts["card"]["name"]
    cards = source.extractor.loaded.cards
    if name == "unknown" or not any(_before(key) and card.name == name for key, card in cards.items()):
        return []
    text = (
        f"the encoder may have seen {count} of the {count} test images in pretraining, by the weights it started from, "
        f"whose data set has the same name, {name!r}: facemae probe contamination --run on the earlier run tells"
    )
    return [text]


def _before(name: str) -> bool:
    return name.startswith(EARLIER)


def _same_data(shards: Path, stream: Mapping[str, Any]) -> int | None:
    """Number of leading shards of the set that the stream was drawn from; None where it was another set."""
    from facemae.data.index import ShardIndex

    index, count, digest = ShardIndex.open(shards), stream.get("shards"), stream.get("digest")
    if not digest or not isinstance(count, int) or not 0 < count <= len(index.shards):
        return None
    return count if index.prefix(count).accepts(digest) else None


def _passing(shards: Path, stream: Mapping[str, Any], count: int | None, tested: NDArray[np.int64]) -> tuple[int, bool]:
    """Test samples among the first shards that a stream reads, and whether its list of keys is known.

    Without the list as it was, all that pass the filter count; and all of them where the columns are not known.
    """
    from facemae.config import StreamConfig
    from facemae.data.index import ShardIndex
    from facemae.data.select import select
    from facemae.data.selection import check_selection, choose_samples

    index, where, keys = ShardIndex.open(shards), dict(stream.get("where") or {}), stream.get("keys")
    if count is not None:
        index = index.prefix(count)
        config = StreamConfig(where=where, keys=keys)
        try:
            chosen, pins = choose_samples(index, config)
            check_selection(config, pins, stream.get("selection"))
            every = np.arange(len(index))
            return len(np.intersect1d(tested, every if chosen is None else chosen)), True
        except (UsageError, StorageError, IndexMismatchError):
            pass  # The list is gone or another one now, or labels that the filter asks for were erased.
    try:
        chosen = select(index, where)
    except UsageError:
        # The filter names a column or value that these samples do not have. In the same data that means none passed;
        # in other data of the same name it tells nothing.
        return (len(tested) if count is None else 0), keys is None
    return len(np.intersect1d(tested, chosen)), keys is None
