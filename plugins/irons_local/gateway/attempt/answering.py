"""What a conversation is answered at once, from what is known already, and whether its connection has got anywhere yet."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from irons_local.cell.layout import Ends
from irons_local.gateway.attempt.account import Account
from irons_local.gateway.attempt.answers import answer
from irons_local.gateway.attempt.asked import AskedConnection
from irons_local.gateway.attempt.sides import Sides
from irons_local.gateway.conversation import actions as do
from irons_local.gateway.conversation import events as ev
from irons_local.gateway.conversation.life import UNRECORDED
from irons_local.gateway.conversation.reaching import Question
from irons_local.gateway.decide.verdicts import refuse_for
from irons_local.gateway.reach.proxy import Route
from irons_local.gateway.record.journal import JournalError
from irons_local.gateway.streams.stream import Wire
from irons_policy.causes import Cause
from irons_policy.decide import Live
from irons_policy.hostnames import Host
from irons_policy.policy import Policy

if TYPE_CHECKING:
    from irons_local.gateway.shared.cell import Cell
    from irons_local.gateway.shared.context import Context

ANSWERED = ev.Answered()


class Answering:
    """Answers one connection.

    Args:
        context: what all connections share.
        cell: whose it is.
        account: writes that a person is asked.
        sides: is woken by that person's answer.
        where: the address it was opened to.

    Attributes:
        route: the upstream proxy's way to the host that was looked up last; None for none.
    """

    __slots__ = ("_account", "_asked", "_cell", "_context", "_sides", "_undecided", "_where", "route")

    def __init__(self, context: Context, cell: Cell, account: Account, sides: Sides, where: Host) -> None:
        self._context = context
        self._cell = cell
        self._account = account
        self._sides = sides
        self._where = where
        self._asked: AskedConnection | None = None
        self._undecided = False
        self.route: Route | None = None

    def begin(self) -> None:
        """Count the connection among those of its cell that have not got anywhere yet."""
        self._undecided = True
        self._cell.undecided += 1

    def settle(self) -> None:
        """Count it among these no longer: what it wants is known, or it has ended."""
        if self._undecided:
            self._undecided = False
            self._cell.undecided -= 1
            self._cell.freed()

    def leave(self) -> None:
        """Leave what is asked about the connection, which has ended."""
        self.settle()
        if self._asked is not None:
            self._asked.leave()

    def refuse(self) -> None:
        """Wait for no answer any more: the connection is refused."""
        if self._asked is not None:
            self._asked.leave(unanswered=True)

    def at_once(self, question: Question | do.Lookup) -> ev.Fact | None:
        """Answer a question of the conversation in the call that asks it, where nothing has to be waited for."""
        if not isinstance(question, do.Lookup):
            policy, network = self._cell.policy, self._context.host_network
            if policy is not None and (policy.mode == "ask" or self._asked is not None):
                return self._ask(policy, question)
            return answer(policy, question, self._where, network)
        return None if self._context.proxy.setting is not None else self.lookup(question)

    def lookup(self, action: do.Lookup) -> ev.Known | ev.ByProxy:
        """Say what is known of a host's addresses without asking anyone."""
        policy, host, context = self._cell.policy, action.host, self._context
        self.route = route = context.proxy.route(host)
        known = None if policy is None else policy.addresses_of(host)
        if known is None and route is not None and route.by_name:
            return ev.ByProxy()
        if known is None:
            known = context.resolver.known(self._cell.name, host.text)
        return ev.Known(known)

    def spared(self, policy: Policy, live: Live | None) -> bool:
        """True where it goes on under a policy that lacks only what a person let it do."""
        return self._asked is not None and self._asked.spared(policy, live, self._context.host_network())

    def _ask(self, policy: Policy, question: Question) -> ev.Fact:
        """Answer a question in mode `ask`, or have it wait for a person's answer."""
        asked = self._asked
        if asked is None:
            wakes = partial(self._sides.add, ANSWERED)
            asked = self._asked = AskedConnection(
                self._cell.asking,
                self._account.asks,
                wakes,
                self._account.since,
                partial(_ends, self._sides.client),
            )
        try:
            fact = asked.answer(policy, question, self._where, self._context.host_network)
        except JournalError as error:
            self._context.complain(str(error))
            asked.leave()
            about = question.host if isinstance(question, do.Names) else None
            port, protocol = question.port, question.protocol
            fact = ev.Denied(
                refuse_for(about or self._where, port, protocol, policy, UNRECORDED, Cause.JOURNAL)
            )
        if asked.waits != asked.aside:
            # What waits for a person takes none of the places of those that have not got anywhere yet.
            asked.aside = asked.waits
            if asked.aside:
                self.settle()
            else:
                self.begin()
        return fact


def _ends(client: Wire) -> Ends | None:
    """The two ends of a program's connection, as it has them; None where they are gone."""
    try:
        own, peer = client.sock.getpeername(), client.sock.getsockname()
    except OSError:
        return None
    return Ends(own[0], own[1], peer[0], peer[1])
