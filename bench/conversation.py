"""What a connection costs the gateway's `Attempt`, with its records, in one process.

    python -m bench.conversation [--rounds N] [--count N]

Connections over loopback are opened, judged by a rule, recorded in a real log, dialled, answered and closed. What their clients
and servers cost is in the figures too, so compare only two versions, measured in turns. Each figure is
processor time, the least and the median over the rounds. There is no bar.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

from tests.local.gateway.conversations import ANSWER, SECRET, SERVER_HELLO, request
from tests.local.gateway.talks import LEADS, TLS, Talk, make_cell, rules

from irons_local.gateway.attempt.attempt import Attempt
from irons_local.gateway.budget import fairness
from irons_local.gateway.budget.descriptors import Files
from irons_local.gateway.budget.watch import FairLoop
from irons_local.gateway.record.folding import Folder
from irons_local.gateway.record.journal import Journal
from irons_local.gateway.shared.context import Context
from irons_local.gateway.streams.splice import Pipes, Turns
from irons_local.gateway.streams.stream import Wire
from irons_local.gateway.tls.remembered import Hellos
from irons_policy.addresses import Address
from irons_policy.hostnames import Host
from irons_policy.hostnet import HostNetwork

WARMING = 50


class Kind(NamedTuple):
    """A connection: where it goes to, what its client says and what its server answers."""

    port: int
    said: bytes
    answered: bytes


KINDS = {"TLS": Kind(443, SECRET, SERVER_HELLO), "a request of HTTP/1": Kind(80, request(), ANSWER)}


class Connections:
    """Makes connections of one kind to one cell.

    Args:
        loop: the loop that runs them.
        home: a directory for the log.
        kind: the kind.
    """

    def __init__(self, loop: FairLoop, home: Path, kind: Kind) -> None:
        home.mkdir()
        self._loop = loop
        self._kind = kind
        self._servers: asyncio.Queue[socket.socket] = asyncio.Queue()
        self._held = contextlib.ExitStack()
        self._inside = self._held.enter_context(socket.create_server(("127.0.0.1", 0)))
        self._outside = self._held.enter_context(socket.create_server(("127.0.0.1", 0)))
        self._cell = make_cell(home / "cell", Talk((), "web.test", kind.port, rules()))
        journal = Journal(home / "audit", lambda *_: None)
        self._held.callback(journal.close)
        pipes = Pipes(lambda _: None)
        self._held.callback(pipes.close)
        route = SimpleNamespace(by_name=False, dial=self._dial, forwarding=lambda _: None)
        proxy = SimpleNamespace(setting=None, route=lambda _: route)
        resolver = SimpleNamespace(known=lambda *_: (LEADS,))
        files = Files(1000)
        files.attach()
        self._context = Context(
            loop, journal, Folder(loop, journal), cast("Any", resolver), cast("Any", None), cast("Any", proxy),
            pipes, files, TLS, Hellos(), HostNetwork, lambda: False, print,
        )  # fmt: skip
        where = self._cell.names.address("web.test")
        self._where = Host(str(where), where)
        self._turns = Turns(loop, lambda: False)
        self._owner = fairness.of(self._cell.name, self._cell.pace)

    async def run(self, count: int) -> float:
        """Make some, one after the other; microseconds of processor time for each."""
        began = time.process_time()
        for _ in range(count):
            await self._loop.create_task(self._one(), context=self._owner)
        return (time.process_time() - began) / count * 1e6

    def close(self) -> None:
        """Let go of everything."""
        self._held.close()

    async def _dial(self, loop: FairLoop, _: Address, __: int) -> Wire:
        near, far = _pair(self._outside)
        self._servers.put_nowait(far)
        return Wire(loop, near)

    async def _one(self) -> None:
        near, far = _pair(self._inside)
        near.send(self._kind.said)
        attempt = Attempt(
            self._context, self._cell, Wire(self._loop, far), self._where, self._kind.port, self._turns
        )
        attempt.start()
        server = await self._servers.get()
        await _heard(server)
        server.send(self._kind.answered)
        await _heard(near)
        near.close()
        server.close()
        await attempt.ended()


def _pair(listener: socket.socket) -> tuple[socket.socket, socket.socket]:
    near = socket.create_connection(listener.getsockname())
    far, _ = listener.accept()
    near.setblocking(False)
    far.setblocking(False)
    return near, far


async def _heard(sock: socket.socket) -> None:
    while True:
        try:
            sock.recv(65_536)
        except BlockingIOError:
            await asyncio.sleep(0)
        else:
            return


async def measure(loop: FairLoop, home: Path, kind: Kind, rounds: int, count: int) -> list[float]:
    """Microseconds for each connection, round by round."""
    connections = Connections(loop, home, kind)
    try:
        await connections.run(WARMING)
        return [await connections.run(count) for _ in range(rounds)]
    finally:
        connections.close()


def main() -> int:
    """Measure and print."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--rounds", type=int, default=40, help="rounds of each (default: 40)")
    words.add_argument("--count", type=int, default=50, help="connections in a round (default: 50)")
    asked = words.parse_args()
    with tempfile.TemporaryDirectory(prefix="irons-bench-") as home, contextlib.closing(FairLoop()) as loop:
        for number, (title, kind) in enumerate(KINDS.items()):
            found = loop.run_until_complete(
                measure(loop, Path(home) / str(number), kind, asked.rounds, asked.count)
            )
            least, median = min(found), statistics.median(found)
            print(
                f"{title}: {least:.0f} µs of processor time for each connection, {median:.0f} at the median"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
