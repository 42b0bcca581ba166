"""What happens after the dial: each way in which a connection is relayed once its server is reached.

TLS is spliced. HTTP goes request by request. Anything else is looked through as long as it is in the clear, and
becomes one of the two when it shows itself to be.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Protocol

from irons_plugins.local.causes import Cause
from irons_plugins.local.gateway import tls
from irons_plugins.local.gateway.http1 import BadRequestError, Head
from irons_plugins.local.gateway.inspector import Inspector, Then
from irons_plugins.local.gateway.opening import LINE_TIMEOUT, Opening, read_hello
from irons_plugins.local.gateway.requests import Requests
from irons_plugins.local.gateway.session import ANSWER_TIMEOUT, BrokenError, Session
from irons_plugins.local.gateway.shadows import Shadows, TooManyError
from irons_plugins.local.gateway.sniff import Kind
from irons_plugins.local.policy import Host, HostError, canonical_host

MAX_ANSWER = 65_536


class Check(Protocol):
    """Judges names that a connection says in the clear once its server is reached; raises where they are refused."""

    def __call__(self, claimed: tuple[Host, ...], protocol: str, alert: bytes = b"") -> None:
        """Judge.

        Args:
            claimed: the names.
            protocol: what says them: http or tls.
            alert: what refuses a ClientHello.
        """


class LateError(Exception):
    """Something after the dial is refused for what it is.

    Attributes:
        cause: why, for programs.
        host: the name it asked for, where that could be read.
        protocol: what it spoke.
        alert: the TLS alert that refuses it.
    """

    def __init__(
        self, reason: str, protocol: str, cause: Cause, host: Host | None = None, alert: bytes = b""
    ) -> None:
        super().__init__(reason)
        self.cause = cause
        self.host = host
        self.protocol = protocol
        self.alert = alert


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
                check(head.hosts, "http")
        while head is not None:
            if head.websocket:
                if not first:
                    raise BadRequestError("it asks for an upgrade on a connection already used", head.host)
                await _websocket(session, requests, head)
                return
            await _request(session, requests, head)
            first = False
            head = await requests.head()
            if head is not None:
                check(head.hosts, "http")
    except BadRequestError as error:
        raise LateError(f"malformed request: {error}", "http", error.cause, error.host) from None
    await session.finish()


async def _request(session: Session, requests: Requests, head: Head) -> None:
    begun = head.wire()
    if head.length != 0 and not requests.waiting:
        # The body may not come before the server has said that it wants it (RFC 9110, section 10.1.1).
        await session.send(begun)
        begun = b""
    async for part in requests.body(head):
        await session.send(begun + part)
        begun = b""
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
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT):
            while (end := data.find(b"\r\n\r\n")) < 0:
                if len(data) > MAX_ANSWER:
                    raise BrokenError("the server's answer has no end")
                more = await session.server.recv()
                if not more:
                    raise BrokenError("the server closed")
                data += more
    except TimeoutError:
        raise BrokenError("the server did not answer in time") from None
    session.server.held = data[end + 4 :]
    return data[: end + 4]


async def relay_tls(session: Session, context: ssl.SSLContext, check: Check) -> None:
    """Relay what follows a ClientHello that was checked and sent.

    Nothing is to be seen in it, but for one thing: a server may ask for a second ClientHello, which says a name anew.

    Args:
        session: the connection; what its server says is not relayed yet.
        context: what `tls.context` made.
        check: judges the name.

    Raises:
        LateError: the second one is refused for what it is.
        BrokenError: the connection ended otherwise than in good order.
        OSError: it broke.
    """
    answer = b""
    while (again := tls.asks_again(answer)) is None:
        if not await session.server_speaks():
            break
        more = await session.server.recv()
        if not more:
            break
        answer += more
    if answer:
        await session.answer(answer)
    if again:
        await _second_hello(session, context, check)
    await session.splice()


async def _second_hello(session: Session, context: ssl.SSLContext, check: Check) -> None:
    """Pass on what may come before it, record by record, and then it, checked."""
    session.begin(answers_only=False)
    data = b""
    while True:
        while len(data) < 5 or (data[0] in tls.OTHER_RECORDS and len(data) < _record(data)):
            more = await session.client.recv()
            if not more:
                await session.send(data)
                await session.finish()
                raise BrokenError("closed before a second ClientHello")
            data += more
        if data[0] == tls.HANDSHAKE:
            break
        if data[0] not in tls.OTHER_RECORDS:
            raise LateError("what follows is no TLS", "tls", Cause.PROTOCOL)
        whole = _record(data)
        await session.send(data[:whole])
        data = data[whole:]
    await _checked(session, b"", data, context, check)


def _record(data: bytes) -> int:
    size = 5 + int.from_bytes(data[3:5], "big")
    if size > tls.MAX_RECORD:
        raise LateError("a TLS record is too large", "tls", Cause.MALFORMED)
    return size


async def relay_clear(session: Session, opening: Opening, context: ssl.SSLContext, check: Check) -> None:
    """Relay what may be anything, looking for names that show up in it.

    Args:
        session: the connection.
        opening: what the client has said so far.
        context: what `tls.context` made.
        check: judges each name.

    Raises:
        LateError: what came is refused for what it is.
        BrokenError: the connection ended otherwise than in good order.
        OSError: it broke.
    """
    session.begin(answers_only=False)
    inspector, shadows = Inspector(), Shadows(context)
    data, ended = opening.data, opening.ended
    # A line that did not end in time has waited already.
    patient = opening.kind is not Kind.UNDECIDED
    while True:
        if data:
            step = inspector.feed(data)
            if step.forward and step.then is not Then.RAW and _shadowed(shadows, step.forward, check):
                await session.quiesce()
                await session.send(data)
                await relay_tls(session, context, check)
                return
            if step.forward:
                await session.send(step.forward)
            data = step.rest
            if step.then is Then.RAW:
                await session.splice()
                return
            if step.then is Then.HTTP:
                await relay_http(session, Requests(session.client, data), None, check)
                return
            if step.then is Then.HELLO:
                await _tls(session, step.sent, data, context, check)
                return
            if step.then is Then.REFUSE:
                raise LateError(step.reason, "tcp", Cause.MALFORMED)
        if data and (ended or not patient):
            await session.send(inspector.release(data))
            data = b""
        patient = True
        if ended:
            await session.finish()
            return
        more = await _more(session, waiting=bool(data))
        patient, ended = more is not None, more == b""
        data += more or b""


def _shadowed(shadows: Shadows, data: bytes, check: Check) -> bool:
    """True where TLS began in the middle of what went on, under a name that passes."""
    try:
        hello = shadows.feed(data)
    except TooManyError:
        reason = "too much in it looks like the beginning of TLS"
        raise LateError(reason, "tcp", Cause.MALFORMED) from None
    if hello is None:
        return False
    if hello.name is not None:
        try:
            name = canonical_host(hello.name)
        except HostError as error:
            reason = f"malformed TLS server name: {error}"
            raise LateError(reason, "tls", Cause.MALFORMED, None, hello.alert) from None
        check((name,), "tls", hello.alert)
    return True


async def _more(session: Session, *, waiting: bool) -> bytes | None:
    """The client's next bytes; None where held ones have waited long enough for more."""
    if not waiting:
        return await session.client.recv()
    try:
        async with asyncio.timeout(LINE_TIMEOUT):
            return await session.client.recv()
    except TimeoutError:
        return None


async def _tls(session: Session, sent: bytes, data: bytes, context: ssl.SSLContext, check: Check) -> None:
    await session.quiesce()
    await _checked(session, sent, data, context, check)
    await relay_tls(session, context, check)


async def _checked(session: Session, sent: bytes, data: bytes, context: ssl.SSLContext, check: Check) -> None:
    """Send a ClientHello once its name has been judged; `sent` of it has gone on before."""
    hello = await read_hello(session.client, context, sent + data)
    if hello.fault is not None:
        raise LateError(hello.fault, "tls", Cause.MALFORMED, hello.name, hello.alert)
    if hello.name is not None:
        check((hello.name,), "tls", hello.alert)
    await session.send(hello.data[len(sent) :])
