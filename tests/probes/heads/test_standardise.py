"""Standardising in memory, in blocks, and from maps."""

from pathlib import Path

import numpy as np
import pytest

from facemae_probes.heads import standardise
from facemae_probes.heads.standardise import Standardiser, View, as_view
from tests.probes.heads.made import features


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_rows_of_a_map_are_standardised_as_a_copy_of_them_is(
    dtype: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standardise, "BLOCK_ELEMENTS", 64)
    x: np.ndarray = features(500, 6).astype(dtype)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    rows = np.array([3, 1, 4, 1, 5, 499, 26] * 20)
    scale = Standardiser.fit(mapped, rows)
    plain = x[rows].astype(np.float64)
    np.testing.assert_allclose(scale.mean, plain.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(scale.scale, plain.std(axis=0), rtol=1e-5)
    expected = (plain - plain.mean(axis=0)) / plain.std(axis=0)
    np.testing.assert_allclose(scale(mapped, rows), expected, atol=1e-4)
    view = scale.view(mapped, rows)
    assert view.shape == (140, 6)
    np.testing.assert_array_equal(view.held().numpy(), scale(mapped, rows))
    np.testing.assert_array_equal(view.take(np.array([2, 0])).held().numpy(), scale(mapped, rows)[[2, 0]])
    np.testing.assert_array_equal(mapped, x)


def test_a_large_mean_does_not_swallow_the_variance() -> None:
    x = 1e4 + features(300, 4)
    np.testing.assert_allclose(Standardiser.fit(x).scale, x.astype(np.float64).std(axis=0), rtol=1e-4)


def test_constant_dimensions_stay_finite() -> None:
    x = np.ones((10, 3), dtype=np.float16)
    x[:, 1] = np.arange(10)
    scaled = Standardiser.fit(x)(x)
    assert np.isfinite(scaled).all()
    np.testing.assert_allclose(scaled[:, 1].std(), 1, rtol=1e-3)
    assert not scaled[:, 0].any()


def test_reading_changes_nothing_and_plain_arrays_are_not_copied() -> None:
    x = features()
    before = x.copy()
    assert View(x).held().data_ptr() == x.ctypes.data
    Standardiser.fit(x).view(x).held()
    np.testing.assert_array_equal(x, before)
    view = View(x)
    assert as_view(view) is view


def test_private_changes_to_a_map_are_kept(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", features())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="c")
    mapped[0] = 7
    View(mapped).held()
    assert (mapped[0] == 7).all()
