"""HTTP by a proxy that lets nobody CONNECT to port 80: one request in absolute form (RFC 9112, section 3.2.2) per connection.

The answer comes from the server by way of the proxy, or from the proxy itself. Its head is read within bounds; what
shows itself to be the proxy's own word is not passed on, nor is a field that is about the proxy.
"""

from __future__ import annotations

import asyncio
import re

from irons_local.gateway.http1.authority import BadRequestError
from irons_local.gateway.http1.heads import Head
from irons_local.gateway.http1.requests import Requests
from irons_local.gateway.inspect.late import LateError
from irons_local.gateway.reach.dial import DialError
from irons_local.gateway.reach.proxy import Forwarding
from irons_local.gateway.reach.tunnel import status_of
from irons_local.gateway.relay.session import Session
from irons_local.gateway.streams.stream import Wire

MOST_HEAD = 64 * 1024
ANSWER_TIMEOUT = 600.0
"""Seconds in which a server must have begun to answer."""

_END = b"\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_ORIGIN = re.compile(rb"[a-zA-Z][a-zA-Z0-9+.-]*://[^/?#]*")
_HOP = re.compile(rb"(?i)(connection|keep-alive|te|upgrade|expect|http2-settings|proxy-[^:]*)")
_PROXY = re.compile(rb"(?i)(connection|keep-alive|upgrade|via|proxy-[^:]*|x-cache[^:]*|x-squid-[^:]*)")
_OWN_WORD = re.compile(rb"(?im)^(proxy-authenticate|x-squid-error)[ \t]*:")
_OWN_STATUS = frozenset({407, 502, 504})
_MOST_INTERIM = 8


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
    asks = any(name.lower() == b"expect" for name, _ in head.fields)
    await session.send(rewritten(head, way).wire())
    if asks and not requests.waiting:
        await session.client.send(_CONTINUE)
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


def rewritten(head: Head, way: Forwarding) -> Head:
    """The head as it goes to the proxy: the checked target, and nothing of the client's that is for a proxy."""
    absolute = _ORIGIN.match(head.target)
    path = head.target if absolute is None else head.target[absolute.end() :]
    if path == b"*":
        path = b""
    elif not path.startswith(b"/"):
        path = b"/" + path
    fields = [field for field in head.fields if not _HOP.fullmatch(field[0])]
    fields.append((b"Connection", b"close"))
    if way.authorization is not None:
        fields.append((b"Proxy-Authorization", way.authorization))
    return head._replace(target=b"http://" + way.target + path, fields=tuple(fields))


def passed_on(head: bytes) -> bytes:
    """The head of a server's answer as it goes to the client: the last on its connection, without a trace of the proxy.

    Raises:
        DialError: it is the proxy's own.
    """
    status = status_of(head)
    if status in _OWN_STATUS or _OWN_WORD.search(head):
        why = "wants a user and password" if status == 407 else "did not fetch it"
        raise DialError(f"the upstream proxy {why} (status {status})")
    first, *lines = head.removesuffix(_END).split(b"\r\n")
    kept = [line for line in lines if not _PROXY.fullmatch(line.partition(b":")[0])]
    return b"\r\n".join([first, *kept, b"Connection: close"]) + _END


async def _answer(server: Wire) -> tuple[bytes, bytes]:
    """The head of the final answer, and what was read beyond it."""
    data = b""
    interim = 0
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT):
            while True:
                end = data.find(_END)
                if end >= 0:
                    head, data = data[: end + len(_END)], data[end + len(_END) :]
                    if status_of(head) >= 200:
                        return passed_on(head), data
                    interim += 1
                    if interim > _MOST_INTERIM:
                        raise DialError("the upstream proxy's answer has no end")
                    continue
                if len(data) > MOST_HEAD:
                    raise DialError("the upstream proxy's answer is too large")
                more = await server.recv()
                if not more:
                    raise DialError("the upstream proxy closed the connection")
                data += more
    except TimeoutError:
        raise DialError("the upstream proxy did not answer in time") from None
