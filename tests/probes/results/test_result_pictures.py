"""What pictures of a result count."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes

from facemae_probes.results import pictures
from facemae_probes.tasks.targets import Targets
from tests.probes.results.made import COUNT, made_result


def test_a_confusion_of_several_draws_has_the_support_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[np.ndarray] = []
    labels: list[str] = []
    original = pictures._matrix

    def spy(axes: Axes, counts: np.ndarray, names: list[str]) -> None:
        original(axes, counts, names)
        drawn.append(counts)
        labels.extend(text.get_text() for text in axes.get_yticklabels())

    monkeypatch.setattr(pictures, "_matrix", spy)
    result = made_result(repeats=4)
    test = result.data["results"]["linear"]["test"]
    pictures.draw_predictions(tmp_path / "a.png", result.targets, result.scores["linear"], test, "made")
    assert drawn[0].sum() == pytest.approx(COUNT)
    assert labels == [f"{name} ({count})" for name, count in test["support"].items()]


@pytest.mark.parametrize("count", [10, 5000, 5001, 9999])
def test_a_scatter_has_at_most_5000_points_from_all_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    drawn: list[np.ndarray] = []
    monkeypatch.setattr(Axes, "scatter", lambda *given, **_: drawn.append(np.asarray(given[1])))
    values = np.arange(count, dtype=float)[:, None]
    targets = Targets("regression", ("age",), values)
    pictures.draw_predictions(tmp_path / "a.png", targets, values[None].astype(np.float32), {}, "made")
    assert len(np.unique(drawn[0])) == len(drawn[0]) == min(count, 5000)
    assert (drawn[0][0], drawn[0][-1]) == (0, count - 1)
