"""The example of docs/add-a-benchmark.md is code that runs."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from facemae_probes.benchmarks import registry
from facemae_probes.commands import app
from tests.probes.benchmarks.conftest import blob, plan, write_image

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "add-a-benchmark.md"


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the document, registered by the line of the document."""
    text = DOCUMENT.read_text()
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    line = re.search(r'^ {4}"(?P<name>[a-z0-9-]+)": "(?P<place>[\w.]+:BENCHMARK)",', text, re.MULTILINE)
    assert len(code) == 1
    assert line is not None
    assert len(code[0].splitlines()) < 80
    name = line["place"].partition(":")[0]
    file = tmp_path / "example.py"
    file.write_text(code[0])
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    monkeypatch.setitem(registry.BENCHMARKS, line["name"], line["place"])
    return module


def test_the_example_goes_from_doctor_to_result(example: ModuleType, tmp_path: Path) -> None:
    data, shards, out = tmp_path / "compound", tmp_path / "shards", tmp_path / "out"
    lines = []
    for number, split, code in plan(("train", "test"), len(example.CLASSES)):
        write_image(data / f"{example.IMAGES}/{split}_{number:04d}_aligned.jpg", blob(number, code))
        lines.append(f"{split}_{number:04d}.jpg {code + 1}\n")
    (data / "EmoLabel").mkdir()
    (data / example.LIST).write_text("".join(lines))
    runner = CliRunner()

    assert "raf-db-compound" in runner.invoke(app, ["list"]).output
    done = runner.invoke(app, ["doctor", "raf-db-compound", "--data", str(data)])
    assert done.exit_code == 1, "made data have other counts"
    assert "train: 44 samples, expected 3,162" in done.output
    assert "1 thing is wrong" in done.output
    done = runner.invoke(app, ["pack", "raf-db-compound", "--data", str(data), "--out", str(shards)])
    assert done.exit_code == 0, done.output
    options = ["--data", str(shards), "--model", "pixels", "--probe", "knn", "--out", str(out)]
    done = runner.invoke(app, ["run", "raf-db-compound", *options], catch_exceptions=False)
    assert done.exit_code == 0
    result = json.loads((out / "result.json").read_text())
    assert result["task"]["classes"] == list(example.CLASSES)
    assert result["benchmark"]["metric"] == "mean_recall"
