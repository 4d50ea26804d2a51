"""One job at a time in a run folder.

The holder keeps a POSIX record lock on `lease.lock`, which the kernel releases however the process ends and which
forked loader workers do not inherit, and renews the heartbeat in `lease.json`. The lock decides on one machine, and on
network file systems that pass locks on. Where locks do not reach, the heartbeat decides.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import BinaryIO, Self

from facemae.errors import LeaseError
from facemae.files import storage_errors, write_text

HEARTBEAT = 15.0
"""Seconds between renewals."""
STALE = 120.0
"""Seconds without a renewal after which another machine's lease no longer counts."""
SETTLE = 1.0
"""Seconds after which a claim is read again where no lock decides between two jobs that start at once."""

_held: set[Path] = set()
_held_guard = threading.Lock()


@dataclass(frozen=True)
class Holder:
    """Who holds a run folder.

    Attributes:
        host: Name of the machine.
        pid: Process on that machine.
        boot: Identifier of the machine's current boot; under another one the process number says nothing.
        token: Random identifier of this acquisition.
        since: When it was acquired, seconds since 1970.
        heartbeat: When it was last renewed, seconds since 1970.
    """

    host: str
    pid: int
    boot: str
    token: str
    since: float
    heartbeat: float

    @classmethod
    def here(cls) -> "Holder":
        """This process, now."""
        now = time.time()
        return cls(socket.gethostname(), os.getpid(), _boot(), uuid.uuid4().hex, now, now)

    @property
    def age(self) -> float:
        """Seconds since the last renewal."""
        return max(0.0, time.time() - self.heartbeat)

    def is_this_machine(self) -> bool:
        """Whether the holder is, or was, a process of the running system."""
        return self.host == socket.gethostname() and self.boot == _boot()

    def alive(self) -> bool:
        """Whether the holder still counts: its process lives here, or its heartbeat elsewhere is fresh.

        A host of our name with another boot is either this machine before it started anew or another one of the same
        name, as containers and cloned machines have; only the heartbeat can tell.
        """
        if self.is_this_machine():
            return _process_lives(self.pid)
        return self.age < STALE


def read_holder(path: Path) -> Holder | None:
    """The holder written in a `lease.json`; None where there is none or it is not readable."""
    try:
        holder = Holder(**json.loads(path.read_text()))
        # A full disk stops the content from being renewed, not the time stamp.
        return replace(holder, heartbeat=max(holder.heartbeat, path.stat().st_mtime))
    except (OSError, ValueError, TypeError):
        return None


class Lease:
    """The right to write in a run folder; a context manager.

    Args:
        path: `RUN/lease.json`.

    Attributes:
        taken_over: The dead holder whose place was taken, if any.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock: BinaryIO | None = None
        self._holder = Holder.here()
        self._renewed = time.time()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_stopped, name="facemae-lease", daemon=True)
        self._lost = False
        self.taken_over: Holder | None = None

    def __enter__(self) -> Self:
        """Acquire.

        Raises:
            LeaseError: Another job holds the folder; the message names it.
            StorageError: The lease cannot be written.
        """
        resolved = self._path.resolve()
        with _held_guard:
            if resolved in _held:
                raise self._refusal(self._holder)
            _held.add(resolved)
        try:
            self._acquire()
        except BaseException:
            self._let_go()
            raise
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Release."""
        self._stop.set()
        self._thread.join()
        if not self._lost:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
        self._let_go()

    def check(self) -> None:
        """Fail if another job has taken the folder meanwhile, as may happen after a long pause of this machine.

        Raises:
            LeaseError: The lease is lost.
        """
        if time.time() - self._renewed > STALE:
            # Others may take the folder by now; the heartbeat's thread, which was asleep as well, may not have looked.
            self._look()
        if self._lost:
            raise LeaseError(
                f"{self._path.parent} was taken over by another job",
                expected=f"a heartbeat at least every {STALE:.0f} s",
                fix="let the other job run, or stop it and start this command again",
            )

    def _acquire(self) -> None:
        locked = self._take_lock()
        previous = read_holder(self._path)
        if not locked:
            raise self._refusal(previous)
        # On this machine the lock has answered already: whoever wrote the lease is gone, even if its number lives on.
        here = previous is not None and previous.is_this_machine() and self._lock is not None
        if previous is not None and not here and previous.alive():
            raise self._refusal(previous)
        self.taken_over = previous
        self._write()
        if self._lock is None:
            time.sleep(SETTLE)
        written = read_holder(self._path)
        if written is None or written.token != self._holder.token:
            raise self._refusal(written)

    def _take_lock(self) -> bool:
        """Take the kernel's lock; False where another process has it, True also where locks are not supported."""
        with storage_errors(self._path):
            handle = self._path.with_suffix(".lock").open("ab")
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            handle.close()
            return error.errno not in (errno.EACCES, errno.EAGAIN)
        self._lock = handle
        return True

    def _refusal(self, holder: Holder | None) -> LeaseError:
        who, fix = "another job", "wait for it, stop it, or choose another --out"
        if holder is not None:
            who = f"process {holder.pid} on {holder.host} (last sign of life {holder.age:.0f} s ago)"
            if not holder.is_this_machine():
                fix += f"; if it is dead, its claim ends {STALE:.0f} s after its last sign of life"
        return LeaseError(
            f"{self._path.parent} is in use by {who}", expected="one job at a time in a run folder", fix=fix
        )

    def _renew_until_stopped(self) -> None:
        while not self._stop.wait(HEARTBEAT) and not self._lost:
            self._look()

    def _look(self) -> None:
        """See whether the claim is still ours, and renew it."""
        current = read_holder(self._path)
        if current is not None:
            self._lost = self._lost or current.token != self._holder.token
        else:
            # After a long pause a missing claim may be that of a job that took over and has ended.
            self._lost = self._lost or (time.time() - self._renewed > STALE and not self._path.exists())
        if not self._lost:
            self._renew()

    def _renew(self) -> None:
        now = time.time()
        self._holder = replace(self._holder, heartbeat=now)
        try:
            self._write()
        except Exception:  # noqa: BLE001  a heartbeat must not end the run; the time stamp needs no room on the disk
            try:
                os.utime(self._path)
            except OSError:
                return
        self._renewed = now

    def _write(self) -> None:
        write_text(self._path, json.dumps(asdict(self._holder)) + "\n")

    def _let_go(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        with _held_guard:
            _held.discard(self._path.resolve())


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


def _process_lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
