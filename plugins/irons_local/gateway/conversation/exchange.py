"""Both sides of one connection as its protocols see them: what has come and was not used yet, and what is to be done.

Protocols are generators: each `yield` waits for another event of any kind, and then looks again at what they wait for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from typing import TypeVar

from irons_local.gateway.budget import patience
from irons_local.gateway.budget.undecided import Budget, Meter
from irons_local.gateway.conversation.actions import Action, Finish, Forward, Hold, Pass, Stop, Waits
from irons_local.gateway.conversation.events import Denied, Fact, Side

Result = TypeVar("Result")
Steps = Generator[None, None, Result]


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
        actions: what is to be done, in order, since it was last taken.
        wants: the sides whose next bytes are of use now; those of others may wait where they are.
        ended: the sides that have closed their direction.
        holding: what it is held for, or None.
        expired: the time of that is over.
        uploading: the client is in the middle of a request.
        meter: counts what the client says while it is not clear what it wants; None once that is.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.actions: list[Action] = []
        self.wants: frozenset[Side] = frozenset()
        self.ended: set[Side] = set()
        self.holding: Hold | None = None
        self.expired = False
        self.uploading = False
        self.meter: Meter | None = Meter(budget)
        self._came: dict[Side, bytes] = {Side.CLIENT: b"", Side.SERVER: b""}
        self._passing: set[Side] = set()
        self._told: set[Side] = set()
        self._answers_only = False
        self._facts: deque[Fact] = deque()
        self._holds = 0

    def say(self, *actions: Action) -> None:
        """Want something done."""
        self.actions += actions

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
            self._told.add(to)
            self.say(Finish(to))

    def hold(self, waits: Waits, seconds: float | None, reason: str = "") -> None:
        """Begin to hold; a client that has no more than a moment to end is held for that alone."""
        if self.holding is not None and self.holding.waits is Waits.CLOSING:
            return
        self._holds += 1
        self.holding, self.expired = Hold(waits, seconds, reason, self._holds), False
        self.say(self.holding)

    def release(self) -> None:
        """What was waited for has come, or its time is over."""
        if self.holding is not None and self.holding.waits is not Waits.CLOSING:
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
        if side is Side.CLIENT and self.meter is not None:
            self.meter.count(len(data))

    def end(self, side: Side) -> None:
        """Take the end of a side's direction."""
        self.ended.add(side)
        if side in self._passing:
            self.close(side.other)
        self._look()

    def passed(self, number: int) -> None:
        """The time of a hold is over."""
        if self.holding is None or self.holding.number != number:
            return
        if self.holding.waits is not Waits.CLOSING:
            self.expired = True
            return
        self.holding = None
        if self.uploading:
            self._look()
        else:
            self.ended.add(Side.CLIENT)

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
        found = self._facts.popleft()
        if isinstance(found, Denied):
            raise found.error
        return found

    def there(self, side: Side) -> bool:
        """True where a side has sent something that was not used yet, or has ended."""
        return bool(self._came[side]) or side in self.ended

    def until(self, *sides: Side) -> Steps[bool]:
        """Wait until one of the sides has sent something or has ended; False where the time of a hold is over first."""
        self.wants = frozenset(sides)
        try:
            while not any(self.there(side) for side in sides):
                if self.expired:
                    return False
                yield
        finally:
            self.wants = frozenset()
        return True

    def hear(self, side: Side) -> Steps[bytes]:
        """The next bytes of a side; `b""` for its end.

        Raises:
            TimeoutError: the time of a hold is over first.
        """
        if not (yield from self.until(side)):
            raise TimeoutError
        return self.take(side)

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
        self._pass(Side.SERVER)

    def quiesce(self) -> None:
        """Show what the server says here again.

        Raises:
            BrokenOffError: the server has ended.
        """
        if Side.SERVER in self._passing:
            if Side.SERVER in self.ended:
                raise BrokenOffError("the server closed")
            self._passing.remove(Side.SERVER)
            self.say(Stop(Side.SERVER))

    def splice(self) -> Steps[None]:
        """Pass on both sides without looking, until both have closed."""
        self.forward(Side.SERVER, self.take(Side.CLIENT))
        self.begin(answers_only=False)
        self._pass(Side.CLIENT)
        yield from self.over()

    def finish(self) -> Steps[None]:
        """The client has ended: tell the server, and pass on what it still says."""
        self.close(Side.SERVER)
        yield from self.over()

    def over(self) -> Steps[None]:
        """Wait until both sides have closed."""
        self.release()
        while len(self.ended) < len(Side):
            yield

    def _pass(self, side: Side) -> None:
        if side in self._passing:
            return
        self._passing.add(side)
        self.forward(side.other, self.take(side))
        self.say(Pass(side))
        if side in self.ended:
            self.close(side.other)
            self._look()

    def _look(self) -> None:
        server_alone = Side.SERVER in self._passing & self.ended and Side.CLIENT not in self.ended
        if server_alone and self._answers_only:
            self.hold(Waits.CLOSING, patience.CLOSING)
