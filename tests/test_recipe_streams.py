"""Views of some streams in recipes: what the loader is told of them, and what does not fit together."""

from typing import Any

import pytest
from pydantic import ValidationError

from facemae.config import Recipe
from facemae.data.schema import MaskSpec
from facemae.errors import ConfigError
from facemae.objectives.pretraining import build_pretrain_model
from facemae.recipe import difference, load_recipe, recipe_tree
from facemae.recipe_specs import view_specs

VIDEO = {"name": "test_vit", "image_size": 16, "patch_size": 4, "tubelet": 2, "frames": 4, "class_token": False}
CLIPS = {"streams": ["film"], "clip": {"frames": 4}}
STILLS = {"streams": ["photo"]}
BOTH = [{"kind": "masked_video", "view": "clips"}, {"kind": "masked_video", "view": "stills"}]


def recipe(**changes: Any) -> Recipe:
    blocks = {
        "data": {"streams": [{"name": "film"}, {"name": "photo"}]},
        "views": {"clips": CLIPS, "stills": STILLS},
        "encoder": VIDEO,
        "objectives": BOTH,
    }
    return Recipe.model_validate({"name": "mixed", **blocks, **changes})


def test_views_say_of_which_streams_they_are() -> None:
    assert [spec.streams for spec in view_specs(recipe())] == [("film",), ("photo",)]
    copies = view_specs(recipe(views={"clips": {**CLIPS, "copies": 2}, "stills": STILLS}))
    assert [(spec.name, spec.streams) for spec in copies[:2]] == [("clips/0", ("film",)), ("clips/1", ("film",))]


def test_runs_started_before_views_had_streams_go_on() -> None:
    tree = recipe_tree(recipe(data={}, views={"main": {}}, objectives=[{"kind": "masked_video"}]))
    old = {**tree, "views": {"main": {key: value for key, value in tree["views"]["main"].items() if key != "streams"}}}
    assert difference(old, tree) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"views": {"clips": {**CLIPS, "streams": ["films"]}, "stills": STILLS}},
            "views.clips.streams names 'films'; data.streams has film, photo",
        ),
        ({"views": {"clips": {**CLIPS, "streams": []}, "stills": STILLS}}, "at least 1 item"),
        (
            {"views": {"clips": CLIPS}, "objectives": BOTH[:1]},
            "stream 'photo' is read and no view is made of it: name it in views.NAME.streams",
        ),
        (
            {"objectives": [*BOTH, {"kind": "contrastive", "between": ["clips", "stills"]}]},
            "objective 'contrastive' takes what no stream has together: 'clips' of film; 'stills' of photo",
        ),
        (
            {
                "objectives": [*BOTH, {"kind": "contrastive", "between": ["stills", "voice"]}],
                "sounds": {"voice": {"beneath": "clips", "frames": 64, "mel": {"mels": 16}}},
                "sound_encoder": {"name": "test_vit", "frames": 64, "mels": 16},
            },
            "takes what no stream has together: 'stills' of photo; 'voice' of film",
        ),
        (
            {"views": {"clips": CLIPS, "stills": {**STILLS, "mask": None, "mixup": {}}}},
            "a view of some streams has not all of them; set mixup=null, or streams=null",
        ),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as error:
        recipe(**changes)
    assert message in str(error.value)


@pytest.mark.parametrize("kind", ["contrastive_image", "clustering"])
def test_an_objective_that_takes_whole_batches_refuses_a_view_of_some_streams(kind: str) -> None:
    views = {"clips": CLIPS, "stills": {**STILLS, "copies": 2, "mask": None}}
    named = {"views": ["stills"]} if kind == "contrastive_image" else {"global_views": ["stills"]}
    with pytest.raises(
        ConfigError, match="takes all samples of a batch and view 'stills' is made of stream photo only"
    ):
        build_pretrain_model(recipe(views=views, objectives=[*BOTH[:1], {"kind": kind, "pool": "mean", **named}]))


def test_s4d_shows_what_its_code_shows() -> None:
    clips, *_, stills = view_specs(load_recipe("s4d"))
    assert (clips.clip is not None, clips.mask) == (True, MaskSpec("random", (10, 10), 40, 2, steps=8))
    assert (stills.clip, stills.mask) == (None, MaskSpec("random", (10, 10), 10, 2))
    optim = load_recipe("s4d").optim
    assert optim.base_lr * optim.batch_size / 256 == pytest.approx(1.2e-3)
