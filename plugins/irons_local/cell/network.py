"""A cell's network: one loopback device on which every address of the world is local, and no route or device out.

A cell with a veth has the inner end of it besides, and behind it one machine: nothing leads from there to anywhere else.
"""

from __future__ import annotations

import errno
import socket
import struct
from contextlib import suppress
from pathlib import Path

from irons_local.cell.layout import GATEWAY4, GATEWAY6, INNER, SANDBOX4, SANDBOX6
from irons_local.linux import netlink
from irons_local.linux.netlink import acknowledged, attribute, message

_SYSCTLS = (
    # The sandbox's root has no rights over this namespace, and its sshd wants port 22.
    ("ipv4/ip_unprivileged_port_start", "0"),
    ("ipv4/ping_group_range", "0 65535"),
    ("ipv4/tcp_tw_reuse", "1"),
    ("ipv6/conf/all/disable_ipv6", "0"),
)
_UNTRUSTED4 = (
    "accept_local",
    "accept_redirects",
    "accept_source_route",
    "arp_accept",
    "log_martians",
    "route_localnet",
    "send_redirects",
)
_OF_VETH = (
    # A new namespace has the machine's settings for IPv4: it may route.
    ("ipv4/ip_forward", "0"),
    ("ipv6/conf/all/forwarding", "0"),
    # What the machine at the other end says of the network counts for nothing, and fills no log of the kernel's.
    *((f"ipv4/conf/{each}/{name}", "0") for each in ("all", INNER) for name in _UNTRUSTED4),
    *((f"ipv6/conf/{INNER}/{name}", "0") for name in ("accept_ra", "accept_redirects")),
)
MOST_BUFFER = {"tcp_rmem": 4 << 20, "tcp_wmem": 512 << 10}
"""What the kernel may let the buffers of a connection inside grow to (bytes): its memory for TCP is everyone's.

What a program has sent goes to this machine only, where more than that brings no speed; but it is what a server that
does not read leaves with the program.
"""
_NEEDED = frozenset({"ipv4/ip_unprivileged_port_start", "ipv4/ip_forward"})
_PREFIX = {socket.AF_INET: 30, socket.AF_INET6: 64}
"""Bits of the network on a veth."""

_RTM_NEWLINK, _RTM_NEWADDR, _RTM_NEWROUTE = 16, 20, 24
_CONNTRACK_DELETE = (1 << 8) | 2
"""Without attributes: all there are (linux/netfilter/nfnetlink_conntrack.h, IPCTNL_MSG_CT_DELETE)."""
_IFF_UP = 1
_IFA_NODAD = 2
_RTA_OIF, _RTA_PREFSRC = 4, 7
_TABLE_MAIN, _PROTO_BOOT, _SCOPE_HOST, _TYPE_LOCAL = 254, 3, 254, 2


def configure(*, veth: bool = False) -> None:
    """Give this process's fresh network namespace its loopback, addresses, routes and settings.

    Args:
        veth: the inner end of a veth is there, and the sandbox is the machine at its other end.

    Raises:
        OSError: the kernel refuses.
    """
    for name, value in (*_SYSCTLS, *(_OF_VETH if veth else ())):
        try:
            Path("/proc/sys/net", name).write_text(value, "utf-8")
        except OSError:
            if name in _NEEDED:
                raise
    for name, most in MOST_BUFFER.items():
        with suppress(OSError, ValueError):
            _bound(Path("/proc/sys/net/ipv4", name), most)
    loopback = socket.if_nametoindex("lo")
    messages = [_up(loopback)]
    if veth:
        inner = socket.if_nametoindex(INNER)
        messages.append(_up(inner))
        for family, gateway in ((socket.AF_INET, GATEWAY4), (socket.AF_INET6, GATEWAY6)):
            if family == socket.AF_INET or ipv6():
                messages.append(_address(family, gateway, inner, _PREFIX[family]))
                messages.append(_route(family, gateway, loopback))
    else:
        messages += [_address(socket.AF_INET, address, loopback) for address in (GATEWAY4, SANDBOX4)]
        messages.append(_route(socket.AF_INET, SANDBOX4, loopback))
        if ipv6():
            messages += [_address(socket.AF_INET6, address, loopback) for address in (GATEWAY6, SANDBOX6)]
            messages.append(_route(socket.AF_INET6, SANDBOX6, loopback))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        for each in messages:
            sock.send(each)
            acknowledged(sock)


def has_veth() -> bool:
    """Whether the cell that this process is in has a veth."""
    try:
        socket.if_nametoindex(INNER)
    except OSError:
        return False
    return True


def _bound(setting: Path, bound: int) -> None:
    """Bound what buffers may grow to by themselves: the last of three sizes (tcp(7)), which a machine may have set high."""
    least, usual, most = setting.read_text("utf-8").split()
    if int(most) > bound:
        setting.write_text(f"{least} {usual} {bound}", "utf-8")


def ipv6() -> bool:
    """Whether this kernel speaks IPv6 at all."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:
            return False
        raise
    return True


def forget_translations() -> None:
    """Let the kernel forget where it sends what flows now, so that it goes where the present rules send it.

    A resolver that keeps its socket would otherwise be sent to the name server's port of before. Where the kernel
    cannot do that (it lacks nf_conntrack_netlink) such a resolver finds its way by its next socket.
    """
    with suppress(OSError), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, netlink.NETFILTER) as sock:
        sock.bind((0, 0))
        everything = struct.pack("=BBH", socket.AF_UNSPEC, 0, 0)
        sock.send(message(_CONNTRACK_DELETE, netlink.REQUEST | netlink.ACK, everything))
        acknowledged(sock)


def _message(kind: int, payload: bytes) -> bytes:
    made = 0 if kind == _RTM_NEWLINK else netlink.CREATE | netlink.EXCL
    return message(kind, netlink.REQUEST | netlink.ACK | made, payload)


def _up(index: int) -> bytes:
    return _message(_RTM_NEWLINK, struct.pack("=BxHiII", 0, 0, index, _IFF_UP, _IFF_UP))


def _address(family: socket.AddressFamily, address: str, index: int, prefix: int | None = None) -> bytes:
    packed = socket.inet_pton(family, address)
    bits = len(packed) * 8 if prefix is None else prefix
    fixed = netlink.ADDRESS.pack(family, bits, _IFA_NODAD if family == socket.AF_INET6 else 0, 0, index)
    return _message(
        _RTM_NEWADDR, fixed + attribute(netlink.IFA_LOCAL, packed) + attribute(netlink.IFA_ADDRESS, packed)
    )


def _route(family: socket.AddressFamily, source: str, index: int) -> bytes:
    # In the main table, not the local one, so that a more specific route (a machine's tap device) wins; with a
    # source, or the kernel would answer for the destination's own address.
    fixed = netlink.ROUTE.pack(family, 0, 0, 0, _TABLE_MAIN, _PROTO_BOOT, _SCOPE_HOST, _TYPE_LOCAL, 0)
    attributes = attribute(_RTA_OIF, struct.pack("=i", index))
    return _message(
        _RTM_NEWROUTE, fixed + attributes + attribute(_RTA_PREFSRC, socket.inet_pton(family, source))
    )
