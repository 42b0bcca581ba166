"""The cells the keeper holds: their namespaces and sockets, with no process of ours in any of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from irons_local.cell.layout import LOOPBACK4, SANDBOX4, SOCKETS, Ends, Namespaces, Ports, outer_name
from irons_local.ipc.fields import SANDBOX_ID
from irons_local.ipc.framing import Body, Message, RequestError, answer_of
from irons_local.ipc.keeper_requests import (
    AdoptCell,
    CellNamespaces,
    ConnectCell,
    DropCell,
    FindProgram,
    MakeCell,
)
from irons_local.ipc.link import Link
from irons_local.ipc.messages import Attach
from irons_local.keeper.cells import children, found_program
from irons_local.keeper.cells.loop import Loop
from irons_local.keeper.cells.requests import ChildResult, KeeperRequest
from irons_local.linux import namespaces

_MAKE_WITHIN = 100.0
_MOST_LOOKING = 2
"""Children at most that look for a program at once."""
_LONGEST_PROGRAM = 512

CellRequest = MakeCell | AdoptCell | DropCell | CellNamespaces | ConnectCell | FindProgram
_NAMESPACES = len(Namespaces._fields)


class CellSockets(NamedTuple):
    """One cell: every descriptor in it is the keeper's."""

    name: str
    ports: Ports
    spaces: Namespaces
    sockets: tuple[int, ...]
    plugged: bool = False

    def attachment(self) -> Attach:
        """The notice that gives the cell to the gateway; its descriptors are `sockets`."""
        return Attach(self.name, self.ports._asdict())

    def close(self) -> None:
        """Let go of the namespaces and sockets."""
        for fd in (*self.spaces, *self.sockets):
            os.close(fd)


class CellRegistry:
    """Makes, enters, holds and drops cells, as requests ask.

    Args:
        loop: the keeper's.
        attach: called with a cell that shall be served.
        detach: called with the name of a cell that shall be served no more, or was only named.
    """

    def __init__(
        self, loop: Loop, attach: Callable[[CellSockets], None], detach: Callable[[str], None]
    ) -> None:
        self._loop, self._attach, self._detach = loop, attach, detach
        self._held: dict[str, CellSockets] = {}
        self._coming: set[str] = set()
        self._looking = 0

    def __iter__(self) -> Iterator[CellSockets]:
        return iter(list(self._held.values()))

    def __len__(self) -> int:
        return len(self._held)

    def answer(self, ask: KeeperRequest, asked: CellRequest) -> None:
        """Do what is asked of cells, and answer, now or later.

        Raises:
            RequestError: it cannot be done.
        """
        match asked:
            case MakeCell():
                self._make(ask, asked)
            case AdoptCell():
                self._adopt(ask, asked)
            case DropCell(name):
                self._drop(ask, name)
            case CellNamespaces(name):
                ask.ok({}, self._cell(name).spaces)
            case ConnectCell():
                self._connect(ask, asked)
            case FindProgram():
                self._find_program(ask, asked)

    def restore(self, name: str, ports: Ports, fds: Sequence[int]) -> CellSockets:
        """Hold a cell again whose sockets come from a gateway that outlived the last keeper.

        It waits for the forked child, and so is for the keeper's start only.

        Raises:
            RequestError: the namespaces could not be entered.
            OSError: the descriptors are not a cell's sockets.
            ValueError: nor is the rest what it should be; a gateway may have been taken over.
        """
        if (
            not SANDBOX_ID.fullmatch(name)
            or name in self._held
            or len(fds) != len(SOCKETS)
            or not all(0 < port < 65536 for port in ports)
        ):
            raise ValueError(f"{name!r} is not a cell")
        net = namespaces.network_of(fds[0])
        user = -1
        try:
            user = namespaces.owner_of(net)
            child = children.fork(lambda link: children.renew(link, user, net, ports))
            os.close(child.pidfd)
            with Link(child.sock) as link:
                link.sock.settimeout(_MAKE_WITHIN)
                report = answer_of(link.recv())
        finally:
            os.close(net)
            if user >= 0:
                os.close(user)
        spaces, plugged = Namespaces(*report.fds), "plugged" in report.body
        cell = self._held[name] = CellSockets(name, ports, spaces, tuple(fds), plugged)
        return cell

    def close(self) -> None:
        """Let go of every cell."""
        while self._held:
            self._held.popitem()[1].close()

    def _cell(self, name: str) -> CellSockets:
        cell = self._held.get(name)
        if cell is None:
            raise RequestError("absent", f"there is no cell {name}")
        return cell

    def _make(self, ask: KeeperRequest, asked: MakeCell) -> None:
        name = asked.cell
        if name in self._held or name in self._coming:
            raise RequestError("exists", f"the cell {name} is there already")
        if asked.veth and os.geteuid() != 0:
            raise RequestError("state", "only root's keeper makes a cell with a veth")
        outer = outer_name(name) if asked.veth else ""
        child = children.fork(lambda link: children.make(link, Ports(), outer))
        self._expect(ask, name, child)

    def _adopt(self, ask: KeeperRequest, asked: AdoptCell) -> None:
        name, pid = asked.cell, asked.pid
        held = self._held.get(name)
        if held is not None:
            ask.ok({"ports": held.ports._asdict(), "fresh": False})
            return
        if name in self._coming:
            raise RequestError("exists", f"the cell {name} is being made")
        try:
            net = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise RequestError(
                "absent", f"process {pid} is not there to be adopted: {error.strerror}"
            ) from error
        user = -1
        try:
            if namespaces.started(pid) != asked.started:
                raise RequestError("absent", f"process {pid} is gone")
            if os.path.samestat(os.fstat(net), Path("/proc/self/ns/net").stat()):
                raise RequestError("state", f"process {pid} is in no cell")
            user = namespaces.owner_of(net)
            child = children.fork(lambda link: children.renew(link, user, net, None))
        finally:
            os.close(net)
            if user >= 0:
                os.close(user)
        self._expect(ask, name, child)

    def _expect(self, ask: KeeperRequest, name: str, child: children.Child) -> None:
        self._coming.add(name)

        def done(message: Message | None) -> None:
            self._coming.discard(name)
            try:
                report = _report(message, running)
            except RequestError as error:
                ask.refuse(error.code, error.message)
                return
            ports = Ports(**report.body["ports"])
            spaces = Namespaces(*report.fds[:_NAMESPACES])
            plugged = not report.body.keys().isdisjoint({"veth", "plugged"})
            made = tuple(report.fds[_NAMESPACES:])
            cell = self._held[name] = CellSockets(name, ports, spaces, made, plugged)
            self._attach(cell)
            ask.ok(report.body)

        running = ChildResult(self._loop, child, done, _MAKE_WITHIN)

    def _drop(self, ask: KeeperRequest, name: str) -> None:
        self._detach(name)
        cell = self._held.pop(name, None)
        if cell is None:
            ask.ok()
            return
        try:
            if cell.plugged:
                self._unplug(ask, cell)
            else:
                ask.ok()
        finally:
            cell.close()

    def _unplug(self, ask: KeeperRequest, cell: CellSockets) -> None:
        net, outer = cell.spaces.net, outer_name(cell.name)
        child = children.fork(lambda link: children.unplug(link, net, outer))
        # Until it is gone no other of that name is made.
        self._coming.add(cell.name)

        def done(message: Message | None) -> None:
            self._coming.discard(cell.name)
            try:
                _report(message, running)
            except RequestError as error:
                ask.refuse(error.code, error.message)
                return
            ask.ok()

        running = ChildResult(self._loop, child, done, _MAKE_WITHIN)

    def _connect(self, ask: KeeperRequest, asked: ConnectCell) -> None:
        cell = self._cell(asked.cell)
        spaces = cell.spaces
        _, address, port, within = asked
        if cell.plugged and address == LOOPBACK4:
            # Whoever asks means the machine's own, which is at the other end.
            address = SANDBOX4
        child = children.fork(lambda link: children.connect(link, spaces, address, port, within))

        def done(message: Message | None) -> None:
            try:
                report = _report(message, running)
            except RequestError as error:
                ask.refuse(error.code, error.message)
                return
            ask.ok({}, report.fds)
            report.close()

        running = ChildResult(self._loop, child, done, within + 1.0)

    def _find_program(self, ask: KeeperRequest, asked: FindProgram) -> None:
        spaces = self._cell(asked.cell).spaces
        ends = Ends(*asked[1:])
        if self._looking >= _MOST_LOOKING:
            raise RequestError("busy", f"{self._looking} programs are being looked for")
        keeper = os.getpid()
        child = children.fork(lambda link: found_program.report(link, spaces, ends, keeper))
        self._looking += 1

        def done(message: Message | None) -> None:
            self._looking -= 1
            try:
                report = _report(message, running)
            except RequestError as error:
                ask.refuse(error.code, error.message)
                return
            report.close()
            ask.ok(_program_in(report.body))

        running = ChildResult(self._loop, child, done, found_program.WITHIN)


def _program_in(body: Body) -> Body:
    """What the answer says of a program, of what a child reported."""
    program, pid = body.get("program"), body.get("pid")
    if not isinstance(program, str) or not program:
        return {}
    found: Body = {"program": program[:_LONGEST_PROGRAM]}
    return {**found, "pid": pid} if type(pid) is int and pid > 0 else found


def _report(message: Message | None, running: ChildResult) -> Message:
    """What a child reported. Raises `RequestError`; one that took too long is an ETIMEDOUT, as of a connection."""
    if message is None and running.late:
        raise RequestError("ETIMEDOUT", f"it was not done within {running.within:g} s")
    if message is None:
        raise RequestError("failed", "the process that did it was ended")
    return answer_of(message)
