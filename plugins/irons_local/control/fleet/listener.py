"""Where members connect: mutual TLS, a name that comes from the certificate alone, and tokens for machines that join."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections import Counter
from functools import partial

from irons.version import __version__
from irons_local.control.fleet.door import FleetDoor, one_more
from irons_local.control.fleet.members import FleetMembers
from irons_local.control.fleet.streams import lead
from irons_local.control.store import members
from irons_local.control.store.database import Store, StoreError
from irons_local.control.store.members import StoredMember
from irons_local.fleet.certificates import CertificateError, FleetAuthority, common_name_of, fingerprint_of
from irons_local.fleet.link import MemberLink, receive, send, server_context
from irons_local.fleet.messages import OPENING, PROTOCOL, CellStream, Join, MemberHello, read
from irons_local.fleet.token import hash_of
from irons_local.ipc.fields import BadMessageError
from irons_local.ipc.framing import Body, LinkError, RequestError

_log = logging.getLogger(__name__)
_OPENING_WITHIN = 60.0
_STRANGERS, _STRANGERS_EACH = 32, 8
"""Connections without a certificate at the same time, in all and from one address."""
_BEGUN = 80
"""Connections of a member at the same time whose first message is not there yet: it brings 64 streams at once."""
_SHORT = 64 * 1024
_MOST = 2 * 1024 * 1024
"""Bytes of a member's message: a piece of a log has 256 KiB, of which each may take two, and be written in six."""
_WORKING = 4
"""Requests of a member at the same time: it has a beat, and one of its log."""


class FleetListener:
    """Serves members on one TCP port.

    Args:
        members: who is connected.
        store: the database.
        authority: issues certificates.
    """

    def __init__(self, members: FleetMembers, store: Store, authority: FleetAuthority) -> None:
        self._members, self._store, self._authority = members, store, authority
        self._door: FleetDoor | None = None
        self._strangers: Counter[str] = Counter()
        self._begun: Counter[str] = Counter()

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens."""
        return [] if self._door is None else self._door.addresses

    async def open(self, host: str, port: int) -> None:
        """Listen.

        Raises:
            OSError: the address cannot be had.
        """
        context = server_context(
            self._authority.server_certificate, self._authority.server_key, self._authority.ca
        )
        self._door = await FleetDoor.open(host, port, context, self._accept)

    async def close(self) -> None:
        """Listen no more, and end every connection."""
        if self._door is not None:
            await self._door.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
        except LinkError as error:
            _log.debug("a connection of the fleet ended: %s", error)
        except StoreError as error:
            _log.warning("a member could not be served: %s", error)
        finally:
            with contextlib.suppress(OSError, RuntimeError):
                writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tls: ssl.SSLObject | None = writer.get_extra_info("ssl_object")
        if tls is None:
            # It is gone already.
            return
        der = tls.getpeercert(binary_form=True)
        if der is None:
            await self._meet_stranger(reader, writer)
            return
        member = await self._known(der)
        if member is None:
            await _refuse(
                writer, "unknown", "this member was removed, or has joined again; join by a new token"
            )
            return
        if self._begun[member.name] >= _BEGUN:
            await _refuse(writer, "busy", "too many connections of this member say nothing yet")
            return
        with one_more(self._begun, member.name):
            body = await receive(reader, _MOST, _OPENING_WITHIN)
        try:
            opening = read(OPENING, body)
        except BadMessageError as error:
            await _refuse(writer, "input", str(error))
            return
        # What came besides can be large, and the link lasts.
        del body
        match opening:
            case MemberHello():
                await self._link(member, opening, reader, writer)
            case CellStream(name):
                far = self._members.streams.brought(member.name, name)
                if far is None:
                    await _refuse(writer, "unknown", "there is no such stream")
                    return
                with self._members.carrying(member.name, writer):
                    await send(writer, {"ok": {}})
                    await lead(far, reader, writer)
            case _:
                await _refuse(writer, "state", "this machine has joined already")

    async def _known(self, der: bytes) -> StoredMember | None:
        """The member whose certificate this is. Its authority was checked by TLS; that it is the one which is valid now, here."""
        name = common_name_of(der)
        found = await self._store.read(lambda connection: members.get(connection, name))
        return found if found is not None and found.fingerprint == fingerprint_of(der) else None

    async def _link(
        self,
        member: StoredMember,
        hello: MemberHello,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        if hello.protocol != PROTOCOL:
            await _refuse(
                writer,
                "version",
                f"irons {hello.version[:40]} of the member and irons {__version__} of the server do not work together; "
                "install the same version",
            )
            return
        await send(
            writer,
            {
                "ok": {
                    "version": __version__,
                    "protocol": PROTOCOL,
                    "name": member.name,
                    "epoch": member.epoch,
                }
            },
        )
        hear = partial(self._members.hear, member.name)
        link = MemberLink(reader, writer, hear, most=_MOST, working=_WORKING)
        await self._members.meet(member, link, hello)

    async def _meet_stranger(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = str((writer.get_extra_info("peername") or ("",))[0])
        if self._strangers.total() >= _STRANGERS or self._strangers[address] >= _STRANGERS_EACH:
            return
        try:
            with one_more(self._strangers, address):
                body = await receive(reader, _SHORT, _OPENING_WITHIN)
                joining = read(OPENING, body)
                if not isinstance(joining, Join):
                    raise RequestError("certificate", "a certificate is needed: let this machine join first")
                await send(writer, {"ok": await self._join(joining)})
        except BadMessageError as error:
            await _refuse(writer, "input", str(error))
        except RequestError as error:
            await _refuse(writer, error.code, error.message)

    async def _join(self, joining: Join) -> Body:
        # First, so that a token is used up by whatever comes with it.
        token = hash_of(joining.secret)
        if not await self._store.write(
            lambda connection: members.spend(connection, joining.name, token), durable=True
        ):
            raise RequestError(
                "token", "the token is not valid: used, over, or of another server; make a new one"
            )
        try:
            issued = self._authority.issue(joining.request, joining.name)
        except CertificateError as error:
            raise RequestError("input", str(error)) from error
        name, fingerprint = joining.name, issued.fingerprint
        if not await self._store.write(
            lambda connection: members.join(connection, name, fingerprint), durable=True
        ):
            raise RequestError("token", f"the member {name} was removed")
        self._members.part(name)
        _log.info("the member %s has joined (irons %s)", name, joining.version[:40])
        return {"certificate": issued.pem, "ca": self._authority.ca.read_text()}


async def _refuse(writer: asyncio.StreamWriter, code: str, message: str) -> None:
    await send(writer, {"error": {"code": code, "message": message}})
