"""The keeper: makes and holds the cells' sockets, and keeps the gateway and the control plane running.

`python -m irons_plugins.local.keeper` runs one per user. It is single-threaded, needs the standard library only and
waits for nothing but events. Should it die, all else lives on; the next one finds it and takes over.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from irons.version import __version__
from irons_plugins.local import namespaces
from irons_plugins.local.cellnet import Ports
from irons_plugins.local.cells import Cell, Cells
from irons_plugins.local.clients import Ask, Client
from irons_plugins.local.confined import GATEWAY_ID
from irons_plugins.local.link import Link, LinkError, RequestError, listen, peer_of
from irons_plugins.local.loop import READ, Loop
from irons_plugins.local.maker import fault
from irons_plugins.local.places import Places, PlacesError
from irons_plugins.local.workers import Found, Plan, Worker, end_found, find, say

_LOG_EVERY = 30.0
_LOG_MOST = 4 << 20
_LOG_KEPT = 1 << 20
_SURRENDER_WITHIN = 5.0
_LOCK_WITHIN = 5.0
_GIVEN_UP_AFTER = 3


class Keeper:
    """One user's keeper; `run` it once.

    Args:
        places: where everything is; made already.
        listener: the socket on which it is asked.
        gateway: how the gateway is run.
        server: how the control plane is run.
    """

    def __init__(self, places: Places, listener: socket.socket, gateway: Plan, server: Plan) -> None:
        self._places = places
        self._listener = listener
        self._loop = Loop()
        self._clients: set[Client] = set()
        self._ready = False
        self._acquainted = False
        self._awaiting: list[Ask] = []
        self._began = time.time()
        self._cells = Cells(self._loop, self._attach, self._detach)
        self._gateway = Worker(self._loop, gateway, __version__, Ask.drop, self._gateway_begun)
        self._server = Worker(self._loop, server, __version__, self._asked, self._server_begun)
        self._ops: dict[str, Callable[[Ask], None]] = {
            **self._cells.ops,
            "hello": self._status,
            "status": self._status,
            "ready": self._await_ready,
            "restart": self._restart,
            "retire": self._retire,
            "down": self._down,
        }

    def run(self) -> None:
        """Find or start the others, and serve until told to end."""
        gateway, server = find(self._gateway.plan), find(self._server.plan)
        if gateway is not None and not self._recover(gateway):
            gateway = None
        if server is not None and server.version != __version__:
            end_found(server)
            server = None
        # Where both are found they know one another already.
        self._acquainted = gateway is not None and server is not None
        for worker, found in ((self._gateway, gateway), (self._server, server)):
            if found is not None:
                worker.take(found.pid, found.sock)
        self._acquainted = False
        # It said so to an earlier keeper.
        self._ready = server is not None
        for worker, found in ((self._gateway, gateway), (self._server, server)):
            if found is None:
                worker.start()
        self._loop.watch(self._listener.fileno(), READ, self._accept)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.on_signal(number, lambda: self._end_all(self._loop.stop))
        self._cap_logs()
        self._loop.run()
        self._close()

    def _close(self) -> None:
        for client in list(self._clients):
            client.close()
        self._cells.close()
        self._listener.close()
        self._loop.close()

    def _recover(self, found: Found) -> bool:
        """Hold again what a living gateway serves; True if that gateway is to go on."""
        link = Link(found.sock)
        found.sock.settimeout(_SURRENDER_WITHIN)
        try:
            for name in link.request("surrender").body["cells"]:
                cell = link.request("surrender", cell=name)
                self._cells.restore(name, Ports(**cell.body["ports"]), cell.fds)
        except (LinkError, RequestError, OSError, LookupError, TypeError) as error:
            say(f"the gateway that was found is of no use, and ended: {error}")
            end_found(found)
            return False
        if found.version != __version__:
            end_found(found)
            return False
        return True

    def _gateway_begun(self) -> None:
        for cell in self._cells:
            self._attach(cell)
        self._introduce()

    def _server_begun(self) -> None:
        self._ready = False
        self._introduce()

    def _introduce(self) -> None:
        """Give the gateway and the control plane a link to one another."""
        gateway, server = self._gateway.link, self._server.link
        if gateway is None or server is None or self._acquainted:
            return
        ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        for link, end in zip((gateway, server), ends, strict=True):
            link.send({"op": "peer"}, [end.fileno()])
            end.close()

    def _attach(self, cell: Cell) -> None:
        if self._gateway.link is not None:
            self._gateway.link.send(cell.attachment(), cell.sockets)

    def _detach(self, name: str) -> None:
        if self._gateway.link is not None:
            self._gateway.link.send({"op": "detach", "cell": name})

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError as error:
            say(f"a client could not be let in: {error}")
            return
        if peer_of(sock).uid != os.geteuid():
            sock.close()
            return
        self._clients.add(Client(self._loop, sock, self._asked, self._clients.discard))

    def _asked(self, ask: Ask) -> None:
        """Do what is asked; nothing that a request contains ends the keeper."""
        if ask.op == "ready" and "id" not in ask.body:
            ask.drop()
            self._readied()
            return
        op = self._ops.get(ask.op)
        if op is None:
            ask.refuse("unknown", f"this keeper (irons {__version__}) does not know {ask.op!r}")
            return
        try:
            op(ask)
        except RequestError as error:
            ask.refuse(error.code, error.message)
        except ValueError as error:
            ask.refuse("input", str(error))
        except Exception as error:  # noqa: BLE001 (one request must not end the service of all)
            said = fault(error)
            ask.refuse(said["code"], said["message"])

    def _status(self, ask: Ask) -> None:
        workers = {
            worker.plan.name: {"pid": worker.pid if worker.link else None, "failures": worker.failures}
            for worker in (self._gateway, self._server)
        }
        ask.ok(
            {
                "version": __version__,
                "pid": os.getpid(),
                "since": self._began,
                "ready": self._serving(),
                "cells": len(self._cells),
                **workers,
            }
        )

    def _serving(self) -> bool:
        return self._ready and self._server.link is not None

    def _await_ready(self, ask: Ask) -> None:
        if self._serving():
            ask.ok({"pid": self._server.pid})
        else:
            self._awaiting.append(ask)
            self._check_start()

    def _readied(self) -> None:
        self._ready = True
        while self._awaiting:
            self._awaiting.pop().ok({"pid": self._server.pid})

    def _check_start(self) -> None:
        """Tell those who wait for the control plane when it does not start."""
        if not self._awaiting:
            return
        if self._server.failures >= _GIVEN_UP_AFTER:
            words = self._server.last_words()
            while self._awaiting:
                self._awaiting.pop().refuse("failed", f"the control plane does not start: {words}")
            return
        self._loop.after(0.1, self._check_start)

    def _restart(self, ask: Ask) -> None:
        """End and start again the gateway, the server, or both; what they serve lives on."""
        name = ask.body.get("name")
        for worker in (self._gateway, self._server):
            if name in (None, worker.plan.name):
                worker.renew()
        ask.ok()

    def _retire(self, ask: Ask) -> None:
        """End, leaving all else to the next keeper."""
        ask.ok({"pid": os.getpid()})
        self._loop.stop()

    def _down(self, ask: Ask) -> None:
        def done() -> None:
            ask.ok({"pid": os.getpid()})
            for name in (
                "keeper.sock",
                "gateway.sock",
                "server.sock",
                "gateway.json",
                "server.json",
                "api.sock",
            ):
                (self._places.runtime / name).unlink(missing_ok=True)
            self._loop.stop()

        self._end_all(done)

    def _end_all(self, done: Callable[[], None]) -> None:
        self._gateway.end(lambda: self._server.end(done))

    def _cap_logs(self) -> None:
        for name in ("keeper", "gateway", "server"):
            with suppress(OSError):
                _cap(self._places.logs / f"{name}.log")
        self._loop.after(_LOG_EVERY, self._cap_logs)


def plans(places: Places) -> tuple[Plan, Plan]:
    """How the gateway and the control plane are run."""
    confined = ["-P", "-m", "irons_plugins.local.confined", "irons_plugins.local.gateway"]
    server = ["-P", "-m", "irons_plugins.local.server"]
    return (
        Plan("gateway", confined, places.gateway, places.logs / "gateway.log", places.runtime),
        Plan("server", server, places.local, places.logs / "server.log", places.runtime),
    )


def _cap(log: Path) -> None:
    """Keep a log from growing for ever: its end is kept beside it and it starts again."""
    if log.stat().st_size > _LOG_MOST:
        with log.open("r+b") as file:
            file.seek(-_LOG_KEPT, os.SEEK_END)
            log.with_suffix(".log.1").write_bytes(file.read())
            # Whoever writes appends, and so goes on at the new end.
            file.truncate(0)


def _lock(path: Path) -> int | None:
    """Take a lock that holds as long as this process lives; None if another process keeps it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    deadline = time.monotonic() + _LOCK_WITHIN
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(fd)
                return None
            time.sleep(0.02)
        else:
            return fd


def _detach(log: Path) -> None:
    """Leave the terminal, the session and the parent that started this process."""
    if os.fork():
        os._exit(0)
    os.setsid()
    null = os.open("/dev/null", os.O_RDONLY)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    for source, number in ((null, 0), (file, 1), (file, 2)):
        os.dup2(source, number)
    os.close(null)
    os.close(file)


def _close_inherited(wanted: set[int]) -> None:
    """Close whatever the process that started this one left open: it would stay open in every sandbox's programs."""
    for fd in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if fd > 2 and fd not in wanted:
            with suppress(OSError):  # the one that the listing itself was read from
                os.close(fd)


def main() -> int:
    """Run this user's keeper; 0 when it was told to end, 1 with a line on stderr when it could not start."""
    parser = argparse.ArgumentParser(prog="irons-keeper")
    parser.add_argument("--ready", type=int, default=-1, help="descriptor that hears when requests are taken")
    parser.add_argument("--foreground", action="store_true", help="stay attached to the terminal")
    options = parser.parse_args()
    try:
        places = Places.of().create()
        locks = [_lock(places.lock), _lock(places.local / "lock")]
    except (PlacesError, OSError) as error:
        return _no_start(options.ready, f"{error}")
    if None in locks:
        return _no_start(options.ready, f"another keeper holds {places.lock} or {places.local / 'lock'}")
    if os.geteuid() == 0:
        os.chown(places.gateway, GATEWAY_ID, GATEWAY_ID)
    if not options.foreground:
        _detach(places.logs / "keeper.log")
    _close_inherited({*(lock for lock in locks if lock is not None), options.ready})
    os.chdir(places.local)
    os.umask(0o077)
    namespaces.prctl(namespaces.PR_SET_CHILD_SUBREAPER, 1)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    keeper = Keeper(places, listen(places.keeper_socket), *plans(places))
    if options.ready >= 0:
        os.write(options.ready, json.dumps({"ok": {"pid": os.getpid()}}).encode() + b"\n")
        os.close(options.ready)
    keeper.run()
    return 0


def _no_start(ready: int, message: str) -> int:
    say(message)
    if ready >= 0:
        os.write(ready, json.dumps({"error": message}).encode() + b"\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
