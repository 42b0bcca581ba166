"""What is sent to both sides of one connection: counted, and kept here where a side has no room for it."""

from __future__ import annotations

from irons_local.gateway.conversation.events import CLIENT, SERVER, Side
from irons_local.gateway.streams.stream import Wire


class Outgoing:
    """Sends to both sides.

    Args:
        wires: the sockets that there are; the server's is added later.

    Attributes:
        left: bytes for a side that had no room for them.
        out: bytes that were to go to the server, without those that are spliced.
        back: the same of those to the client.
    """

    __slots__ = ("_wires", "back", "left", "out")

    def __init__(self, wires: dict[Side, Wire]) -> None:
        self._wires = wires
        self.left: dict[Side, bytes] = {}
        self.out = self.back = 0

    def send(self, to: Side, data: bytes, *, own: bool) -> bool:
        """Send bytes to a side, after what it has had no room for.

        Args:
            to: the side.
            data: the bytes.
            own: they do not count as the connection's.

        Returns:
            True where it has no room for all of them, and had room for all before: `flush` is to be called when it has.

        Raises:
            OSError: the connection broke.
        """
        if to is SERVER:
            self.out += len(data)
        elif not own:
            self.back += len(data)
        left = self.left.get(to)
        if left is not None:
            self.left[to] = left + data
            return False
        try:
            gone = self._wires[to].sock.send(data)
        except (BlockingIOError, InterruptedError):
            gone = 0
        if gone == len(data):
            return False
        self.left[to] = data[gone:]
        return True

    def flush(self, to: Side) -> bool:
        """Send what a side had no room for; True once all of it has gone.

        Raises:
            OSError: the connection broke, and what was left is dropped.
        """
        left = self.left[to]
        try:
            left = left[self._wires[to].sock.send(left) :]
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            del self.left[to]
            raise
        if left:
            self.left[to] = left
            return False
        del self.left[to]
        return True

    @property
    def sent(self) -> tuple[int, int]:
        """Bytes that a side has taken: the server, the client."""
        left = self.left
        if not left:
            return self.out, self.back
        # Own words, which were not counted, may be among them.
        return self.out - len(left.get(SERVER, b"")), max(0, self.back - len(left.get(CLIENT, b"")))
