"""The sockets through which a cell meets the gateway, made inside the cell before its first process."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable

from irons_local.cell.layout import GATEWAY4, GATEWAY6, LOG_GROUP, SOCKETS, Ports
from irons_local.cell.network import ipv6
from irons_local.linux import netlink
from irons_local.linux.netlink import acknowledged, attribute, message
from irons_local.linux.tcp import tcp_socket

_BACKLOG = 4096
_IP_TRANSPARENT, _IPV6_TRANSPARENT = 19, 75
_ULOG_CONFIG = (4 << 8) | 1
_CFG_CMD, _CFG_MODE, _CFG_QTHRESH = 1, 2, 5
_BIND = b"\x01"
_COPY_PACKET = 2
_COPY_BYTES = 128


def make(ports: Ports) -> list[socket.socket]:
    """All sockets of the cell this process is in, in the order of `SOCKETS`.

    Where the kernel has no IPv6 their place is taken by sockets that nothing ever reaches.

    Raises:
        OSError: `EADDRINUSE` where a process of the cell sits on a port; else the kernel refuses.
    """
    made: list[socket.socket] = []
    six = ipv6()
    udp, tcp = socket.SOCK_DGRAM, socket.SOCK_STREAM
    makers: dict[str, Callable[[], socket.socket]] = {
        "tcp4": lambda: _transparent(socket.AF_INET, "0.0.0.0", ports.tcp),  # noqa: S104 (the cell's own namespace)
        "tcp6": lambda: _transparent(socket.AF_INET6, "::", ports.tcp) if six else _nothing(),
        "dns_udp4": lambda: _names(socket.AF_INET, udp, GATEWAY4, ports.dns),
        "dns_udp6": lambda: _names(socket.AF_INET6, udp, GATEWAY6, ports.dns) if six else _nothing(),
        "dns_tcp4": lambda: _names(socket.AF_INET, tcp, GATEWAY4, ports.dns),
        "dns_tcp6": lambda: _names(socket.AF_INET6, tcp, GATEWAY6, ports.dns) if six else _nothing(),
        "nflog": _log,
    }
    try:
        for name in SOCKETS:
            made.append(makers[name]())  # noqa: PERF401 (those made are closed when one fails)
        # All who hold a socket share this: none of them may ever wait on it.
        for sock in made:
            sock.setblocking(False)
    except BaseException:
        for sock in made:
            sock.close()
        raise
    return made


def in_use(error: OSError) -> bool:
    """True when someone inside sits on a port of ours."""
    return error.errno == errno.EADDRINUSE


def _transparent(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    sock = tcp_socket(family)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
    return _listening(sock, address, port)


def _names(family: socket.AddressFamily, kind: socket.SocketKind, address: str, port: int) -> socket.socket:
    sock = tcp_socket(family) if kind == socket.SOCK_STREAM else socket.socket(family, kind)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if kind == socket.SOCK_STREAM:
        return _listening(sock, address, port)
    try:
        sock.bind((address, port))
    except OSError:
        sock.close()
        raise
    return sock


def _listening(sock: socket.socket, address: str, port: int) -> socket.socket:
    try:
        # Without it, connections of an earlier gateway that are still in TIME_WAIT would keep the port.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _nothing() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def _log() -> socket.socket:
    """A socket that gets what the rules refuse (nfnetlink_log); bound here, since the kernel asks for rights only now."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, netlink.NETFILTER)
    try:
        sock.bind((0, 0))
        group = struct.pack("=BBH", socket.AF_UNSPEC, 0, socket.htons(LOG_GROUP))
        for kind, value in (
            (_CFG_CMD, _BIND),
            (_CFG_MODE, struct.pack(">IBx", _COPY_BYTES, _COPY_PACKET)),
            # One packet per message: an event must not wait for others.
            (_CFG_QTHRESH, struct.pack(">I", 1)),
        ):
            sock.send(message(_ULOG_CONFIG, netlink.REQUEST | netlink.ACK, group + attribute(kind, value)))
            acknowledged(sock)
    except BaseException:
        sock.close()
        raise
    return sock
