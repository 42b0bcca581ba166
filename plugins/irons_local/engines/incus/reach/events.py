"""What happens to instances, as Incus reports it: its lifecycle events, read from a WebSocket (RFC 6455).

Events say that something changed and never what is so: whoever hears of one looks for itself. While nothing reports, and after each
new connection, everyone looks.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import secrets
import struct
from collections import defaultdict
from collections.abc import AsyncIterator

from irons_local.engines.incus.reach.ways import Way

_log = logging.getLogger(__name__)

_AGAIN_AFTER = 2.0
_SILENT_AT_MOST = 60.0
"""Seconds without a word from Incus after which everyone looks again: it may have lost the connection without a sign."""
_MOST = 1 << 20
"""Bytes of one message; an event has some hundred."""
_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10
_MASKED = 0x80


class Events:
    """Reports of one project; it is connected for as long as someone listens.

    Args:
        way: the way to Incus.
        project: the project.
    """

    def __init__(self, way: Way, project: str) -> None:
        self._way = way
        self._project = project
        self._heard: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._reading: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def of(self, instance: str) -> AsyncIterator[asyncio.Event]:
        """Give what is set whenever something happened to an instance, or may have."""
        news = asyncio.Event()
        self._heard[instance].add(news)
        if self._reading is None:
            self._reading = asyncio.create_task(self._read(), name="events of Incus")
        try:
            yield news
        finally:
            self._heard[instance].discard(news)
            if not self._heard[instance]:
                del self._heard[instance]
            if not self._heard and self._reading is not None:
                reading, self._reading = self._reading, None
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def _read(self) -> None:
        while True:
            with contextlib.suppress(OSError, EOFError, ValueError, TimeoutError):
                await self._follow()
            self._all_look()
            await asyncio.sleep(_AGAIN_AFTER)

    async def _follow(self) -> None:
        reader, writer = await self._way.open()
        try:
            await self._open(reader, writer)
            self._all_look()
            while True:
                try:
                    async with asyncio.timeout(_SILENT_AT_MOST):
                        kind, data = await _message(reader)
                except TimeoutError:
                    self._all_look()
                    writer.write(_frame(_PING, b""))
                    await writer.drain()
                    continue
                if kind == _CLOSE:
                    return
                if kind == _PING:
                    writer.write(_frame(_PONG, data))
                    await writer.drain()
                elif kind == _TEXT:
                    self._tell(data)
        finally:
            writer.close()

    async def _open(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        writer.write(
            (
                f"GET /1.0/events?type=lifecycle&project={self._project} HTTP/1.1\r\nHost: incus\r\n"
                f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
            ).encode()
        )
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 101 " not in head.partition(b"\r\n")[0]:
            raise ValueError("no events")

    def _tell(self, data: bytes) -> None:
        found = json.loads(data)
        about = found.get("metadata") if isinstance(found, dict) else None
        source = str(about.get("source", "")) if isinstance(about, dict) else ""
        place, _, name = source.partition("?")[0].rpartition("/")
        if place.endswith("/instances"):
            for news in self._heard.get(name, ()):
                news.set()

    def _all_look(self) -> None:
        for waiting in self._heard.values():
            for news in waiting:
                news.set()


async def _message(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The next message, its parts put together, or the next control frame. A server masks nothing."""
    kind, data = 0, b""
    while True:
        first, second = await reader.readexactly(2)
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack(">H", await reader.readexactly(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", await reader.readexactly(8))
        if second & _MASKED or len(data) + size > _MOST:
            raise ValueError("a strange frame")
        part = await reader.readexactly(size)
        if first & 0x0F >= _CLOSE:
            return first & 0x0F, part
        kind, data = first & 0x0F or kind, data + part
        if first & 0x80:
            return kind, data


def _frame(kind: int, data: bytes) -> bytes:
    """A control frame of ours, which a client masks."""
    mask = secrets.token_bytes(4)
    masked = bytes(each ^ mask[at % 4] for at, each in enumerate(data))
    return bytes((0x80 | kind, _MASKED | len(data))) + mask + masked
