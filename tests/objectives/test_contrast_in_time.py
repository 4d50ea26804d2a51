"""Contrast of stretches of time against formulas written as loops over tokens."""

import math

import pytest
import torch

from facemae.errors import ConfigError
from facemae.models.encoding import Encoding
from facemae.objectives.contrastive import ContrastiveConfig, Level, LevelConfig, step_means
from facemae.objectives.pretraining import build_pretrain_model
from facemae.recipe import load_recipe

WIDTH, SAMPLES, STEPS = 6, 3, 2
CLIP, SOUND = (4, 2, 2), (6, 3)
RECIPE = ("encoder.name=test_vit", "sound_encoder.name=test_vit", "optim.batch_size=8")


def encoding(grid: tuple[int, ...], visible: list[list[int]] | None = None, seed: int = 0) -> Encoding:
    count = math.prod(grid) if visible is None else len(visible[0])
    tokens = torch.randn(SAMPLES, 1 + count, WIDTH, generator=torch.Generator().manual_seed(seed))
    return Encoding(tokens, 1, None if visible is None else torch.tensor(visible), grid=grid)


def reference(given: Encoding) -> torch.Tensor:
    """Means [samples, STEPS, WIDTH], token by token."""
    assert given.grid is not None
    moments, each = given.grid[0], math.prod(given.grid[1:])
    means = torch.zeros(SAMPLES, STEPS, WIDTH)
    for sample in range(SAMPLES):
        shown = range(moments * each) if given.visible is None else given.visible[sample].tolist()
        for step in range(STEPS):
            inside = [at for at, patch in enumerate(shown) if patch // each * STEPS // moments == step]
            if inside:
                means[sample, step] = given.patches[sample, inside].sum(dim=0) / len(inside)
    return means


@pytest.mark.parametrize("grid", [CLIP, SOUND])
def test_a_mean_for_each_stretch_of_time(grid: tuple[int, ...]) -> None:
    whole = encoding(grid)
    means, shown = step_means(whole.patches, whole, STEPS)
    torch.testing.assert_close(means, reference(whole))
    assert shown.all()
    # The second sample shows nothing of the second stretch, the third nothing of the first.
    half = math.prod(grid) // 2
    masked = encoding(grid, [[0, half - 1, half, half + 2], [0, 1, 2, half - 1], [half, half + 1, half + 3, half + 4]])
    found, shown = step_means(masked.patches, masked, STEPS)
    torch.testing.assert_close(found, reference(masked))
    assert shown.tolist() == [[True, True], [True, False], [False, True]]
    assert not found[~shown].any()
    torch.testing.assert_close(step_means(masked.patches, masked, 1)[0][:, 0], masked.patches.mean(dim=1))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(step_means(masked.patches, masked, STEPS)[0], reference(masked))


def test_similarity_is_the_mean_of_the_cosines_at_the_same_time() -> None:
    level = Level(ContrastiveConfig(), LevelConfig(steps=STEPS), ((WIDTH, 1), (WIDTH, 1)))
    first, second = encoding(CLIP), encoding(SOUND, seed=1)
    vectors = level(first, second, (None, None), SAMPLES)
    assert_cosines(level, vectors, reference(first), reference(second))


def test_what_stays_the_same_in_time_may_be_left_out() -> None:
    level = Level(ContrastiveConfig(), LevelConfig(steps=STEPS, centre=True), ((WIDTH, 1), (WIDTH, 1)))
    first, second = encoding(CLIP), encoding(SOUND, seed=1)
    vectors = level(first, second, (None, None), SAMPLES)
    a, b = (means - (means[:, :1] + means[:, 1:]) / 2 for means in (reference(first), reference(second)))
    assert_cosines(level, vectors, a, b)
    constant = torch.randn(SAMPLES, 1, WIDTH, generator=torch.Generator().manual_seed(5))
    louder = Encoding(second.tokens + constant, 1, grid=SOUND)
    torch.testing.assert_close(level(first, louder, (None, None), SAMPLES), vectors)


def assert_cosines(level: Level, vectors: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    """Whether similarities are means over steps of the cosines of a and b, [samples, STEPS, WIDTH]."""
    found = level.similarity(vectors[:, 0], vectors[:, 1])
    for i in range(SAMPLES):
        for j in range(SAMPLES):
            cosines = [torch.cosine_similarity(a[i, step], b[j, step], dim=0) for step in range(STEPS)]
            torch.testing.assert_close(found[i, j], sum(cosines) / STEPS)


def test_a_vector_has_the_length_of_one_and_gives_the_same_cosines() -> None:
    level = Level(ContrastiveConfig(), LevelConfig(steps=STEPS, centre=True), ((WIDTH, 1), (WIDTH, 1)))
    first, second = encoding(CLIP), encoding(SOUND, seed=1)
    a, b = level.vector(first, 0), level.vector(second, 1)
    torch.testing.assert_close(torch.stack([a, b]).norm(dim=-1), torch.ones(2, SAMPLES))
    rows = level(first, second, (None, None), SAMPLES)
    torch.testing.assert_close(a @ b.T, level.similarity(rows[:, 0], rows[:, 1]))


THIRDS = (6, 2)
"""A grid of three stretches of four patches."""
MASKS = [[0, 1, 4, 5], [0, 1, 8, 9], [4, 5, 6, 7]]
"""Of its stretches the samples show the first two, the first and the third, and the second alone."""


@pytest.mark.parametrize("centre", [False, True])
def test_stretches_that_a_mask_leaves_empty_are_not_compared(centre: bool) -> None:
    level = Level(ContrastiveConfig(), LevelConfig(steps=3, centre=centre), ((WIDTH, 1), (WIDTH, 1)))
    masked, whole = encoding(THIRDS, MASKS), encoding(THIRDS, seed=1)
    rows = level(masked, whole, (None, None), SAMPLES)
    found = level.similarity(rows[:, 0], rows[:, 1])
    for i, mask in enumerate(MASKS):
        places = sorted({patch // 4 for patch in mask})
        mine = [
            masked.patches[i, [k for k, patch in enumerate(mask) if patch // 4 == place]].mean(0) for place in places
        ]
        for j in range(SAMPLES):
            theirs = [whole.patches[j, 4 * place : 4 * place + 4].mean(dim=0) for place in range(3)]
            if centre and len(places) == 1:
                assert found[i, j] == 0
                continue
            common, overall = (centre * torch.stack(means).mean(dim=0) for means in (mine, theirs))
            pairs = [(own - common, theirs[place] - overall) for place, own in zip(places, mine, strict=True)]
            expected = torch.stack([torch.cosine_similarity(*pair, dim=0) for pair in pairs]).mean()
            torch.testing.assert_close(found[i, j], expected)


def test_what_stays_is_left_out_of_masked_clips_too() -> None:
    level = Level(ContrastiveConfig(), LevelConfig(steps=3, centre=True), ((WIDTH, 1), (WIDTH, 1)))
    first, second = encoding(THIRDS, MASKS), encoding(THIRDS, seed=1)
    constant = torch.randn(SAMPLES, 1, WIDTH, generator=torch.Generator().manual_seed(5))
    moved = Encoding(first.tokens + constant, 1, first.visible, grid=THIRDS)
    torch.testing.assert_close(
        level(moved, second, (None, None), SAMPLES), level(first, second, (None, None), SAMPLES), atol=1e-5, rtol=1e-5
    )


def test_gradients_of_what_is_not_compared_are_zeros() -> None:
    level = Level(ContrastiveConfig(), LevelConfig(steps=3, centre=True), ((WIDTH, 1), (WIDTH, 1)))
    tokens = encoding(THIRDS, MASKS).tokens.requires_grad_()
    rows = level(Encoding(tokens, 1, torch.tensor(MASKS), grid=THIRDS), encoding(THIRDS, seed=1), (None, None), SAMPLES)
    (gradient,) = torch.autograd.grad(level.similarity(rows[:, 0], rows[:, 1]).sum(), tokens)
    assert gradient.isfinite().all()
    assert not gradient[2].any()
    assert gradient[:2, 1:].any()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["objectives.2.levels.0.steps=4"],
            r"cuts 'main' into 4 stretches of time; it has 6 moments\n.*one of 1, 2, 3, 6",
        ),
        (["objectives.0.weight=1", "sound_encoder.patch_size=8", "objectives.2.levels.0.steps=5"], "'main' into 5"),
        (
            ["sounds.voice.frames=80", "sound_encoder.frames=80"],
            r"cuts 'voice' into 6 .* it has 5 moments\n.*one of 1, 5",
        ),
    ],
)
def test_what_has_no_such_stretches_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_pretrain_model(load_recipe("sync_tiny", [*RECIPE, *overrides]))


def test_one_stretch_has_nothing_in_common_with_others() -> None:
    with pytest.raises(ConfigError, match="centre subtracts the mean of several stretches of time; set steps to 2"):
        load_recipe("sync_tiny", ["objectives.2.levels=[{centre: true}]"])
