"""A program that hands OpenSSH a connection to a sandbox's SSH server (`ProxyCommand` with `ProxyUseFdpass`, ssh_config(5)).

`python -I -S handover.py SOCKET CELL`: SOCKET is the keeper's. It runs before every connection, so it imports next to nothing: no `site`, and
of `socket` only the part that is written in C, which takes a tenth of the time. One request is sent as `link` frames it, and the
descriptor in the answer is passed on. On any failure, the whole of irons is run in its place (`irons local connect`), which finds a
keeper that has moved and says what is wrong.
"""

from __future__ import annotations

import sys
from _socket import AF_UNIX, CMSG_SPACE, SCM_RIGHTS, SOCK_STREAM, SOL_SOCKET, socket

_SUN_PATH = 107
_SSH_PORT = 22
_WITHIN = 60.0
_LARGEST = 65536
_INT = 4
"""Bytes of a descriptor's number in SCM_RIGHTS (unix(7)); `array`, which would know, imports more than all of this."""


def main() -> None:
    """Hand over a connection on standard output, or become `irons local connect`."""
    keeper, cell = sys.argv[1:]
    try:
        _hand(_connection(keeper, cell))
    except (OSError, ValueError):
        import os

        words = [sys.executable, "-P", "-m", "irons", "local", "connect", cell]
        os.execv(sys.executable, words)  # noqa: S606 - no shell is wanted


def _connection(keeper: str, cell: str) -> int:
    """Ask the keeper for a connection to the SSH server of a cell; gives its descriptor.

    Raises:
        OSError: There is no keeper, or it did not answer in time.
        ValueError: It answered without a descriptor.
    """
    # The characters of a cell's name need no escape in JSON.
    body = b'{"id":1,"op":"cell.connect","cell":"%b","address":"127.0.0.1","port":%d}' % (
        cell.encode("ascii"),
        _SSH_PORT,
    )
    link = socket(AF_UNIX, SOCK_STREAM)
    link.settimeout(_WITHIN)
    link.connect(keeper if len(keeper.encode()) <= _SUN_PATH else _short(keeper))
    link.sendall(len(body).to_bytes(4, "big") + body)
    data, control, _, _ = link.recvmsg(_LARGEST, CMSG_SPACE(_INT))
    for level, kind, payload in control:
        if data and level == SOL_SOCKET and kind == SCM_RIGHTS:
            return int.from_bytes(payload[:_INT], sys.byteorder)
    raise ValueError(data)


def _short(path: str) -> str:
    """A name of at most `sun_path`'s length for a longer one, through a descriptor of its directory."""
    import os

    directory, _, name = path.rpartition("/")
    return f"/proc/self/fd/{os.open(directory, os.O_PATH | os.O_DIRECTORY)}/{name}"


def _hand(connection: int) -> None:
    # OpenSSH wants one byte on the unix socket that it gave as standard output, and the descriptor with it.
    rights = (SOL_SOCKET, SCM_RIGHTS, connection.to_bytes(_INT, sys.byteorder))
    socket(fileno=1).sendmsg([b"\0"], [rights])


if __name__ == "__main__":
    main()
