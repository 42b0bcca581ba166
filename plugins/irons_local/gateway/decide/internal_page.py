"""`http://irons.internal/`: what a sandbox may know of its own policy and its last refusals. Nothing can be changed here."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from irons_local.gateway.decide import pages, refusals
from irons_local.gateway.http1.authority import BadRequestError
from irons_local.gateway.http1.requests import Requests
from irons_local.gateway.streams.stream import Wire
from irons_local.times import rfc3339
from irons_policy.hostnames import INTERNAL

if TYPE_CHECKING:
    from irons_local.gateway.accept.cell import Cell
    from irons_local.gateway.record.folding import Folder

NAME = INTERNAL
TIMEOUT = 10.0


def view(cell: Cell, folder: Folder) -> dict[str, Any]:
    """What there is to know: no address that the host resolved or its owner pinned is in it."""
    policy = cell.policy
    rules = [] if policy is None else [rule.to_json() for rule in policy.rules]
    return {
        "sandbox": {"id": cell.name, "name": cell.title},
        "mode": None if policy is None else policy.mode,
        "rules": [{key: rule.get(key) for key in ("pattern", "list", "scope")} for rule in rules],
        "refusals": [
            {
                "time": rfc3339(each.at),
                "host": each.refusal.host,
                "port": each.refusal.port,
                "protocol": each.refusal.protocol,
                "reason": each.refusal.inside or each.refusal.reason,
                "cause": each.refusal.cause,
                "count": each.count,
                "allow": each.command,
            }
            for each in reversed(folder.of(cell.name).recent)
        ],
    }


async def serve(client: Wire, cell: Cell, folder: Folder) -> None:
    """Answer one request.

    Raises:
        OSError: the connection broke.
    """
    try:
        async with asyncio.timeout(TIMEOUT):
            head = await Requests(client, b"").head()
    except TimeoutError:
        client.reset()
        return
    except BadRequestError as error:
        await refusals.say(client, pages.response("400 Bad Request", f"irons: malformed request: {error}\n"))
        return
    if head is None:
        return
    if head.method not in {b"GET", b"HEAD"}:
        answer = pages.response("405 Method Not Allowed", "irons: this can only be read\n")
    elif head.target.partition(b"?")[0] not in {b"/", b"http://irons.internal/"}:
        answer = pages.response("404 Not Found", "irons: there is only http://irons.internal/\n")
    else:
        body = json.dumps(view(cell, folder), indent=2) + "\n"
        answer = pages.response("200 OK", body, "application/json")
    if head.method == b"HEAD":
        answer = answer[: answer.index(b"\r\n\r\n") + 4]
    await refusals.say(client, answer)
