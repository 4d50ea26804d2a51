"""Sounds as an encoder hears them: masks, and windows centred on one frame."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from facemae.data.schema import MaskSpec, ViewSpec
from facemae.sound import store
from facemae.train.processes.process_group import OneProcess
from facemae.train.record.audit import consumed
from tests.data.test_loader_clips import LONG, RATE, SIDE, SOUND, clip, equal, load, members, numbers, write

MASKED = replace(SOUND, mask=MaskSpec("time", (8, 1), 3))
STILL = ViewSpec("main", SIDE, 3, crop="resize", flip=False)
BLIP = 800
"""Samples from one blip to the next: 100 ms."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = {f"clip{number}": members(LONG) for number in range(4)}
    made["mute"] = members(LONG, sound=False)
    return write(tmp_path_factory.mktemp("sounds") / "shards", made)


def test_every_sample_has_a_mask_with_or_without_sound(shards: Path) -> None:
    drawn = set()
    for batch in load(shards, sounds=[MASKED], lanes=1, batch_size=5):
        sound = batch.sounds["sound"]
        assert sound.visible is not None
        assert sound.visible.shape == (5, 3)
        assert (sound.visible.diff(dim=1) > 0).all()
        drawn |= {tuple(row) for row in sound.visible.tolist()}
        assert [bool(here) for here in sound.present] == [key != "mute" for key in batch.keys]
    assert len(drawn) > 5


def test_masks_are_the_same_with_workers_in_parts_and_from_the_middle(shards: Path) -> None:
    whole = load(shards, sounds=[MASKED])
    for one, other in zip(whole, load(shards, sounds=[MASKED], workers=1), strict=True):
        assert equal(one, other)
    for one, other in zip(whole[3:], load(shards, sounds=[MASKED], start_step=3), strict=True):
        assert equal(one, other)
    halves = [load(shards, sounds=[MASKED], rank=rank, world=2) for rank in range(2)]
    for step, one in enumerate(whole):
        for rank, part in enumerate(one.split(2)):
            assert equal(part, halves[rank][step])


def test_a_mask_changes_nothing_else_and_is_part_of_the_digest(shards: Path) -> None:
    (plain,), (masked,) = (load(shards, sounds=[sound], stop_step=1) for sound in (SOUND, MASKED))
    assert torch.equal(plain.sounds["sound"].mel, masked.sounds["sound"].mel)
    assert plain.sounds["sound"].visible is None
    visible = masked.sounds["sound"].visible
    assert visible is not None
    before = consumed(masked, OneProcess()).views
    visible[2, 0] = visible[2, 0] + 100
    assert consumed(masked, OneProcess()).views != before
    assert masked.part(slice(2, 3)).sounds["sound"].visible is not None
    assert int(masked.map(lambda tensor: tensor[2:]).tensors()[-1][0, 0]) == int(visible[2, 0])


def test_the_sound_of_one_frame_is_centred_on_it(tmp_path: Path) -> None:
    """A blip at the middle of every tenth of a second tells where in time a spectrogram lies."""
    data, facts = clip(LONG)
    wave = np.zeros(round(LONG / 25 * RATE), np.float32)
    heights = {}
    for number in range(len(wave) // BLIP):
        # Blip k sounds at its own pitch, from 50 to 60 ms into its tenth.
        begin, pitch = number * BLIP + 400, 400 + 200 * number
        wave[begin : begin + 80] = np.sin(2 * np.pi * pitch * np.arange(80) / RATE)
        heights[number] = pitch
    made = {"a": {"mjpeg": data, "flac": store.encode(wave, RATE), "json": json.dumps({"clip": facts}).encode()}}
    shards = write(tmp_path / "s", made)
    sound = replace(SOUND, frames=8)
    seen = 0
    for batch in load(shards, STILL, sounds=[sound], lanes=1, batch_size=1, stop_step=20):
        frame = numbers(batch.views["main"].image)[0]
        centre = (frame + 0.5) / 25
        mel = batch.sounds["sound"].mel[0]
        # Frame k of the spectrogram looks at 25 ms from k hops after the window's start, 40 ms before the centre.
        middle = [centre - 0.04 + 0.01 * k + 0.0125 for k in range(6)]
        loud = mel[:6].max(dim=1).values > mel[:6].min() + 1.0
        inside = [any(abs(t - (0.1 * k + 0.055)) < 0.0125 for k in heights) for t in middle]
        for k, (found, expected) in enumerate(zip(loud.tolist(), inside, strict=True)):
            if all(abs(abs(middle[k] - (0.1 * n + 0.055)) - 0.0175) > 0.006 for n in heights):
                assert found == expected, (frame, k)
                seen += found
    assert seen > 10


def test_a_still_has_no_sound_beneath_it(tmp_path: Path) -> None:
    data, _ = clip(1)
    made = {"a": {"jpg": data, "flac": members(LONG)["flac"], "json": b"{}"}}
    (batch,) = load(write(tmp_path / "s", made), STILL, lanes=1, batch_size=1, stop_step=1)
    assert not batch.sounds["sound"].present.any()
    assert not batch.sounds["sound"].mel.any()


@pytest.mark.parametrize(("peak", "heard"), [(0.0, False), (0.0009, False), (0.0011, True)])
def test_a_silent_window_is_no_sound(tmp_path: Path, peak: float, heard: bool) -> None:
    """As in the features of a clip: under -60 dB of full scale."""
    made = members(LONG)
    made["flac"] = store.encode(np.full(round(LONG / 25 * RATE), peak, np.float32), RATE)
    (batch,) = load(write(tmp_path / "s", {"a": made}), sounds=[SOUND], lanes=1, batch_size=1, stop_step=1)
    assert batch.sounds["sound"].present.tolist() == [heard]
    assert bool(batch.sounds["sound"].mel.any()) == heard
