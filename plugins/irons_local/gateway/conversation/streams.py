"""HTTP/2 in the clear: each request is judged before it goes on; the first before its server is reached."""

from __future__ import annotations

from collections.abc import Callable

from irons_local.gateway.budget import patience
from irons_local.gateway.budget.undecided import Holding
from irons_local.gateway.conversation.actions import Waits
from irons_local.gateway.conversation.events import CLIENT, SERVER, Side
from irons_local.gateway.conversation.exchange import (
    BOTH,
    NEITHER,
    ONLY,
    BrokenOffError,
    Exchange,
    Steps,
)
from irons_local.gateway.conversation.secured import server_speaks
from irons_local.gateway.http1.authority import BadRequestError
from irons_local.gateway.http2.budget import FrameBudget
from irons_local.gateway.http2.conversation import Http2, Undecided
from irons_local.gateway.http2.frames import HEAD, HTTP_1_1_REQUIRED, Http2Error, looks_like_settings
from irons_local.gateway.http2.heads import Request
from irons_local.gateway.http2.replies import Words
from irons_local.gateway.inspect.late import LateError, faulty
from irons_policy.causes import Cause

Decide = Callable[[Request | BadRequestError], Steps[Words | None]]
"""Judges a request, or what is wrong with it; raises `RefusedError` where the connection goes nowhere for it."""


class Multiplexed:
    """One such connection.

    Args:
        exchange: the connection.
        decide: judges each request.
        budget: what clients of its cell may send.
        greeted: a server is there already.

    Attributes:
        engine: what is understood of it.
    """

    def __init__(self, exchange: Exchange, decide: Decide, budget: FrameBudget, *, greeted: bool) -> None:
        self._exchange = exchange
        self._decide = decide
        self._asked: Steps[Words | None] | None = None
        self.engine = Http2(self._ask, FrameBudget(budget), Holding(exchange.budget), greeted=greeted)

    def _ask(self, found: Request | BadRequestError) -> Words | Undecided | None:
        steps = self._decide(found)
        try:
            next(steps)
        except StopIteration as decided:
            words: Words | None = decided.value
            return words
        self._asked = steps
        return Undecided.ASKED

    def _step(self) -> Steps[bool]:
        """Handle some of what the client said; True where there is more."""
        more = self.engine.step_client()
        asked, self._asked = self._asked, None
        if asked is not None:
            self.engine.decide((yield from asked))
            return True
        return more

    def first(self, data: bytes) -> Steps[bool | None]:
        """Read up to the first request, while no server is there.

        Returns:
            Whether one came; False at the end of the connection; None where none came in time.

        Raises:
            RefusedError: it goes nowhere.
            LateError: the client broke the protocol.
        """
        exchange, engine = self._exchange, self.engine
        exchange.hold(Waits.REQUEST, patience.REQUEST)
        try:
            while True:
                try:
                    engine.feed_client(data)
                    while (yield from self._step()):
                        yield from exchange.breathe()
                except Http2Error as error:
                    raise faulty(engine, error) from None
                exchange.forward(CLIENT, engine.take_for_client())
                if engine.last or engine.going:
                    return True
                data = yield from exchange.hear(CLIENT)
                if not data:
                    return False
        except TimeoutError:
            return None
        finally:
            exchange.release()

    def relay(self) -> Steps[None]:
        """Relay it once its server is reached.

        Raises:
            LateError: one side broke the protocol, or the server speaks another one.
            TooMuchError: the connections of the cell hold too much.
            BrokenOffError: a side ended before the server has shown what it speaks.
        """
        exchange, engine = self._exchange, self.engine
        try:
            engine.feed_client(exchange.take(CLIENT))
            engine.hold()
            yield from self._meet()
            exchange.through = True
            yield from self._both()
        except Http2Error as error:
            raise faulty(engine, error) from None
        exchange.close(SERVER)

    def _meet(self) -> Steps[None]:
        """Have the server show that it speaks HTTP/2 before it hears what the client says in it.

        Bodies are not looked into, so on the client's word alone anything could go on in one.
        """
        exchange, engine = self._exchange, self.engine
        exchange.forward(SERVER, engine.introduce())
        begun = b""
        while len(begun) < HEAD:
            if not (yield from server_speaks(exchange)):
                raise BrokenOffError("closed before the server answered")
            more = exchange.take(SERVER)
            if not more:
                break
            begun += more
        if not looks_like_settings(begun[:HEAD]):
            error = Http2Error("the server does not speak HTTP/2", HTTP_1_1_REQUIRED)
            engine.end(error)
            raise LateError(str(error), "http", Cause.PROTOCOL)
        exchange.give_back(SERVER, begun)
        exchange.forward(SERVER, engine.take_for_server())

    def _both(self) -> Steps[None]:
        """Relay both sides until one has ended and the other has said the rest, or nothing more will be said."""
        exchange, engine = self._exchange, self.engine
        open_sides = set(Side)
        while open_sides and not engine.over:
            more = self._hear_server()
            engine.feed_client(exchange.take(CLIENT))
            if not engine.over:
                more = (yield from self._meanwhile(self._step())) or more
                exchange.forward(SERVER, engine.take_for_server())
                exchange.forward(CLIENT, engine.take_for_client())
            if engine.over:
                return
            if more:
                yield from exchange.breathe()
                continue
            for side in open_sides.intersection(exchange.ended):
                open_sides.remove(side)
                exchange.close(side.other)
            if open_sides:
                yield from self._wait(open_sides)

    def _wait(self, open_sides: set[Side]) -> Steps[None]:
        """Wait for more of the sides that are open."""
        exchange, engine = self._exchange, self.engine
        engine.hold()
        if SERVER not in open_sides:
            exchange.hold(Waits.CLOSING, patience.CLOSING)
        elif not engine.partial:
            exchange.release()
        elif exchange.holding is None:
            exchange.hold(Waits.FRAME, patience.FRAME)
        if not (yield from exchange.until(BOTH if len(open_sides) > 1 else ONLY[next(iter(open_sides))])):
            raise Http2Error("a frame was not finished in time")
        if exchange.there(CLIENT):
            # What its server says gives a client no more time.
            exchange.release()

    def _meanwhile(self, steps: Steps[bool]) -> Steps[bool]:
        """Go on with what the server says for as long as a request of the client's waits for its verdict."""
        while True:
            try:
                next(steps)
            except StopIteration as done:
                return bool(done.value)
            self._exchange.wants = ONLY[SERVER]
            while self._hear_server():
                pass
            yield
            self._exchange.wants = NEITHER

    def _hear_server(self) -> bool:
        """Pass on some of what the server said; True where there is more."""
        exchange, engine = self._exchange, self.engine
        engine.feed_server(exchange.take(SERVER))
        if engine.over:
            return False
        out, more = engine.step_server()
        exchange.forward(CLIENT, out)
        return more
