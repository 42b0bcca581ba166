"""Requests in absolute form to a proxy, and its answers (RFC 9112, section 3.2.2): what goes on of either.

What shows itself to be the proxy's own word is not passed on, nor is a field that is about the proxy.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from irons_local.gateway.http1.heads import Head

MOST_HEAD = 64 * 1024
MOST_INTERIM = 8
ANSWER_TIMEOUT = 600.0
"""Seconds in which a server must have begun to answer."""
END = b"\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_ORIGIN = re.compile(rb"[a-zA-Z][a-zA-Z0-9+.-]*://[^/?#]*")
_HOP = re.compile(rb"(?i)(connection|keep-alive|te|upgrade|expect|http2-settings|proxy-[^:]*)")
_PROXY = re.compile(rb"(?i)(connection|keep-alive|upgrade|via|proxy-[^:]*|x-cache[^:]*|x-squid-[^:]*)")
_OWN_WORD = re.compile(rb"(?im)^(proxy-authenticate|x-squid-error)[ \t]*:")
_OWN_STATUS = frozenset({407, 502, 504})
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\r\n]*)?\r\n")


class AnswerError(Exception):
    """The proxy answered in the server's place, or nothing that can be understood; the message is for people."""


class Forwarding(NamedTuple):
    """How requests go over a connection to the proxy that takes them in absolute form.

    Attributes:
        target: the authority that goes into them.
        authorization: the value of `Proxy-Authorization`, or None.
    """

    target: bytes
    authorization: bytes | None


def asks_first(head: Head) -> bool:
    """True for a request whose client waits for a word before it sends the body (RFC 9110, section 10.1.1)."""
    return any(name.lower() == b"expect" for name, _ in head.fields)


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


def status_of(head: bytes) -> int:
    """The status code of an answer.

    Raises:
        AnswerError: it is not an answer of HTTP/1.
    """
    match = _STATUS.match(head)
    if match is None:
        raise AnswerError("the upstream proxy does not speak HTTP")
    return int(match[1])


def passed_on(head: bytes) -> bytes:
    """The head of a server's answer as it goes to the client: the last on its connection, without a trace of the proxy.

    Raises:
        AnswerError: it is the proxy's own.
    """
    status = status_of(head)
    if status in _OWN_STATUS or _OWN_WORD.search(head):
        why = "wants a user and password" if status == 407 else "did not fetch it"
        raise AnswerError(f"the upstream proxy {why} (status {status})")
    first, *lines = head.removesuffix(END).split(b"\r\n")
    kept = [line for line in lines if not _PROXY.fullmatch(line.partition(b":")[0])]
    return b"\r\n".join([first, *kept, b"Connection: close"]) + END


class ProxyAnswer:
    """Reads the head of the final answer, within bounds.

    Attributes:
        rest: what was read beyond it.
    """

    def __init__(self) -> None:
        self._interim = 0
        self.rest = b""

    def feed(self, data: bytes) -> bytes | None:
        """Take more of what the proxy says; nothing for its end.

        Returns:
            The head as it goes to the client, or None where more must come first.

        Raises:
            AnswerError: it is the proxy's own, or has no end.
        """
        if not data:
            raise AnswerError("the upstream proxy closed the connection")
        self.rest += data
        while (end := self.rest.find(END)) >= 0:
            head, self.rest = self.rest[: end + len(END)], self.rest[end + len(END) :]
            if status_of(head) >= 200:
                return passed_on(head)
            self._interim += 1
            if self._interim > MOST_INTERIM:
                raise AnswerError("the upstream proxy's answer has no end")
        if len(self.rest) > MOST_HEAD:
            raise AnswerError("the upstream proxy's answer is too large")
        return None
