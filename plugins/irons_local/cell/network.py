"""A cell's network: one loopback device on which every address of the world is local, and the rules that catch it all.

There is no route and no device out; the rules only hand every TCP connection to the gateway's listening socket,
every DNS question to its name server, and refuse and report the rest. With the rules gone, still nothing leaves.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from irons_local.linux.programs import program, search_path
from irons_local.problems import Problem

GATEWAY4, GATEWAY6 = "100.64.0.1", "fd64::1"
SANDBOX4, SANDBOX6 = "100.64.0.2", "fd64::2"
LOG_GROUP = 5

_SYSCTLS = (
    # The sandbox's root has no rights over this namespace, and its sshd wants port 22.
    ("ipv4/ip_unprivileged_port_start", "0"),
    ("ipv4/ping_group_range", "0 65535"),
    ("ipv4/tcp_tw_reuse", "1"),
    ("ipv6/conf/all/disable_ipv6", "0"),
)
_NEEDED = frozenset({"ipv4/ip_unprivileged_port_start"})

_RTM_NEWLINK, _RTM_NEWADDR, _RTM_NEWROUTE = 16, 20, 24
_NETLINK_NETFILTER = 12
_CONNTRACK_DELETE = (1 << 8) | 2
"""Without attributes: all there are (linux/netfilter/nfnetlink_conntrack.h, IPCTNL_MSG_CT_DELETE)."""
_REQUEST, _ACK, _EXCL, _CREATE = 0x1, 0x4, 0x200, 0x400
_IFF_UP = 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_NODAD = 1, 2, 2
_RTA_OIF, _RTA_PREFSRC = 4, 7
_TABLE_MAIN, _PROTO_BOOT, _SCOPE_HOST, _TYPE_LOCAL = 254, 3, 254, 2
_NLMSG_ERROR = 2


class Ports(NamedTuple):
    """Where the gateway listens inside a cell: its transparent TCP port, and its name server's."""

    tcp: int = 15001
    dns: int = 53


def rules(ports: Ports, *, fresh: bool = False) -> str:
    """The cell's nftables rules, in the language of nft(8).

    They replace whatever was there; in a fresh network namespace there is nothing, and looking costs the kernel milliseconds.

    A packet that a process in the cell sends comes in again on the loopback device, so prerouting sees them all.
    """
    cleared = "" if fresh else "table inet irons {}\ndelete table inet irons\n"
    return f"""
{cleared}table inet irons {{
  set own4 {{ type ipv4_addr; flags interval; elements = {{ 127.0.0.0/8, {SANDBOX4} }} }}
  set own6 {{ type ipv6_addr; elements = {{ ::1, {SANDBOX6} }} }}
  set dns {{ type inet_service; elements = {{ {", ".join(str(port) for port in sorted({53, ports.dns}))} }} }}
  chain capture {{
    type filter hook prerouting priority mangle; policy accept;
    ip daddr @own4 accept
    ip6 daddr @own6 accept
    ip daddr {GATEWAY4} meta l4proto {{ tcp, udp }} th dport @dns accept
    ip6 daddr {GATEWAY6} meta l4proto {{ tcp, udp }} th dport @dns accept
    ip saddr {GATEWAY4} meta l4proto {{ tcp, udp }} th sport @dns accept
    ip6 saddr {GATEWAY6} meta l4proto {{ tcp, udp }} th sport @dns accept
    meta nfproto ipv4 meta l4proto tcp tproxy ip to :{ports.tcp} accept
    meta nfproto ipv6 meta l4proto tcp tproxy ip6 to :{ports.tcp} accept
  }}
  chain untracked_out {{
    type filter hook output priority raw; policy accept;
    meta l4proto {{ tcp, udp }} th dport @dns accept
    meta l4proto {{ tcp, udp }} th sport @dns accept
    notrack
  }}
  chain untracked_in {{
    type filter hook prerouting priority raw; policy accept;
    meta l4proto {{ tcp, udp }} th dport @dns accept
    meta l4proto {{ tcp, udp }} th sport @dns accept
    notrack
  }}
  chain names {{
    type nat hook output priority -100; policy accept;
    ip daddr != @own4 meta l4proto {{ tcp, udp }} th dport 53 dnat ip to {GATEWAY4}:{ports.dns}
    ip6 daddr != @own6 meta l4proto {{ tcp, udp }} th dport 53 dnat ip6 to [{GATEWAY6}]:{ports.dns}
  }}
  chain refuse {{
    type filter hook output priority filter; policy accept;
    ip daddr @own4 accept
    ip6 daddr @own6 accept
    ip daddr {GATEWAY4} meta l4proto {{ tcp, udp }} th dport @dns accept
    ip6 daddr {GATEWAY6} meta l4proto {{ tcp, udp }} th dport @dns accept
    ip saddr {GATEWAY4} meta l4proto {{ tcp, udp }} th sport @dns accept
    ip6 saddr {GATEWAY6} meta l4proto {{ tcp, udp }} th sport @dns accept
    meta l4proto tcp accept
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit }} accept
    icmp type {{ destination-unreachable, time-exceeded }} accept
    icmpv6 type {{ destination-unreachable, time-exceeded, packet-too-big }} accept
    log group {LOG_GROUP} snaplen 128
    meta l4proto udp reject with icmpx port-unreachable
    reject with icmpx admin-prohibited
  }}
}}
"""


def apply_rules(ports: Ports, *, fresh: bool = False) -> None:
    """Put the rules in force in this process's network namespace, all at once; `fresh` as for `rules`.

    Raises:
        Problem: nft is missing, or the kernel refuses.
    """
    nft = program("nft", "nftables")
    said = os.memfd_create("said")
    text = os.memfd_create("rules")
    try:
        os.write(text, rules(ports, fresh=fresh).encode())
        os.lseek(text, 0, os.SEEK_SET)
        actions = [
            (os.POSIX_SPAWN_DUP2, text, 0),
            (os.POSIX_SPAWN_DUP2, said, 1),
            (os.POSIX_SPAWN_DUP2, said, 2),
        ]
        pid = os.posix_spawn(
            nft, [nft, "-f", "-"], {"PATH": search_path(), "LC_ALL": "C"}, file_actions=actions
        )
        _, status = os.waitpid(pid, 0)
        if status:
            os.lseek(said, 0, os.SEEK_SET)
            lines = os.read(said, 2000).decode("utf-8", "replace").strip().splitlines()
            raise Problem(f"nft refused the cell's rules: {lines[0] if lines else status}", "nftables")
    finally:
        os.close(said)
        os.close(text)


def configure() -> None:
    """Give this process's fresh network namespace its loopback, addresses, routes and settings.

    Raises:
        OSError: the kernel refuses.
    """
    for name, value in _SYSCTLS:
        try:
            Path("/proc/sys/net", name).write_text(value, "utf-8")
        except OSError:
            if name in _NEEDED:
                raise
    index = socket.if_nametoindex("lo")
    messages = [_message(_RTM_NEWLINK, struct.pack("=BxHiII", 0, 0, index, _IFF_UP, _IFF_UP))]
    messages += [_address(socket.AF_INET, address, index) for address in (GATEWAY4, SANDBOX4)]
    messages.append(_route(socket.AF_INET, SANDBOX4, index))
    if ipv6():
        messages += [_address(socket.AF_INET6, address, index) for address in (GATEWAY6, SANDBOX6)]
        messages.append(_route(socket.AF_INET6, SANDBOX6, index))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        for message in messages:
            sock.send(message)
            acknowledged(sock)


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
    with suppress(OSError), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as sock:
        sock.bind((0, 0))
        sock.send(header(_CONNTRACK_DELETE, _REQUEST | _ACK, struct.pack("=BBH", socket.AF_UNSPEC, 0, 0)))
        acknowledged(sock)


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


def _message(kind: int, payload: bytes) -> bytes:
    return header(kind, _REQUEST | _ACK | (_CREATE | _EXCL if kind != _RTM_NEWLINK else 0), payload)


def _address(family: socket.AddressFamily, address: str, index: int) -> bytes:
    packed = socket.inet_pton(family, address)
    fixed = struct.pack(
        "=BBBBI", family, len(packed) * 8, _IFA_NODAD if family == socket.AF_INET6 else 0, 0, index
    )
    return _message(_RTM_NEWADDR, fixed + attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed))


def _route(family: socket.AddressFamily, source: str, index: int) -> bytes:
    # In the main table, not the local one, so that a more specific route (a machine's tap device) wins; with a
    # source, or the kernel would answer for the destination's own address.
    fixed = struct.pack("=BBBBBBBBI", family, 0, 0, 0, _TABLE_MAIN, _PROTO_BOOT, _SCOPE_HOST, _TYPE_LOCAL, 0)
    attributes = attribute(_RTA_OIF, struct.pack("=i", index))
    return _message(
        _RTM_NEWROUTE, fixed + attributes + attribute(_RTA_PREFSRC, socket.inet_pton(family, source))
    )
