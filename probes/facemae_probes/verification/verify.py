"""Image-pair verification with frozen features: cosine similarity and a threshold, chosen without the tested fold."""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facemae_probes.features.pool import Pool
from facemae_probes.features.sources import Features, FeatureSource, Setting
from facemae_probes.results.caveats import crop_warnings
from facemae_probes.tasks.columns import read_columns
from facemae_probes.verification.judging import LEVEL, NOTES, Answers, Units, best_threshold, measures
from facemae_probes.verification.pairs import (
    Pairs,
    find_samples,
    images_in_several_folds,
    persons_in_several_folds,
    read_pairs,
)

PROTOCOL = (
    "cosine similarity of frozen features; threshold, layer and pooling of each fold are those with the most right "
    "answers on the other folds. Of the labels only `same` and `different` of given pairs are used, no names. In the "
    "terms of LFW (Huang and Learned-Miller 2014) this is `image-restricted, label-free outside data` where the "
    "encoder was pretrained without labels, and `labelled outside data` where it was not; the area under the curve of "
    "one setting fixed beforehand is its `unsupervised`. It is not `unrestricted`, in which further pairs are formed "
    "from names"
)
_BLOCK = 2048
"""Pairs whose features are in memory at a time."""


def verify(
    shards: Path,
    source: FeatureSource,
    pairs: Path | Pairs,
    *,
    layers: Sequence[int] | None = None,
    poolings: Sequence[str] | None = None,
    cache: Path | None = None,
    seed: int = 0,
    replicates: int = 1000,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Verify pairs of images.

    Args:
        shards: Indexed shard set that has the images.
        source: Where features come from.
        pairs: A list of pairs, or the file of one; see `read_pairs`.
        layers: Layers to choose from; None takes all.
        poolings: Poolings to choose from; None takes the usual ones that the encoder can give.
        cache: Folder of features; None takes a temporary one.
        seed: Of the bootstrap.
        replicates: Its draws.
        say: Told how it goes.

    Returns:
        The result as plain values: `accuracy` (mean over folds, its standard error, and each fold with what was
        chosen), `measures` with intervals, their unit, and `warnings`.

    Raises:
        ProbeError: The list is not as it must be, or images of it are missing.
        UsageError: A layer or pooling does not exist.
    """
    began = time.monotonic()
    found = pairs if isinstance(pairs, Pairs) else read_pairs(pairs)
    columns = read_columns(shards)
    places = find_samples(found, [str(key) for key in columns.values["key"]])
    persons, warnings = _persons(found, columns.text("subject"), places)
    pool, settings = Pool.of(shards), source.settings(layers, poolings)
    samples, rows = np.unique(columns.samples[places], return_inverse=True)
    with tempfile.TemporaryDirectory(prefix="facemae-features-") as temporary:
        features = pool.features(source, settings, samples, cache or Path(temporary), say)
        similarities = np.stack([_cosine(features[setting], rows[found.rows]) for setting in settings])
        del features
    answers, chosen = _answer(found, similarities, settings)
    by_fold = answers.by_fold()
    units = _units(found, persons)
    facts = pool.facts()[0]
    return {
        "schema": 1,
        "protocol": PROTOCOL,
        "model": source.describe(),
        "data": facts,
        "pairs": _describe(found, persons),
        "settings": [{"layer": setting.layer, "pooling": setting.pooling} for setting in settings],
        "accuracy": {
            "mean": float(by_fold.mean()),
            "standard_error": float(by_fold.std(ddof=1) / np.sqrt(len(by_fold))),
            "folds": [{**row, "accuracy": value} for row, value in zip(chosen, by_fold.tolist(), strict=True)],
        },
        "measures": measures(answers, units, replicates=replicates, seed=seed),
        "interval": {
            "level": LEVEL,
            "unit": units.name,
            "units": units.count,
            "replicates": replicates,
            "seed": seed,
            "how": NOTES[units.name],
        },
        "warnings": [*warnings, *_shared(found, persons), *crop_warnings(source, facts)],
        "duration_s": round(time.monotonic() - began, 2),
    }


def _cosine(features: Features, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Cosine similarity of the features of each pair, [P]; 0 where one has no length."""
    found = np.zeros(len(rows))
    for start in range(0, len(rows), _BLOCK):
        first, second = (np.asarray(features[rows[start : start + _BLOCK, side]], dtype=np.float64) for side in (0, 1))
        lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
        products = np.einsum("pf,pf->p", first, second)
        np.divide(products, lengths, out=found[start : start + _BLOCK], where=lengths > 0)
    return found


def _answer(
    pairs: Pairs, similarities: NDArray[np.float64], settings: Sequence[Setting]
) -> tuple[Answers, list[dict[str, Any]]]:
    """Each fold by the setting and threshold that are best on the others; of equal settings the first."""
    margins, chosen = np.zeros(len(pairs)), []
    for fold, name in enumerate(pairs.fold_names):
        others, own = pairs.folds != fold, pairs.folds == fold
        tried = [best_threshold(row[others], pairs.same[others]) for row in similarities]
        best = int(np.argmax([share for _, share in tried]))
        threshold, share = tried[best]
        spread = float(similarities[best][others].std()) or 1.0
        margins[own] = (similarities[best][own] - threshold) / spread
        setting = settings[best]
        row = {"fold": name, "layer": setting.layer, "pooling": setting.pooling}
        chosen.append({**row, "threshold": threshold, "on_others": share, "pairs": int(own.sum())})
    return Answers(margins, pairs.same, pairs.folds), chosen


def _persons(
    pairs: Pairs, subjects: Sequence[str | None], places: NDArray[np.int64]
) -> tuple[list[str | None], list[str]]:
    """Who is on each image: as the list says, else as the shard set does; and where that and the truth disagree."""
    persons = [
        person if person is not None else subjects[place]
        for person, place in zip(pairs.persons, places.tolist(), strict=True)
    ]
    both = [
        (persons[a], persons[b], same) for (a, b), same in zip(pairs.rows.tolist(), pairs.same.tolist(), strict=True)
    ]
    wrong = sum(one is not None and other is not None and (one == other) != same for one, other, same in both)
    return persons, [f"{wrong} pairs are labelled otherwise than the subjects of their images say"] if wrong else []


def _units(pairs: Pairs, persons: Sequence[str | None]) -> Units:
    if any(person is None for person in persons):
        return Units("fold", pairs.folds, pairs.folds, len(pairs.fold_names))
    names, codes = np.unique(np.array(persons), return_inverse=True)
    return Units("person", codes[pairs.rows[:, 0]], codes[pairs.rows[:, 1]], len(names))


def _shared(pairs: Pairs, persons: Sequence[str | None]) -> list[str]:
    several = {"persons": persons_in_several_folds(pairs, persons), "images": images_in_several_folds(pairs, persons)}
    texts = []
    for what, found in several.items():
        if found:
            some = ", ".join(found[:3]) + (", …" if len(found) > 3 else "")
            text = f"{len(found)} {what} are in several folds ({some}): folds are not independent"
            texts.append(f"{text}, and the standard error over them is too small")
    return texts


def _describe(pairs: Pairs, persons: Sequence[str | None]) -> Mapping[str, Any]:
    known = {person for person in persons if person is not None}
    return {
        "list": pairs.name,
        "layout": pairs.layout,
        "digest": pairs.digest,
        "pairs": len(pairs),
        "same": int(pairs.same.sum()),
        "different": int((~pairs.same).sum()),
        "folds": len(pairs.fold_names),
        "images": len(pairs.images),
        "persons": len(known) if None not in persons else None,
    }
