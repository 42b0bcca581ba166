"""A program that gives a running sandbox other authorized keys, and ends the sessions of keys that open it no more.

`python -m irons_local.engines.namespace.amend`: one JSON object (`BootOrder`) on standard input; `{}` or `{"error"}` on
standard output. Each session carries the id of its key in `session.KEY`, which sshd sets from the authorized keys. A
session that does not say which key it came by, such as one of a sandbox that an earlier irons started, ends too.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypedDict

from irons_local.bundle import session, sshd
from irons_local.engines.namespace import boot, settings_inside
from irons_local.ipc.framing import line_of
from irons_local.linux import namespaces
from irons_local.linux.processes import Process, in_namespace


class AmendOrder(TypedDict):
    """What to change, as it travels in JSON.

    Attributes:
        user, net, mount: descriptors of the cell's namespaces.
        init: process 1 of the sandbox and its start time.
        authorized: text of the authorized keys.
        gone: ids of keys whose sessions end.
    """

    user: int
    net: int
    mount: int
    init: list[int]
    authorized: str
    gone: list[str]


def main() -> None:
    """Read the order, carry it out, answer; exit with 0 or 1."""
    order: AmendOrder = json.load(sys.stdin)
    answer: dict[str, str] = {}
    try:
        amend(order)
    except OSError as error:
        answer = {"error": line_of(error)}
    print(json.dumps(answer))
    sys.exit(1 if answer else 0)


def amend(order: AmendOrder) -> None:
    """Replace the authorized keys, and then end sessions.

    Raises:
        OSError: a step failed.
    """
    init = Process(*order["init"])
    boot.enter_cell(order["user"], order["net"], order["mount"])
    if not settings_inside.replace(init, sshd.AUTHORIZED, order["authorized"]):
        return
    if order["gone"]:
        # A login that sshd began to check before the file was replaced is there by the second look.
        for _ in range(2):
            _end_sessions(init, frozenset(order["gone"]))


def _end_sessions(init: Process, gone: frozenset[str]) -> None:
    """End each connection of the SSH server whose key is one of `gone`, or is not known, with all that runs on it."""
    inside = _space(init.pid)
    for connection, members in connections(init.pid):
        if _keys(members) & gone or not _keys(members):
            for pid in (connection, *members):
                _kill(pid, inside)


def connections(init: int) -> Iterator[tuple[int, list[int]]]:
    """Each connection of the sandbox's SSH server: the process that serves it, and all descendants of that.

    Args:
        init: process 1 of the sandbox.
    """
    births = {pid: namespaces.birth(pid) for pid in in_namespace("pid", _space(init))}
    children: defaultdict[int, list[int]] = defaultdict(list)
    for pid, known in births.items():
        if known is not None:
            children[known.parent].append(pid)
    for server in _servers(init, children):
        for connection in children[server]:
            yield connection, descendants(connection, children)


def _servers(init: int, children: Mapping[int, Iterable[int]]) -> list[int]:
    """Process 1 where it is the SSH server itself, and those of its children that are one."""
    return [pid for pid in (init, *children.get(init, ())) if is_sshd(pid)]


def is_sshd(pid: int) -> bool:
    """Whether a process is one of an SSH server's, by what it says of itself."""
    with suppress(OSError):
        # It writes what it does over its arguments: `sshd: /usr/sbin/sshd -D … [listener] 0 of 100-200 startups`.
        program = _read(pid, "cmdline").split(b"\0")[0]
        return program.startswith(b"sshd:") or program.rpartition(b"/")[2] == b"sshd"
    return False


def descendants(pid: int, children: Mapping[int, Sequence[int]]) -> list[int]:
    """All descendants of a process; how deep they go is for the sandbox to say.

    Args:
        pid: the process.
        children: those of each process, which were not all read at one moment.
    """
    found, waiting = {pid}, [pid]
    while waiting:
        fresh = [child for child in children.get(waiting.pop(), ()) if child not in found]
        found.update(fresh)
        waiting += fresh
    return sorted(found - {pid})


def _keys(members: Iterable[int]) -> frozenset[str]:
    found = set()
    for pid in members:
        with suppress(OSError):
            for entry in _read(pid, "environ").split(b"\0"):
                name, _, value = entry.partition(b"=")
                if name == session.KEY.encode():
                    found.add(value.decode("ascii", "replace"))
    return frozenset(found)


def _space(pid: int) -> int:
    return Path(f"/proc/{pid}/ns/pid").stat().st_ino


def _read(pid: int, name: str) -> bytes:
    with Path(f"/proc/{pid}/{name}").open("rb") as file:
        return file.read(1 << 20)


def _kill(pid: int, inside: int) -> None:
    """Kill a process, if it is still one of the sandbox."""
    with suppress(OSError):
        descriptor = os.pidfd_open(pid)
        try:
            if _space(pid) == inside:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)


if __name__ == "__main__":
    main()
