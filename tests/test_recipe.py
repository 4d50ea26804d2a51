"""Recipes: every shipped one loads, typos are named, overrides and bases merge, differences are readable."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from facemae.config import Recipe, SpanConfig, copy_names
from facemae.config.base import idle_settings
from facemae.data.schema import MaskSpec, PhotometricSpec
from facemae.errors import ConfigError
from facemae.recipe import difference, list_recipes, load_recipe, recipe_to_yaml, recipe_tree
from facemae.recipe_specs import model_input, view_specs


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_loads_and_reads_back(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    copy = tmp_path / "copy.yaml"
    copy.write_text(recipe_to_yaml(recipe))
    assert recipe_tree(load_recipe(copy)) == recipe_tree(recipe)
    assert recipe.about
    assert view_specs(recipe)
    assert not list(idle_settings(recipe))


def test_settings_that_nothing_reads_are_named_with_their_paths() -> None:
    changes = ("views.main.mask.block=4", "views.main.crop.kind=resize", "monitor={k: 5}")
    assert list(idle_settings(load_recipe("fmae_tiny", changes))) == [
        "views.main.crop.scale is set, and nothing reads it with kind=resize",
        "views.main.mask.block is set, and nothing reads it with kind=random",
        "monitor.k is set, and nothing reads it with label=null",
    ]
    changes = ("views.main.mask.block=4", "views.main.mask.kind=block", "monitor={k: 5, label: emotion}")
    assert not list(idle_settings(load_recipe("fmae_tiny", changes)))


def test_fmae_holds_the_published_settings() -> None:
    recipe = load_recipe("fmae")
    (view,) = view_specs(recipe)
    assert (view.crop, view.flip, view.mask is not None and view.mask.keep) == ("resize", True, 49)
    optim = recipe.optim
    assert (optim.batch_size, optim.base_lr, optim.betas, optim.weight_decay) == (512, 1.5e-4, (0.9, 0.95), 0.05)
    assert optim.total.samples(epoch=9_000_000) == 450_000_000
    assert model_input(recipe).mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.batchsize=8", "optim.batchsize: unknown key; did you mean 'batch_size'?"),
        ("encoder.patchsize=8", "did you mean 'patch_size'?"),
        ("data.streams.0.shard=x", "did you mean 'shards'?"),
        ("views.main.mask.ration=0.5", "did you mean 'ratio'?"),
        ("optimm.batch_size=8", "did you mean 'optim'?"),
        ("objectives.0.decoder.widht=8", "did you mean 'width'?"),
        ("objectives.0.taget=pixels", "did you mean 'target'?"),
    ],
)
def test_an_unknown_key_is_an_error_that_names_the_nearest(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_recipe("fmae_tiny", [override])
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optim.batch_size=12"], "not a multiple of data.lanes 8"),
        (["encoder.patch_size=7"], "not a multiple of patch_size 7; the nearest multiples are 42 and 49"),
        (["encoder.channels=3"], "views.main.normalise.mean has 1 numbers; encoder.channels is 3"),
        (["objectives.0.view=other"], "needs view 'other'; the recipe has ['main']"),
        (["objectives.0.decoder.fraction=0.5"], "needs decoder.kind=cross"),
        (["objectives.0.kind=masked_imag"], "did you mean masked_image"),
        (["optim.batch_size=many"], "found 'many'"),
        (["optim"], "has no key or no '='"),
        (["data.streams.3.shards=x"], "no position in a list"),
        (["name.first=x"], "name is 'fmae_tiny', not a block\n  to do:    set it whole: name=…"),
        (["views.main.crop.scale=[0, 1]"], "scale [0.0, 1.0] is no range of shares"),
        (["views.main.crop.scale=[0.5, 0.2]"], "0 < lowest <= highest <= 1"),
        (["views.main.crop.scale=[0.5, 1.5]"], "scale [0.5, 1.5] is no range"),
        (["views.main.crop.ratio=[0, 1]"], "ratio [0.0, 1.0] is no range of width over height"),
        (["views.main.crop.ratio=[2, 1]"], "ratio [2.0, 1.0] is no range"),
        (["views.main.crop.ratio=[1, .nan]"], "is no range"),
        (["views.main.normalise.std=[0]"], "std [0.0] divides pixels"),
        (["views.main.normalise.std=[-0.5]"], "every number must be greater than 0"),
        (["data.streams.0.where={split: [train]}"], "data.streams.0.where.split"),
    ],
)
def test_contradictions_are_named(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_recipe("fmae_tiny", overrides)
    assert message in str(error.value)


def test_where_takes_numbers_as_they_are_written() -> None:
    recipe = load_recipe(
        "fmae_tiny", ["data.streams.0.where={AU12: 1, glasses: true, age: 20.5, dose: 2.0, split: train}"]
    )
    expected = {"AU12": "1", "glasses": "true", "age": "20.5", "dose": "2", "split": "train"}
    assert recipe.data.streams[0].where == expected


def test_a_mask_that_hides_everything_is_an_error() -> None:
    with pytest.raises(ConfigError, match="leaves none of the 64 patches visible"):
        view_specs(load_recipe("fmae_tiny", ["views.main.mask.ratio=0.999"]))


def test_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'fmae_tiny'"):
        load_recipe("fmae_tini")
    with pytest.raises(ConfigError, match=r"no recipe file missing\.yaml"):
        load_recipe("missing.yaml")


def test_base_and_override_merge_in_that_order(tmp_path: Path) -> None:
    child = tmp_path / "child.yaml"
    child.write_text(yaml.safe_dump({"base": "fmae_tiny", "name": "child", "optim": {"batch_size": 64}}))
    grandchild = tmp_path / "grandchild.yaml"
    grandchild.write_text(yaml.safe_dump({"base": "child.yaml", "name": "grandchild"}))
    recipe = load_recipe(grandchild, ["optim.base_lr=0.5", "data.streams.0.shards=faces"])
    assert (recipe.name, recipe.optim.batch_size, recipe.optim.base_lr) == ("grandchild", 64, 0.5)
    assert recipe.data.streams[0].shards == "faces"
    assert recipe.optim.betas == load_recipe("fmae_tiny").optim.betas


def test_a_recipe_cannot_be_its_own_base(tmp_path: Path) -> None:
    loop = tmp_path / "loop.yaml"
    loop.write_text(yaml.safe_dump({"base": "loop.yaml", "name": "loop"}))
    with pytest.raises(ConfigError, match=r"its own base(.|\n)*name another recipe"):
        load_recipe(loop)


def test_what_is_not_yaml_is_told_what_would_be(tmp_path: Path) -> None:
    torn = tmp_path / "torn.yaml"
    torn.write_text("a: [")
    with pytest.raises(ConfigError, match=r"is not valid YAML(.|\n)*facemae config RECIPE"):
        load_recipe(torn)
    with pytest.raises(ConfigError, match=r"'optim\.betas=\[0\.9' is not valid YAML(.|\n)*quote it for the shell"):
        load_recipe("fmae_tiny", ["optim.betas=[0.9"])


def test_difference_shows_what_changes_results_and_only_that() -> None:
    old = recipe_tree(load_recipe("fmae_tiny"))
    same = recipe_tree(load_recipe("fmae_tiny", ["efficiency.workers=3", "log.every_steps=1"]))
    other = recipe_tree(load_recipe("fmae_tiny", ["optim.base_lr=0.5"]))
    assert difference(old, same) == []
    assert difference(old, other) == [f"optim.base_lr: {old['optim']['base_lr']} -> 0.5"]


@pytest.mark.parametrize(
    "override", ["about=other words", "data.max_damage=0.5", "checkpoint.every=1 epochs", "optim.max_bad_steps=1"]
)
def test_what_cannot_change_results_may_differ(override: str) -> None:
    old, new = (recipe_tree(load_recipe("fmae_tiny", overrides)) for overrides in ([], [override]))
    assert old != new
    assert difference(old, new) == []
    assert difference(old, recipe_tree(load_recipe("fmae_tiny", [override, "data.lanes=4"]))) == ["data.lanes: 8 -> 4"]


def test_where_a_run_goes_back_to_is_pinned_if_it_may_go_back() -> None:
    def tree(action: str, *more: str) -> dict[str, Any]:
        return recipe_tree(load_recipe("fmae_tiny", [f"optim.spike={{action: {action}}}", *more]))

    often, kept = "checkpoint.every=1 percent", "checkpoint.keep=5"
    assert difference(tree("skip"), tree("skip", often, kept)) == []
    assert difference(tree("rewind"), tree("rewind", kept)) == []
    assert difference(tree("rewind"), tree("rewind", often, kept)) == ["checkpoint.every.amount: 5.0 -> 1.0"]


def test_a_key_added_after_the_run_was_started_counts_as_its_default() -> None:
    old, new = (recipe_tree(load_recipe("fmae_tiny")) for _ in range(2))
    del old["encoder"]["registers"], old["objectives"][0]["target"], old["optim"]["min_lr"]
    assert difference(old, new) == []
    assert difference(old, recipe_tree(load_recipe("fmae_tiny", ["encoder.registers=2"]))) == [
        "encoder.registers: 0 -> 2"
    ]


def test_a_tree_that_no_longer_fits_is_compared_as_it_stands() -> None:
    old, new = (recipe_tree(load_recipe("fmae_tiny")) for _ in range(2))
    old["optim"]["momentum"] = 0.9
    assert difference(old, new) == ["optim.momentum: 0.9 -> (absent)"]
    del old["optim"]["momentum"]
    old["objectives"][0]["kind"] = "gone"
    assert difference(old, new) == ["objectives.0.kind: gone -> masked_image"]


def test_spans_count_samples() -> None:
    recipe = load_recipe("fmae_tiny", ["optim.total=1_000 samples", "optim.warmup=10 percent"])
    assert recipe.optim.total.samples(epoch=7) == 1000
    assert recipe.optim.warmup.samples(epoch=7, total=1000) == 100
    assert SpanConfig(amount=2, unit="epochs").samples(epoch=7) == 14
    for text, samples in (("20epochs", 140), ("1e3", 1000), ("0.5 epochs", 4), ("2_000samples", 2000), ("1 epoch", 7)):
        assert load_recipe("fmae_tiny", [f"optim.total={text}"]).optim.total.samples(epoch=7) == samples
    assert load_recipe("fmae_tiny", ["optim.warmup=5%"]).optim.warmup == SpanConfig(amount=5, unit="percent")
    for text in ("20 steps", "20steps", "20 epochs long"):
        with pytest.raises(
            ConfigError, match=f"'{text}' is no length: its unit is one of samples, epochs, percent, and"
        ):
            load_recipe("fmae_tiny", [f"optim.total={text}"])
    with pytest.raises(ConfigError, match=r"optim\.total\.amount.*finite number"):
        load_recipe("fmae_tiny", ["optim.total=.inf"])


def test_every_field_has_a_docstring() -> None:
    seen: set[type[BaseModel]] = set()

    def walk(block: type[BaseModel]) -> None:
        if block in seen:
            return
        seen.add(block)
        for name, field in block.model_fields.items():
            assert field.description, f"{block.__name__}.{name} has no docstring"
            for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
                if isinstance(inner, type) and issubclass(inner, BaseModel):
                    walk(inner)

    walk(Recipe)
    assert len(seen) > 8


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("fmae_tiny", "views.main.colour={hue: 0.1}", "views.main.colour.hue is 0.1 and encoder.channels is 1"),
        ("fmae_tiny", "views.main.colour={saturation: 0.2}", "colour.saturation is 0.2 and encoder.channels is 1"),
        ("fmae_tiny", "views.main.grey=0.2", "views.main.grey is 0.2 and encoder.channels is 1: grey has no colour"),
        (
            "fmae",
            "views.main.crop.part=[0.2, 0.5, 0.2, 1]",
            "part [0.2, 0.5, 0.2, 1.0] is none of a picture: left, top",
        ),
        ("fmae", "views.main.colour={}", "changes nothing: set brightness, contrast, saturation or hue"),
        ("fmae", "views.main.colour={hue: 0.6}", "views.main.colour.hue"),
        ("fmae", "views.main.blur={sigma: [0, 1]}", "sigma [0.0, 1.0] is no range of deviations"),
        ("fmae", "views.main.blur={sigma: [2, 1]}", "0 < lowest <= highest"),
        ("fmae", "views.main.solarise={threshold: 256}", "views.main.solarise.threshold"),
        ("fmae", "views.main.image_size=100", "not a multiple of encoder.patch_size 16; the nearest multiples are 96"),
        ("fmae", "views.main.image_size=10", "the nearest multiples are 16"),
        ("fmae", "views.main.stages=[{from: 50 percent}]", "stages.0: changes nothing: set image_size or mask_ratio"),
        ("fmae", "views.main.stages=[{from: 0 epochs, mask_ratio: 0.5}]", "begins with the run: give these values to"),
        ("fmae", "views.main.stages=[{from: 1 epochs, mask_rate: 0.5}]", "did you mean 'mask_ratio'?"),
        ("fmae", "views.main.stages=[{mask_ratio: 0.5}]", "views.main.stages.0.from: Field required"),
        (
            "fmae",
            "views.main.stages=[{from: 5 epochs, mask_ratio: 0.5}, {from: 5 epochs, mask_ratio: 0.6}]",
            "stages are not in order: from 5 epochs, then from 5 epochs",
        ),
        (
            "fmae",
            "views.main.stages=[{from: 5 epochs, image_size: 250}]",
            "views.main.stages.0.image_size 250 is not a multiple of encoder.patch_size 16",
        ),
        (
            "fmae",
            "views.main={mask: null, stages: [{from: 5 epochs, mask_ratio: 0.5}]}",
            "stages change the mask's ratio and the view has no mask",
        ),
        ("fmae", "views.a/b={}", "view 'a/b': a name has one character or more and no '/'"),
    ],
)
def test_views_that_do_not_fit_are_named(name: str, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_recipe(name, [override])
    assert message in str(error.value)


def test_a_view_in_the_loaders_terms() -> None:
    (spec,) = view_specs(
        load_recipe(
            "fmae",
            [
                "views.main.colour={brightness: 0.4, contrast: 1.5, hue: 0.1}",
                "views.main.grey=0.2",
                "views.main.blur={probability: 0.5}",
                "views.main.solarise={}",
                "views.main.image_size=96",
            ],
        )
    )
    assert spec.photometric == PhotometricSpec(
        colour=0.8, brightness=(0.6, 1.4), contrast=(0.0, 2.5), hue=(-0.1, 0.1), grey=0.2, blur=0.5, solarise=0.2
    )
    assert (spec.image_size, spec.mask) == (96, MaskSpec("random", (6, 6), 9, 2))
    assert model_input(load_recipe("fmae", ["views.main.image_size=96"])).image_size == 224


def test_stages_inherit_what_they_do_not_set() -> None:
    stages = (
        "[{from: 10 epochs, mask_ratio: 0.9}, {from: 40 epochs, image_size: 224}, {from: 45 epochs, mask_ratio: 0.5}]"
    )
    recipe = load_recipe("fmae", ["views.main.image_size=112", f"views.main.stages={stages}", "views.main.copies=2"])
    first, second = view_specs(recipe, {"main": (10, 20, 30)})
    assert replace(first, name="main/1") == second
    for samples, size, keep in ((0, 112, 12), (9, 112, 12), (10, 112, 4), (20, 224, 19), (30, 224, 98)):
        now = first.at(samples)
        assert now.mask is not None
        assert (now.image_size, now.mask.grid, now.mask.keep) == (size, (size // 16,) * 2, keep)
    assert recipe_tree(load_recipe("fmae", [f"views.main.stages={stages}"]))["views"]["main"]["stages"][0]["from"]


def test_a_stage_that_hides_everything_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"views\.main\.stages\.0: mask ratio 0\.99 leaves none of the 64 patches"):
        view_specs(load_recipe("fmae_tiny", ["views.main.stages=[{from: 5 epochs, mask_ratio: 0.99}]"]))


def test_copies_of_a_view_are_numbered_and_those_of_one_keep_its_name() -> None:
    recipe = load_recipe("fmae", ["views.local={image_size: 96, copies: 3, mask: null}"])
    assert copy_names(recipe.views, "main") == ("main",)
    assert copy_names(recipe.views, "local") == ("local/0", "local/1", "local/2")
    assert [spec.name for spec in view_specs(recipe)] == ["main", "local/0", "local/1", "local/2"]
