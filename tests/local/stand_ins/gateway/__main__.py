"""Answers every connection with the address it was meant for, and every name with itself; `heard.jsonl` has the rest.

Files in its directory make it another: `broken` ends it at once, or once `stuck` is gone where that is there too; with
`beats` it says only once that it is alive; with `deaf` it ends, once, at the number of connections that were refused; and with
`lies`, a worker's number and a cell, that worker claims that cell too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import ssl
import sys
import time
from pathlib import Path
from typing import Any

from irons_local.ipc.aio import AsyncLink, keepers
from irons_local.ipc.framing import LinkClosedError
from irons_local.ipc.inherit import inherited

NAMES = ("tcp4", "tcp6", "dns_udp4", "dns_udp6", "dns_tcp4", "dns_tcp6", "nflog")


def worker() -> int:
    """Its number among the workers."""
    return int(os.environ.get("IRONS_WORKER", "-1"))


def claimed() -> list[str]:
    """What it claims without having it."""
    lies = Path("lies").read_text().split() if Path("lies").exists() else []
    return lies[1:] if lies[:1] == [str(worker())] else []


async def beat(link: AsyncLink) -> None:
    """Say again and again that it is alive."""
    with contextlib.suppress(LinkClosedError):
        while True:
            await asyncio.sleep(1)
            await link.send({"op": "alive"})


async def last(link: AsyncLink) -> None:
    """Say once more that it is alive, and end."""
    with contextlib.suppress(LinkClosedError):
        await link.send({"op": "alive"})
    os._exit(0)


def note(**what: Any) -> None:
    """Record what was heard, for the test to read."""
    with Path("heard.jsonl").open("a") as file:
        file.write(json.dumps(what) + "\n")


def rights() -> dict[str, str]:
    """What the kernel says that this process may do."""
    lines = Path("/proc/self/status").read_text().splitlines()
    facts = dict(line.split(":\t") for line in lines if ":\t" in line)
    return {name: facts[name] for name in ("CapEff", "CapPrm", "CapBnd", "NoNewPrivs", "Uid")}


IMPORTED = rights()
"""The same when this was imported."""


class Cell:
    """The sockets of one cell."""

    def __init__(self, ports: dict[str, int], fds: list[int]) -> None:
        self.ports = ports
        self.fds = fds
        self._loop = asyncio.get_running_loop()
        self._socks = {name: socket.socket(fileno=os.dup(fd)) for name, fd in zip(NAMES, fds, strict=True)}
        for name, sock in self._socks.items():
            self._loop.add_reader(sock, self._ready, name, sock)

    def close(self) -> None:
        """Serve it no more."""
        for sock in self._socks.values():
            self._loop.remove_reader(sock)
            sock.close()
        for fd in self.fds:
            os.close(fd)

    def _ready(self, name: str, sock: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            if name.startswith(("tcp", "dns_tcp")):
                accepted, _ = sock.accept()
                host, port = accepted.getsockname()[:2]
                with accepted:
                    accepted.sendall(f"{host} {port}\n".encode())
                    accepted.shutdown(socket.SHUT_WR)
            elif name.startswith("dns"):
                data, sender = sock.recvfrom(4096)
                sock.sendto(data, sender)
            else:
                note(refused=len(sock.recv(65536)))


async def obey(link: AsyncLink, cells: dict[str, Cell]) -> None:
    """Do what the keeper says until it is gone."""
    with contextlib.suppress(LinkClosedError):
        await link.send({"op": "alive", "memory": 1 << 20})
    beating = asyncio.ensure_future(beat(link))
    # As one does that is asked to end just when it was to report again.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: asyncio.ensure_future(last(link)))
    if "beats" in os.listdir():  # noqa: PTH208 - a name is what is looked for
        os.unlink("beats")  # noqa: PTH108
        beating.cancel()
    while True:
        message = await link.recv()
        body = message.body
        name = str(body.get("cell", ""))
        if body["op"] == "attach":
            if name in cells:
                cells.pop(name).close()
            cells[name] = Cell(body["ports"], message.fds)
            note(attach=name, worker=worker())
        elif body["op"] == "detach":
            cells.pop(name).close()
            note(detach=name)
        elif body["op"] == "surrender" and not name:
            await link.answer(message, {"cells": [*cells, *claimed()]})
        elif body["op"] == "surrender":
            name = name if name in cells else next(iter(cells))
            await link.answer(message, {"ports": cells[name].ports}, cells[name].fds)
        elif body["op"] == "missed":
            if "deaf" in os.listdir():  # noqa: PTH208 - a name is what is looked for
                os.unlink("deaf")  # noqa: PTH108
                os._exit(1)
            note(missed=name, count=body["count"])
            await link.answer(message)
        elif body["op"] == "peer":
            note(peer=len(message.fds))
            message.close()


async def serve() -> None:
    """Serve one keeper after another."""
    cells: dict[str, Cell] = {}
    first, listener = inherited("IRONS_LINK"), inherited("IRONS_KEEPER")
    assert first is not None
    async for link in keepers(first, listener):
        with contextlib.suppress(LinkClosedError):
            await obey(link, cells)


def main() -> int:
    """Serve, unless the test wants a gateway that does not start."""
    note(
        started=os.getpid(),
        worker=worker(),
        workers=int(os.environ.get("IRONS_WORKERS", "0")),
        drawn=[random.random(), ssl.RAND_bytes(16).hex()],
        uid=os.getuid(),
        imported=IMPORTED,
        **rights(),
    )
    if Path("broken").exists():
        while Path("stuck").exists():
            time.sleep(0.05)
        sys.stderr.write("this gateway is broken\n")
        return 1
    asyncio.run(serve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
