"""Every recipe of the library trains, is exported and extracts: made small, all its parts in place."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facemae.checkpoint import find_checkpoint
from facemae.config import Recipe
from facemae.data.pack import pack_samples
from facemae.data.regions import MEMBER, encode_map
from facemae.data.synthetic import render, sample_params
from facemae.features.export import export_encoder, verify_export
from facemae.features.extractor import load
from facemae.objectives.pretraining import build_pretrain_model
from facemae.recipe import list_recipes, load_recipe, parse_recipe, recipe_tree
from facemae.train.record.log import read_lines
from facemae.train.saving.folder import RunFolder
from facemae.train.trainer import pretrain
from tests.data.test_loader_clips import RATE, members, write
from tests.train.conftest import noise_items

PATCH, GRID = 4, 4
SMALL: dict[str, Any] = {
    "width": 16, "depth": 1, "heads": 2, "hidden": 16, "out": 8, "prototypes": 6, "freeze_prototypes": 8,
}  # fmt: skip
"""Sizes by the name of their key, wherever it is in an objective."""


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The noise of `shards` with a class for each image."""
    folder = tmp_path_factory.mktemp("labelled") / "shards"
    items = [
        replace(item, meta={**item.meta, "labels": {"expression": ("calm", "glad")[place % 2]}})
        for place, item in enumerate(noise_items(24))
    ]
    pack_samples(items, folder, shard_size=10)
    return folder


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of growing brightness with a tone beneath, of one second and more, with a region map."""
    regions = {MEMBER: encode_map(render(sample_params(0, 0, 0), 32).regions)}
    made = {f"clip{number:02d}": {**members(25 + number), **regions} for number in range(12)}
    return write(tmp_path_factory.mktemp("moving") / "shards", made)


def shrink(recipe: Recipe, *shards: Path) -> Recipe:
    """The recipe on tiny images for three steps: the same views, objectives and options, other sizes and lengths.

    Args:
        recipe: The recipe.
        shards: A set for each of its streams.
    """
    tree = recipe_tree(recipe)
    names = [stream["name"] for stream in tree["data"]["streams"]]
    _shrink_views(tree)
    _shrink_encoders(tree)
    for objective in tree["objectives"]:
        _shrink_block(objective)
    streams = [{"name": name, "shards": str(folder)} for name, folder in zip(names, shards, strict=True)]
    tree["data"] |= {"lanes": 2, "block": None, "streams": streams}
    tree["optim"] |= {"batch_size": 8, "total": "24 samples", "warmup": "8 samples"}
    tree["checkpoint"]["every"] = "24 samples"
    tree["efficiency"] |= {"device": "cpu", "precision": "fp32", "threads": 1, "workers": 0}
    tree["log"] |= {"every_steps": 1, "pictures": "16 samples"}
    return parse_recipe(tree, origin=recipe.name)


def _shrink_views(tree: dict[str, Any]) -> None:
    side = tree["encoder"]["image_size"]
    for view in tree["views"].values():
        if view["image_size"] is not None:
            view["image_size"] = max(1, round(GRID * view["image_size"] / side)) * PATCH
        view["stages"] = []
        if view["clip"] is not None:
            view["clip"]["frames"] = 4
            if view["mask"] is not None:
                view["mask"]["ratio"] = 0.75
    for sound in tree["sounds"].values():
        sound["frames"] = 32
        sound["mel"] |= {"rate": RATE, "mels": 16}


def _shrink_encoders(tree: dict[str, Any]) -> None:
    plain = {"name": "test_vit", "width": None, "depth": None, "heads": None}
    tree["encoder"] |= {**plain, "image_size": GRID * PATCH, "patch_size": PATCH}
    if tree["encoder"]["frames"] is not None:
        tree["encoder"]["frames"] = 4
    if tree["sound_encoder"] is not None:
        tree["sound_encoder"] |= {**plain, "frames": 32, "mels": 16, "patch_size": 8}
    if tree["fusion"] is not None and tree["fusion"]["kind"] == "cross":
        tree["fusion"] |= {"depth": 1, "heads": 2}


def _shrink_block(block: dict[str, Any]) -> None:
    for key, value in block.items():
        if isinstance(value, dict):
            _shrink_block(value)
        elif key == "levels":
            for level in value:
                _shrink_block(level)
        elif key in SMALL and value:
            block[key] = SMALL[key]
        elif key == "mix_layers" and value:
            block[key] = [0, 5]
        elif key in {"group", "steps"} and value:
            block[key] = 4 if key == "group" else 2
        elif key == "blocks" and value:
            block[key] = [3, 3]
    if block.get("skips"):
        block |= {"skips": [5, 2], "depth": 3}


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_trains_all_its_weights_and_is_of_use(
    name: str, shards: Path, labelled: Path, clips: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(name)
    supervised = any(objective.label_columns() for objective in recipe.objectives)
    moving = any(view.clip is not None for view in recipe.views.values()) or recipe.sounds
    kinds = {"stills": shards, "clips": clips}
    one = labelled if supervised else clips if moving else shards
    streams = [stream.name for stream in recipe.data.streams]
    recipe = shrink(recipe, *([one] if len(streams) == 1 else [kinds[name] for name in streams]))
    run = tmp_path / "run"
    result = pretrain(recipe, run)
    assert (result.step, result.stopped) == (3, "finished")
    lines = read_lines(run / "log/metrics.jsonl")
    assert all(np.isfinite(line["loss"]) and line["skipped"] == 0 for line in lines)
    pictures = RunFolder(run).pictures
    assert (pictures / "views-step-0.png").is_file()
    kinds_of_pictures = ("masked_", "audio_to_face")
    reconstructs = any(objective.kind.startswith(kinds_of_pictures) for objective in recipe.objectives)
    assert bool(list(pictures.glob("reconstruction-*"))) == reconstructs
    state = find_checkpoint(run).tensors("optimizer")
    # With the names of classes that the run found.
    model = build_pretrain_model(load_recipe(RunFolder(run).recipe))
    learned = {parameter for parameter, value in model.named_parameters() if value.requires_grad}
    assert {key.removeprefix("exp_avg/") for key in state if key.startswith("exp_avg/")} == learned
    assert [parameter for parameter in sorted(learned) if not state[f"exp_avg/{parameter}"].any()] == []
    export_encoder(run, tmp_path / "exported")
    verify_export(tmp_path / "exported")
    channels = (20, 20) if recipe.encoder.channels == 1 else (20, 20, 3)
    face = np.random.default_rng(0).integers(0, 256, channels).astype(np.uint8)
    features = load(tmp_path / "exported", device="cpu").transform([face])
    assert features.shape == (1, 64)
    assert np.isfinite(features).all()
