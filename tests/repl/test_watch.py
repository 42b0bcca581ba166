"""The live view: its model, its picture, its feed."""

from __future__ import annotations

import io
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
from irons.testing import FakeApi, faults
from irons_policy.event import Event
from irons_repl.run.session import ShellSession
from irons_repl.watch.feed import Feed
from irons_repl.watch.model import MOST_HOSTS, Model, VerdictTotals, target_of
from irons_repl.watch.view import hosts_shown, picture
from tests.repl.terminal import PATIENCE

NOON = datetime(2026, 2, 19, 12, tzinfo=UTC)


def event(host: str, verdict: str = "allowed", **more: object) -> Event:
    """An event."""
    fields: dict[str, object] = {"sandbox": "one", "port": 443, **more}
    return Event(NOON, host=host, allowed=verdict != "blocked", verdict=verdict, **fields)  # type: ignore[arg-type]


def shown(model: Model, width: int = 80, height: int = 20) -> list[str]:
    """The picture as text."""
    return ["".join(text for _, text in line).rstrip() for line in picture(model, width, height)]


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


def test_the_busiest_hosts_come_first_and_the_selection_stays_with_its_host() -> None:
    """New events change the order, not what is selected."""
    model = Model()
    model.take([event("a"), event("a"), event("b")])
    assert model.selected == "a"
    model.move(1, 10)
    assert model.selected == "b"
    model.take([event("c")] * 5)
    assert [host.target for host in model.busiest(10)] == ["c", "a", "b"]
    assert model.selected == "b"
    model.move(9, 10)
    model.move(-9, 10)
    assert model.selected == "c"


def test_the_selected_host_is_always_on_the_screen() -> None:
    """Busier hosts push others out, never the one that a key would allow or deny."""
    model = Model()
    model.take([event("quiet")])
    model.take([event(f"busy-{n}") for n in range(30) for _ in range(2)])
    assert any(line.startswith("▸ quiet") for line in shown(model))
    model.move(-1, hosts_shown(20))
    assert model.selected != "quiet"
    assert not any("quiet" in line for line in shown(model)[: hosts_shown(20) + 2])


def test_the_view_of_one_sandbox_does_not_name_it_in_every_line() -> None:
    """Where all events are of one sandbox there is no column for it."""
    model = Model("only-one")
    model.take([event("a.example", sandbox="only-one")])
    assert sum("only-one" in line for line in shown(model)) == 1


@pytest.mark.slow
def test_hosts_are_bounded() -> None:
    """A sandbox that tries ever new hosts costs no more memory than the bound."""
    model = Model()
    model.take([event("kept")] * 3)
    model.take(event(f"h{n}") for n in range(MOST_HOSTS * 2))
    assert len(model.hosts) == MOST_HOSTS
    assert "kept" in model.hosts
    assert model.totals.allowed == MOST_HOSTS * 2 + 3


def test_nothing_is_claimed_before_the_server_answers() -> None:
    """That there were no connections is shown only where the server has answered."""
    model = Model()
    assert any("Asking the server" in line for line in shown(model))
    model.take([])
    assert any("No connections yet" in line for line in shown(model))


def test_the_picture_has_totals_bars_and_the_latest_events() -> None:
    """Everything that the person needs is on the screen."""
    model = Model(mode="deny")
    model.take(
        [event("pypi.org")] * 4
        + [event("evil.example", "blocked", reason="no rule allows it"), event("x.example", "warn")]
    )
    lines = shown(model)
    assert lines[0].startswith(" all sandboxes  mode deny")
    assert lines[0].endswith("4 allowed  1 denied  1 would be denied")
    assert lines[2].startswith("▸ pypi.org")
    assert lines[2].count("█") > lines[3].count("█") > 0
    assert any(
        "DENIED" in line and "evil.example:443" in line and "no rule allows it" in line for line in lines
    )
    assert any("WOULD-DENY" in line for line in lines)
    assert "a allow  d deny" in lines[-1]


def test_without_colour_the_bars_still_tell_verdicts_apart() -> None:
    """Denied parts of a bar have a pattern of their own."""
    model = Model()
    model.take([event("a"), event("a", "blocked")])
    text = "".join(text for _, text in picture(model, 80, 20, colour=False)[2])
    assert "█" in text
    assert "░" in text


@given(
    st.lists(
        st.tuples(
            st.text(max_size=80), st.sampled_from(["allowed", "blocked", "warn"]), st.integers(0, 10**9)
        ),
        max_size=30,
    ),
    st.integers(20, 160),
    st.integers(5, 60),
)
def test_any_picture_fits_and_is_clean(events: list[tuple[str, str, int]], width: int, height: int) -> None:
    """For all names of hosts and all sizes, the picture has exactly that size and nothing a terminal obeys."""
    model = Model()
    model.take(event(host, verdict, count=count, reason=host) for host, verdict, count in events)
    model.move(1, hosts_shown(height))
    lines = shown(model, width, height)
    assert len(lines) == height
    for line in lines:
        assert len(line) <= width
        assert not any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in line)


def test_what_was_not_reached_shows_and_is_learned_later() -> None:
    """An event that was let through in vain is marked, with how it ended, also where that is known later; totals stay."""
    model = Model(sandbox="one")
    model.take([event("down.example", id=7), event("up.example", id=8, outcome="reached")])
    assert any("ALLOWED    down.example:443" in line for line in shown(model))
    model.learn([event("down.example", id=7, outcome="unreached", ended="unreachable: connection refused")])
    lines = shown(model)
    assert any("UNREACHED  down.example:443  unreachable: connection refused" in line for line in lines)
    assert any("ALLOWED    up.example:443" in line for line in lines)
    assert model.totals == VerdictTotals(2, 0, 0)


def test_what_was_rotated_out_shows() -> None:
    """How many events are missing stands above the latest."""
    model = Model(rotated="7 events before noon were rotated out")
    model.take([event("a.example")])
    assert any("7 events before noon were rotated out" in line for line in shown(model))


class Told:
    """What a feed reported."""

    def __init__(self, api: Api, sandbox: str | None = None) -> None:
        self.events: list[str] = []
        self.modes: list[str] = []
        self.trouble: list[str] = []
        self.failed: list[IronsError] = []
        self.learned: list[str] = []
        self.rotated: list[str] = []
        self.feed = Feed(
            api,
            sandbox,
            learned=lambda events: self.learned.extend(event.host for event in events),
            rotated=self.rotated.append,
            events=lambda events: self.events.extend(event.host for event in events),
            mode=self.modes.append,
            trouble=self.trouble.append,
            failed=self.failed.append,
        )

    def until(self, holds: Callable[[], object]) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + PATIENCE
        waiting = threading.Event()
        while not holds():
            assert time.monotonic() < deadline, (self.events, self.trouble, self.failed)
            waiting.wait(0.02)


@pytest.fixture
def api(env: dict[str, str]) -> Api:
    """A client of the fake API."""
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
    told.feed.stop()
    assert told.events == ["before.example", *(f"n{n}.example" for n in range(5))]
    assert told.modes[0] == "warn"
    api.close()


@pytest.mark.slow
def test_the_feed_learns_how_events_ended(api: Api, fake: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event comes when it is judged; that no server was reached comes later, and so does what was rotated out."""
    monkeypatch.setattr("irons_repl.watch.feed.WAIT", 0.1)
    monkeypatch.setattr("irons_repl.watch.feed.MODE_EVERY", 0.1)
    fake.rotated = [{"sandbox_name": "agent-1", "events": 5, "before": None}]
    told = Told(api)
    told.feed.start()
    told.until(lambda: told.modes)
    slow = fake.record("slow.example", "agent-1")
    told.until(lambda: told.events)
    with fake.lock:
        slow["outcome"] = "unreached"
    told.until(lambda: "slow.example" in told.learned)
    told.feed.stop()
    assert told.events == ["slow.example"]
    assert told.rotated[0].startswith("5 events of agent-1 were rotated out")
    api.close()


def test_the_feed_outlives_a_server_that_is_away(
    api: Api, fake: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure is reported, and its end too, and nothing is lost."""
    monkeypatch.setattr("irons_repl.watch.feed.PAUSE", 0.05)
    told = Told(api)
    told.feed.start()
    told.until(lambda: told.modes)
    fake.fail(faults.error(500), times=2)
    fake.record("a.example", "agent-1")
    fake.record("b.example", "agent-1")
    told.until(lambda: len(told.events) == 2 and told.trouble and told.trouble[-1] == "")
    told.feed.stop()
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
    told.feed.stop()
    assert len(fake.lines()) - asked < 12
    api.close()


def test_the_feed_ends_where_there_is_no_such_sandbox(api: Api) -> None:
    """A failure that ends the view is reported once."""
    told = Told(api, "nobody")
    told.feed.start()
    told.until(lambda: told.failed)
    assert told.failed[0].exit_code == 3
    api.close()
