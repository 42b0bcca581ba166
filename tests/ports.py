"""Ports of the loopback address that nobody else is given while a test uses them, whether or not anybody listens."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port that refuses connections until the test listens on it, and again after that.

    A socket is bound to it and never listens: the kernel gives the port to no one who asks for any, and a program that sets
    SO_REUSEADDR, as servers do, can listen on it.
    """
    with socket.socket() as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        port: int = kept.getsockname()[1]
        yield port
