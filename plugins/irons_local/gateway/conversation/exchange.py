"""Both sides of one connection as its protocols see them: what has come and was not used yet, and what is to be done.

Protocols are generators: each `yield` waits for another event of any kind, and then looks again at what they wait for.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

from irons_local.gateway.budget import patience
from irons_local.gateway.budget.undecided import Budget, Meter
from irons_local.gateway.conversation.actions import Action, Finish, Forward, Hold, Pass, Stop, Waits
from irons_local.gateway.conversation.events import CLIENT, SERVER, Denied, Fact, Side

CLOSING = Waits.CLOSING
Result = TypeVar("Result")
Steps = Generator[None, None, Result]
Sides = tuple[Side, ...]
NEITHER: Sides = ()
BOTH: Sides = (CLIENT, SERVER)
PASS = {CLIENT: Pass(CLIENT), SERVER: Pass(SERVER)}
FINISH = {CLIENT: Finish(CLIENT), SERVER: Finish(SERVER)}
ENDLESS = {waits: Hold(waits, None) for waits in Waits}
ONLY: dict[Side, Sides] = {CLIENT: (CLIENT,), SERVER: (SERVER,)}


class BrokenOffError(Exception):
    """The connection ended otherwise than by both sides closing it; the message says how, for the log.

    Attributes:
        answers: what the server still answers is relayed first.
    """

    def __init__(self, how: str, *, answers: bool = False) -> None:
        super().__init__(how)
        self.answers = answers


class Exchange:
    """The bytes of one connection.

    Args:
        budget: of what the connections of its cell may hold while it is not clear what they want.

    Attributes:
        budget: the same.
        say: wants something done.
        wants: the sides whose next bytes are of use now; those of others may wait where they are.
        heeds_end: the client's end is of use now as well, unless it says something more first, which waits where it is.
        busy: there is more to do without another event, once what was wanted until now is done.
        flowing: what the client says goes on as it comes, so no more of it may be read than its server has room for.
        through: both sides' bytes are shown here for good, so that holds for both.
        ended: the sides that have closed their direction.
        holding: what it is held for, or None.
        expired: the time of that is over.
        uploading: the client is in the middle of a request.
        meter: counts what the client says while it is not clear what it wants; None once that is.
    """

    __slots__ = (
        "_actions", "_answers_only", "_came", "_facts", "_passing", "_told", "budget", "busy", "ended", "expired", "flowing",
        "heeds_end", "holding", "meter", "say", "through", "uploading", "wants",
    )  # fmt: skip

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._actions: list[Action] = []
        self.say = self._actions.append
        self.wants: Sides = NEITHER
        self.heeds_end = False
        self.busy = False
        self.flowing = False
        self.through = False
        self.ended: Sides = NEITHER
        self.holding: Hold | None = None
        self.expired = False
        self.uploading = False
        self.meter: Meter | None = Meter(budget)
        self._came: dict[Side, bytes] = {CLIENT: b"", SERVER: b""}
        self._passing: Sides = NEITHER
        self._told: Sides = NEITHER
        self._answers_only = False
        self._facts: list[Fact] = []

    def taken(self) -> list[Action]:
        """What is to be done, in order, since it was last taken."""
        taken, self._actions = self._actions, []
        self.say = self._actions.append
        return taken

    def forward(self, to: Side, data: bytes) -> None:
        """Send bytes, where there are any."""
        if data:
            self.say(Forward(to, data))

    def told(self, side: Side) -> bool:
        """True once a side knows that nothing more comes."""
        return side in self._told

    def close(self, to: Side) -> None:
        """Tell a side, once, that nothing more comes."""
        if to not in self._told:
            self._told += ONLY[to]
            self.say(FINISH[to])

    def hold(self, waits: Waits, seconds: float | None, reason: str = "") -> None:
        """Begin to hold; a client that has no more than a moment to end is held for that alone."""
        holding = self.holding
        if holding is not None and holding.waits is CLOSING:
            return
        # One that ends is told apart from others by its identity.
        holding = ENDLESS[waits] if seconds is None and not reason else Hold(waits, seconds, reason)
        self.holding = holding
        self.expired = False
        self.say(holding)

    def release(self) -> None:
        """What was waited for has come, or its time is over."""
        holding = self.holding
        if holding is not None and holding.waits is not CLOSING:
            self.holding, self.expired = None, False

    def settle(self) -> None:
        """It is clear what the client wants, or it has ended."""
        if self.meter is not None:
            self.meter.close()
            self.meter = None

    # What comes in.

    def came(self, side: Side, data: bytes) -> None:
        """Take bytes of a side's.

        Raises:
            TooMuchError: there is no room for them.
        """
        if side in self._passing:
            self.forward(side.other, data)
            return
        self._came[side] += data
        if side is CLIENT and self.meter is not None:
            self.meter.count(len(data))

    def end(self, side: Side) -> None:
        """Take the end of a side's direction."""
        if side not in self.ended:
            self.ended += ONLY[side]
        if side in self._passing:
            self.close(side.other)
        self._look()

    def over_at_once(self) -> None:
        """Take the end of both sides, each of which has heard of the other's."""
        self.ended = self._told = BOTH

    def passed(self, hold: Hold, *, gone: bool) -> None:
        """The time of a hold is over; a client that uploads has more, unless a peer is gone."""
        if self.holding is not hold:
            return
        if hold.waits is not CLOSING:
            self.expired = True
            return
        self.holding = None
        if self.uploading and not gone:
            self._look()
        else:
            self.ended = BOTH

    def learn(self, fact: Fact) -> None:
        """Take an answer to what was asked."""
        self._facts.append(fact)

    # What protocols wait for.

    def fact(self) -> Steps[Fact | None]:
        """The next answer; None where the time of a hold is over first.

        Raises:
            RefusedError: it is a refusal.
        """
        while not self._facts:
            if self.expired:
                return None
            yield
        found = self._facts.pop(0)
        if isinstance(found, Denied):
            raise found.error
        return found

    def breathe(self) -> Steps[None]:
        """Have done what is wanted until now, and let others have their turn: there is more to do at once."""
        self.busy = True
        yield

    def there(self, side: Side) -> bool:
        """True where a side has sent something that was not used yet, or has ended."""
        return bool(self._came[side]) or side in self.ended

    def waits(self, side: Side) -> bool:
        """True where a side has sent something that was not used yet."""
        return bool(self._came[side])

    def until(self, sides: Sides) -> Steps[bool]:
        """Wait until one of the sides has sent something or has ended; False where the time of a hold is over first."""
        came = self._came
        self.wants = sides
        there = True
        while not any(came[side] or side in self.ended for side in sides):
            if self.expired:
                there = False
                break
            yield
        self.wants = NEITHER
        return there

    def until_answer(self) -> Steps[None]:
        """Wait until the server has sent something or has ended, or the client has."""
        came = self._came
        self.wants, self.heeds_end = ONLY[SERVER], True
        while not (came[SERVER] or came[CLIENT] or self.ended):
            yield
        self.wants, self.heeds_end = NEITHER, False

    def hear(self, side: Side) -> Steps[bytes]:
        """The next bytes of a side; `b""` for its end.

        Raises:
            TimeoutError: the time of a hold is over first.
        """
        came = self._came
        if not came[side]:
            self.wants = ONLY[side]
            while not (came[side] or side in self.ended):
                if self.expired:
                    self.wants = NEITHER
                    raise TimeoutError
                yield
            self.wants = NEITHER
        data, came[side] = came[side], b""
        return data

    def take(self, side: Side) -> bytes:
        """What a side has sent that was not used yet."""
        data, self._came[side] = self._came[side], b""
        return data

    def give_back(self, side: Side, data: bytes) -> None:
        """Put bytes in front of what a side says next."""
        self._came[side] = data + self._came[side]

    # What goes on by itself.

    def begin(self, *, answers_only: bool) -> None:
        """Pass on what the server says.

        Args:
            answers_only: the client's side is of no use once the server has closed its own.
        """
        self._answers_only = answers_only
        self._pass(SERVER)

    def quiesce(self) -> None:
        """Show what the server says here again.

        Raises:
            BrokenOffError: the server has ended.
        """
        if SERVER in self._passing:
            if SERVER in self.ended:
                raise BrokenOffError("the server closed")
            self._passing = ONLY[CLIENT] if CLIENT in self._passing else NEITHER
            self.say(Stop(SERVER))

    def splice(self) -> Steps[None]:
        """Pass on both sides without looking, until both have closed."""
        self.forward(SERVER, self.take(CLIENT))
        self.begin(answers_only=False)
        self._pass(CLIENT)
        self.release()
        while len(self.ended) < len(BOTH):
            yield

    def finish(self) -> Steps[None]:
        """The client has ended: tell the server, and pass on what it still says."""
        self.close(SERVER)
        yield from self.over()

    def over(self) -> Steps[None]:
        """Wait until both sides have closed."""
        self.release()
        while len(self.ended) < len(BOTH):
            yield

    def _pass(self, side: Side) -> None:
        if side in self._passing:
            return
        self._passing += ONLY[side]
        self.forward(side.other, self.take(side))
        self.say(PASS[side])
        if side in self.ended:
            self.close(side.other)
            self._look()

    def _look(self) -> None:
        if self._answers_only and self.ended == ONLY[SERVER] and SERVER in self._passing:
            self.hold(CLOSING, patience.CLOSING)
