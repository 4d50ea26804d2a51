"""What a reader of a result has to know before believing its numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facemae_probes.features.pool import Pool
from facemae_probes.features.sources import EncoderSource, FeatureSource
from facemae_probes.tasks.task import Task


def linear_warnings(chosen: Sequence[dict[str, Any]], table: list[dict[str, Any]]) -> list[str]:
    """What a reader has to know of the linear probe: fits that did not converge, a best strength at an end of its path.

    Args:
        chosen: What was chosen for it, a row a fold, with the facts of the fit that predicts.
        table: Rows of all candidates of a single fold; empty where there are several.
    """
    found = []
    unsolved = [row for row in chosen if not row.get("solved", True)]
    if unsolved:
        of = f"{len(unsolved)} of {len(chosen)} folds: " if len(chosen) > 1 else ""
        found.append(
            f"{of}the chosen linear probe is not solved: gradient norm {unsolved[0]['gradient']:.2g} "
            f"after {unsolved[0]['iterations']} iterations"
        )
    rows = [row for row in table if row["probe"] == "linear"]
    others = sum(not row.get("solved", True) for row in rows)
    if others:
        found.append(f"{others} of {len(rows)} linear fits are not solved; a solved one might have been chosen")
    path = sorted({row["strength"] for row in rows})
    ends = [row for row in chosen if row["strength"] in path[:1] + path[-1:]]
    if len(path) > 1 and ends:
        found.append(
            f"the best linear strength, {ends[0]['strength']:g}, is an end of its path ({path[0]:g} to {path[-1]:g}): "
            "a better one may lie beyond"
        )
    return found


def crop_warnings(source: FeatureSource, facts: dict[str, Any]) -> list[str]:
    """Where the faces were cut otherwise than those the encoder was trained on.

    Args:
        source: The source of features.
        facts: The result's `data` block.
    """
    if not isinstance(source, EncoderSource):
        return []
    from facemae.data.schema import CropRecipe
    from facemae.features.extractor import compare_crops

    return compare_crops(source.extractor.crop, CropRecipe.model_validate(facts["crop"]))


def pretraining_warnings(source: FeatureSource, pool: Pool, facts: Sequence[dict[str, Any]], task: Task) -> list[str]:
    """Where the encoder saw test images, without their labels, in pretraining.

    The data of each pretraining stream is compared by digest; streams of a set that was erased from since are known by
    its former digests. Where only the name of the data set is the same, the warning says `may`.

    Args:
        source: The source of features.
        pool: The probed shard sets.
        facts: What a result says of each.
        task: The task.
    """
    if not isinstance(source, EncoderSource):
        return []
    tested = task.samples[task.splits.tested]
    return [
        text
        for number, (shards, about) in enumerate(zip(pool.shards, facts, strict=True))
        for text in _seen_images(source, shards, about, pool.own(tested, number))
    ]


def _seen_images(source: EncoderSource, shards: Path, facts: dict[str, Any], tested: NDArray[np.int64]) -> list[str]:
    """Warnings on the tested samples of one shard set, given in its own numbers."""
    if not len(tested):
        return []
    found = []
    loaded = source.extractor.loaded
    for name, stream in loaded.streams.items():
        card = loaded.cards.get(name)
        shown = _same_data(shards, stream)
        if shown is None and (card is None or card.name != facts["card"]["name"]):
            continue
        where = dict(stream.get("where") or {})
        seen = _passing(shards, where, shown, tested)
        if seen:
            filtered = ", ".join(f"{column}={value}" for column, value in where.items()) or "no filter"
            verb = "saw" if shown is not None else "may have seen"
            found.append(
                f"the encoder {verb} {seen} of the {len(tested)} test images, without labels, in "
                f"pretraining (stream {name!r}, {filtered}): this is no test on unseen images"
            )
    return found


def _same_data(shards: Path, stream: Any) -> int | None:
    """Number of leading shards of the set that the stream was drawn from; None where it was another set."""
    from facemae.data.index import ShardIndex

    index, count, digest = ShardIndex.open(shards), stream.get("shards"), stream.get("digest")
    if not digest or not isinstance(count, int) or not 0 < count <= len(index.shards):
        return None
    view = index.prefix(count)
    return count if digest in (view.digest, *view.ancestors()) else None


def _passing(shards: Path, where: dict[str, str], count: int | None, tested: NDArray[np.int64]) -> int:
    """Test samples among the first shards that pass a stream's filter; all of them where the columns are not known."""
    from facemae.data.index import ShardIndex
    from facemae.data.select import select
    from facemae.errors import UsageError

    index = ShardIndex.open(shards)
    try:
        chosen = select(index if count is None else index.prefix(count), where)
    except UsageError:
        # The filter names a column or value that these samples do not have. In the same data that means none passed;
        # in other data of the same name it tells nothing.
        return len(tested) if count is None else 0
    return len(np.intersect1d(tested, chosen))
