"""A connection of a cell in the kernel's own table, by its two ends (sock_diag(7))."""

from __future__ import annotations

import errno
import os
import socket
import struct

from irons_local.cell.layout import Ends
from irons_local.linux import netlink

_SOCK_DIAG = 4
"""The protocol `NETLINK_SOCK_DIAG`, which Python's `socket` does not name."""
_BY_FAMILY = 20
_REQUEST = struct.Struct("=BBBxI")
"""Begins `struct inet_diag_req_v2`: family, protocol, extensions, states. What follows is `struct inet_diag_sockid`."""
_PORTS = struct.Struct("!HH")
_ANY_DEVICE = struct.pack("=I", 0)
_ANY_COOKIE = b"\xff" * 8
_ADDRESS_BYTES = 16
_ALL_STATES = 0xFFFFFFFF
_ANSWERED_PORTS = 4
_INODE = struct.Struct("=68xI")
"""The last field of `struct inet_diag_msg`."""


def inode_of(ends: Ends) -> int:
    """Return the inode of the socket that has these ends in this process's network namespace; 0 where no process has it.

    Raises:
        OSError: an end is not an address, or the kernel does not answer.
    """
    family = socket.AF_INET6 if ":" in ends.peer else socket.AF_INET
    own, peer = (
        socket.inet_pton(family, address).ljust(_ADDRESS_BYTES, b"\0")
        for address in (ends.address, ends.peer)
    )
    ports = _PORTS.pack(ends.port, ends.peer_port)
    wanted = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, _ALL_STATES) + ports
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as sock:
        sock.settimeout(1.0)
        sock.send(
            netlink.message(_BY_FAMILY, netlink.REQUEST, wanted + own + peer + _ANY_DEVICE + _ANY_COOKIE)
        )
        for found in netlink.messages(sock.recv(4096)):
            if found.kind == netlink.ERROR:
                number = netlink.error_number(found.body)
                if number == errno.ENOENT:
                    return 0
                raise OSError(number, os.strerror(number), "sock_diag")
            # Where there is none, the kernel answers with who listens there.
            if found.kind == _BY_FAMILY and found.body[_ANSWERED_PORTS:].startswith(ports):
                return int(_INODE.unpack_from(found.body)[0])
    return 0
