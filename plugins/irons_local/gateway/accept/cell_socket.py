"""One of a cell's sockets, as the keeper made it."""

from __future__ import annotations

import socket
import sys

_SO_MEMINFO = 55


class CellSocket(socket.socket):
    """A socket of which family and type are found once: `accept` reads both of them for each connection.

    Args:
        fd: its descriptor, which is the socket's from now on.
    """

    def __init__(self, fd: int) -> None:
        super().__init__(fileno=fd)
        self._kind = super().family, super().type

    @property
    def family(self) -> socket.AddressFamily:
        """The address family."""
        return self._kind[0]

    @property
    def type(self) -> socket.SocketKind:
        """The type."""
        return self._kind[1]

    @property
    def listens(self) -> bool:
        """True for one that accepts connections."""
        return self.type == socket.SOCK_STREAM and bool(
            self.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        )

    @property
    def drops(self) -> int:
        """How many messages the kernel could not put into it since it was made (`SO_MEMINFO`)."""
        return int.from_bytes(self.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36)[32:36], sys.byteorder)
