"""`[ask] exec`: a program hears of questions and may answer some; whatever else it does changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.local.control.asking import HOST, asking
from tests.local.control.lab import control_plane, run, until

from irons_local.config.server import NotifierSettings
from irons_local.control.egress import notifier, notifying
from irons_local.control.egress.notifier import NAME, ProgramNotifier
from irons_local.control.egress.notifying import EVERY, MOST_FIELD, defanged, message
from irons_local.control.egress.questions import CellQuestion, QuestionDesk, QuestionsSeen
from irons_local.control.store.sandboxes import StoredSandbox
from irons_local.forkserver.confine import GATEWAY_ID
from irons_local.linux.userns_call import program
from irons_policy.hostnames import canonical_host

pytestmark = pytest.mark.process

URL = re.compile(r"(?i)[a-z]+:/|www\.|[\w-]\.[\w-]|@|<|\]\(")
"""What a program that makes links of texts looks for."""


CONFINED = program("irons_local.hooks.program")
"""Begins the command of a program that is run without rights."""


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program has as long as a busy machine takes."""
    monkeypatch.setattr(notifier, "LONGEST", 120.0)


class Box:
    """A sandbox, as far as a message has it."""

    name = "box"


def question(name: str = HOST, cell: str = "sb_1", reason: str = "") -> CellQuestion:
    """A question."""
    return CellQuestion(f"q_{name}", cell, canonical_host(name), 443, "tls", 1, 1, 3, 2, 1, reason)


class Desk:
    """Questions without a control plane."""

    def __init__(self, *questions: CellQuestion) -> None:
        self.questions = questions
        self.answers: list[tuple[str, str]] = []
        self.listened: list[bool] = []
        self.looks = 0
        self.broken = False

    @property
    def watchers(self) -> Desk:
        """Who watches is noted here, too."""
        return self

    def listen(self, seconds: float, *, hold: bool) -> None:
        """A notifier hears."""
        assert seconds > 0
        self.listened.append(hold)

    async def page(self, after: int | None, wait: float) -> QuestionsSeen:
        """The questions, again and again."""
        assert after is None or wait > 0
        await asyncio.sleep(0.001)
        self.looks += 1
        if self.broken:
            raise KeyError("q_1")
        box = cast("StoredSandbox", Box)
        return QuestionsSeen([(each, box) for each in self.questions], [], 1)

    async def answer(self, identity: str, said: str, *, all_of: bool, pattern: str | None) -> None:
        """An answer."""
        assert (all_of, pattern) == (False, None)
        self.answers.append((identity, said))


class Bench:
    """A notifier at such a desk, and a clock that stands still."""

    def __init__(self, settings: NotifierSettings, *questions: CellQuestion, confined: Sequence[str]) -> None:
        self._confined = confined
        self.now = 1000.0
        self.desk = Desk(*questions)
        self.started = 0
        self.notifier = ProgramNotifier(
            cast("QuestionDesk", self.desk), lambda: settings, os.environ, self._plain, lambda: self.now
        )

    def _plain(self, command: Sequence[str]) -> Sequence[str]:
        self.started += 1
        return [*self._confined, *command]

    async def until(self, true: Any) -> None:
        """Wait until something is true, and no program runs."""
        async with asyncio.timeout(100):
            while not true() or self.notifier.running:  # noqa: ASYNC110 - programs have no event
                await asyncio.sleep(0.002)

    async def looks(self, count: int = 3) -> None:
        """Wait for some more looks at the questions."""
        until_ = self.desk.looks + count
        await self.until(lambda: self.desk.looks >= until_)


@contextlib.asynccontextmanager
async def bench(
    settings: NotifierSettings, *questions: CellQuestion, confined: Sequence[str] = ()
) -> AsyncIterator[Bench]:
    """One at work."""
    made = Bench(settings, *questions, confined=confined)
    running = asyncio.ensure_future(made.notifier.run())
    try:
        yield made
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def shell(text: str, **more: Any) -> NotifierSettings:
    """A program of the shell's."""
    return NotifierSettings(("sh", "-c", text), **more)


def test_an_answer_is_a_rule_under_its_name(tmp_path: Path) -> None:
    """The program has no rights and no descriptor of the daemon; its word is put for exactly that host, and is in the change log."""
    identity = GATEWAY_ID if os.geteuid() == 0 else os.geteuid()
    script = (
        f'test "$(id -u)" = {identity} || exit 1; grep -q "^CapEff:[[:space:]]*0*$" /proc/self/status || exit 1; '
        'ls -l /proc/$$/fd | grep -q "[3-9] -> socket\\|[0-9][0-9] -> socket" && exit 1; '
        'test -z "$IRONS_LINK$IRONS_KEEPER" || exit 1; '
        'read -r line; case $line in *\'"new[.]example", "port": 443\'*) echo hour ;; esac'
    )

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            config = lab.paths.state / "config.toml"
            config.write_text(f"[ask]\nexec = {json.dumps(['sh', '-c', script])}\n")
            cell, _ = await asking(lab)

            async def answered() -> bool:
                return bool(lab.policies[cell]["rules"])

            await until(answered, 180.0)
            (rule,) = lab.policies[cell]["rules"]
            assert (rule["pattern"], rule["list"], rule["scope"]) == (f"{HOST}:443", "allow", "sandbox")
            assert rule["until"]
            answer = await lab.client.get("/sandboxes/box/audit/changes")
            changes: Sequence[Mapping[str, Any]] = answer.json()["changes"]
            (last,) = [each for each in changes if each["what"] == "question-answered"]
            assert (last["by"], last["claimed_face"], last["after"]["answer"]) == ("irons", NAME, "hour")

    run(work())


@pytest.mark.parametrize(
    "script",
    [
        "echo always",
        "echo never",
        "echo stop",
        "echo 'hour *.example'",
        "yes hour",
        "head -c 1000000 /dev/zero",
        "true",
        "echo hour; exit 3",
        "echo hour; kill -9 $$",
        "echo hour; echo once",
        "exec 0<&-; echo",
        "yes wrong >&2",
    ],
)
def test_anything_else_is_no_answer(script: str) -> None:
    """A word that it may not say, too much, nothing, or a failure: the question stays, and the program is not run for it again."""

    async def work() -> None:
        async with bench(shell(script), question()) as at:
            await at.until(lambda: at.started)
            at.now += EVERY
            await at.looks()
            assert (at.desk.answers, at.started) == ([], 1)

    run(work())


def test_the_log_says_why_a_program_failed(caplog: pytest.LogCaptureFixture) -> None:
    """Also one that cannot be started once it has no rights: the exit code and the beginning of its stderr, cleaned."""

    async def work(settings: NotifierSettings) -> str:
        caplog.clear()
        async with bench(settings, question(), confined=CONFINED) as at:
            await at.until(lambda: at.started)
            await at.looks()
            assert at.desk.answers == []
        return caplog.text

    told = run(work(NotifierSettings(("/nowhere/at/all",))))
    assert "exit code 127: /nowhere/at/all: No such file or directory" in told
    told = run(work(shell(r"printf 'no \033[2Jkey'; printf 'no \033[2Jkey %0900d' 1 >&2; exit 3")))
    assert "exit code 3: no \\x1b[2Jkey 000" in told
    assert "0" * 300 not in told


def test_what_it_started_keeps_no_answer_back(tmp_path: Path) -> None:
    """The program has ended: what it printed is taken, though something that it left behind has its output too."""
    left = tmp_path / "left"

    async def work() -> None:
        script = f"sleep 3600 & echo $! > {left}; echo hour"
        async with bench(shell(script), question()) as at:
            await at.until(lambda: at.desk.answers)
            assert at.desk.answers == [(f"q_{HOST}", "hour")]

    try:
        run(work())
    finally:
        os.kill(int(left.read_text()), signal.SIGKILL)


def test_a_program_that_is_not_there_ends_nothing() -> None:
    """The next question is tried again."""

    async def work() -> None:
        async with bench(NotifierSettings(("/nowhere/at/all",)), question()) as at:
            await at.until(lambda: at.started)
            at.desk.questions = (question("b.example", "sb_2"),)
            await at.until(lambda: at.started == 2)
            assert at.desk.answers == []

    run(work())


def test_a_look_that_fails_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a look fails with, the next one is made, and questions are told of again."""
    monkeypatch.setattr(notifying, "LOOK", 0.001)

    async def work() -> None:
        async with bench(shell("echo no"), question()) as at:
            at.desk.broken = True
            await at.looks()
            assert at.started == 0
            at.desk.broken = False
            await at.until(lambda: at.desk.answers)
            assert at.desk.answers == [(f"q_{HOST}", "no")]

    run(work())


def test_it_says_what_the_settings_allow() -> None:
    """`exec_may` may list more; connections wait for it once it has answered, where it says so."""

    async def work() -> None:
        async with bench(shell("echo never", may=("never",), hold=True), question()) as at:
            await at.until(lambda: at.desk.answers)
            assert at.desk.answers == [(f"q_{HOST}", "never")]
            assert at.desk.listened[0] is False
            await at.looks()
            assert at.desk.listened[-1] is True
            at.now += 3600
            await at.looks()
            assert at.desk.listened[-1] is False

    run(work())


def test_one_message_for_a_sandbox_in_a_while() -> None:
    """Its other questions follow one by one, and do not keep those of another sandbox back."""

    async def work() -> None:
        many = [question(f"h{number}.example") for number in range(3)]
        async with bench(shell("echo no"), *many, question("other.example", "sb_2")) as at:
            await at.until(lambda: len(at.desk.answers) == 2)
            await at.looks()
            assert sorted(at.desk.answers) == [("q_h0.example", "no"), ("q_other.example", "no")]
            at.now += EVERY
            await at.until(lambda: len(at.desk.answers) == 3)
            await at.looks()
            assert at.desk.answers[-1] == ("q_h1.example", "no")
            assert at.started == 3

    run(work())


@given(st.text(max_size=300) | st.from_regex(r"https?://[a-z.]{1,200}/<a>\[x\]\(y\)", fullmatch=True))
def test_what_goes_out_has_no_link_in_it(text: str) -> None:
    """Nothing in it is found by a matcher of links, and it has so many bytes at most."""
    told = defanged(text)
    assert not URL.search(told)
    assert len(told.encode()) <= MOST_FIELD


def test_the_reason_goes_out_only_where_the_settings_say_so() -> None:
    """The owner of a host is never cut; the agent's words are its own field."""
    asked = question(f"{'a' * 60}.{'b' * 60}.evil.example", reason="see https://evil.example/<b>")
    box = cast("StoredSandbox", Box)
    told = message(shell("true"), asked, box)
    assert told["host"].endswith("b[.]evil[.]example")
    assert "reason" not in told
    assert message(shell("true", reason=True), asked, box)["reason"] == "see https[:]  evil[.]example  b "
