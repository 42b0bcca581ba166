"""The whole life of one connection, from its first byte to its closing record, as a machine without I/O.

The order is the promise: opening record, decide, look up, check the address, verdict record, dial, relay, closing record.
What is refused before the dial is refused before anything outside has learned of it.

A driver gives each event to `receive`, and does what comes out, in order, before the next event. What it cannot do it
answers with an event (`Denied`, `Cut`, `Broken`, `RecordFailed`), and leaves the rest of that list undone.
"""

from __future__ import annotations

import ssl
from typing import NamedTuple

from irons_local.gateway.budget import patience
from irons_local.gateway.budget.undecided import Budget, TooMuchError
from irons_local.gateway.conversation import actions as do
from irons_local.gateway.conversation import events as ev
from irons_local.gateway.conversation.beginning import read_opening
from irons_local.gateway.conversation.clear import Clear
from irons_local.gateway.conversation.events import CLIENT, SERVER
from irons_local.gateway.conversation.exchange import NEITHER, BrokenOffError, Exchange, Steps
from irons_local.gateway.conversation.reaching import AtOnce, Reaching, UnreachedError
from irons_local.gateway.conversation.requests import read_head, relay_absolute, relay_http
from irons_local.gateway.conversation.secured import relay_tls
from irons_local.gateway.conversation.streams import Multiplexed
from irons_local.gateway.decide import pages
from irons_local.gateway.decide.verdicts import RefusedError, untraced
from irons_local.gateway.http1.absolute import AnswerError, Forwarding
from irons_local.gateway.http1.authority import BadRequestError
from irons_local.gateway.http1.heads import Head
from irons_local.gateway.http1.reader import RequestReader
from irons_local.gateway.http2.budget import FrameBudget
from irons_local.gateway.http2.frames import HTTP_1_1_REQUIRED, Http2Error
from irons_local.gateway.http2.heads import Request
from irons_local.gateway.http2.replies import PERMISSION_DENIED, UNAVAILABLE, Words
from irons_local.gateway.inspect.late import LateError
from irons_local.gateway.inspect.sniff import Kind, Opening
from irons_local.gateway.tls.remembered import Hellos
from irons_policy.causes import Cause, Outcome
from irons_policy.hostnames import Host
from irons_policy.patterns import HTTP, HTTPS

STRICT = {HTTPS: Kind.TLS, HTTP: Kind.HTTP}
SPOKEN = {Kind.TLS: "tls", Kind.HTTP: "http", Kind.HTTP2: "http"}
UNRECORDED = "refused: the audit log cannot be written"


class Means(NamedTuple):
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
        at_once: answers the questions that need no waiting, in the call that asks; it may not lead back here. None where
            every question comes out as an action.

    Attributes:
        exchange: what it waits for: `wants`, `heeds_end`, `through` and `holding`; where it is `busy`, `go_on` is called
            once what came out is done and others have had their turn.
        over: `Close` has come out, and nothing follows it but another one where that was left undone.
    """

    __slots__ = (
        "_accepted", "_alert", "_closing", "_means", "_reaching", "_steps", "_streams", "exchange", "over",
    )  # fmt: skip

    def __init__(self, means: Means, accepted: ev.Accepted, at_once: AtOnce | None = None) -> None:
        self._means = means
        self._accepted = accepted
        self.exchange = Exchange(means.opening)
        self._reaching = Reaching(self.exchange, accepted, at_once)
        self._alert = b""
        self._streams: Multiplexed | None = None
        self._closing: do.Close | None = None
        self._steps = self._run()
        self.over = False

    def begin(self) -> list[do.Action]:
        """Begin; what comes out is to be done before the first event."""
        accepted = self._accepted
        self.exchange.say(do.Open(accepted.name or accepted.where))
        return self.go_on()

    def receive(self, event: ev.Event) -> list[do.Action]:
        """Take an event.

        Returns:
            What is to be done, in order.
        """
        exchange = self.exchange
        if self.over:
            return self._left(event)
        if isinstance(event, ev.Bytes):
            try:
                exchange.came(event.side, event.data)
            except TooMuchError as error:
                return self._throw(error)
        elif isinstance(event, ev.End):
            exchange.end(event.side)
        elif isinstance(event, ev.Passed):
            exchange.over_at_once()
        elif isinstance(event, ev.DeadlinePassed):
            exchange.passed(event.hold, gone=event.gone)
        elif isinstance(event, ev.PolicyChanged):
            self._reaching.changed(event.mode)
        elif isinstance(event, ev.Answered):
            self._reaching.again()
        elif isinstance(event, ev.Broken):
            return self._throw(BrokenOffError(event.how))
        elif isinstance(event, ev.Cut):
            self._close(event.ending, cause=event.cause, reset=True)
            self._closing = None
            return self._done()
        elif isinstance(event, ev.RecordFailed):
            self._close(UNRECORDED, Outcome.REFUSED, Cause.JOURNAL, reset=True)
            self._closing = None
            return self._done()
        else:
            exchange.learn(event)
        return self.go_on()

    def go_on(self) -> list[do.Action]:
        """Go on by itself, where it is `busy`; what comes out is to be done as after an event."""
        exchange = self.exchange
        exchange.busy = False
        try:
            next(self._steps)
        except StopIteration:
            return self._done()
        return exchange.taken()

    def _left(self, event: ev.Event) -> list[do.Action]:
        """Once `Close` has come out: close in another way where it was left undone, as something before it failed."""
        left = self._closing
        if left is None:
            return []
        outcome = left.outcome
        if isinstance(event, ev.RecordFailed):
            text, cause = UNRECORDED, Cause.JOURNAL
            outcome = outcome if outcome is Outcome.REACHED else Outcome.REFUSED
        elif isinstance(event, ev.Broken):
            text, cause = event.how, None
            outcome = outcome if outcome is Outcome.REACHED else Outcome.ABANDONED
        elif isinstance(event, ev.Cut):
            text, cause = event.ending, event.cause
        else:
            return []
        self._closing = None
        return [do.Close(left.host, left.judged, text, outcome, cause, reset=True)]

    def _throw(self, error: Exception) -> list[do.Action]:
        try:
            self._steps.throw(error)
        except StopIteration:
            return self._done()
        return self.exchange.taken()

    def _done(self) -> list[do.Action]:
        exchange = self.exchange
        self.over = True
        exchange.settle()
        exchange.holding = None
        exchange.wants, exchange.heeds_end, exchange.busy = NEITHER, False, False
        if self._streams is not None:
            self._streams.engine.close()
            # It refers back to this.
            self._streams = None
        self._steps.close()
        return self.exchange.taken()

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
        drain: bool = False,
    ) -> None:
        reaching = self._reaching
        became = Outcome.REACHED if reaching.reached else outcome or Outcome.ABANDONED
        if self.exchange.told(CLIENT):
            # Its server has ended, and so was this direction.
            words = b""
        host, judged = reaching.host, reaching.judged
        self._closing = do.Close(host, judged, text, became, cause, words, reset, answers, drain)
        self.exchange.say(self._closing)

    def _run(self) -> Steps[None]:
        accepted, reaching = self._accepted, self._reaching
        try:
            try:
                if accepted.synthetic and accepted.name is None:
                    raise reaching.refusal("no name was ever given this address", Cause.NEVER)
                opening = yield from self._open()
                if opening.kind is Kind.HTTP:
                    steps = self._http(opening)
                elif opening.kind is Kind.HTTP2:
                    steps = self._http2(opening)
                else:
                    steps = self._other(opening)
                # What it said is not kept here for as long as the connection lives.
                del opening
                yield from steps
            except TooMuchError as error:
                raise reaching.refusal(str(error), Cause.CAP) from None
            except LateError as error:
                self._alert = error.alert
                raise reaching.refusal(str(error), error.cause, error.host, error.protocol) from None
        except RefusedError as error:
            self._refuse(error)
        except UnreachedError as error:
            self._unreached(error)
        except BrokenOffError as error:
            self._close(str(error), reset=True, answers=error.answers)

    def _refuse(self, error: RefusedError) -> None:
        refusal, reached = error.refusal, self._reaching.reached
        self.exchange.say(do.Refuse(untraced(error), reached))
        words = self._alert
        if self._streams is not None:
            engine = self._streams.engine
            if not engine.going:
                engine.refuse(self._words(error))
            words = engine.take_for_client()
        elif refusal.protocol == "http":
            reason = refusal.inside or refusal.reason
            command = error.command(self._accepted.sandbox)
            words = pages.forbidden(refusal.host, refusal.port, reason, command, asked=error.asked)
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
        page = pages.forbidden_page(refusal.host, refusal.port, reason, command, asked=error.asked)
        again = pages.RETRY_AFTER if error.asked else 0
        return Words(403, PERMISSION_DENIED, " ".join(page.split("\n")).strip(), page, again)

    # What it says.

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
            self.exchange, means.tls, means.hellos, grace, strict=strict and accepted.allowed
        )
        spoken = SPOKEN.get(opening.kind)
        if spoken is not None:
            self._reaching.speaks(spoken)
        self._alert = opening.alert
        return opening

    def _http(self, opening: Opening) -> Steps[None]:
        reaching = self._reaching
        # A denied name is answered as soon as it is clear how, whatever else the request holds.
        yield from reaching.ask()
        reader = RequestReader(opening.data)
        try:
            head = yield from read_head(self.exchange, reader)
        except BadRequestError as error:
            raise reaching.refusal(error.reason, error.cause, error.host) from None
        if head is None:
            self._close()
            return
        yield from reaching.judge(head.hosts, proxied=head.proxied)
        if self._accepted.port == HTTPS:
            raise reaching.refusal(f"port {HTTPS} must speak TLS", Cause.PROTOCOL)
        yield from reaching.connect()
        if reaching.forwarding is None:
            yield from relay_http(self.exchange, reader, head, self._check)
        else:
            yield from self._forwarded(reader, head, reaching.forwarding)
        self._close()

    def _forwarded(self, reader: RequestReader, head: Head, way: Forwarding) -> Steps[None]:
        try:
            yield from relay_absolute(self.exchange, reader, head, way)
        except AnswerError as error:
            raise self._reaching.unreach(str(error)) from None

    def _http2(self, opening: Opening) -> Steps[None]:
        accepted, reaching = self._accepted, self._reaching
        self._streams = streams = Multiplexed(self.exchange, self._decide, self._means.frames, greeted=False)
        if accepted.port in STRICT:
            streams.engine.end(Http2Error("HTTP/1 or TLS is spoken here", HTTP_1_1_REQUIRED))
            wanted = "TLS" if accepted.port == HTTPS else "HTTP/1"
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
        self._close(drain=streams.engine.over)

    def _late_http2(self) -> Steps[None]:
        self._reaching.speaks("http")
        self._streams = Multiplexed(self.exchange, self._decide, self._means.frames, greeted=True)
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
            self.exchange.say(do.Refuse(untraced(error), True))
            return self._words(error)
        return None

    def _other(self, opening: Opening) -> Steps[None]:
        accepted, exchange, reaching, means = self._accepted, self.exchange, self._reaching, self._means
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
            exchange.forward(SERVER, opening.data)
            del opening
            yield from relay_tls(exchange, means.tls, self._check, late=False)
        else:
            yield from Clear(exchange, means.tls, self._check, self._late_http2).relay(opening)
        self._close(drain=self._streams is not None and self._streams.engine.over)

    def _check(self, claimed: tuple[Host, ...], protocol: str, alert: bytes, proxied: bool) -> Steps[None]:
        """Judge names that show up once the server is reached."""
        self._reaching.speaks(protocol)
        self._alert = alert
        yield from self._reaching.check(claimed, proxied=proxied)
