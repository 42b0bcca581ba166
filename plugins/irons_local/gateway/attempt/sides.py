"""Both sockets of one connection: what each says is waited for, sent, spliced and counted here.

Nothing here looks at the bytes. A side is read only for as long as the conversation has use for it; what it says
otherwise stays in the kernel.
"""

from __future__ import annotations

from functools import partial
from time import monotonic

from irons_local.gateway.attempt.account import Volume
from irons_local.gateway.attempt.happenings import Happenings
from irons_local.gateway.attempt.outgoing import Outgoing
from irons_local.gateway.budget.deadlines import Deadline
from irons_local.gateway.budget.watch import FairLoop
from irons_local.gateway.conversation import events as ev
from irons_local.gateway.conversation.actions import Hold, Waits
from irons_local.gateway.conversation.events import CLIENT, SERVER, Side
from irons_local.gateway.conversation.exchange import BOTH, NEITHER, ONLY, Exchange
from irons_local.gateway.streams.splice import Flow, Pipes, Turns
from irons_local.gateway.streams.stream import CHUNK, Wire

END = {CLIENT: ev.End(CLIENT), SERVER: ev.End(SERVER)}
PASSED = ev.Passed()
ANSWER, CLOSING = Waits.ANSWER, Waits.CLOSING
FIRST = 16_384
"""Bytes that are read before a server is reached; more of a body waits in the kernel."""
PART = 8192
"""Bytes of a server's that are looked at in one turn: it may fill them with what begins like TLS again and again."""
LARGE = 256 << 10
"""Bytes of a server's that are read at once where most of them are passed on as they are."""
LOOK = 60.0
"""Seconds between two looks at peers of which nothing is heard: the connection lives as long as both answer keep-alives."""
QUIET = 0.2
QUIET_MOST = 5.0


class Sides:
    """The client and the server of one connection.

    Args:
        loop: the loop that runs it.
        client: the program in the cell.
        pipes: what is spliced moves through them.
        turns: of the cell whose connection it is.

    Attributes:
        client: the same.
        server: what it reached; None before that.
        happenings: what has happened and was not heard yet.
    """

    __slots__ = (
        "_deadline", "_ended", "_failed", "_finishing", "_flows", "_full", "_held", "_last", "_left", "_look",
        "_loop", "_outgoing", "_pipes", "_ready", "_said_more", "_turns", "_wires", "client", "happenings", "server",
    )  # fmt: skip

    def __init__(self, loop: FairLoop, client: Wire, pipes: Pipes, turns: Turns) -> None:
        self._loop = loop
        self._pipes = pipes
        self._turns = turns
        self.happenings = Happenings(loop)
        self._held: Hold | None = None
        self._deadline: Deadline | None = None
        self._look: Deadline | None = None
        self._ready = BOTH
        self._wires = {CLIENT: client}
        self._outgoing = outgoing = Outgoing(self._wires)
        # Bytes for a side that had no room for them, and whether it is told then that nothing more comes.
        self._left = outgoing.left
        self._finishing = NEITHER
        self._flows: dict[Side, Flow] = {}
        self._ended = NEITHER
        self._last = SERVER
        self._failed: OSError | None = None
        # The side whose words wait where they are, for room on the other.
        self._full = NEITHER
        # The client has said something that waits in the kernel for the server's answer.
        self._said_more = False
        self.client = client
        self.server: Wire | None = None

    def reached(self, server: Wire) -> None:
        """Its server is there."""
        self.server = self._wires[SERVER] = server

    @property
    def moved(self) -> Volume:
        """How many bytes went each way; what still waits for room did not."""
        flows, (out, back) = self._flows, self._outgoing.sent
        forth, answers = flows.get(CLIENT), flows.get(SERVER)
        return Volume(
            out + (forth.moved if forth is not None else 0),
            back + (answers.moved if answers is not None else 0),
        )

    # What goes out.

    def send(self, to: Side, data: bytes, *, own: bool) -> None:
        """Send bytes to a side; what it has no room for follows when it has, and the other side is not read before.

        Args:
            to: the side.
            data: the bytes.
            own: they do not count as the connection's.

        Raises:
            OSError: the connection broke.
        """
        if self._outgoing.send(to, data, own=own or self.server is None):
            self._wires[to].watch.write(partial(self._send_left, to))

    def crowded(self, side: Side) -> bool:
        """True where a side has had no room for all that was sent to it."""
        return side in self._left

    async def drained(self, side: Side) -> None:
        """Wait until a side has had room for all that was sent to it.

        Raises:
            OSError: the connection broke.
        """
        while side in self._left:
            await self.happenings.until_woken()
        if self._failed is not None:
            raise self._failed

    def finish(self, side: Side) -> None:
        """Tell a side that nothing more comes, once it has heard the rest."""
        flow = self._flows.get(side.other)
        if side in self._left:
            self._finishing += ONLY[side]
        elif flow is None or not flow.done:
            self._wires[side].finish()

    def take_left(self) -> bytes:
        """What the client had no room for, which is not sent any more."""
        left = self._left.pop(CLIENT, b"")
        if left:
            self.client.watch.unwrite()
        return left

    def _send_left(self, side: Side) -> None:
        wire = self._wires[side]
        try:
            if not self._outgoing.flush(side):
                return
        except OSError as error:
            wire.watch.unwrite()
            self._failed = error
            self.happenings.add(broken(error))
            return
        wire.watch.unwrite()
        if side in self._finishing:
            wire.finish()
        self.happenings.wake()

    # What goes by by itself.

    def splice(self, side: Side) -> None:
        """Pass on what a side says from here on, without looking."""
        source, sink = self._wires[side], self._wires[side.other]
        ended = partial(self._flowed, side)
        flow = self._flows[side] = Flow(self._loop, source, sink, self._pipes, self._turns, ended)
        flow.start()
        answers = self._flows.get(SERVER)
        if side is CLIENT and answers is not None and not answers.done:
            # A server says more together with its first words, as a rule: it need not be waited for first.
            answers.move()

    async def unsplice(self, side: Side) -> None:
        """Read a side again, with nothing lost of what was taken from it."""
        flow = self._flows.get(side)
        if flow is None:
            return
        await flow.pause()
        del self._flows[side]
        if side is CLIENT:
            self._outgoing.out += flow.moved
        else:
            self._outgoing.back += flow.moved
        self._readable(side)

    def _flowed(self, side: Side, flow: Flow, error: OSError | None) -> None:
        if error is not None:
            by_client = flow.reading is (side is CLIENT)
            self.happenings.add(ev.Broken("reset by the client" if by_client else "reset by the server"))
            return
        end = self._end(side)
        if side.other not in self._ended:
            # Its end stays there to be read for as long as the other way is open.
            self._wires[side].watch.deafen()
        if side.other not in self._flows:
            self.happenings.add(end)
        elif len(self._ended) == 1:
            # Nothing is to be done before the other way ends too.
            self._look = self._look or self._loop.deadlines.after(LOOK, self._check)
        else:
            self.happenings.add(PASSED)

    # What comes in.

    async def next(self, exchange: Exchange) -> ev.Event:
        """The next thing that happens, of what a conversation has use for.

        Args:
            exchange: what it waits for.
        """
        happenings, pace = self.happenings, self.client.pace
        events = happenings.events
        while True:
            self._full = NEITHER
            if monotonic() >= pace.turn.until:
                await pace.rest()
            if events:
                event = events.pop(0)
                if isinstance(event, (ev.DeadlinePassed, ev.Answered)):
                    # A deadline passes, and an answer comes, in anyone's turn; what follows is to be charged to the cell.
                    await pace.rest()
                    if not isinstance(event, ev.Answered):
                        event = happenings.instead(event)
                return event
            try:
                # One that always has something to say does not keep the other from being heard.
                for side in exchange.wants if self._last is SERVER else exchange.wants[::-1]:
                    # What a client has said is read before an answer to it brings more.
                    if side in self._ready or (side is CLIENT and exchange.flowing):
                        data = self._take(side, exchange)
                        if data:
                            self._last = side
                            if side.other in exchange.wants and side.other not in self._ready:
                                # It is heard in the next turn, though this side may never have to be waited for.
                                self._read(side.other)
                            return ev.Bytes(side, data)
                        if data is not None:
                            return self._end(side)
                if exchange.heeds_end and CLIENT in self._ready and not self._said_more:
                    said = self.client.peek()
                    if said == b"":
                        return self._end(CLIENT)
                    if said is None:
                        self._unready(CLIENT)
                    else:
                        self._said_more = True
            except OSError as error:
                return broken(error)
            self._watch(exchange)
            await self.happenings.until_woken()

    def _end(self, side: Side) -> ev.End:
        """Note that a side has closed its direction, which is seen again where that is spliced."""
        if side not in self._ended:
            self._ended += ONLY[side]
        return END[side]

    def _take(self, side: Side, exchange: Exchange) -> bytes | None:
        """What a side says now; `b""` for its end, None where more must happen first."""
        if side is SERVER:
            size = LARGE if exchange.through else PART
        else:
            size = FIRST if self.server is None else CHUNK
        # What the other one has no room for stays where it is, also what waits for room already.
        if self._left and (side.other in self._left or (exchange.through and CLIENT in self._left)):
            return None
        if exchange.through or (exchange.flowing and side is CLIENT):
            # The kernel counts what it keeps with its own overhead (socket(7), `SO_SNDBUF`): half of what is free is used.
            sink = self._wires[side.other]
            room = sink.room() >> 1
            if not room:
                self._full += ONLY[side]
                sink.watch.write(partial(self._writable, side.other))
                return None
            size = min(size, room)
        data = self._wires[side].take(size)
        if data is None:
            self._unready(side)
            return None
        if side is CLIENT:
            self._said_more = False
        if 0 < len(data) < size and len(exchange.wants) == 1:
            # There is no more now: to ask would be one more system call. Where both are of use they are asked in turn.
            self._unready(side)
        return data

    def _watch(self, exchange: Exchange) -> None:
        """Have everything noticed that may happen next."""
        hold, after = exchange.holding, self._loop.deadlines.after
        if (
            hold is not None
            and hold.seconds is not None
            and hold.waits is not CLOSING
            and self._unread(exchange)
        ):
            # No one waits for a side that is not read because the other one has no room.
            hold = None
        if hold is not self._held:
            self._held = hold
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None
            if hold is not None and hold.seconds is not None:
                self._deadline = after(hold.seconds, partial(self._late, hold))
        heeds_end = exchange.heeds_end and not self._said_more
        if self._look is None and (
            len(self._ended) == 1 or self._crammed or (not heeds_end and self._unanswered)
        ):
            self._look = after(LOOK, self._check)
        for side in exchange.wants:
            if side not in self._ready:
                self._read(side)
        if heeds_end:
            self._read(CLIENT)

    def _unread(self, exchange: Exchange) -> bool:
        """True while a client is not read, whatever it says, because there is no room for more."""
        left = self._left
        return CLIENT in self._full or SERVER in left or (exchange.through and CLIENT in left)

    def _read(self, side: Side) -> None:
        if side is CLIENT:
            self.client.watch.read(self._client_readable)
        else:
            self._wires[side].watch.read(self._server_readable)

    def _readable(self, side: Side) -> None:
        if side not in self._ready:
            self._ready += ONLY[side]

    def _unready(self, side: Side) -> None:
        self._ready = ONLY[side.other] if side.other in self._ready else NEITHER

    def _client_readable(self) -> None:
        self.client.watch.unread()
        self._readable(CLIENT)
        self.happenings.wake()

    def _server_readable(self) -> None:
        self._wires[SERVER].watch.unread()
        self._readable(SERVER)
        self.happenings.wake()

    def _writable(self, side: Side) -> None:
        self._wires[side].watch.unwrite()
        self.happenings.wake()

    def add(self, event: ev.Event) -> None:
        """Have this event be the next thing that happens, after those that have happened already."""
        self.happenings.add(event)

    # What does not happen.

    @property
    def _half_closed(self) -> bool:
        return len(self._ended) == 1 and self.server is not None

    @property
    def _crammed(self) -> bool:
        return bool(self._full or self._left)

    @property
    def _unanswered(self) -> bool:
        held = self._held
        return held is not None and held.waits is ANSWER and held.seconds is None

    @property
    def _gone(self) -> bool:
        return self.client.gone or (self.server is not None and self.server.gone)

    def _late(self, hold: Hold) -> None:
        self._deadline = None
        self.happenings.add(ev.DeadlinePassed(hold, hold.waits is CLOSING and self._gone))

    def _check(self) -> None:
        self._look = None
        if not self._crammed and not self._half_closed and not self._unanswered:
            return
        if self._gone:
            how = "with one side closed" if self._ended else "before the server answered"
            how = "before there was room for what it sent" if self._crammed else how
            self.happenings.add(ev.Broken(f"a peer was gone {how}"))
        else:
            self._look = self._loop.deadlines.after(LOOK, self._check)

    # How it ends.

    async def last_answers(self) -> None:
        """Nothing more will be asked: pass on what the server still answers, until it is quiet for a moment."""
        loop, flow = self._loop, self._flows.get(SERVER)
        deadline, seen = loop.time() + QUIET_MOST, -1
        while flow is not None and not flow.done and loop.time() < deadline and flow.moved != seen:
            seen = flow.moved
            over = loop.deadlines.after(QUIET, self.happenings.wake)
            try:
                await self.happenings.until_woken()
            finally:
                over.cancel()
            await self.client.pace.rest()

    async def delivered(self) -> None:
        """Wait until both peers have had room for what was sent to them: until then it is one of its cell's connections.

        Raises:
            OSError: the connection broke.
        """
        while self._left:
            await self.drained(next(iter(self._left)))
        for wire in self._wires.values():
            # Most have nothing left to deliver.
            if wire.unsent:
                await wire.delivered()

    def stop(self) -> None:
        """Pass on nothing more, and wait for nothing more; the sockets stay as they are."""
        for flow in self._flows.values():
            if not flow.done:
                flow.stop()
        for deadline in (self._deadline, self._look):
            if deadline is not None:
                deadline.cancel()
        self._deadline = self._look = None

    def reset(self) -> None:
        """End the connection so that both sides see a reset."""
        self.client.reset()
        if self.server is not None:
            self.server.reset()

    def close(self) -> None:
        """Let go of everything."""
        self.stop()
        self.client.close()
        if self.server is not None:
            self.server.close()
        # They refer back to this.
        self._flows.clear()
        self.happenings.course = None


def broken(error: OSError) -> ev.Broken:
    """What became of a connection, for the log."""
    return ev.Broken(f"broken: {(error.strerror or str(error)).lower()}")
