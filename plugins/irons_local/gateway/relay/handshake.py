"""Relays TLS: a ClientHello that was checked goes on, and nothing after it before the server has answered in TLS.

Nothing is to be seen in what follows, but for one thing: a server may ask for a second ClientHello.
"""

from __future__ import annotations

import ssl

from irons_local.gateway.inspect.late import Check, LateError
from irons_local.gateway.inspect.opening import read_hello
from irons_local.gateway.relay.session import BrokenError, Session
from irons_local.gateway.tls import client_hello
from irons_local.gateway.tls.server_hello import Answer
from irons_policy.causes import Cause

_PART = 8192
"""Bytes of an answer that are looked at in one turn: a server may fill them with what begins like TLS again and again."""


async def relay_tls(session: Session, context: ssl.SSLContext, check: Check, *, late: bool) -> None:
    """Relay what follows a ClientHello that was checked and sent.

    Args:
        session: the connection; what its server says is not relayed yet.
        context: what `client_hello.context` made.
        check: judges the name of a second ClientHello.
        late: the first came after plain text.

    Raises:
        LateError: the second one is refused for what it is.
        BrokenError: the connection ended otherwise than in good order.
        OSError: it broke.
    """
    answer = Answer(late=late)
    again: bool | None = None
    while again is None:
        if not await session.server_speaks():
            break
        more = await session.server.recv(_PART)
        if not more:
            await _unanswered(session)
            return
        again = answer.feed(more)
        await session.answer(more)
        if answer.plain:
            await _plain(session)
            return
    if again:
        await _second_hello(session, context, check)
    await session.splice()


async def send_hello(
    session: Session, sent: bytes, data: bytes, context: ssl.SSLContext, check: Check
) -> None:
    """Send exactly the records of a ClientHello, once its name has been judged.

    Args:
        session: the connection; what follows the records is held.
        sent: what of it has gone on before.
        data: how the rest of it begins.
        context: what `client_hello.context` made.
        check: judges the name.

    Raises:
        LateError: it is refused for what it is.
        OSError: the connection broke.
    """
    hello = await read_hello(session.client, context, sent + data)
    if hello.fault is not None:
        raise LateError(hello.fault, "tls", Cause.MALFORMED, hello.name, hello.alert)
    if hello.name is not None:
        check((hello.name,), "tls", hello.alert)
    await session.send(hello.data[len(sent) :])


async def _plain(session: Session) -> None:
    """The server has spoken otherwise: let it, and nothing more of the client."""
    session.begin(answers_only=True)
    if await session.client.recv():
        raise LateError("the server did not answer in TLS", "tls", Cause.PROTOCOL)
    await session.finish()


async def _unanswered(session: Session) -> None:
    """The server has closed without a word of TLS, so nothing more of the client goes on."""
    session.client.held = b""
    session.begin(answers_only=True)
    while await session.client.recv():
        pass
    await session.finish()


async def _second_hello(session: Session, context: ssl.SSLContext, check: Check) -> None:
    """Pass on what may come before it, record by record, and then it, checked."""
    session.begin(answers_only=False)
    data = b""
    while True:
        while len(data) < 5 or (data[0] in client_hello.OTHER_RECORDS and len(data) < _record(data)):
            more = await session.client.recv()
            if not more:
                await session.send(data)
                await session.finish()
                raise BrokenError("closed before a second ClientHello")
            data += more
        if data[0] == client_hello.HANDSHAKE:
            break
        if data[0] not in client_hello.OTHER_RECORDS:
            raise LateError("what follows is not TLS", "tls", Cause.PROTOCOL)
        whole = _record(data)
        await session.send(data[:whole])
        data = data[whole:]
    await send_hello(session, b"", data, context, check)


def _record(data: bytes) -> int:
    size = 5 + int.from_bytes(data[3:5], "big")
    if size > client_hello.MAX_RECORD:
        raise LateError("a TLS record is too large", "tls", Cause.MALFORMED)
    return size
