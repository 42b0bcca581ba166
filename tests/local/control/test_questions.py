"""Questions over HTTP: told by the gateway, listed, and followed by faces."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.local.control.asking import HOST, asking, in_json, tell, told
from tests.local.control.lab import control_plane, run

from irons.asking.screen import AskScreen
from irons.client.models.questions import QuestionPage


def test_what_the_gateway_says_is_listed(tmp_path: Path) -> None:
    """Sandbox, host, port and times; what is malformed is passed over, and what is gone is gone."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell, question = await asking(lab)
            assert question.pop("id").startswith("q_")
            assert question == {
                "sandbox_name": "box",
                "sandbox_id": cell,
                "host": HOST,
                "port": 443,
                "protocol": "tls",
                "pattern": f"{HOST}:443",
                "since": "2023-11-14T22:13:20.000000Z",
                "last": "2023-11-14T22:13:20.000000Z",
                "count": 3,
                "waiting": 2,
                "requests": 0,
                "reason": "",
                "program": "",
                "pid": None,
                "new": True,
                "refused": 0,
                "below": [],
                "below_count": 0,
                "marks": [],
            }
            odd = [
                None,
                {},
                told(host="\x1b[2J"),
                told(port=0),
                told(count="3"),
                told(since=-1),
                {**told(), "host": 7},
                told(requests="1"),
            ]
            assert [each["host"] for each in await tell(lab, cell, *odd, told("b.example"))] == ["b.example"]
            await tell(lab, cell, told(), others=412)
            (others,) = (await in_json(lab, "GET", "/questions"))["others"]
            assert others == {"sandbox_name": "box", "sandbox_id": cell, "places": 412}
            assert await tell(lab, cell) == []

    run(work())


def test_answers_that_are_no_rules_are_listed_while_they_last(tmp_path: Path) -> None:
    """With the seconds that are left; what is malformed is passed over, and what the gateway tells of no more is gone."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = str((await lab.create("box", mode="ask"))["id"])
            given = {"host": HOST, "port": 443, "reply": "no", "left": 300}
            odd: list[Any] = [
                None,
                {},
                {**given, "host": "\x1b[2J"},
                {**given, "port": 0},
                {**given, "left": 0},
                {**given, "left": 10**9},
                {**given, "left": "300"},
                {**given, "reply": "always"},
                {**given, "reply": ["no"]},
            ]
            await tell(lab, cell, told(), answers=[*odd, given])
            (listed,) = (await in_json(lab, "GET", "/questions"))["answers"]
            assert 0 < listed.pop("seconds") <= 300
            assert listed == {
                "sandbox_name": "box",
                "sandbox_id": cell,
                "host": HOST,
                "port": 443,
                "pattern": f"{HOST}:443",
                "answer": "no",
            }
            await tell(lab, cell)
            assert (await in_json(lab, "GET", "/questions"))["answers"] == []

    run(work())


def test_a_flood_of_one_sandbox_leaves_another_s_question_on_the_screen(tmp_path: Path) -> None:
    """It comes second, though it is the last one, also in a pane of 30 columns and 12 lines; the rest of the flood is a number."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            flooding = str((await lab.create("box", mode="ask"))["id"])
            cell = str((await lab.create("quiet", mode="ask"))["id"])
            since = 1_700_000_000_000_000
            flood = [told(f"h{number}.example", since=since + number) for number in range(32)]
            await tell(lab, flooding, *flood, others=9_968)
            found = await tell(lab, cell, told("mine.example", since=since + 10_000))
            assert [each["host"] for each in found[:3]] == ["h0.example", "mine.example", "h1.example"]
            assert len(found) == 33
            screen = AskScreen()
            screen.take(QuestionPage.of(await in_json(lab, "GET", "/questions")))
            shown = screen.lines(30, 12)
            assert any("mine.example:443" in line for line in shown), shown

    run(work())


def test_a_worker_is_not_believed_of_others_cells(tmp_path: Path) -> None:
    """What it says of a cell that it does not serve is not shown, nor of a sandbox that is not there."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell, _ = await asking(lab)
            notice = {"op": "questions", "cell": "sb_00000000000000ff", "questions": [told()], "others": 9}
            await lab.gateway.link.send(notice)
            assert [each["host"] for each in await tell(lab, cell, told("b.example"))] == ["b.example"]
            assert (await in_json(lab, "GET", "/questions"))["others"] == []

    run(work())


def test_following_waits_for_something_new(tmp_path: Path) -> None:
    """With the token of the last answer a request waits, and is answered when a question comes."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell, _ = await asking(lab)
            token = (await in_json(lab, "GET", "/questions"))["token"]
            waiting = asyncio.ensure_future(
                in_json(lab, "GET", "/questions", params={"after": token, "wait": 60})
            )
            await tell(lab, cell, told("b.example"))
            assert [each["host"] for each in (await waiting)["questions"]] in ([HOST], ["b.example"])

    run(work())


def test_questions_go_with_their_gateway(tmp_path: Path) -> None:
    """A worker that was started again has none; what it is told next is what there is."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell, _ = await asking(lab)
            lab.server.plane.questions.forget(cell)
            assert (await in_json(lab, "GET", "/questions"))["questions"] == []

    run(work())
