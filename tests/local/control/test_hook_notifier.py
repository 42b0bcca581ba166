"""The hook `irons_ask`: what plugins hear of a question in their process, what they may answer, and two that pass it on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
from tests.local.control.asking import HOST, asking
from tests.local.control.lab import control_plane, run, until
from tests.local.control.test_notifier import URL, Desk, question

from irons_local.config.server import NotifierSettings
from irons_local.control.audit.events import Page, Query
from irons_local.control.egress import notifying
from irons_local.control.egress.hook_notifier import HookNotifier
from irons_local.control.egress.notifying import ANSWERED_WITHIN, EVERY, MOST
from irons_local.control.egress.questions import CellQuestion, QuestionDesk
from irons_local.control.hook_feed import HookFeed

pytestmark = pytest.mark.process

THIRD_PARTY = Path(__file__).parents[2] / "third_party/src"

ANSWERS = """
import os
from irons import hookimpl

OUT = open(os.environ["HOOK_OUT"], "a")

@hookimpl
def irons_ask(question, settings):
    OUT.write(f"{question.host} {question.may} {question.reason}\\n")
    OUT.flush()
    if "crash" in question.host:
        os._exit(3)
    return SAID
"""

LINKS = re.compile(
    r"[a-z]+://|www\.|[a-z0-9-]+\.[a-z]{2,}|[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+|@|\]\(|<|&[a-z]+;|\S+:[0-9]{2,5}\b",
    re.IGNORECASE,
)
"""What chats and mail programs make a link of, names without a scheme too, and what is markup."""


class Hall:
    """A notifier at a desk, with plugins in a process of their own."""

    def __init__(self, place: Path, settings: NotifierSettings, *questions: CellQuestion) -> None:
        self.now = 1000.0
        self.desk = Desk(*questions)
        self.plugins = place / "config/irons/plugins"
        self.plugins.mkdir(parents=True, exist_ok=True)
        # As root the process is another user when it opens this.
        shared = place / "shared"
        shared.mkdir()
        shared.chmod(0o1777)
        self._out = shared / "out"
        environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith("COVERAGE")},
            "XDG_CONFIG_HOME": str(place / "config"),
            "HOOK_OUT": str(self._out),
        }
        environ.pop("IRONS_PLUGINS", None)
        command = [sys.executable, "-m", "irons_local.hooks"]
        self.feed = HookFeed(_no_page, environ, lambda: command, pause=0.01, look_every=0.05)
        desk = cast("QuestionDesk", self.desk)
        self.notifier = HookNotifier(desk, lambda: settings, self.feed, lambda: self.now)

    def write(self, name: str, text: str) -> None:
        """Write a plugin."""
        file = self.plugins / f"{name}.py"
        file.write_text(text)
        file.chmod(0o600)

    @property
    def heard(self) -> list[str]:
        """What the plugin of this file wrote."""
        return self._out.read_text().splitlines() if self._out.exists() else []

    async def until(self, true: Callable[[], object]) -> None:
        """Wait until something is true, and no message is out."""
        async with asyncio.timeout(120):
            while not true() or self.notifier.running:  # noqa: ASYNC110 - a file has no event
                await asyncio.sleep(0.005)


async def _no_page(query: Query, wait: float) -> Page:
    """An audit log in which nothing happens."""
    if query.limit is None:
        await asyncio.sleep(wait)
    return Page([], query.after)


@contextlib.asynccontextmanager
async def hall(
    place: Path, settings: NotifierSettings, *questions: CellQuestion, **plugins: str
) -> AsyncIterator[Hall]:
    """One at work, with these plugins."""
    made = Hall(place, settings, *questions)
    for name, text in plugins.items():
        made.write(name, text)
    running = [asyncio.ensure_future(each) for each in (made.feed.run(), made.notifier.run())]
    try:
        yield made
    finally:
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)


@pytest.fixture(autouse=True)
def _looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifying, "LOOK", 0.001)


@pytest.mark.parametrize(
    ("said", "may", "answers"),
    [
        ("'hour'", None, ["hour"]),
        ("'always'", None, []),
        ("'never'", None, []),
        ("'always'", ("always",), ["always"]),
        ("None", None, []),
        ("7", None, []),
        ("'*.example hour'", None, []),
        ("'h' * 1000000", None, []),
        ("1 / 0", None, []),
    ],
)
def test_an_answer_counts_as_far_as_it_is_allowed(
    tmp_path: Path, said: str, may: tuple[str, ...] | None, answers: list[str]
) -> None:
    """`once`, `hour` and `no`, or what the settings say: anything else, also an exception, is no answer, and the question is asked once."""
    settings = NotifierSettings() if may is None else NotifierSettings(may=may)

    async def work() -> None:
        async with hall(tmp_path, settings, question(), says=ANSWERS.replace("SAID", said)) as at:
            await at.until(lambda: at.heard)
            at.now += EVERY
            looks = at.desk.looks
            await at.until(lambda: at.desk.looks > looks + 3)
            assert [each for _, each in at.desk.answers] == answers
            assert len(at.heard) == 1

    run(work())


def test_the_first_plugin_that_answers_counts(tmp_path: Path) -> None:
    """One that may not say what it says, or raises, does not keep the next one from answering."""

    async def work() -> None:
        plugins = {"a": "'always'", "b": "1 / 0", "c": "'no'", "d": "'hour'"}
        texts = {name: ANSWERS.replace("SAID", said) for name, said in plugins.items()}
        async with hall(tmp_path, NotifierSettings(), question(), **texts) as at:
            await at.until(lambda: at.desk.answers)
            assert [each for _, each in at.desk.answers] == ["no"]

    run(work())


def test_a_process_that_ends_is_no_answer(tmp_path: Path) -> None:
    """It is started again for the next question; what waited for the first one is told that there is none."""

    async def work() -> None:
        crash = question("crash.example")
        async with hall(tmp_path, NotifierSettings(), crash, says=ANSWERS.replace("SAID", "'hour'")) as at:
            await at.until(lambda: at.heard)
            at.desk.questions = (question(),)
            at.now += EVERY
            await at.until(lambda: at.desk.answers)
            assert len(at.heard) == 2

    run(work())


def test_a_question_outlives_a_change_of_plugins(tmp_path: Path) -> None:
    """While a plugin is busy with it another one is installed: both hear of it then, and it is answered."""

    async def work() -> None:
        waits = tmp_path / "waits"
        os.mkfifo(waits)
        waits.chmod(0o666)
        busy = ANSWERS.replace("    return SAID", "    os.read(GO, 1)\n    return None").replace(
            "OUT =", f"GO = os.open({str(waits)!r}, os.O_RDWR)\nOUT ="
        )
        async with hall(tmp_path, NotifierSettings(), question(), busy=busy) as at:
            async with asyncio.timeout(120):
                while not at.heard:  # noqa: ASYNC110 - a file has no event
                    await asyncio.sleep(0.005)
            at.write("a", ANSWERS.replace("SAID", "'no'"))
            async with asyncio.timeout(120):
                while not at.desk.answers:  # noqa: ASYNC110 - another process has no event
                    await asyncio.sleep(0.005)
            assert [each for _, each in at.desk.answers] == ["no"]

    run(work())


def test_one_message_of_a_sandbox_in_ten_seconds(tmp_path: Path) -> None:
    """Its second question is passed on once that time is over."""

    async def work() -> None:
        two = question(), question("other.example")
        async with hall(tmp_path, NotifierSettings(), *two, says=ANSWERS.replace("SAID", "None")) as at:
            await at.until(lambda: at.heard)
            looks = at.desk.looks
            await at.until(lambda: at.desk.looks > looks + 3)
            assert len(at.heard) == 1
            at.now += EVERY
            await at.until(lambda: len(at.heard) == 2)

    run(work())


class BusyPlugins:
    """Plugins that answer once they are let."""

    hears_questions = True

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.go = asyncio.Event()

    async def ask(self, question: Mapping[str, Any]) -> tuple[str, str]:
        """Answer once that is let."""
        self.heard.append(question["id"])
        await self.go.wait()
        return "busy", "no"


def test_one_sandbox_keeps_no_other_from_plugins_that_are_busy() -> None:
    """However long they take, one message of a sandbox is out, and a later question of another sandbox is passed on."""

    async def work() -> None:
        many = [question(f"h{number}.example") for number in range(2 * MOST)]
        desk, plugins, now = Desk(*many), BusyPlugins(), 1000.0
        notifier = HookNotifier(cast("QuestionDesk", desk), NotifierSettings, plugins, lambda: now)
        running = asyncio.ensure_future(notifier.run())
        try:
            async with asyncio.timeout(120):
                for _ in range(MOST + 1):
                    now += EVERY
                    looks = desk.looks + 3
                    while desk.looks < looks:  # noqa: ASYNC110 - the stand-in has no event
                        await asyncio.sleep(0)
                desk.questions = (*many, question("other.example", "sb_2"))
                while len(plugins.heard) < 2:  # noqa: ASYNC110 - nor has this
                    await asyncio.sleep(0)
                assert plugins.heard == ["q_h0.example", "q_other.example"]
                plugins.go.set()
                while len(plugins.heard) < 3:
                    now += EVERY
                    await asyncio.sleep(0)
                assert plugins.heard[2] == "q_h1.example"
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    run(work())


def test_connections_wait_for_a_plugin_that_answered_lately(tmp_path: Path) -> None:
    """Only with `hold`, and only for an hour after an answer."""

    async def work() -> None:
        settings = NotifierSettings(hold=True)
        async with hall(tmp_path, settings, question(), says=ANSWERS.replace("SAID", "'hour'")) as at:
            await at.until(lambda: at.desk.answers)
            assert at.desk.listened[0] is False
            listened = len(at.desk.listened)
            await at.until(lambda: len(at.desk.listened) > listened + 2)
            assert at.desk.listened[-1] is True
            at.now += ANSWERED_WITHIN
            listened = len(at.desk.listened)
            await at.until(lambda: len(at.desk.listened) > listened + 2)
            assert at.desk.listened[-1] is False

    run(work())


@contextlib.contextmanager
def webhook(word: str) -> Iterator[tuple[str, list[bytes]]]:
    """A server that takes posts and answers a word: its URL, and the bodies that came."""
    bodies: list[bytes] = []

    class Takes(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(word.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Takes) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", bodies
        finally:
            server.shutdown()


@pytest.mark.parametrize("reason", [True, False])
def test_a_webhook_gets_nothing_that_becomes_a_link(tmp_path: Path, reason: bool) -> None:
    """The example posts the question without link or markup, with the agent's reason only where that is set, and passes an answer on."""
    words = "see https://evil.example/x, <b>www.evil.example</b> [me](http://1.2.3.4:80) a@evil.example &lt;"

    async def work() -> None:
        asked = question("sub.evil.example", reason=words)._replace(id="q_1")
        settings = NotifierSettings(reason=reason)
        with webhook("hour\n") as (url, bodies):
            config = tmp_path / "config/irons/config.toml"
            plugin = (THIRD_PARTY / "irons_webhook.py").read_text()
            config.parent.mkdir(parents=True)
            config.write_text(f"[plugins.webhook]\nurl = {json.dumps(url)}\n")
            config.chmod(0o600)
            async with hall(tmp_path, settings, asked, webhook=plugin) as at:
                await at.until(lambda: at.desk.answers)
                assert [each for _, each in at.desk.answers] == ["hour"]
            (body,) = bodies
        text = json.loads(body)["text"]
        assert "sub[.]evil[.]example port 443" in text
        for links in (LINKS, URL):
            assert links.findall(body.decode()) == links.findall(text) == []
        assert ("it says" in text) is reason
        assert len(text) < 400

    run(work())


def test_notify_send_shows_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The example calls the program of its settings, here a stand-in for notify-send that prints, and answers nothing."""

    async def work() -> None:
        config = tmp_path / "config/irons/config.toml"
        config.parent.mkdir(parents=True)
        config.write_text('[plugins.notify]\ncommand = ["printf", "shown: %s\\\\n"]\n')
        config.chmod(0o600)
        plugin = (THIRD_PARTY / "irons_notify.py").read_text()
        async with hall(tmp_path, NotifierSettings(), question("sub.evil.example"), notify=plugin) as at:

            def shown() -> list[str]:
                lines = [each.getMessage() for each in caplog.records]
                return [line.partition("shown: ")[2] for line in lines if "shown: " in line]

            await at.until(lambda: len(shown()) == 2)
            assert shown() == ["box asks", "sub[.]evil[.]example port 443"]
            assert at.desk.answers == []

    run(work())


def test_an_answer_is_audited_under_the_plugin_s_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a whole control plane: the rule is for just that host, and the change log names the hook and the plugin."""
    place = tmp_path / "home"
    place.mkdir()
    made = Hall(place, NotifierSettings())
    made.write("pager", ANSWERS.replace("SAID", "'hour'"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(place / "config"))
    monkeypatch.setenv("HOOK_OUT", str(made._out))
    monkeypatch.delenv("IRONS_PLUGINS", raising=False)

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell, _ = await asking(lab)

            async def answered() -> bool:
                return bool(lab.policies[cell]["rules"])

            await until(answered, 180.0)
            (rule,) = lab.policies[cell]["rules"]
            assert (rule["pattern"], rule["list"], rule["scope"]) == (f"{HOST}:443", "allow", "sandbox")
            changes = (await lab.client.get("/sandboxes/box/audit/changes")).json()["changes"]
            (last,) = [each for each in changes if each["what"] == "question-answered"]
            assert (last["by"], last["claimed_face"]) == ("irons", "irons_ask.pager")

    run(work())
