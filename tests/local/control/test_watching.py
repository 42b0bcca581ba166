"""Who watches the questions, so that connections wait: faces for as long as they look, and notifiers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.local.control.asking import asking, in_json, told
from tests.local.control.lab import control_plane, run, until

from irons_local.control.egress import watchers
from irons_local.control.egress.questions import QuestionDesk
from irons_local.control.egress.watchers import KEYS_WITHIN, LEASE, NOT_HELD
from irons_local.ipc.messages import OpenQuestions, Watched, WatchQuestions


class Heard:
    """Workers that only listen."""

    def __init__(self) -> None:
        self.watched: list[tuple[float, float, int]] = []
        self.cells: list[Mapping[str, Watched]] = []

    def watch(self, told: WatchQuestions) -> None:
        """A person watches."""
        self.watched.append(told[:3])
        self.cells.append(told.cells or {})

    async def reply(self, cell: str, host: str, port: int, reply: str, since: int) -> int | None:
        """An answer."""
        raise AssertionError((cell, host, port, reply, since))


def test_a_face_that_follows_watches(tmp_path: Path) -> None:
    """The gateway hears of it at once and again; without `watch`, or long after the last key, nobody is there."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await asking(lab)
            assert (await in_json(lab, "GET", "/questions"))["watched"] is False
            idle = {"watch": "true", "idle": KEYS_WITHIN + 1}
            assert (await in_json(lab, "GET", "/questions", params=idle))["watched"] is False
            assert "questions.watch" not in lab.gateway.asked
            found = await in_json(lab, "GET", "/questions", params={"watch": "true", "idle": 1})
            assert found["watched"] is True

            async def heard() -> bool:
                return "questions.watch" in lab.gateway.asked

            await until(heard)

    run(work())


def test_a_notifier_is_asked_and_holds_only_where_it_says_so() -> None:
    """It alone is a lease without a wait; a person who watches, or its own `hold`, makes connections wait."""
    now = 100.0
    workers = Heard()
    nothing: Any = None
    questions = QuestionDesk(workers, nothing, nothing, 4.0, lambda: now, caught_up=nothing)
    questions.watchers.listen(2.0, hold=False)
    assert workers.watched == [(LEASE, NOT_HELD, 0)]
    assert not questions.watchers.watched()
    questions.watchers.watch(0.0, None)
    assert workers.watched[-1] == (LEASE, 4.0, 0)
    now += LEASE
    questions.watchers.listen(2.0, hold=True)
    assert workers.watched[-1] == (LEASE, 4.0, 0)
    assert questions.watchers.watched()
    now += 2.0 + LEASE
    assert not questions.watchers.watched()


def test_a_request_that_comes_late_is_no_key() -> None:
    """What a face says of its last key looks later by the time that it takes; only a key makes connections wait once more."""
    now = 100.0
    workers = Heard()
    nothing: Any = None
    watching = QuestionDesk(workers, nothing, nothing, 4.0, lambda: now, caught_up=nothing).watchers
    watching.watch(0.0, 1.0)
    now += 20.0
    watching.watch(0.0, 18.5)
    now += 20.0
    watching.watch(0.0, 39.0)
    assert workers.watched[-1][2] == 1
    now += 20.0
    watching.watch(0.0, 10.0)
    assert workers.watched[-1][2] == 2


@pytest.mark.parametrize("comes", ["watch", "listen"])
def test_who_comes_as_another_one_leaves_is_there_without_a_gap(comes: str) -> None:
    """The lease of who has left ends before the workers are told again by themselves, so they hear at once of who is there."""
    now = 100.0
    workers = Heard()
    nothing: Any = None
    questions = QuestionDesk(workers, nothing, nothing, 4.0, lambda: now, caught_up=nothing)
    questions.watchers.watch(0.0, None)
    now += LEASE - 0.5
    if comes == "watch":
        questions.watchers.watch(2.0, None)
    else:
        questions.watchers.listen(2.0, hold=True)
    assert workers.watched == [(LEASE, 4.0, 0)] * 2
    # Who goes on looking is heard of no oftener than that.
    questions.watchers.watch(2.0, None)
    now += 2.0
    questions.watchers.watch(2.0, None)
    assert len(workers.watched) == (2 if comes == "watch" else 3)


def test_the_lease_is_as_long_as_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look extends it by its own time and a moment; a key is told apart from a look, and the clock alone ends it."""
    now = 100.0
    workers = Heard()
    nothing: Any = None
    questions = QuestionDesk(workers, nothing, nothing, 4.0, lambda: now, caught_up=nothing)
    assert not questions.watchers.watched()
    assert questions.watchers.watch(2.0, 5.0)
    assert workers.watched == [(LEASE, 4.0, 1)]
    now += 2.0
    # The same key, seven seconds ago by now.
    questions.watchers.watch(2.0, 7.0)
    assert len(workers.watched) == 1
    now += 2.0
    questions.watchers.watch(2.0, 0.0)
    assert workers.watched[-1] == (LEASE, 4.0, 2)
    now += 2.0 + LEASE
    assert not questions.watchers.watched()
    # One that stays needs no key.
    assert questions.watchers.watch(0.0, None)
    assert workers.watched[-1] == (LEASE, 4.0, 2)
    assert not questions.watchers.watch(2.0, KEYS_WITHIN + 0.1)
    monkeypatch.setattr(watchers, "RENEW", 0.001)

    async def renewed() -> None:
        nonlocal now
        running = asyncio.ensure_future(questions.run())
        told_before = len(workers.watched)
        while len(workers.watched) < told_before + 3:
            await asyncio.sleep(0)
            await asyncio.sleep(0.001)
        now += LEASE
        told_before = -1
        while told_before != len(workers.watched):
            told_before = len(workers.watched)
            await asyncio.sleep(0.02)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    run(renewed())


def test_who_watches_one_sandbox_holds_no_other() -> None:
    """Its own lease and keys go to that cell, in one message with those for all; where others watch all, the longer one counts."""
    now = 100.0
    workers = Heard()
    nothing: Any = None
    watching = QuestionDesk(workers, nothing, nothing, 4.0, lambda: now, caught_up=nothing).watchers
    assert watching.watch(0.0, 1.0, ("sb_1",))
    assert workers.watched[-1][0] < 0.001
    assert workers.cells[-1] == {"sb_1": {"lease": LEASE, "hold": 4.0, "keys": 1}}
    assert watching.watched(("sb_1", "sb_2"))
    assert not watching.watched(("sb_2",))
    assert not watching.watched()
    assert not watching.watch(0.0, KEYS_WITHIN + 1, ("sb_2",))
    # A notifier that holds nothing leaves it held.
    watching.listen(2.0, hold=False)
    assert workers.watched[-1] == (LEASE, NOT_HELD, 0)
    assert workers.cells[-1]["sb_1"] == {"lease": LEASE, "hold": 4.0, "keys": 1}
    now += 2.0
    watching.watch(0.0, 0.0)
    assert workers.watched[-1] == (LEASE, 4.0, 1)
    assert workers.cells[-1]["sb_1"] == {"lease": LEASE, "hold": 4.0, "keys": 2}
    now += LEASE
    # No one watches it any more: as all, and with its keys, so that no key seems pressed.
    watching.listen(2.0, hold=False)
    assert workers.cells[-1]["sb_1"] == {"lease": LEASE, "hold": NOT_HELD, "keys": 2}
    assert not watching.watched(("sb_1",))


def test_what_is_remembered_of_sandboxes_that_ask_nothing_is_bounded() -> None:
    """However many others asked and ask no more, who follows one sandbox has the same token until that changes."""

    class Nothing:
        async def read(self, _: object) -> dict[str, Any]:
            return {}

    async def work() -> None:
        nothing: Any = Nothing()
        desk = QuestionDesk(Heard(), nothing, nothing, 4.0, caught_up=nothing)
        desk.heard(OpenQuestions("sb_mine", [told()]))

        async def token() -> int:
            return (await desk.page(None, 0, {"sb_mine"})).token

        seen = await token()
        for number in range(5_000):
            desk.heard(OpenQuestions(f"sb_{number}", [told()]))
            desk.heard(OpenQuestions(f"sb_{number}", []))
        assert await token() == seen
        assert len(desk._changed) < 2_500
        desk.heard(OpenQuestions("sb_mine", []))
        assert await token() > seen

    run(work())
