"""How questions end, in the change log: who answered from where, and those that no one answered, once each and whoever is killed."""

from __future__ import annotations

import asyncio
import os
import pty
from pathlib import Path
from typing import Any

import pytest
from tests.local.control.asking import HOST, asking, tell, told
from tests.local.control.lab import ForwardLoop, Lab, control_plane, run, until

from irons_local.control.egress.question_log import GRACE, NOT_TAKEN, REASONS, WORKER_ENDED

SINCE = 1_700_000_000_000_000
POST = """
import os, socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
body = b'{"answer": "once"}'
sock.sendall(
    b"POST /questions/%s HTTP/1.1\\r\\nHost: irons\\r\\nContent-Type: application/json\\r\\nContent-Length: %d\\r\\n\\r\\n%s"
    % (sys.argv[2].encode(), len(body), body)
)
sock.recv(65536)
"""


def over(host: str = HOST, why: str = "expired", **more: Any) -> dict[str, Any]:
    """A question that ended, as a worker tells it."""
    return {"host": host, "port": 443, "since": SINCE, "count": 3, "why": why, **more}


async def say(lab: Lab, cell: str, *ended: Any, questions: Any = ()) -> None:
    """Have the gateway say which questions of a cell ended."""
    notice = {
        "op": "questions",
        "cell": cell,
        "questions": list(questions),
        "others": 0,
        "ended": list(ended),
    }
    await lab.gateway.link.send(notice)


async def changes(lab: Lab) -> list[dict[str, Any]]:
    """What the change log has of questions."""
    found: list[dict[str, Any]] = []
    query: dict[str, int] = {}
    while True:
        answer = (await lab.client.get("/audit/changes", params=query)).json()
        found += answer["changes"]
        if not answer["changes"]:
            return [each for each in found if each["what"].startswith("question-")]
        query = {"pageToken": answer["changes"][-1]["id"]}


async def recorded(lab: Lab, count: int) -> list[dict[str, Any]]:
    """The same, once there is so much."""

    async def there() -> bool:
        return len(await changes(lab)) >= count

    await until(there)
    return await changes(lab)


@pytest.mark.parametrize("why", REASONS)
def test_a_question_that_no_one_answered_is_recorded_once(tmp_path: Path, why: str) -> None:
    """However often a worker tells of it; irons itself is who did it, and the record says why."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell, question = await asking(lab)
            for _ in range(3):
                await say(lab, cell, over(why=why))
            await say(lab, cell, over("last.example"))
            first, last = await recorded(lab, 2)
            assert (first["what"], first["subject"], first["by"]) == (
                "question-ended",
                f"{HOST}:443",
                "irons",
            )
            assert first["before"] == {"question": question["id"], "tried": 3}
            assert (first["sandbox_name"], first["reason"]) == ("box", REASONS[why])
            assert last["subject"] == "last.example:443"

    run(work())


def test_what_a_worker_may_not_say_is_passed_over(tmp_path: Path) -> None:
    """Malformed ends, and those of a cell that it does not serve or that is not there, are no records."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell, _ = await asking(lab)
            odd: tuple[Any, ...] = (
                None,
                {},
                over("\x1b[2J"),
                over(port=0),
                over(count="3"),
                over(since=-1),
                over(why="because"),
                {**over(), "host": 7},
            )
            await say(lab, "sb_00000000000000ff", over())
            await say(lab, cell, *odd, over("b.example"))
            (found,) = await recorded(lab, 1)
            assert found["subject"] == "b.example:443"

    run(work())


def test_a_thousand_expired_questions_write_no_rule(tmp_path: Path) -> None:
    """Each has its record, and neither the sandbox nor all sandboxes have a rule."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell, _ = await asking(lab)
            for batch in range(20):
                await say(lab, cell, *(over(f"h{batch}-{each}.example") for each in range(50)))
            found = await recorded(lab, 1_000)
            assert {each["what"] for each in found} == {"question-ended"}
            assert len({each["subject"] for each in found}) == 1_000
            for scope in ("/sandboxes/box/egress", "/egress"):
                assert (await lab.client.get(scope)).json()["rules"] == []
            assert lab.policies[cell]["rules"] == []

    run(work())


def test_a_worker_that_ended_takes_its_questions_with_it(tmp_path: Path) -> None:
    """They are recorded as that after a moment, in which the worker may say that it asks one still."""
    loop = ForwardLoop()

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell, _ = await asking(lab)
            await tell(lab, cell, told(), told("still.example"))
            lab.server.plane.questions.forget(cell)
            await tell(lab, cell, told("still.example"))
            assert await changes(lab) == []
            loop.skip(GRACE)
            (found,) = await recorded(lab, 1)
            assert (found["subject"], found["reason"]) == (f"{HOST}:443", WORKER_ENDED)

    run(work(), loop)


def test_a_control_plane_that_was_killed_learns_of_it_later(tmp_path: Path) -> None:
    """What was recorded before is not recorded again; what ended while it was dead is."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell, _ = await asking(lab)
            await say(lab, cell, over())
            await recorded(lab, 1)
            await lab.kill()
            await lab.start()

            async def known() -> bool:
                await say(lab, cell, over(), over("b.example"))
                return len(await changes(lab)) > 1

            await until(known)
            assert [each["subject"] for each in await changes(lab)] == [f"{HOST}:443", "b.example:443"]

    run(work())


@pytest.mark.parametrize("said", ["once", "no", "always", "never"])
def test_a_control_plane_that_is_killed_leaves_no_answer_without_a_record(tmp_path: Path, said: str) -> None:
    """The record is there before the gateway hears of the answer."""
    loop = ForwardLoop()

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            _, question = await asking(lab)
            lab.gateway.deaf = True
            answering = asyncio.ensure_future(
                lab.client.post(f"/questions/{question['id']}", json={"answer": said})
            )
            await recorded(lab, 1)
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
            killing = asyncio.ensure_future(lab.kill())
            # A server that ends waits for the request that it is answering.
            while not killing.done():
                loop.skip(1)
                await asyncio.sleep(0)
            await killing
            await lab.start()
            (found, *_) = await changes(lab)
            assert (found["what"], found["after"]["answer"]) == ("question-answered", said)
            rules = (await lab.client.get("/sandboxes/box/egress")).json()["rules"]
            assert len(rules) == (said in ("always", "never"))

    run(work(), loop)


def test_an_answer_that_the_gateway_does_not_take_is_recorded_as_that(tmp_path: Path) -> None:
    """Who asked is told that the question is gone, and a second record follows the first."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            _, question = await asking(lab)
            lab.gateway.gone = True
            answer = await lab.client.post(f"/questions/{question['id']}", json={"answer": "once"})
            assert answer.status_code == 404
            first, second = await recorded(lab, 2)
            assert (first["what"], second["what"]) == ("question-answered", "question-ended")
            assert second["reason"] == NOT_TAKEN

    run(work())


@pytest.mark.process
def test_the_terminal_of_an_answer_is_recorded(tmp_path: Path) -> None:
    """It is the one that the kernel knows of the process at the other end, and none where there is none."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            _, question = await asking(lab)
            near, far = pty.openpty()
            name = os.ttyname(far)
            try:
                process = await asyncio.create_subprocess_exec(
                    "setsid",
                    "--ctty",
                    "python3",
                    "-c",
                    POST,
                    str(lab.paths.api_socket),
                    question["id"],
                    stdin=far,
                )
                assert await process.wait() == 0
            finally:
                os.close(near)
                os.close(far)
            (found,) = await recorded(lab, 1)
            assert found["after"]["terminal"] == name.removeprefix("/dev/")

    run(work())
