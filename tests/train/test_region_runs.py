"""Runs with masks by region and a critic: they resume exactly, refuse what has no maps, and say how patches score."""

import json
from pathlib import Path

import numpy as np
import pytest

from facemae.config import Recipe
from facemae.data.regions import MEMBER, Region, encode_maps
from facemae.errors import ConfigError
from facemae.train.record.log import read_lines
from facemae.train.trainer import pretrain
from tests.data.test_loader_clips import LONG, members, write
from tests.data.test_regions import drawn
from tests.train import clip_runs
from tests.train.conftest import result_files

RECIPE = """\
views:
  main:
    clip: {frames: 4, fps: 6.25}
    normalise: {mean: [0.0], std: [1.0]}
    mask: {kind: region, ratio: 0.75}
encoder:
  {name: test_vit, image_size: 16, patch_size: 4, channels: 1, tubelet: 2, frames: 4, class_token: false}
objectives:
  - {kind: masked_video, target: pixels, decoder: {width: 16, depth: 1, heads: 2, embed_bias: false}, critic: {}}
"""


def sample(number: int) -> dict[str, bytes]:
    rolled = (np.roll(drawn(number, 32), frame, axis=1) for frame in range(LONG - number))
    return {**members(LONG - number, sound=False), MEMBER: encode_maps(rolled)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> clip_runs.Runs:
    folder = tmp_path_factory.mktemp("regions")
    return clip_runs.finished(
        clip_runs.tiny_recipe(RECIPE, {f"clip{number}": sample(number) for number in range(8)}, folder), folder
    )


def test_a_run_resumes_exactly(whole: clip_runs.Runs, tmp_path: Path) -> None:
    clip_runs.check_resume(whole, tmp_path)


def test_workers_and_micro_batches_see_the_same_masks(whole: clip_runs.Runs, tmp_path: Path) -> None:
    run = clip_runs.run_with(whole, tmp_path, micro_batch=2, workers=1)
    assert result_files(run, clip_runs.STEPS)["keys"] == result_files(whole[1], clip_runs.STEPS)["keys"]


def test_the_log_says_how_patches_score(whole: clip_runs.Runs) -> None:
    lines = read_lines(whole[1] / "log/metrics.jsonl")
    assert len(lines) == 3
    for line in lines:
        error, fake, real = (line[f"{name}/masked_video"] for name in ("reconstruction", "critic_fake", "critic_real"))
        assert line["loss/masked_video"] == pytest.approx(error + fake - real, rel=1e-4, abs=1e-6)
        assert line["grad_norm_adversary"] > 0
        assert line["grad_norm"] > 0
    # The critic has learned which are real.
    assert lines[-1]["critic_real/masked_video"] > lines[-1]["critic_fake/masked_video"]


def test_shards_without_maps_are_refused_before_a_run_starts(whole: clip_runs.Runs, tmp_path: Path) -> None:
    bare = write(tmp_path / "bare", clip_runs.silent())
    streams = (whole[0].data.streams[0].model_copy(update={"shards": str(bare)}),)
    recipe = whole[0].model_copy(update={"data": whole[0].data.model_copy(update={"streams": streams})})
    with pytest.raises(ConfigError, match="have no region maps"):
        pretrain(recipe, tmp_path / "run")
    assert not (tmp_path / "run/checkpoints").exists()


def test_a_sample_without_a_map_is_counted_and_named(whole: clip_runs.Runs, tmp_path: Path) -> None:
    made = {f"clip{number}": sample(number) for number in range(8)}
    del made["clip5"][MEMBER]
    made["clip6"][MEMBER] = encode_maps([np.full((8, 8), max(Region) + 1, np.uint8)])
    shards = write(tmp_path / "some", made)
    tree = whole[0].model_dump(mode="json", by_alias=True)
    tree["data"]["streams"][0]["shards"] = str(shards)
    tree["data"]["max_damage"] = 1.0
    assert pretrain(Recipe.model_validate(tree), tmp_path / "run").stopped == "finished"
    named = [json.loads(line) for line in (tmp_path / "run/quarantine.jsonl").read_text().splitlines()]
    assert {entry["requested"] for entry in named} == {"clip5", "clip6"}
    assert {"has no region map" in entry["reason"] for entry in named} == {True, False}
