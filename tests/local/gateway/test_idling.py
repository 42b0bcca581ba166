"""Connections on which nothing is sent for hours last while both peers are there."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.local.gateway.conversations import SECRET, SERVER_HELLO, request
from tests.local.gateway.live_talks import Loop, Sockets
from tests.local.gateway.talks import Talk, rules

from irons_local.gateway.attempt.sides import LOOK
from irons_local.gateway.budget import patience
from irons_local.gateway.conversation.events import Side

HOURS = 10_000.0
RESET = struct.pack("ii", 1, 0)
UPLOAD = request("web.test", "POST / HTTP/1.1", "Content-Length: 4")
MORE = b"\x17\x03\x03\0\x01x"


class Place:
    """A connection that has begun, and the sockets of its two peers."""

    def __init__(self, loop: Loop, home: Path, port: int) -> None:
        self.loop = loop
        self._sockets = Sockets(Talk((), "web.test", port, rules()), home, loop)
        self._sockets.attempt.start()
        self.client = self._sockets.ends[Side.CLIENT]

    @property
    def server(self) -> socket.socket:
        """What it reached."""
        return self._sockets.ends[Side.SERVER]

    async def reach(self, said: bytes) -> None:
        """Have the client begin, and wait until a server is there."""
        self.client.send(said)
        for _ in range(1000):
            if Side.SERVER in self._sockets.ends:
                return
            await asyncio.sleep(0.001)
        pytest.fail("no server was dialled")

    async def splice(self) -> None:
        """Speak TLS, so that both ways go by unseen."""
        await self.reach(SECRET)
        assert await self.heard(self.server) == SECRET
        self.server.send(SERVER_HELLO)
        assert await self.heard(self.client) == SERVER_HELLO

    async def heard(self, sock: socket.socket) -> bytes:
        """What a peer hears next."""
        return await asyncio.wait_for(self.loop.sock_recv(sock, 4096), HOURS * 9)

    async def skip(self, seconds: float) -> None:
        """Let so much time go by at once, in steps in which every timer goes off."""
        for _ in range(20):
            self.loop.skipped += seconds / 20
            await asyncio.sleep(0.001)

    async def ended(self) -> str:
        """Wait until it has ended; the line in the log."""
        await self._sockets.attempt.ended()
        await asyncio.sleep(0)
        return self.ending

    @property
    def ending(self) -> str:
        """How it ended; nothing where it has not."""
        kind, fields = self._sockets.log.records[-1]
        return str(fields["ended"]) if kind == "close" else ""

    async def close(self) -> None:
        """Let go of everything."""
        self._sockets.attempt.cut("the test is over", cause=None)
        await self._sockets.attempt.ended()
        await asyncio.sleep(0)
        self._sockets.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    """A loop whose clock can be put forward."""
    with contextlib.closing(Loop()) as loop:
        yield loop


@pytest.fixture
def secure(loop: Loop, tmp_path: Path) -> Iterator[Place]:
    """A connection to port 443."""
    yield from _place(loop, tmp_path, 443)


@pytest.fixture
def clear(loop: Loop, tmp_path: Path) -> Iterator[Place]:
    """A connection to port 80."""
    yield from _place(loop, tmp_path, 80)


def _place(loop: Loop, home: Path, port: int) -> Iterator[Place]:
    async def make() -> Place:
        return Place(loop, home / "cell", port)

    place = loop.run_until_complete(make())
    yield place
    loop.run_until_complete(place.close())


def reset(sock: socket.socket) -> None:
    """Be gone."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


@pytest.mark.parametrize("first", ["client", "server"])
def test_half_closed_it_waits_as_long_as_it_takes(secure: Place, first: str) -> None:
    """What one side sends hours after the other's end still arrives."""

    async def run() -> None:
        await secure.splice()
        one, other = (secure.client, secure.server) if first == "client" else (secure.server, secure.client)
        one.shutdown(socket.SHUT_WR)
        assert await secure.heard(other) == b""
        await secure.skip(HOURS)
        other.send(b"at last")
        assert await secure.heard(one) == b"at last"
        other.shutdown(socket.SHUT_WR)
        assert await secure.ended() == "closed"

    secure.loop.run_until_complete(asyncio.wait_for(run(), HOURS * 9))


def test_half_closed_it_ends_when_its_client_is_gone(secure: Place) -> None:
    """A client that has ended and gone away holds nothing for long, though its server sends nothing."""

    async def run() -> None:
        await secure.splice()
        secure.client.shutdown(socket.SHUT_WR)
        assert await secure.heard(secure.server) == b""
        reset(secure.client)
        await secure.skip(2 * LOOK)
        assert await secure.ended() == "a peer was gone with one side closed"

    secure.loop.run_until_complete(asyncio.wait_for(run(), HOURS * 9))


@pytest.mark.parametrize("early", [False, True])
def test_an_upload_may_rest(clear: Place, *, early: bool) -> None:
    """Hours into an upload it goes on, also after an early answer and the end of what its server says."""

    async def run() -> None:
        await clear.reach(UPLOAD + b"ab")
        assert (await clear.heard(clear.server)).endswith(b"ab")
        if early:
            clear.server.send(b"HTTP/1.1 200 OK\r\n\r\n")
            clear.server.shutdown(socket.SHUT_WR)
        await clear.skip(HOURS)
        clear.client.send(b"cd")
        assert await clear.heard(clear.server) == b"cd"
        assert clear.ending == ""

    clear.loop.run_until_complete(asyncio.wait_for(run(), HOURS * 9))


def test_an_upload_ends_when_its_server_is_gone(clear: Place) -> None:
    """A client that rests in the middle of an upload does not outlast its server."""

    async def run() -> None:
        await clear.reach(UPLOAD + b"ab")
        await clear.heard(clear.server)
        clear.server.shutdown(socket.SHUT_WR)
        assert await clear.heard(clear.client) == b""
        reset(clear.server)
        await clear.skip(3 * patience.CLOSING)
        assert await clear.ended() == "broken: the client ended in the middle of a request"

    clear.loop.run_until_complete(asyncio.wait_for(run(), HOURS * 9))


@pytest.mark.parametrize("gone", [False, True])
def test_a_server_may_take_its_time_to_answer(secure: Place, *, gone: bool) -> None:
    """An answer that comes hours after the request still arrives, unless one side is gone."""

    async def run() -> None:
        await secure.reach(SECRET)
        assert await secure.heard(secure.server) == SECRET
        secure.client.send(MORE)
        await secure.skip(HOURS)
        assert secure.ending == ""
        if gone:
            reset(secure.client)
            await secure.skip(HOURS)
            assert await secure.ended() == "a peer was gone before the server answered"
        else:
            secure.server.send(SERVER_HELLO)
            assert await secure.heard(secure.client) == SERVER_HELLO
            assert await secure.heard(secure.server) == MORE

    secure.loop.run_until_complete(asyncio.wait_for(run(), HOURS * 9))


@pytest.mark.parametrize("gone", [False, True])
def test_what_there_is_no_room_for_may_wait(clear: Place, *, gone: bool) -> None:
    """Hours after a server has stopped to read, its client's next words still wait for room, unless the client is gone."""

    async def run() -> None:
        await clear.reach(request("web.test", "POST / HTTP/1.1", "Content-Length: 99999999"))
        with contextlib.suppress(BlockingIOError):
            while True:
                clear.client.send(bytes(1 << 16))
                await asyncio.sleep(0.001)
        await clear.skip(HOURS)
        assert clear.ending == ""
        if gone:
            reset(clear.client)
            await clear.skip(HOURS)
            assert await clear.ended() == "a peer was gone before there was room for what it sent"
            return
        while not clear.client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            with contextlib.suppress(BlockingIOError):
                clear.server.recv(1 << 20)
            with contextlib.suppress(BlockingIOError):
                clear.client.send(b"x")
                break
            await asyncio.sleep(0.001)
        assert clear.ending == ""

    clear.loop.run_until_complete(asyncio.wait_for(run(), HOURS * 9))


def test_a_client_may_end_before_its_server_has_answered(secure: Place) -> None:
    """A client that ends with its ClientHello gets all that its server sends."""

    async def run() -> None:
        await secure.reach(SECRET)
        assert await secure.heard(secure.server) == SECRET
        secure.client.shutdown(socket.SHUT_WR)
        assert await secure.heard(secure.server) == b""
        for words in (SERVER_HELLO, b"more", b"at last"):
            secure.server.send(words)
            assert await secure.heard(secure.client) == words
        assert secure.ending == ""
        secure.server.shutdown(socket.SHUT_WR)
        assert await secure.ended() == "closed"

    secure.loop.run_until_complete(asyncio.wait_for(run(), HOURS * 9))
