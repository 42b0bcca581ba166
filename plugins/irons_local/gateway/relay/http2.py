"""Relays HTTP/2 in the clear: what `http2` understands of each direction is read and written here."""

from __future__ import annotations

import asyncio

from irons_local.gateway.budget import patience
from irons_local.gateway.decide import refusals
from irons_local.gateway.http2.conversation import Http2
from irons_local.gateway.http2.frames import (
    HEAD,
    HTTP_1_1_REQUIRED,
    Http2Error,
    looks_like_settings,
)
from irons_local.gateway.inspect.late import LateError, faulty
from irons_local.gateway.relay.session import BrokenError, Session
from irons_local.gateway.streams.stream import CHUNK, Wire
from irons_policy.causes import Cause

LARGE = 256 << 10
"""Bytes of a server's that are read at once: what is in them is mostly passed on as it is."""


async def first_request(client: Wire, engine: Http2, data: bytes, within: float) -> bool:
    """Read up to the first request, while no server is there.

    Args:
        client: the connection.
        engine: judges the request; what it raises is raised here.
        data: what has been read already.
        within: seconds that it may take.

    Returns:
        Whether one came; False at the end of the connection, too.

    Raises:
        TimeoutError: none came in time.
        LateError: the client broke the protocol.
        OSError: the connection broke.
    """
    async with asyncio.timeout(within):
        while True:
            try:
                engine.feed_client(data)
                while engine.step_client() and not engine.last:
                    if client.pace.over:
                        await client.pace.rest()
            except Http2Error as error:
                raise faulty(engine, error) from None
            out = engine.take_for_client()
            if out:
                await client.send(out)
            if engine.last or engine.going:
                return True
            data = await client.recv()
            if not data:
                return False


async def relay_http2(session: Session, engine: Http2) -> None:
    """Relay a connection whose server is reached.

    Args:
        session: the connection; nothing of its server is relayed yet.
        engine: judges each request.

    Raises:
        LateError: one side broke the protocol, or the server speaks another one.
        TooMuchError: the connections of the cell hold too much.
        BrokenError: a side ended before the server has shown what it speaks.
        OSError: the connection broke.
    """
    try:
        engine.feed_client(session.client.release())
    except Http2Error as error:
        raise faulty(engine, error) from None
    engine.hold()
    await _meet(session, engine)
    lock = asyncio.Lock()
    forth = asyncio.ensure_future(_forth(session, engine, lock))
    back = asyncio.ensure_future(_back(session, engine, lock))
    try:
        done, _ = await asyncio.wait({forth, back}, return_when=asyncio.FIRST_COMPLETED)
        if not engine.over and not any(task.exception() for task in done):
            ended, other = (session.server, back) if forth in done else (session.client, forth)
            ended.finish()
            await asyncio.wait({other}, timeout=None if other is back else patience.CLOSING)
    finally:
        for task in (forth, back):
            task.cancel()
        await asyncio.gather(forth, back, return_exceptions=True)
    for task in (forth, back):
        failed = None if task.cancelled() else task.exception()
        if isinstance(failed, Http2Error):
            raise faulty(engine, failed)
        if failed is not None:
            raise failed
    if engine.over:
        session.server.finish()
        await refusals.drain(session.client)


async def _meet(session: Session, engine: Http2) -> None:
    """Have the server show that it speaks HTTP/2 before it hears what the client says in it.

    Bodies are not looked into, so on the client's word alone anything could go on in one.
    """
    await session.send(engine.introduce())
    server = session.server
    begun = b""
    while len(begun) < HEAD:
        if not await session.server_speaks():
            raise BrokenError("closed before the server answered")
        more = await server.recv(HEAD - len(begun))
        if not more:
            break
        begun += more
    if not looks_like_settings(begun):
        error = Http2Error("the server does not speak HTTP/2", HTTP_1_1_REQUIRED)
        engine.end(error)
        raise LateError(str(error), "http", Cause.PROTOCOL)
    server.held = begun + server.held
    await session.send(engine.take_for_server())


async def _forth(session: Session, engine: Http2, lock: asyncio.Lock) -> None:
    while not engine.over and await _hear_client(session, engine, lock):
        pass


async def _hear_client(session: Session, engine: Http2, lock: asyncio.Lock) -> bool:
    """Pass on what the client has said, and wait for more; False at its end."""
    client = session.client
    more = True
    while more and not engine.over:
        more = engine.step_client()
        out = engine.take_for_server()
        if out:
            await session.send(out)
        del out
        if engine.pending:
            async with lock:
                await session.answer(engine.take_for_client())
        if client.pace.over:
            await client.pace.rest()
    if engine.over:
        return False
    engine.hold()
    # What its server has no room for stays with the client.
    room = await _room(session.server, CHUNK)
    try:
        data = await client.recv(room, within=patience.FRAME if engine.partial else None)
    except TimeoutError:
        raise Http2Error("a frame was not finished in time") from None
    engine.feed_client(data)
    return bool(data)


async def _back(session: Session, engine: Http2, lock: asyncio.Lock) -> None:
    while not engine.over and await _hear_server(session, engine, lock):
        pass


async def _hear_server(session: Session, engine: Http2, lock: asyncio.Lock) -> bool:
    """Wait for what the server says, and pass it on; False at its end."""
    server = session.server
    engine.hold()
    async with lock:
        room = await _room(session.client, LARGE)
    data = await server.recv(room)
    engine.feed_server(data)
    said = more = bool(data)
    del data
    while more and not engine.over:
        async with lock:
            out, more = engine.step_server()
            await session.answer(out)
        if server.pace.over:
            await server.pace.rest()
    return said


async def _room(sink: Wire, most: int) -> int:
    """How many bytes a side has room for, `most` at most; waits until there is room."""
    while not (room := sink.room()):
        await sink.writable()
    return min(room, most)
