"""`http://irons.internal/`: what a sandbox may know of its own policy, its last refusals and its questions. Nothing can be changed here.

`ask_page` has the one thing that is taken: a request to ask a person.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from irons_local.gateway.decide import ask_page, pages, refusals
from irons_local.gateway.http1.authority import BadRequestError
from irons_local.gateway.http1.heads import Head
from irons_local.gateway.http1.reader import RequestReader
from irons_local.gateway.streams.stream import Wire
from irons_local.times import rfc3339
from irons_policy.hostnames import INTERNAL
from irons_policy.modes import wire_mode

if TYPE_CHECKING:
    from irons_local.gateway.ask.asking import Asking
    from irons_local.gateway.record.folding import Folder
    from irons_local.gateway.shared.cell import Cell
    from irons_local.gateway.shared.context import Context

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
        **({"asking": _asked(cell.asking)} if policy is not None and policy.mode == "ask" else {}),
    }


def _asked(asking: Asking) -> dict[str, Any]:
    """The sandbox's questions: those that are open, and what was answered a short while ago by no rule."""
    questions = [
        {
            "host": each.place.host.text,
            "port": each.place.port,
            "state": "open",
            "since": rfc3339(each.since),
            "waiting": len(each.waiting),
            "reason": each.reason or None,
        }
        for each in asking.open()
    ]
    answered = [
        {
            "host": each.place.host.text,
            "port": each.place.port,
            "state": "allowed" if each.reply == "once" else "refused",
        }
        for each in asking.answered()
    ]
    return {
        "request": "POST http://irons.internal/ask with a JSON object: host, port, reason, and wait in seconds",
        "questions": [*questions, *answered],
    }


async def serve(client: Wire, cell: Cell, context: Context) -> None:
    """Answer one request.

    Raises:
        OSError: the connection broke.
    """
    asked = None
    try:
        async with asyncio.timeout(TIMEOUT):
            reader = RequestReader()
            head = await _head(client, reader)
            if head is not None and head.target.partition(b"?")[0] in ask_page.TARGETS:
                ask_page.check_head(head)
                asked = ask_page.read_request(await _body(client, reader, head))
        answer = None if head is None else await _answer(client, cell, context, head, asked)
    except TimeoutError:
        client.reset()
        return
    except BadRequestError as error:
        answer = pages.response("400 Bad Request", f"irons: malformed request: {error}\n")
    except ask_page.InvalidRequestError as error:
        answer = ask_page.refusal(error)
    if answer is not None:
        await refusals.say(client, answer)


async def _answer(
    client: Wire, cell: Cell, context: Context, head: Head, asked: ask_page.AgentRequest | None
) -> bytes:
    if asked is not None:
        return await ask_page.answer(client, cell, context, asked)
    if any(host.text != NAME for host in head.hosts):
        # A page in a browser could read the policy under a name of its own that leads here.
        answer = pages.response("403 Forbidden", f"irons: this is for programs that ask {NAME} themselves\n")
    elif head.method not in {b"GET", b"HEAD"}:
        answer = pages.response("405 Method Not Allowed", "irons: this can only be read\n")
    elif head.target.partition(b"?")[0] not in {b"/", b"http://irons.internal/"}:
        answer = pages.response("404 Not Found", "irons: there is only http://irons.internal/\n")
    else:
        body = json.dumps(view(cell, context.folder), indent=2) + "\n"
        answer = pages.response("200 OK", body, "application/json")
    return answer[: answer.index(b"\r\n\r\n") + 4] if head.method == b"HEAD" else answer


async def _head(client: Wire, reader: RequestReader) -> Head | None:
    """The head of the first request; None for a client that ends without one.

    Raises:
        BadRequestError: it is malformed.
        OSError: the connection broke.
    """
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


async def _body(client: Wire, reader: RequestReader, head: Head) -> bytes:
    """The body of a request, whose length is known to be bounded.

    Raises:
        BadRequestError: it ends before that.
        OSError: the connection broke.
    """
    reader.expect(head)
    body = reader.part()
    while not reader.whole:
        more = await client.recv()
        if not more:
            raise BadRequestError("its body was never finished")
        reader.feed(more)
        body += reader.part()
    return body
