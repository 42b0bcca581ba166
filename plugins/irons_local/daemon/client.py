"""The command line's door to the local backend's processes: finds the keeper, starts it, replaces an older one.

Every command that needs the local backend calls `ensure` first; with all of it running that is one connection
and two short messages. Everything here raises `LocalError` with the line to print and what to do.
"""

from __future__ import annotations

import array
import os
import re
import select
import signal
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from irons.errors import LocalError
from irons.version import __version__
from irons_local.daemon.spawn import START_WITHIN, broken, start
from irons_local.ipc.link import Link, LinkError, Message, RequestError, reach
from irons_local.ipc.locate import settle
from irons_local.paths import Places, PlacesError

_ANSWER_WITHIN = 10.0
_DOWN_WITHIN = 15.0
_SIGN_WITHIN = 2.0


@dataclass(frozen=True, slots=True)
class Process:
    """How one of the gateway's processes is.

    Attributes:
        pid: its process, None while it is down.
        failures: how often in a row it ended, or did not come up.
        worker: its number; None for the warm process that workers are forked from.
        cells: how many cells it serves.
        memory: its part of memory in bytes (PSS), as it says itself; None where it has not said.
    """

    pid: int | None
    failures: int
    worker: int | None = None
    cells: int | None = None
    memory: int | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """How the daemon is.

    Attributes:
        version: the version of irons it runs.
        pid: the keeper's process.
        since: when the keeper began, seconds since 1970.
        ready: whether the control plane answers.
        cells: how many cells the keeper holds.
        gateway: process of the gateway's first worker, None while it is down.
        server: process of the control plane, None while it is down.
        workers: the gateway's workers.
        nursery: the warm process that workers are forked from; None in a daemon that has none.
    """

    version: str
    pid: int
    since: float
    ready: bool
    cells: int
    gateway: int | None
    server: int | None
    workers: tuple[Process, ...] = ()
    nursery: Process | None = None


def ensure(
    places: Places,
    environ: Mapping[str, str] | None = None,
    *,
    version: str = __version__,
    newer: bool = False,
) -> Status:
    """Make sure that this user's daemon runs, in this version, and that its control plane answers.

    An older daemon is replaced without touching a sandbox; a newer one is left alone.

    Args:
        places: where it is.
        environ: what a daemon that must be started takes over from; this process's own environment when None.
        version: the version of irons that asks.
        newer: whether a newer daemon will do, as for a command that ran when it came.

    Raises:
        LocalError: it can't be started, or is a newer one.
    """
    deadline = time.monotonic() + START_WITHIN
    replaced = False
    while True:
        link = _reach(places)
        if link is None:
            if time.monotonic() > deadline:
                raise broken(places, "it ends as soon as it is started")
            start(places, environ)
            continue
        with link:
            try:
                status = _status(link.request("hello", version=version))
                is_newer = _order(status.version) > _order(version)
                if status.version == version or (newer and is_newer):
                    if not status.ready:
                        link.request("ready")
                        status = _status(link.request("status"))
                    return status
                if is_newer:
                    raise LocalError(
                        f"the irons daemon that runs is version {status.version}, newer than this one, {version}",
                        hint="use the newer irons; or stop the daemon first with its `irons local down`",
                    )
                if replaced:
                    raise LocalError(
                        f"the irons daemon comes up as version {status.version}, not as {version}",
                        hint="two installations of irons are mixed up; install it again",
                    )
                link.request("retire")
                replaced = True
            except RequestError as error:
                raise broken(places, error.message) from error
            except LinkError as error:
                # It ended while we spoke: the next round starts it anew.
                if time.monotonic() > deadline:
                    raise broken(places, str(error)) from error


def status(places: Places) -> Status | None:
    """How the daemon is; None when it does not run.

    Raises:
        LocalError: it does not answer.
    """
    link = _reach(places)
    if link is None:
        return None
    with link:
        return _status(_request(places, link, "status"))


def down(places: Places, *, within: float = _DOWN_WITHIN) -> bool:
    """End keeper, gateway and control plane; sandboxes are not touched, and nothing of theirs gets out meanwhile.

    Args:
        places: where they are.
        within: how many seconds they may take.

    Returns:
        False when it did not run.

    Raises:
        LocalError: it did not end.
    """
    link = _reach(places, within=within)
    if link is None:
        return False
    with link:
        pid = int(_request(places, link, "down").body["pid"])
        wait_for_end(pid, within)
    return True


def serves(places: Places, *, version: str = __version__) -> bool:
    """Whether a control plane of this version answers requests right now; none is started to be asked."""
    try:
        found = status(places)
    except LocalError:
        return False
    if found is None or not found.ready or found.version != version:
        return False
    try:
        with reach(places.api_socket) as sock:
            sock.settimeout(_SIGN_WITHIN)
            sock.sendall(b"GET /version HTTP/1.1\r\nHost: irons\r\nConnection: close\r\n\r\n")
            return sock.recv(5) == b"HTTP/"
    except OSError:
        return False


def stay(places: Places) -> None:
    """Come back when the daemon has been told to end; a SIGTERM or Ctrl-C meanwhile tells it so.

    Raises:
        LocalError: it does not run, or it ended by itself.
    """
    found = status(places)
    if found is None:
        raise _absent()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        wait_for_end(found.pid, None)
    except KeyboardInterrupt:
        down(places)
        return
    finally:
        signal.signal(signal.SIGTERM, before)
    # One that is told to end tidies up.
    if places.keeper_socket.exists():
        raise LocalError(
            "the keeper ended by itself; sandboxes run on", hint="`irons local logs` may say why"
        )


def restart(places: Places, name: str | None = None) -> None:
    """Start `gateway` or `server` anew, or both; sandboxes are not touched.

    Raises:
        LocalError: the daemon does not run or does not answer.
    """
    link = _reach(places)
    if link is None:
        raise _absent()
    with link:
        _request(places, link, "restart", name=name)


def connect(places: Places, cell: str, address: str = "127.0.0.1", port: int = 22) -> socket.socket:
    """A TCP connection made inside a sandbox's network.

    Args:
        places: where the daemon is.
        cell: the sandbox's cell.
        address: an address inside.
        port: a port there.

    Raises:
        LocalError: there is no such cell, or nobody listens there.
    """
    link = _reach(places)
    if link is None:
        raise _absent()
    with link:
        message = _request(places, link, "cell.connect", cell=cell, address=address, port=port)
        return socket.socket(fileno=message.fds.pop())


def connect_descriptor(cell: str, out: int = 1, environ: Mapping[str, str] | None = None) -> None:
    """Hand OpenSSH a connection to a sandbox's SSH server, and be done: for `ProxyCommand` with `ProxyUseFdpass`.

    OpenSSH gives such a command a unix socket for its output and wants one byte there that brings the descriptor
    (ssh_config(5)).

    Args:
        cell: the sandbox's cell.
        out: the descriptor to hand it over on.
        environ: names the places; this process's own environment when None.

    Raises:
        LocalError: there is no connection, or `out` is not a socket.
    """
    try:
        places = settle(Places.of(environ))
    except PlacesError as error:
        raise LocalError(str(error)) from error
    with connect(places, cell) as sock:
        try:
            with socket.socket(fileno=os.dup(out)) as to:
                to.sendmsg(
                    [b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sock.fileno()]))]
                )
        except OSError as error:
            raise LocalError(
                "stdout is not a socket to hand the connection to",
                hint="this is meant for ssh's ProxyCommand",
            ) from error


def wait_for_end(pid: int, within: float | None) -> None:
    """Wait until a process has ended, or for so many seconds."""
    with suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            select.select([pidfd], [], [], within)
        finally:
            os.close(pidfd)


def _absent() -> LocalError:
    return LocalError("the irons daemon does not run", hint="start it with `irons local up`")


def _reach(places: Places, within: float = _ANSWER_WITHIN) -> Link | None:
    try:
        return Link.to(places.keeper_socket, within)
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except OSError as error:
        raise LocalError(
            f"the irons daemon can't be reached at {places.keeper_socket}: {error.strerror}"
        ) from error


def _request(places: Places, link: Link, op: str, **fields: Any) -> Message:
    try:
        return link.request(op, **fields)
    except RequestError as error:
        raise LocalError(error.message) from error
    except LinkError as error:
        raise broken(places, f"it does not answer: {error}") from error


def _status(message: Message) -> Status:
    body = message.body
    return Status(
        version=str(body["version"]),
        pid=int(body["pid"]),
        since=float(body["since"]),
        ready=bool(body["ready"]),
        cells=int(body["cells"]),
        gateway=body["gateway"]["pid"],
        server=body["server"]["pid"],
        workers=_workers(body),
        nursery=Process(body["nursery"]["pid"], body["nursery"]["failures"]) if "nursery" in body else None,
    )


def _workers(body: Mapping[str, Any]) -> tuple[Process, ...]:
    """The gateway's workers; an older daemon has one, and does not number it."""
    if "gateways" not in body:
        return (Process(body["gateway"]["pid"], body["gateway"]["failures"], 0, body["cells"]),)
    return tuple(
        Process(each["pid"], each["failures"], each["worker"], len(each["cells"]), each["memory"])
        for each in body["gateways"]
    )


def _order(version: str) -> tuple[int, ...]:
    """The release numbers of a version, for comparing; pre-releases count as their release."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()
