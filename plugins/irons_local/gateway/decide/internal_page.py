"""`http://irons.internal/`: what a sandbox may know of its own policy and its last refusals. Nothing can be changed here."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from irons_local.gateway.decide import pages, refusals
from irons_local.gateway.http1.authority import BadRequestError
from irons_local.gateway.http1.heads import Head
from irons_local.gateway.http1.reader import RequestReader
from irons_local.gateway.streams.stream import Wire
from irons_local.times import rfc3339
from irons_policy.hostnames import INTERNAL
from irons_policy.modes import wire_mode

if TYPE_CHECKING:
    from irons_local.gateway.record.folding import Folder
    from irons_local.gateway.shared.cell import Cell

NAME = INTERNAL
TIMEOUT = 10.0


def view(cell: Cell, folder: Folder) -> dict[str, Any]:
    """What there is to know: no address that the host resolved or its owner pinned is in it."""
    policy = cell.policy
    rules = [] if policy is None else [rule.to_json() for rule in policy.rules]
    return {
        "sandbox": {"id": cell.name, "name": cell.title},
        **({"mode": None} if policy is None else wire_mode(policy.mode)),
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
            head = await _head(client)
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


async def _head(client: Wire) -> Head | None:
    """The head of the first request; None for a client that ends without one.

    Raises:
        BadRequestError: it is malformed.
        OSError: the connection broke.
    """
    reader = RequestReader()
    while True:
        head = reader.head() if reader.begun() else None
        if head is not None:
            return head
        more = await client.recv()
        if not more:
            if reader.begun():
                raise BadRequestError("its head was never finished")
            return None
        reader.feed(more)
