"""How a process of the backend comes to be: the keeper becomes one by fork and exec, or has a warm one fork it."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from irons_local.ipc.unixsock import listen

_HANDLED = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""What the keeper handles, and what it starts does not."""

PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
"""Environment variables by which a person names a proxy, perhaps with its password."""

STATE = "--state"
"""Before the state directory on the command line of each process, by which it is found when its notes are gone."""


class Plan(NamedTuple):
    """What one of the processes is.

    Attributes:
        name: `gateway` (the warm one), `gateway-0` and so on, or `server`.
        argv: arguments of the Python interpreter; none where a warm process forks it.
        cwd: its working directory.
        log: where its stdout and stderr go.
        state: directory of its note, which must outlive a runtime directory that goes with a session.
        runtime: directory of its socket.
        whole: whether what it forked ends with it; the control plane's children may be sandboxes.
        link: the environment variable that names the descriptor of its link.
        stays: whether it outlives its keeper, and waits for the next one.
        without: environment variables that it does not get; a person's proxy may be named with a password.
    """

    name: str
    argv: Sequence[str]
    cwd: Path
    log: Path
    state: Path
    runtime: Path
    whole: bool = False
    link: str = "IRONS_LINK"
    stays: bool = True
    without: Collection[str] = ()

    @property
    def socket(self) -> Path:
        """Where the process waits for the next keeper, should this one die."""
        return self.runtime / f"{self.name}.sock"

    @property
    def process(self) -> Path:
        """Says which process it is, for the next keeper."""
        return self.state / f"{self.name}.process"


class PendingProcess:
    """A process that is being started: what it is given, and what to call when it runs or failed.

    Args:
        plan: what it shall be.
        born: called with the keeper's end of its link, its pid and a descriptor of it (pidfd).
        failed: called with the reason where it did not come to be; its link is closed then.

    Raises:
        OSError: there are no descriptors left, or its rendezvous cannot be made.
    """

    def __init__(
        self, plan: Plan, born: Callable[[socket.socket, int, int], None], failed: Callable[[str], None]
    ) -> None:
        self.plan = plan
        self.near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._born, self._failed = born, failed
        try:
            self.rendezvous = listen(plan.socket) if plan.stays else None
        except BaseException:
            self.near.close()
            self.far.close()
            raise

    def given(self) -> list[int]:
        """The descriptors that it is given: its end of the link, and its rendezvous where it has one."""
        return [sock.fileno() for sock in (self.far, self.rendezvous) if sock is not None]

    def born(self, pid: int, pidfd: int) -> None:
        """It is there."""
        self._let_go()
        self._born(self.near, pid, pidfd)

    def fail(self, why: str) -> None:
        """It is not, and will not be."""
        self._let_go()
        self.near.close()
        self._failed(why)

    def _let_go(self) -> None:
        """Close what belongs to the process itself."""
        self.far.close()
        if self.rendezvous is not None:
            self.rendezvous.close()


def log_of(plan: Plan) -> int:
    """A descriptor of a process's log, to append to.

    Raises:
        OSError: it cannot be opened.
    """
    return os.open(plan.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def execute(birth: PendingProcess) -> None:
    """Fork, and run the plan's program in the child."""
    # A child that is asked to end before it has let go of this process's handlers would have this process asked.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    try:
        pid = os.fork()
        if pid == 0:
            _become(birth, before)
    except OSError as error:
        birth.fail(str(error))
        return
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    # Before anybody can have waited for it: the pid is still its own.
    birth.born(pid, os.pidfd_open(pid))


def _become(birth: PendingProcess, mask: Collection[int]) -> NoReturn:
    """Be the process from here on, with these signals blocked."""
    plan = birth.plan
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in _HANDLED:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        log = log_of(plan)
        null = os.open("/dev/null", os.O_RDONLY)
        for source, target in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        env = {name: value for name, value in os.environ.items() if name not in plan.without}
        for name, sock in ((plan.link, birth.far), ("IRONS_KEEPER", birth.rendezvous)):
            if sock is not None:
                sock.set_inheritable(True)
                env[name] = str(sock.fileno())
        os.chdir(plan.cwd)
        os.execve(sys.executable, [sys.executable, *plan.argv], env)  # noqa: S606 (no shell is what is wanted)
    except BaseException as error:  # noqa: BLE001 (the log is all that is left to tell)
        sys.stderr.write(f"{plan.name} cannot be started: {error}\n")
        sys.stderr.flush()
    finally:
        os._exit(127)
