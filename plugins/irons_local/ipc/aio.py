"""The same messages as `link`, for asyncio; apart from it so that the keeper never imports asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from typing import Any

from irons_local.ipc.framing import Body, FrameReader, LinkClosedError, LinkError, Message, Sender, answer_of
from irons_local.log.context import REQUEST


class AsyncLink:
    """A link for one event loop; make it while that loop runs.

    Answers go to the `request` that waits for them; notices and the other side's requests to `recv`.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._loop = asyncio.get_running_loop()
        self._receiver = FrameReader(sock)
        self._sender = Sender(sock)
        self._drained: asyncio.Future[None] | None = None
        self._arrived: asyncio.Queue[Message | None] = asyncio.Queue()
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._last = 0
        self._fault: LinkError | None = None
        self._loop.add_reader(sock, self._readable)

    @property
    def closed(self) -> bool:
        """True once either side has ended the link."""
        return self._fault is not None

    async def send(self, body: Body, fds: Sequence[int] = ()) -> None:
        """Send one message and wait until the kernel has it; the descriptors stay the caller's.

        Raises:
            LinkClosedError: the other side is gone.
        """
        self.post(body, fds)
        if self._drained is not None:
            await asyncio.shield(self._drained)
        if self._fault is not None:
            raise LinkClosedError(str(self._fault)) from self._fault

    def post(self, body: Body, fds: Sequence[int] = ()) -> None:
        """Send one message before all later ones, without waiting until the kernel has it.

        Raises:
            LinkClosedError: the other side is gone.
        """
        if self._fault is not None:
            raise LinkClosedError(str(self._fault)) from self._fault
        self._sender.push(body, fds)
        self._writable()

    async def recv(self) -> Message:
        """The next notice or request of the other side.

        Raises:
            LinkClosedError: the other side is gone.
            LinkError: what came is not a message.
        """
        message = await self._arrived.get()
        if message is None:
            self._arrived.put_nowait(None)
            raise self._fault or LinkClosedError("closed")
        return message

    async def request(
        self, op: str, fds: Sequence[int] = (), /, *, within: float | None = None, **fields: Any
    ) -> Message:
        """Ask, and wait for the answer.

        Args:
            op: what is asked.
            fds: descriptors that go with it.
            within: seconds to wait for the answer; None waits for ever.
            **fields: the rest of the request; the id of the API request that it belongs to is added as `request`.

        Returns:
            The answer's `ok`, with its descriptors.

        Raises:
            RequestError: the other side answered with an error.
            LinkClosedError: the other side is gone.
            TimeoutError: no answer came in time.
        """
        self._last += 1
        identity = self._last
        future: asyncio.Future[Message] = self._loop.create_future()
        self._waiting[identity] = future
        if named := REQUEST.get():
            fields["request"] = named
        try:
            async with asyncio.timeout(within):
                await self.send({"id": identity, "op": op, **fields}, fds)
                return answer_of(await future)
        except BaseException:
            # An answer that came just as the wait was given up brings descriptors that no one will take.
            if future.done() and not future.cancelled() and future.exception() is None:
                future.result().close()
            raise
        finally:
            self._waiting.pop(identity, None)
            future.cancel()

    async def answer(self, request: Message, ok: Body | None = None, fds: Sequence[int] = ()) -> None:
        """Answer a request of the other side; a notice, which has no id, gets none.

        Raises:
            LinkClosedError: the other side is gone.
        """
        if "id" in request.body:
            await self.send({"id": request.body["id"], "ok": ok or {}}, fds)

    async def refuse(self, request: Message, code: str, message: str) -> None:
        """Answer a request of the other side with an error.

        Raises:
            LinkClosedError: the other side is gone.
        """
        if "id" in request.body:
            await self.send({"id": request.body["id"], "error": {"code": code, "message": message}})

    def close(self) -> None:
        """End the link; everyone who waits on it gets `LinkClosedError`."""
        self._end(LinkClosedError("closed"))

    def _readable(self) -> None:
        try:
            # A bounded number of messages at a time leaves the loop to others.
            for _ in range(64):
                message = self._receiver.step()
                if message is None:
                    return
                self._deliver(message)
        except LinkError as fault:
            self._end(fault)

    def _deliver(self, message: Message) -> None:
        if "op" in message.body:
            self._arrived.put_nowait(message)
            return
        future = self._waiting.pop(message.body.get("id", 0), None)
        if future is None or future.done():
            message.close()
        else:
            future.set_result(message)

    def _writable(self) -> None:
        try:
            done = self._sender.flush()
        except LinkError as fault:
            # Whoever is gone may have sent something before, and descriptors that no one else has.
            with contextlib.suppress(LinkError):
                while (message := self._receiver.step()) is not None:
                    self._deliver(message)
            self._end(fault)
            return
        if not done and self._drained is None:
            self._drained = self._loop.create_future()
            self._loop.add_writer(self.sock, self._writable)
        elif done and self._drained is not None:
            self._loop.remove_writer(self.sock)
            self._drained.set_result(None)
            self._drained = None

    def _end(self, fault: LinkError) -> None:
        if self._fault is not None:
            return
        self._fault = fault
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            self._loop.remove_reader(self.sock)
            self._loop.remove_writer(self.sock)
        if self._drained is not None:
            self._drained.set_result(None)
            self._drained = None
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(LinkClosedError(str(fault)))
        self._waiting.clear()
        self._arrived.put_nowait(None)
        self._sender.close()
        self._receiver.close()
        self.sock.close()


async def keepers(first: socket.socket, listener: socket.socket | None) -> AsyncIterator[AsyncLink]:
    """Yield a link to each keeper: the one that started this process, then every later one.

    A keeper that finds this process alive connects to the listening socket that the first one handed down. Ask for
    the next link when the last one has ended, and close it.

    Args:
        first: the link to the keeper that started this process.
        listener: where the next keeper connects; None ends with the first.
    """
    yield AsyncLink(first)
    if listener is None:
        return
    listener.setblocking(False)
    while True:
        sock, _ = await asyncio.get_running_loop().sock_accept(listener)
        yield AsyncLink(sock)
