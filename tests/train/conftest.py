"""A tiny run: 16-patch images, the smallest ViT of timm, a shard set of noise, and a recipe file for subprocesses."""

import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facemae.cli import main
from facemae.config import Recipe
from facemae.data.index import build_index
from facemae.data.pack import PackItem, pack_samples
from facemae.data.quarantine import Quarantine
from facemae.data.schema import Batch, CropRecipe, DatasetCard
from facemae.recipe import load_recipe
from facemae.train.trainer import pretrain

RECIPE = """\
schema: 1
name: tiny
seed: 3
data: {lanes: 2, streams: [{name: faces, shards: SHARDS}]}
views:
  main:
    crop: {scale: [0.5, 1.0]}
    normalise: {mean: [0.5], std: [0.25]}
encoder: {name: test_vit, image_size: 16, patch_size: 4, channels: 1}
objectives:
  - {kind: masked_image, decoder: {width: 16, depth: 1, heads: 2}}
optim: {batch_size: 8, total: 64 samples, warmup: 16 samples, base_lr: 0.05, clip: 1.0, ema: 16 samples}
checkpoint: {every: 16 samples}
efficiency: {device: cpu, precision: fp32, threads: 1, workers: 0}
log: {every_steps: 2, loggers: [], keys: true, pictures: 32 samples}
"""


def noise_items(count: int, first: int = 0) -> list[PackItem]:
    made = []
    for number in range(first, first + count):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 20)).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        made.append(PackItem(f"face_{number:03d}", buffer.getvalue(), "png", {"split": "train"}))
    return made


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train") / "shards"
    card = DatasetCard(name="noise", licence="CC0", crop=CropRecipe(detector="none", size=20))
    pack_samples(noise_items(37), folder, shard_size=10, card=card)
    return folder


@pytest.fixture
def recipe_file(tmp_path: Path, shards: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE.replace("SHARDS", str(shards)))
    return path


@pytest.fixture
def tiny(recipe_file: Path) -> Callable[..., Recipe]:
    """The tiny recipe with overrides."""

    def load(*overrides: str) -> Recipe:
        return load_recipe(recipe_file, overrides)

    return load


Tiny = Callable[..., Recipe]


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """An undisturbed run of the tiny recipe; tests may look at it and copy it."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "tiny.yaml").write_text(RECIPE.replace("SHARDS", str(shards)))
    result = pretrain(load_recipe(folder / "tiny.yaml"), folder / "run")
    assert (result.step, result.samples, result.stopped) == (8, 64, "finished")
    assert result.loss is not None
    return folder / "run"


def crash(*_: object, **__: object) -> None:
    """Stands where something else is called."""
    raise RuntimeError("crash")


@pytest.fixture
def growing(tmp_path: Path) -> Path:
    """Two shards of 10 samples, a test's own."""
    folder = tmp_path / "growing"
    pack_samples(noise_items(20), folder, shard_size=10)
    return folder


def grow(folder: Path) -> None:
    """Add a third shard."""
    more = folder.with_name("more")
    pack_samples(noise_items(10, first=50), more, shard_size=10)
    tar = next(more.glob("*.tar"))
    tar.rename(folder / f"zz-{tar.name}")
    build_index(folder)


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, number: signal.Signals = signal.SIGTERM) -> None:
    """Send this process a signal while it works on a step."""
    record = Quarantine.record

    def signalling(self: Quarantine, batch: Batch, *rest: Any, **more: Any) -> None:
        if batch.step == step:
            os.kill(os.getpid(), number)
        record(self, batch, *rest, **more)

    monkeypatch.setattr(Quarantine, "record", signalling)


def run_until(recipe: Recipe, out: Path, step: int, *, extend: bool = False, adopt_data: bool = False) -> None:
    """Start or continue a run and stop it by a signal in a step; it ends with that step saved."""
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, step)
        assert pretrain(recipe, out, extend=extend, adopt_data=adopt_data).stopped == "SIGTERM"


Mount = Callable[[str], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mounts a small file system, of a size such as `1m`; only root may."""
    folder = tmp_path / "disk"

    def make(size: str) -> Path:
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if os.geteuid() != 0 or shutil.which("mount") is None:
            pytest.skip("mounting a small file system needs root")
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("mounting is not allowed here")
        return folder

    yield make
    if folder.is_mount():
        subprocess.run(["umount", str(folder)], check=True)


@dataclass(frozen=True)
class Answer:
    returncode: int
    stdout: str
    stderr: str


Facemae = Callable[..., Answer]


@pytest.fixture
def facemae(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Facemae:
    """The command line, in this process."""

    def call(*arguments: str | Path) -> Answer:
        monkeypatch.setattr(sys, "argv", ["facemae", *map(str, arguments)])
        capfd.readouterr()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        return Answer(code, *capfd.readouterr())

    return call


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(recipe_file: Path) -> Start:
    """Starts `facemae pretrain` in a process of its own, with its stderr to read from."""

    def launch(out: Path, overrides: Sequence[str] = (), *options: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "facemae", "pretrain", str(recipe_file), *overrides, "--out", str(out)]
        return subprocess.Popen(
            [*command, *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    return launch


def wait_for(process: "subprocess.Popen[str]", *words: str) -> str:
    """Read stderr up to the first line with one of the words; fail where the process ends before."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if any(word in line for word in words):
            return line
    raise AssertionError(f"the process ended without saying {words}:\n{''.join(seen)}")


def result_files(run: Path, step: int) -> dict[str, bytes]:
    """Everything of a run that must be equal bit by bit."""
    folder = run / "checkpoints" / f"step-{step:08d}"
    names = ("model.safetensors", "ema.safetensors", "optimizer.safetensors", "trainer.json")
    return {**{name: (folder / name).read_bytes() for name in names}, "keys": (run / "log/keys.jsonl").read_bytes()}
