"""The process of plugins: what it is fed, what it may do, and what becomes of it when it ends or falls behind."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from irons_local.control import hook_feed
from irons_local.control.audit.events import Page, Query
from irons_local.control.hook_feed import HookFeed
from irons_local.forkserver.confine import GATEWAY_ID

pytestmark = pytest.mark.process

PLUGIN = """
import json, os
from irons import hookimpl

OUT = open(os.environ["HOOK_OUT"], "a")
GO = os.open(os.environ["HOOK_GO"], os.O_RDONLY)


def say(*what):
    OUT.write(json.dumps(what) + "\\n")
    OUT.flush()


def is_open(number):
    try:
        os.fstat(number)
    except OSError:
        return False
    return number not in (OUT.fileno(), GO)


@hookimpl
def irons_event(event, settings):
    if event.host == "slow.example":
        os.read(GO, 1)
    say("event", event.host)
    if event.host == "crash.example":
        os._exit(3)
    if event.host == "raise.example":
        raise ValueError("no network")
    if event.host == "rights.example":
        say(os.geteuid(), len([number for number in range(64) if is_open(number)]), sorted(
            name for name in os.environ if name in ("IRONS_LINK", "IRONS_KEEPER")))


@hookimpl
def irons_lifecycle(change):
    say(change.kind, change.sandbox, change.lost)
"""


PROCESS = (sys.executable, "-m", "irons_local.hooks")


@dataclass
class Log:
    """An audit log with pages as the control plane gives them."""

    events: list[dict[str, Any]] = field(default_factory=list)
    grown: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, host: str, **more: Any) -> None:
        """Add an event."""
        self.events.append({"id": len(self.events) + 1, "sandbox_name": "one", "host": host, **more})
        self.grown.set()

    async def page(self, query: Query, wait: float) -> Page:
        """A page."""
        while True:
            found = self.events[query.after : query.after + query.size]
            if query.limit is not None or found or not wait:
                last = (
                    found[-1]["id"] if len(found) == query.size and query.limit is None else len(self.events)
                )
                return Page([] if query.limit is not None else found, last)
            self.grown.clear()
            await self.grown.wait()


class Stage:
    """A feed with a plugin directory, a log, and what the plugin wrote."""

    def __init__(self, place: Path, command: Sequence[str]) -> None:
        self.log = Log()
        self.plugins = place / "config" / "irons" / "plugins"
        self.plugins.mkdir(parents=True)
        # As root the process is another user when it opens this.
        shared = place / "shared"
        shared.mkdir()
        shared.chmod(0o1777)
        self._out = shared / "out"
        self.go = shared / "go"
        os.mkfifo(self.go)
        self.go.chmod(0o666)
        self._held = os.open(self.go, os.O_RDWR)
        environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith("COVERAGE")},
            "XDG_CONFIG_HOME": str(place / "config"),
            "HOOK_OUT": str(self._out),
            "HOOK_GO": str(self.go),
            "IRONS_LINK": "7",
            "IRONS_KEEPER": "8",
        }
        environ.pop("IRONS_PLUGINS", None)
        self.feed = HookFeed(self.log.page, environ, lambda: command, pause=0.01, look_every=0.05)

    def write(self, text: str = PLUGIN) -> None:
        """Write the plugin."""
        file = self.plugins / "hears.py"
        file.write_text(text)
        file.chmod(0o600)

    def release(self) -> None:
        """Let a plugin that waits go on."""
        os.write(self._held, b"x")

    def close(self) -> None:
        """Let go of the pipe."""
        os.close(self._held)

    @property
    def said(self) -> list[Any]:
        """What the plugin wrote."""
        return [json.loads(line) for line in self._out.read_text().splitlines()] if self._out.exists() else []

    async def until(self, true: Callable[[], object]) -> None:
        """Wait until something is true."""
        async with asyncio.timeout(60):
            while not true():  # noqa: ASYNC110 - a file has no event
                await asyncio.sleep(0.02)

    async def ready(self) -> None:
        """Wait until the process hears: steps are taken only then."""

        def heard() -> bool:
            self.step("ready", "probe")
            return ["ready", "probe", 0] in self.said

        await self.until(heard)

    def step(self, kind: str, name: str) -> None:
        """Have a sandbox take a step."""
        sandbox: Any = SimpleNamespace(name=name, id="sb_1")
        self.feed.note(kind, sandbox)

    def hosts(self) -> list[str]:
        """The hosts of the events that the plugin heard of."""
        return [each[1] for each in self.said if each[0] == "event"]


def play(place: Path, scene: Callable[[Stage], Awaitable[None]], command: Sequence[str] = PROCESS) -> None:
    """Run a scene with the feed at work, and a process of its own where a command starts it."""

    async def run() -> None:
        stage = Stage(place, command)
        work = asyncio.create_task(stage.feed.run())
        try:
            await scene(stage)
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            stage.close()

    asyncio.run(run())


def test_plugins_hear_without_rights_and_descriptors(tmp_path: Path) -> None:
    """Events from now on and steps arrive; text is clean and cut; root's process is the gateway's user, with three pipes and a copy."""

    async def scene(stage: Stage) -> None:
        stage.log.add("before.example")
        stage.write()
        await stage.ready()
        stage.log.add("a\x1b[2J" + "x" * 9000)
        stage.log.add("rights.example")
        stage.step("destroyed", "two\x07")
        await stage.until(lambda: len(stage.hosts()) == 2 and ["destroyed", "two\\x07", 0] in stage.said)
        first, second = stage.hosts()
        assert first.startswith("a\\x1b[2Jxxx")
        assert len(first) <= 501
        assert second == "rights.example"
        (rights,) = [each for each in stage.said if isinstance(each[0], int)]
        assert rights == [GATEWAY_ID if os.geteuid() == 0 else os.geteuid(), 4, []]

    play(tmp_path, scene)


def test_a_crash_costs_the_event_that_caused_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that ends is started again and goes on after the event at which it ended; an exception is logged."""
    # The last of its output is waited for, however late it comes.
    monkeypatch.setattr(hook_feed, "_ENDS_WITHIN", 60.0)

    async def scene(stage: Stage) -> None:
        stage.write()
        await stage.ready()
        for host in ("one.example", "crash.example", "raise.example", "last.example"):
            stage.log.add(host)
        await stage.until(lambda: "last.example" in stage.hosts())
        assert stage.hosts() == ["one.example", "crash.example", "raise.example", "last.example"]
        await stage.until(lambda: "ValueError: no network" in caplog.text)
        assert "the process of plugins ended (3)" in caplog.text

    play(tmp_path, scene)


ASKED = """
import json, os
from irons import hookimpl

OUT = open(os.environ["HOOK_OUT"], "a")
GO = os.open(os.environ["HOOK_GO"], os.O_RDONLY)


@hookimpl
def irons_ask(question):
    OUT.write(json.dumps(["asked", question.id]) + "\\n")
    OUT.flush()
    if question.id == "q_crash":
        os.read(GO, 1)
        os._exit(3)
    return "hour"
"""


def test_a_crash_costs_the_question_that_caused_it(tmp_path: Path) -> None:
    """Of the questions that a process had, those that it did not begin are to be asked again; the next process answers them."""

    async def scene(stage: Stage) -> None:
        def ask(identity: str) -> asyncio.Task[tuple[str, str] | None]:
            return asyncio.create_task(stage.feed.ask({"id": identity, "may": ["hour"]}))

        stage.write(ASKED)
        await stage.until(lambda: stage.feed.hears_questions)
        first = ask("q_crash")
        await stage.until(lambda: ["asked", "q_crash"] in stage.said)
        others = [ask("q_1"), ask("q_2")]
        # Each is with the feed before the process ends.
        await asyncio.sleep(0)
        stage.release()
        assert await first == ("", "")
        assert await asyncio.gather(*others) == [None, None]
        await stage.until(lambda: stage.feed.hears_questions)
        assert await ask("q_1") == ("hears", "hour")

    play(tmp_path, scene)


ANSWERS = """
import json, sys

print(json.dumps({"hooks": ["irons_ask"]}), flush=True)
for line in sys.stdin:
    question = json.loads(line)["question"]["id"]
    for by, answer in (("empty", ""), ("unknown", "always"), ("good", "hour"), ("", "")):
        print(json.dumps({"question": question, "by": by, "answer": answer}), flush=True)
"""


def test_an_empty_or_unknown_answer_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The answer of a plugin after the one that gave it counts; it is logged."""

    async def scene(stage: Stage) -> None:
        stage.write()
        await stage.until(lambda: stage.feed.hears_questions)
        assert await stage.feed.ask({"id": "q_1", "may": ["hour"]}) == ("good", "hour")
        for each in ("empty, irons_ask: ''", "unknown, irons_ask: 'always'"):
            assert f"{each} is not an answer that it may give" in caplog.text.replace('"', "'")

    play(tmp_path, scene, [sys.executable, "-c", ANSWERS])


def test_a_plugin_that_is_behind_is_told_what_it_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events that wait are bounded: the oldest are passed over, the plugin hears how many, and the newest arrive."""
    monkeypatch.setattr(hook_feed, "BEHIND", 50)

    async def scene(stage: Stage) -> None:
        stage.write()
        await stage.ready()
        stage.log.add("slow.example")
        for _ in range(3000):
            stage.log.add("many.example", reason="r" * 200)
        stage.log.add("last.example")
        await asyncio.sleep(0)
        stage.release()
        await stage.until(lambda: "last.example" in stage.hosts())
        await stage.until(lambda: [each for each in stage.said if each[0] == "lost"])
        lost = sum(each[2] for each in stage.said if each[0] == "lost")
        assert lost > 0
        assert lost + len(stage.hosts()) == 3002

    play(tmp_path, scene)


def test_a_process_without_hooks_ends_until_a_plugin_changes(tmp_path: Path) -> None:
    """Plugins that hear of nothing cost no process; one that is written later is loaded without a restart."""

    async def scene(stage: Stage) -> None:
        stage.write('import os\nopen(os.environ["HOOK_OUT"], "a").write("[0]\\n")\n')
        await stage.until(lambda: stage.said == [[0]])
        stage.write()
        await stage.ready()
        assert [each for each in stage.said if each == [0]] == [[0]]

    play(tmp_path, scene)


def test_without_plugins_there_is_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is started where there is no plugin, or `IRONS_PLUGINS` is empty."""
    started: list[object] = []
    monkeypatch.setattr(asyncio, "create_subprocess_exec", lambda *words, **_: started.append(words))

    async def scene(stage: Stage) -> None:
        for _ in range(5):
            await asyncio.sleep(0.02)
        stage.step("ready", "one")
        assert stage.said == started == []

    play(tmp_path, scene)
