"""The whole life of one connection, from its first byte to its closing record, as a machine without I/O.

The order is the promise: opening record, decide, look up, check the address, verdict record, dial, relay, closing record.
What is refused before the dial is refused before anything outside has learned of it.

A driver gives each event to `receive`, and does what comes out, in order, before the next event. What it cannot do it
answers with an event (`Denied`, `Cut`, `Broken`, `RecordFailed`), and leaves the rest of that list undone.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, replace

from irons_local.gateway.budget import patience
from irons_local.gateway.budget.undecided import Budget, TooMuchError
from irons_local.gateway.conversation import actions as do
from irons_local.gateway.conversation import events as ev
from irons_local.gateway.conversation.beginning import read_opening
from irons_local.gateway.conversation.clear import Clear
from irons_local.gateway.conversation.events import Side
from irons_local.gateway.conversation.exchange import BrokenOffError, Exchange, Steps
from irons_local.gateway.conversation.reaching import Reaching, UnreachedError
from irons_local.gateway.conversation.requests import read_head, relay_absolute, relay_http
from irons_local.gateway.conversation.secured import relay_tls
from irons_local.gateway.conversation.streams import Streams
from irons_local.gateway.decide import pages
from irons_local.gateway.decide.verdicts import RefusedError
from irons_local.gateway.http1.absolute import AnswerError, Forwarding
from irons_local.gateway.http1.authority import BadRequestError
from irons_local.gateway.http1.heads import Head
from irons_local.gateway.http1.reader import RequestReader
from irons_local.gateway.http2.budget import Budget as FrameBudget
from irons_local.gateway.http2.frames import HTTP_1_1_REQUIRED, Http2Error
from irons_local.gateway.http2.heads import Request
from irons_local.gateway.http2.replies import PERMISSION_DENIED, UNAVAILABLE, Words
from irons_local.gateway.inspect.late import LateError
from irons_local.gateway.inspect.sniff import Kind, Opening
from irons_local.gateway.tls.remembered import Hellos
from irons_policy.causes import Cause, Outcome
from irons_policy.hostnames import Host

STRICT = {443: Kind.TLS, 80: Kind.HTTP}
UNRECORDED = "refused: the audit log cannot be written"


@dataclass(frozen=True, slots=True)
class Means:
    """What the conversations of one cell share.

    Attributes:
        tls: what `client_hello.context` made.
        hellos: ClientHellos that came before; None for none.
        opening: what they may hold while it is not clear what they want.
        frames: which frames of HTTP/2 their clients may send.
    """

    tls: ssl.SSLContext
    hellos: Hellos | None
    opening: Budget
    frames: FrameBudget


class Conversation:
    """One connection.

    Args:
        means: what it shares with others.
        accepted: how it began.

    Attributes:
        over: `Close` has come out, and nothing follows it but another one where that was left undone.
    """

    def __init__(self, means: Means, accepted: ev.Accepted) -> None:
        self._means = means
        self._accepted = accepted
        self._exchange = Exchange(means.opening)
        self._reaching = Reaching(self._exchange, accepted)
        self._alert = b""
        self._streams: Streams | None = None
        self._closing: do.Close | None = None
        self._steps = self._run()
        self.over = False

    @property
    def wants(self) -> frozenset[Side]:
        """The sides whose next bytes are of use now; those of others may wait where they are."""
        return self._exchange.wants

    @property
    def holding(self) -> do.Hold | None:
        """What it is held for, or None."""
        return self._exchange.holding

    def begin(self) -> list[do.Action]:
        """Begin; what comes out is to be done before the first event."""
        accepted = self._accepted
        self._exchange.say(do.Open(accepted.name or accepted.where))
        return self._go_on()

    def receive(self, event: ev.Event) -> list[do.Action]:
        """Take an event.

        Returns:
            What is to be done, in order.
        """
        exchange = self._exchange
        if self.over:
            return self._left(event)
        try:
            match event:
                case ev.Bytes(side, data):
                    exchange.came(side, data)
                case ev.End(side):
                    exchange.end(side)
                case ev.DeadlinePassed(number):
                    exchange.passed(number)
                case ev.PolicyChanged(mode):
                    self._reaching.changed(mode)
                case ev.Broken(how):
                    return self._throw(BrokenOffError(how))
                case ev.Cut(ending, cause):
                    self._close(ending, cause=cause, reset=True)
                    return self._done()
                case ev.RecordFailed():
                    self._close(UNRECORDED, Outcome.REFUSED, Cause.JOURNAL, reset=True)
                    self._closing = None
                    return self._done()
                case _:
                    exchange.learn(event)
        except TooMuchError as error:
            return self._throw(error)
        return self._go_on()

    def _go_on(self) -> list[do.Action]:
        try:
            next(self._steps)
        except StopIteration:
            return self._done()
        return self._taken()

    def _left(self, event: ev.Event) -> list[do.Action]:
        """Once `Close` has come out: close in another way where it was left undone, as something before it failed."""
        left = self._closing
        if left is None:
            return []
        match event:
            case ev.RecordFailed():
                how, cause, outcome = UNRECORDED, Cause.JOURNAL, Outcome.REFUSED
                close = do.Close(left.host, left.judged, how, outcome, cause, reset=True)
            case ev.Broken(how):
                close = do.Close(left.host, left.judged, how, Outcome.ABANDONED, reset=True)
            case _:
                return []
        self._closing = None
        return [replace(close, outcome=left.outcome) if left.outcome is Outcome.REACHED else close]

    def _throw(self, error: Exception) -> list[do.Action]:
        try:
            self._steps.throw(error)
        except StopIteration:
            return self._done()
        return self._taken()

    def _taken(self) -> list[do.Action]:
        taken, self._exchange.actions = self._exchange.actions, []
        return taken

    def _done(self) -> list[do.Action]:
        self.over = True
        self._exchange.settle()
        self._exchange.holding = None
        self._exchange.wants = frozenset()
        if self._streams is not None:
            self._streams.engine.close()
        self._steps.close()
        return self._taken()

    # How it ends.

    def _close(
        self,
        text: str = "closed",
        outcome: Outcome | None = None,
        cause: Cause | None = None,
        words: bytes = b"",
        *,
        reset: bool = False,
        answers: bool = False,
    ) -> None:
        reaching = self._reaching
        became = Outcome.REACHED if reaching.reached else outcome or Outcome.ABANDONED
        if self._exchange.told(Side.CLIENT):
            # Its server has ended, and so was this direction.
            words = b""
        self._closing = do.Close(reaching.host, reaching.judged, text, became, cause, words, reset, answers)
        self._exchange.say(self._closing)

    def _run(self) -> Steps[None]:
        try:
            try:
                yield from self._talk()
            except TooMuchError as error:
                raise self._reaching.refusal(str(error), Cause.CAP) from None
            except LateError as error:
                self._alert = error.alert
                raise self._reaching.refusal(str(error), error.cause, error.host, error.protocol) from None
        except RefusedError as error:
            self._refuse(error)
        except UnreachedError as error:
            self._unreached(error)
        except BrokenOffError as error:
            self._close(str(error), reset=True, answers=error.answers)

    def _refuse(self, error: RefusedError) -> None:
        refusal, reached = error.refusal, self._reaching.reached
        self._exchange.say(do.Refuse(error, reached))
        words = self._alert
        if self._streams is not None:
            engine = self._streams.engine
            if not engine.going:
                engine.refuse(self._words(error))
            words = engine.take_for_client()
        elif refusal.protocol == "http":
            reason = refusal.inside or refusal.reason
            command = error.command(self._accepted.sandbox)
            words = pages.forbidden(refusal.host, refusal.port, reason, command)
        text = f"refused: {refusal.reason}"
        self._close(text, Outcome.REFUSED, refusal.cause, words, reset=True, answers=reached)

    def _unreached(self, error: UnreachedError) -> None:
        host, port, reason = self._reaching.host.text, self._accepted.port, str(error)
        words = b""
        if self._streams is not None:
            page = pages.unreachable_page(host, port, reason)
            self._streams.engine.refuse(Words(502, UNAVAILABLE, page.strip(), page))
            words = self._streams.engine.take_for_client()
        elif self._reaching.protocol == "http":
            words = pages.unreachable(host, port, reason)
        self._close(f"unreachable: {error}", error.outcome, Cause(error.outcome), words, reset=True)

    def _words(self, error: RefusedError) -> Words:
        refusal = error.refusal
        reason = refusal.inside or refusal.reason
        command = error.command(self._accepted.sandbox)
        page = pages.forbidden_page(refusal.host, refusal.port, reason, command)
        return Words(403, PERMISSION_DENIED, " ".join(page.split("\n")).strip(), page)

    # What it says.

    def _talk(self) -> Steps[None]:
        accepted, reaching = self._accepted, self._reaching
        if accepted.synthetic and accepted.name is None:
            raise reaching.refusal("no name was ever given this address", Cause.NEVER)
        opening = yield from self._open()
        if opening.kind is Kind.HTTP:
            yield from self._http(opening)
        elif opening.kind is Kind.HTTP2:
            yield from self._http2(opening)
        else:
            yield from self._other(opening)

    def _open(self) -> Steps[Opening]:
        accepted, means = self._accepted, self._means
        strict = accepted.port in STRICT
        if not accepted.allowed:
            grace = patience.GRACE_DENIED
        elif strict:
            grace = patience.PATIENCE
        else:
            grace = patience.GRACE_LITERAL if accepted.name is None else patience.GRACE_NAMED
        opening = yield from read_opening(
            self._exchange, means.tls, means.hellos, grace, strict=strict and accepted.allowed
        )
        spoken = {Kind.TLS: "tls", Kind.HTTP: "http", Kind.HTTP2: "http"}.get(opening.kind)
        if spoken is not None:
            self._reaching.speaks(spoken)
        self._alert = opening.alert
        return opening

    def _http(self, opening: Opening) -> Steps[None]:
        reaching = self._reaching
        # A denied name is answered as soon as it is clear how, whatever else the request holds.
        yield from reaching.ask((), early=True)
        reader = RequestReader(opening.data)
        try:
            head = yield from read_head(self._exchange, reader)
        except BadRequestError as error:
            raise reaching.refusal(error.reason, error.cause, error.host) from None
        if head is None:
            self._close()
            return
        yield from reaching.judge(head.hosts, proxied=head.proxied)
        if self._accepted.port == 443:
            raise reaching.refusal("port 443 must speak TLS", Cause.PROTOCOL)
        yield from reaching.connect()
        if reaching.forwarding is None:
            yield from relay_http(self._exchange, reader, head, self._check)
        else:
            yield from self._forwarded(reader, head, reaching.forwarding)
        self._close()

    def _forwarded(self, reader: RequestReader, head: Head, way: Forwarding) -> Steps[None]:
        try:
            yield from relay_absolute(self._exchange, reader, head, way)
        except AnswerError as error:
            raise self._reaching.unreach(str(error)) from None

    def _http2(self, opening: Opening) -> Steps[None]:
        accepted, reaching = self._accepted, self._reaching
        self._streams = streams = Streams(self._exchange, self._decide, self._means.frames, greeted=False)
        if accepted.port in STRICT:
            streams.engine.end(Http2Error("HTTP/1 or TLS is spoken here", HTTP_1_1_REQUIRED))
            wanted = "TLS" if accepted.port == 443 else "HTTP/1"
            raise reaching.refusal(f"port {accepted.port} must speak {wanted}", Cause.PROTOCOL)
        came = yield from streams.first(opening.data)
        if came is False:
            self._close("closed without a request")
            return
        if came is None and accepted.name is None:
            # A client may wait until it has something to ask; where it is opened to a name that is known.
            raise reaching.refusal("no request was sent", Cause.MALFORMED)
        if reaching.judged is None:
            yield from reaching.judge(())
        yield from reaching.connect()
        streams.engine.reached = True
        yield from streams.relay()
        self._close()

    def _late_http2(self) -> Steps[None]:
        self._reaching.speaks("http")
        self._streams = Streams(self._exchange, self._decide, self._means.frames, greeted=True)
        yield from self._streams.relay()

    def _decide(self, found: Request | BadRequestError) -> Steps[Words | None]:
        """Judge a request of HTTP/2; the first decides whether anyone is dialled."""
        reaching = self._reaching
        first = reaching.judged is None
        try:
            if isinstance(found, BadRequestError):
                raise reaching.refusal(found.reason, found.cause, found.host)
            if first:
                yield from reaching.judge(found.hosts)
            else:
                yield from self._check(found.hosts, "http", b"", False)
        except RefusedError as error:
            if first:
                raise
            self._exchange.say(do.Refuse(error, True))
            return self._words(error)
        return None

    def _other(self, opening: Opening) -> Steps[None]:
        accepted, exchange, reaching, means = self._accepted, self._exchange, self._reaching, self._means
        yield from reaching.judge(() if opening.name is None else (opening.name,))
        if opening.fault is not None:
            raise reaching.refusal(opening.fault, Cause.MALFORMED, opening.name)
        if opening.silent and opening.ended:
            self._close("closed without a byte")
            return
        wanted = STRICT.get(accepted.port)
        if wanted is not None and wanted is not opening.kind:
            said = "nothing was sent" if opening.silent else f"port {accepted.port} must speak {wanted.name}"
            raise reaching.refusal(said, Cause.PROTOCOL)
        yield from reaching.connect()
        if opening.kind is Kind.TLS:
            exchange.forward(Side.SERVER, opening.data)
            yield from relay_tls(exchange, means.tls, self._check, late=False)
        else:
            yield from Clear(exchange, means.tls, self._check, self._late_http2).relay(opening)
        self._close()

    def _check(self, claimed: tuple[Host, ...], protocol: str, alert: bytes, proxied: bool) -> Steps[None]:
        """Judge names that show up once the server is reached."""
        self._reaching.speaks(protocol)
        self._alert = alert
        yield from self._reaching.check(claimed, proxied=proxied)
