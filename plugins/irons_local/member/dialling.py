"""The way to the server: dialled again and again, with mutual TLS; a stream of a cell has a connection of its own."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping, Sequence
from typing import Any

from irons.version import __version__
from irons_local.fleet.link import SERVER, member_context, receive, send
from irons_local.fleet.messages import PROTOCOL, CellStream, MemberHello, body_of
from irons_local.fleet.splice import Ends, splice
from irons_local.ipc.framing import LinkClosedError, Message, RequestError, answer_of
from irons_local.member.identity import Identity

_WITHIN = 60.0


class Dialler:
    """Dials the server of a member.

    Args:
        identity: who the member is.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._tasks: set[asyncio.Task[None]] = set()

    async def greet(
        self, cells: Mapping[str, int], epoch: str, held: Sequence[str] = ()
    ) -> tuple[Ends, dict[str, Any]]:
        """Dial for a link.

        Args:
            cells: the revision of each policy.
            epoch: of those.
            held: all cells of which there is anything.

        Returns:
            The connection, and what the server reported of itself.

        Raises:
            LinkError: the server is not there, or is another one.
            RequestError: it refuses.
        """
        ends = await self._dial()
        try:
            return ends, await _opened(ends, body_of(MemberHello(__version__, PROTOCOL, cells, epoch, held)))
        except BaseException:
            ends[1].transport.abort()
            raise

    async def carry(self, sock: socket.socket, stream: str) -> None:
        """Bring a connection to the server as a stream, and lead it for as long as it lasts.

        Raises:
            LinkError: the server is not there.
            RequestError: it does not await that stream.
        """
        ends = None
        try:
            ends = await self._dial()
            await _opened(ends, body_of(CellStream(stream)))
        except BaseException:
            sock.close()
            if ends is not None:
                ends[1].transport.abort()
            raise
        inside = await asyncio.open_connection(sock=sock)
        leading = asyncio.ensure_future(splice(ends, inside))
        self._tasks.add(leading)
        leading.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End the streams."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _dial(self) -> Ends:
        who = self._identity
        try:
            context = member_context(who.ca, who.certificate, who.key)
            async with asyncio.timeout(_WITHIN):
                return await asyncio.open_connection(who.host, who.port, ssl=context, server_hostname=SERVER)
        except (OSError, ssl.SSLError) as error:
            raise LinkClosedError(str(error) or "it does not answer") from error


async def _opened(ends: Ends, body: dict[str, Any]) -> dict[str, Any]:
    await send(ends[1], {**body, "id": 1})
    answer = await receive(ends[0])
    if "error" not in answer and "ok" not in answer:
        raise RequestError("input", "the server answered with something else")
    return answer_of(Message(answer, [])).body
