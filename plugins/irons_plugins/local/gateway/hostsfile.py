"""The host's own hosts file (hosts(5)), read as glibc's `files` service reads it, within bounds.

The resolver is asked for absolute names, with their final dot, and those the hosts file does not match. So it is
looked through first, for the name without the dot. What it says is judged by the floor like any other answer.
"""

from __future__ import annotations

import os
import stat
import threading
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

MOST_BYTES = 1 << 20
MOST_LINES = 100_000

Address = IPv4Address | IPv6Address

_State = tuple[int, int, int]


def parse_hosts(data: bytes) -> dict[bytes, list[bytes]]:
    """Read a hosts file.

    Args:
        data: its contents; what exceeds `MOST_BYTES` or `MOST_LINES` is left out, as is a line cut in two there.

    Returns:
        Each name in lower case, with the addresses of all its lines, in their order and not yet checked.
    """
    if len(data) > MOST_BYTES:
        data = data[: data.rfind(b"\n", 0, MOST_BYTES) + 1]
    found: dict[bytes, list[bytes]] = {}
    for line in data.split(b"\n", MOST_LINES)[:MOST_LINES]:
        address, *names = line.partition(b"#")[0].lower().split() or (b"",)
        for name in names:
            found.setdefault(name, []).append(address)
    return found


class HostsFile:
    """The hosts file at a path, read again when it has changed; safe to ask from several threads.

    Args:
        path: where it is.
    """

    def __init__(self, path: Path = Path("/etc/hosts")) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen: _State | None = None
        self._names: dict[bytes, list[bytes]] = {}

    def addresses(self, name: str) -> list[Address]:
        """The addresses of a canonical name, in the file's order; none where the file does not have it.

        A file that is missing, cannot be read, or is not a regular file has no names.
        """
        with self._lock:
            self._refresh()
            texts = self._names.get(name.encode("ascii"), ())
        return list(dict.fromkeys(address for text in texts if (address := _address(text)) is not None))

    def _refresh(self) -> None:
        try:
            # Without O_NONBLOCK a FIFO in its place would hold the thread.
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            self._seen, self._names = None, {}
            return
        try:
            found = os.fstat(fd)
            seen = (found.st_mtime_ns, found.st_ino, found.st_size)
            if seen != self._seen:
                self._names = parse_hosts(_read(fd)) if stat.S_ISREG(found.st_mode) else {}
                self._seen = seen
        except OSError:
            self._seen, self._names = None, {}
        finally:
            os.close(fd)


def _read(fd: int) -> bytes:
    data = b""
    while len(data) <= MOST_BYTES and (more := os.read(fd, MOST_BYTES + 1 - len(data))):
        data += more
    return data


def _address(text: bytes) -> Address | None:
    try:
        # A scoped address (fe80::1%eth0) is link-local, which is never dialled.
        return ip_address(text.decode("ascii").partition("%")[0])
    except ValueError:
        return None
