"""The processes the keeper keeps running: how they are started, found again, restarted and ended."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from irons.files import write_whole
from irons_local.ipc.unixsock import reach
from irons_local.keeper.cells.loop import READ, Loop
from irons_local.keeper.cells.requests import Client, KeeperRequest
from irons_local.keeper.supervise.spawn import PendingProcess, Plan, execute
from irons_local.linux import namespaces
from irons_local.log.line import Line

_SETTLED_AFTER = 10.0
_LOOK_EVERY = 1.0
_MUTE_AFTER = 5
"""Looks in a row at which nothing was heard of a process that says that it is alive."""
_DELAYS = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_GRACE = 3.0
_LAST_WORDS = 1.0


class Found(NamedTuple):
    """A process that outlived the keeper which started it, and a fresh link to it."""

    pid: int
    version: str
    sock: socket.socket


def find(plan: Plan) -> Found | None:
    """The process of an earlier keeper, if it is still there; a remnant that cannot be linked to is ended."""
    try:
        noted = json.loads(plan.process.read_text("utf-8"))
        pid, version = int(noted["pid"]), str(noted["version"])
        same = namespaces.is_same(noted)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not same:
        return None
    try:
        return Found(pid, version, reach(plan.socket))
    except OSError:
        _kill(pid, signal.SIGKILL)
        return None


class ManagedProcess:
    """One process that shall always be there.

    Args:
        loop: the keeper's.
        plan: what it is.
        version: the keeper's own, noted for the next keeper.
        heard: called with what it says on its link.
        begun: called when it has been started, or found, and its link is up.
        ended: called when it has ended, for any reason.
        bear: has it come to be; it may be there later, or not at all.

    Attributes:
        link: to it, while it runs.
        pid: its process, also when that has ended.
        failures: how often in a row it has ended, or did not come to be.
        served: it has reported that it is alive, so its cells were served.
        told: it was asked to end, for good or to be started again.
    """

    def __init__(
        self,
        loop: Loop,
        plan: Plan,
        version: str,
        heard: Callable[[KeeperRequest], None],
        begun: Callable[[], None],
        ended: Callable[[], None],
        bear: Callable[[PendingProcess], None] = execute,
    ) -> None:
        self._loop, self._plan, self._version = loop, plan, version
        self._heard, self._begun, self._gone, self._bear = heard, begun, ended, bear
        self._pidfd = -1
        self._settled = loop.after(0, lambda: None)
        self._coming = False
        self._lasting = True
        self._ending: Callable[[], None] | None = None
        self._looking = False
        self._unheard = 0
        self.link: Client | None = None
        self.pid = 0
        self.failures = 0
        self.served = False
        self.told = False

    @property
    def plan(self) -> Plan:
        """What it is."""
        return self._plan

    def start(self) -> None:
        """Start it.

        Raises:
            OSError: its files cannot be written, or there are no descriptors left.
        """
        birth = PendingProcess(self._plan, self._born, self._stillborn)
        self._coming = True
        self._bear(birth)

    def _born(self, near: socket.socket, pid: int, pidfd: int) -> None:
        self._coming = False
        if not self._lasting:
            near.close()
            os.close(pidfd)
            return
        try:
            note = {**namespaces.identity(pid), "version": self._version}
            write_whole(self._plan.process, json.dumps(note), parents=False)
        except OSError as error:
            say(f"{self._plan.name} cannot be noted for the next keeper: {error}")
        self.take(pid, near, pidfd)

    def _stillborn(self, why: str) -> None:
        self._coming = False
        if self._lasting:
            say(f"{self._plan.name} cannot be started: {why}")
            self._retry()

    def resume(self, found: Found) -> None:
        """Take over a process of an earlier keeper; where it has ended, start another.

        Raises:
            OSError: as `start`.
        """
        try:
            pidfd = os.pidfd_open(found.pid)
        except ProcessLookupError:
            found.sock.close()
            self.start()
            return
        self.take(found.pid, found.sock, pidfd)

    def take(self, pid: int, sock: socket.socket, pidfd: int) -> None:
        """Look after a process that runs, over a link to it and by a descriptor of it."""
        self.pid = pid
        self._looking = self.served = self.told = False
        self._pidfd = pidfd
        self._loop.watch(self._pidfd, READ, self._ended)
        self.link = Client(self._loop, sock, self._heard, self._unlinked)
        self._settled = self._loop.after(_SETTLED_AFTER, self._settle)
        self._begun()

    def alive(self) -> None:
        """It has reported that it is alive, and must do so regularly from now on: one that hangs is replaced."""
        self._unheard = 0
        self.served = True
        if not self._looking:
            self._looking = True
            self._look_later()

    def _look_later(self) -> None:
        pid = self.pid
        self._loop.after(_LOOK_EVERY, lambda: self._look() if self.pid == pid and self._pidfd >= 0 else None)

    def _look(self) -> None:
        # Looks are counted, not seconds: a machine that stood still has not lost anybody.
        self._unheard += 1
        if self._unheard > _MUTE_AFTER:
            say(f"{self._plan.name} (process {self.pid}) hangs; it is ended")
            self._signal(signal.SIGKILL)
            return
        self._look_later()

    def renew(self) -> None:
        """End it so that it is started again at once; one that waits to be tried again is tried now."""
        self.failures = 0
        if self._pidfd < 0:
            self._again()
            return
        self.told = True
        self._signal(signal.SIGTERM)
        self._kill_after(_GRACE)

    def kill(self) -> None:
        """End it at once, as one that is of no use; it is started again."""
        self._signal(signal.SIGKILL)

    def end(self, done: Callable[[], None]) -> None:
        """End it for good: asked first, made to after a while; then `done`."""
        self._lasting = False
        self.told = True
        if self._pidfd < 0:
            done()
            return
        self._ending = done
        self._signal(signal.SIGTERM)
        self._kill_after(_GRACE)

    def last_words(self) -> str:
        """The last line of its log, to explain why it does not start."""
        try:
            with self._plan.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
                lines = file.read().decode("utf-8", "replace").strip().splitlines()
        except OSError:
            return ""
        return lines[-1] if lines else ""

    def _signal(self, number: int) -> None:
        if self._pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def _settle(self) -> None:
        self.failures = 0

    def _unlinked(self, _: Client) -> None:
        # Without a link it cannot be used; but it may be about to end, and to report why.
        if self._pidfd >= 0:
            self._kill_after(_LAST_WORDS)

    def _kill_after(self, seconds: float) -> None:
        """Kill it then, if it still is the process that it is now."""
        pid = self.pid
        self._loop.after(seconds, lambda: self._signal(signal.SIGKILL) if self.pid == pid else None)

    def _ended(self) -> None:
        self._loop.forget(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        if self._plan.whole:
            # What it forked would keep its sockets, and be taken for it.
            _kill_group(self.pid, signal.SIGKILL)
        self._settled.cancel()
        link, self.link = self.link, None
        if link is not None:
            link.drain()
            link.close()
        self._gone()
        if self._ending is not None:
            self._ending()
        elif self._lasting:
            say(f"{self._plan.name} (process {self.pid}) ended")
            self._retry()

    def _retry(self) -> None:
        """Start it again: at once the first time, and ever later while it ends again and again."""
        delay = _DELAYS[min(self.failures, len(_DELAYS) - 1)]
        self.failures += 1
        self._loop.after(delay, self._again)

    def _again(self) -> None:
        if self._lasting and self._pidfd < 0 and not self._coming:
            try:
                self.start()
            except OSError as error:
                self._stillborn(str(error))


def say(text: str, *, request: str = "", sandbox: str = "") -> None:
    """Write a line to the keeper's log, with what it belongs to."""
    # A log on a full disk ends nothing that the keeper does.
    with suppress(OSError):
        sys.stderr.write(Line(text, request=request, sandbox=sandbox).render(time.time()))
        sys.stderr.flush()


def end_found(found: Found) -> None:
    """End a process of an earlier keeper, and wait for it; for the keeper's start only."""
    found.sock.close()
    with suppress(ProcessLookupError):
        pidfd = os.pidfd_open(found.pid)
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
            ready, _, _ = select.select([pidfd], [], [], _GRACE)
            if not ready:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)


def _kill(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _kill_group(pid: int, number: int) -> None:
    # Each process leads a session of its own.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
