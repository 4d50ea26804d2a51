import json
import platform
import subprocess
import sys

import pytest
import torch
from typer.testing import CliRunner

from facemae.environment import app, environment


def test_it_names_what_a_bug_report_needs() -> None:
    facts = json.loads(CliRunner().invoke(app, ["--json"]).stdout)
    assert facts["system"]["python"].startswith(platform.python_version())
    assert facts["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert facts["packages"]["facemae"]
    assert facts["torch"]["threads"] >= 1
    assert facts["system"]["memory GB"] > 0


def test_the_text_holds_the_same_facts() -> None:
    text = CliRunner().invoke(app, []).stdout
    assert f"timm                     {environment()['packages']['timm']}" in text
    assert text.startswith("system\n")


def test_what_is_not_installed_is_a_gap_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facemae.environment.PACKAGES", ("no-such-distribution",))
    assert environment()["packages"]["no-such-distribution"] is None
    assert "no-such-distribution     -" in CliRunner().invoke(app, []).stdout


def test_nothing_private_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET_TOKEN", "hush")
    text = CliRunner().invoke(app, []).stdout
    assert "hush" not in text
    assert platform.node() not in text


def test_the_module_is_light() -> None:
    code = "import sys, facemae.environment; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
