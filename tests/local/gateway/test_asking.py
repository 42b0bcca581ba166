"""The questions of one cell: one for each place, shared by who waits, bounded, and gone by a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons_local.gateway.ask.asking import (
    ENDED_FOR,
    MOST_COUNTED,
    MOST_ENDED,
    MOST_HELD,
    MOST_OPEN,
    NO_FOR,
    ONCE_WITHIN,
    QUIET_AFTER,
    SHORTEST,
    UNANSWERED_MOST,
    Asking,
    Place,
    Reply,
    opens,
)
from irons_policy.hostnames import canonical_host
from irons_policy.hostnet import HostNetwork
from irons_policy.modes import Mode
from irons_policy.patterns import Pattern
from irons_policy.policy import Policy
from irons_policy.rules import ListName, make_rule

HOLD = 4.0


def place(name: str = "new.example", port: int = 443) -> Place:
    """A place."""
    return Place(canonical_host(name), port)


class Time:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Someone:
    """A connection that waits."""

    def __init__(self) -> None:
        self.said: list[Reply | None] = []

    def heard(self, reply: Reply | None) -> None:
        """There is an answer."""
        self.said.append(reply)


def watched(lease: float = 1e9) -> tuple[Asking, Time]:
    """Questions that a person watches."""
    clock = Time()
    asking = Asking(clock, lambda: int(clock.now * 1_000_000))
    asking.watch(lease, HOLD, 1)
    return asking, clock


def policy(*rules: tuple[ListName, str], mode: Mode = "ask") -> Policy:
    """A policy with these rules."""
    return Policy(mode, tuple(make_rule(pattern, kind) for kind, pattern in rules))


def test_nothing_waits_unless_a_person_watches() -> None:
    """Without a lease, and once it is over, no question is put."""
    clock = Time()
    asking = Asking(clock, lambda: 0)
    assert asking.ask(place(), "tls", Someone()) is None
    asking.watch(3.0, HOLD, 0)
    assert asking.ask(place(), "tls", Someone()) == HOLD
    clock.now += 3.0
    assert asking.ask(place("other.example"), "tls", Someone()) is None
    assert [each.place for each in asking.open()] == [place()]
    assert not asking.is_open(place())


@pytest.mark.parametrize("reply", ["once", "no"])
def test_who_waits_shares_the_question_and_its_answer(reply: Reply) -> None:
    """One question for each host and port; its answer is for all that wait, and for nothing else."""
    asking, _ = watched()
    here, there = [Someone(), Someone()], Someone()
    for each in here:
        asking.ask(place(), "tls", each)
    asking.ask(place(port=22), "tcp", there)
    assert [(each.place.port, each.count, len(each.waiting)) for each in asking.open()] == [
        (443, 2, 2),
        (22, 1, 1),
    ]
    assert asking.reply(place(), reply) == 2
    assert [each.said for each in here] == [[reply], [reply]]
    assert there.said == []
    assert (asking.held, [each.place.port for each in asking.open()]) == (1, [22])


def test_the_policy_is_not_searched_while_no_person_watches() -> None:
    """Of a connection that no answer and no person lets wait, the patterns of `never` are not looked at."""
    pattern = policy(("allow", "other.example")).rules[0].pattern

    looks: list[None] = []

    class Patterns(tuple[Pattern, ...]):
        __slots__ = ()

        def __iter__(self) -> Iterator[Pattern]:
            looks.append(None)
            return super().__iter__()

    asked = replace(policy(), never=Patterns((pattern,)))
    asking = Asking(Time(), lambda: 0)
    assert not asking.would(asked, place())
    assert not looks
    asking.watch(3.0, HOLD, 0)
    assert asking.would(asked, place())
    assert looks


def test_once_is_for_the_next_where_none_waits() -> None:
    """It lets one connection pass within a minute, and none where others waited and got it."""
    asking, clock = watched()
    asking.reply(place(), "once")
    assert asking.takes(place())
    assert not asking.takes(place())
    asking.reply(place(), "once")
    clock.now += ONCE_WITHIN
    assert not asking.takes(place())
    asking.ask(place(), "tls", Someone())
    asking.reply(place(), "once")
    assert not asking.takes(place())


def test_answers_that_last_are_reported_while_they_do() -> None:
    """Each with the seconds that are left; one that is used up, replaced or over is left out, and each change is a notice."""
    asking, clock = watched()
    notices: list[int] = []
    asking.changed = lambda: notices.append(len(asking.answered()))
    asking.reply(place(), "once")
    asking.reply(place(port=80), "no")
    clock.now += 10
    assert [(each.place.port, each.reply, each.left) for each in asking.answered()] == [
        (443, "once", ONCE_WITHIN - 10),
        (80, "no", NO_FOR - 10),
    ]
    assert asking.takes(place())
    assert notices == [1, 2, 1]
    asking.put(policy(mode="deny"))
    assert notices == [1, 2, 1, 0]
    asking.reply(place(), "no")
    clock.now += NO_FOR
    assert asking.answered() == []


def test_a_rule_ends_the_answer_for_its_place() -> None:
    """An answer is not reported next to the rule that decides; those for other places go on."""
    asking, _ = watched()
    asking.reply(place(), "no")
    asking.reply(place("other.example"), "no")
    asking.reply(place("once.example"), "once")
    asking.put(policy(("allow", "new.example:443"), ("deny", "once.example")))
    assert [each.place.host.text for each in asking.answered()] == ["other.example"]
    asking.put(policy())
    assert not asking.refuses(place())
    assert asking.refuses(place("other.example"))
    assert not asking.takes(place("once.example"))


def test_no_refuses_for_a_while_without_a_question() -> None:
    """It is remembered for five minutes; `once` takes it back."""
    asking, clock = watched()
    asking.reply(place(), "no")
    assert asking.refuses(place())
    assert not asking.refuses(place(port=80))
    assert not asking.would(policy(), place())
    clock.now += NO_FOR
    assert not asking.refuses(place())
    asking.reply(place(), "no")
    asking.reply(place(), "once")
    assert not asking.refuses(place())


def test_nothing_waits_where_only_a_notifier_hears() -> None:
    """The question is open and can be answered; no connection waits, and none counts as unanswered."""
    clock = Time()
    asking = Asking(clock, lambda: 0)
    asking.watch(1e9, SHORTEST / 10, 0)
    for number in range(UNANSWERED_MOST + 1):
        assert asking.ask(place(f"h{number}.example"), "tls", Someone()) is None
    assert len(asking.open()) == UNANSWERED_MOST + 1
    assert asking.is_open(place("h0.example"))
    asking.watch(1e9, HOLD, 0)
    assert asking.ask(place(), "tls", Someone()) == HOLD


def test_a_flood_is_bounded_and_counted() -> None:
    """So many wait, so many questions are open, and the rest are a number that does not grow without end."""
    asking, _ = watched()
    for _ in range(MOST_HELD):
        assert asking.ask(place(), "tls", Someone()) == HOLD
    assert asking.ask(place(), "tls", Someone()) is None
    for number in range(10_000):
        asking.ask(place(f"h{number}.example"), "tls", Someone())
    assert len(asking.open()) == MOST_OPEN
    assert asking.others == MOST_COUNTED
    assert asking.held == MOST_HELD
    assert asking.open()[0].count == MOST_HELD + 1


@given(st.booleans(), st.booleans())
def test_a_flood_that_was_answered_counts_no_more(by_rules: bool, closed: bool) -> None:
    """The number of further places goes with the last question, however that ends."""
    asking, _ = watched()
    for number in range(MOST_OPEN + 9):
        asking.ask(place(f"h{number}.example"), "tls", Someone())
    first, *rest = asking.open()
    for question in rest:
        asking.reply(question.place, "no")
    assert asking.others == 9
    if closed:
        asking.close()
    elif by_rules:
        asking.put(policy(("deny", first.place.host.text)))
    else:
        asking.reply(first.place, "once")
    assert (asking.open(), asking.others) == ([], 0)


def test_after_three_that_no_one_answered_nothing_waits_until_a_key() -> None:
    """A run with no one at the keys is not slowed down by each new host; a key or an answer ends that."""
    asking, _ = watched()
    for number in range(UNANSWERED_MOST):
        here, someone = place(f"h{number}.example"), Someone()
        assert asking.ask(here, "tls", someone) == HOLD
        asking.left(here, someone, unanswered=True)
    assert asking.ask(place(), "tls", Someone()) is None
    assert asking.is_open(place())
    asking.watch(3.0, HOLD, 1)
    assert asking.ask(place(), "tls", Someone()) is None
    asking.watch(3.0, HOLD, 2)
    assert asking.ask(place(), "tls", Someone()) == HOLD


def test_a_question_stays_open_for_the_next_try_and_is_closed_in_the_end() -> None:
    """Its time over, it can still be answered; without another try it is gone, and writes nothing."""
    asking, clock = watched()
    someone = Someone()
    asking.ask(place(), "tls", someone)
    clock.now += HOLD
    asking.left(place(), someone, unanswered=True)
    assert asking.is_open(place())
    assert asking.reply(place(), "once") == 0
    assert asking.takes(place())
    asking.ask(place("b.example"), "tls", someone)
    asking.left(place("b.example"), someone, unanswered=False)
    clock.now += QUIET_AFTER + 1
    assert asking.open() == []


@pytest.mark.parametrize(
    ("new", "stays"),
    [
        (policy(), True),
        (policy(("allow", "other.example")), True),
        (policy(("allow", "new.example")), False),
        (policy(("deny", "new.example:*")), False),
        (policy(mode="deny"), False),
        (policy(mode="warn"), False),
        (None, False),
    ],
)
def test_a_policy_that_decides_it_releases_who_waits(new: Policy | None, stays: bool) -> None:
    """A rule either way, or another mode, ends the question at once."""
    asking, _ = watched()
    someone = Someone()
    asking.ask(place(), "tls", someone)
    asking.put(new)
    assert (someone.said, asking.held) == (([], 1) if stays else ([None], 0))
    assert (len(asking.open()) == 1) is stays


def test_answers_do_not_outlive_the_mode() -> None:
    """What was refused or let pass by hand means nothing in another mode."""
    asking, _ = watched()
    asking.reply(place(), "no")
    asking.reply(place("b.example"), "once")
    asking.put(policy(mode="deny"))
    assert not asking.refuses(place())
    assert not asking.takes(place("b.example"))


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("new.example", True),
        ("203.0.113.9", True),
        ("127.0.0.1", False),
        ("169.254.169.254", False),
        ("10.0.0.1", False),
        ("pinned.example", False),
        ("proxy.example", False),
    ],
)
def test_what_an_answer_could_not_open_is_not_asked_about(name: str, asked: bool) -> None:
    """The floor is judged before, by literal and by a pinned address; the upstream proxy too."""
    pinned = {"pinned.example": [str(canonical_host("10.0.0.9").address)]}
    held = Policy.from_json({"mode": "deny", "ask": True, "rules": [], "hosts": pinned})
    assert opens(held, place(name), HostNetwork(proxy=("proxy.example", 443))) is asked


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["ask", "leave", "once", "no", "put"]))))
def test_what_is_held_is_always_what_waits(steps: list[tuple[str, str]]) -> None:
    """In each order of what comes, each that waits is answered once, and the count is theirs."""
    asking, _ = watched()
    waiting: dict[Someone, Place] = {}
    for name, step in steps:
        here = place(f"{name}.example")
        if step == "ask":
            someone = Someone()
            if asking.ask(here, "tls", someone) is not None:
                waiting[someone] = here
        elif step == "leave":
            for someone in [each for each, where in waiting.items() if where == here][:1]:
                asking.left(here, someone, unanswered=False)
                del waiting[someone]
        elif step == "put":
            asking.put(policy(("deny", here.host.text)))
        else:
            asking.reply(here, "once" if step == "once" else "no")
        for someone in [each for each in waiting if each.said]:
            assert len(someone.said) == 1
            del waiting[someone]
        assert asking.held == len(waiting) == sum(len(each.waiting) for each in asking.open())


def test_an_answer_is_for_the_question_that_was_seen() -> None:
    """One that comes after the question has gone, or for another one about the same place, changes nothing."""
    asking, clock = watched()
    asking.ask(place(), "tls", Someone())
    (question,) = asking.open()
    assert asking.reply(place(), "no", question.since + 1) is None
    assert asking.reply(place(), "no", question.since) == 1
    assert asking.reply(place(), "once", question.since) is None
    assert asking.refuses(place())
    assert not asking.takes(place())
    clock.now += NO_FOR + 1
    asking.ask(place(), "tls", Someone())
    assert asking.reply(place(), "once", question.since) is None
    assert len(asking.open()) == 1


@pytest.mark.parametrize("name", ["localhost", "xn--a.com"])
def test_what_no_rule_can_name_is_not_asked_about(name: str) -> None:
    """No answer could let it pass."""
    assert not opens(Policy("ask", ()), place(name), HostNetwork())
    assert opens(Policy("ask", ()), place(), HostNetwork())


def test_each_question_that_no_one_answered_is_remembered_for_a_while() -> None:
    """With what ended it; an answered one is not among them, and there are so many at most."""
    asking, clock = watched()
    for name in ("answered", "expired", "decided", "detached"):
        asking.ask(place(f"{name}.example"), "tls", Someone())
    asking.reply(place("answered.example"), "once")
    asking.put(policy(("deny", "decided.example")))
    ((expired, waiter),) = [
        (each.place, next(iter(each.waiting)))
        for each in asking.open()
        if each.place.host.text == "expired.example"
    ]
    asking.left(expired, waiter, unanswered=True)
    clock.now += QUIET_AFTER + 1
    asking.tidy()
    asking.close()
    assert [(each.place.host.text, each.why, each.count) for each in asking.ended()] == [
        (f"{each}.example", each, 1) for each in ("decided", "expired", "detached")
    ]
    clock.now += ENDED_FOR + 1
    assert asking.ended() == []
    for number in range(MOST_ENDED + 1):
        asking.ask(place(f"h{number}.example"), "tls", Someone())
        asking.close()
    assert len(asking.ended()) == MOST_ENDED
    assert asking.ended()[0].place == place("h1.example")
