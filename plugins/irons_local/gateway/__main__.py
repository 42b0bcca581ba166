"""Entry point of a gateway worker; the keeper has it started in the gateway's directory, with a link in `IRONS_LINK`."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

from irons_local.gateway.budget.watch import FairLoop
from irons_local.gateway.record.journal import JournalError
from irons_local.gateway.service import Service, proportional
from irons_local.ipc.aio import AsyncLink, keepers
from irons_local.ipc.framing import LinkError
from irons_local.ipc.inherit import inherited
from irons_local.ipc.messages import Alive, body_of
from irons_local.log.setup import begin

FILES = 262_144
BEAT = 1.0
WEIGHED = 10
"""How many beats go by until the memory is looked at again."""


def main() -> int:
    """Run the gateway until it is asked to stop, or its keeper is gone and no other can come.

    Returns:
        The exit code.
    """
    begin(os.environ)
    link, listener = inherited("IRONS_LINK"), inherited("IRONS_KEEPER")
    if link is None:
        sys.stderr.write("irons: the gateway is started by the keeper; try `irons local up`\n")
        return 2
    _raise_limits()
    sys.unraisablehook = _unraisable
    # All that was imported stays to the end: no need to look through it for garbage again and again.
    gc.freeze()
    try:
        loop = FairLoop()
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(_run(link, listener, loop))
    except JournalError as error:
        logging.getLogger(__name__).critical("%s", error)
        return 1
    logging.shutdown()
    # A thread may still hang in the host's resolver; nothing is waiting for it.
    os._exit(0)


def _unraisable(what: sys.UnraisableHookArgs) -> None:
    """Keep out of the log what `ssl` says there of a ClientHello whose name is not ASCII; it is refused as malformed."""
    if not issubclass(what.exc_type, UnicodeDecodeError):
        sys.__unraisablehook__(what)


async def _run(first: socket.socket, listener: socket.socket | None, loop: FairLoop) -> None:
    number, count = _number("IRONS_WORKER", 0), _number("IRONS_WORKERS", 1)
    service = Service(loop, Path(), loop.fair, worker=number, workers=count)
    serving = loop.create_task(_serve(service, first, listener))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, serving.cancel)
    try:
        with suppress(asyncio.CancelledError):
            await serving
    finally:
        await service.close()


async def _serve(service: Service, first: socket.socket, listener: socket.socket | None) -> None:
    """Obey one keeper after the other: sandboxes outlive theirs, and so do we."""
    async for link in keepers(first, listener):
        beating = asyncio.get_running_loop().create_task(_beat(link))
        beating.add_done_callback(_beaten)
        try:
            await service.serve(link)
        except LinkError as error:
            logging.getLogger(__name__).warning("the keeper's link: %s", error)
        finally:
            beating.cancel()
            link.close()


async def _beat(link: AsyncLink) -> None:
    """Tell the keeper again and again that the loop goes round; it replaces a gateway that hangs."""
    with suppress(LinkError):
        while True:
            # Nobody else of this user can look into this process.
            said = body_of(Alive(proportional()))
            for _ in range(WEIGHED):
                await link.send(said)
                said = body_of(Alive())
                await asyncio.sleep(BEAT)


def _beaten(beating: asyncio.Task[None]) -> None:
    """End this process where it cannot say that it lives: the keeper must be able to tell when it hangs."""
    if not beating.cancelled() and (error := beating.exception()) is not None:
        logging.getLogger(__name__).critical(
            "the keeper cannot be notified that this process lives", exc_info=error
        )
        os._exit(1)


def _number(name: str, otherwise: int) -> int:
    """A number that the environment names."""
    value = os.environ.pop(name, "")
    return int(value) if value.isdecimal() else otherwise


def _raise_limits() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    want = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft == resource.RLIM_INFINITY or soft >= want:
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (want, hard))


if __name__ == "__main__":
    sys.exit(main())
