"""The lease: one job a folder, dead holders replaced, live ones named."""

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from facemae.errors import LeaseError
from facemae.train.saving import lease as module
from facemae.train.saving.lease import STALE, Holder, Lease, read_holder

HOLD = """
import sys, time
from pathlib import Path
from facemae.train.saving.lease import Lease
with Lease(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def write(path: Path, holder: Holder) -> None:
    path.write_text(json.dumps(asdict(holder)))
    os.utime(path, (holder.heartbeat, holder.heartbeat))


def test_a_second_job_is_refused_and_told_who_holds_it_and_a_killed_one_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with pytest.raises(LeaseError, match="in use by process") as caught, Lease(path):
        pass
    message = str(caught.value)
    assert str(other.pid) in message
    assert socket.gethostname() in message
    assert "s ago" in message
    other.kill()
    other.wait()
    with Lease(path) as lease:
        assert lease.taken_over is not None
        assert lease.taken_over.pid == other.pid
        holder = read_holder(path)
        assert holder is not None
        assert holder.pid == os.getpid()
    assert not path.exists()


def test_the_same_process_cannot_hold_it_twice(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    with Lease(path):
        with pytest.raises(LeaseError), Lease(path):
            pass
        assert read_holder(path) is not None
    with Lease(path):
        pass


def test_another_machine_counts_while_its_heartbeat_is_fresh(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    elsewhere = replace(Holder.here(), host="elsewhere", boot="other", pid=1)
    write(path, elsewhere)
    with pytest.raises(LeaseError, match="process 1 on elsewhere") as caught, Lease(path):
        pass
    assert "120 s after" in str(caught.value)
    write(path, replace(elsewhere, heartbeat=time.time() - STALE - 1))
    with Lease(path) as lease:
        assert lease.taken_over is not None


def test_the_same_name_with_another_boot_may_be_another_machine(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    namesake = replace(Holder.here(), boot="other")
    write(path, namesake)
    with pytest.raises(LeaseError, match="its claim ends 120 s after"), Lease(path):
        pass
    write(path, replace(namesake, heartbeat=time.time() - STALE - 1))
    with Lease(path) as lease:
        assert lease.taken_over is not None


def test_a_process_that_is_gone_does_not_count_however_fresh(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    write(path, replace(Holder.here(), pid=child.pid))
    with Lease(path) as lease:
        assert lease.taken_over is not None


def test_without_locks_a_claim_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    path = tmp_path / "lease.json"
    monkeypatch.setattr(fcntl, "lockf", unsupported)
    monkeypatch.setattr(module, "SETTLE", 0.01)
    with Lease(path):
        assert read_holder(path) is not None
    other = replace(Holder.here(), host="elsewhere", pid=1)
    monkeypatch.setattr(module, "SETTLE", 2.0)

    def claim_too() -> None:
        wait_until(path.exists)
        write(path, other)

    rival = threading.Thread(target=claim_too)
    rival.start()
    with pytest.raises(LeaseError, match="process 1 on elsewhere"), Lease(path):
        pass
    rival.join()


def test_after_a_pause_the_claim_is_looked_at_before_it_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lease.json"
    with Lease(path) as lease:  # its thread sleeps throughout
        monkeypatch.setattr(module, "STALE", -1.0)
        before = read_holder(path)
        lease.check()
        after = read_holder(path)
        assert before is not None
        assert after is not None
        assert after.heartbeat > before.heartbeat, "the claim is renewed"
        path.unlink()
        with pytest.raises(LeaseError, match="taken over"):
            lease.check()
    with Lease(path) as lease:
        write(path, replace(Holder.here(), host="elsewhere"))
        with pytest.raises(LeaseError, match="taken over"):
            lease.check()


def test_heartbeat_is_renewed_and_a_lost_lease_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT", 0.02)
    path = tmp_path / "lease.json"
    with Lease(path) as lease:
        first = read_holder(path)
        assert first is not None
        wait_until(lambda: (read_holder(path) or first).heartbeat > first.heartbeat)
        lease.check()
        thief = replace(Holder.here(), host="elsewhere")
        write(path, thief)

        def lost() -> bool:
            write(path, thief)
            try:
                lease.check()
            except LeaseError as error:
                return "taken over" in str(error)
            return False

        wait_until(lost)
    assert read_holder(path) is not None, "a lost lease is not ours to remove"


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
