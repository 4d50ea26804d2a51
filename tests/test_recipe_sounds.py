"""Sounds in recipes: what the loader is told of them, and what does not fit together."""

from typing import Any

import pytest
from pydantic import ValidationError

from facemae.config import Recipe
from facemae.data.schema import MaskSpec
from facemae.errors import ConfigError
from facemae.recipe import difference, recipe_tree
from facemae.recipe_specs import sound_specs
from facemae.train.optim.adamw import encoder_depths, encoder_of, rate_factor

HEARS = {"name": "test_vit", "frames": 256, "mels": 128}
VOICE = {"frames": 256, "mask": {"ratio": 0.8}}
MASKED = {"kind": "masked_audio"}


def recipe(**changes: Any) -> Recipe:
    blocks = {"views": {"main": {}}, "sounds": {"voice": VOICE}, "sound_encoder": HEARS, "objectives": [MASKED]}
    return Recipe.model_validate({"name": "sounds", **blocks, **changes})


def test_a_sound_in_the_loaders_terms() -> None:
    (spec,) = sound_specs(recipe())
    assert (spec.name, spec.beneath, spec.frames) == ("voice", "main", 256)
    # 16 moments of 8 bands; MAE's rounding.
    assert spec.mask == MaskSpec("random", (16, 8), 25)


def test_a_sound_has_a_copy_for_each_of_its_view() -> None:
    specs = sound_specs(recipe(views={"main": {"copies": 2}}))
    assert [(spec.name, spec.beneath) for spec in specs] == [("voice/0", "main/0"), ("voice/1", "main/1")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sounds": {}}, r"objective 'masked_audio' needs sound 'voice'; the recipe has \[\]"),
        ({"sound_encoder": None, "sounds": {"voice": {"frames": 256}}}, "and the recipe has no sound_encoder"),
        (
            {"sound_encoder": None, "objectives": [{"kind": "masked_image"}]},
            "sounds.voice.mask hides patches, which only",
        ),
        ({"sounds": {"main": VOICE, "voice": VOICE}}, "'main' is a view and a sound"),
        ({"sounds": {"voice/0": VOICE, "voice": VOICE}}, "no '/', which numbers copies"),
        ({"sounds": {"voice": {"mask": None}}}, "has no length: set sounds.voice.frames"),
        ({"sounds": {"voice": {**VOICE, "beneath": "side"}}}, r"beneath is 'side'; the views are \['main'\]"),
        ({"sounds": {"voice": {"frames": 240}}}, "has 240 frames of 128 bands; sound_encoder has frames 256"),
        (
            {"sound_encoder": {**HEARS, "frames": 250}},
            "frames 250 is not a multiple of patch_size 16.* are 240 and 256",
        ),
        ({"sound_encoder": {**HEARS, "mels": 8}}, "mels 8 is not a multiple of patch_size 16; the nearest .* are 16"),
        (
            {"objectives": [{"kind": "contrastive", "between": ["main", "face"]}]},
            r"objective 'contrastive' needs view or sound 'face'; the recipe has \['main', 'voice'\]",
        ),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        recipe(**changes)


def test_a_mask_that_hides_everything_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"sounds.voice.mask.ratio 0.999 leaves none of the 128 patches visible"):
        sound_specs(recipe(sounds={"voice": {"frames": 256, "mask": {"ratio": 0.999}}}))


def test_runs_started_before_there_was_sound_go_on() -> None:
    tree = recipe_tree(Recipe.model_validate({"name": "still", "objectives": [{"kind": "masked_image"}]}))
    old = {key: value for key, value in tree.items() if key != "sound_encoder"}
    assert difference(old, tree) == []
    assert difference(tree, {**tree, "sound_encoder": HEARS}) != []


def test_each_encoder_counts_its_own_blocks_for_the_learning_rate() -> None:
    names = ["encoder.vit.blocks.3.mlp.fc1.weight", "sound_encoder.vit.blocks.1.mlp.fc1.weight", "objectives.0.head"]
    depths = encoder_depths(names)
    assert [depths[encoder_of(name)] for name in names] == [4, 2, 0]
    factors = {
        "encoder.vit.blocks.3.mlp.fc1.weight": 0.5,
        "sound_encoder.vit.blocks.1.mlp.fc1.weight": 0.5,
        "sound_encoder.vit.blocks.0.mlp.fc1.weight": 0.25,
        "sound_encoder.vit.patch_embed.proj.weight": 0.125,
        "sound_encoder.vit.norm.weight": 1.0,
        "objectives.0.decoder.blocks.0.mlp.fc1.weight": 1.0,
    }
    for name, factor in factors.items():
        assert rate_factor(name, depths[encoder_of(name)], 0.5) == factor, name
