"""Streams into cells of members: a member dials the server for each, and what arrives is led to a socket of this process."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Iterator

from irons_local.errors import CellError
from irons_local.fleet.splice import splice


class AwaitedStream:
    """A stream that a member is asked for.

    Attributes:
        name: what the member names it by; no one else knows it.
        member: who may bring it.
    """

    def __init__(self, member: str) -> None:
        self.name = secrets.token_urlsafe(24)
        self.member = member
        self._socket: socket.socket | None = None

    def bring(self) -> socket.socket:
        """The far end of it, for whoever splices it with the connection."""
        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
        self._socket = near
        return far

    def take(self) -> socket.socket:
        """The near end, once the member has brought it.

        Raises:
            CellError: it has not.
        """
        taken, self._socket = self._socket, None
        if taken is None:
            raise CellError(f"the member {self.member} brought no connection")
        return taken

    def close(self) -> None:
        """Close what was not taken."""
        if self._socket is not None:
            self._socket.close()


class CellStreams:
    """The streams that members are asked for now."""

    def __init__(self) -> None:
        self._awaited: dict[str, AwaitedStream] = {}

    @contextlib.contextmanager
    def awaited(self, member: str) -> Iterator[AwaitedStream]:
        """Await a stream of a member for as long as the context lasts."""
        stream = AwaitedStream(member)
        self._awaited[stream.name] = stream
        try:
            yield stream
        finally:
            self._awaited.pop(stream.name, None)
            stream.close()

    def brought(self, member: str, name: str) -> socket.socket | None:
        """The far end of the stream that a member brings; None where it was not asked for it."""
        stream = self._awaited.get(name)
        if stream is None or stream.member != member:
            return None
        del self._awaited[name]
        return stream.bring()


async def lead(far: socket.socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Lead bytes between a stream's far end and the connection that carries it, until both directions have ended."""
    inner_reader, inner_writer = await asyncio.open_connection(sock=far)
    await splice((reader, writer), (inner_reader, inner_writer))
