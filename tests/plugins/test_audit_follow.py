"""`audit egress --follow`: each event once, as it comes, until it is ended."""

from __future__ import annotations

import io
import json
import re
import signal
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from irons.client.models.audit import AuditPage
from irons.testing import EXTENSIONS, FakeApi, Runner, faults
from irons_plugins.audit.filters import Filter
from irons_plugins.audit.following import AuditLog
from irons_policy.event import Event

from .conftest import Irons, hosts, until


class Follower:
    """`audit egress --follow` in a process of its own."""

    def __init__(self, irons: Irons, *words: str, way: str = "foreground") -> None:
        self.process = irons.start("audit", "egress", "one", "--follow", *words, way=way)
        self.lines: list[str] = []

    def next(self) -> str:
        """Return the next line, as soon as it is there."""
        assert self.process.stdout is not None
        found = self.process.stdout.readline().decode().rstrip("\n")
        assert found, self.process.communicate()[1].decode()
        return found

    def end(self) -> str:
        """Interrupt it, and return what it printed on stderr."""
        self.process.send_signal(signal.SIGINT)
        _, said = self.process.communicate(timeout=60)
        assert self.process.returncode == 130
        return said.decode()


def asked_again(api: FakeApi, before: int) -> None:
    """Wait until a server was asked more often than `before`."""
    until(lambda: len(api.calls) > before)


@pytest.mark.parametrize("extensions", [(), EXTENSIONS], ids=["polls", "long poll"])
def test_follow_shows_each_event_once_in_order(
    irons_process: Irons, one: FakeApi, extensions: tuple[str, ...]
) -> None:
    """What is there comes first, then each event as it happens, once, in order; Ctrl-C ends it with 130."""
    one.extensions = extensions
    one.page = 2
    for number in range(5):
        one.record(f"h{number}.example")
    follower = Follower(irons_process)
    assert hosts([follower.next() for _ in range(5)]) == [f"h{n}.example" for n in range(5)]
    for number in range(5, 12):
        one.record(f"h{number}.example")
        assert hosts([follower.next()]) == [f"h{number}.example"]
    assert follower.end() == "irons: interrupted\n"


def test_follow_shows_how_a_connection_ended(irons_process: Irons, one: FakeApi) -> None:
    """What was shown as allowed is shown again once it ended, with what became of it; a repeat with its count; nothing twice."""
    one.extensions = EXTENSIONS
    first, second = one.record("a.example"), one.record("b.example")
    third = one.record("c.example", allowed=False, verdict="blocked")
    follower = Follower(irons_process)
    assert hosts([follower.next() for _ in range(3)]) == ["a.example", "b.example", "c.example"]
    one.change(first, outcome="unreached", ended="connection refused", duration_ms=3)
    assert follower.next().endswith("  ALLOWED  a.example  (mode: deny)  (unreached)")
    one.change(first)
    one.change(second, outcome="reached", duration_ms=4200, bytes_out=1234, bytes_in=56)
    line = "  ALLOWED  b.example  (mode: deny)  (reached, after 4.2 s, 1,234 bytes out, 56 in)"
    assert follower.next().endswith(line)
    one.change(third, count=12)
    assert follower.next().endswith("  DENIED   c.example  (mode: deny)  (12 times)")
    one.record("d.example")
    assert hosts([follower.next()]) == ["d.example"]
    assert follower.end() == "irons: interrupted\n"


def followed(
    monkeypatch: pytest.MonkeyPatch, api: SimpleNamespace, looks: int
) -> tuple[AuditLog, list[float]]:
    """A log that is followed for so many looks, in this process, and the seconds for which it would have slept."""
    unread = iter([*[False] * looks, True])
    slept: list[float] = []

    class Streams:
        stdout_is_tty = True

        @property
        def is_unread(self) -> bool:
            return next(unread)

    clock = SimpleNamespace(monotonic=time.monotonic, sleep=slept.append)
    monkeypatch.setattr("irons_plugins.audit.following.time", clock)
    ctx = cast("Any", SimpleNamespace(api=api, streams=Streams()))
    return AuditLog(ctx, "one", Filter(), None, follow=True), slept


def test_a_server_that_tells_the_same_change_again_is_left_in_peace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an answer brings nothing new the next question waits, as after an empty one."""
    event = Event(None, "one", "a.example", allowed=True, id=1)
    page = AuditPage((), token=1, changed=(event,), change_token=5)
    api = SimpleNamespace(extensions={"wait", "audit-changes"}, audit=lambda *_, **__: page)
    log, slept = followed(monkeypatch, api, looks=3)
    assert [each.host for each in log.coming()] == ["a.example"]
    assert len(slept) == 2


def test_follow_marks_updates_in_json(irons_process: Irons, one: FakeApi) -> None:
    """A program tells an event that it has seen from a new one: the update has its id and `update`."""
    one.extensions = EXTENSIONS
    event = one.record("a.example")
    follower = Follower(irons_process, "-o", "jsonl")
    before = json.loads(follower.next())
    one.change(event, outcome="unresolved")
    assert json.loads(follower.next()) == {**before, "outcome": "unresolved", "update": True}
    follower.end()


def test_follow_by_outcome_shows_what_ends_so_later(irons_process: Irons, one: FakeApi) -> None:
    """A connection that did not fit the filter while it was open is shown when it does."""
    one.extensions = EXTENSIONS
    one.record("a.example", outcome="unreached")
    event, other = one.record("b.example"), one.record("c.example")
    follower = Follower(irons_process, "--outcome", "unreached")
    assert hosts([follower.next()]) == ["a.example"]
    one.change(other, outcome="reached")
    one.change(event, outcome="unreached")
    assert follower.next().endswith("  ALLOWED  b.example  (mode: deny)  (unreached)")
    follower.end()


def test_follow_in_the_background_of_a_script_takes_ctrl_c(irons_process: Irons, one: FakeApi) -> None:
    """Where the shell that started it had SIGINT ignored, it ends the follower all the same, with 130."""
    one.record("a.example")
    follower = Follower(irons_process, way="background")
    assert hosts([follower.next()]) == ["a.example"]
    assert follower.end() == "irons: interrupted\n"


def test_follow_at_a_server_without_tokens(irons_process: Irons, one: FakeApi) -> None:
    """A server that answers with the whole log each time is followed too, each event once."""
    one.tokens = False
    one.record("a.example")
    follower = Follower(irons_process)
    assert hosts([follower.next()]) == ["a.example"]
    asked = len(one.calls)
    until(lambda: len(one.calls) > asked + 1)
    one.record("b.example")
    one.record("c.example")
    assert hosts([follower.next(), follower.next()]) == ["b.example", "c.example"]
    follower.end()


def test_follow_is_immediate_with_a_long_poll(irons_process: Irons, one: FakeApi) -> None:
    """Where the server has a long poll, the question that it holds brings an event, and it is not asked in between."""
    one.extensions = EXTENSIONS
    one.record("a.example")
    # A question stays open for as long as there is no event, so that no other one can bring it.
    irons_process.patient = ("irons_plugins.audit.following.PIPED_POLL",)
    follower = Follower(irons_process)
    follower.next()
    until(lambda: any("wait" in call.query for call in one.calls))
    begun = len(one.calls)
    for number in range(5):
        asked = len(one.calls)
        one.record(f"{number}.example")
        assert hosts([follower.next()]) == [f"{number}.example"]
        asked_again(one, asked)
    assert len(one.calls) == begun + 5
    assert all(float(call.query["wait"]) > 0 for call in one.calls[begun:])
    follower.end()


def test_follow_asks_every_second_or_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it has none, it is asked at least once a second."""
    asked: list[float | None] = []

    def audit(*_: object, wait: float | None = None, **__: object) -> AuditPage:
        asked.append(wait)
        return AuditPage((), token=1)

    log, slept = followed(monkeypatch, SimpleNamespace(extensions=set(), audit=audit), looks=4)
    assert list(log.coming()) == []
    assert (len(slept), asked) == (4, [None] * 4)
    assert max(slept) <= 1


def test_follow_survives_failed_polls(irons_process: Irons, one: FakeApi) -> None:
    """Failed polls are survived with one warning, and nothing is lost or shown twice."""
    one.record("a.example")
    follower = Follower(irons_process)
    assert hosts([follower.next()]) == ["a.example"]
    # No poll comes between two of them.
    with one.lock:
        for fault in (faults.error(500, "down"), faults.html(500), faults.cut_json(), faults.broken_off()):
            one.fail(fault, on="GET /sandboxes/one/audit")
        one.record("b.example")
    assert hosts([follower.next()]) == ["b.example"]
    one.record("c.example")
    assert hosts([follower.next()]) == ["c.example"]
    said = follower.end().splitlines()
    assert said == ["irons: down; trying on", "irons: the server answers again", "irons: interrupted"]


def test_follow_of_nobody_ends(irons_process: Irons, fake_api: FakeApi) -> None:
    """A sandbox that is not there is not followed."""
    assert irons_process("audit", "egress", "one", "--follow").returncode == 3


def test_follow_with_filters_and_a_limit(irons_process: Irons, one: FakeApi) -> None:
    """--limit cuts what is there already, filters hold for what comes, and -o jsonl is an object a line."""
    one.extensions = EXTENSIONS
    for number in range(4):
        one.record(f"h{number}.example", allowed=False, verdict="blocked")
    follower = Follower(irons_process, "--limit", "1", "--verdict", "blocked", "-o", "jsonl")
    assert json.loads(follower.next())["host"] == "h3.example"
    for number in range(4, 7):
        one.record(f"a{number}.example", verdict="allowed")
        one.record(f"h{number}.example", allowed=False, verdict="blocked")
    assert [json.loads(follower.next())["host"] for _ in range(3)] == [
        "h4.example",
        "h5.example",
        "h6.example",
    ]
    follower.end()


def test_a_reader_that_goes_away_ends_it(irons_process: Irons, one: FakeApi) -> None:
    """When whoever read the lines has gone, following ends with the next one."""
    one.record("a.example")
    follower = Follower(irons_process)
    follower.next()
    assert follower.process.stdout is not None
    follower.process.stdout.close()
    one.record("b.example")
    one.record("c.example")
    assert follower.process.wait(60) == 0
    assert follower.process.stderr is not None
    assert follower.process.stderr.read() == b""


def test_following_into_a_table_is_lines(run_irons: Runner, one: FakeApi) -> None:
    """On a terminal too, what is followed comes as lines: a table is never finished. They have the port and the reason."""
    one.record("a.example")
    out = io.StringIO()
    one.fail(faults.error(401, "the key was revoked"), on="nothing")
    calls = len(one.calls)
    one.key = None

    class Stop(io.StringIO):
        def write(self, text: str) -> int:
            out.write(text)
            if "\n" in text:
                raise KeyboardInterrupt
            return len(text)

    assert run_irons("audit", "egress", "one", "--follow", tty=True, stdout=Stop()).code == 130
    assert re.fullmatch(r"\S+ \d\d:\d\d:\d\d  allowed     a\.example\n", out.getvalue())
    assert len(one.calls) > calls
