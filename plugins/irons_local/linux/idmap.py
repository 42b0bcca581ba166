"""Whose ids the two user namespaces of a cell are made of (user_namespaces(7), subuid(5)).

Namespace A owns the cell's network. Its id 0 is the person's own user (as root: a private range, so that not even
A's root is the machine's), 1 and up are subordinate ids. Namespace B, in which a sandbox lives, maps its 0 and up
to A's 1 and up: a sandbox's root is a subordinate id and never the person's own.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import NamedTuple

from irons_local.linux import namespaces

PRIVATE_BASE = 1879048192
"""The first id above those that systemd gives to containers (524288 to 1879048191, its "Users, Groups, UIDs and GIDs")."""

PRIVATE_COUNT = 65536
INNER_COUNT = 65535


class IdMapError(Exception):
    """This user has no subordinate ids to make sandboxes of; the message says which file lacks them."""


class Extent(NamedTuple):
    """One line of a uid_map or gid_map: `size` ids from `inside` are those from `outside` on."""

    inside: int
    outside: int
    size: int


class IdMap(NamedTuple):
    """The maps of namespace A, towards the ids of the machine."""

    uids: tuple[Extent, ...]
    gids: tuple[Extent, ...]

    def host_uid(self, inside: int) -> int:
        """What a user id of A is on the machine.

        Raises:
            KeyError: it is not mapped.
        """
        return _lookup(self.uids, inside)

    def host_gid(self, inside: int) -> int:
        """What a group id of A is on the machine; raises like `host_uid`."""
        return _lookup(self.gids, inside)


def is_machines_root(proc: Path = Path("/proc/self")) -> bool:
    """True of a process that is root outside of every user namespace and has `namespaces.OF_MOUNTER`.

    The kernel believes what an overlay that such a process mounted has in `trusted.` attributes. A container's root
    may lack a capability.
    """
    if os.geteuid():
        return False
    try:
        whole = (proc / "uid_map").read_text(encoding="ascii").split() == ["0", "0", "4294967295"]
        lines = (proc / "status").read_text(encoding="ascii", errors="replace").splitlines()
        permitted = next(int(line.split()[1], 16) for line in lines if line.startswith("CapPrm:"))
    except (OSError, StopIteration):
        return False
    return whole and all(permitted >> number & 1 for number in namespaces.OF_MOUNTER)


def inner_extent() -> Extent:
    """The one extent, for users and groups alike, that maps namespace B into A."""
    return Extent(0, 1, INNER_COUNT)


def lines(extents: tuple[Extent, ...]) -> str:
    """The text that is written to uid_map or gid_map."""
    return "".join(f"{extent.inside} {extent.outside} {extent.size}\n" for extent in extents)


def outer_map(
    uid: int | None = None, subuid: Path = Path("/etc/subuid"), subgid: Path = Path("/etc/subgid")
) -> IdMap:
    """The maps of namespace A for a user, this process's own when None.

    Raises:
        IdMapError: there are not enough subordinate ids.
    """
    uid = os.geteuid() if uid is None else uid
    if uid == 0:
        extent = (Extent(0, PRIVATE_BASE, PRIVATE_COUNT),)
        return IdMap(extent, extent)
    try:
        account = pwd.getpwuid(uid)
        name, gid = account.pw_name, account.pw_gid
    except KeyError:
        name, gid = str(uid), os.getegid()
    return IdMap(
        (Extent(0, uid, 1), Extent(1, _range(subuid, name, uid), INNER_COUNT)),
        (Extent(0, gid, 1), Extent(1, _range(subgid, name, uid), INNER_COUNT)),
    )


def _range(path: Path, name: str, uid: int) -> int:
    """Start of the first range of at least `INNER_COUNT` ids that a file of subordinate ids gives a user."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise IdMapError(f"{path} cannot be read: {error.strerror}") from error
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) != 3 or fields[0] not in (name, str(uid)):
            continue
        if fields[1].isdecimal() and fields[2].isdecimal() and int(fields[2]) >= INNER_COUNT:
            return int(fields[1])
    raise IdMapError(f"{path} gives {name} no range of at least {INNER_COUNT} ids")


def _lookup(extents: tuple[Extent, ...], inside: int) -> int:
    for extent in extents:
        if extent.inside <= inside < extent.inside + extent.size:
            return extent.outside + inside - extent.inside
    raise KeyError(inside)
