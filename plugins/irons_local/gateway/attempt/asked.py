"""One connection's part in a question: it waits, passes by an answer that is not a rule, or is refused as in `deny`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from irons_local.gateway.ask.asking import (
    NO_ANSWER,
    PASSED_ONCE,
    SAID_NO,
    UNASKED,
    UNWATCHED,
    Asking,
    FindsEnds,
    Place,
    Reply,
    grant,
    opens,
)
from irons_local.gateway.attempt.answers import answer
from irons_local.gateway.conversation import actions as do
from irons_local.gateway.conversation import events as ev
from irons_local.gateway.conversation.reaching import Question
from irons_local.gateway.decide.verdicts import RefusedError
from irons_policy.causes import Cause
from irons_policy.decide import Live, forbidden
from irons_policy.hostnames import Host
from irons_policy.hostnet import HostNetwork
from irons_policy.policy import Policy
from irons_policy.rules import Rule


class AskedConnection:
    """What is asked about one connection.

    Args:
        asking: the questions of its cell.
        records: writes that a person is asked, before anything waits.
        wakes: has the connection look again.
        since: when the connection began, microseconds since 1970.
        ends: gives the two ends of the connection.
        clock: seconds that only ever grow.

    Attributes:
        aside: its cell does not count it among those that have not got anywhere yet, because it waits.
    """

    __slots__ = (
        "_asking", "_clock", "_ends", "_grant", "_place", "_records", "_refused", "_since", "_under", "_until", "_wakes", "aside",
    )  # fmt: skip

    def __init__(
        self,
        asking: Asking,
        records: Callable[[Host], None],
        wakes: Callable[[], None],
        since: int,
        ends: FindsEnds,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._asking = asking
        self._records, self._wakes, self._ends, self._clock = records, wakes, ends, clock
        # Its first question is as old as its first record, which says nothing of it; further ones are of their own time.
        self._since = since
        # What it waits for; what was let pass, as a rule of its own; and that it was refused.
        self._place: Place | None = None
        self._until = 0.0
        self._grant: Rule | None = None
        self._refused: Place | None = None
        self._under: tuple[Policy, Policy] | None = None
        self.aside = False

    @property
    def waits(self) -> bool:
        """True while it waits for an answer."""
        return self._place is not None

    def answer(
        self, policy: Policy, question: Question, where: Host, host_network: Callable[[], HostNetwork]
    ) -> ev.Verdict | ev.Passing | ev.Denied | ev.Asked:
        """Apply the rules to a question, and ask a person where they say nothing.

        Raises:
            JournalError: that a person is asked could not be recorded.
        """
        fact = answer(self.under(policy), question, where, host_network)
        if isinstance(fact, ev.Verdict):
            self._end_wait()
            return self._by_hand(fact)
        if not isinstance(fact, ev.Denied) or not isinstance(question, do.Names) or question.reached:
            return fact
        about = fact.error.place
        if policy.mode != "ask" or about is None or fact.error.refusal.cause is not Cause.UNCOVERED:
            self._end_wait()
            return fact
        place = Place(about[0], about[1])
        never = policy.unasked(place.host, place.port)
        if never is not None:
            self._end_wait()
            reason = f"{fact.error.refusal.reason}; {UNASKED.format(never.text)}"
            return _refused(fact.error, reason, Cause.UNCOVERED)
        if self._refused == place or self._asking.refuses(place):
            self._end_wait()
            return _refused(fact.error, SAID_NO, Cause.ASKED)
        if self._place == place:
            return self._asked(fact.error, max(0.0, self._until - self._clock()))
        if not opens(policy, place, host_network()):
            return fact
        if self._asking.takes(place):
            self._let_pass(place)
            return self.answer(policy, question, where, host_network)
        since, self._since = self._since, 0
        seconds = self._asking.ask(place, question.protocol, self, since, self._ends)
        if seconds is None:
            if self._asking.is_open(place):
                fact.error.asked = True
            elif not self._asking.watched:
                refusal = fact.error.refusal
                # The sandbox reads what it would in `deny`: whether a person is there is not its business.
                inside, reason = refusal.inside or refusal.reason, f"{refusal.reason}; {UNWATCHED}"
                return ev.Denied(RefusedError(refusal._replace(reason=reason, inside=inside), about))
            return fact
        self._place, self._until = place, self._clock() + seconds
        self._records(place.host)
        return self._asked(fact.error, seconds)

    def heard(self, reply: Reply | None) -> None:
        """There is an answer, or another policy: the connection looks again."""
        place, self._place = self._place, None
        if place is not None and reply == "once":
            self._let_pass(place)
        elif reply == "no":
            self._refused = place
        self._wakes()

    def leave(self, *, unanswered: bool = False) -> None:
        """It has ended, or its time is over."""
        place, self._place = self._place, None
        if place is not None:
            self._asking.left(place, self, unanswered=unanswered)

    def under(self, policy: Policy) -> Policy:
        """The policy with what a person let this connection do; a deny rule and the floor go before that."""
        grant, under = self._grant, self._under
        if grant is None:
            return policy
        if under is None or under[0] is not policy:
            under = self._under = (policy, replace(policy, rules=(*policy.rules, grant)))
        return under[1]

    def spared(self, policy: Policy, live: Live | None, host_network: HostNetwork) -> bool:
        """True where it goes on under a policy that only lacks what a person let it do."""
        return (
            self._grant is not None
            and live is not None
            and not forbidden(self.under(policy), [live], host_network)
        )

    def _asked(self, error: RefusedError, seconds: float) -> ev.Asked:
        otherwise = RefusedError(
            error.refusal._replace(reason=f"{error.refusal.reason}; {NO_ANSWER}"), error.place
        )
        otherwise.asked = True
        return ev.Asked("a person's answer", seconds, otherwise)

    def _end_wait(self) -> None:
        if self._place is not None:
            self.leave()

    def _let_pass(self, place: Place) -> None:
        self._grant, self._under = grant(place), None

    def _by_hand(self, fact: ev.Verdict) -> ev.Verdict:
        """Say of what only the answer lets pass that it does."""
        judged, grant = fact.judged, self._grant
        if grant is None or judged.decision.rule != grant.pattern.text:
            return fact
        decision = judged.decision._replace(
            rule=None, list=None, scope=None, reason=PASSED_ONCE, cause=Cause.ASKED
        )
        return ev.Verdict(judged._replace(decision=decision))


def _refused(error: RefusedError, reason: str, cause: Cause) -> ev.Denied:
    return ev.Denied(RefusedError(error.refusal._replace(reason=reason, cause=cause), error.place))
