"""The request side of an HTTP/1 connection: heads one after the other, and exactly the body each announces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from irons_local.gateway.budget.undecided import Budget, Meter
from irons_local.gateway.http1.authority import BadRequestError
from irons_local.gateway.http1.chunks import Chunks
from irons_local.gateway.http1.heads import MAX_HEAD, Head, parse_head
from irons_local.gateway.streams.stream import CHUNK, Wire

HEAD_TIMEOUT = 10.0
MAX_BLANK = 16
_END = b"\r\n\r\n"


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
        self._data = bytearray(first)

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
        while not self._skip_blank():
            if not await self._more():
                return None
        at = self._data.find(_END)
        try:
            async with asyncio.timeout(HEAD_TIMEOUT):
                while at < 0:
                    if len(self._data) > MAX_HEAD:
                        raise BadRequestError("its head is too large")
                    seen = max(0, len(self._data) - 3)
                    if not await self._more():
                        raise BadRequestError("its head was never finished")
                    at = self._data.find(_END, seen)
        except TimeoutError:
            await self._client.pace.rest()
            raise BadRequestError("its head was not finished in time") from None
        raw = bytes(self._data[: at + 4])
        del self._data[: at + 4]
        return parse_head(raw)

    async def body(self, head: Head) -> AsyncIterator[bytes]:
        """The body that goes on, framed anew.

        Raises:
            BadRequestError: its framing is malformed.
            OSError: the connection broke, or ended in the middle of it.
        """
        parts = self._chunked() if head.length is None else self._counted(head.length)
        async for part in parts:
            yield part

    @property
    def waiting(self) -> bool:
        """True where more was read than was asked for yet."""
        return bool(self._data)

    def rest(self) -> bytes:
        """What was read beyond the last request."""
        rest = bytes(self._data)
        self._data.clear()
        return rest

    def _skip_blank(self) -> bool:
        """Drop empty lines before a request (RFC 9112, section 2.2); True where something else follows."""
        blank = 0
        while blank <= MAX_BLANK and self._data[blank : blank + 2] == b"\r\n":
            blank += 2
        if blank > MAX_BLANK:
            raise BadRequestError("it begins with empty lines")
        del self._data[:blank]
        return bool(self._data) and self._data != b"\r"

    async def _counted(self, length: int) -> AsyncIterator[bytes]:
        while length:
            if not self._data:
                await self._need()
            part = bytes(self._data[:length])
            del self._data[: len(part)]
            length -= len(part)
            yield part

    async def _chunked(self) -> AsyncIterator[bytes]:
        chunks = Chunks()
        while not chunks.done:
            part = chunks.feed(self._data)
            if part:
                yield part
            else:
                await self._need()

    async def _need(self) -> None:
        # However long it takes: a client that is there answers keep-alives.
        if not await self._more():
            raise ConnectionResetError("the client ended in the middle of a request")

    async def _more(self) -> bool:
        data = await self._client.recv(CHUNK)
        self._data += data
        return bool(data)
