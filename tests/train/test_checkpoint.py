"""Checkpoints: whole or not there, damage named, the one before used, disk full said."""

import errno
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from facemae import checkpoint as module
from facemae.checkpoint import (
    Checkpoint,
    Manifest,
    check_names,
    find_checkpoint,
    newest_valid,
    open_checkpoint,
    write_checkpoint,
)
from facemae.checkpoint_folders import remove_old, remove_unfinished, set_aside, step_folder, step_folders
from facemae.data.schema import ModelInput
from facemae.errors import CheckpointError, StorageError
from tests.train.conftest import Mount

INPUT = ModelInput(image_size=16, channels=1, mean=(0.5,), std=(0.25,))


def save(run: Path, step: int, size: int = 100) -> Checkpoint:
    weights = {"b": torch.arange(size, dtype=torch.float32) + step, "a.x": torch.ones(2, 3)}
    manifest = Manifest(step=step, samples=8 * step, recipe={"name": "tiny"}, input=INPUT)
    return write_checkpoint(
        step_folder(run, step),
        manifest,
        tensors={"model": weights, "optimizer": {"exp_avg/b": torch.zeros(size)}},
        documents={"trainer": {"step": step}},
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    save(tmp_path, 5)
    found = find_checkpoint(tmp_path)
    assert found.manifest.step == 5
    assert found.manifest.samples == 40
    assert found.manifest.input == INPUT
    assert found.document("trainer") == {"step": 5}
    assert torch.equal(found.tensors("model")["b"], torch.arange(100, dtype=torch.float32) + 5)
    assert set(found.tensors("model", prefix="a.")) == {"x"}
    assert not found.has("ema")
    with pytest.raises(CheckpointError, match=r"no part 'ema'"):
        found.tensors("ema")


@pytest.mark.parametrize("sort", ["checksum", "length", "missing", "manifest"])
def test_a_damaged_newest_is_named_and_the_one_before_used(tmp_path: Path, sort: str) -> None:
    save(tmp_path, 1)
    newest = save(tmp_path, 2).folder
    if sort == "checksum":
        damage(newest / "model.safetensors")
    elif sort == "length":
        (newest / "model.safetensors").write_bytes(b"short")
    elif sort == "missing":
        (newest / "optimizer.safetensors").unlink()
    else:
        (newest / "manifest.json").write_text("{")
    found, problems = newest_valid(tmp_path)
    assert found is not None
    assert found.manifest.step == 1
    assert len(problems) == 1
    assert "step-00000002" in problems[0]


@pytest.mark.parametrize("name", ["manifest.json", "model.safetensors"])
def test_a_newest_that_cannot_be_read_counts_as_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    save(tmp_path, 1)
    broken = save(tmp_path, 2).folder / name
    ordinary = Path.open

    def failing(self: Path, *given: Any, **more: Any) -> Any:
        if self == broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(self))
        return ordinary(self, *given, **more)

    monkeypatch.setattr(Path, "open", failing)
    found, problems = newest_valid(tmp_path)
    assert found is not None
    assert found.manifest.step == 1
    assert problems == [f"{broken.parent} is damaged: reading {name} failed: Input/output error"]
    with pytest.raises(CheckpointError, match="Input/output error"):
        open_checkpoint(broken.parent)


def test_one_damaged_checkpoint_is_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    assert set_aside(tmp_path, newer_than=3) == []
    assert set_aside(tmp_path, newer_than=2) == ["kept step-00000003.damaged"]
    save(tmp_path, 4)
    save(tmp_path, 5)
    said = set_aside(tmp_path, newer_than=2)
    assert said[0] == "kept step-00000005.damaged"
    assert len(said) == 3
    assert names(tmp_path / "checkpoints") == ["step-00000001", "step-00000002", "step-00000005.damaged"]


def test_none_intact_is_an_error_and_never_a_fresh_start(tmp_path: Path) -> None:
    for step in (1, 2):
        damage(save(tmp_path, step).folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="none of the checkpoints") as caught:
        newest_valid(tmp_path)
    assert "step-00000001" in str(caught.value)
    assert "step-00000002" in str(caught.value)


def test_a_folder_that_is_no_checkpoint_says_what_would_be(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        open_checkpoint(tmp_path)


def test_old_ones_are_removed_and_unfinished_ones_do_not_count(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        save(tmp_path, step)
    (tmp_path / "checkpoints/step-00000009.tmp").mkdir()
    remove_old(tmp_path, keep=2)
    assert [path.name for path in step_folders(tmp_path)] == ["step-00000003", "step-00000004"]
    assert remove_unfinished(tmp_path) == ["step-00000009.tmp"]
    assert names(tmp_path / "checkpoints") == ["step-00000003", "step-00000004"]


def test_an_old_one_that_cannot_be_removed_stops_nothing(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    # No folder can be renamed to the name of a file.
    (tmp_path / "checkpoints/step-00000001.tmp").touch()
    remove_old(tmp_path, keep=1)
    assert [path.name for path in step_folders(tmp_path)] == ["step-00000001", "step-00000003"]


POINTS = 7
"""Flushes and the rename while a checkpoint of two parts and one document is written, and the flush after."""


@pytest.mark.parametrize("point", range(POINTS + 1))
def test_killed_at_every_point_of_writing(tmp_path: Path, point: int) -> None:
    save(tmp_path, 1)
    pid = os.fork()
    if pid == 0:  # the child dies at its n-th flush or rename
        left = point

        def dying(original: Callable[..., Any]) -> Callable[..., Any]:
            def call(*given: Any) -> Any:
                nonlocal left
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(*given)

            return call

        for owner, name in ((module, "fsync_file"), (module, "fsync_folder"), (Path, "rename")):
            setattr(owner, name, dying(getattr(owner, name)))
        save(tmp_path, 2)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    killed = os.WIFSIGNALED(status)
    assert killed == (point < POINTS)
    found, problems = newest_valid(tmp_path)
    assert found is not None
    assert not problems
    # Only after the rename, the last point but one, is it there; then it is there whole.
    assert found.manifest.step == (2 if point >= POINTS - 1 else 1)
    remove_unfinished(tmp_path)
    assert not list((tmp_path / "checkpoints").glob("*.tmp"))
    assert save(tmp_path, 3).folder.is_dir()


def test_a_file_too_large_leaves_nothing_and_the_one_before_intact(tmp_path: Path) -> None:
    save(tmp_path, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
        with pytest.raises(StorageError, match="file too large"):
            save(tmp_path, 2, size=100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert names(tmp_path / "checkpoints") == ["step-00000001"]
    assert newest_valid(tmp_path)[0] is not None


def test_disk_full_as_the_library_reports_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)

    def full(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(StorageError, match=r"the disk is full: writing .*/step-00000002 failed"):
        save(tmp_path, 2)
    assert names(tmp_path / "checkpoints") == ["step-00000001"]


def test_disk_full_on_a_full_disk(mount: Mount) -> None:
    small_disk = mount("1m")
    save(small_disk, 1)
    with pytest.raises(StorageError, match="the disk is full") as caught:
        save(small_disk, 2, size=400_000)
    assert "free space" in str(caught.value)
    assert names(small_disk / "checkpoints") == ["step-00000001"]
    assert newest_valid(small_disk)[0] is not None
    assert save(small_disk, 2).folder.is_dir()


def test_wrong_weights_are_described() -> None:
    model = {"a": torch.zeros(2), "b": torch.zeros(3, 4), "c": torch.zeros(1)}
    check_names(model, model, "here")
    with pytest.raises(CheckpointError) as caught:
        check_names({"a": torch.zeros(2), "b": torch.zeros(4, 4), "d": torch.zeros(1)}, model, "there.safetensors")
    message = str(caught.value)
    assert "there.safetensors" in message
    assert "missing c" in message
    assert "not in the model d" in message
    assert "b is 4x4, the model has 3x4" in message
