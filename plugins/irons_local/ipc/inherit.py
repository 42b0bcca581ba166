"""Sockets that a process was started with: the environment names their descriptors."""

from __future__ import annotations

import os
import socket


def inherited(variable: str) -> socket.socket | None:
    """The socket whose descriptor the environment names; programs started from here must not inherit it."""
    try:
        sock = socket.socket(fileno=int(os.environ.pop(variable)))
    except (KeyError, ValueError, OSError):
        return None
    sock.set_inheritable(False)
    return sock
