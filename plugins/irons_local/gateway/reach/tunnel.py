"""Asking an HTTP proxy for a connection (CONNECT, RFC 9110 section 9.3.6), and reading its answer within bounds.

Nothing of a sandbox is sent before the proxy has agreed, and nothing that the proxy says goes to the sandbox.
"""

from __future__ import annotations

import asyncio
import socket

from irons_local.gateway.http1 import absolute
from irons_local.gateway.reach.dial import DialError
from irons_local.gateway.streams.stream import Wire
from irons_policy.hostnames import Host

MOST_ANSWER = 16 * 1024
ANSWER_TIMEOUT = 30.0
"""Seconds in which the proxy must have connected, or reported why not."""
_END = b"\r\n\r\n"
_MOST_INTERIM = 8
_CREDENTIALS = 407


class ProxyRefusedError(DialError):
    """The proxy answered, and not by connecting.

    Attributes:
        status: its status code.
    """

    def __init__(self, status: int) -> None:
        why = "wants a user and password" if status == _CREDENTIALS else "refused to connect"
        super().__init__(f"the upstream proxy {why} (status {status})")
        self.status = status


def authority(host: Host, port: int) -> bytes:
    """The target of a CONNECT request: a canonical name or an address, and a port."""
    text = f"[{host.text}]" if host.address is not None and host.address.version == 6 else host.text
    return f"{text}:{port}".encode("ascii")


def request(target: bytes, authorization: bytes | None) -> bytes:
    """The request for a connection to `target`."""
    lines = [b"CONNECT %s HTTP/1.1" % target, b"Host: " + target]
    if authorization is not None:
        lines.append(b"Proxy-Authorization: " + authorization)
    return b"\r\n".join(lines) + _END


def status_of(head: bytes) -> int:
    """The status code of an answer.

    Raises:
        DialError: it is not an answer of HTTP/1.
    """
    try:
        return absolute.status_of(head)
    except absolute.AnswerError as error:
        raise DialError(str(error)) from None


async def connect(wire: Wire, target: bytes, authorization: bytes | None) -> None:
    """Have the proxy at the other end of `wire` connect it to `target`; what follows is the target's.

    Args:
        wire: connected to the proxy, and the caller's to close.
        target: from `authority`.
        authorization: the value of `Proxy-Authorization`, or None.

    Raises:
        ProxyRefusedError: the proxy did not connect.
        DialError: its answer was not understood, or did not come in time.
        OSError: the connection to it broke.
    """
    await wire.send(request(target, authorization))
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT):
            status = status_of(await _head(wire))
            for _ in range(_MOST_INTERIM):
                if status >= 200:
                    break
                status = status_of(await _head(wire))
    except TimeoutError:
        raise DialError("the upstream proxy did not answer in time") from None
    if not 200 <= status < 300:
        raise ProxyRefusedError(status)


async def _head(wire: Wire) -> bytes:
    """The head of an answer, and not a byte more is taken: what follows it may be the target's first words."""
    head = b""
    while len(head) <= MOST_ANSWER:
        try:
            more = wire.sock.recv(MOST_ANSWER, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            await wire.readable()
            continue
        if not more:
            raise DialError("the upstream proxy closed the connection")
        seen = len(head)
        end = (head + more).find(_END)
        taken = more if end < 0 else more[: end + len(_END) - seen]
        head += taken
        wire.sock.recv(len(taken))
        if end >= 0:
            return head
    raise DialError("the upstream proxy's answer is too large")
