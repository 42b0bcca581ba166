"""Reads the requests of an HTTP/1 connection from its client, within the time and the memory that each may take."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from irons_local.gateway.budget import patience
from irons_local.gateway.budget.undecided import Budget, Meter
from irons_local.gateway.http1.authority import BadRequestError
from irons_local.gateway.http1.heads import Head
from irons_local.gateway.http1.reader import RequestReader
from irons_local.gateway.streams.stream import CHUNK, Wire


class Requests:
    """Reads requests from a client.

    Args:
        client: where they come from.
        first: bytes of it that were already read.
        budget: of what the connections of its cell may hold while it is not clear what they want.
    """

    def __init__(self, client: Wire, first: bytes, budget: Budget | None = None) -> None:
        self._client = client
        self._budget = budget
        self._reader = RequestReader(first)

    async def head(self) -> Head | None:
        """The next request's head; None at the end of the connection.

        Raises:
            BadRequestError: it is malformed, or does not come in time.
            TooMuchError: there is no room for it.
            OSError: the connection broke.
        """
        if self._budget is None or self._client.meter is not None:
            return await self._head()
        # A later request is as undecided as the first was.
        meter = self._client.meter = Meter(self._budget)
        try:
            return await self._head()
        finally:
            meter.close()
            self._client.meter = None

    async def _head(self) -> Head | None:
        reader = self._reader
        while not reader.begun():
            if not await self._more():
                return None
        try:
            async with asyncio.timeout(patience.HEAD):
                while (head := reader.head()) is None:
                    if not await self._more():
                        raise BadRequestError("its head was never finished")
        except TimeoutError:
            await self._client.pace.rest()
            raise BadRequestError("its head was not finished in time") from None
        return head

    async def body(self, head: Head) -> AsyncIterator[bytes]:
        """The body that `head` announces, in the framing in which it goes on.

        Raises:
            BadRequestError: its framing is malformed.
            OSError: the connection broke, or ended in the middle of it.
        """
        reader = self._reader
        reader.expect(head)
        while not reader.whole:
            part = reader.part()
            if part:
                yield part
            # However long it takes: a client that is there answers keep-alives.
            elif not await self._more():
                raise ConnectionResetError("the client ended in the middle of a request")

    @property
    def waiting(self) -> bool:
        """True where more was read than was asked for yet."""
        return self._reader.waiting

    def rest(self) -> bytes:
        """What was read beyond the last request."""
        return self._reader.rest()

    async def _more(self) -> bool:
        data = await self._client.recv(CHUNK)
        self._reader.feed(data)
        return bool(data)
