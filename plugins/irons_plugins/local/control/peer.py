"""The gateway, as the control plane sees it: policies go there, and word of new audit records comes back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from irons_plugins.local.asynclink import AsyncLink
from irons_plugins.local.control.errors import ApiError, unready
from irons_plugins.local.link import LinkClosedError, LinkError, RequestError

_log = logging.getLogger(__name__)
_WITHIN = 10.0
_RENEWED_WITHIN = 5.0


class Gateway:
    """The link to the gateway, across the gateway's restarts; the keeper hands over a new end each time."""

    def __init__(
        self,
        *,
        on_audit: Callable[[str], None],
        on_connect: Callable[[], Awaitable[None]],
        on_lost: Callable[[], Awaitable[None]],
        connections: int | None = None,
    ) -> None:
        """Make a gateway that is not connected yet.

        Args:
            on_audit: called with the run whose log has grown.
            on_connect: awaited each time a gateway is there anew.
            on_lost: awaited when the link has ended and no other came in its place for a while.
            connections: what each sandbox may have at once; None leaves it to the gateway.
        """
        self._on_audit = on_audit
        self._on_connect = on_connect
        self._on_lost = on_lost
        self._limits = {} if connections is None else {"connections": connections}
        self._link: AsyncLink | None = None
        self._linked = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def connected(self) -> bool:
        """True while a gateway is at the other end."""
        return self._link is not None and not self._link.closed

    def attach(self, sock: socket.socket) -> None:
        """Take a fresh end of a link to the gateway, in place of the one before."""
        if self._link is not None:
            self._link.close()
        self._link = link = AsyncLink(sock)
        self._linked.set()
        for work in (self._listen(link), self._greet()):
            task = asyncio.ensure_future(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def push(self, cell: str, name: str, policy: dict[str, Any]) -> int:
        """Put a policy in force for a cell.

        Returns:
            How many live connections it cut.

        Raises:
            ApiError: no gateway confirmed it in time.
        """
        sandbox = {"id": cell, "name": name, **self._limits}
        answer = await self._request("policy", cell=cell, sandbox=sandbox, policy=policy)
        return _count(answer)

    async def impact(self, cell: str, policy: dict[str, Any]) -> int:
        """How many live connections of a cell a policy would cut.

        Raises:
            ApiError: no gateway answered in time.
        """
        return _count(await self._request("impact", cell=cell, policy=policy))

    async def listeners(self, listening: Sequence[tuple[str, int]]) -> None:
        """Tell where irons itself listens: no rule opens that to a sandbox.

        Raises:
            ApiError: no gateway answered in time.
        """
        await self._request("listeners", listeners=[list(each) for each in listening])

    async def forget(self, cell: str) -> None:
        """Let the gateway forget a cell for good.

        Raises:
            ApiError: no gateway answered in time.
        """
        await self._request("forget", cell=cell)

    async def stats(self, within: float = 1.0) -> dict[str, Any]:
        """What the gateway says of itself.

        Raises:
            ApiError: no gateway answered in time.
        """
        return await self._request("stats", within=within)

    async def close(self) -> None:
        """End the link."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._link is not None:
            self._link.close()

    async def _request(self, op: str, *, within: float | None = None, **fields: Any) -> dict[str, Any]:
        """Ask the gateway; every request may be repeated, so one that dies with its gateway goes to the next."""
        try:
            async with asyncio.timeout(_WITHIN if within is None else within):
                while True:
                    await self._linked.wait()
                    link = self._link
                    try:
                        if link is None:
                            raise LinkClosedError("not connected")
                        message = await link.request(op, **fields)
                    except LinkClosedError:
                        if self._link is link:
                            self._linked.clear()
                        continue
                    message.close()
                    return message.body
        except TimeoutError:
            raise unready("the gateway does not answer; see `irons local status`") from None
        except LinkError as error:
            raise ApiError(400, f"the policy does not fit: {error}") from error
        except RequestError as error:
            raise ApiError(500, f"the gateway refused: {error.message}") from error

    async def _listen(self, link: AsyncLink) -> None:
        try:
            while True:
                message = await link.recv()
                if message.body.get("op") == "audit":
                    self._on_audit(str(message.body.get("run", "")))
                message.close()
        except LinkError as fault:
            if self._link is not link:
                return
            self._linked.clear()
            _log.info("the gateway is gone: %s", fault)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RENEWED_WITHIN):
                await self._linked.wait()
                return
        await self._on_lost()

    async def _greet(self) -> None:
        await self._on_connect()


def _count(answer: dict[str, Any]) -> int:
    cut = answer.get("cut", 0)
    return cut if isinstance(cut, int) else 0
