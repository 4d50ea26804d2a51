"""What only a GPU can show: steps do not wait for it, compiled and several processes give the same, runs continue."""

from pathlib import Path

import pytest
import torch

from facemae.data.loader import build_loader
from facemae.objectives.pretraining import build_pretrain_model
from facemae.recipe_specs import view_specs
from facemae.train.hardware.device import Mover
from facemae.train.hardware.numerics import Numerics
from facemae.train.record.log import read_lines
from facemae.train.trainer import pretrain
from tests.train.conftest import Tiny, run_until

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")
PLAIN = ("efficiency.device=cuda", "efficiency.compile=off", "log.every_steps=1")


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in read_lines(run / "log/metrics.jsonl")]


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("objectives.0.decoder.kind=cross", "objectives.0.decoder.fraction=0.5"),
        ("encoder.drop_path=0.1",),
    ],
    ids=["joint", "cross", "drop path"],
)
def test_forward_and_backward_do_not_wait_for_the_gpu(tiny: Tiny, overrides: tuple[str, ...]) -> None:
    recipe = tiny(*PLAIN, *overrides)
    numerics, move = Numerics.choose(recipe.efficiency), Mover(CUDA)
    model = numerics.prepare(build_pretrain_model(recipe))
    size = recipe.optim.batch_size
    loader = build_loader(recipe.data, view_specs(recipe), seed=recipe.seed, batch_size=size, stop_step=3)
    for batch in (batch.pin_memory() for batch in loader):
        counts = model.counts(batch)
        # What is built once is built in the first step.
        torch.cuda.set_sync_debug_mode("error" if batch.step else "default")
        try:
            with numerics.autocast():
                loss, _ = model(move(batch), batch.step, counts)
            loss.backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_compiled_blocks_train_as_they_are(tiny: Tiny, tmp_path: Path) -> None:
    for name in ("off", "blocks"):
        recipe = tiny(*PLAIN[:1], PLAIN[2], "efficiency.precision=fp32", f"efficiency.compile={name}")
        pretrain(recipe, tmp_path / name)
    assert losses(tmp_path / "blocks") == pytest.approx(losses(tmp_path / "off"), rel=1e-3)
    assert all(line["gpu_memory_mb"] > 0 for line in read_lines(tmp_path / "off/log/metrics.jsonl"))


def test_a_run_continues_on_a_gpu(tiny: Tiny, tmp_path: Path) -> None:
    recipe = tiny(*PLAIN, "efficiency.precision=fp32")
    pretrain(recipe, tmp_path / "whole")
    run_until(recipe, tmp_path / "run", 3)
    pretrain(recipe, tmp_path / "run")
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "whole"), rel=1e-3)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="two GPUs are needed")
@pytest.mark.parametrize("strategy", ["ddp", "exact"])
def test_two_gpus_train_as_one(tiny: Tiny, tmp_path: Path, strategy: str) -> None:
    for count in (1, 2):
        several = (f"efficiency.processes={count}", *((f"efficiency.strategy={strategy}",) if count > 1 else ()))
        pretrain(tiny(*PLAIN, "efficiency.precision=fp32", *several), tmp_path / str(count))
    assert losses(tmp_path / "2") == pytest.approx(losses(tmp_path / "1"), rel=1e-3)
