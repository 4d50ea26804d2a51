"""Memory of a run: measured with all its processes, and told whether it grows."""

import subprocess
import sys
from pathlib import Path

import pytest

from facemae.train.hardware.resident import growth, resident_bytes
from facemae.train.record.status import describe, read_status
from facemae.train.trainer import pretrain
from tests.train.conftest import Tiny


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_processes_that_were_started_count() -> None:
    before = resident_bytes()
    code = "data = bytearray(100 * 2**20); data[:: 4096] = b'1' * len(data[:: 4096]); print(flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    during = resident_bytes()
    child.communicate(b"\n")
    assert before > 2**20
    assert during - before > 90 * 2**20


def test_growth_leaves_the_beginning_out() -> None:
    steady = [{"rss_mb": 100.0 + 300 * (number > 3)} for number in range(20)]
    assert growth(steady) == {"mb": 400.0, "growth_mb": 0.0}
    leaking = [{"rss_mb": 100.0 + number} for number in range(20)]
    assert growth(leaking) == {"mb": 117.0, "growth_mb": 10.0}
    assert growth(leaking[:7]) is None
    assert growth([{"step": 1}] * 20) is None


def test_status_tells_it(tiny: Tiny, tmp_path: Path) -> None:
    pretrain(tiny("log.every_steps=1", "checkpoint.every=64 samples"), tmp_path / "run")
    found = read_status(tmp_path / "run")
    assert found["memory"]["mb"] == pytest.approx(found["metrics"]["rss_mb"], rel=0.1)
    assert f"memory {found['memory']['mb']:.0f} MB in all processes" in describe(found)
