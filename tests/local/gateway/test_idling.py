"""Connections on which nothing is said for as long as it takes: they last while both peers are there."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from irons_local.gateway.budget import patience
from irons_local.gateway.budget.watch import FairLoop
from irons_local.gateway.http1.heads import Head, parse_head
from irons_local.gateway.http1.requests import Requests
from irons_local.gateway.relay import modes
from irons_local.gateway.relay.session import LOOK, BrokenError, Session
from irons_local.gateway.streams.splice import Pipes, Turns
from irons_local.gateway.streams.stream import Wire

HOURS = 10_000.0
RESET = struct.pack("ii", 1, 0)
UPLOAD = b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\n"


class Loop(FairLoop):
    """A loop whose clock can be put forward."""

    def __init__(self) -> None:
        self.skipped = 0.0
        super().__init__()

    def time(self) -> float:
        """The time on its clock."""
        return time.monotonic() + self.skipped

    async def skip(self, seconds: float) -> None:
        """Let so much time go by at once, in steps in which every timer goes off."""
        for _ in range(20):
            self.skipped += seconds / 20
            await asyncio.sleep(0.001)


class Place:
    """A session, and the sockets of its two peers."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self._held = contextlib.ExitStack()
        self.client, client = self._ends()
        self.server, server = self._ends()
        self._pipes = Pipes(pytest.fail)
        turns = Turns(loop, lambda: False)
        self.session = Session(loop, Wire(loop, client), Wire(loop, server), self._pipes, turns)

    def _ends(self) -> tuple[socket.socket, socket.socket]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            far = self._held.enter_context(socket.create_connection(listener.getsockname()))
            near, _ = listener.accept()
        far.setblocking(False)
        return far, self._held.enter_context(near)

    def close(self) -> None:
        """Close everything."""
        self.session.stop()
        self._pipes.close()
        self._held.close()


@pytest.fixture
def place() -> Iterator[Place]:
    """A session between a client and a server."""
    with contextlib.closing(Loop()) as loop:
        place = Place(loop)
        yield place
        place.close()


def reset(sock: socket.socket) -> None:
    """Be gone."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


async def said(loop: Loop, sock: socket.socket) -> bytes:
    """What a peer hears next."""
    return await asyncio.wait_for(loop.sock_recv(sock, 4096), 10)


def head() -> Head:
    """The head of an upload."""
    return parse_head(UPLOAD)


@pytest.mark.parametrize("first", ["client", "server"])
def test_half_closed_it_waits_as_long_as_it_takes(place: Place, first: str) -> None:
    """Hours after one side has said its last word, what the other says still arrives."""
    loop, session = place.loop, place.session
    one, other = (place.client, place.server) if first == "client" else (place.server, place.client)

    async def run() -> None:
        relay = loop.create_task(session.splice())
        await asyncio.sleep(0)
        one.shutdown(socket.SHUT_WR)
        assert await said(loop, other) == b""
        await loop.skip(HOURS)
        other.send(b"at last")
        assert await said(loop, one) == b"at last"
        other.shutdown(socket.SHUT_WR)
        await relay

    loop.run_until_complete(asyncio.wait_for(run(), HOURS * 2))


def test_half_closed_it_ends_when_its_client_is_gone(place: Place) -> None:
    """A client that has said its last word and then went away holds nothing for long, though its server says nothing."""
    loop, session = place.loop, place.session

    async def run() -> None:
        relay = loop.create_task(session.splice())
        await asyncio.sleep(0)
        place.client.shutdown(socket.SHUT_WR)
        assert await said(loop, place.server) == b""
        reset(place.client)
        await loop.skip(2 * LOOK)
        with pytest.raises(BrokenError):
            await relay

    loop.run_until_complete(asyncio.wait_for(run(), HOURS * 2))


@pytest.mark.parametrize("early", [False, True])
def test_an_upload_may_rest(place: Place, *, early: bool) -> None:
    """Hours into an upload it goes on, also after an early answer and the end of what its server says."""
    loop, session = place.loop, place.session

    async def run() -> None:
        session.begin(answers_only=True)
        upload = loop.create_task(modes._request(session, Requests(session.client, b"ab"), head()))
        assert (await said(loop, place.server)).endswith(b"ab")
        if early:
            place.server.send(b"HTTP/1.1 200 OK\r\n\r\n")
            place.server.shutdown(socket.SHUT_WR)
        await loop.skip(HOURS)
        place.client.send(b"cd")
        assert await said(loop, place.server) == b"cd"
        await upload

    loop.run_until_complete(asyncio.wait_for(run(), HOURS * 2))


def test_an_upload_ends_when_its_server_is_gone(place: Place) -> None:
    """A client that rests in the middle of an upload does not outlast its server."""
    loop, session = place.loop, place.session

    async def run() -> None:
        session.begin(answers_only=True)
        upload = loop.create_task(modes._request(session, Requests(session.client, b"ab"), head()))
        await said(loop, place.server)
        place.server.shutdown(socket.SHUT_WR)
        assert await said(loop, place.client) == b""
        reset(place.server)
        await loop.skip(3 * patience.CLOSING)
        with pytest.raises(OSError, match="middle of a request"):
            await upload

    loop.run_until_complete(asyncio.wait_for(run(), HOURS * 2))


@pytest.mark.parametrize("gone", [False, True])
def test_a_server_may_take_its_time_to_answer(place: Place, *, gone: bool) -> None:
    """Hours after a client has said more than its server has answered the answer is still heard, unless one is gone."""
    loop, session = place.loop, place.session

    async def run() -> None:
        place.client.send(b"more")
        speaks = loop.create_task(session.server_speaks())
        await loop.skip(HOURS)
        assert not speaks.done()
        if gone:
            reset(place.client)
            await loop.skip(HOURS)
            with pytest.raises(BrokenError):
                await speaks
        else:
            place.server.send(b"at last")
            assert await speaks

    loop.run_until_complete(asyncio.wait_for(run(), 3 * HOURS))
