"""From the ten votes of FER+ to labels, by its authors' rules (Barsoum et al. 2016, and their published reader)."""

from collections.abc import Sequence

CLASSES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
OTHERS = ("unknown", "NF")
"""Votes that name no class; NF is "not a face"."""
COLUMNS = (*CLASSES, *OTHERS)

_ENOUGH = 0.75
_MOST = 3


def without_outliers(votes: Sequence[int]) -> list[int]:
    """Votes without those that stand alone: an emotion that one tagger saw counts as none."""
    return [count if count > 1 else 0 for count in votes]


def majority(votes: Sequence[int]) -> str | None:
    """The class with more than half of the votes that do not stand alone; None where there is none, or it is no class.

    Args:
        votes: Ten counts in the order of `COLUMNS`.
    """
    kept = without_outliers(votes)
    most = max(kept)
    name = COLUMNS[kept.index(most)]
    return name if 2 * most > sum(kept) and name in CLASSES else None


def distribution(votes: Sequence[int]) -> tuple[float, ...] | None:
    """Shares of the eight classes, as the authors' cross-entropy and probability modes train on.

    Votes that stand alone are dropped. Classes are taken from the most voted down, equal ones together, until they hold
    three quarters of the votes or are three. No distribution is left where `unknown` or `NF` is among the most voted
    without a class beside it, where more than three are taken, or where the taken hold half of the votes or less.

    Args:
        votes: Ten counts in the order of `COLUMNS`.

    Returns:
        Eight shares that sum to one, or None.
    """
    kept = without_outliers(votes)
    total = sum(kept)
    taken = [0] * len(CLASSES)
    for level in sorted(set(kept) - {0}, reverse=True):
        chosen = [place for place, count in enumerate(kept[: len(CLASSES)]) if count == level]
        for place in chosen:
            taken[place] = level
        # Taggers who saw no emotion, or no face, end the search.
        ended = any(count == level for count in kept[len(CLASSES) :])
        count = sum(value > 0 for value in taken)
        if ended or sum(taken) >= _ENOUGH * total or count >= _MOST:
            break
    held = sum(taken)
    if 2 * held <= total or sum(value > 0 for value in taken) > _MOST:
        return None
    return tuple(value / held for value in taken)
