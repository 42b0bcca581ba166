"""Looking at the server in the background."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from irons.client.names import NameCache
from irons.client.scoped_names import KEYS, in_scope
from irons.errors import AuthError
from irons.host import PluginHost
from irons.terminal.streams import Streams
from irons.testing import FakeApi, faults
from irons_plugins.ssh.keys.access import id_of
from irons_repl.run.session import ShellSession
from irons_repl.status.refresher import IDLE, Refresher
from irons_repl.status.sources import sources
from irons_repl.status.status_model import Outlook
from tests.repl.terminal import PATIENCE


@dataclass
class Looker:
    """A refresher, and what it reported."""

    session: ShellSession
    said: list[str] = field(default_factory=list)
    changes: int = 0
    news: threading.Condition = field(default_factory=threading.Condition)
    # No answer is late because the machine stands still, unless the test is about that.
    late_after: float = 3600.0
    interval: float = 0.05
    clock: Callable[[], float] = time.monotonic
    looks: int = 0
    others: list[Looker] = field(default_factory=list)
    refresher: Refresher = field(init=False)

    def __post_init__(self) -> None:
        self.refresher = Refresher(
            self.session,
            self._changed,
            self._say,
            interval=self.interval,
            on_hand=[self._looked],
            late_after=self.late_after,
            clock=self.clock,
        )

    def _looked(self) -> None:
        with self.news:
            self.looks += 1
            self.news.notify_all()

    def _changed(self) -> None:
        with self.news:
            self.changes += 1
            self.news.notify_all()

    def _say(self, line: str) -> None:
        with self.news:
            self.said.append(line)
            self.news.notify_all()

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + PATIENCE
        with self.news:
            while not holds():
                assert time.monotonic() < deadline, (self.refresher.outlook, self.said)
                self.news.wait(0.005)

    def another(self, **more: Any) -> Looker:
        """One of the same session that differs in what is given."""
        self.others.append(Looker(self.session, **more))
        return self.others[-1]

    def seen(self, holds: Callable[[Outlook], bool]) -> Outlook:
        """Wait until a condition holds for what the prompt shows, and return just that."""
        found: list[Outlook] = []

        def looked_at() -> bool:
            found[:] = [self.refresher.outlook]
            return holds(found[0])

        self.until(looked_at)
        return found[0]


@pytest.fixture
def looker(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Looker]:
    """A refresher of a session that uses the fake API, and asks again at once where an answer fails."""
    env["IRONS_CONNECT_TIMEOUT"] = "1"
    monkeypatch.setattr("irons.client.transport.BACK_OFF", 0.001)
    # The first look imports what it needs, and would be followed by a pause of forty times as long.
    monkeypatch.setattr("irons_repl.status.refresher.SHARE", 0)
    session = ShellSession(
        PluginHost(env={"IRONS_PLUGINS": ""}), Streams(io.StringIO(), io.StringIO(), io.StringIO(), env)
    )
    made = Looker(session)
    yield made
    for each in (made, *made.others):
        each.refresher.stop()
    # A look that is on its way opens a connection that no one would close.
    for thread in threading.enumerate():
        if thread.name == "irons-refresher":
            thread.join(PATIENCE)
    session.close()


@pytest.mark.slow
def test_facts_are_stale_while_an_answer_is_late(looker: Looker, fake: FakeApi) -> None:
    """The mode may change while the server does not answer: it is marked before the request is given up, until an answer comes."""
    hasty = looker.another(late_after=0.2)
    hasty.refresher.start()
    hasty.seen(lambda outlook: outlook.denied == 0 and not outlook.trouble)
    go = threading.Event()
    with fake.lock:
        before = looks_at(fake)
        fake.fail(faults.held(go), on="GET /egress/mode", times=1)
    hasty.until(lambda: looks_at(fake) > before)
    late = hasty.seen(lambda outlook: outlook.trouble == "no answer yet")
    assert late.mode_facts.stale
    assert late.as_of
    go.set()
    hasty.seen(lambda outlook: not outlook.trouble)
    assert hasty.said == []


def test_a_look_sees_everything(looker: Looker, fake: FakeApi) -> None:
    """Mode, sandboxes by state and denials are there after the first looks, and the caches are filled."""
    fake.record("old.example", "agent-1", allowed=False, verdict="blocked")
    fake.images.append({"name": "debian", "os": "Debian 13"})
    looker.refresher.start()
    looker.until(lambda: looker.refresher.outlook.denied == 0)
    outlook = looker.refresher.outlook
    assert (outlook.mode, outlook.states) == ("warn", {"ready": 1, "stopped": 1})
    settings = looker.session.settings()
    assert NameCache.of(settings).read() == {"agent-1": "ready", "agent-2": "stopped"}
    assert NameCache.of(settings, what="domains").read() == {
        "pypi.org": "allowed",
        "evil.example": "denied",
        "old.example": "seen: denied",
    }
    assert NameCache.of(settings, what="images").read() == {"debian": "Debian 13"}


def test_keys_and_timed_rules_are_on_hand_after_a_look(looker: Looker, fake: FakeApi) -> None:
    """What `access NAME remove` completes is there before that command was used, and so is when rules of the sandbox in use end."""
    line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBPq5ubSgZdJBTpDNNKDiOVCvgCqr0n3tAnMwbS7eXMZ me"
    fake.sandboxes["agent-1"].public_key = f"{line}\n"
    soon = (datetime.now(UTC) + timedelta(hours=41)).isoformat()
    fake.sandboxes["agent-1"].rules.append({"pattern": "own.example", "list": "allow", "until": soon})
    looker.session.use("agent-1")
    looker.refresher.start()
    looker.until(lambda: looker.refresher.outlook.timed != "")
    assert looker.refresher.outlook.timed.startswith("1 rule ends in 1 d ")
    assert in_scope(NameCache.of(looker.session.settings(), what=KEYS).read(), "agent-1") == {
        id_of(line): "me"
    }


def test_the_mode_is_that_of_the_sandbox_in_use(looker: Looker, fake: FakeApi) -> None:
    """It is asked of the server by the name in use, and is empty for one that is not there; without one it is that of all."""
    fake.sandboxes["agent-2"].mode = "deny"
    looker.session.use("agent-2")
    looker.refresher.start()
    looker.until(
        lambda: (looker.refresher.outlook.sandbox, looker.refresher.outlook.mode) == ("agent-2", "deny")
    )
    assert looker.refresher.outlook.differs == {}
    looker.session.use("agent-1")
    looker.until(
        lambda: (looker.refresher.outlook.sandbox, looker.refresher.outlook.mode) == ("agent-1", "warn")
    )
    looker.session.use("nobody")
    looker.until(lambda: (looker.refresher.outlook.sandbox, looker.refresher.outlook.mode) == ("nobody", ""))
    looker.session.use(None)
    looker.until(lambda: looker.refresher.outlook.differs == {"agent-2": "deny"})
    assert (looker.refresher.outlook.sandbox, looker.refresher.outlook.mode) == (None, "warn")


def test_what_a_failed_look_left_says_of_when_it_is(looker: Looker, fake: FakeApi) -> None:
    """Facts stay when a look fails, marked with the time of the last that did not."""
    looker.refresher.start()
    looker.until(lambda: looker.refresher.outlook.denied == 0)
    assert looker.refresher.outlook.as_of == ""
    fake.fail(faults.dropped(), times=10**6)
    outlook = looker.seen(lambda outlook: outlook.trouble == "unreachable")
    assert outlook.mode == "warn"
    assert len(outlook.as_of.split(":")) == 3
    assert outlook.mode_facts.stale


def test_denials_count_from_the_beginning_of_the_prompt(looker: Looker, fake: FakeApi) -> None:
    """Only refusals since then count, with what each event folds; what the agent asked for without a connection does not."""
    fake.record("old.example", "agent-1", allowed=False)
    looker.refresher.start()
    looker.until(lambda: looker.refresher.outlook.denied == 0)
    fake.record("a.example", "agent-1", allowed=False, count=4)
    fake.record("asked.example", "agent-1", allowed=False, protocol="ask", cause="asked", count=100)
    fake.record("b.example", "agent-2", allowed=False)
    fake.record("c.example", "agent-2", allowed=True)
    looker.until(lambda: looker.refresher.outlook.denied == 5)
    outlook = looker.refresher.outlook
    assert [outlook.for_sandbox(name).denied_here for name in ("agent-1", "agent-2", "agent-3", None)] == [
        4,
        1,
        0,
        5,
    ]


def test_denials_count_repeats_of_what_was_read(looker: Looker, fake: FakeApi) -> None:
    """A refusal whose count grows after it was read counts in full; what ended otherwise, and what is older, changes nothing."""
    old = fake.record("old.example", "agent-1", allowed=False)
    looker.refresher.start()
    looker.until(lambda: looker.refresher.outlook.denied == 0)
    folded = fake.record("a.example", "agent-1", allowed=False)
    passed = fake.record("b.example", "agent-1")
    looker.until(lambda: looker.refresher.outlook.denied == 1)
    fake.change(old, count=9)
    fake.change(passed, outcome="reached")
    fake.change(folded, count=5)
    looker.until(lambda: looker.refresher.outlook.denied == 5)
    fake.change(folded, count=12)
    looker.until(lambda: looker.refresher.outlook.denied == 12)


@pytest.mark.slow
def test_a_plain_server_is_asked_for_each_sandbox(looker: Looker, fake: FakeApi) -> None:
    """A server with no log of all sandboxes together tells of denials all the same; one without a list shows no states."""
    fake.extensions = ()
    looker.refresher.start()
    looker.until(lambda: looker.refresher.outlook.denied == 0)
    fake.record("a.example", "agent-1", allowed=False)
    looker.until(lambda: looker.refresher.outlook.denied == 1)
    fake.has_list = False
    looker.until(lambda: looker.refresher.outlook.states is None)
    assert looker.refresher.outlook.trouble == ""
    looker.refresher.poke()
    looker.until(lambda: looker.changes > 0 and fake.lines().count("GET /egress") > 1)
    assert fake.lines().count("GET /images") == 1, "what it has not is asked for once"


@pytest.mark.slow
def test_a_server_that_dies_is_told_of_once_and_so_is_its_return(looker: Looker, fake: FakeApi) -> None:
    """One line when it stops answering, one when it answers again."""
    looker.refresher.start()
    looker.until(lambda: looker.refresher.outlook.mode == "warn")
    fake.__exit__()
    looker.until(lambda: looker.refresher.outlook.trouble == "unreachable")
    looker.refresher.poke()
    looker.refresher.poke()
    with fake:
        looker.refresher.poke()
        looker.until(lambda: len(looker.said) == 2)
        assert "did not answer" in looker.said[0]
        assert looker.said[1].endswith("answers again.")
        looker.until(lambda: looker.refresher.outlook.trouble == "")
    fake.__enter__()


@pytest.mark.slow
def test_what_a_command_has_said_already_is_not_said_again(looker: Looker, fake: FakeApi) -> None:
    """A command that ended with 6 has reported that the server is away."""
    # It looks when it is told to, and not between the outage and the command that reports it.
    calm = looker.another(interval=3600.0)
    calm.refresher.start()
    calm.until(lambda: calm.looks == 1)
    fake.fail(faults.dropped(), times=10**6)
    calm.session.api(calm.session.settings())
    calm.refresher.poke(6)
    calm.seen(lambda outlook: outlook.trouble == "unreachable")
    calm.until(lambda: calm.looks == 2)
    assert calm.said == []


def test_another_servers_outage_says_nothing_of_this_one(looker: Looker, fake: FakeApi) -> None:
    """A command that asked elsewhere (--api-url) and ended with 6 makes nobody say that this server answers again."""
    looker.refresher.start()
    looker.until(lambda: looker.refresher.outlook.mode == "warn")
    here = looker.session.env["IRONS_API_URL"]
    looker.session.env["IRONS_API_URL"] = "http://127.0.0.1:1"
    elsewhere = looker.session.settings()
    looker.session.env["IRONS_API_URL"] = here
    looker.session.api(elsewhere)
    before = looks_at(fake)
    looker.refresher.poke(6)
    looker.until(lambda: looks_at(fake) > before + 1)
    assert looker.said == []


@pytest.mark.slow
def test_nothing_is_asked_while_a_command_runs(looker: Looker, fake: FakeApi) -> None:
    """While it rests no look begins; a poke goes on at once."""
    looker.refresher.start()
    looker.until(lambda: looker.refresher.outlook.denied == 0)
    looker.refresher.rest()
    before = looks_at(fake)
    done = threading.Event()
    assert not done.wait(0.5)
    assert looks_at(fake) <= before + 1, "only one that was on its way may end"
    looker.refresher.poke()
    looker.until(lambda: looks_at(fake) > before + 1)


def looks_at(fake: FakeApi) -> int:
    """How often the server has been looked at."""
    return fake.lines().count("GET /egress/mode")


@pytest.mark.slow
def test_another_backend_begins_anew(looker: Looker, fake: FakeApi) -> None:
    """Where the settings choose another backend, nothing of the old one stays."""
    looker.refresher.start()
    looker.until(lambda: looker.refresher.outlook.mode == "warn")
    with FakeApi(extensions=("rules", "audit-filters")) as other:
        other.mode = "deny"
        looker.session.env["IRONS_API_URL"] = other.url
        looker.until(lambda: looker.refresher.outlook.mode == "deny")
        assert looker.refresher.outlook.states == {}
        looker.session.env["IRONS_API_URL"] = fake.url
        looker.until(lambda: looker.refresher.outlook.mode == "warn")


def test_a_broken_configuration_is_shown(looker: Looker) -> None:
    """The toolbar says so, and the thread lives on."""
    looker.refresher.start()
    looker.until(lambda: looker.refresher.outlook.mode == "warn")
    looker.session.env["IRONS_PROFILE"] = "none"
    looker.until(lambda: looker.refresher.outlook.trouble == "configuration broken")
    del looker.session.env["IRONS_PROFILE"]
    looker.until(lambda: looker.refresher.outlook.trouble == "")


def test_each_trouble_has_its_word(looker: Looker, fake: FakeApi) -> None:
    """A refused key, a local backend that is down, and a server that is invalid are distinguished, and none ends the thread."""
    looker.refresher.start()
    looker.until(lambda: looker.refresher.outlook.mode == "warn")
    env = looker.session.env
    key, url = env["IRONS_API_KEY"], env["IRONS_API_URL"]
    env["IRONS_API_KEY"] = "wrong-key-1234567890"
    looker.until(lambda: looker.refresher.outlook.trouble == AuthError.code)
    env["IRONS_API_URL"] = "local"
    looker.until(lambda: looker.refresher.outlook.trouble == "not up")
    env["IRONS_API_URL"], env["IRONS_API_KEY"] = url, key
    looker.refresher.poke()
    looker.until(lambda: looker.refresher.outlook.trouble == "")


def test_a_plugin_that_breaks_is_shown_and_the_thread_lives_on(
    looker: Looker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No matter what a plugin's backend raises, the toolbar reports it and the next look comes."""
    looker.refresher.start()
    looker.until(lambda: looker.refresher.outlook.mode == "warn")
    with monkeypatch.context() as patched:

        def broken(_: object) -> object:
            raise ZeroDivisionError

        patched.setattr(looker.session, "api_in_passing", broken)
        looker.until(lambda: looker.refresher.outlook.trouble == "broken (ZeroDivisionError)")
    looker.refresher.poke()
    looker.until(lambda: looker.refresher.outlook.trouble == "")


def test_completion_lives_with_a_broken_configuration(looker: Looker) -> None:
    """There are no names and no aliases then, and no error."""
    on_hand = sources(looker.session)
    looker.session.env["IRONS_PROFILE"] = "none"
    assert on_hand.sandboxes() == {}
    assert on_hand.aliases() == {}


def test_a_look_waits_until_no_one_types(looker: Looker, fake: FakeApi) -> None:
    """Keys put off a look, which would slow down the next key; it comes when they stop."""
    # The clock of the keys goes only where the test says, however long the machine takes between two keys.
    now = [100.0]
    typed = looker.another(clock=lambda: now[0])
    typed.refresher.start()
    typed.until(lambda: typed.refresher.outlook.denied == 0)
    typed.refresher.typing()
    before = looks_at(fake)
    for _ in range(25):
        now[0] += IDLE / 2
        typed.refresher.typing()
        threading.Event().wait(0.02)
    assert looks_at(fake) <= before + 1, "only one that had begun may ask"
    now[0] += 2 * IDLE
    typed.until(lambda: looks_at(fake) > before + 1)


def test_what_keys_are_completed_from_is_read_before_a_key_comes(looker: Looker) -> None:
    """After each look the names are read again by the looking thread, so that no key has to."""
    read_by: set[str] = set()
    on_hand = [lambda: read_by.add(threading.current_thread().name)]
    looker.refresher = Refresher(looker.session, looker._changed, looker._say, 0.05, on_hand)
    looker.refresher.start()
    looker.until(lambda: bool(read_by))
    assert read_by == {"irons-refresher"}


def test_what_is_refused_while_one_types_counts(looker: Looker, fake: FakeApi) -> None:
    """Where the count begins is noted at once, also where keys put off the rest of the first look."""
    now = [100.0]
    typed = looker.another(clock=lambda: now[0])
    typed.refresher.typing()
    typed.refresher.start()
    # The mode is asked for once the log was answered.
    typed.until(lambda: looks_at(fake) > 0)
    fake.record("early.example", "agent-1", allowed=False)
    assert typed.refresher.outlook.denied is None, "the rest of the look is put off"
    now[0] += 2 * IDLE
    typed.until(lambda: typed.refresher.outlook.denied == 1)
