"""A program that writes one line to the terminals of a running sandbox's SSH sessions.

`python -m irons_local.engines.namespace.announce`: one JSON object (`BootOrder`) on standard input; `{}` or `{"error"}` on
standard output. It runs as the sandbox's root. What it opens is a pseudo-terminal of the sandbox's, or nothing: the files
are a sandbox's own. A terminal that takes nothing is not waited for.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import TypedDict

from irons_local.engines.namespace import amend, boot
from irons_local.ipc.framing import line_of
from irons_local.linux import namespaces, syscalls
from irons_local.linux.processes import Process, is_alive

_FIRST_MAJOR, _LAST_MAJOR = 136, 143
"""Device numbers of pseudo-terminals, Unix98 (devices.txt of the kernel)."""


class AnnounceOrder(TypedDict):
    """What to say, as it travels in JSON.

    Attributes:
        user, net, mount: descriptors of the cell's namespaces.
        init: process 1 of the sandbox and its start time.
        line: the line, printable and without its end.
    """

    user: int
    net: int
    mount: int
    init: list[int]
    line: str


def main() -> None:
    """Read the order, carry it out, answer; exit with 0 or 1."""
    order: AnnounceOrder = json.load(sys.stdin)
    answer: dict[str, str] = {}
    try:
        announce(order)
    except OSError as error:
        answer = {"error": line_of(error)}
    print(json.dumps(answer))
    sys.exit(1 if answer else 0)


def announce(order: AnnounceOrder) -> None:
    """Write the line to each terminal that an SSH session of the sandbox has.

    Raises:
        OSError: the sandbox can't be entered.
    """
    init = Process(*order["init"])
    boot.enter_cell(order["user"], order["net"], order["mount"])
    root = os.open(f"/proc/{init.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Only now is it known whose directory that is.
        if is_alive(init):
            for number in set(_terminals(init)):
                with suppress(OSError):
                    _write(root, number, f"\r\n{order['line']}\r\n".encode())
    finally:
        os.close(root)


def _terminals(init: Process) -> Iterator[int]:
    """Numbers of the pseudo-terminals that sshd made: those of the processes that it started itself, not of a tmux in them."""
    for connection, members in amend.connections(init.pid):
        for pid in members:
            known = namespaces.birth(pid)
            if known is None or known.parent not in (connection, *members):
                continue
            major, minor = os.major(known.terminal), os.minor(known.terminal)
            if _FIRST_MAJOR <= major <= _LAST_MAJOR and amend.is_sshd(known.parent):
                yield ((major - _FIRST_MAJOR) << 8) + minor


def _write(root: int, number: int, data: bytes) -> None:
    """Write to a pseudo-terminal of the sandbox's, as far as it takes it now."""
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
    descriptor = syscalls.open_beneath(root, f"dev/pts/{number}", flags)
    try:
        found = os.fstat(descriptor)
        if stat.S_ISCHR(found.st_mode) and _FIRST_MAJOR <= os.major(found.st_rdev) <= _LAST_MAJOR:
            os.write(descriptor, data)
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    main()
