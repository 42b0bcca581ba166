"""A machine that refuses things, without touching this one: `python -m tests.refusing [REFUSAL…] -- COMMAND…`.

The command runs in user and mount namespaces of its own, in which every id is what it is outside, and in which nothing
more can be gained: `user.max_user_namespaces` is counted per user namespace, so that 0 there means no one else.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

_NEWNS, _NEWUSER = 0x00020000, 0x10000000
_REMOUNT, _BIND, _REC, _PRIVATE, _RDONLY = 0x20, 0x1000, 0x4000, 0x40000, 0x1
_PR_CAPBSET_DROP = 24
_CAP_SYS_ADMIN = 21
_ALL_IDS = "0 0 4294967295\n"

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> NoReturn:
    """Refuse what the command line names, then become its command; exit with 2 where this machine does not allow that."""
    parser = argparse.ArgumentParser(prog="refusing", description=__doc__)
    for name, refuse in REFUSALS.items():
        parser.add_argument(f"--{name}", action="store_true", help=refuse.__doc__)
    parser.add_argument("command", nargs="+")
    asked = vars(parser.parse_args())
    command = asked.pop("command")
    try:
        _enter()
        for name, refuse in REFUSALS.items():
            if asked[name.replace("-", "_")]:
                refuse()
    except OSError as error:
        print(f"refusing: {error}", file=sys.stderr)
        sys.exit(2)
    os.execvp(command[0], command)


def _enter() -> None:
    """Go into a user namespace with all ids of this one (for an ordinary user: their own), and a mount namespace."""
    ready, go = os.pipe(), os.pipe()
    uid, gid = os.geteuid(), os.getegid()
    here = os.getpid()
    child = os.fork()
    if child == 0:
        # The parent's maps are written from here: who is inside already may map nothing but itself.
        os.close(ready[1])
        if not os.read(ready[0], 1):
            os._exit(1)
        maps = {"uid_map": _ALL_IDS, "gid_map": _ALL_IDS}
        if uid:
            maps = {"uid_map": f"{uid} {uid} 1\n", "setgroups": "deny", "gid_map": f"{gid} {gid} 1\n"}
        status = 0
        try:
            for name, text in maps.items():
                Path(f"/proc/{here}/{name}").write_text(text)
        except OSError:
            status = 1
        os.write(go[1], b"g")
        os._exit(status)
    _checked(_libc.unshare(_NEWUSER | _NEWNS), "unshare")
    os.write(ready[1], b"r")
    os.read(go[0], 1)
    if os.waitpid(child, 0)[1]:
        raise OSError("the ids could not be mapped")
    for descriptor in (*ready, *go):
        os.close(descriptor)
    _mount("none", "/", _REC | _PRIVATE)


def _no_user_namespaces() -> None:
    """No user namespace can be made."""
    Path("/proc/sys/user/max_user_namespaces").write_text("0")


def _read_only_etc() -> None:
    """Nothing can be written below /etc."""
    _mount("/etc", "/etc", _BIND | _REC)
    _mount("none", "/etc", _BIND | _REMOUNT | _RDONLY)


def _no_admin() -> None:
    """No mounts and no namespaces at all, for want of the capability SYS_ADMIN."""
    _checked(_libc.prctl(_PR_CAPBSET_DROP, _CAP_SYS_ADMIN, 0, 0, 0), "prctl")


def _mount(source: str, target: str, flags: int) -> None:
    _checked(_libc.mount(source.encode(), target.encode(), None, ctypes.c_ulong(flags), None), target)


def _checked(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


REFUSALS: Mapping[str, Callable[[], None]] = {
    "no-user-namespaces": _no_user_namespaces,
    "read-only-etc": _read_only_etc,
    "no-admin": _no_admin,
}
"""What can be refused, in the order in which that works."""


if __name__ == "__main__":
    main()
