"""HTTP/1.1 (RFC 9112) over a unix socket, as far as this API needs it: importing an HTTP library takes longer than most calls.

What goes wrong has the names that httpx has for it.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from irons.client import receiving
from irons.client.backends import headers_for
from irons.client.receiving import Reply, packed, too_long
from irons.wire_values import FACE_HEADER, REQUEST_HEADER

if TYPE_CHECKING:
    from irons.hookspecs import Backend
    from irons.settings.settings import Settings

LONGEST_HEAD = 1 << 16
"""Bytes of a head, and of a chunk's line with its trailers."""

_SUN_PATH = 107
_CHUNK = 1 << 16
_MOST_INTERIM = 16


class ConnectError(Exception):
    """There was no connection."""


class ReadTimeout(Exception):
    """The answer did not come in time."""


class RemoteProtocolError(Exception):
    """The connection ended early, or what came is not an HTTP answer."""


class UnixChannel:
    """Connections to one unix socket, kept alive; see `irons.client.channels.Channel`."""

    failures = (ConnectError, ReadTimeout, RemoteProtocolError)
    final = (ReadTimeout,)
    unsent = (ConnectError,)

    def __init__(self, backend: Backend, settings: Settings) -> None:
        """Take the backend's socket and what wakes its server."""
        self._path = backend.socket
        self._waker = backend.waker
        self._head = "".join(
            f"{name}: {value}\r\n" for name, value in {"Host": "irons", **headers_for(settings)}.items()
        )
        self._idle: list[_Connection] = []
        self._lock = threading.Lock()
        self._closed = False

    def send(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None,
        params: Mapping[str, str] | None,
        request_id: str,
        face: str,
        read: float,
        connect: float,
        whole: float,
    ) -> Reply:
        """Send a request; see `Channel.send`."""
        # ASCII: a lone surrogate that a server sent goes back to it unchanged.
        content = b"" if body is None else json.dumps(body).encode()
        target = quote(path, safe="/%:@!$&'()*+,;=~") + (f"?{urlencode(params)}" if params else "")
        length = "" if body is None else f"Content-Length: {len(content)}\r\n"
        head = f"{method} {target} HTTP/1.1\r\n{self._head}{REQUEST_HEADER}: {request_id}\r\n{FACE_HEADER}: {face}\r\n{length}\r\n"
        request = head.encode("ascii") + content
        if self._waker is not None:
            self._waker.before()
        connection = self._taken(connect)
        try:
            reply, lasts = connection.exchange(request, read, time.monotonic() + whole)
        except BaseException:
            connection.close()
            raise
        with self._lock:
            kept = lasts and not self._closed
            if kept:
                self._idle.append(connection)
        if not kept:
            connection.close()
        return reply

    def close(self) -> None:
        """Close the connections that no request is on; each other one is closed after its answer."""
        with self._lock:
            self._closed = True
            while self._idle:
                self._idle.pop().close()

    def _taken(self, seconds: float) -> _Connection:
        """A connection that is kept and still open, else another."""
        with self._lock:
            while self._idle:
                connection = self._idle.pop()
                if connection.is_open():
                    return connection
                connection.close()
        try:
            return _Connection(self._path, seconds)
        except ConnectError:
            if self._waker is None:
                raise
            self._waker.after_refusal()
            return _Connection(self._path, seconds)


class _Connection:
    """One connection: a request, its answer, and so on."""

    def __init__(self, path: str, seconds: float) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._got = bytearray()
        self._read, self._due = seconds, 0.0
        try:
            self._sock.settimeout(seconds)
            _connect(self._sock, path)
        except OSError as error:
            self._sock.close()
            raise ConnectError(error.strerror or str(error)) from None

    def close(self) -> None:
        self._sock.close()

    def is_open(self) -> bool:
        """False where the server has closed it, or sent what was not asked for."""
        self._sock.setblocking(False)
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return not self._got
        except OSError:
            return False
        return False

    def exchange(self, request: bytes, read: float, due: float) -> tuple[Reply, bool]:
        """Send a request; gives its answer, and whether the connection can be used again."""
        self._read, self._due = read, due
        self._sock.settimeout(read)
        # A server may answer, and close, before it has read everything.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._sock.sendall(request)
        try:
            return self._answer()
        except TimeoutError:
            raise ReadTimeout("the answer did not end in time") from None
        except OSError as error:
            raise RemoteProtocolError(error.strerror or str(error)) from None

    def _answer(self) -> tuple[Reply, bool]:
        for _ in range(_MOST_INTERIM + 1):
            status, reason, fields = _head(self._until(b"\r\n\r\n"))
            if status >= 200:
                break
        else:
            raise RemoteProtocolError("one interim answer after another")
        packed(fields.get("content-encoding", "identity"), status)
        coding = fields.get("transfer-encoding", "")
        lasts = "close" not in fields.get("connection", "").lower()
        if status in (204, 304):
            content = b""
        elif coding:
            if coding.lower() != "chunked":
                raise RemoteProtocolError(f"the transfer coding {coding!r} is not known")
            content = self._chunks(status)
        elif "content-length" in fields:
            content = self._exactly(_number(fields["content-length"], 10), status)
        else:
            content, lasts = self._rest(status), False
        reply = Reply(status, reason, fields.get("retry-after", ""), fields.get("location", ""), content)
        return reply, lasts

    def _more(self) -> bool:
        """Read something; False at the end."""
        left = self._due - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(min(self._read, left))
        chunk = self._sock.recv(_CHUNK)
        self._got += chunk
        return bool(chunk)

    def _until(self, mark: bytes) -> bytes:
        while (at := self._got.find(mark, 0, LONGEST_HEAD)) < 0:
            if len(self._got) >= LONGEST_HEAD:
                raise RemoteProtocolError("its head is too long")
            if not self._more():
                raise RemoteProtocolError("it closed the connection in the middle of its answer")
        return self._cut(at + len(mark))

    def _exactly(self, length: int, status: int) -> bytes:
        if length > receiving.LARGEST_ANSWER:
            raise too_long(status)
        while len(self._got) < length:
            if not self._more():
                raise RemoteProtocolError("it closed the connection in the middle of its answer")
        return self._cut(length)

    def _rest(self, status: int) -> bytes:
        more = True
        while more:
            if len(self._got) > receiving.LARGEST_ANSWER:
                raise too_long(status)
            more = self._more()
        return self._cut(len(self._got))

    def _chunks(self, status: int) -> bytes:
        content = bytearray()
        while length := _number(self._until(b"\r\n").partition(b";")[0].strip().decode("latin-1"), 16):
            if len(content) + length > receiving.LARGEST_ANSWER:
                raise too_long(status)
            content += self._exactly(length, status)
            if self._exactly(2, status) != b"\r\n":
                raise RemoteProtocolError("a chunk does not end where it should")
        # Trailers are of no use here.
        trailers = 0
        while (line := self._until(b"\r\n")) != b"\r\n":
            trailers += len(line)
            if trailers > LONGEST_HEAD:
                raise RemoteProtocolError("its trailers are too long")
        return bytes(content)

    def _cut(self, length: int) -> bytes:
        data = bytes(self._got[:length])
        del self._got[:length]
        return data


def _connect(sock: socket.socket, path: str) -> None:
    if len(os.fsencode(path)) <= _SUN_PATH:
        sock.connect(path)
        return
    # sun_path is 108 bytes; the directory's descriptor gives a short name for a long one.
    directory, _, name = path.rpartition("/")
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{descriptor}/{name}")
    finally:
        os.close(descriptor)


def _head(raw: bytes) -> tuple[int, str, dict[str, str]]:
    """Status, reason and fields of a head; of a repeated field the first counts, but lengths must not differ."""
    first, *lines = raw.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    version, _, rest = first.partition(" ")
    code, _, reason = rest.partition(" ")
    if not version.startswith("HTTP/1.") or len(code) != 3 or not (code.isascii() and code.isdecimal()):
        raise RemoteProtocolError("that is not an HTTP answer")
    fields: dict[str, str] = {} if version != "HTTP/1.0" else {"connection": "close"}
    for line in lines:
        name, colon, value = line.partition(":")
        name, value = name.lower(), value.strip()
        if not colon:
            raise RemoteProtocolError("a field of its head has no colon")
        if name == "content-length" and fields.get(name, value) != value:
            raise RemoteProtocolError("it gives two lengths")
        fields.setdefault(name, value)
    return int(code), reason, fields


def _number(text: str, base: int) -> int:
    digits = "0123456789abcdef"[:base]
    if not 0 < len(text) < 17 or any(character not in digits for character in text.lower()):
        raise RemoteProtocolError("a length in it is not a number")
    return int(text, base)
