"""Where instances are: the member of a cluster that a new one goes to, and whose cells those of a member are.

A member other than this machine has cells through its agent alone. Where none is connected, nothing starts there.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from irons_local.engines.incus.client import Incus, IncusError
from irons_local.engines.incus.instances import location
from irons_local.engines.protocol import Cells, Members
from irons_local.errors import CellError, EngineError

_ONLINE = "Online"
_PORT = 8443


class MemberCells:
    """See the module. A member is named as Incus names it; "" is this machine.

    Args:
        incus: the Incus.
        cells: those of this machine.
        members: those of others; None where there are none.
        beside: the Incus of this machine, where that is not known to be the same one.

    Attributes:
        listening: the addresses and ports where its members answer on the network, as the last choice found them.
    """

    def __init__(
        self, incus: Incus, cells: Cells, members: Members | None, beside: Incus | None = None
    ) -> None:
        self._incus = incus
        self._beside = beside
        self._own = cells
        self._members = members
        self._name = ""
        self.listening: frozenset[tuple[str, int]] = frozenset()

    def cells_of(self, member: str) -> Cells:
        """The cells of a member.

        Raises:
            CellError: it has none that can be reached.
        """
        if not member:
            return self._own
        if self._members is None:
            raise CellError(f"no agent on {member}: irons member is not running there")
        return self._members.cells_of(member)

    def is_away(self, member: str) -> bool:
        """Whether the cells of a member cannot be asked for, because its agent is not connected."""
        return bool(member) and (self._members is None or member not in self._members.connected())

    async def of(self, found: Mapping[str, Any]) -> str:
        """The member that an instance is on.

        Raises:
            EngineError: Incus does not answer.
        """
        where = location(found)
        if not where:
            if self._beside is not None:
                raise EngineError("machine", "the Incus that was joined is not a cluster any more")
            return ""
        return "" if where == await self._own_name(await self._incus.get("")) else where

    async def _own_name(self, server: Mapping[str, Any]) -> str:
        """The name of this machine in the cluster of a server; "" where it is not in it."""
        if self._beside is None:
            return _name_of(server)
        if not self._name:
            # It cannot change while this machine is a member.
            try:
                here = await self._beside.get("")
            except IncusError:
                return ""
            if _certificate_of(here) and _certificate_of(here) == _certificate_of(server):
                self._name = _name_of(here)
        return self._name

    async def choose(self, wanted: str) -> str:
        """The member to make an instance on, as Incus is asked; "" leaves it to Incus.

        Args:
            wanted: the member that was asked for; "" for none.

        Raises:
            EngineError: there is no such member, or nothing could be started on it.
        """
        server = await self._incus.get("")
        self.listening = _listening(server, ())
        if not _name_of(server):
            if self._beside is not None:
                raise EngineError("machine", "the Incus that was joined is not a cluster any more")
            if wanted:
                raise EngineError(
                    "input", f"there is no member {wanted}: Incus is not a cluster", "leave the member out"
                )
            return ""
        own = await self._own_name(server)
        listed: list[dict[str, Any]] = await self._incus.get("cluster/members", recursion="1")
        self.listening = _listening(server, listed)
        states = {str(each["server_name"]): str(each.get("status") or "") for each in listed}
        if wanted and wanted not in states:
            raise EngineError(
                "input", f"the cluster has no member {wanted}", f"members: {', '.join(sorted(states))}"
            )
        refused = {name: self._why_not(name, state, own) for name, state in states.items()}
        if wanted:
            if refused[wanted]:
                raise EngineError("machine", refused[wanted])
            return wanted
        able = [name for name, why in refused.items() if not why]
        if not able:
            raise EngineError("machine", "; ".join(refused[name] for name in sorted(refused)))
        if all(name in able for name, state in states.items() if state == _ONLINE):
            return ""
        # Incus would choose among members where nothing could be started, too.
        there = await self._incus.get("instances", recursion="1")
        many = Counter(location(each) for each in there)
        return min(able, key=lambda name: (many[name], name))

    def _why_not(self, member: str, state: str, own: str) -> str:
        if state != _ONLINE:
            return f"member {member} is {(state or 'unknown').lower()}"
        if member == own or not self.is_away(member):
            return ""
        return f"no agent on {member}: irons member is not running there"


def _listening(server: Mapping[str, Any], listed: Iterable[Mapping[str, Any]]) -> frozenset[tuple[str, int]]:
    """Where a server and the members of its cluster listen on the network, as Incus describes both."""
    urls = [f"//{each}" for each in (server.get("environment") or {}).get("addresses") or ()]
    found = set()
    for url in (*urls, *(str(each.get("url")) for each in listed)):
        # One that is named is closed by its address, if that is listed too.
        with contextlib.suppress(ValueError):
            parts = urlsplit(url)
            found.add((str(ip_address(parts.hostname or "")), parts.port or _PORT))
    return frozenset(found)


def _certificate_of(server: Mapping[str, Any]) -> str:
    """The fingerprint of the certificate that all members of a cluster show."""
    return str((server.get("environment") or {}).get("certificate_fingerprint") or "")


def _name_of(server: Mapping[str, Any]) -> str:
    """The name of the member that answers; "" where Incus is not a cluster."""
    about = server.get("environment") or {}
    return str(about.get("server_name") or "") if about.get("server_clustered") else ""
