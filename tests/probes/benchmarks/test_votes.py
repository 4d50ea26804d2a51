"""From votes to labels, on cases worked out by hand from the authors' rules."""

import pytest

from facemae_probes.benchmarks.votes import CLASSES, COLUMNS, distribution, majority


def votes(**counts: int) -> list[int]:
    return [counts.get(name, 0) for name in COLUMNS]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (votes(happiness=10), "happiness"),
        (votes(neutral=6, sadness=4), "neutral"),
        (votes(neutral=5, sadness=5), None),  # half is not more than half
        (votes(neutral=4, anger=3, sadness=3), None),
        (votes(neutral=3, fear=1, anger=1, disgust=1, sadness=2, surprise=1, contempt=1), "neutral"),  # 3 of the 5 kept
        (votes(unknown=8, neutral=2), None),
        (votes(NF=10), None),
        ([1] * 10, None),
    ],
)
def test_majority(given: list[int], expected: str | None) -> None:
    assert majority(given) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (votes(happiness=10), {"happiness": 1.0}),
        (votes(neutral=6, sadness=4), {"neutral": 0.6, "sadness": 0.4}),
        (votes(neutral=8, sadness=2), {"neutral": 1.0}),  # three quarters are reached by the first
        (votes(neutral=7, sadness=2, anger=1), {"neutral": 1.0}),  # 7 of the 9 kept
        (votes(neutral=5, sadness=3, anger=2), {"neutral": 5 / 8, "sadness": 3 / 8}),
        (votes(neutral=4, sadness=2, anger=2, fear=2), None),  # equal ones come together: four are too many
        (votes(neutral=6, unknown=4), {"neutral": 1.0}),  # unknown ends the search, six of ten are held
        (votes(neutral=5, unknown=5), None),  # five of ten are not more than half
        (votes(unknown=6, neutral=4), None),
        (votes(NF=10), None),
        ([1] * 10, None),
    ],
)
def test_distribution(given: list[int], expected: dict[str, float] | None) -> None:
    found = distribution(given)
    if expected is None:
        assert found is None
    else:
        assert found == pytest.approx([expected.get(name, 0.0) for name in CLASSES])
