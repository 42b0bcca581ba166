"""HTTP/2 in the clear: each request is judged before it goes on; the first before its server is reached."""

from __future__ import annotations

from collections.abc import Callable

from irons_local.gateway.budget import patience
from irons_local.gateway.budget.undecided import Holding
from irons_local.gateway.conversation.actions import Waits
from irons_local.gateway.conversation.events import Side
from irons_local.gateway.conversation.exchange import BrokenOffError, Exchange, Steps
from irons_local.gateway.conversation.secured import server_speaks
from irons_local.gateway.http1.authority import BadRequestError
from irons_local.gateway.http2.budget import Budget
from irons_local.gateway.http2.conversation import Http2, Undecided
from irons_local.gateway.http2.frames import HEAD, HTTP_1_1_REQUIRED, Http2Error, looks_like_settings
from irons_local.gateway.http2.heads import Request
from irons_local.gateway.http2.replies import Words
from irons_local.gateway.inspect.late import LateError, faulty
from irons_policy.causes import Cause

Decide = Callable[[Request | BadRequestError], Steps[Words | None]]
"""Judges a request, or what is wrong with it; raises `RefusedError` where the connection goes nowhere for it."""


class Streams:
    """One such connection.

    Args:
        exchange: the connection.
        decide: judges each request.
        budget: what clients of its cell may send.
        greeted: a server is there already.

    Attributes:
        engine: what is understood of it.
    """

    def __init__(self, exchange: Exchange, decide: Decide, budget: Budget, *, greeted: bool) -> None:
        self._exchange = exchange
        self._decide = decide
        self._asked: Request | BadRequestError | None = None
        self.engine = Http2(self._ask, Budget(budget), Holding(exchange.budget), greeted=greeted)

    def _ask(self, found: Request | BadRequestError) -> Undecided:
        self._asked = found
        return Undecided.ASKED

    def _step(self) -> Steps[bool]:
        """Handle some of what the client said, and judge the request that is in it; True where there is more."""
        more = self.engine.step_client()
        found, self._asked = self._asked, None
        if found is not None:
            self.engine.decide((yield from self._decide(found)))
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
                        pass
                except Http2Error as error:
                    raise faulty(engine, error) from None
                exchange.forward(Side.CLIENT, engine.take_for_client())
                if engine.last or engine.going:
                    return True
                data = yield from exchange.hear(Side.CLIENT)
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
            engine.feed_client(exchange.take(Side.CLIENT))
            engine.hold()
            yield from self._meet()
            yield from self._both()
        except Http2Error as error:
            raise faulty(engine, error) from None
        exchange.close(Side.SERVER)

    def _meet(self) -> Steps[None]:
        """Have the server show that it speaks HTTP/2 before it hears what the client says in it.

        Bodies are not looked into, so on the client's word alone anything could go on in one.
        """
        exchange, engine = self._exchange, self.engine
        exchange.forward(Side.SERVER, engine.introduce())
        begun = b""
        while len(begun) < HEAD:
            if not (yield from server_speaks(exchange)):
                raise BrokenOffError("closed before the server answered")
            more = exchange.take(Side.SERVER)
            if not more:
                break
            begun += more
        if not looks_like_settings(begun[:HEAD]):
            error = Http2Error("the server does not speak HTTP/2", HTTP_1_1_REQUIRED)
            engine.end(error)
            raise LateError(str(error), "http", Cause.PROTOCOL)
        exchange.give_back(Side.SERVER, begun)
        exchange.forward(Side.SERVER, engine.take_for_server())

    def _both(self) -> Steps[None]:
        """Relay both sides until one has ended and the other has said the rest, or nothing more will be said."""
        exchange, engine = self._exchange, self.engine
        open_sides = set(Side)
        while open_sides and not engine.over:
            self._hear_server()
            yield from self._hear_client()
            for side in open_sides & exchange.ended:
                open_sides.remove(side)
                exchange.close(side.other)
            if open_sides and not engine.over:
                yield from self._wait(open_sides)

    def _wait(self, open_sides: set[Side]) -> Steps[None]:
        """Wait for more of the sides that are open."""
        exchange, engine = self._exchange, self.engine
        engine.hold()
        closing = Side.SERVER not in open_sides
        if closing:
            exchange.hold(Waits.CLOSING, patience.CLOSING)
        elif engine.partial:
            exchange.hold(Waits.FRAME, patience.FRAME)
        if (yield from exchange.until(*open_sides)):
            exchange.release()
        else:
            raise Http2Error("a frame was not finished in time")

    def _hear_client(self) -> Steps[None]:
        exchange, engine = self._exchange, self.engine
        engine.feed_client(exchange.take(Side.CLIENT))
        more = True
        while more and not engine.over:
            more = yield from self._meanwhile(self._step())
            exchange.forward(Side.SERVER, engine.take_for_server())
            exchange.forward(Side.CLIENT, engine.take_for_client())

    def _meanwhile(self, steps: Steps[bool]) -> Steps[bool]:
        """Go on with what the server says for as long as a request of the client's waits for its verdict."""
        while True:
            try:
                next(steps)
            except StopIteration as done:
                return bool(done.value)
            self._exchange.wants = frozenset({Side.SERVER})
            self._hear_server()
            yield
            self._exchange.wants = frozenset()

    def _hear_server(self) -> None:
        exchange, engine = self._exchange, self.engine
        engine.feed_server(exchange.take(Side.SERVER))
        more = True
        while more and not engine.over:
            out, more = engine.step_server()
            exchange.forward(Side.CLIENT, out)
