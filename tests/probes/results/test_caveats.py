"""What is said of choices at the ends of what was tried."""

from typing import Any

import pytest

from facemae_probes.results.caveats import knn_warnings, linear_warnings


def rows(probe: str, name: str, *values: float) -> list[dict[str, Any]]:
    return [{"probe": probe, name: value} for value in values]


@pytest.mark.parametrize(("k", "tried", "told"), [(50, (1, 5, 50), True), (5, (1, 5, 50), False), (1, (1, 5), False)])
def test_the_largest_k_of_knn_is_told_and_one_is_no_end(k: int, tried: tuple[int, ...], told: bool) -> None:
    table = [*rows("knn", "k", *tried), *rows("linear", "strength", 1.0)]
    found = knn_warnings([{"k": k}], table)
    assert bool(found) == told
    assert all(f"the best k of kNN, {k}, is an end of its path (1 to 50)" in text for text in found)


def test_the_smallest_k_is_an_end_where_less_could_be_tried() -> None:
    (text,) = knn_warnings([{"k": 5}], rows("knn", "k", 5, 20))
    assert "the best k of kNN, 5, is an end of its path (5 to 20): a better one may lie beyond" in text
    assert not knn_warnings([{"k": 5}], rows("knn", "k", 5)), "nothing was chosen"
    assert not knn_warnings([{"k": 5}, {"k": 20}], []), "folds have paths of their own"


def test_a_strength_at_an_end_is_told() -> None:
    table = [{**row, "solved": True} for row in rows("linear", "strength", 0.1, 1, 10)]
    (text,) = linear_warnings([{"strength": 10, "solved": True}], table)
    assert "the best linear strength, 10, is an end of its path (0.1 to 10)" in text
    assert not linear_warnings([{"strength": 1, "solved": True}], table)
