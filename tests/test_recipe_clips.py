"""Recipes of clips: masks in the loader's terms, and what does not fit is named with its fix."""

import pytest

from facemae.data.schema import MaskSpec
from facemae.errors import ConfigError
from facemae.recipe import load_recipe
from facemae.recipe_specs import view_specs

CLIPS = ("encoder.tubelet=2", "encoder.frames=16", "views.main.clip={frames: 16, fps: 6.25}")


@pytest.mark.parametrize(
    ("size", "mask", "expected"),
    [
        # VideoMAE hides int(0.9 * 196) = 176 patches in each of 8 steps; MAE's rounding would keep 19 a step, not 20.
        (224, "{kind: tube, ratio: 0.9}", MaskSpec("tube", (14, 14), 8 * 20, 2, steps=8)),
        # HiCMAE: 10 of 100. 100 * (1 - 0.9) is a little less than 10 in floating point, and MAE's rounding gives 9.
        (160, "{kind: tube, ratio: 0.9}", MaskSpec("tube", (10, 10), 8 * 10, 2, steps=8)),
        (160, "{kind: frame, ratio: 0.9}", MaskSpec("frame", (10, 10), 8 * 10, 2, steps=8)),
        # S4D hides 760 of 800.
        (160, "{kind: random, ratio: 0.95, copies: 4}", MaskSpec("random", (10, 10), 40, 2, 4, steps=8)),
    ],
)
def test_masks_keep_what_the_published_systems_keep(size: int, mask: str, expected: MaskSpec) -> None:
    (spec,) = view_specs(load_recipe("fmae", [*CLIPS, f"views.main.image_size={size}", f"views.main.mask={mask}"]))
    assert spec.mask == expected


def test_stages_of_a_clip_view_keep_as_many_in_each_step() -> None:
    stages = "views.main.stages=[{from: 10 percent, mask_ratio: 0.5, image_size: 112}]"
    recipe = load_recipe("fmae", [*CLIPS, "views.main.mask={kind: tube, ratio: 0.9}", stages])
    (spec,) = view_specs(recipe, {"main": (10,)})
    assert spec.at(10).mask == MaskSpec("tube", (7, 7), 8 * (49 - 24), 2, steps=8)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("views.main.mask.kind=tube",),
            "mask.kind 'tube' needs the time steps of a clip; set clip, or mask.kind=random",
        ),
        (("views.main.mask.kind=frame",), "mask.kind 'frame' needs the time steps of a clip"),
        ((*CLIPS, "views.main.mask.kind=block"), "of a clip choose tube, frame or random"),
        (
            ("views.main.clip={frames: 15}",),
            "the encoder is one of stills; set encoder.tubelet=2 and encoder.frames=16, or views.main.clip=null",
        ),
        (
            (*CLIPS, "views.main.clip.frames=15"),
            "views.main.clip.frames 15 is not a multiple of encoder.tubelet 2; the nearest multiples are 14 and 16",
        ),
        (("encoder.tubelet=2",), "tubelet is 2 and frames is not set"),
        (("encoder.frames=2",), "frames is 2 and an encoder of stills has none; set tubelet, or frames=null"),
        ((*CLIPS, "encoder.tubelet=3"), "frames 16 is not a multiple of tubelet 3"),
        (("encoder.position=sequence",), "position 'sequence' numbers the tokens of a clip; set tubelet"),
        ((*CLIPS, "encoder.position=learned"), "position 'learned' is of stills; with tubelet set position=sincos"),
    ],
)
def test_what_does_not_fit_is_named_with_its_fix(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_recipe("fmae", overrides)
    assert message in str(error.value)


def test_a_tube_that_hides_nothing_is_an_error() -> None:
    with pytest.raises(ConfigError, match="hides none of the 196 patches in a step") as error:
        view_specs(load_recipe("fmae", [*CLIPS, "views.main.mask={kind: tube, ratio: 0.005}"]))
    assert "a ratio of at least 0.0051" in str(error.value)


def test_a_monitor_needs_a_view_of_pictures() -> None:
    monitor = "monitor={data: held-out}"
    with pytest.raises(ConfigError, match="every view of the recipe is of clips; set monitor=null"):
        load_recipe("fmae", [*CLIPS, monitor])
    assert load_recipe("fmae", [*CLIPS, monitor, "views.still={}"]).monitor is not None
