"""Running OpenSSH with the terminal to itself: it stops, goes on and ends as if it stood in this process's place."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

from irons.errors import IronsError
from irons_plugins.ssh.openssh.signals import ended_with_parent, handling


def run_attached(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Run a program on the terminal and return its exit code, 128 and the signal's number where one ended it.

    What is typed is the program's, Ctrl-C and Ctrl-Z included. TERM and HUP reach it; it ends when this process is killed.

    Raises:
        IronsError: It is not installed.
    """
    started: list[subprocess.Popen[bytes]] = []
    early: list[int] = []

    def pass_on(number: int, _: object) -> None:
        if not started:
            # The program may run already, and only `Popen` knows it.
            early.append(number)
        for process in started:
            process.send_signal(number)

    # Handlers, not SIG_IGN: an ignored signal would be inherited by the program.
    with contextlib.ExitStack() as handled:
        for number in (signal.SIGINT, signal.SIGTSTP):
            handled.enter_context(handling(number, lambda *_: None))
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                handled.enter_context(handling(number, pass_on))
        try:
            process = subprocess.Popen(argv, env=dict(env), preexec_fn=ended_with_parent(signal.SIGHUP))  # noqa: PLW1509 - one thread
        except FileNotFoundError:
            raise IronsError(
                f"{argv[0]} is not installed", hint="install OpenSSH's client: apt-get install openssh-client"
            ) from None
        started.append(process)
        for missed in early:
            process.send_signal(missed)
        code = _ended(process)
        return 128 - code if code < 0 else code


def _ended(process: subprocess.Popen[bytes]) -> int:
    """Wait for its end; while it is stopped (`~^Z`, Ctrl-Z), this process is stopped too, so that the shell takes over."""
    while process.returncode is None:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            process.returncode = os.waitstatus_to_exitcode(status)
            continue
        with handling(signal.SIGTSTP, signal.SIG_DFL):
            os.kill(os.getpid(), signal.SIGTSTP)
        process.send_signal(signal.SIGCONT)
    return process.returncode
