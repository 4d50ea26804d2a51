"""`facemae bench probe`: both sides solve the same problem, and what does not is not timed."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from facemae.bench.commands import app
from facemae.errors import ProbeError
from facemae_probes.bench.knn import check_neighbours
from facemae_probes.bench.linear import SAME, TOLERANCES, Case, bench_linear, sklearn_path, tune
from facemae_probes.bench.made import made_features
from facemae_probes.bench.memory import bench_memory, measure, write_features
from facemae_probes.heads.knn import neighbours

FIELDS = {"bench", "ours", "baseline", "unit", "ratio", "machine", "settings"}


def test_the_command_prints_one_object_a_line() -> None:
    result = CliRunner().invoke(app, ["probe", "--quick", "--no-large", "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [entry["bench"].split(",")[1] for entry in found] == [
        " linear path",
        " linear path",
        " 10 neighbours of 100 in 1500 x 24",
    ]
    assert all(entry.keys() == FIELDS for entry in found)
    assert all(entry["ratio"] == pytest.approx(entry["baseline"] / entry["ours"], rel=1e-3) for entry in found)
    assert found[0]["settings"]["excess_ours"] <= SAME
    assert found[0]["settings"]["excess_baseline"] <= SAME


def test_the_baseline_is_given_the_loosest_tolerance_that_reaches_the_objective() -> None:
    case = Case.made(400, 12, 3, (0.1, 0.001))
    for warm in (False, True):
        chosen, fits = tune(case, warm=warm)
        assert max(case.excess(fits)) <= SAME
        assert case.excess(sklearn_path(case, chosen, warm=warm)) == pytest.approx(case.excess(fits), abs=1e-6)
        looser = TOLERANCES[TOLERANCES.index(chosen[1]) - 1]
        assert case.excess(sklearn_path(case, [chosen[0], looser], warm=warm))[1] > SAME


def test_a_side_that_stops_short_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facemae_probes.bench.linear.TOLERANCES", (1.0,))
    with pytest.raises(ProbeError, match=r"scikit-learn .* above its least value"):
        bench_linear(400, 12, 3, 1)


def test_wrong_neighbours_are_not_timed() -> None:
    x, _ = made_features(300, 8, 3)
    bank, queries = x[:280], x[280:]
    _, rows = neighbours(bank, queries, 5)
    check_neighbours(bank, queries, rows, rows)
    wrong = rows.copy()
    wrong[3, 4] = (rows[3].max() + 1) % 280
    with pytest.raises(ProbeError, match="ours neighbours are off"):
        check_neighbours(bank, queries, wrong, rows)
    with pytest.raises(ProbeError, match="the baseline's neighbours are off"):
        check_neighbours(bank, queries, rows, wrong)


def test_made_features_have_a_decaying_spectrum_and_blocks_of_one_kind() -> None:
    x, labels = made_features(4000, 32, 4)
    variance = np.linalg.eigvalsh(np.cov(x.T))[::-1]
    assert variance[0] > 10 * variance[15]
    assert set(labels) == {0, 1, 2, 3}
    other, _ = made_features(4000, 32, 4, first=4000)
    assert not np.allclose(x, other)
    np.testing.assert_allclose(x.mean(axis=0), other.mean(axis=0), atol=0.15)


@pytest.mark.parametrize("half", [False, True])
def test_both_sides_of_the_memory_bench_run(tmp_path: Path, half: bool) -> None:
    write_features(tmp_path, 3000, 16, np.dtype(np.float16 if half else np.float32))
    ours, theirs = (measure(str(tmp_path), side, 5) for side in ("ours", "theirs"))
    assert ours["solved"] == 1
    assert 0 < ours["anonymous"] < ours["resident"]
    assert theirs.keys() == {"anonymous", "resident"}


@pytest.mark.slow
def test_a_million_samples_are_probed_in_under_four_gigabytes(tmp_path: Path) -> None:
    resident, anonymous = bench_memory(1_000_000, 768, 200, half=False, folder=tmp_path)
    assert resident.unit == "GB"
    assert anonymous.ours < resident.ours < 4
    assert resident.settings["solved"]
    assert list(tmp_path.iterdir()) == []
