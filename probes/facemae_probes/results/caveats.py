"""What a reader of a result has to know before believing its numbers."""

from collections.abc import Sequence
from typing import Any

from facemae_probes.features.sources import EncoderSource, FeatureSource


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
    return [*found, *_at_an_end("linear strength", [row["strength"] for row in chosen], path, path[:1] + path[-1:])]


def knn_warnings(chosen: Sequence[dict[str, Any]], table: list[dict[str, Any]]) -> list[str]:
    """What a reader has to know of the kNN probe: a best k at an end of those tried. Fewer than one there cannot be.

    Args:
        chosen: What was chosen for it, a row a fold.
        table: Rows of all candidates of a single fold; empty where there are several.
    """
    path = sorted({row["k"] for row in table if row["probe"] == "knn"})
    return _at_an_end("k of kNN", [row["k"] for row in chosen], path, [k for k in path[:1] + path[-1:] if k > 1])


def _at_an_end(name: str, chosen: Sequence[float], path: Sequence[float], ends: Sequence[float]) -> list[str]:
    best = [value for value in chosen if value in ends]
    if len(path) < 2 or not best:
        return []
    whole = f"{path[0]:g} to {path[-1]:g}"
    return [f"the best {name}, {best[0]:g}, is an end of its path ({whole}): a better one may lie beyond"]


def crop_warnings(source: FeatureSource, facts: dict[str, Any]) -> list[str]:
    """Where the faces were cut otherwise than those the encoder was trained on.

    Args:
        source: The source of features.
        facts: The result's `data` block.
    """
    if not isinstance(source, EncoderSource):
        return []
    from facemae.data.schema import CropRecipe
    from facemae.features.crops import compare_crops

    return compare_crops(source.extractor.crop, CropRecipe.model_validate(facts["crop"]))
