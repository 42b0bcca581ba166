"""Sends the last words of a connection in the order that lets them arrive; `pages` has the words."""

from __future__ import annotations

import asyncio
import contextlib

from irons_local.gateway.streams.stream import CHUNK, Wire

DRAIN = 1.0


async def say(wire: Wire, payload: bytes) -> None:
    """Send the last words and close, in the order that lets them arrive.

    Closing with bytes unread makes the kernel send a reset, which can overtake the words: so say that nothing more
    comes, and read what still does for at most a second. Words for which there is no room then are taken back.
    """
    if not payload:
        wire.reset()
        return
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(DRAIN):
            await wire.send(payload)
            await _drain(wire)
            await wire.delivered()
    wire.abandon()


async def drain(wire: Wire) -> None:
    """Say that nothing more comes, and read what still does for at most a second."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(DRAIN):
            await _drain(wire)


async def _drain(wire: Wire) -> None:
    wire.finish()
    while await wire.recv(CHUNK):
        pass
