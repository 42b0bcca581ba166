"""Lifecycle events of Incus, from a stand-in that speaks WebSocket as Incus does, and as it should not."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from irons_local.engines.incus.reach.events import Events
from irons_local.engines.incus.reach.ways import SocketWay

WITHIN = 60.0
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


def frame(kind: int, data: bytes, *, last: bool = True) -> bytes:
    """A frame as a server sends it."""
    size = bytes([len(data)]) if len(data) < 126 else b"\x7e" + struct.pack(">H", len(data))
    return bytes([kind | (0x80 if last else 0)]) + size + data


def event(instance: str, more: str = "") -> bytes:
    """A message of Incus about an instance."""
    source = f"/1.0/instances/{instance}?project=irons"
    return json.dumps(
        {"type": "lifecycle", "metadata": {"action": "x", "source": source, "more": more}}
    ).encode()


async def followed(path: Path, serve: Serve, work: Callable[[Events], Awaitable[None]]) -> None:
    """Do something with the events of a stand-in."""
    server = await asyncio.start_unix_server(serve, path)
    async with asyncio.timeout(WITHIN):
        await work(Events(SocketWay(path), "irons"))
    server.close()


async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Take a client's request, and return its head."""
    head = await reader.readuntil(b"\r\n\r\n")
    writer.write(ACCEPTED)
    return head


def test_only_who_waits_for_that_instance_hears_of_it(tmp_path: Path) -> None:
    """An event reaches those who wait for its instance, also in several frames; and a ping is answered, masked."""
    ponged = bytearray()

    async def run() -> None:
        go = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await accept(reader, writer)
            assert b"GET /1.0/events?type=lifecycle&project=irons HTTP/1.1" in head
            await go.wait()
            long = event("one", "x" * 300)
            writer.write(frame(9, b"ping") + frame(1, long[:100], last=False) + frame(0, long[100:]))
            ponged.extend(await reader.readexactly(10))
            writer.write(frame(1, event("two")))
            await reader.read()
            writer.close()

        async def work(events: Events) -> None:
            async with events.of("one") as one, events.of("two") as two, events.of("three") as three:
                # Everyone looks once when it is connected.
                for each in (one, two, three):
                    await each.wait()
                    each.clear()
                go.set()
                await one.wait()
                await two.wait()
                assert not three.is_set()

        await followed(tmp_path / "s", serve, work)

    asyncio.run(run())
    mask = ponged[2:6]
    assert ponged[:2] == b"\x8a\x84"
    assert bytes(each ^ mask[at] for at, each in enumerate(ponged[6:])) == b"ping"


@pytest.mark.parametrize(
    "ending",
    [b"", frame(8, b""), frame(1, b"no json"), b"\x81\xff", frame(1, b"x" * 200)[:50]],
    ids=["ended", "closed", "no JSON", "masked", "half a frame"],
)
def test_everyone_looks_when_the_connection_ends(tmp_path: Path, ending: bytes) -> None:
    """A connection that ends, however it does, has everyone look, and is made again."""
    connections = 0

    async def run() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            await accept(reader, writer)
            writer.write(ending)
            await writer.drain()
            writer.close()

        async def work(events: Events) -> None:
            async with events.of("one") as news:
                while connections < 2:
                    await news.wait()
                    news.clear()

        await followed(tmp_path / "s", serve, work)

    asyncio.run(run())
    assert connections >= 2


def test_without_an_incus_everyone_looks_again(tmp_path: Path) -> None:
    """Where nothing listens, who waits looks now and then."""

    async def run() -> None:
        async with (
            asyncio.timeout(WITHIN),
            Events(SocketWay(tmp_path / "nothing"), "irons").of("one") as news,
        ):
            await news.wait()

    asyncio.run(run())
