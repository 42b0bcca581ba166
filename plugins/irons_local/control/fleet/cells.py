"""Cells on a member, as an engine sees them: each call goes over the member's link."""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from irons_local.cell.layout import Namespaces, Veth
from irons_local.control.fleet.streams import CellStreams
from irons_local.errors import CellError
from irons_local.fleet.link import MemberLink
from irons_local.fleet.messages import AdoptMemberCell, DropMemberCell, MakeMemberCell, OpenStream, ToMember
from irons_local.ipc.framing import LinkError, RequestError

_WITHIN = 150.0
"""Seconds for an answer: a little more than the member gives its own keeper."""


class CellsOfMember:
    """`engines.protocol.Cells` on a member.

    Args:
        member: its name.
        link: gives its link; raises `CellError` where there is none.
        streams: where it brings the connections that it makes.
        placed: awaited with a cell before it is made: its policy is there when it returns.
        dropped: called with a cell that is there no more.
    """

    def __init__(
        self,
        member: str,
        link: Callable[[], MemberLink],
        streams: CellStreams,
        *,
        placed: Callable[[str], Awaitable[None]],
        dropped: Callable[[str], None],
    ) -> None:
        self._member, self._link, self._streams = member, link, streams
        self._placed, self._dropped = placed, dropped

    async def make(self, cell: str) -> None:
        """See `Cells.make`; a member has cells with a veth alone."""
        raise CellError(f"{cell} is on the member {self._member}, where every cell has a veth")

    async def make_with_veth(self, cell: str) -> Veth:
        """See `Cells.make_with_veth`; the end of the veth is on the member."""
        await self._placed(cell)
        made = await self._ask(MakeMemberCell(cell))
        try:
            veth = Veth(**made)
        except TypeError:
            veth = None
        if (
            veth is None
            or type(veth.name) is not str
            or type(veth.pid) is not int
            or type(veth.started) is not int
        ):
            raise CellError(f"the member {self._member} gave no veth for {cell}")
        return veth

    async def namespaces(self, cell: str) -> Namespaces:
        """See `Cells.namespaces`; those of another machine cannot be given."""
        raise CellError(f"{cell} is on the member {self._member}, and its namespaces too")

    async def connect(self, cell: str, address: str, port: int, *, within: float) -> socket.socket:
        """See `Cells.connect`; the stream goes over the member."""
        link = self._link()
        with self._streams.awaited(self._member) as stream:
            try:
                await link.request(
                    OpenStream(cell, address, port, within, stream.name), within=within + _WITHIN
                )
            except RequestError as error:
                number = getattr(errno, error.code, None)
                if isinstance(number, int):
                    raise OSError(number, error.message) from error
                raise CellError(error.message) from error
            except (LinkError, TimeoutError) as error:
                raise CellError(f"the member {self._member} is gone: {error}") from error
            return stream.take()

    async def adopt(self, cell: str, pid: int, started: int) -> None:
        """See `Cells.adopt`; the process is one of the member."""
        await self._ask(AdoptMemberCell(cell, pid, started))

    async def drop(self, cell: str) -> None:
        """See `Cells.drop`; also without a keeper's help nothing is left of the veth."""
        await self._ask(DropMemberCell(cell))
        self._dropped(cell)

    async def _ask(self, asked: ToMember) -> dict[str, Any]:
        try:
            return await self._link().request(asked, within=_WITHIN)
        except RequestError as error:
            raise CellError(error.message) from error
        except TimeoutError as error:
            raise CellError(f"the member {self._member} does not answer") from error
        except LinkError as error:
            raise CellError(f"the member {self._member} is gone: {error}") from error
