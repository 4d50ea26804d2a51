"""Whether the samples that an objective compares with each other are in the model at the same time."""

from collections.abc import Mapping

from facemae.config import ViewConfig
from facemae.errors import ConfigError

PAIR = 2
"""Samples that a view with mixup mixes."""


def check_groups(groups: Mapping[str, int], *, share: int, micro: int, world: int, lanes: int) -> None:
    """Refuse a division of the global batch that tears groups apart.

    A process owns `share` slots of the global batch that follow each other, and cuts them into micro-batches that do.
    So groups are whole where a micro-batch is a multiple of them, each in one process; or where there is but one
    micro-batch, and then all processes together have the global batch in the model, whatever process a sample is in.

    Args:
        groups: Samples that are compared with each other, by objective.
        share: Samples of a process in a step.
        micro: Samples of a micro-batch; divides the share.
        world: Number of processes.
        lanes: `data.lanes`, which the number of processes divides.

    Raises:
        ConfigError: A group is torn; lists what can be set instead.
    """
    batch = share * world
    for name, size in groups.items():
        if batch % size:
            raise ConfigError(
                f"objective {name!r} compares groups of {size} samples, which do not divide the batch of {batch}",
                expected="a group that divides optim.batch_size",
            )
    torn = [name for name, size in groups.items() if not _are_whole([size], share, micro)]
    if not torn:
        return
    sizes = list(groups.values())
    micros = [part for part in _divisors(share) if _are_whole(sizes, share, part)]
    worlds = [
        count
        for count in _divisors(lanes)
        if batch % count == 0 and batch // count % micro == 0 and _are_whole(sizes, batch // count, micro)
    ]
    compared = " and ".join(f"objective {name!r} compares groups of {groups[name]} samples" for name in torn)
    others = f", or {_listed(worlds)} processes with micro-batches of {micro}" if worlds else ""
    raise ConfigError(
        f"{compared}, and micro-batches of {micro} in {share // micro} turns tear them apart",
        expected=f"efficiency.micro_batch {_listed(micros)} with {world} processes{others}",
        fix="set efficiency.micro_batch=null where memory allows, or give the objective a smaller group",
    )


def check_pairs(views: Mapping[str, ViewConfig], *, share: int, micro: int, batch: int) -> None:
    """Refuse micro-batches that tear apart the pairs in which a view mixes samples.

    Pixels do not travel between processes, so a pair has to lie in one of them.

    Args:
        views: The recipe's views.
        share: Samples of a process in a step.
        micro: Samples of a micro-batch; divides the share.
        batch: Samples of a step.

    Raises:
        ConfigError: Their number is odd; lists what can be set instead.
    """
    mixed = [name for name, view in views.items() if view.mixup is not None]
    if not mixed or micro % PAIR == 0:
        return
    micros = [part for part in _divisors(share) if part % PAIR == 0]
    found = f"views.{mixed[0]}.mixup mixes samples in pairs, and a micro-batch of {micro} tears one apart"
    if micros:
        raise ConfigError(found, expected=f"efficiency.micro_batch {_listed(micros)}, or null")
    raise ConfigError(
        f"{found}: each of {batch // share} processes has {share} samples of a step",
        expected="an even number in each",
        fix="start fewer processes, or a new run with another optim.batch_size",
    )


def _are_whole(sizes: list[int], share: int, micro: int) -> bool:
    return micro == share or all(micro % size == 0 for size in sizes)


def _divisors(number: int) -> list[int]:
    return [part for part in range(1, number + 1) if number % part == 0]


def _listed(numbers: list[int]) -> str:
    return " or ".join(map(str, numbers))
