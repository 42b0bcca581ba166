"""The keeper, as the control plane and its engines see it: cells are made, entered and dropped there."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from irons_local.cell.layout import Ends, Namespaces, Veth
from irons_local.control.clients.gateways import CellPlace
from irons_local.errors import CellError
from irons_local.ipc.aio import AsyncLink, keepers
from irons_local.ipc.fields import BadMessageError, UnknownMessageError
from irons_local.ipc.framing import LinkClosedError, LinkError, Message, RequestError
from irons_local.ipc.keeper_requests import (
    AdoptCell,
    CellNamespaces,
    CellServed,
    ConnectCell,
    DropCell,
    FindProgram,
    MakeCell,
    PlaceCell,
    Ready,
    Restart,
    TellStatus,
)
from irons_local.ipc.messages import KEEPER_TO_CONTROL, Moved, NewWorker, ToKeeper, body_of, call_of, read

_log = logging.getLogger(__name__)
_WITHIN = 120.0
"""Seconds for an answer: on a busy machine the disk alone may keep the keeper for many of them."""
_PLACED_WITHIN = 5.0
"""Seconds to ask again where a cell is served whose place is known, or is asked for again later."""
_NEXT_KEEPER = 20.0
_PROGRAM_WITHIN = 60.0
"""Seconds to find a program: the keeper ends the look after one, and no one waits for it."""


class KeeperClient:
    """The link to the keeper, and to the next one should it die; `protocol.Cells` for the engines."""

    def __init__(
        self,
        *,
        on_peer: Callable[[socket.socket, int, Sequence[str]], None],
        on_moved: Callable[[str, Sequence[int]], None],
    ) -> None:
        """Make a keeper that is not linked yet.

        Args:
            on_peer: called with each fresh link to a gateway worker that the keeper hands over, the worker's number,
                and its cells.
            on_moved: called with a cell that another worker serves from now on, and with every worker it ever had.
        """
        self._on_moved = on_moved
        self._on_peer = on_peer
        self._paths: dict[str, CellPlace] = {}
        self._link: AsyncLink | None = None
        self._linked = asyncio.Event()

    async def serve(self, sock: socket.socket, rendezvous: socket.socket | None, renewed: Renewed) -> None:
        """Listen to the keeper, and wait for the next one when it dies; for as long as this is not cancelled.

        Args:
            sock: the link to the keeper that started this process.
            rendezvous: a listening socket at which the next keeper calls; None ends with the first.
            renewed: awaited when a next keeper has called.
        """
        async for link in keepers(sock, rendezvous):
            is_next, self._link = self._link is not None, link
            if is_next:
                _log.info("a new keeper has connected")
                renewing = asyncio.ensure_future(renewed())
                renewing.add_done_callback(_report)
            self._linked.set()
            await self._listen(link)
            self._linked.clear()

    async def restart(self, name: str, worker: int | None = None) -> None:
        """Have the `gateway`, one worker of it, or the `server` started again.

        Raises:
            CellError: the keeper does not answer.
        """
        await self._ask(Restart(name, worker))

    async def place(self, cell: str) -> CellPlace:
        """Where a cell is served; it is given a worker here if it has none.

        While there is no keeper nothing moves, so its last answer is valid.

        Raises:
            CellError: the keeper does not answer, and never reported this cell.
        """
        known = self._paths.get(cell)
        if known is not None and not self._linked.is_set():
            return known
        try:
            message = await self._request(
                PlaceCell(cell), within=_WITHIN if known is None else _PLACED_WITHIN
            )
        except CellError:
            if known is None:
                raise
            return known
        message.close()
        place = CellPlace(
            int(message.body["worker"]), message.body.get("pid") is not None, tuple(message.body["served"])
        )
        # Without a keeper a worker that dies stays dead, and its link ends.
        self._paths[cell] = place._replace(runs=True)
        return place

    async def served(self, cell: str) -> Sequence[int] | None:
        """Every worker that serves or served a cell, as far as this keeper and those before it know; None without a keeper."""
        try:
            message = await self._request(CellServed(cell), within=_PLACED_WITHIN)
        except CellError:
            return None
        message.close()
        return [int(worker) for worker in message.body["served"]]

    async def release(self, cell: str) -> None:
        """Forget where a cell is served, which is gone for good; the next keeper may need it again."""
        self._paths.pop(cell, None)
        with contextlib.suppress(CellError):
            await self.drop(cell)

    async def ready(self) -> None:
        """Tell the keeper that the API answers."""
        if self._link is not None:
            with contextlib.suppress(LinkClosedError):
                await self._link.send(body_of(Ready()))

    async def make(self, cell: str) -> None:
        """See `engines.Cells.make`."""
        await self._ask(MakeCell(cell))

    async def make_with_veth(self, cell: str) -> Veth:
        """See `engines.Cells.make_with_veth`."""
        message = await self._request(MakeCell(cell, veth=True))
        message.close()
        try:
            return Veth(**message.body["veth"])
        except (LookupError, TypeError) as error:
            raise CellError(f"the keeper made no veth for {cell}: it is of an older version") from error

    async def namespaces(self, cell: str) -> Namespaces:
        """See `engines.Cells.namespaces`."""
        fds = (await self._request(CellNamespaces(cell))).fds
        if len(fds) != len(Namespaces._fields):
            for fd in fds:
                os.close(fd)
            raise CellError(f"the keeper gave {len(fds)} descriptors for the namespaces of {cell}")
        return Namespaces(*fds)

    async def connect(self, cell: str, address: str, port: int, *, within: float) -> socket.socket:
        """See `engines.Cells.connect`."""
        try:
            message = await self._linked_request(ConnectCell(cell, address, port, within), within=within + 5)
        except RequestError as error:
            number = getattr(errno, error.code, None)
            if isinstance(number, int):
                raise OSError(number, error.message) from error
            raise CellError(error.message) from error
        if len(message.fds) != 1:
            message.close()
            raise CellError(f"the keeper gave no connection into {cell}")
        sock = socket.socket(fileno=message.fds[0])
        sock.setblocking(False)
        return sock

    async def program(self, cell: str, ends: Ends) -> Mapping[str, Any] | None:
        """The program inside a cell that holds a connection: `program` and `pid`, as far as they are known; None where no one looked."""
        try:
            message = await self._request(FindProgram(cell, *ends), within=_PROGRAM_WITHIN)
        except CellError as error:
            # An older keeper does not know the request, and a busy one does not take it.
            _log.debug("no program is known: %s", error)
            return None
        message.close()
        return message.body

    async def adopt(self, cell: str, pid: int, started: int) -> None:
        """See `engines.Cells.adopt`."""
        await self._ask(AdoptCell(cell, pid, started))

    async def drop(self, cell: str) -> None:
        """See `engines.Cells.drop`."""
        await self._ask(DropCell(cell))

    async def status(self, within: float = 10.0) -> dict[str, Any]:
        """What the keeper says of itself.

        Raises:
            CellError: it does not answer.
        """
        message = await self._request(TellStatus(), within=within)
        message.close()
        return message.body

    def close(self) -> None:
        """End the link."""
        if self._link is not None:
            self._link.close()

    async def _listen(self, link: AsyncLink) -> None:
        try:
            while True:
                message = await link.recv()
                try:
                    match read(KEEPER_TO_CONTROL, message.body):
                        case NewWorker(worker, cells) if len(message.fds) == 1:
                            self._on_peer(socket.socket(fileno=message.fds.pop()), worker, cells)
                        case NewWorker():
                            raise BadMessageError("a new worker comes with one descriptor")
                        case Moved(cell, served):
                            self._on_moved(cell, served)
                except UnknownMessageError:
                    pass  # of a later version
                except BadMessageError as error:
                    _log.error("the keeper's %s: %s", message.body.get("op"), error)
                finally:
                    message.close()
        except LinkError as fault:
            _log.warning("the keeper is gone: %s", fault)
            link.close()

    async def _ask(self, asked: ToKeeper) -> None:
        (await self._request(asked)).close()

    async def _request(self, asked: ToKeeper, *, within: float = _WITHIN) -> Message:
        try:
            return await self._linked_request(asked, within=within)
        except RequestError as error:
            raise CellError(error.message) from error

    async def _linked_request(self, asked: ToKeeper, *, within: float) -> Message:
        op, fields = call_of(asked)
        try:
            async with asyncio.timeout(min(within, _NEXT_KEEPER)):
                await self._linked.wait()
            link = self._link
            if link is None:
                raise CellError("the keeper is gone")
            return await link.request(op, within=within, **fields)
        except LinkError as error:
            raise CellError(f"the keeper is gone: {error}") from error
        except TimeoutError as error:
            raise CellError("the keeper does not answer") from error


Renewed = Callable[[], Awaitable[object]]


def _report(done: asyncio.Future[object]) -> None:
    if not done.cancelled() and done.exception() is not None:
        _log.error("adopting the sandboxes that run failed", exc_info=done.exception())
