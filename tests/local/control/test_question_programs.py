"""The programs behind questions: looked for once a question was listed, few at once, and waited for by nothing."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.local.control.asking import HOST, in_json, tell, told
from tests.local.control.lab import Lab, control_plane, run, until

from irons_local.cell.layout import Ends
from irons_local.control.clients import programs as programs_module
from irons_local.control.clients.programs import BURST, EVERY, UNKNOWN, Programs, ProgramWanted
from irons_local.control.sandbox.engine_registry import INCUS, VM

ENDS = ["100.64.0.2", 40_000, "100.64.9.9", 443]


async def looked(lab: Lab, count: int = 1) -> None:
    """Wait until the keeper was asked for so many programs."""

    async def asked() -> bool:
        return len(lab.looks) >= count

    await until(asked)


def test_the_program_of_a_question_comes_after_it(tmp_path: Path) -> None:
    """The question is listed without it, and again once the keeper has answered; of hostile words no control character is left."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = str((await lab.create("box", mode="ask"))["id"])
            (question,) = await tell(lab, cell, told(ends=ENDS))
            assert (question["program"], question["pid"]) == ("", None)
            await looked(lab)
            fields = {"address": ENDS[0], "port": ENDS[1], "peer": ENDS[2], "peer_port": ENDS[3]}
            assert lab.looks[0].body.items() >= {"op": "cell.program", "cell": cell, **fields}.items()
            before = await in_json(lab, "GET", "/questions")
            lies = "pip\x1b[2J\n\u202e" + "x" * 400
            await lab.keeper.answer(lab.looks[0], {"program": lies, "pid": 41})
            after = before
            while after["token"] == before["token"]:
                after = await in_json(lab, "GET", f"/questions?after={before['token']}&wait=60")
            (listed,) = after["questions"]
            assert listed["program"] == "pip\\x1b[2J\\n\\u202e" + "x" * 181 + "…"
            assert (listed["pid"], listed["id"]) == (41, question["id"])
            # The program of one connection is enough.
            await tell(lab, cell, told(ends=[*ENDS[:1], 40_001, *ENDS[2:]], count=9))
            assert len(lab.looks) == 1

    run(work())


def test_a_question_is_answered_while_its_program_is_looked_for(tmp_path: Path) -> None:
    """A keeper that never answers, one that has no answer, and one that answers nonsense, leave the question as it is."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = str((await lab.create("box", mode="ask"))["id"])
            (question,) = await tell(lab, cell, told(ends=ENDS))
            await looked(lab)
            answer = {"answer": "always"}
            await in_json(lab, "POST", f"/questions/{question['id']}", json=answer)
            # It comes too late.
            await lab.keeper.answer(lab.looks[0], {"program": "curl", "pid": 7})
            for number, nonsense in enumerate(({}, {"program": 7, "pid": "x"}, {"program": "", "pid": 1}), 2):
                await tell(lab, cell, told(f"h{number}.example", ends=ENDS))
                await looked(lab, number)
                await lab.keeper.answer(lab.looks[-1], nonsense)
            (last,) = await tell(lab, cell, told("last.example", ends=ENDS))
            await looked(lab, 5)
            assert (last["program"], last["host"]) == ("", "last.example")

    run(work())


@pytest.mark.parametrize(
    "ends", [None, [], "x", ["100.64.0.2", 0, "x", 443], [*ENDS, 1], ["1" * 99, *ENDS[1:]]]
)
def test_nothing_is_looked_for_without_a_connection(tmp_path: Path, ends: object) -> None:
    """A question of the agent's, one of an older gateway, and one whose ends are malformed are listed as they are."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = str((await lab.create("box", mode="ask"))["id"])
            assert [each["host"] for each in await tell(lab, cell, told(ends=ends))] == [HOST]
            # What is looked for now is the only one.
            await tell(lab, cell, told(ends=ends), told("b.example", ends=ENDS))
            await looked(lab)
            assert len(lab.looks) == 1

    run(work())


@pytest.mark.parametrize("engine", [VM, INCUS])
def test_nothing_is_looked_for_where_no_program_is_in_the_cell(tmp_path: Path, engine: str) -> None:
    """The connections of a virtual machine are those of QEMU, and those of a container arrive from outside."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = str((await lab.create("box", mode="ask"))["id"])

            def becomes_one(connection: sqlite3.Connection) -> None:
                connection.execute("UPDATE sandboxes SET engine = ?", (engine,))

            await lab.store.write(becomes_one)
            (question,) = await tell(lab, cell, told(ends=ENDS))
            assert (question["program"], question["pid"]) == ("", None)
            assert lab.looks == []

    run(work())


async def rounds() -> None:
    """Let the loop go round until all that needs nothing from outside is done."""
    for _ in range(300):
        await asyncio.sleep(0)


class Finder:
    """A keeper that answers when it is told to.

    Attributes:
        running: the cells of which a program is looked for.
        begun: how many were, ever.
        most: of how many at once.
    """

    def __init__(self) -> None:
        self.running: list[str] = []
        self.begun = self.most = 0
        self.go = asyncio.Event()

    async def __call__(self, cell: str, _ends: Ends) -> Mapping[str, Any]:
        """Look for one."""
        self.running.append(cell)
        self.begun += 1
        self.most = max(self.most, len(self.running))
        await self.go.wait()
        self.running.remove(cell)
        return {}


def test_a_flood_of_questions_costs_little() -> None:
    """Two programs are looked for at once, of one cell one; a cell's share is spent after a few, and another's is its own."""

    async def work() -> None:
        now = 1000.0
        finder = Finder()
        programs = Programs(finder, lambda _: None, lambda: now)
        flood = [
            ProgramWanted(f"q_{cell}_{number}", cell, Ends("a", 1, "b", 2))
            for cell in ("sb_1", "sb_2", "sb_3")
            for number in range(500)
        ]
        programs.want(flood)
        await asyncio.sleep(0)
        assert finder.running == ["sb_1", "sb_2"]
        finder.go.set()
        await rounds()
        programs.want(flood)
        await rounds()
        assert (finder.begun, finder.most) == (3 * BURST, 2)
        now += EVERY
        programs.want(())
        await rounds()
        assert finder.begun == 3 * BURST + 3
        programs.keep({"q_sb_1_0"})
        now += 1000 * EVERY
        programs.want(())
        await rounds()
        assert finder.begun == 3 * BURST + 3
        assert programs.of("q_sb_1_0") == UNKNOWN

    run(work())


def test_what_had_to_wait_is_looked_for_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a cell may have another share it gets it, though nobody asks for the questions meanwhile."""
    monkeypatch.setattr(programs_module, "EVERY", 0.01)

    async def work() -> None:
        looks = 0
        done = asyncio.Event()

        async def find(_cell: str, _ends: Ends) -> Mapping[str, Any]:
            nonlocal looks
            looks += 1
            if looks == BURST + 3:
                done.set()
            return {}

        programs = Programs(find, lambda _: None)
        programs.want([ProgramWanted(f"q{at}", "sb_1", Ends("a", at, "b", 2)) for at in range(BURST + 3)])
        await asyncio.wait_for(done.wait(), 60)

    run(work())


def test_a_look_that_no_one_took_is_taken_again() -> None:
    """A keeper that is busy or away has not looked, so the same connection is looked for when the questions are read again."""

    async def work() -> None:
        looks: list[Ends] = []

        async def find(_cell: str, ends: Ends) -> Mapping[str, Any] | None:
            looks.append(ends)
            return None if len(looks) == 1 else {"program": "git", "pid": 3}

        programs = Programs(find, lambda _: None)
        for _ in range(3):
            programs.want([ProgramWanted("q", "sb_1", Ends("a", 1, "b", 443))])
            await rounds()
        assert len(looks) == 2
        assert programs.of("q").words == "git"

    run(work())


def test_a_connection_is_looked_for_once_and_the_next_one_again() -> None:
    """A question whose program was not found is looked for again when another connection waits."""

    async def work() -> None:
        looks: list[Ends] = []

        async def find(_cell: str, ends: Ends) -> Mapping[str, Any]:
            looks.append(ends)
            return {"program": "git", "pid": True} if ends.port == 2 else {}

        changed: list[str] = []
        programs = Programs(find, changed.append)
        for port in (1, 1, 2, 2, 3):
            programs.want([ProgramWanted("q", "sb_1", Ends("a", port, "b", 443))])
            await rounds()
        assert [each.port for each in looks] == [1, 2]
        assert (programs.of("q").words, programs.of("q").pid, changed) == ("git", None, ["sb_1"])

    run(work())
