"""TLS once its server is reached: nothing follows a ClientHello before the server has answered in TLS.

A server may ask for a second ClientHello (RFC 8446, section 4.1.4), which may say another name.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable

from irons_local.gateway.conversation.actions import Waits
from irons_local.gateway.conversation.beginning import read_hello
from irons_local.gateway.conversation.events import CLIENT, SERVER
from irons_local.gateway.conversation.exchange import ONLY, BrokenOffError, Exchange, Steps
from irons_local.gateway.inspect.late import LateError
from irons_local.gateway.tls import client_hello
from irons_local.gateway.tls.server_hello import ServerAnswer
from irons_policy.causes import Cause
from irons_policy.hostnames import Host

Check = Callable[[tuple[Host, ...], str, bytes, bool], Steps[None]]
"""Judges names that show up late: the names, what says them, the alert that refuses them, whether as to a proxy."""


def relay_tls(exchange: Exchange, tls: ssl.SSLContext, check: Check, *, late: bool) -> Steps[None]:
    """Relay what follows a ClientHello that was checked and sent.

    Args:
        exchange: the connection; what its server says is not passed on yet.
        tls: what `client_hello.context` made.
        check: judges the name of a second ClientHello.
        late: the first came after plain text.

    Raises:
        LateError: the second one is refused for what it is.
        BrokenOffError: the connection ended otherwise than in good order.
    """
    answer = ServerAnswer(late=late)
    again: bool | None = None
    while again is None:
        if not (yield from server_speaks(exchange)):
            break
        more = exchange.take(SERVER)
        if not more:
            yield from _unanswered(exchange)
            return
        again = answer.feed(more)
        exchange.forward(CLIENT, more)
        if answer.plain:
            yield from _plain(exchange)
            return
    if again:
        yield from _second_hello(exchange, tls, check)
    yield from exchange.splice()


def server_speaks(exchange: Exchange) -> Steps[bool]:
    """Wait for the server's next words, or its end; False where the client ends first, without another word."""
    exchange.hold(Waits.ANSWER, None)
    while not exchange.there(SERVER):
        if exchange.waits(CLIENT):
            # It has said more, which waits for the server's answer.
            yield from exchange.until(ONLY[SERVER])
        elif exchange.there(CLIENT):
            exchange.release()
            return False
        else:
            yield from exchange.until_answer()
    exchange.release()
    return True


def send_hello(
    exchange: Exchange, sent: bytes, data: bytes, tls: ssl.SSLContext, check: Check
) -> Steps[None]:
    """Send exactly the records of a ClientHello, once its name has been judged.

    Args:
        exchange: the connection; what follows the records is given back.
        sent: what of it has gone on before.
        data: how the rest of it begins.
        tls: what `client_hello.context` made.
        check: judges the name.

    Raises:
        LateError: it is refused for what it is.
    """
    hello = yield from read_hello(exchange, tls, sent + data)
    if hello.fault is not None:
        raise LateError(hello.fault, "tls", Cause.MALFORMED, hello.name, hello.alert)
    if hello.name is not None:
        yield from check((hello.name,), "tls", hello.alert, False)
    exchange.forward(SERVER, hello.data[len(sent) :])


def _plain(exchange: Exchange) -> Steps[None]:
    """The server has spoken otherwise: let it, and nothing more of the client."""
    exchange.begin(answers_only=True)
    if (yield from exchange.hear(CLIENT)):
        raise LateError("the server did not answer in TLS", "tls", Cause.PROTOCOL)
    yield from exchange.finish()


def _unanswered(exchange: Exchange) -> Steps[None]:
    """The server has closed without a word of TLS, so nothing more of the client goes on."""
    exchange.take(CLIENT)
    exchange.begin(answers_only=True)
    while (yield from exchange.hear(CLIENT)):
        pass
    yield from exchange.finish()


def _second_hello(exchange: Exchange, tls: ssl.SSLContext, check: Check) -> Steps[None]:
    """Pass on what may come before it, record by record, and then it, checked."""
    exchange.begin(answers_only=False)
    data = b""
    while True:
        while len(data) < 5 or (data[0] in client_hello.OTHER_RECORDS and len(data) < _record(data)):
            more = yield from exchange.hear(CLIENT)
            if not more:
                exchange.forward(SERVER, data)
                yield from exchange.finish()
                raise BrokenOffError("closed before a second ClientHello")
            data += more
        if data[0] == client_hello.HANDSHAKE:
            break
        if data[0] not in client_hello.OTHER_RECORDS:
            raise LateError("what follows is not TLS", "tls", Cause.PROTOCOL)
        whole = _record(data)
        exchange.forward(SERVER, data[:whole])
        data = data[whole:]
        yield from exchange.breathe()
    yield from send_hello(exchange, b"", data, tls, check)


def _record(data: bytes) -> int:
    size = 5 + int.from_bytes(data[3:5], "big")
    if size > client_hello.MAX_RECORD:
        raise LateError("a TLS record is too large", "tls", Cause.MALFORMED)
    return size
