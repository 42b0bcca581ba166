"""What the tests of `irons.sandbox` and `irons.aio` share: the sandboxes that are there, and a server in one."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.request import urlopen

import irons
from irons.testing import FakeApi

Make = Callable[..., AbstractContextManager[irons.Box]]

HELLO = f"hello {os.urandom(8).hex()}".encode()
"""What the server of this process says, and no other one."""


class Hello(BaseHTTPRequestHandler):
    """Answers that."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(HELLO)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Keep quiet."""


def leads_there(port: int) -> bool:
    """Tell whether a port leads to the server, and not to nobody or to who was given it since."""
    try:
        with urlopen(f"http://127.0.0.1:{port}", timeout=60) as answer:
            return bool(answer.read() == HELLO)
    except (OSError, HTTPException):
        return False


def fetched(port: int) -> bytes:
    """What a port answers."""
    with urlopen(f"http://127.0.0.1:{port}", timeout=60) as answer:
        found: bytes = answer.read()
        return found


def names(api: FakeApi) -> set[str]:
    """The sandboxes that are there."""
    with api.lock:
        return set(api.sandboxes) - {"one"}
