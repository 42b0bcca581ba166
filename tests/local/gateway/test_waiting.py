"""A sandbox that has as many connections as it may: further ones wait, not for ever, and it can still ask why."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from functools import partial
from typing import Any

from tests.e2e.lab import eventually
from tests.local.gateway.live_talks import Loop
from tests.local.gateway.stand import Program, Stand, in_time, quick

from irons_local.gateway.accept.waiting import MOST, PATIENCE, Waiting

MAIL = "mail.example.test"
CAP, MORE = 20, 100
INTERNAL = "GET / HTTP/1.1\nHost: irons.internal\n\n"


def greeted(programs: list[Program]) -> list[Program]:
    """Those to which the server has spoken."""
    ready, _, _ = select.select([each.sock for each in programs], [], [], 0)
    return [each for each in programs if each.sock in ready and each.sock.recv(1, socket.MSG_PEEK)]


def test_those_beyond_the_cap_wait_for_room(patient: Stand) -> None:
    """None of many more than the cap is reset; as others end they are served, and `irons.internal` always is."""
    stand = patient
    stand.policy("deny", [f"{MAIL}:25"], connections=CAP)
    address = stand.resolve(MAIL)
    with contextlib.ExitStack() as held:
        sockets = [stand.net.socket() for _ in range(CAP + MORE)]
        programs = [held.enter_context(Program(each, address, 25)) for each in sockets]
        eventually(lambda: len(greeted(programs)) == CAP)
        assert stand.ask("stats")["connections"] == CAP
        rest = programs
        while rest:
            ready = eventually(partial(greeted, rest))
            assert len(ready) <= CAP
            for program in ready:
                program.close()
            rest = [program for program in rest if program not in ready]
    assert not [each for each in stand.events() if each.get("cause") == "cap"]


def test_one_that_has_waited_long_enough_is_reset_with_its_reason(stand: Stand) -> None:
    """After ten seconds at the cap those that wait are reset and recorded; the sandbox can ask why all the while."""
    stand.policy("deny", [f"{MAIL}:25"], connections=CAP)
    address = stand.resolve(MAIL)
    stand.resolve("irons.internal")
    with contextlib.ExitStack() as held:
        programs = [held.enter_context(stand.connect(address, 25)) for _ in range(CAP)]
        eventually(lambda: len(greeted(programs)) == CAP)
        late: list[Program] = []

        def wait() -> None:
            late.extend(held.enter_context(stand.connect(address, 25)) for _ in range(10))
            assert in_time(PATIENCE / 2, lambda: quick(lambda: stand.http("irons.internal", INTERNAL)))
            for each in late:
                each.rest()

        assert quick(wait) >= PATIENCE
        event = stand.event(cause="cap")
        assert event["host"] == MAIL
        assert event["reason"] == f"this sandbox has {CAP} connections already"
        assert stand.counted() == len(late)
        assert f"has {CAP} connections".encode() in stand.http("irons.internal", INTERNAL)
        assert len(greeted(programs)) == CAP


def test_irons_internal_has_places_of_its_own(patient: Stand) -> None:
    """Sixteen connections to it are served beyond the cap, and another one is reset."""
    stand = patient
    stand.policy("deny", [f"{MAIL}:25"], connections=1)
    address, own = stand.resolve(MAIL), stand.resolve("irons.internal")
    with contextlib.ExitStack() as held:
        held.enter_context(stand.connect(address, 25))
        inside = [held.enter_context(stand.connect(own, 80)) for _ in range(16)]
        eventually(lambda: stand.ask("stats")["connections"] == 17)
        with stand.connect(own, 80) as one:
            assert one.rest() == b"RESET"
        inside[0].close()
        eventually(lambda: stand.ask("stats")["connections"] == 16)
        assert b'"mode": "deny"' in stand.http("irons.internal", INTERNAL)


class Someone:
    """A connection that waits."""

    def __init__(self) -> None:
        self.became: str | None = None
        self.over = asyncio.Event()

    def open(self) -> bool:
        """It has its record."""
        return True

    def begin(self) -> None:
        """There was room."""
        self.became = "begun"

    def turn_away(self, reason: str) -> None:
        """There was none."""
        self.became = reason
        self.over.set()


def test_the_oldest_goes_first_and_the_kernel_keeps_the_rest() -> None:
    """A bounded number is accepted while it waits; those that waited in the queue before have that much less time."""
    loop = Loop(stands=True)
    said: list[str] = []
    full: str | None = "full"

    async def run() -> None:
        nonlocal full
        row = Waiting(
            loop,
            lambda: full,
            lambda: said.append("leave"),
            lambda: said.append("take"),
        )
        people: list[Any] = [Someone() for _ in range(MOST)]
        for each in people:
            row.add(each, 0.0)
        assert said == ["leave"]
        full = None
        for each in people[:2]:
            row.admit()
            assert each.became == "begun"
        assert len(row) == 0
        assert said == ["leave", "take"]
        full = "full"
        old: Any = Someone()
        young: Any = Someone()
        row.add(old, PATIENCE / 4)
        row.add(young, 0.0)
        loop.skipped += PATIENCE / 2
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (old.became, young.became) == (None, None)
        loop.skipped += PATIENCE / 4
        await old.over.wait()
        assert (old.became, young.became) == ("full", None)
        row.close()
        assert young.became is not None
        assert len(row) == 0

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(run())
