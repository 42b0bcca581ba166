"""Both sockets of one connection: which is read, when, and for how long something is waited for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.local.gateway.conversations import request
from tests.local.gateway.live_talks import Loop, Sockets, acknowledge, under_way
from tests.local.gateway.talks import Talk, rules

from irons_local.gateway.attempt.sides import LOOK, Sides
from irons_local.gateway.budget import patience
from irons_local.gateway.budget.undecided import Budget
from irons_local.gateway.budget.yielding import Pace
from irons_local.gateway.conversation import actions as do
from irons_local.gateway.conversation import events as ev
from irons_local.gateway.conversation.actions import Waits
from irons_local.gateway.conversation.events import CLIENT, SERVER, Side
from irons_local.gateway.conversation.exchange import BOTH, NEITHER, ONLY, Exchange
from irons_local.gateway.streams.splice import Pipes, Turns
from irons_local.gateway.streams.stream import Wire
from irons_policy.causes import Outcome
from irons_policy.hostnames import Host


@pytest.fixture
def loop() -> Iterator[Loop]:
    """A loop whose clock can be put forward."""
    with contextlib.closing(Loop()) as loop:
        yield loop


class Ends:
    """The sockets of both peers, and the sides that they are."""

    def __init__(self, loop: Loop) -> None:
        self._held = contextlib.ExitStack()
        self.far: dict[Side, socket.socket] = {}
        self._near: dict[Side, socket.socket] = {}
        pipes = Pipes(pytest.fail)
        self._held.callback(pipes.close)
        self.sides = Sides(loop, self._wire(loop, CLIENT), pipes, Turns(loop, lambda: False))
        self.sides.reached(self._wire(loop, SERVER))
        self.exchange = Exchange(Budget())
        self.exchange.wants = BOTH

    def _wire(self, loop: Loop, side: Side) -> Wire:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            far = self.far[side] = self._held.enter_context(socket.create_connection(listener.getsockname()))
            near, _ = listener.accept()
        far.setblocking(False)
        self._near[side] = near
        return Wire(loop, near)

    def say(self, side: Side, said: bytes) -> None:
        """Say something, and wait until it has arrived."""
        self.far[side].send(said)
        self._arrived(side)

    def finish(self, side: Side) -> None:
        """Say nothing more, and wait until that has arrived."""
        self.far[side].shutdown(socket.SHUT_WR)
        self._arrived(side)

    def _arrived(self, side: Side) -> None:
        while under_way(self.far[side]):
            acknowledge(self._near[side])
            os.sched_yield()

    def fill(self, side: Side) -> None:
        """Say as much as there is room for."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.far[side].send(bytes(1 << 16))
        self._arrived(side)

    async def cram(self, side: Side) -> None:
        """Take the room there is for what the other one says."""
        while not self.sides.crowded(side):
            self.sides.send(side, bytes(1 << 16), own=False)
        await asyncio.sleep(0.01)

    async def stuff(self) -> None:
        """Take the room that the kernel has for the server, and what comes free while the last of it arrives.

        What its persist timer still sends (RFC 9293, 3.8.6.1) is less than the third that must be free again.
        """
        assert self.sides.server is not None
        sock, sent = self.sides.server.sock, 1
        while sent or under_way(sock):
            sent = 0
            with contextlib.suppress(BlockingIOError):
                while True:
                    sent += sock.send(bytes(1 << 16))
            await asyncio.sleep(0.001)

    def drain(self, side: Side) -> None:
        """Hear what there is."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.far[side].recv(1 << 20)

    def reset(self, side: Side) -> None:
        """Be gone."""
        self.far[side].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.far[side].close()

    def close(self) -> None:
        """Let go of everything."""
        self.sides.close()
        self._held.close()


@pytest.fixture
def ends(loop: Loop) -> Iterator[Ends]:
    """A client and a server that is reached."""
    ends = Ends(loop)
    yield ends
    ends.close()


def test_one_that_always_speaks_does_not_silence_the_other(loop: Loop, ends: Ends) -> None:
    """Where both sides are of use and both have much to say, they are heard in turn."""

    async def heard() -> list[Side]:
        found = []
        for _ in range(8):
            event = await ends.sides.next(ends.exchange)
            assert isinstance(event, ev.Bytes)
            found.append(event.side)
            ends.fill(event.side)
        return found

    ends.fill(CLIENT)
    ends.fill(SERVER)
    assert loop.run_until_complete(heard()) == [CLIENT, SERVER] * 4


def test_a_side_is_not_read_while_the_other_has_no_room(loop: Loop, ends: Ends) -> None:
    """What the server does not read holds up the client alone: the server's own words are still heard."""

    async def run() -> None:
        while not ends.sides.crowded(SERVER):
            ends.sides.send(SERVER, bytes(1 << 16), own=False)
        ends.far[CLIENT].send(b"more")
        ends.far[SERVER].send(b"words")
        assert await ends.sides.next(ends.exchange) == ev.Bytes(SERVER, b"words")
        waits = loop.create_task(ends.sides.next(ends.exchange))
        await asyncio.sleep(0.01)
        assert not waits.done()
        while not waits.done():
            with contextlib.suppress(BlockingIOError):
                ends.far[SERVER].recv(1 << 20)
            await asyncio.sleep(0)
        assert await waits == ev.Bytes(CLIENT, b"more")

    loop.run_until_complete(asyncio.wait_for(run(), 60))


def test_what_a_server_has_said_goes_on_without_being_waited_for(ends: Ends) -> None:
    """Once both sides pass, the rest of the server's first words and its end reach the client with no turn of the loop."""
    ends.say(SERVER, b"the rest")
    ends.finish(SERVER)
    for side in (SERVER, CLIENT):
        ends.sides.splice(side)
    client = ends.far[CLIENT]
    client.settimeout(60)
    assert client.recv(100) == b"the rest"
    assert client.recv(100) == b""


def test_what_comes_byte_by_byte_has_its_time_once(loop: Loop, tmp_path: Path) -> None:
    """A head that has begun has ten seconds in all, however often something of it comes."""
    sockets = Sockets(Talk((), "web.test", 80, rules()), tmp_path / "cell", loop)

    async def run() -> None:
        sockets.attempt.start()
        line, rest = request().split(b"\r\n", 1)
        sockets.ends[CLIENT].send(line + b"\r\n")
        for byte in rest[:12]:
            with contextlib.suppress(OSError):
                sockets.ends[CLIENT].send(bytes([byte]))
            for _ in range(10):
                await asyncio.sleep(0.0005)
            loop.skipped += patience.HEAD / 6
        await sockets.attempt.ended()
        await asyncio.sleep(0)

    loop.run_until_complete(asyncio.wait_for(run(), 1000))
    sockets.close()
    (refused,) = (fields for kind, fields in sockets.log.records if kind == "refused")
    assert refused["reason"] == "malformed request: its head was not finished in time"


def test_one_long_read_is_handled_in_turns(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that sends hundreds of requests at once gives way between them, once its turn is over."""
    sockets = Sockets(Talk((), "web.test", 80, rules()), tmp_path / "cell", loop)
    rests = []

    async def rest(_: Pace) -> None:
        rests.append(1)

    async def run() -> None:
        monkeypatch.setattr(Pace, "over", property(lambda _: True))
        monkeypatch.setattr(Pace, "rest", rest)
        sockets.attempt.start()
        sockets.ends[CLIENT].sendall(request() * 200)
        heard, wanted = 0, len(request()) * 200
        while heard < wanted:
            await asyncio.sleep(0.001)
            if SERVER in sockets.ends:
                with contextlib.suppress(BlockingIOError):
                    heard += len(sockets.ends[SERVER].recv(1 << 20))
        sockets.attempt.cut("the test is over", cause=None)
        await sockets.attempt.ended()

    loop.run_until_complete(asyncio.wait_for(run(), 60))
    sockets.close()
    assert len(rests) >= 190


def test_what_a_client_has_said_is_read_before_an_answer_brings_more(loop: Loop, ends: Ends) -> None:
    """Also where the loop has not noticed it yet: otherwise a line and what an answer to the server's brings come as one."""
    ends.exchange.flowing = True
    ends.sides._unready(CLIENT)
    ends.say(CLIENT, b"SSH-2.0-a\r\n")
    ends.say(SERVER, b"SSH-2.0-b\r\n")
    assert loop.run_until_complete(ends.sides.next(ends.exchange)) == ev.Bytes(CLIENT, b"SSH-2.0-a\r\n")


@pytest.mark.parametrize("left", [True, False])
def test_a_client_that_is_not_read_is_not_late(loop: Loop, ends: Ends, *, left: bool) -> None:
    """While a server takes nothing, the rest of a frame may be there: its time begins when there is room to read it."""

    async def run() -> None:
        exchange = ends.exchange
        if left:
            exchange.hold(Waits.FRAME, patience.FRAME)
            exchange.wants = NEITHER
            armed = loop.create_task(ends.sides.next(exchange))
            await asyncio.sleep(0.01)
            armed.cancel()
            exchange.wants = BOTH
            await ends.cram(SERVER)
        else:
            exchange.through = True
            ends.fill(CLIENT)
            await ends.stuff()
            exchange.hold(Waits.FRAME, patience.FRAME)
        waits = loop.create_task(ends.sides.next(exchange))
        for _ in range(20):
            loop.skipped += patience.FRAME / 4
            await asyncio.sleep(0.001)
        assert not waits.done()
        ends.far[CLIENT].close()
        while not waits.done():
            ends.drain(SERVER)
            await asyncio.sleep(0.001)
        assert not isinstance(await waits, ev.DeadlinePassed)

    loop.run_until_complete(asyncio.wait_for(run(), 10_000))


def test_a_client_that_is_gone_does_not_wait_for_room(loop: Loop, ends: Ends) -> None:
    """What a server has no room for does not keep a connection whose client was reset."""

    async def run() -> None:
        await ends.cram(SERVER)
        ends.reset(CLIENT)
        waits = loop.create_task(ends.sides.next(ends.exchange))
        while not waits.done():
            loop.skipped += LOOK / 5
            await asyncio.sleep(0.001)
        assert await waits == ev.Broken("a peer was gone before there was room for what it sent")

    loop.run_until_complete(asyncio.wait_for(run(), 10_000))


def test_a_server_that_has_ended_in_good_order_is_not_gone(loop: Loop, ends: Ends) -> None:
    """Its last words wait for a client that takes its time, though both sides of its connection are closed."""

    async def run() -> None:
        sides, exchange = ends.sides, ends.exchange
        ends.far[CLIENT].shutdown(socket.SHUT_WR)
        assert await sides.next(exchange) == ev.End(CLIENT)
        sides.finish(SERVER)
        ends.far[SERVER].send(b"at last")
        ends.far[SERVER].close()
        exchange.wants = NEITHER
        waits = loop.create_task(sides.next(exchange))
        for _ in range(20):
            loop.skipped += LOOK / 5
            await asyncio.sleep(0.001)
        assert not waits.done()
        waits.cancel()
        exchange.wants = ONLY[SERVER]
        assert await sides.next(exchange) == ev.Bytes(SERVER, b"at last")

    loop.run_until_complete(asyncio.wait_for(run(), 10_000))


@pytest.mark.parametrize("side", [CLIENT, SERVER])
def test_what_waits_for_room_has_not_gone(ends: Ends, side: Side) -> None:
    """Of what a peer has no room for only what the kernel took is counted as moved."""
    said = 0
    while not ends.sides.crowded(side):
        ends.sides.send(side, bytes(100_001), own=False)
        said += 100_001
    out, back = ends.sides.moved
    assert said - 100_001 <= (back if side is CLIENT else out) < said
    assert (out if side is CLIENT else back) == 0


def test_the_last_words_are_heard_before_the_end(loop: Loop, tmp_path: Path) -> None:
    """A client that has had no room for an answer of ours gets all of it, and then learns that nothing more comes."""
    sockets = Sockets(Talk((), "web.test", 80, rules()), tmp_path / "cell", loop)

    async def run() -> None:
        sides, said, heard = sockets.attempt._sides, 0, 0
        while not sides.crowded(CLIENT):
            sides.send(CLIENT, bytes(1 << 16), own=True)
            said += 1 << 16
        close = do.Close(Host("web.test"), None, "closed", Outcome.REACHED, drain=True)
        closing = loop.create_task(sockets.attempt._close(close))
        await asyncio.sleep(0.01)
        while more := await loop.sock_recv(sockets.ends[CLIENT], 1 << 20):
            heard += len(more)
        assert heard == said
        sockets.ends[CLIENT].close()
        await closing
        sides.close()

    loop.run_until_complete(asyncio.wait_for(run(), 60))
    sockets.close()
