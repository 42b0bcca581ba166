"""HTTP by a proxy that refuses CONNECT to port 80: one request in absolute form (RFC 9112, section 3.2.2) per connection.

The answer comes from the server by way of the proxy, or from the proxy itself; its head is read within bounds.
"""

from __future__ import annotations

import asyncio

from irons_local.gateway.http1 import absolute
from irons_local.gateway.http1.absolute import AnswerError, Forwarding
from irons_local.gateway.http1.authority import BadRequestError
from irons_local.gateway.http1.heads import Head
from irons_local.gateway.http1.requests import Requests
from irons_local.gateway.inspect.late import LateError
from irons_local.gateway.reach.dial import DialError
from irons_local.gateway.relay.session import Session
from irons_local.gateway.streams.stream import Wire


async def relay_absolute(session: Session, requests: Requests, head: Head, way: Forwarding) -> None:
    """Send one request by way of the proxy, and relay its answer to the end.

    Args:
        session: the connection; its server is the proxy.
        requests: reads the body from the client.
        head: checked.
        way: how requests go to the proxy.

    Raises:
        LateError: the body is malformed, or the request asks for an upgrade.
        DialError: the proxy answered in the server's place, or not at all; nothing of it was passed on.
        OSError: it broke.
    """
    if head.websocket:
        raise DialError("the upstream proxy lets no WebSocket through on port 80")
    await session.send(absolute.rewritten(head, way).wire())
    if absolute.asks_first(head) and not requests.waiting:
        await session.client.send(absolute.CONTINUE)
    try:
        async for part in requests.body(head):
            await session.send(part)
    except BadRequestError as error:
        raise LateError(f"malformed request: {error}", "http", error.cause, error.host) from None
    answer, rest = await _answer(session.server)
    await session.answer(answer)
    if rest:
        await session.answer(rest)
    session.begin(answers_only=True)
    # Nothing more is asked on this connection, and the answer says so: wait until the client has gone.
    while await session.client.recv():
        pass
    await session.finish(tell=False)


async def _answer(server: Wire) -> tuple[bytes, bytes]:
    """The head of the final answer, and what was read beyond it."""
    answer = absolute.ProxyAnswer()
    try:
        async with asyncio.timeout(absolute.ANSWER_TIMEOUT):
            while (head := answer.feed(await server.recv())) is None:
                pass
    except AnswerError as error:
        raise DialError(str(error)) from None
    except TimeoutError:
        raise DialError("the upstream proxy did not answer in time") from None
    return head, answer.rest
