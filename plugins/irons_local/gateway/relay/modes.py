"""What happens after the dial: each way in which a connection is relayed once its server is reached.

TLS is spliced. HTTP goes request by request. Anything else is looked through as long as it is in the clear, and
becomes one of the two when it shows itself to be.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable

from irons_local.gateway.budget import patience
from irons_local.gateway.budget.undecided import Budget
from irons_local.gateway.http1.authority import BadRequestError
from irons_local.gateway.http1.heads import Head
from irons_local.gateway.http1.requests import Requests
from irons_local.gateway.inspect.inspector import Inspector, Then
from irons_local.gateway.inspect.late import Check, LateError
from irons_local.gateway.inspect.sniff import Kind, Opening
from irons_local.gateway.relay.handshake import relay_tls, send_hello
from irons_local.gateway.relay.session import BrokenError, Session
from irons_local.gateway.tls.client_hello import Hello, OddHelloError
from irons_local.gateway.tls.late_hello import LateHelloScanner, TooManyError
from irons_policy.causes import Cause
from irons_policy.hostnames import HostError, canonical_host

Speak = Callable[[Session], Awaitable[None]]
"""Relays the rest of a connection; what of the client has been read already is held."""
MAX_ANSWER = 65_536


async def relay_http(session: Session, requests: Requests, head: Head | None, check: Check) -> None:
    """Relay requests one by one, each checked before a byte of it goes on.

    Args:
        session: the connection.
        requests: reads them from the client.
        head: the first, already checked; None where that too is still to come.
        check: judges the names of each later one.

    Raises:
        LateError: a request is malformed.
        BrokenError: the connection ended otherwise than in good order.
        OSError: it broke.
    """
    first = True
    try:
        session.begin(answers_only=True)
        if head is None:
            head = await requests.head()
            if head is not None:
                check(head.hosts, "http", proxied=head.proxied)
        while head is not None:
            if head.websocket and first:
                await _websocket(session, requests, head)
                return
            # Whether a 101 answered this or an earlier request could not be told, so it is not asked for.
            await _request(session, requests, head.declined() if head.websocket else head)
            first = False
            head = await requests.head()
            if head is not None:
                check(head.hosts, "http", proxied=head.proxied)
    except BadRequestError as error:
        raise LateError(error.reason, "http", error.cause, error.host) from None
    await session.finish()


async def _request(session: Session, requests: Requests, head: Head) -> None:
    begun = head.wire()
    if head.length != 0 and not requests.waiting:
        # The body may not come before the server has said that it wants it (RFC 9110, section 10.1.1).
        await session.send(begun)
        begun = b""
    session.uploading = True
    async for part in requests.body(head):
        await session.send(begun + part)
        begun = b""
    session.uploading = False
    if begun:
        await session.send(begun)


async def _websocket(session: Session, requests: Requests, head: Head) -> None:
    """Ask for the upgrade, and let nothing more of the client on before the server has agreed to it."""
    await session.quiesce()
    await session.send(head.wire())
    while True:
        answer = await _answer(session)
        await session.answer(answer)
        status = answer[9:12]
        if not answer.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ")) or status == b"101" or status[:1] != b"1":
            break
    held, session.server.held = session.server.held, b""
    if held:
        await session.answer(held)
    if status != b"101" or not answer.startswith(b"HTTP/1.1 "):
        # An ordinary answer is relayed to its end; the connection is of no further use to the client.
        session.begin(answers_only=True)
        await session.last_answers()
        raise BrokenError("the server did not agree to the upgrade")
    held = requests.rest()
    if held:
        await session.send(held)
    await session.splice()


async def _answer(session: Session) -> bytes:
    """The head of the server's next answer, and nothing beyond it."""
    data = b""
    while (end := data.find(b"\r\n\r\n")) < 0:
        if len(data) > MAX_ANSWER:
            raise BrokenError("the server's answer has no end")
        if session.server.peek() is None:
            await session.hear()
        more = await session.server.recv()
        if not more:
            raise BrokenError("the server closed")
        data += more
    session.server.held = data[end + 4 :]
    return data[: end + 4]


async def relay_clear(
    session: Session, opening: Opening, context: ssl.SSLContext, budget: Budget, check: Check, http2: Speak
) -> None:
    """Relay what may be anything, looking for names that show up in it.

    Args:
        session: the connection.
        opening: what the client has sent so far.
        context: what `client_hello.context` made.
        budget: of what the connections of its cell may hold while names may still show up in them.
        check: judges each name.
        http2: relays HTTP/2, where that shows up.

    Raises:
        LateError: what came is refused for what it is.
        TooMuchError: the connections of its cell hold too much.
        BrokenError: the connection ended otherwise than in good order.
        OSError: it broke.
    """
    shadows = LateHelloScanner(context, budget)
    try:
        await _relay_clear(session, opening, context, budget, shadows, check, http2)
    finally:
        shadows.close()


async def _relay_clear(
    session: Session,
    opening: Opening,
    context: ssl.SSLContext,
    budget: Budget,
    shadows: LateHelloScanner,
    check: Check,
    http2: Speak,
) -> None:
    session.begin(answers_only=False, heed=True)
    inspector = Inspector()
    data, ended = opening.data, opening.ended
    # A line that did not end in time has waited already.
    patient = opening.kind is not Kind.UNDECIDED
    while True:
        if data:
            inspector.greeting = session.greeting
            step = inspector.feed(data)
            if step.then is Then.RAW:
                await session.send(step.forward)
            elif step.forward and await _pass_on(session, step.forward, step.rest, shadows, context, check):
                return
            data = step.rest
            if step.then not in {Then.MORE, Then.HOLD}:
                # It is clear what follows, perhaps for days.
                shadows.close()
            if step.then is Then.HTTP2:
                await session.quiesce()
                if session.bytes_in:
                    raise LateError("the server does not speak HTTP/2", "http", Cause.PROTOCOL)
                session.client.held = data + session.client.held
                # Not kept here for as long as the connection lives.
                del data, step
                await http2(session)
                return
            if step.then is not Then.HOLD:
                # What the server said first it has not said to HTTP/2.
                session.begin(answers_only=False, heed=step.then is Then.MORE and session.heeding)
            if step.then is Then.RAW:
                await session.splice()
                return
            if step.then is Then.HTTP:
                await relay_http(session, Requests(session.client, data, budget), None, check)
                return
            if step.then is Then.HELLO:
                await session.quiesce()
                await send_hello(session, step.sent, data, context, check)
                await relay_tls(session, context, check, late=True)
                return
            if step.then is Then.REFUSE:
                raise LateError(step.reason, "tcp", Cause.MALFORMED)
        if data and (ended or not patient):
            if await _pass_on(session, inspector.release(data), b"", shadows, context, check):
                return
            data = b""
        patient = True
        if ended:
            session.begin(answers_only=False)
            await session.finish()
            return
        more = await _more(session, waiting=bool(data))
        patient, ended = more is not None, more == b""
        data += more or b""


async def _pass_on(
    session: Session,
    data: bytes,
    rest: bytes,
    shadows: LateHelloScanner,
    context: ssl.SSLContext,
    check: Check,
) -> bool:
    """Send what may go on, for whatever reason it does.

    Args:
        session: the connection.
        data: the bytes.
        rest: what of the client has been read beyond them.
        shadows: reads along.
        context: what `client_hello.context` made.
        check: judges the name of a ClientHello that ends in `data`.

    Returns:
        True where one did, and the connection has been relayed to its end.
    """
    hello = _shadowed(shadows, data, check)
    if hello is None:
        await session.send(data)
        return False
    await session.quiesce()
    end = len(data) - len(hello.rest)
    session.client.held = data[end:] + rest + session.client.held
    await session.send(data[:end])
    await relay_tls(session, context, check, late=True)
    return True


def _shadowed(shadows: LateHelloScanner, data: bytes, check: Check) -> Hello | None:
    """The ClientHello that began in the middle of what went on and ends in `data`, under a name that passes."""
    try:
        hello = shadows.feed(data)
    except TooManyError:
        raise LateError("too much in it looks like the beginning of TLS", "tcp", Cause.MALFORMED) from None
    except OddHelloError as error:
        raise LateError(str(error), "tls", Cause.MALFORMED, None, error.alert) from None
    if hello is None or hello.name is None:
        return hello
    try:
        name = canonical_host(hello.name)
    except HostError as error:
        raise LateError(
            f"malformed TLS server name: {error}", "tls", Cause.MALFORMED, None, hello.alert
        ) from None
    check((name,), "tls", hello.alert)
    return hello


async def _more(session: Session, *, waiting: bool) -> bytes | None:
    """The client's next bytes; None where held ones have waited long enough for more."""
    if not waiting:
        return await session.client.recv()
    try:
        async with asyncio.timeout(patience.LINE):
            return await session.client.recv()
    except TimeoutError:
        return None
