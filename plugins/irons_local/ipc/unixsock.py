"""Unix stream sockets by paths of any length, and who is at the other end (unix(7))."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_CREDENTIALS = struct.Struct("3i")
_CONSOLES, _PSEUDO_TERMINALS = 4, range(136, 144)
"""Major numbers of terminals (devices.txt of the kernel)."""

_SUN_PATH = 107


class Peer(NamedTuple):
    """Who is at the other end of a unix socket, as the kernel knew it at connect time."""

    pid: int
    uid: int
    gid: int


def peer_of(sock: socket.socket) -> Peer:
    """Who connected this socket (`SO_PEERCRED`)."""
    return Peer(
        *_CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    )


def terminal_of(pid: int) -> str | None:
    """The pseudo-terminal (`pts/3`) or console (`tty1`) that a process has, by proc_pid_stat(5); None without one."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
        device = int(stat.rpartition(")")[2].split()[4])
    except (OSError, ValueError, IndexError):
        return None
    major, minor = os.major(device), os.minor(device)
    if major in _PSEUDO_TERMINALS:
        return f"pts/{(major - _PSEUDO_TERMINALS.start << 8) + minor}"
    return f"tty{minor}" if major == _CONSOLES and minor else None


def reach(path: Path) -> socket.socket:
    """Connect to a unix stream socket, however long its path is.

    Raises:
        OSError: no one listens there.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _by_name(path, sock.connect)
    except BaseException:
        sock.close()
        raise
    return sock


def listen(path: Path, backlog: int = 128) -> socket.socket:
    """Listen on a unix stream socket that only its owner can reach, in place of what was there.

    The name appears by a rename, once the socket is ready: a client never finds one that refuses it.

    Raises:
        OSError: the directory cannot be written.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.unlink(missing_ok=True)
        _by_name(fresh, sock.bind)
        fresh.chmod(0o600)
        sock.listen(backlog)
        fresh.rename(path)
    except BaseException:
        sock.close()
        fresh.unlink(missing_ok=True)
        raise
    return sock


def _by_name(path: Path, use: Callable[[str], None]) -> None:
    name = os.fspath(path)
    if len(os.fsencode(name)) <= _SUN_PATH:
        use(name)
        return
    # sun_path is 108 bytes; the directory's descriptor gives a short name for a long one.
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        use(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)
