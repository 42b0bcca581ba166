"""What can go wrong with a server, on demand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from irons.record import NamedTuple

if TYPE_CHECKING:
    from threading import Event


class Fault(NamedTuple):
    """One way to answer badly.

    Attributes:
        status: The HTTP status; 0 answers as usual (after `delay`).
        body: The body, as it is.
        headers: Headers beyond the body's length.
        keep: How many bytes of the body are sent before the connection is dropped; None sends it all.
        delay: Seconds to wait before anything is answered.
        drop: Close the connection without an answer.
        until: Answer nothing before this is set.
    """

    status: int = 0
    body: bytes = b""
    headers: Mapping[str, str] = {}
    keep: int | None = None
    delay: float = 0.0
    drop: bool = False
    until: Event | None = None


def error(status: int, text: str = "it broke") -> Fault:
    """The contract's error object with this status: 500, 401, 404, 409 and the like."""
    import json

    return Fault(status, json.dumps({"error": text}).encode(), {"Content-Type": "application/json"})


def too_many(retry_after: str = "0") -> Fault:
    """429 with a Retry-After header."""
    return error(429, "too many requests")._replace(
        headers={"Content-Type": "application/json", "Retry-After": retry_after}
    )


def html(status: int = 502) -> Fault:
    """A page of HTML, as a proxy in between sends."""
    page = b"<html><head><title>Bad Gateway</title></head>\n<body>\x1b[31mnginx</body></html>"
    return Fault(status, page, {"Content-Type": "text/html"})


def cut_json() -> Fault:
    """JSON that ends in its middle, though its length says that it is whole."""
    return Fault(200, b'{"sandboxes": [{"name": "on', {"Content-Type": "application/json"})


def broken_off() -> Fault:
    """A connection that is dropped in the middle of the body."""
    return Fault(200, b'{"sandboxes": [{"name": "one"}]}', {"Content-Type": "application/json"}, keep=10)


def dropped() -> Fault:
    """A connection that is closed without an answer."""
    return Fault(drop=True)


def slow(seconds: float) -> Fault:
    """The usual answer, late."""
    return Fault(delay=seconds)


def held(until: Event) -> Fault:
    """The usual answer, once the event is set: as late as the test needs it, on any machine."""
    return Fault(until=until)
