"""The size claim of the index: opening and memory do not grow with the number of samples."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from facemae.bench.commands import app
from facemae.bench.index_measure import bench_index, write_index
from facemae.data.index import ShardIndex


def test_small_index_answers_as_a_real_one(tmp_path: Path) -> None:
    write_index(tmp_path, 2500)
    index = ShardIndex.open(tmp_path)
    assert len(index) == 2500
    assert index.shard_sizes.tolist() == [1000, 1000, 500]
    assert index.find(index.key(1234)) == 1234
    assert index.shard_of(2499) == 2
    assert set(index.members(7)) == {"jpg", "json"}


def test_half_a_million_samples_stay_small(tmp_path: Path) -> None:
    found = bench_index(500_000, 20_000, tmp_path)
    assert found["ours"]["open_s"] < 1
    assert found["ours"]["uss"] < 100
    # What look-ups touch is 66 MB of columns; through memory maps most of that becomes memory of the process.
    assert found["ours"]["uss"] - found["ours"]["uss_before"] < 15
    assert found["memmap"]["uss"] - found["memmap"]["uss_before"] > 30
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_ten_million_samples(tmp_path: Path) -> None:
    found = bench_index(10_000_000, 100_000, tmp_path)
    assert found["ours"]["open_s"] < 1
    assert found["ours"]["uss"] < 100
    assert found["ours"]["anonymous"] < 100


def test_command_prints_one_object_a_line(tmp_path: Path) -> None:
    arguments = ["index", "--samples", "2000", "--lookups", "50", "--folder", str(tmp_path), "--json"]
    lines = CliRunner().invoke(app, arguments, catch_exceptions=False).stdout.splitlines()
    results = [json.loads(line) for line in lines]
    assert [result["unit"] for result in results] == ["s", "MB", "µs"]
    assert all(result["ratio"] == pytest.approx(result["baseline"] / result["ours"], rel=1e-3) for result in results)
