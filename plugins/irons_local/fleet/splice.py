"""Two connections as one: what arrives on either goes out on the other."""

from __future__ import annotations

import asyncio
import contextlib

_PIECE = 64 * 1024

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def splice(one: Ends, other: Ends) -> None:
    """Lead bytes in both directions until one side ends; then both are closed.

    TLS has no half of an end, so the end of one direction is the end of both, once what arrived before is sent.
    """
    ways = [asyncio.ensure_future(_lead(a[0], b[1])) for a, b in ((one, other), (other, one))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        for _, writer in (one, other):
            with contextlib.suppress(OSError, RuntimeError):
                writer.close()


async def _lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, RuntimeError):
        while piece := await reader.read(_PIECE):
            writer.write(piece)
            await writer.drain()
