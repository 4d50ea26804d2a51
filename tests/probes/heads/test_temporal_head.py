"""The temporal head: what it knows of time, and that padding is nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from facemae.errors import ProbeError
from facemae.rng import generator
from facemae_probes.heads.linear import fit_path
from facemae_probes.heads.standardise import Standardiser
from facemae_probes.heads.temporal import (
    Clips,
    TemporalModel,
    TemporalPool,
    TemporalSetting,
    fit_temporal,
    mean_over_time,
    padded,
)
from facemae_probes.tasks.targets import Kind, Targets

SETTING = TemporalSetting(lr=2e-2, epochs=8, queries=4, batch_size=32)
MIXED = replace(SETTING, lr=3e-3, layers=1, width=16, heads=2)
TRAIN, TEST = np.arange(400), np.arange(400, 600)


def _clips(count: int = 600) -> tuple[Clips, np.ndarray]:
    """Clips of 3 to 9 frames in which one dimension rises or falls; the mean over frames knows nothing of which."""
    rng = generator(0, "temporal-data")
    lengths = rng.integers(3, 10, size=count)
    labels = rng.integers(2, size=count)
    frames = rng.normal(size=(int(lengths.sum()), 6)).astype(np.float16)
    starts = np.cumsum(lengths) - lengths
    for start, length, label in zip(starts, lengths, labels, strict=True):
        ramp = np.linspace(-2, 2, length) * (1 if label else -1)
        noise = frames[start : start + length, 2]
        frames[start : start + length, 2] = ramp + 0.5 * (noise - noise.mean())
    return Clips(frames, starts, lengths), labels


def _fit(clips: Clips, truth: Targets, setting: TemporalSetting, seed: int = 0) -> TemporalModel:
    models = fit_temporal(clips, TRAIN, truth.take(TRAIN), setting=setting, seed=seed)
    return [model for _, model in models][-1]


@pytest.mark.parametrize("setting", [SETTING, MIXED], ids=["pooling", "mixing"])
def test_it_knows_the_order_that_a_mean_over_frames_has_lost(setting: TemporalSetting) -> None:
    clips, labels = _clips()
    truth = Targets("classes", ("falls", "rises"), labels)
    temporal = np.mean(_fit(clips, truth, setting).scores(clips, TEST).argmax(axis=1) == labels[TEST])
    mean = mean_over_time(clips.frames, clips.starts, clips.lengths)
    scale = Standardiser.fit(mean, TRAIN)
    models = fit_path(scale(mean, TRAIN), truth.take(TRAIN))
    linear = max(np.mean(model.scores(scale(mean, TEST)).argmax(axis=1) == labels[TEST]) for model in models)
    assert linear < 0.65
    assert temporal > 0.9


@pytest.mark.parametrize("kind", ["multilabel", "distribution", "regression"])
def test_columns_shares_and_numbers_are_learned(kind: Kind) -> None:
    clips, labels = _clips()
    both = np.stack([labels, 1 - labels], axis=1)
    values = both if kind == "multilabel" else 0.1 + 0.8 * both if kind == "distribution" else 50 + 3.0 * both
    scores = _fit(clips, Targets(kind, ("rises", "falls"), values), SETTING).scores(clips, TEST)
    middle = values.astype(float).mean(axis=0)
    assert np.mean((scores > middle) == both[TEST].astype(bool)) > 0.9


def _pool(setting: TemporalSetting) -> TemporalPool:
    pool = TemporalPool(6, 3, setting, seed=0).eval()
    with torch.no_grad():
        pool.read.head.weight.copy_(torch.from_numpy(generator(0, "head").normal(size=(pool.read.head.weight.shape))))
    return pool


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_padding_is_nothing(layers: int) -> None:
    """Whatever stands in it, however much of it there is, and whoever shares the batch."""
    pool = _pool(replace(MIXED, layers=layers))
    clips, _ = _clips(20)
    frames, time, mask = padded(clips, np.arange(20), Standardiser.fit(clips.frames))
    with torch.inference_mode():
        logits = pool(frames, time, mask)
        nonsense = torch.where(mask[..., None], frames, torch.nan), torch.where(mask, time, torch.inf)
        assert torch.equal(pool(*nonsense, mask), logits)
        longer = [
            torch.nn.functional.pad(frames, (0, 0, 0, 13)),
            *(torch.nn.functional.pad(x, (0, 13)) for x in (time, mask)),
        ]
        torch.testing.assert_close(pool(*longer), logits, rtol=1e-5, atol=1e-5)
        for clip in range(20):
            alone = padded(clips, np.array([clip]), Standardiser.fit(clips.frames))
            assert alone[2].all()
            torch.testing.assert_close(pool(*alone), logits[clip : clip + 1], rtol=1e-5, atol=1e-5)


def test_padding_gets_no_gradient() -> None:
    pool = _pool(MIXED)
    clips, _ = _clips(8)
    frames, time, mask = padded(clips, np.arange(8), Standardiser.fit(clips.frames))
    pool(frames.requires_grad_(), time, mask).sum().backward()
    assert frames.grad is not None
    assert not frames.grad[~mask].any()
    assert frames.grad[mask].any(dim=1).all()


@pytest.mark.parametrize("layers", [0, 1])
def test_a_clip_may_be_a_single_frame(layers: int) -> None:
    rng = generator(3, "single")
    frames = rng.normal(size=(64, 6)).astype(np.float32)
    clips = Clips(frames, np.arange(64), np.ones(64, dtype=np.int64))
    truth = Targets("classes", ("a", "b"), (frames[:, 0] > 0).astype(np.int64))
    setting = replace(MIXED, layers=layers, epochs=2)
    model = [model for _, model in fit_temporal(clips, np.arange(64), truth, setting=setting)][-1]
    assert np.isfinite(model.scores(clips, np.arange(64))).all()


def test_the_same_seed_gives_the_same_numbers_and_another_does_not() -> None:
    clips, labels = _clips()
    truth = Targets("classes", ("falls", "rises"), labels)
    setting = replace(MIXED, epochs=1)
    first, again, other = (_fit(clips, truth, setting, seed).scores(clips, TEST) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_rows_of_clips_and_their_means() -> None:
    frames = np.arange(20, dtype=np.float16).reshape(10, 2)
    clips = Clips(frames, np.array([4, 0]), np.array([3, 2]))
    np.testing.assert_array_equal(clips.rows(np.array([1, 0])), [0, 1, 4, 5, 6])
    np.testing.assert_array_equal(mean_over_time(frames, clips.starts, clips.lengths), [[10, 11], [1, 2]])


def test_means_over_time_are_those_of_each_clip_in_blocks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = generator(0, "frames").normal(5, 1, (3000, 8)).astype(np.float32)
    lengths = generator(0, "lengths").integers(1, 9, 400)
    lengths[7] = 700
    starts = generator(0, "starts").integers(0, 3000 - lengths)
    expected = [frames[start : start + length].mean(axis=0) for start, length in zip(starts, lengths, strict=True)]
    for size in (1, 2**19):
        monkeypatch.setattr("facemae_probes.heads.temporal.BLOCK_ELEMENTS", size)
        np.testing.assert_allclose(mean_over_time(frames, starts, lengths), expected, rtol=1e-6)
    empty = np.empty(0, dtype=np.int64)
    assert mean_over_time(frames, empty, empty).shape == (0, 8)


def test_clips_that_are_not_there_are_named() -> None:
    with pytest.raises(ProbeError, match="clip 1 has 3 frames from frame 2"):
        Clips(np.zeros((4, 2), dtype=np.float32), np.array([0, 2]), np.array([4, 3]))
    with pytest.raises(ProbeError, match="clip 0 has 0 frames"):
        Clips(np.zeros((4, 2), dtype=np.float32), np.array([0]), np.array([0]))
