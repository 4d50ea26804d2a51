"""Runs that compare samples, of several processes, killed while the prototypes are frozen and after."""

from collections.abc import Callable
from pathlib import Path

import pytest

from facemae.config import Recipe
from facemae.recipe import load_recipe
from facemae.train.record.log import read_lines
from facemae.train.trainer import pretrain
from tests.spawn import RankError, run_in_processes
from tests.train.conftest import RECIPE, result_files
from tests.train.test_stream_runs import die
from tests.train.test_worlds import check_close, train

CONTRAST = """\
views:
  main:
    copies: 2
    normalise: {mean: [0.5], std: [0.25]}
  small:
    image_size: 8
    copies: 2
    normalise: {mean: [0.5], std: [0.25]}
objectives:
  - kind: clustering
    local_views: [small]
    prototypes: 6
    freeze_prototypes: 24
    pool: mean
    head: {hidden: 16, out: 8}
  - {kind: contrastive_image, loss: sigmoid, pool: mean, head: {hidden: 16, out: 8}}
"""
STEPS = 8

Load = Callable[..., Recipe]


@pytest.fixture(scope="module")
def contrast(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Load:
    """The recipe with overrides; the prototypes learn from the fourth step on."""
    folder = tmp_path_factory.mktemp("contrast")
    (folder / "tiny.yaml").write_text(RECIPE.replace("SHARDS", str(shards)))
    (folder / "contrast.yaml").write_text("base: tiny.yaml\nname: contrast\n" + CONTRAST)
    return lambda *overrides: load_recipe(folder / "contrast.yaml", overrides)


@pytest.fixture(scope="module")
def alone(contrast: Load, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run of one process."""
    out = tmp_path_factory.mktemp("alone") / "run"
    assert pretrain(contrast(), out).step == STEPS
    return out


def test_two_killed_processes_go_on_exactly_and_train_as_one_does(contrast: Load, alone: Path, tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    run_in_processes(train, 2, contrast(), whole)
    # Checkpoints are made after every second step: the first death leaves one with frozen prototypes.
    for step in (2, 6):
        with pytest.raises(RankError):
            run_in_processes(die, 2, contrast(), run, step)
    run_in_processes(train, 2, contrast(), run)
    assert result_files(run, STEPS) == result_files(whole, STEPS)
    assert result_files(run, STEPS)["keys"] == result_files(alone, STEPS)["keys"]
    check_close(run, alone, 1e-4)


def test_what_cannot_take_effect_is_remarked(contrast: Load, alone: Path, tmp_path: Path) -> None:
    def notes(out: Path) -> list[str]:
        return [event["text"] for event in read_lines(out / "log/events.jsonl") if event["event"] == "note"]

    assert not notes(alone)
    changes = (
        "optim.total=24 samples",
        "optim.warmup=24 samples",
        "objectives.0.freeze_prototypes=17",
        "objectives.1.head.depth=1",
        "optim.spike={window: 48 samples}",
        "objectives.0.local_views=[]",
        "views.main.crop.kind=resize",
    )
    pretrain(contrast(*changes), tmp_path / "run")
    frozen, warmup, window, unused, idle, head = notes(tmp_path / "run")
    assert frozen.startswith("objective 'clustering': freeze_prototypes of 17 samples lasts for a whole run of 24")
    assert warmup.startswith("optim.warmup of 24 samples lasts for a whole run of 24")
    assert window.startswith("optim.spike.window of 6 steps is not half known in a run of 3")
    assert unused.startswith("no objective takes view 'small'")
    assert idle == "views.main.crop.scale is set, and nothing reads it with kind=resize"
    assert head == "objectives.1.head.hidden is set, and nothing reads it with depth=1"
