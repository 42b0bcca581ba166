"""The questions of one cell: what a person is asked, who waits for the answer, and what was answered lately. Without I/O.

There is one question for each host and port, and connections that wait share it and its answer. Nothing is asked but while a
person watches, which the control plane says again and again; without it each connection is refused as in `deny`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

from irons_local.cell.layout import Ends
from irons_local.times import now as wall_clock
from irons_policy.causes import Cause
from irons_policy.decide import decide, decide_address, decide_proxy
from irons_policy.hostnames import Host
from irons_policy.hostnet import HostNetwork
from irons_policy.patterns import narrowest
from irons_policy.policy import Policy
from irons_policy.rules import Rule, RuleError, make_rule

FindsEnds = Callable[[], Ends | None]
"""Gives the two ends of a connection; None where they are gone."""
Reply = Literal["once", "no"]
"""An answer that is not a rule: for those that wait, or for what comes within a while."""
State = Literal["open", "allowed", "refused"]
"""What became of a question, as the sandbox reads it."""
EndReason = Literal["expired", "decided", "detached"]
"""Why a question ended without an answer: nothing was tried for long, a policy decides it, or its cell is served here no more."""

MOST_HELD = 64
"""Connections of one cell that wait at most; further ones are refused at once, and counted."""
MOST_OPEN = 32
"""Questions of one cell that are open at most; what would be another one is counted."""
MOST_REQUESTED = 10
"""Open questions of one cell that its agent may have given a reason for."""
MOST_COUNTED = 1_000
"""Places beyond those that are kept apart; further ones are not counted."""
ONCE_WITHIN = 60.0
"""Seconds in which `once` lets the next connection pass, where none waits."""
NO_FOR = 300.0
"""Seconds for which `no` refuses the same place without a question."""
QUIET_AFTER = 600.0
"""Seconds without another attempt after which a question is closed."""
SHORTEST = 0.01
"""Seconds; where a connection would wait less, it does not wait."""
MOST_ENDED = 64
"""Questions of one cell that ended without an answer and are remembered: the last ones."""
ENDED_FOR = 3600.0
"""Seconds for which they are, so that a control plane that was away learns of them."""
UNANSWERED_MOST = 3
"""Questions in a row that may go unanswered; then nothing waits until a key is pressed or an answer comes."""

UNCOVERED = "no rule covers it, and a person is asked"
PASSED_ONCE = "a person let it pass, once"
SAID_NO = "a person refused it"
UNASKED = "[ask] never has {}, so no person is asked"
UNWATCHED = "no person was watching (irons ask)"
NO_ANSWER = "a person was asked, and did not answer in time"


class Place(NamedTuple):
    """What a question is about."""

    host: Host
    port: int


class EndedQuestion(NamedTuple):
    """A question that ended without an answer.

    Attributes:
        place: what it was about.
        since: when it was asked, microseconds since 1970.
        count: connections that were tried.
        why: what ended it.
    """

    place: Place
    since: int
    count: int  # type: ignore[assignment]
    why: EndReason


class GivenAnswer(NamedTuple):
    """An answer that is not a rule, and that counts for a while.

    Attributes:
        place: what it is for.
        reply: `once` lets the next connection pass, `no` refuses all.
        left: seconds.
    """

    place: Place
    reply: Reply
    left: float


class Waiter(Protocol):
    """A connection, or a request of the agent's, that waits for an answer."""

    def heard(self, reply: Reply | None) -> None:
        """Look again: there is an answer, or with None another policy."""


class PlaceQuestion:
    """One question.

    Attributes:
        place: what it is about.
        protocol: what the first connection spoke.
        since: when it was asked, microseconds since 1970.
        last: when it was tried last, likewise.
        count: connections that were tried.
        waiting: those that wait.
        requests: how often the agent inside asked for it, without a connection.
        reason: the agent's words for it, cleaned; the latest.
        listening: the agent's requests that wait for what becomes of it. Nothing is held for them.
        ends: the two ends of the connection that waited last; None where that is not known.
    """

    __slots__ = (
        "count", "ends", "last", "listening", "place", "protocol", "reason", "requests", "seen", "since", "waiting",
    )  # fmt: skip

    def __init__(self, place: Place, protocol: str, at: int, seen: float) -> None:
        self.place = place
        self.protocol = protocol
        self.since = self.last = at
        self.seen = seen
        self.count = self.requests = 0
        self.reason = ""
        self.waiting: set[Waiter] = set()
        self.listening: set[Waiter] = set()
        self.ends: Ends | None = None


class Asking:
    """What is asked of one cell.

    Args:
        clock: seconds that only ever grow.
        wall: microseconds since 1970, for people.

    Attributes:
        changed: called when there is something new to tell.
        held: connections that wait.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, wall: Callable[[], int] = wall_clock
    ) -> None:
        self._clock, self._wall = clock, wall
        self.changed: Callable[[], None] = _nobody_listens
        self.held = 0
        self._until = float("-inf")
        self._hold = 0.0
        self._keys = 0
        self._unanswered = 0
        self._open: dict[Place, PlaceQuestion] = {}
        self._others: set[Place] = set()
        self._ended: deque[tuple[float, EndedQuestion]] = deque(maxlen=MOST_ENDED)
        self._once: dict[Place, float] = {}
        self._no: dict[Place, float] = {}

    # What a person does.

    def watch(self, lease: float, hold: float, keys: int) -> None:
        """A person watches.

        Args:
            lease: seconds from now for which that counts.
            hold: seconds for which a connection waits; less than `SHORTEST` where only a notifier hears of the question.
            keys: another number than before where a key was pressed since.
        """
        self._until, self._hold = self._clock() + lease, hold
        if keys != self._keys:
            self._keys, self._unanswered = keys, 0

    @property
    def watched(self) -> bool:
        """True while a person watches."""
        return self._clock() < self._until

    def reply(self, place: Place, reply: Reply, since: int = 0) -> int | None:
        """Take an answer that is not a rule.

        Args:
            place: what was asked about.
            reply: the answer.
            since: when it was asked, where that is known: another question does not get this answer.

        Returns:
            How many connections waited for it; None where the question is gone.
        """
        now = self._clock()
        question = self._open.get(place)
        if since and (question is None or question.since != since):
            return None
        self._close(place)
        self._unanswered = 0
        waiting: set[Waiter] = set() if question is None else question.waiting
        waited = len(waiting)
        if reply == "no":
            _keep(self._no, place, now + NO_FOR, now)
            self._once.pop(place, None)
        else:
            self._no.pop(place, None)
            if not waiting:
                _keep(self._once, place, now + ONCE_WITHIN, now)
        self._release(waiting, reply)
        if question is not None:
            _tell(question, reply)
        self.changed()
        return waited

    def put(self, policy: Policy | None) -> None:
        """Take another policy: questions that it answers are closed, who waits for them looks again, and answers that it makes void end."""
        closed = [question for place, question in self._open.items() if not _asks(policy, place)]
        void = [place for place in {**self._once, **self._no} if not _asks(policy, place)]
        for place in void:
            self._once.pop(place, None)
            self._no.pop(place, None)
        if policy is None or policy.mode != "ask":
            self._others.clear()
        for question in closed:
            self._end(question, "decided")
            self._unanswered = 0
            self._release(question.waiting, None)
            _tell(question, None)
        if closed or void:
            self.changed()

    # What connections do.

    def would(self, policy: Policy, place: Place) -> bool:
        """True where a connection to this place would wait, or passes by an answer that was given."""
        # First, for the policy may have many patterns to look at.
        answered = _lasts(self._once, place, self._clock()) or (self.watched and not self.refuses(place))
        return answered and _asks(policy, place)

    def takes(self, place: Place) -> bool:
        """Use up an answer that lets one connection pass; False where there is none."""
        if not _lasts(self._once, place, self._clock()):
            return False
        del self._once[place]
        self.changed()
        return True

    def refuses(self, place: Place) -> bool:
        """True where a person has refused this place a short while ago."""
        return _lasts(self._no, place, self._clock())

    def ask(
        self, place: Place, protocol: str, waiter: Waiter, since: int = 0, ends: FindsEnds | None = None
    ) -> float | None:
        """Put a question, or join the one there is.

        Args:
            place: what it is about.
            protocol: what the connection speaks.
            waiter: the connection.
            since: when the connection began, where that is known: microseconds since 1970. A new question is as old.
            ends: gives the two ends of the connection; called where it waits.

        Returns:
            The seconds to wait; None where this connection does not wait. It is counted.
        """
        if not self.watched:
            return None
        self.tidy()
        question = self._open.get(place)
        if question is None:
            if len(self._open) >= MOST_OPEN:
                if len(self._others) < MOST_COUNTED and place not in self._others:
                    self._others.add(place)
                    self.changed()
                return None
            question = self._add(place, protocol, since)
        question.protocol = question.protocol or protocol
        question.count += 1
        question.last, question.seen = self._wall(), self._clock()
        self.changed()
        if self._hold < SHORTEST or self.held >= MOST_HELD or self._unanswered >= UNANSWERED_MOST:
            return None
        question.waiting.add(waiter)
        question.ends = None if ends is None else ends()
        self.held += 1
        return self._hold

    def left(self, place: Place, waiter: Waiter, *, unanswered: bool) -> None:
        """A connection waits no more: its time is over (`unanswered`), or it has ended."""
        question = self._open.get(place)
        if question is None or waiter not in question.waiting:
            return
        question.waiting.discard(waiter)
        self.held -= 1
        if unanswered and not question.waiting:
            self._unanswered += 1
        self.changed()

    # What the agent inside asks for, without a connection.

    def may_request(self, place: Place) -> bool:
        """True where the agent may give a reason for this place: not for too many at once."""
        self.tidy()
        question = self._open.get(place)
        given = sum(each.requests > 0 for each in self._open.values() if each is not question)
        return given < MOST_REQUESTED and (question is not None or len(self._open) < MOST_OPEN)

    def request(self, place: Place, reason: str, since: int = 0) -> bool:
        """Put a question with the agent's reason, or give the one there is this reason; False where there are too many.

        It is put also while no person watches: nothing waits for it, and whoever comes sees it.

        Args:
            place: what it is about.
            reason: the agent's words, cleaned.
            since: when the request came, where that is known: microseconds since 1970. A new question is as old.
        """
        if not self.may_request(place):
            return False
        question = self._open.get(place) or self._add(place, "", since)
        question.requests += 1
        question.reason = reason
        question.last, question.seen = self._wall(), self._clock()
        self.changed()
        return True

    def listen(self, place: Place, waiter: Waiter) -> None:
        """Have this hear what becomes of the question about a place, where there is one."""
        question = self._open.get(place)
        if question is not None:
            question.listening.add(waiter)

    def unlisten(self, place: Place, waiter: Waiter) -> None:
        """Have it hear no more."""
        question = self._open.get(place)
        if question is not None:
            question.listening.discard(waiter)

    def answered(self) -> list[GivenAnswer]:
        """The answers that are not rules and count for a while yet: the next connection passes, or each is refused."""
        now = self._clock()
        kept: tuple[tuple[Reply, dict[Place, float]], ...] = (("once", self._once), ("no", self._no))
        return [
            GivenAnswer(place, reply, end - now)
            for reply, places in kept
            for place, end in places.items()
            if end > now
        ]

    def passes_once(self, place: Place) -> bool:
        """True where the next connection to this place passes by an answer that was given."""
        return _lasts(self._once, place, self._clock())

    def is_open(self, place: Place) -> bool:
        """True where a person who watches can still answer for this place."""
        return self.watched and place in self._open

    # What there is to tell.

    def open(self) -> list[PlaceQuestion]:
        """The open questions, oldest first."""
        self.tidy()
        return list(self._open.values())

    def ended(self) -> list[EndedQuestion]:
        """The questions that ended without an answer in the last hour, oldest first."""
        before = self._clock() - ENDED_FOR
        while self._ended and self._ended[0][0] < before:
            self._ended.popleft()
        return [question for _, question in self._ended]

    def close(self) -> None:
        """End every question: the cell is served here no more."""
        for question in tuple(self._open.values()):
            self._end(question, "detached")

    @property
    def others(self) -> int:
        """Places that there are no questions of, because there were so many; none once all of those are closed."""
        return len(self._others)

    def tidy(self) -> None:
        """Close questions that nothing was tried of for long."""
        before = self._clock() - QUIET_AFTER
        over = [each for each in self._open.values() if each.seen < before and not each.waiting]
        for question in over:
            self._end(question, "expired")
            _tell(question, None)

    def _add(self, place: Place, protocol: str, since: int) -> PlaceQuestion:
        self._others.discard(place)
        question = self._open[place] = PlaceQuestion(place, protocol, since or self._wall(), self._clock())
        return question

    def _close(self, place: Place) -> None:
        self._open.pop(place, None)
        if not self._open:
            self._others.clear()

    def _end(self, question: PlaceQuestion, why: EndReason) -> None:
        self._close(question.place)
        self._ended.append(
            (self._clock(), EndedQuestion(question.place, question.since, question.count, why))
        )

    def _release(self, waiting: set[Waiter], reply: Reply | None) -> None:
        released, self.held = tuple(waiting), self.held - len(waiting)
        waiting.clear()
        for waiter in released:
            waiter.heard(reply)


def opens(policy: Policy, place: Place, host_network: HostNetwork) -> bool:
    """True where an answer would let a place pass: neither the floor, nor the upstream proxy, nor what no rule can name is asked about."""
    if grant(place) is None or decide_proxy(policy, place.host, place.port, host_network) is not None:
        return False
    addresses = policy.addresses_of(place.host)
    return not addresses or any(
        decide_address(policy, place.host, place.port, address, host_network).allowed for address in addresses
    )


def grant(place: Place) -> Rule | None:
    """The rule by which one connection passes; None for a name that no rule can have, such as `localhost`."""
    try:
        return make_rule(narrowest(place.host.text, place.port, exact=True), "allow", scope="sandbox")
    except RuleError:
        return None


def _asks(policy: Policy | None, place: Place) -> bool:
    """True where this policy asks about a place: no rule covers it, and no pattern keeps it from being asked about."""
    return (
        policy is not None
        and policy.mode == "ask"
        and decide(policy, place.host, place.port).cause is Cause.UNCOVERED
        and policy.unasked(place.host, place.port) is None
    )


def _lasts(answers: dict[Place, float], place: Place, now: float) -> bool:
    return answers.get(place, now) > now


def _keep(answers: dict[Place, float], place: Place, until: float, now: float) -> None:
    """Keep an answer, and no more of them than a person may have given in that time."""
    for each in [each for each, end in answers.items() if end <= now]:
        del answers[each]
    answers[place] = until


def _tell(question: PlaceQuestion, reply: Reply | None) -> None:
    """Tell the agent's requests that the question is closed."""
    listening = tuple(question.listening)
    question.listening.clear()
    for each in listening:
        each.heard(reply)


def _nobody_listens() -> None:
    """Nothing is told."""
