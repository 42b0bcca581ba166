"""A process that the keeper looks after, ended and started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from irons_local.keeper.cells.loop import Loop, Timer
from irons_local.keeper.cells.requests import KeeperRequest
from irons_local.keeper.supervise import forkserver, supervisor
from irons_local.keeper.supervise.spawn import PendingProcess, Plan
from irons_local.keeper.supervise.supervisor import Found, ManagedProcess

pytestmark = pytest.mark.process

WITHIN = 60.0
"""Seconds in which everything happens that is waited for; nothing takes so long where all is well."""


HELD = 3600.0


class HeldLoop(Loop):
    """A loop in which what is to be done after `HELD` seconds waits for the test."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Callable[[], None]] = []

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """As a loop does, but for what is held."""
        if seconds != HELD:
            return super().after(seconds, callback)
        self.held.append(callback)
        return Timer(callback)


class Bench:
    """A worker that runs a program, in a loop of the test's own, and all the processes that it was."""

    def __init__(self, directory: Path, program: str) -> None:
        self.loop = HeldLoop()
        self.pids: list[int] = []
        plan = Plan("worker", ["-c", program], directory, directory / "log", directory, directory)
        self.worker = ManagedProcess(self.loop, plan, "1", KeeperRequest.drop, self._begun, self._ended)
        self.at_begin: Callable[[], None] = lambda: None
        self.at_end: Callable[[], None] = lambda: None

    def _begun(self) -> None:
        self.pids.append(self.worker.pid)
        self.at_begin()

    def _ended(self) -> None:
        self.at_end()

    def run(self, seconds: float) -> None:
        """Let things happen for so long."""
        self.loop.after(seconds, self.loop.stop)
        self.loop.run()

    def end(self) -> None:
        """End it, and the loop."""
        self.worker.end(self.loop.stop)
        self.loop.run()
        self.loop.close()


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """What this process does at signals is afterwards as it was."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGCHLD)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_what_follows_a_restart_is_not_killed_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kill that stands ready for a process which does not end reaches no other one, no matter what its descriptor's number.

    One that is asked to end as soon as it is there hears of it, and no one else does.
    """
    bench, sent = Bench(tmp_path, "import signal; signal.pause()"), list[int]()
    asked = list[int]()
    bench.loop.on_signal(signal.SIGTERM, lambda: asked.append(1))
    with monkeypatch.context() as patch:
        patch.setattr(supervisor, "_GRACE", HELD)
        bench.worker.start()
        bench.at_begin = bench.loop.stop
        bench.worker.renew()
        bench.run(WITHIN)
        assert (len(bench.pids), asked) == (2, [])
        patch.setattr(signal, "pidfd_send_signal", lambda _, number: sent.append(number))
        (kill,) = bench.loop.held
        kill()
        assert sent == []
    bench.at_begin = lambda: None
    bench.end()


def test_a_process_that_is_about_to_end_may_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that closes its link first, as all do that end by themselves, is not killed before its last words."""
    program = "import os, select, sys; os.close(int(os.environ['IRONS_LINK'])); select.select([], [], [], 0.2); sys.exit('this is why')"
    # Nor is it where this machine stands still at that moment.
    monkeypatch.setattr(supervisor, "_LAST_WORDS", WITHIN)
    bench = Bench(tmp_path, program)
    bench.worker.start()
    bench.at_end = bench.loop.stop
    bench.run(WITHIN)
    assert bench.worker.last_words() == "this is why"
    bench.at_end = lambda: None
    bench.end()


def test_one_that_ended_before_it_could_be_taken_over_is_started_again(tmp_path: Path) -> None:
    """A process of an earlier keeper that answers and then ends keeps no keeper from beginning."""
    bench = Bench(tmp_path, "import signal; signal.pause()")
    with subprocess.Popen(["/bin/true"]) as gone:
        gone.wait()
    near, far = socket.socketpair()
    with far:
        bench.worker.resume(Found(gone.pid, "1", near))
        assert far.recv(1) == b""
    assert len(bench.pids) == 1
    assert bench.worker.pid != gone.pid
    bench.end()


FORKS = """
import os, sys
from irons_local.forkserver.server import serve
sys.exit(serve(int(os.environ["IRONS_NURSERY"]), lambda: 0))
"""


def test_a_warm_process_has_the_time_that_it_takes_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that has just been started may import for long; one that has answered before is ended where it does not answer."""
    monkeypatch.setattr(forkserver, "_ANSWER_WITHIN", 0.0)
    loop = Loop()
    plan = Plan(
        "gateway",
        ["-c", FORKS],
        tmp_path,
        tmp_path / "log",
        tmp_path,
        tmp_path,
        link="IRONS_NURSERY",
        stays=False,
    )
    warm = forkserver.Warm(loop, plan, "1")
    outcomes: list[str] = []

    def born(near: socket.socket, pid: int, pidfd: int) -> None:
        near.close()
        os.close(pidfd)
        outcomes.append("born")
        loop.stop()

    def failed(why: str) -> None:
        outcomes.append(why)
        loop.stop()

    worker = Plan("gateway-0", [], tmp_path, tmp_path / "log-0", tmp_path, tmp_path)
    limit = loop.after(WITHIN, loop.stop)
    try:
        warm.process.start()
        warm.bear(PendingProcess(worker, born, failed), 0, 1)
        loop.run()
        assert outcomes == ["born"]
        os.kill(warm.process.pid, signal.SIGSTOP)
        warm.bear(PendingProcess(worker, born, failed), 0, 1)
        loop.run()
        assert outcomes == ["born", "the warm process ended"]
    finally:
        limit.cancel()
        warm.process.end(loop.stop)
        loop.run()
        loop.close()
