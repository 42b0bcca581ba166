"""An established connection: both sockets, the bytes that went each way, and how it ended."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

from irons_local.gateway.budget import patience
from irons_local.gateway.budget.deadlines import Deadline
from irons_local.gateway.budget.watch import FairLoop
from irons_local.gateway.http2.frames import looks_like_settings
from irons_local.gateway.streams.splice import Flow, Pipes, Turns
from irons_local.gateway.streams.stream import Wire, either

LOOK = 60.0
"""Seconds between two looks at a connection with one side closed: it lives as long as both peers answer keep-alives."""
GREETING = 9
"""Bytes of a server's first words that are looked at."""
QUIET = 0.2
QUIET_MOST = 5.0


class BrokenError(Exception):
    """The connection ended otherwise than by both sides closing it; the message says how, for the log."""


class Session:
    """Relays between a client and its server.

    Args:
        loop: the loop that runs it.
        client: the program in the cell.
        server: what it reached.
        pipes: what the relay moves bytes through.
        turns: of the cell whose connection it is.

    Attributes:
        uploading: the client is in the middle of a request.
        greeting: the first bytes that the server sent, where `begin` was to look at them.
        heeding: `begin` is to look at them, and they have not come.
    """

    def __init__(self, loop: FairLoop, client: Wire, server: Wire, pipes: Pipes, turns: Turns) -> None:
        self._loop = loop
        self.client = client
        self.server = server
        self._pipes = pipes
        self._turns = turns
        self.uploading = False
        self.greeting = b""
        self.heeding = False
        self._sent = 0
        self._received = 0
        self._forth: Flow | None = None
        self._back: Flow | None = None
        self._over: asyncio.Future[str | None] = loop.create_future()
        self._client_done = False
        self._server_done = False
        self._answers_only = False
        self._timer: Deadline | None = None

    @property
    def bytes_out(self) -> int:
        """Bytes that went to the server."""
        return self._sent + (self._forth.moved if self._forth else 0)

    @property
    def bytes_in(self) -> int:
        """Bytes that came from the server and went to the client."""
        return self._received + (self._back.moved if self._back else 0)

    def begin(self, *, answers_only: bool, heed: bool = False) -> None:
        """Begin to relay what the server says.

        Args:
            answers_only: the client's side is of no use once the server has closed its own.
            heed: look at the first bytes in passing, for `greeting`. Those of HTTP/2 stay where they are until this
                is called again, for the client speaks first there, and says whether it is.
        """
        self._answers_only = answers_only
        if self._back is not None:
            return
        if not heed:
            self._unheed()
            self._relay_back()
        elif not self.heeding:
            self.heeding = True
            self.server.watch.read(self._heed)

    def _heed(self) -> None:
        self._unheed()
        # What is wrong with the connection the relay will meet itself.
        with suppress(OSError):
            self.greeting = self.server.sock.recv(GREETING, socket.MSG_PEEK)
        if not looks_like_settings(self.greeting):
            self._relay_back()

    def _unheed(self) -> None:
        if self.heeding:
            self.heeding = False
            self.server.watch.unread()

    def _relay_back(self) -> None:
        self._back = Flow(self._loop, self.server, self.client, self._pipes, self._turns, self._flow_ended)
        self._back.start()

    async def server_speaks(self) -> bool:
        """Wait for the server's next words, while they are not relayed; False where the client ends its side first.

        Raises:
            BrokenError: a peer is gone.
            OSError: the connection broke.
        """
        # Most often it is the server that has said something.
        while self.server.peek() is None:
            said = self.client.peek()
            if said == b"":
                return False
            if said is not None:
                # It has said more, which waits for the server's answer.
                await self.hear()
                return True
            await either(self._loop, self.client, self.server)
        return True

    async def hear(self) -> None:
        """Wait until the server says something, while it is not relayed, as long as both peers are there.

        Raises:
            BrokenError: one is gone.
        """
        while True:
            with suppress(TimeoutError):
                await self.server.readable(LOOK)
                return
            if self._gone:
                raise BrokenError("a peer was gone before the server answered")

    async def send(self, data: bytes) -> None:
        """Send bytes to the server.

        Raises:
            OSError: the connection broke.
        """
        await self.server.send(data)
        self._sent += len(data)

    async def answer(self, data: bytes) -> None:
        """Send bytes to the client, while what the server says is not relayed.

        Raises:
            OSError: the connection broke.
        """
        await self.client.send(data)
        self._received += len(data)

    async def splice(self) -> None:
        """Relay both ways without looking, until both sides have closed.

        Raises:
            BrokenError: it ended in another way.
            OSError: the connection broke.
        """
        if self.client.held:
            held, self.client.held = self.client.held, b""
            await self.send(held)
        self.begin(answers_only=False)
        self._forth = Flow(self._loop, self.client, self.server, self._pipes, self._turns, self._flow_ended)
        self._forth.start()
        await self._until_over()

    async def finish(self, *, tell: bool = True) -> None:
        """The client has ended its side: tell the server, and relay what it still says.

        Args:
            tell: False for a server that takes the end of its client's side for a wish to stop, as proxies do.

        Raises:
            BrokenError: it ended in another way.
        """
        if tell:
            self.server.finish()
        self._client_done = True
        self._look()
        await self._until_over()

    async def delivered(self) -> None:
        """Wait until both peers have had room for what was sent to them: until then it is one of its cell's connections.

        Raises:
            OSError: the connection broke.
        """
        await self.client.delivered()
        await self.server.delivered()

    async def quiesce(self) -> None:
        """Stop relaying what the server says, with nothing of it lost.

        Raises:
            BrokenError: the server has ended.
        """
        self._unheed()
        back = self._back
        if back is None:
            return
        await back.pause()
        if self._server_done or self._over.done():
            raise BrokenError("the server closed")
        self._received += back.moved
        self._back = None

    async def last_answers(self) -> None:
        """Nothing more will be asked: relay what the server still answers, until it is quiet for a moment."""
        deadline = self._loop.time() + QUIET_MOST
        seen = -1
        while not self._server_done and not self._over.done() and self._loop.time() < deadline:
            if self.bytes_in == seen:
                break
            seen = self.bytes_in
            with suppress(TimeoutError):
                async with asyncio.timeout(QUIET):
                    await asyncio.shield(self._over)
        self.stop()

    def stop(self) -> None:
        """Stop every relay; the sockets stay as they are."""
        self._unheed()
        for flow in (self._forth, self._back):
            if flow is not None and not flow.done:
                flow.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._over.done():
            self._over.cancel()

    async def _until_over(self) -> None:
        broken = await self._over
        if broken is not None:
            raise BrokenError(broken)

    def _flow_ended(self, flow: Flow, error: OSError | None) -> None:
        if error is not None:
            by_client = flow.reading is (flow is self._forth)
            self._settle("reset by the client" if by_client else "reset by the server")
            # Whoever waits for the client's next words gets their end.
            self._deafen()
            return
        if flow is self._back:
            self._server_done = True
        else:
            self._client_done = True
        self._look()
        if not self._over.done():
            # Its end stays there to be read for as long as the other way is open.
            (self.server if flow is self._back else self.client).watch.deafen()

    def _look(self) -> None:
        if self._client_done and self._server_done:
            self._settle(None)
        elif self._server_done and self._answers_only:
            self._timer = self._loop.deadlines.after(patience.CLOSING, self._close)
        else:
            self._timer = self._loop.deadlines.after(LOOK, self._check)

    def _settle(self, how: str | None) -> None:
        if not self._over.done():
            self._over.set_result(how)

    def _deafen(self) -> None:
        with suppress(OSError):
            self.client.sock.shutdown(socket.SHUT_RD)

    def _close(self) -> None:
        """The server has answered for the last time: the client may finish what it uploads, as long as both are there."""
        if self.uploading and not self._gone:
            self._timer = self._loop.deadlines.after(patience.CLOSING, self._close)
        else:
            self._deafen()

    def _check(self) -> None:
        if self._gone:
            self._settle("a peer was gone with one side closed")
            self._deafen()
        else:
            self._timer = self._loop.deadlines.after(LOOK, self._check)

    @property
    def _gone(self) -> bool:
        return self.client.gone or self.server.gone
