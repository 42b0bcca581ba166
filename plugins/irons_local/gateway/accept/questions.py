"""A cell's questions for SRV and TXT records that the gateway asks on its behalf, where a rule covers the name.

Each that leaves has its record first, and there are few a second: a name that is asked for is seen by the operator of
its DNS. What an answer names is granted nothing, but judged by its own name and port when a connection is made.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from irons_local.gateway.accept.dns import TTL, Wanted, compose, wanted
from irons_local.gateway.attempt.attempt import CROWDED
from irons_local.gateway.reach.nameservers import NameServers, UnansweredError
from irons_local.gateway.reach.records import Found
from irons_local.gateway.record.journal import JournalError
from irons_local.gateway.record.refusal import Refusal
from irons_policy.causes import Cause, Outcome
from irons_policy.decide import Kind, owner_of, question_rule
from irons_policy.event import record
from irons_policy.rules import Rule

if TYPE_CHECKING:
    from irons_local.gateway.shared.cell import Cell
    from irons_local.gateway.shared.context import Context

PER_SECOND = 5
AT_ONCE = 16
REMEMBERED = 64
PROTOCOL = "dns"
PORT = 53
OFTEN = f"this sandbox asks for SRV or TXT records more than {PER_SECOND} times a second"
BUSY = f"{AT_ONCE} questions of this sandbox for SRV or TXT records wait for an answer already"


class Window:
    """Lets so many things happen in any one second."""

    def __init__(self, most: int) -> None:
        self._when: deque[float] = deque(maxlen=most)

    def take(self, now: float) -> bool:
        """Take note of one at this moment; False where it would be one too many."""
        if len(self._when) == self._when.maxlen and now - self._when[0] < 1.0:
            return False
        self._when.append(now)
        return True


class Questions:
    """Answers a cell's questions for SRV and TXT records.

    Args:
        context: what all connections share.
        cell: whose questions they are.
        servers: the host's name servers.
    """

    def __init__(self, context: Context, cell: Cell, servers: NameServers) -> None:
        self._context = context
        self._cell = cell
        self._servers = servers
        self._window = Window(PER_SECOND)
        self._asking = 0
        self._kept: OrderedDict[tuple[str, Kind], tuple[float, tuple[Found, ...]]] = OrderedDict()

    def wants(self, query: bytes | bytearray) -> Wanted | None:
        """The question of a query that may leave by the rules; None for every other query."""
        found = wanted(query)
        return found if found is not None and self._rule(found) is not None else None

    async def answer(self, question: Wanted, room: int) -> bytes:
        """The answer to a question that may leave, found outside if need be.

        Args:
            question: what `wants` gave.
            room: bytes that the answer may have.
        """
        found = self._known(question)
        if found is None:
            found = await self._find(question)
            # Where the rule was removed in between, there is no answer.
            if found is not None and self._rule(question) is None:
                found = ()
        return compose(question, found, room)

    def _rule(self, question: Wanted) -> Rule | None:
        policy = self._cell.policy
        return question_rule(policy, question.name, question.kind) if policy is not None else None

    def _known(self, question: Wanted) -> tuple[Found, ...] | None:
        kept = self._kept.get((question.name, question.kind))
        return kept[1] if kept is not None and kept[0] > time.monotonic() else None

    def _keep(self, question: Wanted, found: tuple[Found, ...]) -> None:
        key = (question.name, question.kind)
        self._kept[key] = (time.monotonic() + TTL, found)
        self._kept.move_to_end(key)
        while len(self._kept) > REMEMBERED:
            self._kept.popitem(last=False)

    async def _find(self, question: Wanted) -> tuple[Found, ...] | None:
        rule = self._rule(question)
        if rule is None:
            return ()
        if not self._window.take(time.monotonic()):
            self._refuse(OFTEN)
            return None
        if self._asking >= AT_ONCE:
            self._refuse(BUSY)
            return None
        if not self._context.files.take(self._cell.files, 1):
            self._refuse(CROWDED)
            return None
        self._asking += 1
        try:
            return await self._ask(question, rule)
        except JournalError as error:
            self._context.complain(str(error))
            self._context.folder.unwritten(self._cell.name)
            return None
        finally:
            self._asking -= 1
            self._context.files.give(self._cell.files, 1)

    async def _ask(self, question: Wanted, rule: Rule) -> tuple[Found, ...] | None:
        policy = self._cell.policy
        where = record(host=question.name, port=PORT, protocol=PROTOCOL)
        verdict = record(
            allowed=True,
            verdict="allowed",
            mode=policy.mode if policy is not None else "",
            rule=rule.pattern.text,
            reason=f"rule {rule.pattern.text} ({rule.scope}) covers {owner_of(question.name)}, "
            f"so its {question.kind} records may be asked for",
            cause=Cause.RULE,
        )
        entry = self._context.journal.open(self._cell.name, **where)
        began = time.monotonic()
        ending = record(ended="interrupted", outcome=Outcome.ABANDONED)
        try:
            entry.verdict(**where, **verdict)
            found = await self._servers.ask(question.name, question.kind)
            ending = record(ended=f"closed: {len(found)} {question.kind} records", outcome=Outcome.REACHED)
        except JournalError:
            ending = record(
                ended="refused: the audit log cannot be written",
                outcome=Outcome.REFUSED,
                cause=Cause.JOURNAL,
            )
            raise
        except UnansweredError as error:
            ending = record(ended=f"unreachable: {error}", outcome=Outcome.UNREACHED, cause=Cause.UNREACHED)
            return None
        finally:
            duration = round((time.monotonic() - began) * 1000)
            moved = record(protocol=PROTOCOL, bytes_out=0, bytes_in=0, duration_ms=duration)
            entry.close(**moved, **ending)
        self._keep(question, found)
        return found

    def _refuse(self, reason: str) -> None:
        mode = self._cell.policy.mode if self._cell.policy is not None else None
        refusal = Refusal("*", PORT, PROTOCOL, mode, None, reason, Cause.CAP)
        self._context.folder.refused(self._cell.name, refusal)
