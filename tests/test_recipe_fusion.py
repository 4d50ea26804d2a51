"""Fusion in recipes: what does not fit together is named, and runs started before there was any go on."""

from typing import Any

import pytest
from pydantic import ValidationError

from facemae.config import Recipe
from facemae.objectives.pretraining import build_pretrain_model
from facemae.recipe import difference, recipe_tree
from facemae.train.optim.adamw import encoder_depths, encoder_of, group_names, rate_factor
from tests.test_recipe_sounds import HEARS, VOICE

DECODER = {"width": 16, "depth": 1, "heads": 2}
PLAIN = [{"kind": "masked_image", "decoder": DECODER}, {"kind": "masked_audio", "decoder": DECODER}]
FUSED = [{**objective, "fused": True} for objective in PLAIN]


def recipe(**changes: Any) -> Recipe:
    blocks = {
        "views": {"main": {}},
        "sounds": {"voice": VOICE},
        "encoder": {"name": "test_vit"},
        "sound_encoder": HEARS,
        "fusion": {},
        "objectives": FUSED,
    }
    return Recipe.model_validate({"name": "fused", **blocks, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fusion": None}, "'masked_image' takes 'main' after fusion, and the recipe has no block fusion"),
        ({"fusion": {"view": "side"}}, "takes 'main' after fusion, which is of side and voice"),
        ({"fusion": {"sound": "talk"}, "objectives": FUSED[:1]}, r"fusion.sound is 'talk'; the recipe has \['voice'\]"),
        ({"objectives": PLAIN}, "fusion would learn nothing"),
        (
            {
                "sound_encoder": None,
                "sounds": {"voice": {"frames": 256}},
                "objectives": FUSED[:1],
            },
            "fusion takes what a sound_encoder hears: add one",
        ),
        (
            {"views": {"main": {}, "side": {}}, "sounds": {"voice": {**VOICE, "beneath": "side"}}},
            "sounds.voice.beneath is 'side' and fusion.view 'main'",
        ),
        ({"views": {"main": {"mask": {"copies": 2}}}}, "views.main.mask.copies is 2; set 1"),
        ({"fusion": {"kind": "joint"}}, "runs one transformer on both: set sound_encoder.blocks=shared"),
        (
            {"fusion": {"kind": "joint", "heads": 4}, "sound_encoder": {**HEARS, "blocks": "shared"}},
            "heads is of kind 'cross'; kind 'joint' runs the encoder's own blocks",
        ),
        (
            {"sound_encoder": {**HEARS, "blocks": "shared", "depth": 3}},
            "sound_encoder.blocks is shared and sound_encoder.depth is 3 where encoder.depth is None",
        ),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        recipe(**changes)


def test_runs_started_before_there_was_fusion_go_on() -> None:
    tree = recipe_tree(Recipe.model_validate({"name": "still", "objectives": [{"kind": "masked_image"}]}))
    old = {key: value for key, value in tree.items() if key != "fusion"}
    assert difference(old, tree) == []
    assert difference(recipe_tree(recipe()), recipe_tree(recipe(fusion={"depth": 3}))) == ["fusion.depth: 2 -> 3"]


def test_weights_of_fusion_have_names_of_their_own_and_decay_as_others() -> None:
    model, plain = (build_pretrain_model(asked) for asked in (recipe(), recipe(fusion=None, objectives=PLAIN)))
    names, others = dict(model.named_parameters()), dict(plain.named_parameters())
    own = {name for name in names if name not in others}
    assert own
    assert all(name.startswith(("fusion.view_", "fusion.sound_")) for name in own)
    # What else is in a model changes no initial weight.
    assert all(bool((value == names[name]).all()) for name, value in others.items())
    groups = group_names(names.items())
    decayed = {name for name in own if name in groups.decayed}
    assert decayed == {name for name in own if name.endswith("weight") and "norm" not in name}
    assert {encoder_of(name) for name in own} == {None}


def test_a_joint_recipe_is_read_back() -> None:
    joint = recipe(fusion={"kind": "joint"}, sound_encoder={**HEARS, "blocks": "shared"})
    assert Recipe.model_validate(recipe_tree(joint)) == joint


def test_an_encoder_that_shares_blocks_lies_below_them_for_the_learning_rate() -> None:
    names = ["encoder.vit.blocks.3.mlp.fc1.weight", "sound_encoder.vit.patch_embed.proj.weight"]
    depths = encoder_depths(names)
    factors = [rate_factor(name, depths[encoder_of(name)], 0.5) for name in names]
    assert factors == [0.5, 0.5**5]
