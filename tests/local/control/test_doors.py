"""The SSH ports of sandboxes: whose they are, and how many guests one takes."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from tests.local.control.lab import run, until

from irons_local.control.sandbox import ssh_ports
from irons_local.control.sandbox.ssh_ports import NoPortError, Rounds, SshPorts

ADDRESS = "127.31.7.9"
PORTS = range(20_101, 20_103)
"""Two ports of an address that no other program thinks of."""


@pytest.fixture(autouse=True)
def _two_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_ports, "PORTS", PORTS)


async def _nowhere() -> socket.socket:
    raise ConnectionRefusedError


def _with_doors(work: Callable[[SshPorts], Awaitable[None]]) -> None:
    async def closing() -> None:
        opened = SshPorts(ADDRESS)
        try:
            await work(opened)
        finally:
            await opened.close_all()

    run(closing())


def test_the_ports_of_others_are_left_to_them() -> None:
    """A new door takes no port that belongs to another sandbox, open or not; where none is left, that is reported."""

    async def work(made: SshPorts) -> None:
        for mine, others in (PORTS, reversed(PORTS)):
            assert await made.open("one", _nowhere, port=None, taken={others}) == mine
            assert made.port("one") == mine
        await made.close("one")
        assert made.port("one") is None
        with pytest.raises(NoPortError, match="no free port"):
            await made.open("one", _nowhere, port=None, taken=set(PORTS))
        # It gets its own back, even where another is recorded for it.
        assert await made.open("one", _nowhere, port=PORTS[0], taken=set(PORTS)) == PORTS[0]

    _with_doors(work)


def test_a_door_opened_anew_is_the_only_one() -> None:
    """What an earlier door of the sandbox listened on is free again."""

    async def work(made: SshPorts) -> None:
        await made.open("one", _nowhere, port=PORTS[0])
        await made.open("one", _nowhere, port=PORTS[1])
        assert await made.open("two", _nowhere, port=PORTS[0]) == PORTS[0]

    _with_doors(work)


def test_a_door_takes_so_many_guests(monkeypatch: pytest.MonkeyPatch) -> None:
    """One guest more than fit is turned away at once, and let in when another has left."""
    monkeypatch.setattr(ssh_ports, "_AT_ONCE", 2)
    far: list[socket.socket] = []

    async def inside() -> socket.socket:
        near, other = socket.socketpair()
        other.sendall(b"welcome")
        far.append(other)
        return near

    async def greeted(guests: list[asyncio.StreamWriter]) -> bool:
        reader, writer = await asyncio.open_connection(ADDRESS, PORTS[0])
        with suppress(ConnectionError):
            if await reader.read(7) == b"welcome":
                guests.append(writer)
                return True
        writer.close()
        return False

    async def work(made: SshPorts) -> None:
        guests: list[asyncio.StreamWriter] = []
        await made.open("one", inside, port=PORTS[0])
        assert [await greeted(guests) for _ in range(3)] == [True, True, False]
        assert len(far) == 2
        guests[0].close()
        far[0].close()
        await until(lambda: greeted(guests))
        for guest in guests:
            guest.close()

    try:
        _with_doors(work)
    finally:
        for other in far:
            other.close()


def test_a_few_copies_go_on_in_each_round_of_the_loop() -> None:
    """However many connections of a port are busy, the rest of the control plane has its turn after a few of them."""

    async def work() -> None:
        loop = asyncio.get_running_loop()
        rounds, order, now = Rounds(2), list[tuple[int, int]](), 0

        def tick() -> None:
            nonlocal now
            now += 1
            loop.call_soon(tick)

        async def copy(number: int) -> None:
            for _ in range(5):
                await rounds.turn()
                order.append((now, number))

        loop.call_soon(tick)
        tasks = [loop.create_task(copy(number)) for number in range(20)]
        tasks[3].cancel()
        await asyncio.wait(tasks, timeout=60)
        at = Counter(when for when, _ in order)
        assert max(at.values()) <= 3
        # The one that was cancelled took no one's turn; beyond the first round the others take turns.
        assert len(order) == 5 * 19
        assert len({number for _, number in order[2:21]}) == 19

    run(work())
