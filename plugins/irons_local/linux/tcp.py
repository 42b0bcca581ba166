"""TCP sockets of the local backend: listeners and dials alike are made here, so that none of them delays small writes."""

from __future__ import annotations

import contextlib
import socket

KEEPALIVE_IDLE = 60
"""Seconds of silence after which the kernel asks whether the peer of a tuned connection is still there."""


def tcp_socket(family: socket.AddressFamily, flags: int = 0) -> socket.socket:
    """Make a TCP socket that sends small packets at once (RFC 896 does not apply to it).

    What is accepted from it inherits that. Its protocol is named because asyncio looks at it, and because Python
    hands it on to accepted sockets.

    Args:
        family: `AF_INET` or `AF_INET6`.
        flags: `SOCK_NONBLOCK` and the like.

    Raises:
        OSError: the kernel gives none.
    """
    sock = socket.socket(family, socket.SOCK_STREAM | flags, socket.IPPROTO_TCP)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def tcp_listener(address: str, port: int, backlog: int) -> socket.socket:
    """Make a TCP socket that listens.

    Args:
        address: an IPv4 or IPv6 address of this machine.
        port: TCP port; 0 for any free one.
        backlog: connections that wait to be accepted.

    Raises:
        OSError: the port is taken, or the address is not one of this machine.
    """
    sock = tcp_socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        # Connections of an earlier listener that are still in TIME_WAIT would keep the port.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def tcp_connection(host: str, port: int, within: float) -> socket.socket:
    """Connect to a TCP port; the host is looked up, and each of its addresses tried.

    Args:
        host: a name or an address.
        port: TCP port.
        within: seconds for each address, and for what is done on the connection later.

    Raises:
        OSError: no address of it takes the connection, or in time.
    """
    sock = socket.create_connection((host, port), within)
    tune(sock)
    return sock


def tune(sock: socket.socket) -> None:
    """Send small packets at once, and notice within minutes that a peer vanished.

    What a tuned listener accepts inherits all of it (tcp(7)), at no system call per connection.
    """
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    keep_alive(sock)


def keep_alive(sock: socket.socket) -> None:
    """Notice within minutes that a peer vanished."""
    try:  # each dial comes here, and `suppress` costs three calls
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
    except OSError:
        pass
