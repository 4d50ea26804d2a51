"""Positions: MAE's table, and the same places in images of other sizes."""

import pytest
import torch
from timm.layers import build_sincos2d_pos_embed, resample_abs_pos_embed

from facemae.errors import ConfigError
from facemae.models.positions import GridTables, resampling, sincos_positions


@pytest.mark.parametrize(("grid", "width"), [((14, 14), 768), ((8, 8), 192), ((3, 5), 24)])
def test_sincos_is_timms_with_columns_first(grid: tuple[int, int], width: int) -> None:
    expected = build_sincos2d_pos_embed(list(grid), width, interleave_sin_cos=True).roll(width // 2, dims=1)
    assert torch.equal(sincos_positions(grid, width)[0], expected)
    assert torch.equal(sincos_positions(grid, width, native=grid)[0], expected)
    assert torch.equal(sincos_positions(grid, width, prefix=2)[0, :2], torch.zeros(2, width))


def test_a_position_means_the_same_place_at_any_size() -> None:
    native = sincos_positions((4, 4), 32)[0].view(4, 4, 32)
    # In a grid of three times as many patches, every third one from the second has its centre on a native centre.
    fine = sincos_positions((12, 12), 32, native=(4, 4))[0].view(12, 12, 32)
    torch.testing.assert_close(fine[1::3, 1::3], native, atol=1e-5, rtol=1e-5)
    # One patch is the whole image: the same centre as that of the middle one of three.
    torch.testing.assert_close(sincos_positions((1, 1), 32, native=(3, 3))[0, 0], sincos_positions((3, 3), 32)[0, 4])
    # Rows and columns are scaled each by their own.
    wide = sincos_positions((4, 12), 32, native=(4, 4))[0].view(4, 12, 32)
    torch.testing.assert_close(wide[:, 1::3], native, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("old", "new"), [((4, 4), (6, 6)), ((6, 6), (3, 3)), ((4, 4), (5, 3))])
def test_resampling_is_timms(old: tuple[int, int], new: tuple[int, int]) -> None:
    learned = torch.randn(1, old[0] * old[1], 8, generator=torch.Generator().manual_seed(0))
    expected = resample_abs_pos_embed(learned, list(new), list(old), num_prefix_tokens=0)
    torch.testing.assert_close(resampling(old, new) @ learned[0], expected[0], atol=1e-5, rtol=1e-5)


def test_a_table_is_made_once_and_may_be_trained_with_after_inference() -> None:
    made = []

    def make(grid: tuple[int, int]) -> torch.Tensor:
        made.append(grid)
        return torch.ones(grid)

    tables = GridTables(make)
    with torch.inference_mode():
        first = tables((2, 3), torch.device("cpu"))
    assert tables((2, 3), torch.device("cpu")) is first
    assert not first.is_inference()
    tables((3, 2), torch.device("cpu"))
    assert made == [(2, 3), (3, 2)]


def test_a_width_without_four_parts_is_refused() -> None:
    with pytest.raises(ConfigError, match="token width 30"):
        sincos_positions((4, 4), 30)
