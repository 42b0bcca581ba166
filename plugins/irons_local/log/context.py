"""What the code that runs now works for; each line that it logs names these, and so does each request to another process."""

from __future__ import annotations

import re
from contextvars import ContextVar
from typing import Protocol

from irons.wire_values import REQUEST_HEADER

HEADER = REQUEST_HEADER.lower().encode()
"""The HTTP header that carries the id of a request, in the case in which ASGI gives it."""

_REQUEST = re.compile(r"[0-9A-Za-z_-]{1,40}", re.ASCII)


class Named(Protocol):
    """A connection; its id is made as text only where a line is logged."""

    @property
    def sandbox(self) -> str:
        """The id of its sandbox."""
        ...

    @property
    def connection(self) -> str:
        """Its id; empty before it has one."""
        ...


REQUEST: ContextVar[str] = ContextVar("request", default="")
"""Id of the request."""

SANDBOX: ContextVar[str] = ContextVar("sandbox", default="")
"""Id of the sandbox."""

CONNECTION: ContextVar[Named | None] = ContextVar("connection", default=None)
"""The connection in a gateway worker."""


def request_id(value: object) -> str:
    """Return `value` if it is the id of a request, else an empty text: it comes from clients, and goes into logs."""
    return value if isinstance(value, str) and _REQUEST.fullmatch(value) else ""
