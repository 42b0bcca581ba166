"""One connection that a cell tried: does what its conversation wants, in order, and tells it what happens.

The order of record, verdict, dial and relay is the conversation's (`irons_local.gateway.conversation`). What it wants and
cannot be done is answered with an event, and the rest of that list is left undone: nothing is dialled or sent after a
record that failed.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from irons_local.gateway.ask.asking import Place, opens
from irons_local.gateway.attempt.account import NOTHING, Account, Ending
from irons_local.gateway.attempt.answering import ANSWERED, Answering
from irons_local.gateway.attempt.course import Course
from irons_local.gateway.attempt.lasting import Lasting
from irons_local.gateway.attempt.sides import Sides, broken
from irons_local.gateway.budget import descriptors
from irons_local.gateway.conversation import actions as do
from irons_local.gateway.conversation import events as ev
from irons_local.gateway.conversation.events import CLIENT
from irons_local.gateway.conversation.life import Conversation, Means
from irons_local.gateway.decide import internal_page, refusals
from irons_local.gateway.decide.verdicts import refuse_for
from irons_local.gateway.record.journal import JournalError
from irons_local.gateway.streams.splice import Turns
from irons_local.gateway.streams.stream import Wire
from irons_local.log.context import CONNECTION
from irons_policy.addresses import Address
from irons_policy.causes import Cause, Outcome
from irons_policy.decide import Live, decide
from irons_policy.hostnames import Host
from irons_policy.policy import Policy

if TYPE_CHECKING:
    from irons_local.gateway.shared.cell import Cell
    from irons_local.gateway.shared.context import Context

_LATER = ev.Unreached("")
"""Stands for an event that has not come: the thing cannot be done at once."""
CROWDED = "this sandbox has all the connections that the machine's limit of open files leaves it"


class _TurnedError(Exception):
    """The conversation wants something else than another dial."""

    def __init__(self, actions: list[do.Action]) -> None:
        super().__init__()
        self.actions = actions


class Attempt:
    """One accepted connection.

    Args:
        context: what all connections share.
        cell: whose it is.
        client: the accepted socket.
        where: the address the program connected to.
        port: the port it connected to.
        turns: of its cell.

    Attributes:
        live: what it was judged by, once something outside may be reached.
        inside: it is for `irons.internal`, which is answered in here.
        mismatched: it goes on only because mode warn lets two names pass on one connection.
    """

    __slots__ = (
        "_account", "_answering", "_begun", "_cell", "_closing", "_context", "_conversation", "_course", "_files", "_lasting",
        "_name", "_policy", "_port", "_sides", "_where", "inside", "live", "mismatched",
    )  # fmt: skip

    def __init__(
        self, context: Context, cell: Cell, client: Wire, where: Host, port: int, turns: Turns
    ) -> None:
        self._context = context
        self._cell = cell
        self._where = where
        self._port = port
        self._account = Account(context, cell, port)
        name = None if where.address is None else cell.names.name(where.address)
        # What it was opened to, where its address stands for a name.
        self._name = None if name is None else Host(name)
        self._sides = sides = Sides(context.loop, client, context.pipes, turns)
        self._answering = answering = Answering(context, cell, self._account, sides, where)
        self._lasting = Lasting(context, cell, sides, answering)
        self._policy = cell.policy
        self._conversation: Conversation | None = None
        self._begun: list[do.Action] = []
        self._closing: do.Close | None = None
        self._files = descriptors.ACCEPTED
        self._course: Course | None = None
        self.live: Live | None = None
        self.inside = name == internal_page.NAME
        self.mismatched = False

    def start(self) -> None:
        """Open it, and begin at once."""
        if self.open():
            self._prepare().go_on()

    def open(self) -> bool:
        """Write the opening record; False where there can be none, and so the attempt is over."""
        if self.inside:
            # Answered in here, so none of the log's business.
            self._account.told = True
            return True
        try:
            self._account.accepted(self._name or self._where)
        except JournalError as error:
            self._context.complain(str(error))
            self._context.folder.unwritten(self._cell.name)
            self._sides.reset()
            self._return_files()
            return False
        return True

    def turn_away(self, reason: str) -> None:
        """Refuse it before it has begun."""
        refused = refuse_for(
            self._name or self._where, self._port, "tcp", self._cell.policy, reason, Cause.CAP
        )
        self._account.refused(refused, dialled=False)
        self._sides.reset()
        self._return_files()

    def begin(self) -> None:
        """Begin in a call of the loop's: this may be called by another attempt's step, and again by this one's."""
        self._context.loop.call_soon(self._prepare().go_on)

    def _prepare(self) -> Course:
        cell, loop = self._cell, self._context.loop
        cell.live.add(self)
        if self.inside:
            cell.inside += 1
            run = self._serve()
        else:
            self._answering.begin()
            self._conversation = conversation = self._converse()
            # The first thing that it wants, the opening record, is written.
            self._begun = conversation.begin()[1:]
            run = self._run(conversation)
        context = contextvars.copy_context()
        context.run(CONNECTION.set, self._account)
        self._course = self._sides.happenings.course = course = Course(loop, run, context, self._finish)
        return course

    def cut(self, ending: str, *, cause: Cause | None) -> None:
        """End it now: both sides see a reset.

        Args:
            ending: what the closing record says.
            cause: the same for programs; None where the verdict's cause stays.
        """
        self._end(ev.Cut(ending, cause))
        if self._course is not None:
            self._course.cancel()

    def spared(self, policy: Policy) -> bool:
        """True where it goes on under a policy that lacks only what a person let it do."""
        return self._answering.spared(policy, self.live)

    async def ended(self) -> None:
        """Wait until it has ended."""
        if self._course is not None:
            await self._course.ended()

    # Its life.

    def _converse(self) -> Conversation:
        context, cell = self._context, self._cell
        cell.renew()
        self._policy = policy = cell.policy
        name, address = self._name, self._where.address
        # An address that stands for a name is of a pool.
        synthetic = name is not None or (address is not None and cell.names.synthetic(address))
        allowed = policy is not None and decide(policy, name or self._where, self._port).allowed
        mode = None if policy is None else policy.mode
        if mode == "ask" and policy is not None and not allowed:
            # What may come to pass is read as what passes.
            place = Place(name or self._where, self._port)
            allowed = cell.asking.would(policy, place) and opens(policy, place, context.host_network())
        accepted = ev.Accepted(self._where, self._port, name, synthetic, allowed, mode, cell.title)
        means = Means(context.tls, context.hellos, cell.opening, cell.http2)
        return Conversation(means, accepted, self._answering.at_once)

    async def _serve(self) -> None:
        page = internal_page.serve(self._sides.client, self._cell, self._context)
        await self._context.loop.create_task(page)

    async def _run(self, conversation: Conversation) -> None:
        cell, sides, exchange = self._cell, self._sides, conversation.exchange
        wanted, self._begun = self._begun, []
        while True:
            wanted = self._do(conversation, wanted)
            while wanted:
                wanted = self._do(conversation, await self._take_time(conversation, wanted))
            if self._closing is not None:
                break
            if exchange.busy:
                if sides.client.pace.over:
                    await sides.client.pace.rest()
                wanted = conversation.go_on()
                continue
            event = await sides.next(exchange)
            if cell.policy is not self._policy:
                self._policy = policy = cell.policy
                wanted = conversation.receive(ev.PolicyChanged(None if policy is None else policy.mode))
                if event is ANSWERED:
                    # It is asked again already.
                    continue
            wanted = wanted + conversation.receive(event) if wanted else conversation.receive(event)
        try:
            await self._close(self._closing)
        except OSError as error:
            self._end(broken(error))

    def _do(self, conversation: Conversation, wanted: list[do.Action]) -> list[do.Action]:
        """Do what is wanted, in order, and what the answers lead to.

        What came first may still ask when what came after it has ended the conversation: nothing hears that answer, and the
        end is carried out.

        Returns:
            What is left, which begins with something that takes time.
        """
        at_once = self._AT_ONCE
        while wanted:
            left = iter(wanted)
            try:
                for action in left:
                    kind = type(action)
                    if kind is do.Hold:
                        # It is seen in the conversation for as long as it lasts.
                        continue
                    doing = at_once.get(kind)
                    if doing is None:
                        return [action, *left]
                    fact = doing(self, action)
                    if fact is _LATER:
                        return [action, *left]
                    if fact is not None and not conversation.over:
                        wanted = conversation.receive(fact)
                        if not conversation.over:
                            wanted += left
                        break
                else:
                    break
            except JournalError as error:
                self._context.complain(str(error))
                wanted = conversation.receive(ev.RecordFailed())
            except OSError as error:
                wanted = conversation.receive(broken(error))
        return []

    async def _take_time(self, conversation: Conversation, wanted: list[do.Action]) -> list[do.Action]:
        """Do the first thing that is wanted, which takes time; what is wanted then."""
        action = wanted[0]
        try:
            if isinstance(action, do.Dial) and self._answering.route is None:
                fact: ev.Fact | None = await self._lasting.dial(action, self._dials)
            elif isinstance(action, do.Pass):
                fact = None
                await self._lasting.splice(action)
            else:
                # It may have a time limit, which only a task has.
                lasting = self._lasting.carry_out(action, self._port, self._dials)
                fact = await self._context.loop.create_task(lasting)
        except JournalError as error:
            self._context.complain(str(error))
            return conversation.receive(ev.RecordFailed())
        except OSError as error:
            return conversation.receive(broken(error))
        except _TurnedError as turned:
            return turned.actions
        left = wanted[1:]
        if fact is None:
            return left
        wanted = conversation.receive(fact)
        return wanted if conversation.over else wanted + left

    def _finish(self, failed: BaseException | None) -> None:
        """Leave nothing behind, whatever happened."""
        if isinstance(failed, asyncio.CancelledError):
            if self._closing is None or not self._closing.reset:
                self._end(ev.Cut("interrupted", None))
        elif failed is not None:
            self._fail(failed)
        self._leave()

    def _leave(self) -> None:
        """Close both sides, and write the closing record."""
        self._answering.leave()
        cell, sides, close = self._cell, self._sides, self._closing
        moved = sides.moved if close is not None and close.outcome is Outcome.REACHED else NOTHING
        if close is not None and close.reset:
            sides.reset()
        sides.close()
        cell.live.discard(self)
        cell.inside -= self.inside
        self._return_files()
        cell.freed()
        if close is not None:
            ending = Ending(close.text, close.outcome, close.cause)
            self._account.close(close.host, close.judged, moved, ending)
        # They refer back to this.
        self._conversation = self._course = None

    def _fail(self, failed: BaseException) -> None:
        if self._conversation is None and isinstance(failed, OSError):
            # A program that asked `irons.internal` has gone.
            self._sides.reset()
            return
        self._end(ev.Cut("failed", None))
        self._context.complain(f"a connection failed: {failed!r}")

    def _end(self, event: ev.Cut | ev.Broken) -> None:
        """End otherwise than in good order, unless it does so already."""
        if self._conversation is not None:
            for action in self._conversation.receive(event):
                if isinstance(action, do.Close):
                    self._closing = action

    async def _close(self, close: do.Close) -> None:
        sides = self._sides
        if not close.reset:
            if close.drain:
                await sides.drained(CLIENT)
                await self._context.loop.create_task(refusals.drain(sides.client))
            await sides.delivered()
            return
        self.live = None
        if close.answers:
            await sides.last_answers()
        sides.stop()
        if sides.server is not None:
            sides.server.reset()
        self._answering.settle()
        if close.words:
            words = refusals.say(sides.client, sides.take_left() + close.words)
            await self._context.loop.create_task(words)
        else:
            sides.client.reset()

    def _return_files(self) -> None:
        self._context.files.give(self._cell.files, self._files)
        self._files = 0

    # What is answered, or done, at once.

    def _judge(self, action: do.Judge) -> ev.Fact | None:
        question = action.question
        # What another policy forbids of what goes on is cut by whoever brings it.
        return None if isinstance(question, do.Standing) else self._answering.at_once(question)

    def _speak(self, action: do.Speaks) -> None:
        self._account.protocol = action.protocol

    def _reach(self, action: do.Reach) -> ev.Fact | None:
        if not self._context.files.take(self._cell.files, descriptors.DIALLED):
            protocol, policy = self._account.protocol, self._cell.policy
            return ev.Denied(refuse_for(action.host, self._port, protocol, policy, CROWDED, Cause.CAP))
        self._files += descriptors.DIALLED
        self._account.reach(action.host)
        self.live = Live(action.host, self._port)
        return None

    def _choose(self, action: do.Choose) -> None:
        self._account.verdict(action.judged, action.address)
        if action.address is not None:
            self.live = Live(action.judged.host, self._port, action.address)

    def _mention(self, action: do.Mention) -> None:
        self.mismatched = True
        self._account.others(action.judged)

    def _refuse(self, action: do.Refuse) -> None:
        self._answering.refuse()
        self._account.refused(action.error, dialled=action.reached)

    def _forward(self, action: do.Forward) -> None:
        self._sides.send(action.to, action.data, own=action.own)

    def _splice(self, action: do.Pass) -> ev.Fact | None:
        if self._sides.crowded(action.side.other):
            return _LATER
        self._sides.splice(action.side)
        return None

    def _tell(self, action: do.Finish) -> None:
        self._sides.finish(action.to)

    def _end_with(self, action: do.Close) -> None:
        self._closing = action

    _AT_ONCE: ClassVar[dict[type, Callable[[Attempt, Any], ev.Fact | None]]] = {
        do.Forward: _forward,
        do.Judge: _judge,
        do.Speaks: _speak,
        do.Reach: _reach,
        do.Choose: _choose,
        do.Mention: _mention,
        do.Refuse: _refuse,
        do.Pass: _splice,
        do.Finish: _tell,
        do.Close: _end_with,
    }

    def _dials(self, address: Address) -> None:
        """Record another address before it is dialled.

        Raises:
            _TurnedError: it may not be.
            JournalError: it could not be recorded.
        """
        if self._conversation is None:
            raise AssertionError
        wanted = self._conversation.receive(ev.Dialling(address))
        for action in wanted:
            if not isinstance(action, do.Choose):
                raise _TurnedError(wanted)
        for action in wanted:
            if isinstance(action, do.Choose):
                self._choose(action)
