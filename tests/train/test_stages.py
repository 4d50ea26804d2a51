"""Views that change in mid-run: where they change, what is said, and that a continued run changes at the same place."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facemae.errors import ConfigError
from facemae.recipe_specs import view_specs
from facemae.train.optim.schedule import Lengths
from facemae.train.stages import stages_begun
from facemae.train.start import Start, resolve_lengths
from facemae.train.trainer import pretrain
from tests.train.conftest import Tiny, result_files, run_until

STAGES = (
    "views.main.image_size=8",
    "views.main.mask.ratio=0.5",
    "views.main.stages=[{from: 40 percent, mask_ratio: 0.75}, {from: 75 percent, image_size: 16}]",
)


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    lines = map(json.loads, (run / "log/events.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == kind]


def test_stages_begin_with_the_first_step_that_has_seen_enough(tiny: Tiny) -> None:
    recipe = tiny(*STAGES)
    lengths = Lengths.resolve(recipe, epoch=36)
    assert lengths.stages == {"main": (26, 48)}
    (spec,) = view_specs(recipe, lengths.stages)
    seen = [(spec.at(step * 8).image_size, spec.at(step * 8).mask) for step in range(8)]
    assert [size for size, _ in seen] == [8] * 6 + [16] * 2
    assert [mask.keep for _, mask in seen if mask is not None] == [2] * 4 + [1] * 2 + [4] * 2
    assert [mask.grid for _, mask in seen if mask is not None] == [(2, 2)] * 6 + [(4, 4)] * 2
    said = [stages_begun(recipe, lengths, step, range(step, step + 1)) for step in range(8)]
    assert said[4] == ["step 4: view main has 8 pixels and 1 of 4 patches visible"]
    assert said[6] == ["step 6: view main has 16 pixels and 4 of 16 patches visible"]
    assert not any(said[step] for step in (0, 1, 2, 3, 5, 7))
    (first,) = view_specs(recipe)
    assert first == spec.at(0)


def test_stages_follow_the_order_where_a_run_went_back(tiny: Tiny) -> None:
    recipe = tiny(*STAGES)
    lengths = Lengths.resolve(recipe, epoch=36)
    # Step 2 reads global batch 4: the run went back and passes over batches 2 and 3.
    assert stages_begun(recipe, lengths, 2, range(2, 5)) == [
        "step 2: view main has 8 pixels and 1 of 4 patches visible"
    ]
    assert stages_begun(recipe, lengths, 3, range(5, 6)) == []
    # What begins among the batches that are passed over is said too.
    (said,) = stages_begun(recipe, lengths, 3, range(3, 8))
    assert said == "step 3: view main has 16 pixels and 4 of 16 patches visible"
    assert stages_begun(recipe, lengths, 4, range(8, 9)) == []


def test_a_view_without_stages_has_none_in_the_lengths(tiny: Tiny) -> None:
    assert Lengths.resolve(tiny(), epoch=36).stages == {}


@pytest.mark.parametrize(
    ("stages", "steps"),
    [
        ("[{from: 50 percent, mask_ratio: 0.5}, {from: 8 samples, mask_ratio: 0.6}]", "4, 1"),
        ("[{from: 20 samples, mask_ratio: 0.5}, {from: 21 samples, mask_ratio: 0.6}]", "3, 3"),
        ("[{from: 100 percent, mask_ratio: 0.5}]", "8"),
        ("[{from: 99 percent, mask_ratio: 0.5}]", "8"),
    ],
)
def test_stages_that_do_not_fit_into_the_run_are_named(tiny: Tiny, stages: str, steps: str) -> None:
    with pytest.raises(ConfigError, match=f"stages of views.main begin with steps {steps}") as error:
        Lengths.resolve(tiny(f"views.main.stages={stages}"), epoch=36)
    assert "before step 8, where the run ends" in str(error.value)


def test_an_extended_run_keeps_its_stages_where_they_were(tiny: Tiny) -> None:
    recipe = tiny(*STAGES, "optim.total=128 samples")
    state = {
        "step": 3,
        "epoch_samples": 36,
        "total_samples": 64,
        "warmup_samples": 16,
        "stage_samples": {"main": [26, 48]},
    }
    assert resolve_lengths(recipe, Start(state=state), 36).stages == {"main": (26, 48)}
    assert resolve_lengths(recipe, Start(), 36).stages == {"main": (51, 96)}
    # Half of the longer run would be after the stage that follows it.
    mixed = "views.main.stages=[{from: 50 percent, mask_ratio: 0.5}, {from: 48 samples, mask_ratio: 0.6}]"
    state["stage_samples"] = {"main": [32, 48]}
    recipe = tiny(mixed, "optim.total=128 samples")
    assert resolve_lengths(recipe, Start(state=state), 36).stages == {"main": (32, 48)}


def test_a_stopped_run_continues_bit_by_bit_through_its_stages(tiny: Tiny, tmp_path: Path) -> None:
    recipe = tiny(*STAGES, "log.pictures=16 samples")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert pretrain(recipe, whole).step == 8
    run_until(recipe, stopped, 4)
    assert pretrain(recipe, stopped).step == 8
    assert result_files(stopped, 8) == result_files(whole, 8)
    assert [line["text"] for line in events(whole, "stage")] == [
        "step 4: view main has 8 pixels and 1 of 4 patches visible",
        "step 6: view main has 16 pixels and 4 of 16 patches visible",
    ]
    sizes = {
        path.name: np.asarray(Image.open(path).convert("L")).shape
        for path in (whole / "log/pictures").glob("reconstruction-*.png")
    }
    assert len(sizes) == 4
    # Rows of 8-pixel views before the last stage, of 16-pixel views in it; all are enlarged to about the same width.
    assert sizes["reconstruction-step-6.png"] == sizes["reconstruction-step-2.png"]
    assert sizes["reconstruction-step-8.png"] != sizes["reconstruction-step-6.png"]


def test_an_extended_run_does_not_go_back_to_an_earlier_stage(tiny: Tiny, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain(tiny(*STAGES), run)
    longer = tmp_path / "longer"
    shutil.copytree(run, longer)
    assert pretrain(tiny(*STAGES, "optim.total=128 samples"), longer, extend=True).step == 16
    assert len(events(longer, "stage")) == 2
    state = json.loads((longer / "checkpoints/step-00000016/trainer.json").read_text())
    assert state["stage_samples"] == {"main": [26, 48]}
