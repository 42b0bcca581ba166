"""The keeper, as the control plane and its engines see it: cells are made, entered and dropped there."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import Any

from irons_plugins.local.asynclink import AsyncLink
from irons_plugins.local.engines import CellError, Namespaces
from irons_plugins.local.link import LinkError, Message, RequestError

_WITHIN = 20.0


class KeptCells:
    """`engines.Cells` over the link to the keeper."""

    def __init__(self, link: AsyncLink) -> None:
        self._link = link

    async def make(self, cell: str, *, processes: int | None = None) -> None:
        """See `engines.Cells.make`."""
        limits = {} if processes is None else {"processes": processes}
        await self._ask("cell.make", cell=cell, limits=limits)

    async def namespaces(self, cell: str) -> Namespaces:
        """See `engines.Cells.namespaces`."""
        fds = (await self._request("cell.namespaces", cell=cell)).fds
        if len(fds) != len(Namespaces._fields):
            for fd in fds:
                os.close(fd)
            raise CellError(f"the keeper gave {len(fds)} descriptors for the namespaces of {cell}")
        return Namespaces(*fds)

    async def connect(self, cell: str, address: str, port: int, *, within: float) -> socket.socket:
        """See `engines.Cells.connect`."""
        try:
            message = await self._link.request(
                "cell.connect", within=within + 5, cell=cell, address=address, port=port, timeout=within
            )
        except RequestError as error:
            number = getattr(errno, error.code, None)
            if isinstance(number, int):
                raise OSError(number, error.message) from error
            raise CellError(error.message) from error
        except LinkError as error:
            raise CellError(f"the keeper is gone: {error}") from error
        if len(message.fds) != 1:
            message.close()
            raise CellError(f"the keeper gave no connection into {cell}")
        sock = socket.socket(fileno=message.fds[0])
        sock.setblocking(False)
        return sock

    async def adopt(self, cell: str, pid: int, started: int) -> None:
        """See `engines.Cells.adopt`."""
        await self._ask("cell.adopt", cell=cell, pid=pid, started=started)

    async def drop(self, cell: str) -> None:
        """See `engines.Cells.drop`."""
        await self._ask("cell.drop", cell=cell)

    async def status(self, within: float = 1.0) -> dict[str, Any]:
        """What the keeper says of itself.

        Raises:
            CellError: it does not answer.
        """
        message = await self._request("status", within=within)
        message.close()
        return message.body

    async def _ask(self, op: str, **fields: Any) -> None:
        (await self._request(op, **fields)).close()

    async def _request(self, op: str, *, within: float = _WITHIN, **fields: Any) -> Message:
        try:
            return await self._link.request(op, within=within, **fields)
        except RequestError as error:
            raise CellError(error.message) from error
        except LinkError as error:
            raise CellError(f"the keeper is gone: {error}") from error
        except (TimeoutError, asyncio.TimeoutError) as error:
            raise CellError("the keeper does not answer") from error
