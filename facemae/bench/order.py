"""`facemae bench order`: repeats within batches against batches drawn at random."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facemae.bench.report import BenchResult, machine
from facemae.data.index import ShardIndex
from facemae.data.order import Order
from facemae.data.repeats import batch_repeats
from facemae.rng import generator

SIMULATED_SHARDS, SIMULATED_SHARD_SIZE, SIMULATED_PERSON = 200, 500, 50


_BASELINES = {
    "plain random": "samples drawn from the whole set (hypergeometric)",
    "stratified": "equal parts drawn from each lane (hypergeometric)",
}


@dataclass(frozen=True)
class OrderBenchSettings:
    """What is looked at; fields as the options of the command."""

    batch: int = 256
    lanes: int = 8
    block: int | None = None
    epochs: int = 20
    seed: int = 0


def bench_order(shards: Path | None, settings: OrderBenchSettings) -> list[BenchResult]:
    """Compare pairs of one person and of one shard in a batch with random batches.

    Args:
        shards: A shard set whose samples name subjects. Without one, 100 000 samples in 200 shards are simulated: 50 of
            each person, given to shards at random as the packer does.
        settings: What is looked at.

    Returns:
        A result for persons, where they are known, and two for shards: against the stratified draw that the order
        promises, whose ideal ratio is 1, and against plain random batches. Units are pairs in a batch; a ratio below 1
        means more repeats than the baseline. See `facemae.data.repeats`.
    """
    sizes, persons, source = _set(shards, settings.seed)
    order = Order(sizes, seed=settings.seed, lanes=settings.lanes, block=settings.block)
    groups = {"persons": persons, "shards": np.repeat(np.arange(len(sizes)), sizes)}
    results = []
    for name, codes in groups.items():
        if len(np.unique(codes)) == 1:
            continue  # no subjects, or one shard only: there is nothing to spread
        found = batch_repeats(order, codes, settings.batch, epochs=settings.epochs)
        ideals = {"stratified": found.stratified, "plain random": found.random}
        # Persons are in all lanes alike, where the two ideals are one.
        for ideal in ideals if name == "shards" else ["plain random"]:
            ratio = ideals[ideal] / max(found.pairs, 1 / found.batches)
            facts = {"baseline": _BASELINES[ideal], "set": source, **asdict(settings), "batches": found.batches}
            bench = f"order, repeats of {name} against {ideal}"
            results.append(BenchResult(bench, found.pairs, ideals[ideal], "pairs a batch", ratio, facts, machine()))
    return results


def _set(shards: Path | None, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64], str]:
    if shards is not None:
        index = ShardIndex.open(shards)
        return index.shard_sizes, np.asarray(index.subject_codes, dtype=np.int64), f"{len(index)} samples"
    total = SIMULATED_SHARDS * SIMULATED_SHARD_SIZE
    persons = generator(seed, "simulated persons").permutation(total) // SIMULATED_PERSON
    sizes = np.full(SIMULATED_SHARDS, SIMULATED_SHARD_SIZE, dtype=np.int64)
    return sizes, persons.astype(np.int64), f"simulated: {total} samples, {SIMULATED_PERSON} of each person"
