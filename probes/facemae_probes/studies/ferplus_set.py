"""FER+ as the studies use it: what is labelled, which part trains, how it is packed and probed.

Pretraining sees the train split only. Identical images cross the official splits: they are one unit of independence,
and every number is given with and without them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from facemae.config import Recipe
from facemae.data.schema import CropRecipe, DatasetCard
from facemae_probes.choosing.plan import ProbePlan, Say
from facemae_probes.features.sources import FeatureSource, Setting
from facemae_probes.results.result import ProbeResult
from facemae_probes.runner import run_probe

LABEL = "ferplus_majority"
WHERE = {"ferplus8_valid": "1"}
CLEAN = "dup_in_other_split=0"
UNIT = "pixel_md5"
"""Identical images are one unit; the set names no subjects."""


def prepare_shards(data: Path, out: Path, say: Say) -> Path:
    """The indexed shard set: `data` itself, or `out/shards` packed from it."""
    from facemae.data.pack import pack_folder
    from facemae.features.sources import is_shard_set

    if is_shard_set(data):
        return data.resolve()
    shards = (out / "shards").resolve()
    if not (shards / "card.json").exists():
        say(f"packing {data}")
        card = DatasetCard(
            name="fer2013plus",
            source="FER2013, ICML 2013 representation learning challenge; labels FER+ (Barsoum et al. 2016)",
            licence="unknown",
            consent="unknown; images were collected from the web",
            terms="images: none given by the authors; FER+ labels: MIT",
            crop=CropRecipe(detector="none", size=48, colour="grey"),
        )
        report = pack_folder(data, shards, path_column="file", card=card)
        say(f"packed {report.written} images, left out {len(report.skipped)}")
    return shards


def study_recipe(recipe: str, overrides: Sequence[str], shards: Path) -> Recipe:
    """The recipe on the train split of the shard set, every stream."""
    from facemae.recipe import load_recipe

    loaded = load_recipe(recipe, overrides)
    streams = tuple(
        stream.model_copy(update={"shards": str(shards), "where": {**stream.where, "split": "train"}})
        for stream in loaded.data.streams
    )
    return loaded.model_copy(update={"data": loaded.data.model_copy(update={"streams": streams})})


def published_tree(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values, with the names of the shard sets in place of where they lie on this machine."""
    from facemae.recipe import recipe_tree

    tree = dict(recipe_tree(recipe))
    streams = [{**stream, "shards": Path(stream["shards"]).name} for stream in tree["data"]["streams"]]
    return {**tree, "data": {**tree["data"], "streams": streams}}


def probe(
    shards: Path,
    source: FeatureSource,
    plan: ProbePlan,
    *,
    out: Path,
    cache: Path,
    also: Sequence[Setting] = (),
    say: Say = lambda _: None,
) -> ProbeResult:
    """Probe a source on FER+ with 8 classes; a finished result of the same request is read back.

    Args:
        shards: The packed set.
        source: What is probed.
        plan: Probes and settings to choose from, on valid.
        out: Folder of the result.
        cache: Folder of features.
        also: Further settings whose features are computed in the same pass.
        say: Told how it goes.
    """
    say(f"probing {out.name}")
    return run_probe(
        shards, source, LABEL, plan=plan, where=WHERE, slices=[CLEAN], unit=UNIT,
        out=out, cache=cache, also=also, say=say,
    )  # fmt: skip


def all_probes(result: ProbeResult) -> dict[str, Any]:
    """What each probe kind chose and reached on test, with and without duplicates."""
    return {
        kind: {
            "setting": chosen_setting(result, kind),
            "test": numbers(entry["test"]),
            "without_duplicates": numbers(entry["slices"][CLEAN]),
        }
        for kind, entry in result.data["results"].items()
    }


def chosen_setting(result: ProbeResult, kind: str) -> dict[str, Any]:
    """What a probe kind chose in the one fold of the official split."""
    row: dict[str, Any] = result.data["results"][kind]["settings"][0]
    return {name: value for name, value in row.items() if name not in ("repeat", "fold")}


def numbers(found: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a test part that reports show."""
    return {name: found[name] for name in ("count", "accuracy", "macro_f1", "mean_recall", "intervals")}
