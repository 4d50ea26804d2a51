"""Starts a run in several processes of this machine, and watches over them.

Each is a fresh interpreter with the environment that torchrun would give it, so that a run does not know which of the
two has started it. It is connected by a socket pair: the job and requests to stop go there, results and errors come
back, and the end of either side is noticed by the other, however it came.
"""

import contextlib
import os
import pickle
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe
from typing import Any

from facemae.errors import FacemaeError, ProcessError
from facemae.train.processes.rank import Began, Done, Ending, Failed, Job
from facemae.train.record.loggers.base import PATIENCE
from facemae.train.saving.preempt import INSISTED, WATCHED, StopRequest

GRACE = 5.0
"""Seconds that the other processes have, after one has raised an error, to write what they must and to end."""
CLOSING = PATIENCE + GRACE
"""Seconds that they have where one of them has said that it is about to end."""
LINGER = 30.0
"""Seconds between a process's last word and its end."""
HEAD_START = 1.0
"""Seconds within which an error counts as the consequence of another process's death."""

_REMEMBERED = 4096
_BOOT = (
    "import sys; from multiprocessing.connection import Connection; link = Connection(int(sys.argv[1])); "
    "sys.path[:] = link.recv(); from facemae.train.processes.rank import main; main(link)"
)


class ProcessCrash(Exception):  # noqa: N818  a crash is what it is, and it is a bug
    """A process ended by an error that is not a `FacemaeError`.

    Args:
        rank: Which one.
        text: Its traceback.
    """

    def __init__(self, rank: int, text: str) -> None:
        super().__init__(f"rank {rank} failed:\n{text}")
        self.rank = rank
        self.text = text


def run_in_processes(job: Job, count: int, lost: Callable[[str, str], None]) -> Any:
    """Do a job in several processes of this machine.

    SIGTERM and Ctrl-C are passed on; a second Ctrl-C ends all processes at once. When one process fails, the others are
    ended; what is raised is the error of the one that failed first.

    Args:
        job: What each process does; picklable.
        count: Number of processes.
        lost: Called with the reason and a sentence where the run had taken its folder, and the first process could not
            write down there why it ended: it did not know, or it ended too suddenly.

    Returns:
        The first process's result.

    Raises:
        FacemaeError: As a process raised it.
        ProcessError: A process was killed.
        ProcessCrash: Another error in a process, with its traceback.
        KeyboardInterrupt: A second Ctrl-C.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    # Served from here, the meeting point has its port before the processes start: no other program can take it. Left to
    # itself the store would listen to the whole network, and what processes tell each other is unpickled.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        store = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach())
    team = _Team(count, store.port)
    try:
        with _Relay(team) as relay:
            with _held_back():
                team.start(job)
            relay.open()
            team.watch()
    finally:
        team.end()
        if team.began and isinstance(sys.exception(), KeyboardInterrupt):
            _write_down(lost, *INSISTED)
    failure = team.failure()
    if failure is None:
        return team.members[0].result
    if team.began and not team.members[0].has_written_why:
        _write_down(lost, type(failure.error).__name__, failure.found)
    raise failure.error from None


def _write_down(lost: Callable[[str, str], None], reason: str, found: str) -> None:
    # What cannot be written down is no reason to hide what happened.
    with contextlib.suppress(FacemaeError, OSError):
        lost(reason, found)


@dataclass(frozen=True)
class _Failure:
    """What the team failed by.

    Attributes:
        moment: When, by the machine's monotonic clock.
        found: What happened, in a sentence.
        error: What to raise.
    """

    moment: float
    found: str
    error: FacemaeError | ProcessCrash


@dataclass
class _Member:
    """A process of the team, seen from the one that started it."""

    rank: int
    process: "subprocess.Popen[bytes]"
    connection: "Connection[Any, Any]"
    output: int | None
    """Reads what all but the first process print."""
    said: bytes = b""
    """The last of it."""
    result: Any = None
    spoken: bool = False
    """Whether it has said how it ended."""
    failed: Failed | None = None
    died: float | None = None
    """When its end was noticed, if it had not said anything."""
    killed: bool = False
    """Whether this process has killed it."""
    ended: bool = False

    @property
    def has_written_why(self) -> bool:
        """Whether it ended by an error of which it knew the reason; the first process writes those down."""
        return self.failed is not None and self.failed.error is not None and not self.failed.is_consequence

    def kill(self) -> None:
        self.killed = True
        self.process.kill()

    def death(self, count: int) -> ProcessError:
        code = self.process.returncode
        who = f"rank {self.rank} of {count} (process {self.process.pid})"
        expected = "processes that live as long as the run"
        fix = "the same command continues"
        if code == -signal.SIGKILL:
            fix += "; a process that nobody killed was killed by the system for want of memory"
        if code < 0:
            return ProcessError(f"{who} was killed by {signal.Signals(-code).name}", expected=expected, fix=fix)
        words = self.said.decode(errors="replace").strip()
        told = f"; it said:\n{words}" if words else ""
        return ProcessError(f"{who} ended with exit code {code} before it was done{told}", expected=expected, fix=fix)


@dataclass
class _Team:
    """The processes of a run.

    Attributes:
        count: Their number.
        port: Port of this machine at which they meet.
        members: The processes, by rank.
        began: Whether the first one has taken the run folder.
    """

    count: int
    port: int
    members: list[_Member] = field(default_factory=list)
    began: bool = False
    _ending: bool = False
    _deadline: float | None = None

    def start(self, job: Job) -> None:
        """Start all processes and give them the job."""
        given = pickle.dumps(job)
        path = [entry or os.getcwd() for entry in sys.path]  # noqa: PTH109  as a string, as it stands in the path
        for rank in range(self.count):
            self.members.append(self._start_member(rank))
        for member in self.members:
            # One that died already is noticed by whoever watches.
            with contextlib.suppress(OSError):
                member.connection.send(path)
                member.connection.send_bytes(given)

    def _start_member(self, rank: int) -> _Member:
        ours, theirs = Pipe()
        output, said = os.pipe() if rank else (None, None)
        try:
            process = subprocess.Popen(  # noqa: S603  this interpreter
                [sys.executable, "-P", "-c", _BOOT, str(theirs.fileno()), f"facemae rank {rank} of {self.count}"],
                env={**os.environ, **self._place(rank)},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # The first process is the one that talks to people.
                stdout=said,
                stderr=said,
            )
        finally:
            theirs.close()
            if said is not None:
                os.close(said)
        return _Member(rank, process, ours, output)

    def _place(self, rank: int) -> dict[str, str]:
        return {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(self.count),
            "LOCAL_WORLD_SIZE": str(self.count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self.port),
            # As under torchrun: the store is there already, no process of the run has to serve it.
            "TORCHELASTIC_USE_AGENT_STORE": str(True),
            "TORCHELASTIC_RESTART_COUNT": "0",
            # Python's helper that frees what a killed process left behind would say so on the terminal.
            "PYTHONWARNINGS": ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), "ignore:resource_tracker"])),
        }

    def tell(self, number: signal.Signals) -> None:
        """Ask all processes to stop."""
        for member in self.members:
            with contextlib.suppress(OSError):
                member.connection.send(number)

    def watch(self) -> None:
        """Wait until all processes have ended; end the others where one has failed."""
        with selectors.DefaultSelector() as selector:
            for member in self.members:
                selector.register(member.connection, selectors.EVENT_READ, (member, self._hear))
                if member.output is not None:
                    selector.register(member.output, selectors.EVENT_READ, (member, self._keep))
            while not all(member.ended for member in self.members):
                patience = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
                for key, _ in selector.select(patience):
                    member, read = key.data
                    if not read(member):
                        selector.unregister(key.fileobj)
                if self._deadline is not None and time.monotonic() >= self._deadline:
                    self._kill()

    def _hear(self, member: _Member) -> bool:
        """Read a message; False where there will be none after it."""
        try:
            message = member.connection.recv()
        except (EOFError, OSError):
            self._bury(member)
            return False
        if isinstance(message, Began):
            self.began = True
            return True
        if isinstance(message, Ending):
            self._ending = True
            if self._deadline is not None and self._deadline > time.monotonic():
                self._deadline += CLOSING - GRACE
            return True
        member.spoken = True
        if isinstance(message, Done):
            member.result = message.result
        elif isinstance(message, Failed):
            member.failed = message
            self._wait_no_longer_than(CLOSING if self._ending else GRACE)
        if all(other.spoken for other in self.members):
            self._wait_no_longer_than(LINGER)
        return True

    def _keep(self, member: _Member) -> bool:
        """Remember the last of what a process printed; False at its end."""
        assert member.output is not None
        said = os.read(member.output, _REMEMBERED)
        member.said = (member.said + said)[-_REMEMBERED:]
        return bool(said)

    def _bury(self, member: _Member) -> None:
        noticed = time.monotonic()
        with contextlib.suppress(subprocess.TimeoutExpired):
            # Its end of the connection closes a moment before it can be collected.
            member.process.wait(LINGER)
        if member.process.returncode is None:
            member.kill()
            member.process.wait()
        member.ended = True
        if member.output is not None:
            # What has come until now; a loader process that is still about to end may hold the other end open.
            os.set_blocking(member.output, False)
            with contextlib.suppress(BlockingIOError):
                while self._keep(member):
                    pass
        if not member.spoken and not member.killed:
            member.died = noticed
            self._wait_no_longer_than(0.0)

    def _wait_no_longer_than(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        self._deadline = deadline if self._deadline is None else min(deadline, self._deadline)

    def _kill(self) -> None:
        for member in self.members:
            if not member.ended:
                member.kill()
        self._deadline = None

    def end(self) -> None:
        """Leave no process behind."""
        for member in self.members:
            if not member.ended:
                member.kill()
                member.process.wait()
            member.connection.close()
            if member.output is not None:
                os.close(member.output)

    def failure(self) -> _Failure | None:
        """What the run failed by: the first death or error, consequences of others left out; None where it did not."""
        found = list(self._failures())
        causes = [failure for failure, is_consequence in found if not is_consequence]
        return min(causes or [failure for failure, _ in found], key=lambda failure: failure.moment, default=None)

    def _failures(self) -> Iterator[tuple[_Failure, bool]]:
        for member in self.members:
            if member.died is not None:
                death = member.death(self.count)
                yield _Failure(member.died - HEAD_START, death.found, death), False
            elif member.failed is not None:
                failed = member.failed
                error = failed.error or ProcessCrash(member.rank, failed.text)
                found = failed.error.found if failed.error is not None else failed.text.strip().splitlines()[-1]
                yield _Failure(failed.moment, found, error), failed.is_consequence


class _Relay(StopRequest):
    """Passes requests to stop on to the team, once its processes have their job."""

    def __init__(self, team: _Team) -> None:
        super().__init__()
        self._team = team
        self._open = False

    def open(self) -> None:
        """Begin to pass on, with what has come already."""
        self._open = True
        if self._received is not None:
            self._team.tell(self._received)

    def request(self, number: signal.Signals) -> None:
        """Ask all processes to stop."""
        super().request(number)
        if self._open:
            self._team.tell(number)


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Hold signals back in processes that are started in the block, until they are ready to hear them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
