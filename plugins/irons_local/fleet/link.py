"""A link between a server and a member: length-prefixed JSON over TLS, with requests, answers and notices in both directions."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any, Final

from irons_local.fleet.messages import ToMember, ToServer, body_of
from irons_local.ipc.framing import (
    MAX_BYTES,
    Body,
    LinkClosedError,
    LinkError,
    Message,
    RequestError,
    answer_of,
    encode,
)

SERVER: Final = "irons-server"
"""The name in the server's certificate: a member checks it, wherever the server's address leads."""
BEAT_EVERY: Final = 5.0
SILENCE: Final = 60.0
"""Seconds without any message after which the other side counts as gone."""
_HEADER = 4
_WORKING = 64
"""Requests of the other side that are worked on at the same time; more are refused, since answers must not wait behind them."""


class MemberLink:
    """One end of a link, over a connection that is there already.

    Args:
        reader: of the connection.
        writer: of it; closed with the link.
        answer: does what the other side asks or tells, and gives the answer; it raises `RequestError` to refuse.
        most: bytes of a message.
        working: requests that are worked on at the same time.
        always: requests, by their `op`, that do not count for that.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answer: Callable[[Body], Awaitable[Body]],
        *,
        most: int = MAX_BYTES,
        working: int = _WORKING,
        always: Collection[str] = (),
    ) -> None:
        self._most, self._working, self._always = most, working, always
        self._reader, self._writer, self._answer = reader, writer, answer
        self._waiting: dict[int, asyncio.Future[Body]] = {}
        self._last = 0
        self._fault: LinkError | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def closed(self) -> bool:
        """True once either side has ended the link."""
        return self._fault is not None

    async def run(self, beat: Callable[[], ToMember | ToServer | None] | None = None) -> None:
        """Take what arrives until the link ends.

        Args:
            beat: gives a notice that is sent every few seconds; None sends an empty one.

        Raises:
            LinkError: always: why it ended.
        """
        beating = asyncio.ensure_future(self._beat(beat))
        try:
            while True:
                body = await receive(self._reader, self._most)
                if "op" in body:
                    if len(self._tasks) < self._working or body["op"] in self._always:
                        self._spawn(self._serve(body))
                    elif "id" in body:
                        said = {"code": "busy", "message": "too much is asked at once; try again"}
                        await self._send({"id": body["id"], "error": said})
                    continue
                identity = body.get("id")
                future = self._waiting.pop(identity, None) if isinstance(identity, int) else None
                if future is not None and not future.done():
                    future.set_result(body)
        except LinkError as fault:
            self._end(fault)
            raise
        except asyncio.CancelledError:
            self._end(LinkClosedError("closed"))
            raise
        finally:
            beating.cancel()

    async def request(self, asked: ToMember | ToServer, *, within: float | None = None) -> Body:
        """Ask, and wait for the answer.

        Raises:
            RequestError: the other side answered with an error.
            LinkClosedError: the other side is gone.
            LinkError: the request is too large.
            TimeoutError: no answer came in time.
        """
        if self._fault is not None:
            raise LinkClosedError(str(self._fault))
        self._last += 1
        identity = self._last
        future: asyncio.Future[Body] = asyncio.get_running_loop().create_future()
        self._waiting[identity] = future
        try:
            async with asyncio.timeout(within):
                await self._send({"id": identity, **body_of(asked)})
                return answer_of(Message(await future, [])).body
        finally:
            self._waiting.pop(identity, None)
            future.cancel()

    def close(self) -> None:
        """End the link; everyone who waits on it gets `LinkClosedError`."""
        self._end(LinkClosedError("closed"))

    async def _serve(self, body: Body) -> None:
        asked, identity = "id" in body, body.get("id")
        answering = self._answer(body)
        # Only that has the message now, and need not keep it while it waits.
        del body
        try:
            try:
                answer: Body = {"ok": await answering}
            except RequestError as error:
                answer = {"error": {"code": error.code, "message": error.message}}
            if asked:
                await self._send({"id": identity, **answer})
        except LinkError as fault:
            self._end(fault)

    async def _beat(self, beat: Callable[[], ToMember | ToServer | None] | None) -> None:
        with contextlib.suppress(LinkError):
            while True:
                told = None if beat is None else beat()
                await self._send({} if told is None else body_of(told))
                await asyncio.sleep(BEAT_EVERY)

    async def _send(self, body: Body) -> None:
        try:
            await send(self._writer, body)
        except LinkClosedError as fault:
            # A side that takes nothing is as good as gone.
            self._end(fault)
            raise

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _end(self, fault: LinkError) -> None:
        if self._fault is not None:
            return
        self._fault = fault
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(LinkClosedError(str(fault)))
        self._waiting.clear()
        for task in tuple(self._tasks):
            task.cancel()
        # At once: what waits to be sent is not for who has no certificate any more.
        self._writer.transport.abort()


async def receive(reader: asyncio.StreamReader, most: int = MAX_BYTES, within: float = SILENCE) -> Body:
    """The next message of a connection.

    Raises:
        LinkClosedError: the other side is gone, or silent for too long.
        LinkError: what came is not a message.
    """
    try:
        async with asyncio.timeout(within):
            size = int.from_bytes(await reader.readexactly(_HEADER), "big")
            if size > most:
                raise LinkError(f"a message of {size} bytes is too large")
            data = await reader.readexactly(size)
    except TimeoutError:
        raise LinkClosedError("nothing was heard for too long") from None
    except (OSError, EOFError, ssl.SSLError) as error:
        raise LinkClosedError(str(error) or "the other side is gone") from error
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise LinkError("a message is not JSON") from error
    if not isinstance(body, dict):
        raise LinkError("a message is not a JSON object")
    return body


async def send(writer: asyncio.StreamWriter, body: Body) -> None:
    """Send one message.

    Raises:
        LinkClosedError: the other side is gone, or takes nothing for too long.
        LinkError: the message is too large.
    """
    data = encode(body)
    try:
        writer.write(data)
        async with asyncio.timeout(SILENCE):
            await writer.drain()
    except (OSError, RuntimeError, ssl.SSLError) as error:
        raise LinkClosedError(str(error) or "the other side is gone") from error


def server_context(certificate: Path, key: Path, ca: Path) -> ssl.SSLContext:
    """TLS of the server: members show a certificate of the authority, or none, to join.

    Raises:
        OSError, ssl.SSLError: a file cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(ca)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def member_context(ca: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS of a member: the server has a certificate of the authority, for the server's name.

    Raises:
        OSError, ssl.SSLError: a file cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(ca)
    context.load_cert_chain(certificate, key)
    return context


def joining_context() -> ssl.SSLContext:
    """TLS of a machine that joins: the server's certificate is checked by its fingerprint."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
