"""Where windows lie, and what their features are: of arrays, at any batch size, with sound and without."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from facemae.config import ClipConfig
from facemae.data.clips.settings import ClipSettings
from facemae.data.schema import CropRecipe
from facemae.errors import CheckpointError, DataError, UsageError
from facemae.features.clip_input import clip_input
from facemae.features.clips import ClipExtractor, ClipRows
from facemae.features.crops import compare_clip_crops, cutting_for
from facemae.features.extractor import FeatureExtractor, load
from facemae.features.pooling import Prefix, pool_step_tokens
from facemae.features.windows import Windows, plan_windows, spans
from facemae.rng import generator
from facemae.sound.mel import log_mel
from tests.features.clip_models import FPS, FRAMES, MEL, RATE, SECONDS, SIDE, crop_recipe, save, voice

PLAN = Windows(8, 0.08, 0.0, 0.64, 2, 64, 0.16)
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def run(clip_run: Path) -> Path:
    return clip_run


@pytest.fixture(scope="module")
def stills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As av_tiny: an encoder of stills and one of sound."""
    return save(tmp_path_factory.mktemp("stills"), clips=False)


def moving(count: int, side: int = SIDE, channels: int = 3) -> np.ndarray:
    """Frames of which each differs, uint8 [count, side, side, channels]."""
    return generator(0, "moving", count).integers(0, 256, (count, side, side, channels), dtype=np.uint8)


def clips(run: Path, *, batch_size: int = 64, pooling: str = "mean", **how: Any) -> ClipExtractor:
    return load(run, device="cpu", batch_size=batch_size, pooling=pooling).clips(**how)


def test_windows_cover_a_clip_and_the_last_says_what_share_is_real() -> None:
    found = [(span.first, round(span.start, 3), round(span.real, 3)) for span in spans(2.0, PLAN, 25)]
    assert found == [(0, 0.0, 1.0), (16, 0.64, 1.0), (32, 1.28, 1.0), (48, 1.92, 0.125)]
    assert [span.real for span in spans(1.28, PLAN, 25)] == [1.0, 1.0]
    assert [span.real for span in spans(0.04, PLAN, 25)] == [pytest.approx(0.0625)]


def test_overlapping_windows_end_with_the_first_that_reaches_the_end() -> None:
    overlapping = replace(PLAN, stride=0.16)
    found = list(spans(1.0, overlapping, 25))
    assert [round(span.start, 2) for span in found] == [0.0, 0.16, 0.32, 0.48]
    assert [span.real == 1.0 for span in found] == [True, True, True, False]
    assert [span.start for span in spans(3.0, replace(PLAN, stride=1.0), 25)] == [0.0, 1.0, 2.0]


def test_a_window_takes_frames_at_the_models_rate_and_holds_the_last() -> None:
    assert PLAN.numbers(16, 25, 100).tolist() == [16, 18, 20, 22, 24, 26, 28, 30]
    assert PLAN.numbers(96, 25, 100).tolist() == [96, 98, 99, 99, 99, 99, 99, 99]
    assert PLAN.numbers(0, 5, 100).tolist() == [0, 0, 1, 1, 2, 2, 2, 3]


def test_features_are_those_of_the_encoders_on_the_very_window(run: Path) -> None:
    frames, wave = moving(40), voice(1.6)
    rows = clips(run).of_arrays(frames, 25, wave=wave, rate=RATE)
    assert rows.start.tolist() == [0.0, 0.64, 1.28]
    assert rows.end.tolist() == [0.64, 1.28, 1.6]
    assert rows.partial.tolist() == [False, False, True]
    extractor = load(run, device="cpu")
    second = torch.from_numpy(frames[16:32:2].transpose(0, 3, 1, 2).copy())[None]
    expected = extractor.encode(second)[-1].mean(dim=1)[0].numpy()
    np.testing.assert_allclose(rows.video[1], expected, atol=TOLERANCE)
    heard = torch.from_numpy(log_mel(wave[round(0.64 * RATE) : round(1.28 * RATE)], MEL, 64))[None]
    expected = extractor.encode_sound(heard)[-1][:, 1:].mean(dim=1)[0].numpy()
    assert rows.sound is not None
    np.testing.assert_allclose(rows.sound[1], expected, atol=TOLERANCE)


@pytest.mark.parametrize("per", ["window", "step"])
def test_a_window_depends_neither_on_the_batch_nor_on_other_windows(run: Path, per: str) -> None:
    frames, wave = moving(75), voice(3.0)
    alone = clips(run, batch_size=1, per=per).of_arrays(frames, 25, wave=wave, rate=RATE)
    together = clips(run, batch_size=512, per=per).of_arrays(frames, 25, wave=wave, rate=RATE)
    assert alone.keys == together.keys
    for name in ("video", "sound"):
        np.testing.assert_allclose(getattr(alone, name), getattr(together, name), atol=TOLERANCE)
    cut = clips(run, per=per).of_arrays(frames[:32], 25, wave=wave[: round(1.28 * RATE)], rate=RATE)
    np.testing.assert_allclose(cut.video, alone.video[: len(cut.keys)], atol=TOLERANCE)
    assert cut.sound is not None
    assert alone.sound is not None
    np.testing.assert_allclose(cut.sound, alone.sound[: len(cut.keys)], atol=TOLERANCE)


def test_time_steps_have_the_patches_of_their_time(run: Path) -> None:
    frames, wave = moving(24), voice(0.96)
    extractor = clips(run, per="step")
    rows = extractor.of_arrays(frames, 25, wave=wave, rate=RATE)
    # Steps of two frames, 0.16 s; those that begin behind the end are no rows.
    assert rows.start.round(2).tolist() == [0.0, 0.16, 0.32, 0.48, 0.64, 0.8]
    assert not rows.partial.any()
    tokens = extractor.extractor.encode(torch.from_numpy(frames[:16:2].transpose(0, 3, 1, 2).copy())[None])[-1]
    np.testing.assert_allclose(rows.video[1], tokens[0, 4:8].mean(dim=0).numpy(), atol=TOLERANCE)
    heard = torch.from_numpy(log_mel(wave[: round(0.64 * RATE)], MEL, 64))[None]
    # A moment of sound is as long as a step here: the second step has the two bands of the second moment.
    expected = extractor.extractor.encode_sound(heard)[-1][0, 1 + 2 : 1 + 4].mean(dim=0).numpy()
    assert rows.sound is not None
    np.testing.assert_allclose(rows.sound[1], expected, atol=TOLERANCE)


def test_what_is_missing_is_nan_and_said(run: Path, deaf: Path) -> None:
    silent = clips(run).of_arrays(moving(16), 25)
    assert silent.has_video.all()
    assert silent.sound is not None
    assert silent.has_sound is not None
    assert not silent.has_sound.any()
    assert np.isnan(silent.sound).all()
    alone = clips(run).of_arrays(None, 25, wave=voice(1.0), rate=RATE)
    assert (alone.has_video.tolist(), alone.person.tolist()) == ([False, False], [-1, -1])
    assert np.isnan(alone.video).all()
    assert alone.sound is not None
    assert not np.isnan(alone.sound).any()
    assert alone.real.tolist() == [1.0, pytest.approx(0.36 / 0.64)]
    assert clips(deaf).of_arrays(moving(16), 25).sound is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda wave: 32768 * wave, r"a wave as loud as [\d.]+\n.*\[-1, 1\].*\n.*divide samples of 16 bits by 32768"),
        (
            lambda wave: np.where(np.arange(len(wave)) < 3, np.nan, wave).astype(np.float32),
            "3 samples .* are no numbers",
        ),
        (
            lambda wave: np.where(np.arange(len(wave)) < 1, np.inf, wave).astype(np.float32),
            "1 samples .* are no numbers",
        ),
    ],
)
def test_a_wave_of_another_scale_or_of_no_numbers_is_refused(
    run: Path, change: Callable[[np.ndarray], np.ndarray], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        clips(run).of_arrays(None, 25, wave=change(voice(0.8)), rate=RATE)


def test_a_little_too_loud_is_cut_off(run: Path) -> None:
    wave = 4 * voice(0.8)
    loud, cut = (clips(run).of_arrays(None, 25, wave=given, rate=RATE) for given in (wave, wave.clip(-1, 1)))
    assert loud.sound is not None
    assert cut.sound is not None
    np.testing.assert_allclose(loud.sound, cut.sound, atol=1e-2)


def test_sound_alone_has_time_steps_of_its_own(run: Path) -> None:
    rows = clips(run, per="step").of_arrays(None, 25, wave=voice(0.8), rate=RATE)
    assert rows.start.round(2).tolist() == [0.0, 0.16, 0.32, 0.48, 0.64]
    other = clips(run).of_arrays(None, 25, wave=voice(0.8, 8000), rate=8000)
    same = clips(run).of_arrays(None, 25, wave=voice(0.8), rate=RATE)
    assert other.sound is not None
    assert same.sound is not None
    assert other.sound.shape == same.sound.shape


def test_an_encoder_of_stills_sees_each_picture_by_itself(stills: Path) -> None:
    frames, wave = moving(20), voice(0.8)
    extractor = clips(stills, pooling="cls+mean", fps=12.5)
    assert extractor.windows.frames == 8
    assert extractor.windows.seconds == pytest.approx(0.64)
    rows = extractor.of_arrays(frames, 25, wave=wave, rate=RATE)
    shown = frames[[1, 3, 5, 7, 9, 11, 13, 15]]
    whole = load(stills, device="cpu", pooling="cls+mean").transform(list(shown))
    np.testing.assert_allclose(rows.video[0], whole.mean(axis=0), atol=TOLERANCE)
    # Of the second window 0.16 s are real: its two pictures alone, not the last one repeated.
    ends = load(stills, device="cpu", pooling="cls+mean").transform(list(frames[[17, 19]]))
    np.testing.assert_allclose(rows.video[1], ends.mean(axis=0), atol=TOLERANCE)
    steps = clips(stills, per="step", fps=12.5).of_arrays(frames[:16], 25)
    np.testing.assert_allclose(steps.video, whole[:, 192:], atol=TOLERANCE)
    assert clips(stills).windows.frames == round(SECONDS * 5)


def test_a_still_goes_through_an_encoder_of_clips_as_one_step(run: Path) -> None:
    picture = moving(1)[0]
    with pytest.warns(UserWarning, match="trained on clips alone"):
        still = load(run, device="cpu").transform([picture])[0]
    two = torch.from_numpy(np.stack([picture, picture]).transpose(0, 3, 1, 2).copy())[None]
    expected = load(run, device="cpu").encode(two)[-1].mean(dim=1)[0].numpy()
    np.testing.assert_allclose(still, expected, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("pooling", "per", "video", "sound"),
    [
        ("mean", "window", (192,), (192,)),
        ("grid2", "window", (4 * 192,), (4 * 192,)),
        ("tokens", "window", (16, 192), (9, 192)),
        ("grid2", "step", (4 * 192,), (2 * 192,)),
        ("tokens", "step", (4, 192), (2, 192)),
    ],
)
def test_poolings(run: Path, pooling: str, per: str, video: tuple[int, ...], sound: tuple[int, ...]) -> None:
    extractor = clips(run, pooling=pooling, per=per)
    rows = extractor.of_arrays(moving(16), 25, wave=voice(0.64), rate=RATE)
    assert rows.sound is not None
    assert (rows.video.shape[1:], rows.sound.shape[1:]) == (video, sound)
    assert (extractor.video_shape, extractor.sound_shape) == (video, sound)


def test_cells_of_a_step_are_means_of_their_patches() -> None:
    tokens = torch.arange(1 + 2 * 4, dtype=torch.float32)[None, :, None]
    assert pool_step_tokens(tokens, Prefix(class_token=True), (2, 2, 2), "grid2")[0].tolist() == [
        [1, 2, 3, 4],
        [5, 6, 7, 8],
    ]
    assert pool_step_tokens(tokens, Prefix(class_token=True), (2, 1, 4), "grid2")[0].tolist() == [
        [1.5, 3.5],
        [5.5, 7.5],
    ]
    assert pool_step_tokens(tokens, Prefix(class_token=True), (2, 2, 2), "mean")[0].tolist() == [[2.5], [6.5]]


def test_other_windows_keep_the_rate_and_are_said(run: Path) -> None:
    longer = clips(run, window=1.3)
    assert (longer.windows.frames, longer.windows.mel_frames) == (16, 128)
    assert longer.windows.seconds == pytest.approx(1.28)
    assert any("1.28 s, not 1.3" in note for note in longer.windows.notes)
    assert any("trained on 8" in note for note in longer.windows.notes)
    rows = longer.of_arrays(moving(32), 25, wave=voice(1.28), rate=RATE)
    assert rows.real.tolist() == [1.0]
    assert clips(run).windows.notes == ()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"window": 0.0}, "above zero"),
        ({"stride": -1.0}, "above zero"),
        ({"fps": 5.0}, "trained on 12.5 frames a second"),
        ({"per": "frame"}, "window or step"),
        ({"per": "step", "stride": 0.2}, "overlap"),
    ],
)
def test_wrong_windows_are_refused(run: Path, how: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        clips(run, **how)


def test_a_class_token_has_no_time(stills: Path, run: Path) -> None:
    with pytest.raises(UsageError, match="has no time"):
        clips(stills, pooling="cls", per="step")
    with pytest.raises(UsageError, match="needs a class token"):
        clips(run, pooling="cls")


def test_wrong_arrays_are_refused(run: Path, deaf: Path) -> None:
    extractor = clips(run)
    with pytest.raises(DataError, match="float32"):
        extractor.of_arrays(moving(8).astype(np.float32), 25)
    with pytest.raises(DataError, match=r"frames of shape \(8, 32, 32\)"):
        extractor.of_arrays(moving(8)[..., 0], 25)
    with pytest.raises(UsageError, match="fps 0"):
        extractor.of_arrays(moving(8), 0)
    with pytest.raises(UsageError, match="at rate None"):
        extractor.of_arrays(moving(8), 25, wave=voice(1.0))
    with pytest.raises(UsageError, match="neither frames nor sound"):
        extractor.of_arrays(None, 25)
    with pytest.raises(UsageError, match="without a sound_encoder"):
        clips(deaf).of_arrays(moving(8), 25, wave=voice(1.0), rate=RATE)
    with pytest.raises(UsageError, match="hears nothing"):
        load(deaf, device="cpu").encode_sound(torch.zeros(1, 64, 32))
    with pytest.raises(UsageError, match=r"shape \(1, 64, 16\)"):
        load(run, device="cpu").encode_sound(torch.zeros(1, 64, 16))


def test_a_model_that_saw_no_clips_or_other_pixels_is_refused(tmp_path: Path) -> None:
    views = {"main": {"normalise": {"mean": [0.5] * 3, "std": [0.25] * 3}}}
    blind = save(tmp_path / "blind", sound=False, changes={"views": views})
    with pytest.raises(UsageError, match="no view of clips"):
        load(blind, device="cpu").clips()
    clip = ClipConfig(frames=FRAMES, fps=FPS).model_dump(mode="json")
    views = {"main": {"normalise": {"mean": [0.4] * 3, "std": [0.25] * 3}, "clip": clip}}
    other = save(tmp_path / "other", sound=False, changes={"views": views})
    with pytest.raises(CheckpointError, match="one normalisation"):
        load(other, device="cpu").clips()


def test_sounds_that_differ_are_refused(tmp_path: Path) -> None:
    sounds = {
        "voice": {"frames": 64, "mel": MEL.model_dump(mode="json")},
        "other": {"frames": 64, "mel": {**MEL.model_dump(mode="json"), "mean": 0.0}},
    }
    with pytest.raises(CheckpointError, match="'voice' and 'other' of the recipe differ in mean"):
        load(save(tmp_path / "run", changes={"sounds": sounds}), device="cpu")
    with pytest.raises(CheckpointError, match="no sound that fits"):
        load(save(tmp_path / "none", changes={"sounds": {}}), device="cpu")


def test_settings_of_packing_come_back_from_its_crop_recipe() -> None:
    settings = ClipSettings(size=96, fps=30, margin=0.25, smoothing=2, detections=7, sound_rate=8000)
    found = cutting_for(settings.crop_recipe("any 1.0"), side=32, sound_rate=16000)
    assert found.unknown == ()
    assert replace(found.settings, longest=settings.longest) == settings
    unknown = cutting_for(CropRecipe(), side=32, sound_rate=None)
    assert set(unknown.unknown) == {"size", "fps", "margin", "smoothing", "detector"}
    assert (unknown.settings.size, unknown.settings.fps, unknown.settings.sound_rate) == (32, 25.0, None)
    other = crop_recipe(smoothing=3, margin=0.3)
    assert len(compare_clip_crops(crop_recipe(), other)) == 2
    assert compare_clip_crops(CropRecipe(), other) == []


def test_random_weights_are_a_baseline_for_both_encoders(run: Path) -> None:
    one, same, other = (
        FeatureExtractor(run, device="cpu", random_init=seed)
        .clips()
        .of_arrays(moving(16), 25, wave=voice(0.64), rate=RATE)
        for seed in (5, 5, 6)
    )
    for part in ("video", "sound"):
        np.testing.assert_array_equal(getattr(one, part), getattr(same, part))
        assert np.abs(getattr(one, part) - getattr(other, part)).max() > 1e-3


def test_plan_takes_the_models_own_window(run: Path, stills: Path) -> None:
    plan = plan_windows(load(run, device="cpu").loaded)
    assert (plan.frames, plan.period, plan.mel_frames, plan.lead) == (FRAMES, 1 / FPS, 64, 0.0)
    assert plan_windows(load(stills, device="cpu").loaded).seconds == pytest.approx(SECONDS)


def test_no_windows_are_no_rows(run: Path) -> None:
    extractor = clips(run)
    assert list(extractor.rows([])) == []
    assert isinstance(extractor.of_windows([]), ClipRows)
    assert len(extractor.of_windows([]).keys) == 0


def test_windows_behind_the_end_of_a_sound_have_none(run: Path) -> None:
    rows = clips(run).of_arrays(moving(100), 25, wave=voice(1.0), rate=RATE)
    assert rows.has_sound is not None
    assert rows.sound is not None
    begun = rows.start < 1.0
    assert rows.has_sound.tolist() == begun.tolist()
    assert begun.any()
    assert not begun.all()
    assert np.isnan(rows.sound[~begun]).all()
    assert rows.has_video.all()
    steps = clips(run, per="step").of_arrays(moving(100), 25, wave=voice(1.0), rate=RATE)
    assert steps.has_sound is not None
    assert not steps.has_sound[steps.start >= 1.28 - 1e-9].any()


@pytest.mark.parametrize("rate", [24.0, 25.0, 30.0, 29.97])
def test_windows_that_follow_one_another_never_overlap(rate: float) -> None:
    found = list(spans(6.0, PLAN, rate))
    gaps = [later.start - earlier.start - PLAN.seconds for earlier, later in pairwise(found)]
    assert all(-1e-9 <= gap < 1 / rate for gap in gaps)
    assert len({later.first - earlier.first for earlier, later in pairwise(found)}) == 1


def test_windows_closer_than_frames_are_refused() -> None:
    with pytest.raises(UsageError, match=r"a stride of 0\.01 s in a clip with 25 frames a second"):
        list(spans(2.0, replace(PLAN, stride=0.01), 25))


def test_time_steps_of_a_window_that_is_heard_in_part_are_refused(stills: Path) -> None:
    with pytest.raises(UsageError, match=r"--window 0\."):
        clips(stills, per="step", window=0.7)


def test_pictures_of_stills_are_evenly_spaced() -> None:
    numbers = Windows(5, 0.2, 0.1, 1.0, 1, None, None).numbers(0, 25, 100)
    assert set(np.diff(numbers).tolist()) == {5}


def test_an_encoder_that_saw_stills_alone_is_said_to_guess_at_clips() -> None:
    clip = {"frames": 8, "fps": 12.5}
    views = {"main": {"clip": clip}, "still": {}}
    objective = {"kind": "audio_to_face", "view": "main", "still": "still"}
    predicted = clip_input({"views": views, "objectives": [objective]})
    assert predicted is not None
    assert (predicted.view, predicted.encoded) == ("main", False)
    seen = clip_input({"views": {**views, "other": {"clip": clip}}, "objectives": [objective]})
    assert seen is not None
    assert (seen.view, seen.encoded) == ("other", True)
