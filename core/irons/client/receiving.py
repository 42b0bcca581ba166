"""An HTTP answer received whole, in bounded time and memory, no matter what the other side sends."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from irons.client.backends import load_httpx
from irons.errors import ApiError
from irons.record import NamedTuple
from irons.text import clean

if TYPE_CHECKING:
    from weakref import WeakSet

    import httpx

LARGEST_ANSWER = 16 << 20
"""Bytes of an answer that are read at most; no answer of this API is larger."""

_OPENED = ("connect_tcp.complete", "connect_unix_socket.complete", "start_tls.complete")


class Reply(NamedTuple):
    """An HTTP response, read to its end."""

    status: int
    reason: str
    retry_after: str
    location: str
    content: bytes

    def object(self) -> dict[str, Any] | None:
        """The JSON object it holds; None where it is not one. There is no NaN in JSON, and no number beyond what a float holds.

        Bytes that are not UTF-8 are replaced: what is around them is still worth reading.
        """
        try:
            try:
                found = json.loads(self.content, parse_constant=_finite, parse_float=_finite)
            except UnicodeDecodeError:
                text = self.content.decode(errors="replace")
                found = json.loads(text, parse_constant=_finite, parse_float=_finite)
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def excerpt(self, limit: int) -> str:
        """The beginning of its text, on one line and cleaned."""
        return clean(" ".join(self.content[:2000].decode(errors="replace").split()), limit=limit)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def packed(coding: str, status: int) -> None:
    """Refuse an answer with a content coding: a few bytes may unpack to more than the machine's memory. Raises `ApiError`."""
    if coding.lower() != "identity":
        raise ApiError(
            f"the server compressed its answer ({clean(coding, limit=40)}), which was not asked for",
            status=status,
        )


def too_long(status: int) -> ApiError:
    """Return what to say of an answer that is longer than `LARGEST_ANSWER`."""
    return ApiError(f"the server's answer is longer than {LARGEST_ANSWER >> 20} MiB", status=status)


def _content(response: httpx.Response) -> bytes:
    """Return the body as it was sent, up to `LARGEST_ANSWER`.

    A transport that answers without a network (`MockTransport`, `Response(json=…)`) gives a response that is read already.
    """
    # Joined once: a buffer that grows and is copied then takes two more times the memory of a page, which the kernel has to clear.
    received: list[bytes] = []
    size = 0
    for chunk in (response.content,) if response.is_stream_consumed else response.iter_raw():
        received.append(chunk)
        size += len(chunk)
        if size > LARGEST_ANSWER:
            raise too_long(response.status_code)
    return b"".join(received)


class OpenStreams:
    """The streams of connections that a client has opened.

    A client that is closed closes the connections that it has. One that a thread is just opening is not among them, and would stay open.
    """

    def __init__(self) -> None:
        # Channels without httpx import this module, too.
        from weakref import WeakSet

        self._streams: WeakSet[Any] = WeakSet()
        self._lock = threading.Lock()
        self._closed = False

    def add(self, stream: Any) -> None:
        """Take a stream that was opened; it is closed at once where the others have been."""
        with self._lock:
            self._streams.add(stream)
            closed = self._closed
        if closed:
            stream.close()

    def close(self) -> None:
        """Close those that are open, and those that will be."""
        with self._lock:
            self._closed = True
            streams = list(self._streams)
        for stream in streams:
            stream.close()


class BoundedReader:
    """Sends requests, and reads each answer up to a length and a moment.

    The timeouts of httpx bound each read of the socket; a server that sends a byte now and then, or one interim answer after
    another, would be read from for ever. So the stream is given the time that the whole answer has left. Threads may share one.
    """

    def __init__(self) -> None:
        self._now = threading.local()

    def send(
        self,
        opened: httpx.Client,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None,
        params: Mapping[str, str] | None,
        headers: Mapping[str, str],
        timeout: httpx.Timeout,
        whole: float,
        streams: OpenStreams,
    ) -> Reply:
        """Send a request and return its answer.

        Args:
            opened: The client.
            method: GET, POST, PUT, DELETE.
            path: Relative to the client's base URL.
            body: Sent as JSON.
            params: The query.
            headers: Fields of this request alone.
            timeout: For connecting, and for each step of sending and reading.
            whole: Seconds from now on within which the whole answer must have come.
            streams: Hears of each connection that is opened for it.

        Raises:
            ApiError: The answer is too long, or packed though no one asked for that.
            httpx.HTTPError: There was none, or not in time.
        """
        self._now.due = time.monotonic() + whole
        # ASCII: a lone surrogate that a server sent goes back to it unchanged.
        content = None if body is None else json.dumps(body).encode()
        traced = {"trace": partial(self._traced, streams)}
        with opened.stream(
            method,
            path,
            content=content,
            params=params,
            headers=headers,
            timeout=timeout,
            extensions=traced,
        ) as response:
            packed(response.headers.get("content-encoding", "identity"), response.status_code)
            return Reply(
                response.status_code,
                response.reason_phrase,
                response.headers.get("retry-after", ""),
                response.headers.get("location", ""),
                _content(response),
            )

    def _traced(self, streams: OpenStreams, event: str, about: Mapping[str, Any]) -> None:
        """Bound what is read from each connection that opens, and note it (httpcore's extension `trace` tells of them)."""
        if event.endswith(_OPENED):
            stream = about["return_value"]
            stream.read = self._in_time(stream.read)
            streams.add(stream)

    def _in_time(self, read: Callable[[int, float | None], bytes]) -> Callable[[int, float | None], bytes]:
        def read_in_time(most: int, timeout: float | None = None) -> bytes:
            left: float = self._now.due - time.monotonic()
            if left <= 0:
                raise load_httpx().ReadTimeout("the answer did not end in time")
            return read(most, left if timeout is None else min(timeout, left))

        return read_in_time
