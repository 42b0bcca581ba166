"""HTTP/1: requests one by one, each checked before a byte of it goes on; the first before its server is reached."""

from __future__ import annotations

from irons_local.gateway.budget import patience
from irons_local.gateway.budget.undecided import Meter
from irons_local.gateway.conversation.actions import Forward, Waits
from irons_local.gateway.conversation.events import CLIENT, SERVER
from irons_local.gateway.conversation.exchange import BrokenOffError, Exchange, Steps
from irons_local.gateway.conversation.secured import Check
from irons_local.gateway.http1 import absolute
from irons_local.gateway.http1.absolute import AnswerError, Forwarding
from irons_local.gateway.http1.authority import BadRequestError
from irons_local.gateway.http1.heads import Head
from irons_local.gateway.http1.reader import RequestReader
from irons_local.gateway.inspect.late import LateError
from irons_policy.patterns import HTTP

MAX_ANSWER = 65_536
_END = b"\r\n\r\n"


def read_head(exchange: Exchange, reader: RequestReader) -> Steps[Head | None]:
    """The next request's head; None at the end of the connection.

    Raises:
        BadRequestError: it is malformed, or does not come in time.
    """
    if exchange.meter is not None:
        return (yield from _read_head(exchange, reader))
    # A later request is as undecided as the first was.
    exchange.meter = Meter(exchange.budget)
    try:
        return (yield from _read_head(exchange, reader))
    finally:
        exchange.settle()


def _read_head(exchange: Exchange, reader: RequestReader) -> Steps[Head | None]:
    while not reader.begun():
        more = yield from exchange.hear(CLIENT)
        if not more:
            return None
        reader.feed(more)
    head = reader.head()
    if head is None:
        exchange.hold(Waits.HEAD, patience.HEAD)
    try:
        while head is None:
            more = yield from exchange.hear(CLIENT)
            if not more:
                raise BadRequestError("its head was never finished")
            reader.feed(more)
            head = reader.head()
    except TimeoutError:
        raise BadRequestError("its head was not finished in time") from None
    finally:
        exchange.release()
    return head


def relay_http(exchange: Exchange, reader: RequestReader, head: Head | None, check: Check) -> Steps[None]:
    """Relay requests once the server is reached.

    Args:
        exchange: the connection.
        reader: has read the head.
        head: the first, already checked; None where that too is still to come.
        check: judges the names of each later one.

    Raises:
        LateError: a request is malformed.
        BrokenOffError: the connection ended otherwise than in good order.
    """
    first = True
    try:
        exchange.begin(answers_only=True)
        if head is None:
            head = yield from _next(exchange, reader, check)
        while head is not None:
            if head.websocket and first:
                yield from _websocket(exchange, reader, head)
                return
            # Whether a 101 answered this or an earlier request could not be told, so it is not asked for.
            yield from _request(exchange, reader, head.declined() if head.websocket else head)
            first = False
            if reader.waiting:
                yield from exchange.breathe()
            head = yield from _next(exchange, reader, check)
    except BadRequestError as error:
        raise LateError(error.reason, "http", error.cause, error.host) from None
    yield from exchange.finish()


def relay_absolute(exchange: Exchange, reader: RequestReader, head: Head, way: Forwarding) -> Steps[None]:
    """Send one request by way of a proxy that takes it in absolute form, and relay its answer to the end.

    Args:
        exchange: the connection; its server is the proxy.
        reader: has read the head.
        head: checked.
        way: how requests go to the proxy.

    Raises:
        LateError: the body is malformed.
        AnswerError: the proxy answered in the server's place, or not at all; nothing of it was passed on.
        BrokenOffError: the connection ended otherwise than in good order.
    """
    if head.websocket:
        raise AnswerError(f"the upstream proxy lets no WebSocket through on port {HTTP}")
    exchange.forward(SERVER, absolute.rewritten(head, way).wire())
    if absolute.asks_first(head) and not reader.waiting:
        exchange.say(Forward(CLIENT, absolute.CONTINUE, own=True))
    try:
        yield from _body(exchange, reader, head, b"")
    except BadRequestError as error:
        raise LateError(f"malformed request: {error}", "http", error.cause, error.host) from None
    answer = absolute.ProxyAnswer()
    exchange.hold(Waits.ANSWER, absolute.ANSWER_TIMEOUT)
    try:
        while (begun := answer.feed((yield from exchange.hear(SERVER)))) is None:
            pass
    except TimeoutError:
        raise AnswerError("the upstream proxy did not answer in time") from None
    exchange.release()
    exchange.forward(CLIENT, begun + answer.rest)
    exchange.begin(answers_only=True)
    # Nothing more is asked on this connection, and the answer says so: wait until the client has gone.
    while (yield from exchange.hear(CLIENT)):
        pass
    yield from exchange.over()


def _next(exchange: Exchange, reader: RequestReader, check: Check) -> Steps[Head | None]:
    head = yield from read_head(exchange, reader)
    if head is not None:
        yield from check(head.hosts, "http", b"", head.proxied)
    return head


def _request(exchange: Exchange, reader: RequestReader, head: Head) -> Steps[None]:
    begun = yield from _body(exchange, reader, head, head.wire())
    exchange.forward(SERVER, begun)


def _body(exchange: Exchange, reader: RequestReader, head: Head, begun: bytes) -> Steps[bytes]:
    """Send the body that a head announces, and `begun` in front; what is left of that where there is none."""
    reader.expect(head)
    exchange.uploading = exchange.flowing = True
    if not reader.whole and not reader.waiting:
        # The body may not come before the server has said that it wants it (RFC 9110, section 10.1.1).
        exchange.forward(SERVER, begun)
        begun = b""
    while not reader.whole:
        part = reader.part()
        if part:
            exchange.forward(SERVER, begun + part)
            begun = b""
            if reader.waiting and not reader.whole:
                yield from exchange.breathe()
            continue
        more = yield from exchange.hear(CLIENT)
        if not more:
            raise BrokenOffError("broken: the client ended in the middle of a request")
        reader.feed(more)
    exchange.uploading = exchange.flowing = False
    return begun


def _websocket(exchange: Exchange, reader: RequestReader, head: Head) -> Steps[None]:
    """Ask for the upgrade, and let nothing more of the client on before the server has agreed to it."""
    exchange.quiesce()
    exchange.forward(SERVER, head.wire())
    while True:
        answer = yield from _answer(exchange)
        exchange.forward(CLIENT, answer)
        status = answer[9:12]
        if not answer.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ")) or status == b"101" or status[:1] != b"1":
            break
    if status != b"101" or not answer.startswith(b"HTTP/1.1 "):
        # An ordinary answer is relayed to its end; the connection is of no further use to the client.
        exchange.begin(answers_only=True)
        raise BrokenOffError("the server did not agree to the upgrade", answers=True)
    exchange.forward(CLIENT, exchange.take(SERVER))
    exchange.forward(SERVER, reader.rest())
    yield from exchange.splice()


def _answer(exchange: Exchange) -> Steps[bytes]:
    """The head of the server's next answer, and nothing beyond it."""
    data = b""
    exchange.hold(Waits.ANSWER, None)
    while (end := data.find(_END)) < 0:
        if len(data) > MAX_ANSWER:
            raise BrokenOffError("the server's answer has no end")
        more = yield from exchange.hear(SERVER)
        if not more:
            raise BrokenOffError("the server closed")
        data += more
    exchange.release()
    exchange.give_back(SERVER, data[end + len(_END) :])
    return data[: end + len(_END)]
