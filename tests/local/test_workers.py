"""A process that the keeper looks after, ended and started again."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from irons_local.keeper.cells.loop import Loop
from irons_local.keeper.cells.requests import KeeperRequest
from irons_local.keeper.supervise import supervisor
from irons_local.keeper.supervise.spawn import Plan
from irons_local.keeper.supervise.supervisor import Found, ManagedProcess

pytestmark = pytest.mark.process

WITHIN = 10.0


class Bench:
    """A worker that runs a program, in a loop of the test's own, and all the processes that it was."""

    def __init__(self, directory: Path, program: str) -> None:
        self.loop = Loop()
        self.pids: list[int] = []
        plan = Plan("worker", ["-c", program], directory, directory / "log", directory, directory)
        self.worker = ManagedProcess(self.loop, plan, "1", KeeperRequest.drop, self._begun, self._ended)
        self.at_end: Callable[[], None] = lambda: None

    def _begun(self) -> None:
        self.pids.append(self.worker.pid)

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


def test_what_follows_a_restart_is_not_killed_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kill that stands ready for a process which does not end reaches no other one, no matter what its descriptor's number."""
    monkeypatch.setattr(supervisor, "_GRACE", 0.3)
    bench = Bench(tmp_path, "import signal; signal.pause()")
    bench.worker.start()
    bench.worker.renew()
    bench.run(1.0)
    assert len(bench.pids) == 2
    bench.end()


def test_a_process_that_is_about_to_end_may_say_why(tmp_path: Path) -> None:
    """One that closes its link first, as all do that end by themselves, is not killed before its last words."""
    program = "import os, select, sys; os.close(int(os.environ['IRONS_LINK'])); select.select([], [], [], 0.2); sys.exit('this is why')"
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
