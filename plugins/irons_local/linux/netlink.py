"""Netlink messages and attributes, and the kernel's acknowledgement (netlink(7))."""

from __future__ import annotations

import os
import socket
import struct

_NLMSG_ERROR = 2


def attribute(kind: int, payload: bytes) -> bytes:
    """One netlink attribute, padded (netlink(7))."""
    return struct.pack("=HH", 4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def header(kind: int, flags: int, payload: bytes) -> bytes:
    """One netlink message (netlink(7))."""
    return struct.pack("=IHHII", 16 + len(payload), kind, flags, 0, 0) + payload


def acknowledged(sock: socket.socket) -> None:
    """Read the kernel's acknowledgement of the message just sent.

    Raises:
        OSError: the kernel refused the message.
    """
    data = sock.recv(4096)
    kind, number = struct.unpack_from("=H", data, 4)[0], struct.unpack_from("=i", data, 16)[0]
    if kind == _NLMSG_ERROR and number:
        raise OSError(-number, os.strerror(-number), "netlink")
