"""A stand-in for the control plane: it says that it is ready, and stays."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

from irons_local.ipc.aio import keepers
from irons_local.ipc.framing import LinkClosedError


async def serve() -> None:
    """Serve one keeper after another."""
    async for link in keepers():
        with contextlib.suppress(LinkClosedError):
            await link.send({"op": "ready"})
            while True:
                (await link.recv()).close()


if __name__ == "__main__":
    if Path("broken").exists():
        sys.exit("this server is broken")
    asyncio.run(serve())
