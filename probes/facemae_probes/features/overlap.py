"""Images that are in a training set and in another set that is tested: what shards tell without looking at pixels."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from facemae.errors import ProbeError
from facemae_probes.features.pool import Pool


def refuse_shared(pool: Pool, samples: NDArray[np.int64]) -> list[str]:
    """Refuse samples that are learnt from or chosen on and tested too, in shards of equal content.

    Args:
        pool: A set to learn from and a set to be tested on.
        samples: Those that play a part: of the first set the ones to learn from, of the second the tested ones.

    Returns:
        What a reader has to know: sets of one name may share images in other files.

    Raises:
        ProbeError: A tested sample lies in a shard that the first set has too, and plays a part there.
    """
    from facemae.data.index import ShardIndex

    first, second = (ShardIndex.open(shards) for shards in pool.shards)
    learnt, tested = pool.own(samples, 0), pool.own(samples, 1)
    shared = sum(
        len(np.intersect1d(_within(learnt, first.shard_range(one)), _within(tested, second.shard_range(other))))
        for one, ours in enumerate(first.shards)
        for other, theirs in enumerate(second.shards)
        if ours.digest == theirs.digest
    )
    ours, theirs = pool.names
    compare = "facemae probe contamination"
    if shared:
        raise ProbeError(
            f"{shared} of the {len(tested)} tested samples of {theirs} are learnt from or chosen on in {ours}: "
            "the two sets have the same shards",
            expected="a test set that shares no image with the set that is learnt from",
            fix=f"give both the same splits, or leave --test-data out; {compare} --data {pool.shards[1]} "
            f"--pretraining {pool.shards[0]} lists the images of both",
        )
    facts: list[dict[str, Any]] = pool.facts()
    name = facts[0]["card"]["name"]
    if name == facts[1]["card"]["name"] and facts[0]["digest"] != facts[1]["digest"]:
        return [f"{ours} and {theirs} are both of the data set {name!r}: images may be in both; {compare} finds them"]
    return []


def _within(samples: NDArray[np.int64], shard: range) -> NDArray[np.int64]:
    """Places within a shard of those samples that lie in it."""
    return samples[(samples >= shard.start) & (samples < shard.stop)] - shard.start
