"""The bench commands: one line a result, in the promised form, and the two pipelines deliver the same."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from facemae.bench import data as bench
from facemae.bench.commands import app
from facemae.bench.report import BenchResult, compare_rates, spread
from facemae.data import augment
from facemae.data.decode import Pixels
from facemae.errors import DataError

FIELDS = {"bench", "ours", "baseline", "unit", "ratio", "machine", "settings"}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    size = bench.make_sources(folder, bench.DataBenchSettings(images=24))
    assert 12_000 < size < 28_000
    return folder


def test_results_are_one_json_object_a_line() -> None:
    line = BenchResult("data", 20.0, 10.0, "images/s", 2.0, {"baseline": "x"}, {"cores": 2}).to_json()
    assert "\n" not in line
    assert json.loads(line).keys() == FIELDS


@pytest.mark.parametrize(
    ("ours", "end"),
    [([], "ratio 2.00"), ([8], "ratio 2.00 (range 2.00 to 2.00)"), ([8, 8], "ratio 2.00 (95 % interval 2.00 to 2.00)")],
)
def test_a_line_to_read_says_how_sure_its_ratio_is(ours: list[float], end: str) -> None:
    known = spread(ours, [4] * len(ours)) if ours else {}
    line = BenchResult("data", 20.0, 10.0, "images/s", 2.0, {"baseline": "x", **known}).to_text()
    assert line == f"data: 20 against 10 images/s (x), {end}"


def test_the_ratio_is_the_median_of_rounds() -> None:
    ours, baseline, ratio = compare_rates([10, 20, 90], [5, 5, 30])
    assert (ours, baseline, ratio) == (20, 5, 3)


def test_the_spread_is_that_of_the_ratios_of_rounds() -> None:
    assert spread([10], [4]) == {"ratio_range": [2.5, 2.5]}
    found = spread([10, 20, 90, 8, 21], [5, 5, 30, 4, 7])
    assert found["ratio_range"] == [2, 4]
    # The median of five draws from 2, 2, 3, 3, 4 is below 2.5 or above 3.5 more often than one time in forty.
    assert found["ratio_interval"] == [2, 4]


def test_both_pipelines_deliver_the_same_tensor(sources: Path) -> None:
    difference = bench.mean_difference(sources, bench.DataBenchSettings(), count=16)
    assert 0 < difference * 255 < 0.2


def test_a_pipeline_that_delivers_something_else_is_not_timed(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = augment.planes

    def turned(image: Pixels, *, mirror: bool, out: Pixels) -> Pixels:
        return real(np.ascontiguousarray(image.transpose(1, 0, 2)), mirror=mirror, out=out)

    monkeypatch.setattr(augment, "planes", turned)
    with pytest.raises(DataError, match="the two pipelines differ"):
        bench.mean_difference(sources, bench.DataBenchSettings(), count=8)


def test_order_prints_persons_and_shards() -> None:
    result = CliRunner().invoke(app, ["order", "--epochs", "1", "--json"])
    assert result.exit_code == 0
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [entry["bench"] for entry in found] == [
        "order, repeats of persons against plain random",
        "order, repeats of shards against stratified",
        "order, repeats of shards against plain random",
    ]
    assert all(entry.keys() == FIELDS for entry in found)
    assert all(entry["ratio"] > 0.9 for entry in found)


def test_order_looks_at_a_shard_set_without_subjects(sources: Path) -> None:
    result = CliRunner().invoke(app, ["order", str(sources / "shards"), "--batch", "8", "--json"])
    assert [json.loads(line)["bench"] for line in result.stdout.splitlines()] == [
        "order, repeats of shards against stratified",
        "order, repeats of shards against plain random",
    ]


@pytest.mark.slow
def test_data_is_faster_than_torchvision() -> None:
    result = CliRunner().invoke(app, ["data", "--json"])
    assert result.exit_code == 0
    normalised, raw = (json.loads(line) for line in result.stdout.splitlines())
    assert normalised["ratio"] >= 2.0
    assert raw["ratio"] >= 2.5
