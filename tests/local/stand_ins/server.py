"""A stand-in for the control plane: it says that it is ready, and stays."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

from irons_local.ipc.aio import keepers
from irons_local.ipc.framing import LinkClosedError
from irons_local.ipc.inherit import inherited


async def serve() -> None:
    """Serve one keeper after another."""
    link, listener = inherited("IRONS_LINK"), inherited("IRONS_KEEPER")
    assert link is not None
    async for keeper in keepers(link, listener):
        with contextlib.suppress(LinkClosedError):
            await keeper.send({"op": "ready"})
            while True:
                (await keeper.recv()).close()


if __name__ == "__main__":
    if Path("broken").exists():
        sys.exit("this server is broken")
    asyncio.run(serve())
