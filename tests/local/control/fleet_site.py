"""A server of a fleet with its real listener, and machines that join it; the links are the real ones, over TLS."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.local.control.lab import until

from irons_local.control.fleet.fleet import Fleet
from irons_local.control.store.database import Store
from irons_local.fleet.link import MemberLink
from irons_local.fleet.messages import Beat
from irons_local.fleet.token import JoinToken
from irons_local.ipc.framing import Body, RequestError
from irons_local.member.dialling import Dialler
from irons_local.member.identity import Identity, read_identity
from irons_local.member.join import join

CELL = "sb_00112233445566ff"
OTHER = "sb_ffeeddccbbaa9988"
RUN = "1700000000000000-4242-0"


@dataclass
class Site:
    """A server of a fleet, and homes of machines."""

    home: Path
    store: Store
    fleet: Fleet
    pushed: list[Collection[str]] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Where members connect."""
        ((host, port),) = self.fleet.addresses
        return f"{host}:{port}"

    async def add(self, name: str) -> JoinToken:
        """Make a token."""
        return await self.fleet.add(name, self.address)

    async def joined(self, name: str) -> Identity:
        """A machine that has joined."""
        await join(await self.add(name), self.home / name)
        return read_identity(self.home / name)

    async def state(self, name: str) -> str:
        """How a member is; empty where there is none."""
        return next((str(row["state"]) for row in await self.fleet.status() if row["name"] == name), "")

    async def is_(self, name: str, state: str) -> None:
        """Wait until a member is so."""

        async def so() -> bool:
            return await self.state(name) == state

        await until(so)


@asynccontextmanager
async def site(home: Path) -> AsyncIterator[Site]:
    """A server that listens on the loopback."""
    await asyncio.to_thread(home.mkdir)
    store = Store(home / "irons.db")
    pushed: list[Collection[str]] = []

    async def enforce(_cell: str) -> None:
        return

    async def on_cells(cells: Collection[str]) -> None:
        pushed.append(cells)

    fleet = Fleet(store, home / "fleet", ("127.0.0.1", 0), enforce, on_cells, lambda: None)
    await fleet.open()
    fleet.members.settings([], None)
    try:
        yield Site(home, store, fleet, pushed)
    finally:
        await fleet.close()
        store.close()


@asynccontextmanager
async def linked(
    identity: Identity, heard: Callable[[Body], Awaitable[Body]] | None = None, held: Sequence[str] = ()
) -> AsyncIterator[MemberLink]:
    """A link of a member, which answers what it is asked by `heard`, and has something of the cells `held`."""
    ends, _ = await Dialler(identity).greet({}, "", held)
    link = MemberLink(*ends, heard or nothing)
    running = asyncio.ensure_future(link.run(lambda: Beat(1)))
    try:
        yield link
    finally:
        link.close()
        await asyncio.gather(running, return_exceptions=True)


class Asked:
    """What a member is asked, in order, as `OP CELL`; a test says which of it fails, or waits."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self.settings: Body = {}
        self.failing: Counter[str] = Counter()
        self.waiting: dict[str, asyncio.Event] = {}

    async def hear(self, body: Body) -> Body:
        """Answer."""
        said = f"{body['op']} {body.get('cell', '')}".strip()
        self.all.append(said)
        if said == "settings":
            self.settings = body
        if said in self.waiting:
            await self.waiting[said].wait()
        if self.failing[said] > 0:
            self.failing[said] -= 1
            raise RequestError("cell", "not now")
        return {"name": "irs-1", "pid": 1, "started": 1} if body["op"] == "cell.make" else {}

    async def heard(self, said: str, times: int = 1) -> None:
        """Wait until it was asked this, so many times."""

        async def so() -> bool:
            return self.all.count(said) >= times

        await until(so)


async def nothing(_: Body) -> Body:
    """Answer that it is done."""
    return {}


def lines(*records: dict[str, Any], cell: str = CELL) -> bytes:
    """A log."""
    made = [
        {"run": RUN, "seq": seq, "at": 1_700_000_000_000_000 + seq, "cell": cell, **record}
        for seq, record in enumerate(records, 1)
    ]
    return b"".join(json.dumps(each).encode() + b"\n" for each in made)


def refusal(conn: int, host: str) -> dict[str, Any]:
    """A whole event."""
    return {
        "kind": "event",
        "conn": conn,
        "host": host,
        "port": 443,
        "protocol": "tls",
        "allowed": False,
        "mode": "deny",
    }
