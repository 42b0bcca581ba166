"""The command line's door to the local backend's processes: finds the keeper, starts it, replaces an older one.

Every command that needs the local backend calls `ensure` first; with all of it running that is one connection
and two short messages. Everything here raises `LocalError` with the line to print and what to do.
"""

from __future__ import annotations

import os
import re
import select
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

from irons.errors import LocalError
from irons.record import NamedTuple
from irons.version import __version__
from irons_local.daemon.failure import START_WITHIN, broken
from irons_local.ipc.framing import LinkError, Message, RequestError
from irons_local.ipc.link import Link
from irons_local.ipc.unixsock import reach
from irons_local.paths import Paths

_ANSWER_WITHIN = 60.0
"""Seconds for an answer of the keeper: one that serves answers at once, except on a machine with much else to do."""

_DOWN_WITHIN = 60.0
_SIGN_WITHIN = 10.0
_TURN = 0.5


class GatewayProcess(NamedTuple):
    """How one of the gateway's processes is.

    Attributes:
        pid: its process, None while it is down.
        failures: how often in a row it ended, or did not come up.
        worker: its number; None for the warm process that workers are forked from.
        cells: how many cells it serves.
        memory: its part of memory in bytes (PSS), as it reports it; None where it has not.
    """

    pid: int | None
    failures: int
    worker: int | None = None
    cells: int | None = None
    memory: int | None = None


class Status(NamedTuple):
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
    workers: tuple[GatewayProcess, ...] = ()
    nursery: GatewayProcess | None = None


def ensure(
    paths: Paths,
    environ: Mapping[str, str] | None = None,
    *,
    version: str = __version__,
    newer: bool = False,
) -> Status:
    """Make sure that this user's daemon runs, in this version, and that its control plane answers.

    An older daemon is replaced without touching a sandbox; a newer one is left alone.

    Args:
        paths: where it is.
        environ: what a daemon that must be started takes over from; this process's own environment when None.
        version: the version of irons that asks.
        newer: whether a newer daemon will do, as for a command that ran when it came.

    Raises:
        LocalError: it can't be started, or is a newer one.
    """
    deadline = time.monotonic() + START_WITHIN
    replaced = False
    while True:
        link = reach_keeper(paths)
        if link is None:
            if time.monotonic() > deadline:
                raise broken(paths, "it ends as soon as it is started")
            # Nearly always it runs.
            from irons_local.daemon.spawn import start

            start(paths, environ)
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
                raise broken(paths, error.message) from error
            except LinkError as error:
                # It ended while we spoke: the next round starts it again.
                if time.monotonic() > deadline:
                    raise broken(paths, str(error)) from error


def status(paths: Paths) -> Status | None:
    """How the daemon is; None when it does not run.

    Raises:
        LocalError: it does not answer.
    """
    link = reach_keeper(paths)
    if link is None:
        return None
    with link:
        return _status(ask_keeper(paths, link, "status"))


def down(paths: Paths, *, within: float = _DOWN_WITHIN) -> bool:
    """End keeper, gateway and control plane; sandboxes are not touched, and have no way out until it runs again.

    Args:
        paths: where they are.
        within: how many seconds they may take.

    Returns:
        False when it did not run.

    Raises:
        LocalError: it did not end.
    """
    link = reach_keeper(paths, within=within)
    if link is None:
        return False
    with link:
        pid = int(ask_keeper(paths, link, "down").body["pid"])
        wait_for_end(pid, within)
    return True


def serves(paths: Paths, *, version: str = __version__) -> bool:
    """Whether a control plane of this version answers requests right now; none is started to be asked."""
    try:
        found = status(paths)
    except LocalError:
        return False
    if found is None or not found.ready or found.version != version:
        return False
    try:
        with reach(paths.api_socket) as sock:
            sock.settimeout(_SIGN_WITHIN)
            sock.sendall(b"GET /version HTTP/1.1\r\nHost: irons\r\nConnection: close\r\n\r\n")
            return sock.recv(5) == b"HTTP/"
    except OSError:
        return False


def stay(paths: Paths, meanwhile: Callable[[], None] | None = None) -> None:
    """Return when the daemon has been asked to end, which SIGTERM and Ctrl-C do.

    Args:
        paths: where it is.
        meanwhile: called every `_TURN` seconds, and once more at the end.

    Raises:
        LocalError: it does not run, or it ended by itself.
    """
    found = status(paths)
    if found is None:
        raise not_running()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while not wait_for_end(found.pid, None if meanwhile is None else _TURN):
            if meanwhile is not None:
                meanwhile()
    except KeyboardInterrupt:
        down(paths)
        return
    finally:
        signal.signal(signal.SIGTERM, before)
        if meanwhile is not None:
            meanwhile()
    # One that is asked to end cleans up.
    if paths.keeper_socket.exists():
        raise LocalError(
            "the keeper ended by itself; sandboxes run on", hint="`irons local logs` may say why"
        )


def restart(paths: Paths, name: str | None = None) -> None:
    """Start `gateway` or `server` again, or both; sandboxes are not touched.

    Raises:
        LocalError: the daemon does not run or does not answer.
    """
    link = reach_keeper(paths)
    if link is None:
        raise not_running()
    with link:
        ask_keeper(paths, link, "restart", name=name)


def wait_for_end(pid: int, within: float | None) -> bool:
    """Wait until a process has ended, or for so many seconds; return whether it has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([pidfd], [], [], within)[0])
    finally:
        os.close(pidfd)


def not_running() -> LocalError:
    """Return the error of a command that needs a daemon, where none runs."""
    return LocalError("the irons daemon does not run", hint="start it with `irons local up`")


def reach_keeper(paths: Paths, within: float = _ANSWER_WITHIN) -> Link | None:
    """Connect to the keeper; None where none serves.

    Raises:
        LocalError: its socket cannot be used.
    """
    try:
        return Link.to(paths.keeper_socket, within)
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except OSError as error:
        raise LocalError(
            f"the irons daemon can't be reached at {paths.keeper_socket}: {error.strerror}"
        ) from error


def ask_keeper(paths: Paths, link: Link, op: str, **fields: Any) -> Message:
    """Send a request to the keeper and return its answer.

    `ipc.keeper_requests` has what it may be. Its classes are not loaded here: that takes longer than the request,
    and this is on the way of every command.

    Raises:
        LocalError: it refuses, or does not answer.
    """
    try:
        return link.request(op, **fields)
    except RequestError as error:
        # The keeper knows cells alone, and a person who reads this knows sandboxes alone.
        raise LocalError("the sandbox does not run" if error.code == "absent" else error.message) from error
    except LinkError as error:
        raise broken(paths, f"it does not answer: {error}") from error


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
        nursery=GatewayProcess(body["nursery"]["pid"], body["nursery"]["failures"])
        if "nursery" in body
        else None,
    )


def _workers(body: Mapping[str, Any]) -> tuple[GatewayProcess, ...]:
    """The gateway's workers; an older daemon has one, and does not number it."""
    if "gateways" not in body:
        return (GatewayProcess(body["gateway"]["pid"], body["gateway"]["failures"], 0, body["cells"]),)
    return tuple(
        GatewayProcess(each["pid"], each["failures"], each["worker"], len(each["cells"]), each["memory"])
        for each in body["gateways"]
    )


def _order(version: str) -> tuple[int, ...]:
    """The release numbers of a version, for comparing; pre-releases count as their release."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()
