"""The keeper: makes and holds the cells' sockets, and keeps the gateway's workers and the control plane running.

`python -m irons_local.keeper.keeper` runs one per user. It is single-threaded, needs the standard library only and
waits for nothing but events. Should it die, all else lives on; the next one finds it and takes over.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from irons.settings.xdg import config_file
from irons.version import __version__
from irons_local.config import worker_count
from irons_local.forkserver.confine import GATEWAY_ID
from irons_local.interpreter import options
from irons_local.ipc.fields import SANDBOX_ID, BadMessageError, UnknownMessageError
from irons_local.ipc.framing import RequestError
from irons_local.ipc.keeper_requests import (
    CellServed,
    Down,
    Greet,
    PlaceCell,
    Ready,
    Restart,
    Retire,
    TellStatus,
)
from irons_local.ipc.messages import TO_KEEPER, Moved, NewLink, NewWorker, ToKeeper, body_of, read
from irons_local.ipc.unixsock import listen, peer_of
from irons_local.keeper import daemonize
from irons_local.keeper.cells.children import fault
from irons_local.keeper.cells.loop import READ, Loop
from irons_local.keeper.cells.requests import Client, KeeperRequest
from irons_local.keeper.supervise.spawn import PROXIES, STATE, Plan
from irons_local.keeper.supervise.supervisor import ManagedProcess, end_found, find, say
from irons_local.keeper.supervise.workers import GatewayWorkers
from irons_local.log.context import request_id
from irons_local.log.line import LEVELS, VARIABLE, level_of
from irons_local.paths import Paths, PathsError

_LOG_EVERY = 30.0
_LOOK_EVERY = 0.05
_BREATH = 0.5
_GIVEN_UP_AFTER = 3
MEMBER = "--member"
_LOGGED = ("cell.make", "cell.drop")
"""Requests that are logged at every level, where one of the API led to them."""


class Keeper:
    """One user's keeper; `run` it once.

    Args:
        paths: where everything is; made already.
        listener: the socket on which it is asked.
        gateway: how the warm process is run from which the gateway's workers are forked.
        server: how the control plane is run.
        workers: how many workers the gateway has.
        version: what it says it is; processes of another version are not taken over.
    """

    def __init__(
        self,
        paths: Paths,
        listener: socket.socket,
        gateway: Plan,
        server: Plan,
        *,
        workers: int = 1,
        version: str = __version__,
    ) -> None:
        self._version = version
        self._debug = level_of(os.environ.get(VARIABLE, "")) <= LEVELS["debug"]
        self._paths = paths
        self._listener = listener
        self._loop = Loop()
        self._clients: set[Client] = set()
        self._ready = False
        self._resuming = False
        self._awaiting: list[KeeperRequest] = []
        self._downs: list[KeeperRequest] = []
        self._began = time.time()
        self._gateways = GatewayWorkers(
            self._loop, gateway, workers, version, paths.workers, self._introduce, self._tell_moved
        )
        self._cells = self._gateways.held
        self._server = ManagedProcess(
            self._loop, server, version, self._asked, self._server_begun, self._server_ended
        )

    def run(self) -> None:
        """Find or start the others, and serve until asked to end."""
        server = find(self._server.plan)
        if server is not None and server.version != self._version:
            end_found(server)
            server = None
        # What is found has its cells, and its peers if those were found too.
        self._resuming = server is not None
        self._gateways.run()
        if server is not None:
            self._server.resume(server)
        self._resuming = False
        # It reported this to an earlier keeper.
        self._ready = server is not None and self._server.pid == server.pid
        if server is None:
            self._server.start()
        elif not self._ready:
            # It ended just now, and the next one knows no worker.
            self._server_begun()
        self._listen()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.on_signal(number, self._end)
        self._cap_logs()
        # Less of this memory is copied for each forked child when the collector leaves it alone.
        gc.freeze()
        self._loop.run()
        self._close()

    def _close(self) -> None:
        for client in list(self._clients):
            client.close()
        self._cells.close()
        self._listener.close()
        self._loop.close()

    def _server_begun(self) -> None:
        self._ready = False
        if not self._resuming:
            for number in self._gateways:
                self._introduce(number)

    def _server_ended(self) -> None:
        self._ready = False

    def _introduce(self, number: int) -> None:
        """Give a worker and the control plane a link to one another."""
        worker, server = self._gateways.process(number).link, self._server.link
        if worker is None or server is None:
            return
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        worker.send(body_of(NewLink()), [near.fileno()])
        server.send(body_of(NewWorker(number, self._gateways.cells(number))), [far.fileno()])
        near.close()
        far.close()

    def _tell_moved(self, cell: str) -> None:
        if self._server.link is not None:
            self._server.link.send(body_of(Moved(cell, self._gateways.served(cell))))

    def _listen(self) -> None:
        self._loop.watch(self._listener.fileno(), READ, self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError as error:
            # Most likely there are no descriptors left; trying again at once would find none either.
            say(f"a client could not be let in: {error}")
            self._loop.forget(self._listener.fileno())
            self._loop.after(_BREATH, self._listen)
            return
        if peer_of(sock).uid != os.geteuid():
            sock.close()
            return
        self._clients.add(Client(self._loop, sock, self._asked, self._clients.discard))

    def _asked(self, ask: KeeperRequest) -> None:
        """Do what is asked; nothing that a request contains ends the keeper."""
        try:
            asked = read(TO_KEEPER, ask.body)
        except UnknownMessageError:
            ask.refuse("unknown", f"this keeper (irons {self._version}) does not know {ask.op!r}")
            return
        except BadMessageError as error:
            ask.refuse("input", str(error))
            return
        request = request_id(ask.body.get("request"))
        if request and (ask.op in _LOGGED or self._debug):
            say(ask.op, request=request, sandbox=_cell_named(ask))
        try:
            self._answer(ask, asked)
        except RequestError as error:
            ask.refuse(error.code, error.message)
        except Exception as error:  # noqa: BLE001 (one request must not end the service of all)
            said = fault(error)
            ask.refuse(said["code"], said["message"])

    def _answer(self, ask: KeeperRequest, asked: ToKeeper) -> None:
        match asked:
            case PlaceCell(name):
                # Before there is the cell: its policy goes there first.
                ask.ok(self._gateways.place(name))
            case CellServed(name):
                ask.ok({"served": self._gateways.served(name)})
            case Greet() | TellStatus():
                self._status(ask)
            case Ready() if "id" in ask.body:
                self._await_ready(ask)
            case Ready():
                ask.drop()
                self._readied()
            case Restart(name, worker):
                self._restart(name, worker)
                ask.ok()
            case Retire():
                self._retire(ask)
            case Down():
                self._down(ask)
            case _:
                self._cells.answer(ask, asked)

    def _status(self, ask: KeeperRequest) -> None:
        gateways = self._gateways.status()
        ask.ok(
            {
                "version": self._version,
                "pid": os.getpid(),
                "since": self._began,
                "ready": self._ready,
                "cells": len(self._cells),
                # Of one worker, as clients of a time when there was one expect it.
                "gateway": {
                    "pid": next((each["pid"] for each in gateways if each["pid"]), None),
                    "failures": max((each["failures"] for each in gateways), default=0),
                },
                "gateways": gateways,
                "nursery": _running(self._gateways.nursery),
                "server": _running(self._server),
            }
        )

    def _await_ready(self, ask: KeeperRequest) -> None:
        if self._ready:
            ask.ok({"pid": self._server.pid})
            return
        self._awaiting.append(ask)
        if len(self._awaiting) == 1:
            self._look()

    def _readied(self) -> None:
        self._ready = True
        while self._awaiting:
            self._awaiting.pop().ok({"pid": self._server.pid})

    def _look(self) -> None:
        """Tell those who wait for the control plane when it does not start."""
        if self._awaiting and self._server.failures < _GIVEN_UP_AFTER:
            self._loop.after(_LOOK_EVERY, self._look)
            return
        while self._awaiting:
            words = self._server.last_words()
            self._awaiting.pop().refuse("failed", f"the control plane does not start: {words}")

    def _restart(self, name: str | None, worker: int | None) -> None:
        """End and start again the gateway, or one worker of it, the server, or all; what they serve lives on."""
        if name in (None, "gateway"):
            self._gateways.restart(worker)
        if name in (None, self._server.plan.name):
            self._server.renew()
            # Whoever asks from now on means the next one.
            self._ready = False

    def _retire(self, ask: KeeperRequest) -> None:
        """End, leaving all else to the next keeper."""
        ask.ok({"pid": os.getpid()})
        self._loop.stop()

    def _down(self, ask: KeeperRequest) -> None:
        self._downs.append(ask)
        if len(self._downs) == 1:
            self._end()

    def _end(self) -> None:
        """End the others, and then this process."""
        self._gateways.end(lambda: self._server.end(self._ended))

    def _ended(self) -> None:
        sockets = [self._paths.runtime / f"{name}.sock" for name in ("keeper", "server", "api")]
        for path in (*sockets, self._server.plan.process, self._paths.workers):
            path.unlink(missing_ok=True)
        for ask in self._downs:
            ask.ok({"pid": os.getpid()})
        self._loop.stop()

    def _cap_logs(self) -> None:
        for log in self._paths.logs.glob("*.log"):
            with suppress(OSError):
                daemonize.cap(log)
        self._loop.after(_LOG_EVERY, self._cap_logs)


def _cell_named(ask: KeeperRequest) -> str:
    name = ask.body.get("cell")
    return name if isinstance(name, str) and SANDBOX_ID.fullmatch(name) else ""


def _running(worker: ManagedProcess) -> dict[str, object]:
    return {"pid": worker.pid if worker.link else None, "failures": worker.failures}


def warm(paths: Paths, module: str, *flags: str) -> Plan:
    """How the warm process is run from which workers are forked.

    Args:
        paths: where everything is.
        module: a package whose `__main__.main` is what a worker does.
        *flags: options of the interpreter.
    """
    return Plan(
        "gateway",
        [*flags, "-m", "irons_local.forkserver.confine", module, STATE, str(paths.state)],
        paths.gateway,
        paths.logs / "gateway.log",
        paths.local,
        paths.runtime,
        whole=True,
        link="IRONS_NURSERY",
        stays=False,
        without=PROXIES,
    )


def plans(paths: Paths, *, member: bool = False) -> tuple[Plan, Plan]:
    """How the gateway's warm process and the control plane are run; on a member of a fleet its agent has that place."""
    module = "irons_local.member.agent" if member else "irons_local.control.server"
    server = [*options(), "-m", module, STATE, str(paths.state)]
    return (
        warm(paths, "irons_local.gateway", *options()),
        Plan("server", server, paths.local, paths.logs / "server.log", paths.local, paths.runtime),
    )


def main(arguments: Sequence[str]) -> int:
    """Run this user's keeper.

    Args:
        arguments: `--state DIR`, by which the process can be found; `--member` to have the agent of a fleet's member in place of a
            control plane; `--foreground` to stay attached to the terminal; `--ready FD`, a descriptor that gets one line
            of JSON, `{"ok": {"pid"}}` once requests are taken, `{"another": text}` where a
            keeper is there already, or `{"error": text}`.

    Returns:
        0 when it was asked to end, 1 with a line on stderr when it could not start.
    """
    ready = int(arguments[arguments.index("--ready") + 1]) if "--ready" in arguments else -1
    try:
        paths = Paths.of().create()
        if os.geteuid() == 0:
            os.chown(paths.gateway, GATEWAY_ID, GATEWAY_ID)
        if "--foreground" not in arguments:
            daemonize.detach(paths.logs / "keeper.log")
        if MEMBER not in arguments and (paths.member / "identity").exists():
            # A control plane would take in, and remove, the log that is the server's.
            raise daemonize.DaemonizeError("this machine is a member of a fleet: use irons on its server")
        # After the last fork: the locks name this process.
        locks = daemonize.lock(paths)
        daemonize.prepare([*locks, ready])
        os.chdir(paths.local)
        workers = worker_count.wanted(Path(config_file(os.environ)))
        keeper = Keeper(
            paths, listen(paths.keeper_socket), *plans(paths, member=MEMBER in arguments), workers=workers
        )
    except daemonize.AnotherError as error:
        _tell(ready, {"another": f"{error}"})
        return 1
    except (PathsError, daemonize.DaemonizeError, OSError) as error:
        say(f"{error}")
        _tell(ready, {"error": f"{error}"})
        return 1
    _tell(ready, {"ok": {"pid": os.getpid()}})
    keeper.run()
    return 0


def _tell(ready: int, said: dict[str, object]) -> None:
    if ready >= 0:
        with suppress(OSError):  # no one waits any more
            os.write(ready, json.dumps(said).encode() + b"\n")
            os.close(ready)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
