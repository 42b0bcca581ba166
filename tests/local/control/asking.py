"""What tests of questions share: what a gateway tells of one, and how it comes to be listed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.local.control.lab import Lab, until

HOST = "new.example"


async def in_json(lab: Lab, method: str, path: str, status: int = 200, **more: Any) -> Any:
    """What the API answers, with this status."""
    answer = await lab.client.request(method, path, **more)
    assert answer.status_code == status, answer.text
    return answer.json()


def told(
    host: str = HOST, port: int = 443, since: int = 1_700_000_000_000_000, **more: Any
) -> dict[str, Any]:
    """A question as a worker tells it."""
    given = {"host": host, "port": port, "protocol": "tls", "since": since, "last": since}
    return {**given, "count": 3, "waiting": 2, **more}


async def tell(
    lab: Lab, cell: str, *questions: Any, others: int = 0, answers: Sequence[Any] = ()
) -> Sequence[Any]:
    """Have the gateway say what is asked of a cell; gives what the API then lists."""
    before = await in_json(lab, "GET", "/questions")
    notice: dict[str, Any] = {"op": "questions", "cell": cell, "questions": list(questions), "others": others}
    notice["answers"] = list(answers)
    await lab.gateway.link.send(notice)

    async def changed() -> bool:
        return bool((await in_json(lab, "GET", "/questions"))["token"] != before["token"])

    await until(changed)
    found: Sequence[Any] = (await in_json(lab, "GET", "/questions"))["questions"]
    return found


async def asking(lab: Lab) -> tuple[str, dict[str, Any]]:
    """A sandbox in mode ask with one open question."""
    cell = str((await lab.create("box", mode="ask"))["id"])
    (question,) = await tell(lab, cell, told())
    return cell, question
