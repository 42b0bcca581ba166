"""The fleet of a server: its authority, its listener and its members. `cryptography` is imported when it opens."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irons_local import times
from irons_local.control.fleet.members import FleetMembers
from irons_local.control.schema.errors import bad, missing, unready
from irons_local.control.store import members
from irons_local.control.store.database import Store
from irons_local.fleet.link import SERVER
from irons_local.fleet.token import LASTS, MEMBER_NAME, JoinToken, JoinTokenError, split_address
from irons_policy.patterns import narrowest

if TYPE_CHECKING:
    from irons_local.control.fleet.listener import FleetListener
    from irons_local.fleet.certificates import FleetAuthority

_log = logging.getLogger(__name__)


class Fleet:
    """What the API does with the fleet.

    Args:
        store: the database.
        directory: of the authority, and of `logs/`.
        listen: the host and the port where members connect.
        enforce: see `FleetMembers`.
        on_cells: see `FleetMembers`.
        on_audit: see `FleetMembers`.
    """

    def __init__(
        self,
        store: Store,
        directory: Path,
        listen: tuple[str, int],
        enforce: Callable[[str], Awaitable[None]],
        on_cells: Callable[[Collection[str]], Awaitable[None]],
        on_audit: Callable[[], None],
    ) -> None:
        self._store, self._directory, self._listen = store, directory, listen
        self._listener: FleetListener | None = None
        self._authority: FleetAuthority | None = None
        self._closed = ""
        self.members = FleetMembers(store, directory / "logs", enforce, on_cells, on_audit)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where members connect; empty where it is not open."""
        return [] if self._listener is None else self._listener.addresses

    async def open(self) -> None:
        """Listen for members. Where that fails the rest of the control plane goes on, and `add` says why."""
        try:
            from irons_local.control.fleet.listener import FleetListener
            from irons_local.fleet.certificates import CertificateError, FleetAuthority
        except ImportError:
            self._fail("the package cryptography is missing; install irons[fleet]")
            return
        try:
            authority = await asyncio.to_thread(FleetAuthority, self._directory / "authority")
            listener = FleetListener(self.members, self._store, authority)
            await listener.open(*self._listen)
        except (CertificateError, OSError, ValueError) as error:
            self._fail(f"members cannot connect to {narrowest(*self._listen, exact=True)}: {error}")
            return
        self._authority, self._listener = authority, listener
        _log.info("members connect to %s", narrowest(*self._listen, exact=True))

    async def close(self) -> None:
        """Listen no more."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                await self._listener.close()

    async def add(self, name: str, address: str | None) -> JoinToken:
        """Make a token for a member.

        Args:
            name: the member's.
            address: where it reaches this server, `HOST:PORT`; None is where the server listens.

        Raises:
            HttpError: no member could connect.
        """
        if self._authority is None:
            raise unready(self._closed or "the fleet is not open yet")
        if not MEMBER_NAME.fullmatch(name) or name == SERVER:
            raise bad(f"{name[:80]!r} is not the name of a member: a host name in small letters")
        host, port = (self.addresses or [self._listen])[0]
        if address is None and host in ("0.0.0.0", "::"):  # noqa: S104 (compared with, not bound)
            raise bad("the server listens on every address: say with --address which one the member dials")
        if address is not None:
            try:
                split_address(address)
            except JoinTokenError as error:
                raise bad(str(error)) from None
        token = JoinToken.make(
            name, address or narrowest(host, port, exact=True), self._authority.fingerprint
        )
        until = times.now() + LASTS * 1_000_000
        await self._store.write(
            lambda connection: members.add(connection, name, token.hash, until), durable=True
        )
        return token

    async def remove(self, name: str) -> None:
        """Forget a member and cut its connections. What its log had is kept, and goes on where it joins again.

        Raises:
            HttpError: there is none of that name.
        """
        gone = await self._store.write(lambda connection: members.remove(connection, name), durable=True)
        self.members.part(name)
        if not gone:
            raise missing(f"there is no member {name!r}", "irons fleet status shows what there is")

    async def status(self) -> list[dict[str, Any]]:
        """How each member is."""
        return self.members.rows(await self._store.read(members.all_of))

    def _fail(self, why: str) -> None:
        self._closed = why
        _log.error("%s", why)
