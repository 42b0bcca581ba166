"""Rules that end by themselves: by two clocks, which no step of the wall clock and no restart can stretch."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons_local import clocks
from irons_local.control.store import rules
from irons_local.control.store.database import Store
from irons_local.control.store.rules import ACCOUNT
from irons_local.control.store.terms import SECOND, Instant
from irons_local.gateway.accept import rule_ends
from irons_local.gateway.accept.rule_ends import LOOK, RuleEnds
from irons_local.gateway.shared.cell import Caps, Cell
from irons_policy.decide import decide
from irons_policy.ends import Moment, RuleEnd, read_end
from irons_policy.policy import Policy
from irons_policy.rules import Rule, RuleError, diff_rules, make_rule

YEAR_2500 = 16_725_225_600 * SECOND
MICROSECONDS = st.integers(1, YEAR_2500)


@given(at=MICROSECONDS, up=st.none() | MICROSECONDS)
def test_what_is_written_is_read_back(at: int, up: int | None) -> None:
    """As text, as a policy's JSON and as a request; what CLOCK_BOOTTIME says goes to the gateway alone."""
    end = RuleEnd(at, up)
    assert read_end(end.text, up) == end
    rule = make_rule("a.test", "allow", until=end)
    read = Rule.from_json(rule.to_json())
    assert (read, read.until and read.until.up) == (rule, up)
    assert rule.to_request() == {"pattern": "a.test", "list": "allow", "until": end.text}


@pytest.mark.parametrize(
    "until", ["", "soon", "2026-11-27", "2026-11-27T12:00:00", 5, "2026-13-27T12:00:00Z"]
)
def test_what_is_no_end_is_refused(until: object) -> None:
    """A policy that says something else is not taken for one whose rule stays."""
    with pytest.raises(RuleError):
        Rule.from_json({"pattern": "a.test", "list": "allow", "until": until})


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-30T00:00:00Z",
        "2026-12-31T23:59:60Z",
        "2026-11-28T08:00:00+25:00",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
    ],
)
def test_a_time_that_does_not_exist_is_said_to_be_one(text: str) -> None:
    """Also one whose year is none in UTC; the sentence is ours."""
    with pytest.raises(ValueError, match="is a time that does not exist"):
        read_end(text)


@given(at=MICROSECONDS, up=st.none() | MICROSECONDS, wall=MICROSECONDS, now=MICROSECONDS)
def test_the_first_clock_ends_it(at: int, up: int | None, wall: int, now: int) -> None:
    """Whichever gets there first; a stop is no matter of clocks."""
    over = wall >= at or (up is not None and now >= up)
    assert RuleEnd(at, up).over(Moment(wall, now)) == over
    assert not RuleEnd().over(Moment(wall, now))


def test_an_end_is_part_of_the_rule() -> None:
    """One that ends is another rule than one that stays, or that ends at another time; `up` makes no difference."""
    stays = make_rule("a.test", "allow")
    ends = replace(stays, until=RuleEnd(5, 7))
    assert [change.kind for change in diff_rules([stays], [ends])] == ["changed"]
    assert diff_rules([ends], [replace(stays, until=RuleEnd(5))]) == ()
    assert rules.revision("deny", [stays]) != rules.revision("deny", [ends])


def test_a_policy_without_what_is_over() -> None:
    """It judges without them; it stays the same object as long as none has ended."""
    policy = Policy(
        "deny", (make_rule("a.test", "allow", until=RuleEnd(10, 20)), make_rule("b.test", "allow"))
    )
    assert policy.at(Moment(9, 19)) is policy
    assert decide(policy, "a.test", 443).allowed
    for now in (Moment(10, 1), Moment(1, 20)):
        after = policy.at(now)
        assert [rule.pattern.text for rule in after.rules] == ["b.test"]
        assert not decide(after, "a.test", 443).allowed
    assert policy.changes_in(Moment(4, 1)) == 6


class Clocks:
    """What the clocks say, as a test sets them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall = self.up = 1000 * SECOND
        monkeypatch.setattr(clocks, "moment", lambda: Moment(self.wall, self.up))


@pytest.fixture
def set_clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    """The clocks that the gateway reads."""
    return Clocks(monkeypatch)


def timed(seconds: int) -> Policy:
    """A policy whose allow rule ends so many seconds from the beginning."""
    at = (1000 + seconds) * SECOND
    return Policy("deny", (make_rule("a.test", "allow", until=RuleEnd(at, at)),))


def test_a_clock_set_back_brings_nothing_back(tmp_path: Path, set_clocks: Clocks) -> None:
    """Not in the gateway that ended the rule, and not in the next one, which reads the policy that was kept."""
    cell = Cell("sb_00000000000000aa", tmp_path, Caps())
    cell.put({}, timed(60))
    over: list[int] = []
    cell.over = lambda: over.append(1)
    cell.renew()
    assert cell.policy is not None
    assert len(cell.policy.rules) == 1
    set_clocks.up += 60 * SECOND
    set_clocks.wall -= 3600 * SECOND
    cell.renew()
    cell.renew()
    assert (list(cell.policy.rules), over) == ([], [1])
    cell.close()
    with closing(Cell("sb_00000000000000aa", tmp_path, Caps())) as again:
        assert again.policy is not None
        assert not again.policy.rules


class Held:
    """A loop whose timers wait for the test: what is to be called, and after how many seconds."""

    def __init__(self) -> None:
        self.due: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, delay: float, callback: Callable[[], None], *, context: object) -> Held:
        self.due.append((delay, callback))
        return self

    def cancel(self) -> None:
        """What is cancelled is not called by the test."""

    def fire(self) -> float:
        """Do what waits; gives after how many seconds."""
        ((delay, callback),) = self.due
        self.due.clear()
        callback()
        return delay


def test_the_next_look_is_at_the_next_end(tmp_path: Path, set_clocks: Clocks) -> None:
    """A gateway with nothing to do ends the rule by itself, and looks no more once none ends."""
    loop, over = Held(), list[int]()
    with closing(Cell("sb_00000000000000aa", tmp_path, Caps())) as cell:
        cell.put({}, timed(2))
        ends = RuleEnds(cast("asyncio.AbstractEventLoop", loop), cell, lambda: over.append(1))
        assert cell.policy is not None
        for passed, wait in ((SECOND, LOOK), (SECOND // 2, LOOK), (SECOND // 2, 0.5)):
            assert (len(cell.policy.rules), over) == (1, [])
            set_clocks.wall += passed
            set_clocks.up += passed
            assert loop.fire() == wait
        assert (list(cell.policy.rules), over, loop.due) == ([], [1], [])
        ends.close()


def test_a_look_comes_by_itself(tmp_path: Path, set_clocks: Clocks, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real loop looks without being asked, and finds out when the clocks have gone on."""
    monkeypatch.setattr(rule_ends, "LOOK", 0.01)

    async def work() -> None:
        ended = asyncio.Event()
        with closing(Cell("sb_00000000000000aa", tmp_path, Caps())) as cell:
            cell.put({}, timed(60))
            ends = RuleEnds(asyncio.get_running_loop(), cell, ended.set)
            set_clocks.up += 60 * SECOND
            async with asyncio.timeout(60):
                await ended.wait()
            assert cell.policy is not None
            assert not cell.policy.rules
            ends.close()

    asyncio.run(work())


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """The connection of an empty store."""
    with closing(Store(tmp_path / "irons.db")) as store:
        found: list[sqlite3.Connection] = []
        store.write_now(found.append)
        yield found[0]


def test_the_store_ends_by_whichever_clock_is_there_first(connection: sqlite3.Connection) -> None:
    """By the wall clock, by the time passed, and after a boot by no more than what was left."""
    now = Instant.now()

    def put(pattern: str, seconds: int) -> None:
        end = RuleEnd(now.wall + seconds * SECOND, now.up + seconds * SECOND)
        rules.put(connection, ACCOUNT, make_rule(pattern, "allow", until=end))

    def gone(moment: Instant) -> list[str]:
        return [rule.pattern.text for _, rule in rules.end(connection, moment)]

    put("wall.test", 100)
    put("up.test", 200)
    put("boot.test", 300)
    rules.put(connection, ACCOUNT, make_rule("stays.test", "allow"))
    assert gone(now) == []
    left = rules.next_end(connection, now)
    assert left is not None
    assert 99 * SECOND < left <= 100 * SECOND
    assert gone(now._replace(wall=now.wall + 100 * SECOND)) == ["wall.test"]
    assert gone(now._replace(wall=now.wall - 5000 * SECOND, up=now.up + 200 * SECOND)) == ["up.test"]
    # The machine booted, with its clock set back a day; 100 seconds were left as noted.
    booted = Instant("another boot", 7 * SECOND, now.wall - 86_400 * SECOND)
    assert gone(booted) == []
    assert gone(booted._replace(up=booted.up + 101 * SECOND)) == ["boot.test"]
    assert [rule.pattern.text for rule in rules.of(connection, ACCOUNT)] == ["stays.test"]
    assert rules.next_end(connection, now) is None


def test_a_run_ends_its_own_rules(connection: sqlite3.Connection) -> None:
    """Those of the sandbox that stopped, and no other's."""
    for sandbox, pattern, until in (
        ("sb_a", "a.test", RuleEnd()),
        ("sb_a", "b.test", None),
        ("sb_b", "c.test", RuleEnd()),
    ):
        rules.put(connection, sandbox, make_rule(pattern, "allow", until=until))
    assert [rule.pattern.text for rule in rules.end_with_run(connection, "sb_a")] == ["a.test"]
    assert [rule.pattern.text for rule in rules.of(connection, "sb_a")] == ["b.test"]
    assert [rule.pattern.text for rule in rules.of(connection, "sb_b")] == ["c.test"]
