"""The cells the keeper holds: their namespaces and sockets, with no process of ours in any of them."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from irons_plugins.local import maker, namespaces
from irons_plugins.local.cellnet import Ports
from irons_plugins.local.clients import Ask, Client, Report
from irons_plugins.local.link import Link, Message, RequestError, answer_of
from irons_plugins.local.loop import READ, Loop

NAME = re.compile(r"sb_[0-9a-f]{16}")

_MAKE_WITHIN = 30.0
_CONNECT_WITHIN = 5.0
_OUTPUT_BYTES = 1 << 20
_NAMESPACES = len(maker.Namespaces._fields)


class Cell(NamedTuple):
    """One cell: every descriptor in it is the keeper's."""

    name: str
    ports: Ports
    spaces: maker.Namespaces
    sockets: tuple[int, ...]

    def attachment(self) -> dict[str, Any]:
        """The notice that gives the cell to the gateway; its descriptors are `sockets`."""
        return {"op": "attach", "cell": self.name, "ports": self.ports._asdict()}

    def close(self) -> None:
        """Let go of the namespaces and sockets."""
        for fd in (*self.spaces, *self.sockets):
            os.close(fd)


class Cells:
    """Makes, enters, holds and drops cells, as requests ask.

    Args:
        loop: the keeper's.
        attach: called with a cell that the gateway shall serve.
        detach: called with the name of a cell it shall serve no more.
    """

    def __init__(self, loop: Loop, attach: Callable[[Cell], None], detach: Callable[[str], None]) -> None:
        self._loop, self._attach, self._detach = loop, attach, detach
        self._held: dict[str, Cell] = {}
        self._coming: set[str] = set()
        self.ops: dict[str, Callable[[Ask], None]] = {
            "cell.make": self._make,
            "cell.adopt": self._adopt,
            "cell.drop": self._drop,
            "cell.list": self._list,
            "cell.namespaces": self._namespaces,
            "cell.connect": self._connect,
            "cell.run": self._run,
            "watch": self._watch,
        }

    def __iter__(self) -> Any:
        return iter(list(self._held.values()))

    def __len__(self) -> int:
        return len(self._held)

    def restore(self, name: str, ports: Ports, fds: Sequence[int]) -> None:
        """Hold a cell again whose sockets come from a gateway that outlived the last keeper.

        It waits for the forked child, and so is for the keeper's start only.

        Raises:
            RequestError: the namespaces could not be entered.
            OSError: the descriptors are not a cell's sockets.
        """
        net = namespaces.network_of(fds[0])
        user = -1
        try:
            user = namespaces.owner_of(net)
            child = maker.fork(lambda link: maker.renew(link, user, net, ports))
            with Link(child.sock) as link:
                link.sock.settimeout(_MAKE_WITHIN)
                report = answer_of(link.recv())
        finally:
            os.close(net)
            if user >= 0:
                os.close(user)
        self._held[name] = Cell(name, ports, maker.Namespaces(*report.fds), tuple(fds))

    def close(self) -> None:
        """Let go of every cell."""
        while self._held:
            self._held.popitem()[1].close()

    def _cell(self, ask: Ask) -> Cell:
        name = ask.text("cell")
        cell = self._held.get(name)
        if cell is None:
            raise RequestError("absent", f"there is no cell {name}")
        return cell

    def _make(self, ask: Ask) -> None:
        name = ask.text("cell")
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a cell")
        if name in self._held or name in self._coming:
            raise RequestError("exists", f"the cell {name} is there already")
        most = (ask.body.get("limits") or {}).get("nproc")
        child = maker.fork(lambda link: maker.make(link, Ports(), most))
        self._expect(ask, name, child)

    def _adopt(self, ask: Ask) -> None:
        name, pid = ask.text("cell"), ask.number("pid")
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a cell")
        held = self._held.get(name)
        if held is not None:
            ask.ok({"ports": held.ports._asdict(), "fresh": False})
            return
        if name in self._coming:
            raise RequestError("exists", f"the cell {name} is being made")
        net = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        user = -1
        try:
            if namespaces.started(pid) != ask.number("started"):
                raise RequestError("absent", f"process {pid} is gone")
            if os.path.samestat(os.fstat(net), Path("/proc/self/ns/net").stat()):
                raise RequestError("state", f"process {pid} is in no cell")
            user = namespaces.owner_of(net)
            child = maker.fork(lambda link: maker.renew(link, user, net, None))
        finally:
            os.close(net)
            if user >= 0:
                os.close(user)
        self._expect(ask, name, child)

    def _expect(self, ask: Ask, name: str, child: maker.Child) -> None:
        self._coming.add(name)

        def done(message: Message | None) -> None:
            self._coming.discard(name)
            try:
                report = _report(message)
            except RequestError as error:
                ask.refuse(error.code, error.message)
                return
            ports = Ports(**report.body["ports"])
            spaces = maker.Namespaces(*report.fds[:_NAMESPACES])
            cell = self._held[name] = Cell(name, ports, spaces, tuple(report.fds[_NAMESPACES:]))
            self._attach(cell)
            ask.ok(report.body)

        self._report(child, done, _MAKE_WITHIN)

    def _drop(self, ask: Ask) -> None:
        cell = self._held.pop(ask.text("cell"), None)
        if cell is not None:
            self._detach(cell.name)
            cell.close()
        ask.ok()

    def _list(self, ask: Ask) -> None:
        ask.ok({"cells": [{"cell": cell.name, "ports": cell.ports._asdict()} for cell in self]})

    def _namespaces(self, ask: Ask) -> None:
        ask.ok({}, self._cell(ask).spaces)

    def _connect(self, ask: Ask) -> None:
        spaces = self._cell(ask).spaces
        address, port = ask.text("address"), ask.number("port")
        within = float(ask.body.get("timeout", _CONNECT_WITHIN))
        child = maker.fork(lambda link: maker.connect(link, spaces, address, port, within))

        def done(message: Message | None) -> None:
            try:
                report = _report(message)
            except RequestError as error:
                ask.refuse(error.code, error.message)
                return
            ask.ok({}, report.fds)
            report.close()

        self._report(child, done, within + 1.0)

    def _run(self, ask: Ask) -> None:
        _Run(self._loop, ask, self._cell(ask), self._report)

    def _watch(self, ask: Ask) -> None:
        name, pid = ask.text("cell"), ask.number("pid")
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            ask.ok({"alive": False})
            return
        found = namespaces.birth(pid)
        if found is None or found.started != ask.number("started"):
            os.close(pidfd)
            ask.ok({"alive": False})
            return
        client = ask.client
        if found.parent == os.getpid():
            os.close(pidfd)
            self._loop.on_end(pid, lambda status: _exited(client, name, pid, _code(status)))
        else:
            # Somebody else's child: the kernel tells when it ends, but not how.
            def ended() -> None:
                self._loop.forget(pidfd)
                os.close(pidfd)
                _exited(client, name, pid, None)

            self._loop.watch(pidfd, READ, ended)
        ask.ok({"alive": True})

    def _report(self, child: maker.Child, done: Callable[[Message | None], None], within: float) -> None:
        def late() -> None:
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)

        Report(self._loop, child.sock, done, within, late)


class _Run:
    """One program in a cell, from its request to its answer."""

    def __init__(
        self,
        loop: Loop,
        ask: Ask,
        cell: Cell,
        report: Callable[[maker.Child, Callable[[Message | None], None], float], None],
    ) -> None:
        self._loop, self._ask, self._cell = loop, ask, cell
        body = ask.body
        groups = body.get("cgroup") or []
        numbers = [int(number) for number in body.get("fds") or ()]
        if len(numbers) != len(ask.fds):
            raise ValueError("fds must number the descriptors that come with the request")
        self._wait = bool(body.get("wait")) or not body.get("argv")
        self._output = -1
        given = list(zip(ask.fds, numbers, strict=True))
        opened: list[int] = []
        if isinstance(body.get("stdin"), str):
            text = os.memfd_create("stdin")
            os.write(text, body["stdin"].encode())
            os.lseek(text, 0, os.SEEK_SET)
            opened.append(text)
            given.append((text, 0))
        if self._wait:
            # A file, not a pipe: what the program leaves running cannot keep its answer back.
            self._output = os.memfd_create("output")
            given += [(self._output, number) for number in (1, 2) if number not in numbers]
        job = maker.Job(
            argv=[str(word) for word in body.get("argv") or ()],
            env={str(key): str(value) for key, value in (body.get("env") or {}).items()},
            cwd=str(body.get("cwd") or ""),
            cgroups=[groups] if isinstance(groups, str) else [str(group) for group in groups],
            steps=body.get("steps") or [],
            fds=given,
        )
        spaces = cell.spaces
        child = maker.fork(lambda link: maker.run(link, spaces, job))
        self._pid, self._begun = child.pid, False
        self._status: int | None = None
        self._born = namespaces.started(child.pid) or 0
        for fd in opened:
            os.close(fd)
        self._timer = loop.after(float(body["timeout"]), self._late) if body.get("timeout") else None
        loop.on_end(child.pid, self._ended)
        report(child, self._started, _MAKE_WITHIN)

    def _started(self, message: Message | None) -> None:
        if message is not None:
            self._settle()
            error = message.body.get("error") or {}
            message.close()
            self._ask.refuse(str(error.get("code", "failed")), str(error.get("message", "it did not start")))
            return
        self._begun = True
        if not self._wait:
            self._ask.ok({"pid": self._pid, "started": self._born})
        if self._status is not None:
            self._finish(self._status)

    def _ended(self, status: int) -> None:
        self._status = status
        # The report may still be on its way: it says whether this is the program's end or a failure to start it.
        if self._begun:
            self._finish(status)

    def _finish(self, status: int) -> None:
        code = _code(status)
        if not self._wait:
            _exited(self._ask.client, self._cell.name, self._pid, code)
            return
        output = os.pread(self._output, _OUTPUT_BYTES, 0).decode("utf-8", "replace")
        self._settle()
        self._ask.ok({"pid": self._pid, "started": self._born, "code": code, "output": output})

    def _settle(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._output >= 0:
            os.close(self._output)
            self._output = -1

    def _late(self) -> None:
        # The program leads a session of its own, so this reaches what it started too.
        with suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)


def _report(message: Message | None) -> Message:
    if message is None:
        raise RequestError("failed", "the process that did it was ended")
    return answer_of(message)


def _exited(client: Client, cell: str, pid: int, code: int | None) -> None:
    client.send({"op": "exited", "cell": cell, "pid": pid, "code": code})


def _code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code
