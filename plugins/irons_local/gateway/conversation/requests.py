"""HTTP/1: requests one by one, each checked before a byte of it goes on; the first before its server is reached."""

from __future__ import annotations

from irons_local.gateway.budget import patience
from irons_local.gateway.budget.undecided import Meter
from irons_local.gateway.conversation.actions import Waits
from irons_local.gateway.conversation.events import Side
from irons_local.gateway.conversation.exchange import BrokenOffError, Exchange, Steps
from irons_local.gateway.conversation.secured import Check
from irons_local.gateway.http1.authority import BadRequestError
from irons_local.gateway.http1.heads import Head
from irons_local.gateway.http1.reader import RequestReader
from irons_local.gateway.inspect.late import LateError

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
        more = yield from exchange.hear(Side.CLIENT)
        if not more:
            return None
        reader.feed(more)
    head = reader.head()
    if head is None:
        exchange.hold(Waits.HEAD, patience.HEAD)
    try:
        while head is None:
            more = yield from exchange.hear(Side.CLIENT)
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
            head = yield from _next(exchange, reader, check)
    except BadRequestError as error:
        raise LateError(error.reason, "http", error.cause, error.host) from None
    yield from exchange.finish()


def _next(exchange: Exchange, reader: RequestReader, check: Check) -> Steps[Head | None]:
    head = yield from read_head(exchange, reader)
    if head is not None:
        yield from check(head.hosts, "http", b"", head.proxied)
    return head


def _request(exchange: Exchange, reader: RequestReader, head: Head) -> Steps[None]:
    begun = head.wire()
    reader.expect(head)
    exchange.uploading = True
    while not reader.whole:
        part = reader.part()
        if part:
            exchange.forward(Side.SERVER, begun + part)
            begun = b""
            continue
        # The body may not come before the server has said that it wants it (RFC 9110, section 10.1.1).
        exchange.forward(Side.SERVER, begun)
        begun = b""
        more = yield from exchange.hear(Side.CLIENT)
        if not more:
            raise BrokenOffError("broken: the client ended in the middle of a request")
        reader.feed(more)
    exchange.uploading = False
    exchange.forward(Side.SERVER, begun)


def _websocket(exchange: Exchange, reader: RequestReader, head: Head) -> Steps[None]:
    """Ask for the upgrade, and let nothing more of the client on before the server has agreed to it."""
    exchange.quiesce()
    exchange.forward(Side.SERVER, head.wire())
    while True:
        answer = yield from _answer(exchange)
        exchange.forward(Side.CLIENT, answer)
        status = answer[9:12]
        if not answer.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ")) or status == b"101" or status[:1] != b"1":
            break
    if status != b"101" or not answer.startswith(b"HTTP/1.1 "):
        # An ordinary answer is relayed to its end; the connection is of no further use to the client.
        exchange.begin(answers_only=True)
        raise BrokenOffError("the server did not agree to the upgrade", answers=True)
    exchange.forward(Side.CLIENT, exchange.take(Side.SERVER))
    exchange.forward(Side.SERVER, reader.rest())
    yield from exchange.splice()


def _answer(exchange: Exchange) -> Steps[bytes]:
    """The head of the server's next answer, and nothing beyond it."""
    data = b""
    exchange.hold(Waits.ANSWER, None)
    while (end := data.find(_END)) < 0:
        if len(data) > MAX_ANSWER:
            raise BrokenOffError("the server's answer has no end")
        more = yield from exchange.hear(Side.SERVER)
        if not more:
            raise BrokenOffError("the server closed")
        data += more
    exchange.release()
    exchange.give_back(Side.SERVER, data[end + len(_END) :])
    return data[: end + len(_END)]
