"""Drawing parts of rows: whole units, the classes evenly."""

import numpy as np
from numpy.typing import NDArray

from facemae.rng import generator
from facemae_probes.protocols.base import Inner, Rows
from facemae_probes.tasks.targets import Targets

VALID_SHARE = 0.15
"""Share of the training units set aside for choosing, where a set has no validation split."""
MANY = 1000
"""Units above which parts are dealt in one pass: scikit-learn's draw takes minutes for tens of thousands."""


def set_aside(rows: Rows, units: NDArray[np.int64], seed: int, share: float = VALID_SHARE) -> Inner | None:
    """Whole units drawn from some rows to judge on; None where they have one unit only."""
    known = np.unique(units[rows])
    if len(known) < 2:
        return None
    drawn = generator(seed, "probe", "valid").permutation(known)[: max(1, round(share * len(known)))]
    aside = np.isin(units[rows], drawn)
    return Inner(rows[~aside], rows[aside])


def group_folds(
    rows: Rows, units: NDArray[np.int64], targets: Targets, count: int, seed: int, *purpose: str
) -> list[Rows]:
    """Cut rows into parts that share no unit, with like shares of the classes.

    Args:
        rows: [M] rows of a task.
        units: [N] unit numbers of all rows of the task.
        targets: [N] labels of all rows.
        count: Parts; at most the units.
        seed: Seed of the draw.
        purpose: What is drawn, so that draws for different ends are independent.

    Returns:
        Rows of each part, ascending.
    """
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, StratifiedKFold

    draw = int(generator(seed, "protocol", *purpose).integers(2**31))
    groups, blank = units[rows], np.zeros(len(rows))
    if targets.kind not in ("classes", "distribution"):
        cut = GroupKFold(count, shuffle=True, random_state=draw).split(blank, groups=groups)
    else:
        classes = targets.take(rows).majority()
        enough = np.bincount(classes, minlength=1).max() >= count
        alone = len(np.unique(groups)) == len(groups)
        if not enough:
            # Classes this small cannot be shared out evenly; scikit-learn refuses them all.
            cut = GroupKFold(count, shuffle=True, random_state=draw).split(blank, groups=groups)
        elif not alone and len(np.unique(groups)) > MANY:
            part = deal_units(groups, classes, count, generator(seed, "protocol", "deal", *purpose))
            return [np.sort(rows[part == number]) for number in range(count)]
        else:
            kind = StratifiedKFold if alone else StratifiedGroupKFold
            cut = _quietly(kind(count, shuffle=True, random_state=draw), blank, classes, None if alone else groups)
    return [np.sort(rows[part]) for _, part in cut]


def deal_units(
    units: NDArray[np.int64], classes: NDArray[np.int64], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Deal whole units to parts so that each class is spread evenly.

    Units of several samples come first, the largest before the others, equals in a random order: each goes to the part
    whose squared shares of its classes grow least, which for a unit of one class is the part that has least of it.
    Then units of a single sample fill up what is uneven, class by class.

    Args:
        units: [M] unit numbers.
        classes: [M] class numbers.
        count: Parts.
        rng: What orders equals.

    Returns:
        [M] part of each sample, from 0.
    """
    _, own = np.unique(units, return_inverse=True)
    sizes, width = np.bincount(own), int(classes.max()) + 1
    known = np.bincount(own * width + classes, minlength=len(sizes) * width).reshape(-1, width)
    shuffled = rng.permutation(len(sizes))
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    weight = 1 / np.maximum(known.sum(axis=0), 1) ** 2.0
    parts = np.empty(len(sizes), dtype=np.int64)
    loads = np.zeros((count, width))
    for unit in order[sizes[order] > 1]:
        grows = loads @ (known[unit] * weight)
        parts[unit] = part = np.lexsort((loads.sum(axis=1), grows))[0]
        loads[part] += known[unit]
    singles = order[sizes[order] == 1]
    kinds = known[singles].argmax(axis=1)
    for kind in np.unique(kinds):
        chosen = singles[kinds == kind]
        # Each goes to the part with least of the class; of equals, to the one with least of all.
        levels = loads[:, kind, None] + np.arange(len(chosen))
        totals = np.broadcast_to(loads.sum(axis=1)[:, None], levels.shape)
        parts[chosen] = np.lexsort((totals.ravel(), levels.ravel()))[: len(chosen)] // len(chosen)
        loads[:, kind] += np.bincount(parts[chosen], minlength=count)
    return parts[own]


def inner_folds(
    rows: Rows, units: NDArray[np.int64], targets: Targets, count: int, seed: int, *purpose: str
) -> tuple[Inner, ...]:
    """Group-exclusive cross-validation within some rows; none where they have one unit only."""
    count = min(count, len(np.unique(units[rows])))
    if count < 2:
        return ()
    parts = [part for part in group_folds(rows, units, targets, count, seed, *purpose) if len(part)]
    return tuple(Inner(np.setdiff1d(rows, part), part) for part in parts)


def _quietly(
    splitter: object, blank: NDArray[np.float64], classes: Rows, groups: Rows | None
) -> list[tuple[Rows, Rows]]:
    import warnings

    with warnings.catch_warnings():
        # A class with fewer samples than parts is absent from some: the metrics keep absent classes.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        return list(splitter.split(blank, classes, groups))  # type: ignore[attr-defined]
