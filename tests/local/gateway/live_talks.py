"""One conversation over sockets, by the live `Attempt`: what it lets on, and what it records.

It answers at once, and runs over loopback sockets, with a route that hands it the other end instead of a dial.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import struct
import time
from collections.abc import Callable
from contextvars import Context
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVarTuple, cast

from tests.local.gateway.talks import (
    LEADS,
    LITERAL,
    TLS,
    UNREACHED,
    UNRESOLVED,
    Change,
    Log,
    Outcome,
    Talk,
    forbids,
    make_cell,
)

from irons_local.gateway.attempt.attempt import Attempt
from irons_local.gateway.budget.descriptors import Files
from irons_local.gateway.budget.fairness import SETTLING
from irons_local.gateway.budget.watch import FairLoop
from irons_local.gateway.conversation.events import Side
from irons_local.gateway.reach.dial import DialError
from irons_local.gateway.reach.resolve import ResolveError
from irons_local.gateway.service import CUT
from irons_local.gateway.shared.context import Context as Shared
from irons_local.gateway.streams.splice import Pipes, Turns
from irons_local.gateway.streams.stream import Wire
from irons_local.gateway.tls.remembered import Hellos
from irons_policy.addresses import Address
from irons_policy.causes import Cause
from irons_policy.hostnames import Host
from irons_policy.hostnet import HostNetwork
from irons_policy.policy import Policy

_Ts = TypeVarTuple("_Ts")


class Loop(FairLoop):
    """A loop whose clock can be put forward.

    Args:
        stands: it moves in no other way.

    Attributes:
        skipped: seconds by which it was put forward.
        happened: how many descriptors were ready, and how many calls were asked for.
    """

    def __init__(self, *, stands: bool = False) -> None:
        self.skipped = 0.0
        self.happened = 0
        self._stands = stands
        super().__init__()

    def time(self) -> float:
        """The time on its clock."""
        return self.skipped if self._stands else time.monotonic() + self.skipped

    def call_soon(
        self, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Count a call."""
        self.happened += 1
        return super().call_soon(callback, *args, context=context)

    def _process_events(self, event_list: list[Any]) -> None:
        self.happened += len(event_list)
        super()._process_events(event_list)  # type: ignore[misc]

    async def quiet(self) -> bool:
        """Let everything happen that is ready; False where something did happen."""
        before = self.happened
        for _ in range(ROUNDS):
            await asyncio.sleep(0)
        return self.happened == before + ROUNDS


_SIOCOUTQNSD = 0x894B
ROUNDS = SETTLING + 4
"""Rounds of the loop in which the selector looks at every descriptor."""
STEP, STEPS = 0.02, 60
"""Seconds, and how often they go by, while something is to be heard yet: less than a held line has."""
MOST_WAITS = 1000
"""Tenths of seconds, on a clock that is put forward, after which a live connection no longer ends by itself."""
PATIENCE = 100.0
"""Seconds that anything may take on this machine."""


def under_way(sock: socket.socket) -> int:
    """How many segments have not arrived, its end among them (tcp(7), `tcpi_unacked`)."""
    if sock.fileno() < 0:
        return 0
    (count,) = struct.unpack_from("I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28), 24)
    assert isinstance(count, int)
    return count


def unsent(sock: socket.socket) -> int:
    """How many bytes have not been sent for want of room (tcp(7), `SIOCOUTQNSD`)."""
    if sock.fileno() < 0:
        return 0
    (count,) = struct.unpack("i", fcntl.ioctl(sock, _SIOCOUTQNSD, bytes(4)))
    assert isinstance(count, int)
    return count


def acknowledge(sock: socket.socket) -> None:
    """Have the kernel say now, not up to 40 ms later, what has arrived."""
    if sock.fileno() >= 0:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


class Sockets:
    """The talk through `Attempt`.

    Attributes:
        attempt: the connection.
        ends: the sockets of its peers; its server's is there once it was dialled.
        log: what is recorded.
    """

    def __init__(self, talk: Talk, home: Path, loop: Loop) -> None:
        self._talk, self._loop, self.log = talk, loop, Log(talk.room)
        self._held = contextlib.ExitStack()
        self._cell = make_cell(home, talk)
        self._held.callback(self._cell.close)
        pipes = Pipes(lambda _: None)
        self._held.callback(pipes.close)
        self.ends: dict[Side, socket.socket] = {}
        self._near: list[socket.socket] = []
        self._heard = {Side.CLIENT: b"", Side.SERVER: b""}
        log = cast("Any", self.log)
        route = SimpleNamespace(
            by_name=talk.way.by_name, dial=self._dial, dial_name=self._dial_name,
            forwarding=lambda _: talk.way.forwarding,
        )  # fmt: skip
        proxy = SimpleNamespace(setting=None, route=lambda _: route)
        resolver = SimpleNamespace(known=lambda *_: None, resolve=self._resolve)
        files = Files(1000)
        files.attach()
        shared = Shared(
            loop, log, log, cast("Any", resolver), cast("Any", None), cast("Any", proxy), pipes, files,
            TLS, Hellos(), HostNetwork, lambda: False, self._complain,
        )  # fmt: skip
        where = ip_address(LITERAL) if talk.name is None else self._cell.names.address(talk.name)
        near = self._pair(Side.CLIENT)
        turns = Turns(loop, lambda: False)
        self.attempt = Attempt(
            shared, self._cell, Wire(loop, near), Host(str(where), where), talk.port, turns
        )
        self.complaints: list[str] = []

    def _complain(self, text: str) -> None:
        self.complaints.append(text)

    def _pair(self, side: Side) -> socket.socket:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            far = self._held.enter_context(socket.create_connection(listener.getsockname()))
            near, _ = listener.accept()
        far.setblocking(False)
        self.ends[side] = far
        self._near.append(near)
        return near

    async def _dial(self, _: FairLoop, __: Address, ___: int) -> Wire:
        return await self._dial_name(0)

    async def _dial_name(self, _: int) -> Wire:
        if not self._talk.way.answers:
            raise DialError(UNREACHED)
        return Wire(self._loop, self._pair(Side.SERVER))

    async def _resolve(self, _: str, __: str) -> tuple[Address, ...]:
        if not self._talk.way.resolves:
            raise ResolveError(UNRESOLVED)
        return (LEADS,)

    async def run(self, wanted: Outcome) -> Outcome:
        """Talk to the end; after each turn wait for what the other one of the two had let on by then."""
        try:
            self._say(0)
            self.attempt.start()
            for number, step in enumerate(wanted.steps):
                if number:
                    self._say(number)
                await self._until(*step)
            await self._until(len(wanted.out), len(wanted.back))
            for side in wanted.ends:
                self._end(side)
                await self._rest()
            ended = self._loop.create_task(self.attempt.ended())
            for _ in range(MOST_WAITS):
                await self._rest()
                if ended.done():
                    break
                self._loop.skipped += 0.1
            else:
                self.attempt.cut("it waits for something that the machine did not wait for", cause=None)
            await ended
            # What follows its end, as the closing record.
            await self._rest()
            self._hear_all()
            return Outcome(
                self._heard[Side.SERVER],
                self._heard[Side.CLIENT],
                self.log.records,
                wanted.steps,
                wanted.ends,
            )
        finally:
            self.close()

    def close(self) -> None:
        """Let go of everything."""
        self._held.close()

    def _say(self, number: int) -> None:
        if number >= len(self._talk.turns):
            return
        turn = self._talk.turns[number]
        if isinstance(turn, Change):
            self._cell.policy = policy = Policy.from_json(turn.rules)
            if forbids(policy, self.attempt.live, mismatched=self.attempt.mismatched):
                self.attempt.cut(CUT, cause=Cause.RULE)
            return
        side, data = turn
        if not data:
            self._end(side)
        elif side in self.ends:
            with contextlib.suppress(OSError):
                self.ends[side].sendall(data)

    def _end(self, side: Side) -> None:
        if side in self.ends:
            with contextlib.suppress(OSError):
                self.ends[side].shutdown(socket.SHUT_WR)

    async def _until(self, out: int, back: int) -> None:
        """Wait until each side has heard so much, or nothing more comes.

        What the server still answers is waited for before a refusal, so time goes by: less than a held line has.
        """
        await self._rest()
        for _ in range(STEPS):
            if len(self._heard[Side.SERVER]) >= out and len(self._heard[Side.CLIENT]) >= back:
                return
            self._loop.skipped += STEP
            await self._rest()

    async def _rest(self) -> None:
        """Let everything happen that can happen now, in the kernel and in the loop, however slow this machine is."""
        until = time.monotonic() + PATIENCE
        while True:
            arrived = self._arrived()
            quiet = await self._loop.quiet()
            if not self._hear() and arrived and quiet:
                return
            assert time.monotonic() < until, "it never comes to rest"

    def _arrived(self) -> bool:
        """Whether everything that either side has sent has arrived at the other; what is not read stays at its sender."""
        sockets = (*self.ends.values(), *self._near)
        # Both ends hear all that comes.
        if not any(map(under_way, sockets)) and not any(map(unsent, self._near)):
            return True
        for each in sockets:
            acknowledge(each)
        os.sched_yield()
        return False

    def _hear(self) -> int:
        """Hear what there is; how much that was."""
        count = 0
        for side, end in self.ends.items():
            with contextlib.suppress(OSError):
                while data := end.recv(65_536):
                    self._heard[side] += data
                    count += len(data)
        return count

    def _hear_all(self) -> None:
        """Hear everything up to the end, which comes: the connection is closed."""
        for side, end in self.ends.items():
            end.settimeout(PATIENCE)
            with contextlib.suppress(ConnectionError):
                while data := end.recv(65_536):
                    self._heard[side] += data


def live(talk: Talk, home: Path, wanted: Outcome) -> Outcome:
    """The talk through `Attempt`, in step with what was let on without I/O."""
    with contextlib.closing(Loop(stands=True)) as loop:
        return loop.run_until_complete(Sockets(talk, home, loop).run(wanted))
