"""The live view: its model, its picture, its feed."""

from __future__ import annotations

import io
import re
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons.client.api import Api
from irons.errors import IronsError
from irons.host import PluginHost
from irons.terminal.streams import Streams
from irons.testing import EXTENSIONS, FakeApi, faults
from irons_policy.event import Event
from irons_repl.run.session import ShellSession
from irons_repl.status.lateness import LATE
from irons_repl.status.mode_line import ModeFacts
from irons_repl.watch.feed import Feed
from irons_repl.watch.model import MOST_HOSTS, SLACK, Model, VerdictTotals, target_of
from irons_repl.watch.standing import KnownRules
from irons_repl.watch.state import ViewState
from irons_repl.watch.view import picture
from tests.repl.terminal import PATIENCE

NOON = datetime(2026, 2, 19, 12, tzinfo=UTC)


def event(host: str, verdict: str = "allowed", **more: object) -> Event:
    """An event."""
    fields: dict[str, object] = {"sandbox": "one", "port": 443, **more}
    return Event(NOON, host=host, allowed=verdict != "blocked", verdict=verdict, **fields)  # type: ignore[arg-type]


def shown(state: ViewState | Model, width: int = 80, height: int = 20, now: float = 100.0) -> list[str]:
    """The picture as text."""
    state = state if isinstance(state, ViewState) else ViewState(model=state)
    return ["".join(text for _, text in line).rstrip() for line in picture(state, width, height, now)]


def test_totals_tell_the_three_ends_apart() -> None:
    """Allowed, denied, and what warn let through are counted, with what an event folds."""
    model = Model()
    model.take([event("a"), event("b", "blocked", count=3), event("c", "warn")])
    assert model.totals == VerdictTotals(1, 3, 1)


def test_hosts_are_named_as_a_rule_would() -> None:
    """The web's ports go without saying, others are part of the name, addresses keep their brackets."""
    assert target_of(event("a.example")) == "a.example"
    assert target_of(event("a.example", port=22)) == "a.example:22"
    assert target_of(event("2001:db8::1", port=22)) == "[2001:db8::1]:22"
    assert target_of(event("a.example", port=None)) == "a.example"


def test_the_view_of_one_sandbox_does_not_name_it_in_every_line() -> None:
    """Where all events are of one sandbox there is no column for it."""
    state = ViewState("only-one")
    state.model.take([event("a.example", sandbox="only-one")])
    assert sum("only-one" in line for line in shown(state)) == 1


@pytest.mark.slow
def test_hosts_are_bounded() -> None:
    """A sandbox that tries ever new hosts costs no more memory than the bound."""
    model = Model()
    model.take([event("kept")] * 3)
    model.take(event(f"h{n}") for n in range(MOST_HOSTS * 2))
    assert MOST_HOSTS <= len(model.hosts) <= MOST_HOSTS + SLACK
    assert "kept" in model.hosts
    assert model.totals.allowed == MOST_HOSTS * 2 + 3


def test_nothing_is_claimed_before_the_server_answers() -> None:
    """The view says that there were no connections only after an answer of the server."""
    model = Model()
    assert any("Asking the server" in line for line in shown(model))
    model.take([])
    assert any("No connections yet" in line for line in shown(model))


def test_the_picture_has_totals_bars_and_the_latest_events() -> None:
    """Everything that the person needs is on the screen."""
    state = ViewState(mode=ModeFacts(mode="deny"), sort="count")
    state.model.take(
        [event("pypi.org")] * 4
        + [event("evil.example", "blocked", reason="no rule allows it"), event("x.example", "warn")]
    )
    lines = shown(state)
    assert lines[0].startswith(" all sandboxes  mode deny")
    assert lines[0].endswith("4 allowed  1 denied  1 would be denied")
    assert lines[2].startswith("▸   pypi.org")
    assert lines[2].count("█") > lines[3].count("█") > 0
    assert any(
        "DENIED" in line and "evil.example:443" in line and "no rule allows it" in line for line in lines
    )
    assert any("WOULD-DENY" in line for line in lines)
    assert "a allow  d deny" in lines[-1]


def test_the_title_has_the_mode_and_its_exceptions() -> None:
    """The mode that applies is in the title: red where something is open, with the exceptions by name, dim where it may be old."""

    def title(state: ViewState, width: int = 120) -> list[tuple[str, str]]:
        return picture(state, width, 20, 100.0)[0]

    state = ViewState(mode=ModeFacts(mode="deny", differs={"beta": "warn"}))
    assert ("class:allowed", "mode deny") in title(state)
    assert ("class:denied", "beta: warn") in title(state)
    assert ("class:denied", "beta: warn") in title(state, 50), "the totals have a line of their own"
    assert ("class:denied", "1 open") in title(state, 36)
    narrow = ViewState(mode=ModeFacts(mode="warn", differs={"beta": "deny"}))
    told = "".join(text for _, text in title(narrow, 40))
    assert told.strip() == "all  mode warn (log only) (1 differs)"
    state.trouble = "the server does not answer"
    assert ("class:dim", "mode deny") in title(state)
    assert ("class:denied", "mode warn (log only)") in title(ViewState("alpha", mode=ModeFacts(mode="warn")))


@pytest.mark.parametrize("width", [20, 40, 80, 160])
@pytest.mark.parametrize("height", [5, 9, 10, 24])
@pytest.mark.parametrize("wanted", ["h1", "a-department-of.example.com"])
def test_the_filter_is_on_every_screen(width: int, height: int, wanted: str) -> None:
    """At any size the list that is filtered says so; a long filter keeps its end."""
    state = ViewState(mode=ModeFacts(mode="deny", differs={"beta": "warn"}), wanted=wanted)
    state.model.take(event(f"h{number}.a-department-of.example.com", "blocked") for number in range(34))
    above = "\n".join(shown(state, width, height)[:3])
    kept = wanted if len(wanted) <= width - 3 else f"…{wanted[4 - width :]}"
    assert f"  /{kept}" in above


def test_a_narrow_title_keeps_what_the_list_shows() -> None:
    """In 40 columns the totals have a line of their own, and the line below says what the list shows."""
    state = ViewState("alpha", standing=KnownRules("alpha", []), mode=ModeFacts(mode="warn"))
    state.model.take(event(f"h{number}.example", "blocked", cause="uncovered") for number in range(34))
    assert shown(state, 40, 24)[1:3] == [" 0 allowed  34 denied", " 34 undecided · 1-9 of 34"]
    state.wanted = "h3"
    assert shown(state, 40, 24, 102.0)[2] == " 34 undecided · 1-5 of 5  /h3"


def test_without_colour_the_bars_still_tell_verdicts_apart() -> None:
    """Denied parts of a bar have a pattern of their own."""
    state = ViewState()
    state.model.take([event("a"), event("a", "blocked")])
    text = "".join(text for _, text in picture(state, 80, 20, 100.0, colour=False)[2])
    assert "█" in text
    assert "░" in text


def test_a_long_name_keeps_its_end() -> None:
    """What is cut is the beginning: the end of a name says who it belongs to."""
    state = ViewState()
    state.model.take([event("www.bank.example.login.session.evil.example", "blocked", port=8080)])
    assert any(re.search(r"…\S*evil\.example:8080 ", line) for line in shown(state, 40))


@given(
    st.lists(
        st.tuples(
            st.text(max_size=80), st.sampled_from(["allowed", "blocked", "warn"]), st.integers(0, 10**9)
        ),
        max_size=30,
    ),
    st.integers(20, 160),
    st.integers(5, 60),
    st.lists(
        st.sampled_from(["up", "down", "end", "tab", "enter", "a", "d", "u", "?", "/", "s", " ", "y"]),
        max_size=6,
    ),
)
def test_any_picture_fits_and_is_clean(
    events: list[tuple[str, str, int]], width: int, height: int, keys: list[str]
) -> None:
    """For all names of hosts, sizes and keys the picture has exactly that size and nothing a terminal obeys."""
    state = ViewState(standing=KnownRules(None, []))
    state.model.take(event(host, verdict, count=count, reason=host) for host, verdict, count in events)
    for now in range(len(keys) + 1):
        lines = shown(state, width, height, float(now))
        assert len(lines) == height
        for line in lines:
            assert len(line) <= width
            assert not any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in line)
        if now < len(keys):
            state.press(keys[now], now + 0.7)


def test_what_was_not_reached_shows_and_is_learned_later() -> None:
    """An event that was let through in vain is marked, with how it ended, also where that is known later; totals stay."""
    model = Model()
    model.take([event("down.example", id=7), event("up.example", id=8, outcome="reached")])
    state = ViewState("one", model)
    assert any("ALLOWED    down.example:443" in line for line in shown(state))
    model.learn([event("down.example", id=7, outcome="unreached", ended="unreachable: connection refused")])
    lines = shown(state)
    assert any("UNREACHED  down.example:443  unreachable: connection refused" in line for line in lines)
    assert any("ALLOWED    up.example:443" in line for line in lines)
    assert model.totals == VerdictTotals(2, 0, 0)


def test_a_count_that_grows_is_counted_once() -> None:
    """Repeats of an event raise totals and its host; the same change again, and an event that was not counted, change nothing."""
    model = Model()
    model.take([event("evil.example", "blocked", id=7), event("a.example", id=8)])
    for _ in range(2):
        model.learn([event("evil.example", "blocked", id=7, count=5), event("old.example", id=3, count=9)])
    assert model.totals == VerdictTotals(1, 5, 0)
    assert model.hosts["evil.example"].denied == 5
    assert "old.example" not in model.hosts
    assert any("(5 times)" in line for line in shown(model))
    model.learn([event("a.example", "blocked", id=8, count=2)])
    assert model.totals == VerdictTotals(0, 7, 0)
    assert model.hosts["a.example"].allowed == 0
    assert model.hosts["a.example"].against


def test_what_was_rotated_out_shows() -> None:
    """How many events are missing stands above the latest."""
    model = Model(rotated="7 events before noon were rotated out")
    model.take([event("a.example")])
    assert any("7 events before noon were rotated out" in line for line in shown(model))


class Told:
    """What a feed reported."""

    def __init__(self, api: Api, sandbox: str | None = None, late_after: float = LATE) -> None:
        self.events: list[str] = []
        self.modes: list[str | None] = []
        self.trouble: list[str] = []
        self.failed: list[IronsError] = []
        self.on_events: Callable[[tuple[Event, ...]], None] = lambda _: None
        self.on_learned: Callable[[tuple[Event, ...]], None] = lambda _: None
        self.rotated: list[str] = []
        self.standings: list[KnownRules] = []
        self.feed = Feed(
            api,
            sandbox,
            learned=self._learned,
            rotated=self.rotated.append,
            standing=self.standings.append,
            events=self._events,
            mode=lambda facts: self.modes.append(facts.mode),
            trouble=self.trouble.append,
            failed=self.failed.append,
            late_after=late_after,
        )

    def _events(self, events: tuple[Event, ...]) -> None:
        self.events.extend(event.host for event in events)
        self.on_events(events)

    def _learned(self, events: tuple[Event, ...]) -> None:
        self.on_learned(events)

    def until(self, holds: Callable[[], object]) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + PATIENCE
        waiting = threading.Event()
        while not holds():
            assert time.monotonic() < deadline, (self.events, self.trouble, self.failed)
            waiting.wait(0.005)

    def end(self) -> None:
        """Stop the feed, and wait for its thread: what it still asks would be counted by the tests after this one."""
        self.feed.stop()
        self.feed._thread.join(PATIENCE)
        assert not self.feed._thread.is_alive()


@pytest.fixture
def api(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Api:
    """A client of the fake API, which holds no answer for long: the end of a feed waits for it."""
    monkeypatch.setattr("irons_repl.watch.feed.WAIT", 0.05)
    streams = Streams(io.StringIO(), io.StringIO(), io.StringIO(), env)
    session = ShellSession(PluginHost(env={"IRONS_PLUGINS": ""}), streams)
    return session.api(session.settings())


@pytest.mark.parametrize("extended", [True, False])
def test_the_feed_brings_each_event_once(api: Api, fake: FakeApi, extended: bool) -> None:
    """With a server that can wait, and with a plain one: first the latest events, then each new one, in order."""
    if not extended:
        fake.extensions = ()
    fake.record("before.example", "agent-1")
    told = Told(api, "agent-1")
    told.feed.start()
    told.until(lambda: told.events)
    for number in range(5):
        fake.record(f"n{number}.example", "agent-1")
    told.until(lambda: len(told.events) == 6)
    told.end()
    assert told.events == ["before.example", *(f"n{n}.example" for n in range(5))]
    assert told.modes[0] == "warn"
    api.close()


@pytest.mark.slow
@pytest.mark.parametrize("tells_changes", [True, False])
def test_the_feed_learns_what_changes(
    api: Api, fake: FakeApi, monkeypatch: pytest.MonkeyPatch, tells_changes: bool
) -> None:
    """An event comes when it is judged; that no server was reached, or that it was repeated, comes later: once each, at any server."""
    monkeypatch.setattr("irons_repl.watch.feed.WAIT", 0.1)
    monkeypatch.setattr("irons_repl.watch.feed.MODE_EVERY", 0.1)
    if not tells_changes:
        fake.extensions = tuple(each for each in EXTENSIONS if each != "audit-changes")
    fake.rotated = [{"sandbox_name": "agent-1", "events": 5, "before": None}]
    told = Told(api)
    model = Model()
    told.on_events, told.on_learned = model.take, model.learn
    told.feed.start()
    told.until(lambda: told.modes)
    slow = fake.record("slow.example", "agent-1")
    folded = fake.record("evil.example", "agent-1", allowed=False)
    told.until(lambda: model.totals == VerdictTotals(1, 1, 0))
    fake.change(slow, outcome="unreached")
    fake.change(folded, count=5)
    told.until(
        lambda: model.totals == VerdictTotals(1, 5, 0) and model.latest[0].event.outcome == "unreached"
    )
    fake.change(folded, count=12)
    told.until(lambda: model.totals == VerdictTotals(1, 12, 0))
    told.end()
    assert told.events == ["slow.example", "evil.example"]
    assert told.rotated[0].startswith("5 events of agent-1 were rotated out")
    api.close()


def test_the_feed_brings_the_rules_when_they_change(
    api: Api, fake: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules of both scopes are read at the beginning and looked at again; the same ones are brought once."""
    monkeypatch.setattr("irons_repl.watch.feed.MODE_EVERY", 0.05)
    monkeypatch.setattr("irons_repl.watch.feed.PAUSE", 0.05)
    fake.sandboxes["agent-1"].rules.append({"pattern": "own.example", "list": "allow"})
    told = Told(api, "agent-1")
    told.feed.start()
    told.until(lambda: told.standings)
    told.until(lambda: len(told.modes) > 3)
    hosts = ("pypi.org", "evil.example", "own.example", "new.example")
    assert [told.standings[-1].marks(event(host)) for host in hosts] == ["allow", "deny", "allow", None]
    assert len(told.standings) == 1
    with fake.lock:
        fake.rules.append({"pattern": "new.example", "list": "allow"})
    told.until(lambda: len(told.standings) == 2)
    assert told.standings[-1].marks(event("new.example")) == "allow"
    told.end()
    api.close()


@pytest.mark.slow
def test_the_feed_says_that_an_answer_is_late(
    api: Api, fake: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mode is not shown as current for as long as a request may take: trouble is reported before, and its end."""
    monkeypatch.setattr("irons_repl.watch.feed.MODE_EVERY", 0.05)
    told = Told(api, "agent-1", late_after=0.2)
    told.feed.start()
    told.until(lambda: told.modes)
    go = threading.Event()
    fake.fail(faults.held(go), on="GET /sandboxes/agent-1/egress/mode", times=1)
    told.until(lambda: "the server does not answer yet" in told.trouble)
    go.set()
    told.until(lambda: told.trouble[-1] == "")
    told.end()
    api.close()


def test_the_feed_outlives_a_server_that_is_away(
    api: Api, fake: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trouble is reported, and its end, and nothing is lost."""
    monkeypatch.setattr("irons_repl.watch.feed.PAUSE", 0.05)
    told = Told(api)
    told.feed.start()
    told.until(lambda: told.modes)
    fake.fail(faults.error(500), times=2)
    fake.record("a.example", "agent-1")
    fake.record("b.example", "agent-1")
    told.until(lambda: len(told.events) == 2 and told.trouble and told.trouble[-1] == "")
    told.end()
    api.close()


@pytest.mark.slow
def test_a_server_that_says_it_waits_and_does_not_is_left_in_peace(api: Api, fake: FakeApi) -> None:
    """Answers that come at once and empty are not asked for again at once."""
    fake.fail(faults.Fault(200, b'{"events": []}'), on="GET /audit", times=1000)
    told = Told(api)
    told.feed.start()
    told.until(lambda: len(fake.lines()) > 6)
    asked, began = len(fake.lines()), time.monotonic()
    told.until(lambda: time.monotonic() - began > 1)
    told.end()
    # A busy machine looks later than after a second.
    assert len(fake.lines()) - asked < 12 * (time.monotonic() - began)
    api.close()


def test_the_feed_ends_where_there_is_no_such_sandbox(api: Api) -> None:
    """What makes going on pointless is reported once."""
    told = Told(api, "nobody")
    told.feed.start()
    told.until(lambda: told.failed)
    assert told.failed[0].exit_code == 3
    told.end()
    api.close()
