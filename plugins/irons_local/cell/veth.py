"""The veth of a cell whose sandbox is a machine with a network of its own: made, found and removed from outside.

The outer end stays in the network namespace of the keeper, down and without an address, until an instance is given it.
What could come from it there is dropped, by a table of our own. Only root makes one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from irons_local.cell import nft
from irons_local.cell.layout import INNER, Veth
from irons_local.ipc.framing import RequestError
from irons_local.linux import namespaces, netlink
from irons_local.linux.netlink import acknowledged, attribute, message
from irons_local.problems import Problem

_ALIAS = b"irons: the cell of a sandbox"
_LONGEST = 1 << 16
_TABLE = "irons_veths"
_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_NET_NS_PID, _IFLA_IFALIAS = 3, 18, 19, 20
_INFO_KIND, _INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_ANY_LINK = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, 0, 0, 0)
"""`struct ifinfomsg` of a link that is named by an attribute."""


def make(name: str, pid: int) -> None:
    """Make a veth whose outer end is here and whose inner one is in the network namespace of a process.

    Raises:
        RequestError: something has that name.
        OSError: the kernel refuses.
        Problem: nft is missing, or the kernel refuses its rules.
    """
    inner = _named(INNER) + attribute(_IFLA_NET_NS_PID, struct.pack("=I", pid))
    peer = attribute(_VETH_INFO_PEER, _ANY_LINK + inner)
    kind = attribute(_INFO_KIND, b"veth\0") + attribute(_INFO_DATA, peer)
    new = _named(name) + attribute(_IFLA_LINKINFO, kind)
    try:
        _ask(_RTM_NEWLINK, new, netlink.CREATE | netlink.EXCL)
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise
        why = f"there is a network interface {name} already; see what it is (ip link show {name}), and remove or rename it"
        raise RequestError("exists", why) from error
    _ask(_RTM_NEWLINK, _named(name) + attribute(_IFLA_IFALIAS, _ALIAS))
    with suppress(FileNotFoundError):  # a kernel without IPv6
        Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1", "utf-8")
    _bar(name)


def remove(name: str, net: int) -> None:
    """Remove a cell's veth, wherever its outer end is, and end what holds the cell.

    Args:
        name: the outer end's name.
        net: a descriptor of the cell's network namespace.

    Raises:
        OSError: the kernel refuses.
        Problem: nft is missing, or the kernel refuses.
    """
    here = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        namespaces.setns(net, namespaces.NEWNET)
        try:
            _delete(INNER)
        finally:
            namespaces.setns(here, namespaces.NEWNET)
    finally:
        os.close(here)
    _unbar(name)


def remove_left(veth: Veth) -> None:
    """Remove what is left of a cell's veth and of the process that held the cell, where no keeper has it; as root.

    Raises:
        OSError: the kernel refuses.
        Problem: nft is missing, or the kernel refuses.
    """
    end_holder(veth)
    if _is_ours(veth.name):
        _delete(veth.name)
    _unbar(veth.name)


def remove_lost(name: str) -> None:
    """Remove a veth of ours by its outer end's name alone, as where a keeper ended before it answered; as root.

    An interface of that name which is not ours stays.

    Raises:
        OSError: the kernel refuses.
        Problem: nft is missing, or the kernel refuses.
    """
    if _is_ours(name):
        for holder in _holders(name):
            end_holder(holder)
        _delete(name)
        _unbar(name)


def _holders(name: str) -> Iterator[Veth]:
    """What keeps a cell whose veth has that name. Who only calls itself so is a process of a sandbox, and ends itself by that."""
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdecimal() and (entry / "cmdline").read_bytes() == holder_words(name):
                yield Veth(name, int(entry.name), namespaces.started(int(entry.name)) or 0)


def holder_words(name: str) -> bytes:
    """The arguments of the process that keeps a cell, as /proc has them."""
    return f"irons: cell of {name}\0infinity\0".encode()


def end_holder(veth: Veth) -> None:
    """End the process that holds a cell; one that has ended is not an error."""
    try:
        holder = os.pidfd_open(veth.pid)
    except ProcessLookupError:
        return
    try:
        # Only now is the number pinned to one process: check that it is the one that was meant.
        if namespaces.started(veth.pid) == veth.started:
            signal.pidfd_send_signal(holder, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        os.close(holder)


def _named(name: str) -> bytes:
    return attribute(_IFLA_IFNAME, name.encode() + b"\0")


def _ask(kind: int, attributes: bytes, flags: int = 0) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.send(message(kind, netlink.REQUEST | netlink.ACK | flags, _ANY_LINK + attributes))
        acknowledged(sock)


def _delete(name: str) -> None:
    try:
        _ask(_RTM_DELLINK, _named(name))
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise


def _is_ours(name: str) -> bool:
    """Whether an interface of this network namespace is one that was made here."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.send(message(_RTM_GETLINK, netlink.REQUEST, _ANY_LINK + _named(name)))
        for found in netlink.messages(sock.recv(_LONGEST)):
            if found.kind == _RTM_NEWLINK:
                known = dict(netlink.attributes(found.body, len(_ANY_LINK)))
                return known.get(_IFLA_IFALIAS, b"").rstrip(b"\0") == _ALIAS
    return False


def _bar(name: str) -> None:
    """Drop what comes from an interface of this network namespace, before anything looks at it."""
    with _alone():
        nft.run(
            f"""
add table inet {_TABLE}
add set inet {_TABLE} names {{ type ifname; }}
add chain inet {_TABLE} arriving {{ type filter hook prerouting priority -500; policy accept; }}
flush chain inet {_TABLE} arriving
add rule inet {_TABLE} arriving iifname @names drop
add element inet {_TABLE} names {{ "{name}" }}
""",
            "the drop rule of a veth",
        )


def _unbar(name: str) -> None:
    """Forget the name of an interface that is gone; with the last one the table goes."""
    with _alone():
        try:
            nft.run(f'delete element inet {_TABLE} names {{ "{name}" }}', "to forget a veth")
        except Problem:
            # It is forgotten already, or someone flushed the machine's rules.
            return
        if "elements" not in nft.run(f"list set inet {_TABLE} names", "to list the veths"):
            nft.run(f"delete table inet {_TABLE}", "to remove the table of the veths")


@contextmanager
def _alone() -> Iterator[None]:
    """Keep others out of the table, also those of another keeper in this network namespace."""
    here = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(here, fcntl.LOCK_EX)
        yield
    finally:
        os.close(here)
