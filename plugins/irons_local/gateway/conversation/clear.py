"""What may be anything once its server is reached: looked through for names for as long as it is in the clear."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from irons_local.gateway.budget import patience
from irons_local.gateway.conversation.actions import Waits
from irons_local.gateway.conversation.events import CLIENT, SERVER
from irons_local.gateway.conversation.exchange import BOTH, Exchange, Steps
from irons_local.gateway.conversation.requests import relay_http
from irons_local.gateway.conversation.secured import Check, relay_tls, send_hello
from irons_local.gateway.http1.reader import RequestReader
from irons_local.gateway.http2.frames import looks_like_settings
from irons_local.gateway.inspect.inspector import Inspector, Step, Then
from irons_local.gateway.inspect.late import LateError
from irons_local.gateway.inspect.sniff import Kind, Opening
from irons_local.gateway.tls.client_hello import Hello, OddHelloError
from irons_local.gateway.tls.late_hello import LateHelloScanner, TooManyError
from irons_policy.causes import Cause
from irons_policy.hostnames import HostError, canonical_host

GREETING = 9
"""Bytes of a server's first words that are looked at."""


class Clear:
    """One such connection.

    Args:
        exchange: the connection; what its server says is not passed on yet.
        tls: what `client_hello.context` made.
        check: judges each name.
        http2: relays HTTP/2, where that shows up.
    """

    def __init__(
        self, exchange: Exchange, tls: ssl.SSLContext, check: Check, http2: Callable[[], Steps[None]]
    ) -> None:
        self._exchange = exchange
        self._tls = tls
        self._check = check
        self._http2 = http2
        self._inspector = Inspector()
        self._shadows = LateHelloScanner(tls, exchange.budget)
        self._heeding = True
        self._heard = False

    def relay(self, opening: Opening) -> Steps[None]:
        """Relay it to its end.

        Raises:
            LateError: what came is refused for what it is.
            TooMuchError: the connections of its cell hold too much.
            BrokenOffError: the connection ended otherwise than in good order.
        """
        self._exchange.flowing = True
        try:
            yield from self._relay(opening)
        finally:
            self._shadows.close()

    def _relay(self, opening: Opening) -> Steps[None]:
        exchange, inspector = self._exchange, self._inspector
        data, ended = opening.data, opening.ended
        # A line that did not end in time has waited already.
        patient = opening.kind is not Kind.UNDECIDED
        while True:
            self._heed()
            if data:
                step = inspector.feed(data)
                data = step.rest
                if (yield from self._step(step)):
                    return
            if data and (ended or not patient):
                if (yield from self._pass_on(inspector.release(data), b"")):
                    return
                data = b""
            patient = True
            if ended:
                self._begin()
                yield from exchange.finish()
                return
            more = yield from self._more(waiting=bool(data))
            patient, ended = more is not None, more == b""
            data += more or b""

    def _step(self, step: Step) -> Steps[bool]:
        """Do what the inspector says; True once the connection has been relayed to its end."""
        exchange, data = self._exchange, step.rest
        if step.then is Then.RAW:
            exchange.forward(SERVER, step.forward)
        elif step.forward and (yield from self._pass_on(step.forward, step.rest)):
            return True
        if step.then not in {Then.MORE, Then.HOLD}:
            # It is clear what follows, perhaps for days.
            self._shadows.close()
            exchange.flowing = False
        if step.then is Then.HTTP2:
            self._quiesce()
            if self._heard:
                raise LateError("the server does not speak HTTP/2", "http", Cause.PROTOCOL)
            exchange.give_back(CLIENT, data)
            yield from self._http2()
            return True
        if step.then not in {Then.HOLD, Then.HELLO} and not (step.then is Then.MORE and self._heeding):
            # What the server said first it has not said to HTTP/2.
            self._begin()
        if step.then is Then.RAW:
            yield from exchange.splice()
        elif step.then is Then.HTTP:
            yield from relay_http(exchange, RequestReader(data), None, self._check)
        elif step.then is Then.HELLO:
            self._quiesce()
            yield from send_hello(exchange, step.sent, data, self._tls, self._check)
            yield from relay_tls(exchange, self._tls, self._check, late=True)
        elif step.then is Then.REFUSE:
            raise LateError(step.reason, "tcp", Cause.MALFORMED)
        else:
            return False
        return True

    def _pass_on(self, data: bytes, rest: bytes) -> Steps[bool]:
        """Send what may go on; True where a ClientHello ends in it, and the connection has been relayed to its end.

        Args:
            data: the bytes.
            rest: what of the client has been read beyond them.
        """
        exchange = self._exchange
        hello = yield from self._shadowed(data)
        if hello is None:
            exchange.forward(SERVER, data)
            return False
        self._quiesce()
        exchange.flowing = False
        end = len(data) - len(hello.rest)
        exchange.give_back(CLIENT, data[end:] + rest)
        exchange.forward(SERVER, data[:end])
        yield from relay_tls(exchange, self._tls, self._check, late=True)
        return True

    def _shadowed(self, data: bytes) -> Steps[Hello | None]:
        """The ClientHello that began in the middle of what went on and ends in `data`, under a name that passes."""
        try:
            hello = self._shadows.feed(data)
        except TooManyError:
            raise LateError(
                "too much in it looks like the beginning of TLS", "tcp", Cause.MALFORMED
            ) from None
        except OddHelloError as error:
            raise LateError(str(error), "tls", Cause.MALFORMED, None, error.alert) from None
        if hello is None or hello.name is None:
            return hello
        try:
            name = canonical_host(hello.name)
        except HostError as error:
            reason = f"malformed TLS server name: {error}"
            raise LateError(reason, "tls", Cause.MALFORMED, None, hello.alert) from None
        yield from self._check((name,), "tls", hello.alert, False)
        return hello

    def _more(self, *, waiting: bool) -> Steps[bytes | None]:
        """The client's next bytes; None where held ones have waited long enough for more."""
        exchange = self._exchange
        if waiting:
            exchange.hold(Waits.MORE, patience.LINE)
        try:
            while self._heeding and not exchange.there(CLIENT):
                if not (yield from exchange.until(BOTH)):
                    return None
                self._heed()
            return (yield from exchange.hear(CLIENT))
        except TimeoutError:
            return None
        finally:
            exchange.release()

    def _heed(self) -> None:
        """Look at the server's first words; those of HTTP/2 wait for the client, who speaks first there and says so."""
        exchange = self._exchange
        if not self._heeding or not exchange.there(SERVER):
            return
        self._heeding = False
        said = exchange.take(SERVER)
        exchange.give_back(SERVER, said)
        self._inspector.greeting = said[:GREETING]
        if not looks_like_settings(said[:GREETING]):
            self._heard = bool(said)
            exchange.begin(answers_only=False)

    def _begin(self) -> None:
        self._heeding = False
        self._exchange.begin(answers_only=False)

    def _quiesce(self) -> None:
        self._heeding = False
        self._exchange.quiesce()
