"""A result on disk is whole or not there, and says so."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facemae.errors import ProbeError
from facemae_probes.results import report
from facemae_probes.results.report import read_result, require_result, write_result
from tests.probes.results.made import made_result


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    result = made_result("multilabel", repeats=2, protocol="paper:x", on_test=True)
    write_result(tmp_path, result)
    read = read_result(tmp_path, {"asked": 0})
    assert read is not None
    assert read.data == result.data
    np.testing.assert_array_equal(read.scores["linear"], result.scores["linear"])
    np.testing.assert_array_equal(read.thresholds["linear"], result.thresholds["linear"])
    assert list(read.slices) == ["odd=1"]
    assert read.keys == result.keys
    with np.load(tmp_path / "predictions-linear.npz") as stored:
        assert (str(stored["protocol"]), bool(stored["on_test"])) == ("paper:x", True)
    assert read_result(tmp_path, {"asked": 1}) is None


def test_an_interrupted_overwrite_leaves_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_result(tmp_path, made_result())

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "draw_predictions", stop)
    with pytest.raises(KeyboardInterrupt):
        write_result(tmp_path, made_result(seed=1))
    assert (tmp_path / "predictions-linear.npz").exists()
    assert read_result(tmp_path) is None
    with pytest.raises(ProbeError, match="holds no complete probe result"):
        require_result(tmp_path)


def test_predictions_of_another_result_are_refused(tmp_path: Path) -> None:
    write_result(tmp_path / "a", made_result())
    write_result(tmp_path / "b", made_result(seed=1))
    (tmp_path / "b" / "predictions-linear.npz").replace(tmp_path / "a" / "predictions-linear.npz")
    assert read_result(tmp_path / "a", {"asked": 0}) is None
    with pytest.raises(ProbeError, match="sha256 differs") as caught:
        require_result(tmp_path / "a")
    assert "run the probe again with the same --out" in str(caught.value)
    with pytest.raises(ProbeError, match=r"predictions-linear\.npz is missing"):
        require_result(tmp_path / "b")


def _no_zip(data: dict[str, Any], folder: Path) -> None:
    content = b"PK no zip at all"
    (folder / "predictions-linear.npz").write_bytes(content)
    data["results"]["linear"]["predictions_sha256"] = hashlib.sha256(content).hexdigest()


def _no_scores(data: dict[str, Any], folder: Path) -> None:
    path = folder / "predictions-linear.npz"
    with path.open("wb") as file:
        np.savez(file, truth=np.zeros(3))
    data["results"]["linear"]["predictions_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_no_zip, r"predictions-linear\.npz cannot be read"),
        (_no_scores, "lacks 'scores'"),
        (lambda data, _: data.pop("task"), "lacks 'task'"),
        (lambda data, _: data["results"]["linear"].pop("predictions_sha256"), "lacks 'predictions_sha256'"),
        (lambda data, _: data.update(results=[]), "damaged or of another release"),
        (lambda data, _: data.update(schema=1), "not of schema 2"),
    ],
)
def test_a_damaged_result_is_asked_for_again_and_explained(tmp_path: Path, spoil: Any, message: str) -> None:
    write_result(tmp_path, made_result())
    data = json.loads((tmp_path / "result.json").read_text())
    spoil(data, tmp_path)
    (tmp_path / "result.json").write_text(json.dumps(data))
    assert read_result(tmp_path, {"asked": 0}) is None
    with pytest.raises(ProbeError, match=message):
        require_result(tmp_path)


@pytest.mark.parametrize("content", [b'{"schema": 2, "resul', b"\xff\xfe\x00", b"[]", b""])
def test_a_result_file_that_is_no_result_is_explained(tmp_path: Path, content: bytes) -> None:
    write_result(tmp_path, made_result())
    (tmp_path / "result.json").write_bytes(content)
    assert read_result(tmp_path, {"asked": 0}) is None
    with pytest.raises(ProbeError, match=r"result\.json is no"):
        require_result(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_json_does_not_have_is_refused_before_anything_is_removed(tmp_path: Path, value: float) -> None:
    write_result(tmp_path, made_result())
    spoilt = made_result(seed=1)
    spoilt.data["results"]["linear"]["settings"][0]["valid"] = value
    with pytest.raises(ProbeError, match=r"not finite: results\.linear\.settings\.0\.valid is -?(nan|inf)"):
        write_result(tmp_path, spoilt)
    assert read_result(tmp_path, {"asked": 0}) is not None
