"""Connections into a sandbox by way of the keeper, and how OpenSSH is given one."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Mapping

from irons.errors import LocalError
from irons_local.daemon.client import ask_keeper, not_running, reach_keeper
from irons_local.ipc.locate import settle
from irons_local.paths import Paths, PathsError


def connect(paths: Paths, cell: str, address: str = "127.0.0.1", port: int = 22) -> socket.socket:
    """A TCP connection made inside a sandbox's network.

    Args:
        paths: where the daemon is.
        cell: the sandbox's cell.
        address: an address inside.
        port: a port there.

    Raises:
        LocalError: there is no such cell, or no one listens there.
    """
    link = reach_keeper(paths)
    if link is None:
        raise not_running()
    with link:
        message = ask_keeper(paths, link, "cell.connect", cell=cell, address=address, port=port)
        return socket.socket(fileno=message.fds.pop())


def connect_descriptor(cell: str, out: int = 1, environ: Mapping[str, str] | None = None) -> None:
    """Hand OpenSSH a connection to a sandbox's SSH server, and be done: for `ProxyCommand` with `ProxyUseFdpass`.

    OpenSSH gives such a command a unix socket for its output and wants one byte there that brings the descriptor
    (ssh_config(5)).

    Args:
        cell: the sandbox's cell.
        out: the descriptor to hand it over on.
        environ: names the places; this process's own environment when None.

    Raises:
        LocalError: there is no connection, or `out` is not a socket.
    """
    try:
        paths = settle(Paths.of(environ))
    except PathsError as error:
        raise LocalError(str(error)) from error
    with connect(paths, cell) as sock:
        try:
            with socket.socket(fileno=os.dup(out)) as to:
                to.sendmsg(
                    [b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sock.fileno()]))]
                )
        except OSError as error:
            raise LocalError(
                "stdout is not a socket to hand the connection to",
                hint="this is meant for ssh's ProxyCommand",
            ) from error
