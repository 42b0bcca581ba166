"""Entry point of the gateway process; the keeper starts it in the gateway's directory, with a link in `IRONS_LINK`."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

from irons_plugins.local.asynclink import AsyncLink
from irons_plugins.local.gateway.journal import JournalError
from irons_plugins.local.gateway.service import Service

FILES = 262_144


def main() -> int:
    """Run the gateway until its keeper is gone or it is told to stop.

    Returns:
        The exit code.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        number = int(os.environ.pop("IRONS_LINK"))
        sock = socket.socket(fileno=number)
    except (KeyError, ValueError, OSError):
        sys.stderr.write("irons: the gateway is started by the keeper; try `irons local up`\n")
        return 2
    sock.set_inheritable(False)
    _raise_limits()
    try:
        asyncio.run(_run(sock))
    except JournalError as error:
        logging.getLogger(__name__).critical("%s", error)
        return 1
    finally:
        logging.shutdown()
    # A thread may still hang in the host's resolver; nothing is waiting for it.
    os._exit(0)


async def _run(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    service = Service(loop, Path())
    serving = loop.create_task(service.serve(AsyncLink(sock)))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, serving.cancel)
    try:
        with suppress(asyncio.CancelledError):
            await serving
    finally:
        await service.close()


def _raise_limits() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    want = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft == resource.RLIM_INFINITY or soft >= want:
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (want, hard))


if __name__ == "__main__":
    sys.exit(main())
