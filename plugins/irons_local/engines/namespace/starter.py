"""The warm process of `forkserver` as the engine sees it: kept, brought back where it has ended, asked to carry out orders."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Sequence
from typing import Any

from irons_local.ipc.aio import AsyncLink
from irons_local.ipc.framing import LinkError, Message
from irons_local.linux.processes import ended, send
from irons_local.linux.userns_call import end, program


class Starter:
    """One warm process, started when it is first wanted."""

    def __init__(self) -> None:
        self._link: AsyncLink | None = None
        self._process: Process | None = None
        self._turn = asyncio.Lock()

    async def warm(self) -> AsyncLink:
        """Have the process begin to import what a start takes; gives the link to it.

        Raises:
            OSError: it cannot be started.
        """
        async with self._turn:
            if self._link is None or self._link.closed:
                await self._let_go()
                near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
                self._link = AsyncLink(near)
                with far:
                    self._process = await asyncio.create_subprocess_exec(
                        *program("irons_local.engines.namespace.forkserver", str(far.fileno())),
                        stdin=DEVNULL,
                        stdout=DEVNULL,
                        pass_fds=[far.fileno()],
                        cwd="/",
                        start_new_session=True,
                    )
            return self._link

    async def carry_out(self, order: dict[str, Any], descriptors: Sequence[int]) -> dict[str, Any]:
        """Have a child carry out an order, and give its answer; a cancelled call ends the child.

        Args:
            order: `boot.Order`.
            descriptors: what `forkserver` says.

        Raises:
            LinkError: the child died without an answer.
            OSError: it cannot be started.
        """
        try:
            link, child = await self._born()
        except LinkError:
            # The warm process may have ended just now. A child that was not heard of has done nothing.
            link, child = await self._born()
        answered = False
        try:
            answer = await link.request("start", descriptors, order=order)
            answered = True
            return answer.body
        finally:
            link.close()
            try:
                if not answered:
                    send(child, signal.SIGKILL)
                    await asyncio.shield(ended(child))
            finally:
                os.close(child)

    async def close(self) -> None:
        """End the warm process; a start that goes on goes on."""
        async with self._turn:
            await self._let_go()

    async def _born(self) -> tuple[AsyncLink, int]:
        """A child that waits for its order: the link to it, and a descriptor of it (pidfd)."""
        warm = await self.warm()
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        link = AsyncLink(near)
        try:
            with far:
                await warm.send({"op": "fork"}, [far.fileno()])
            message: Message = await link.recv()
            if len(message.fds) != 1:
                message.close()
                raise LinkError("the child did not report its process id")
            return link, message.fds[0]
        except BaseException:
            link.close()
            raise

    async def _let_go(self) -> None:
        link, process = self._link, self._process
        self._link = self._process = None
        if link is not None:
            link.close()
        if process is not None:
            await asyncio.shield(end(process))
