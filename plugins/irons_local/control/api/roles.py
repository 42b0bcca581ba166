"""What an API key may do, by its role: one table for all routes, and the gate that each request passes before its handler.

An `admin` may do all, and so may whoever opens the unix socket. An `auditor` reads. A `user` does what it likes with the sandboxes that its
key created, and does not see others. What a path, a query or a body names is looked up here, and the handler gets the id of what was
found, so that a name which another sandbox has a moment later leads nowhere. A route without a line in the table does not start.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from irons_local.control.api.plane import Plane
from irons_local.control.api.routing import ApiRoute, Owned
from irons_local.control.schema.errors import HttpError, forbidden, missing
from irons_local.control.store import owners
from irons_local.control.store.keys import StoredKey

Answer = Mapping[str, Any]


class Caller(NamedTuple):
    """Who sends a request.

    Attributes:
        role: one of `KEY_ROLES`.
        key: the id of the API key; empty on the unix socket.
    """

    role: str
    key: str = ""


ADMIN: Final = Caller("admin")


class _Only(NamedTuple):
    """What is left of an answer for who sees only what its key created.

    Attributes:
        members: those members of an answer that are about it; without one of them the answer is left as it is.
        leave: gives what stays of an answer.
        read: reads what a key created: the names, by the ids.
        first: it is read before the handler, which keeps to that; else after it, when the caller may have created more.
    """

    members: frozenset[str]
    leave: Callable[[Answer, Mapping[str, str]], Answer]
    read: Callable[[sqlite3.Connection, str], Mapping[str, str]] = owners.sandboxes
    first: bool = False


def _rows(*, first: bool = False, **members: str) -> _Only:
    """Leave of lists in an answer the rows of sandboxes that a key created; each list is given with the member that has the id."""

    def leave(answer: Answer, own: Mapping[str, str]) -> Answer:
        kept = {
            name: [row for row in answer[name] if row[by] in own]
            for name, by in members.items()
            if name in answer
        }
        return {**answer, **kept}

    return _Only(frozenset(members), leave, first=first)


def _snapshots(answer: Answer, own: Mapping[str, str]) -> Answer:
    return {**answer, "snapshots": [row for row in answer["snapshots"] if row["id"] in own]}


def _modes(answer: Answer, own: Mapping[str, str]) -> Answer:
    """Leave of the sandboxes with a mode of their own those that a key created."""
    names = {*own.values()}
    asking = [name for name in answer.get("asking", ()) if name in names]
    rest = {name: value for name, value in answer.items() if name not in ("asking", "differs")}
    differs = {name: mode for name, mode in answer.get("differs", {}).items() if name in names}
    return {**rest, "differs": differs, **({"asking": asking} if asking else {})}


class Access(NamedTuple):
    """What the roles below `admin` may do with a route.

    Attributes:
        auditor: it may call it.
        user: it may, for what its key created.
        only: leaves of the answer what the key created, where the route is not about one thing.
        gone: sandboxes that are gone count too.
        own_only: the auditor gets what its key created, too: that is nothing.
        what: for the documentation, where the words for a user are others.
    """

    auditor: bool = False
    user: bool = False
    only: _Only | None = None
    gone: bool = False
    own_only: bool = False
    what: str = ""

    def words(self, role: str) -> str:
        """What a role may do, for the documentation."""
        if role == "auditor":
            return "no" if not self.auditor else "nothing is shown" if self.own_only else "yes"
        return "no" if not self.user else self.what or "its own"


_NONE = Access()
_ALL = Access(auditor=True, user=True, what="yes")
_READ = Access(auditor=True)
_OWN = Access(user=True)
_OWN_READ = Access(auditor=True, user=True)
_OWN_LOG = Access(auditor=True, user=True, gone=True)
_TOLD = _rows(first=True, questions="sandbox_id", others="sandbox_id")
_EVENTS = _rows(unrecorded="sandbox_id")
_MODES = _Only(frozenset(("differs", "asking")), _modes)

ACCESS: Final[Mapping[str, Access]] = {
    "POST /sandboxes": Access(user=True, what="yes; a snapshot must be its own"),
    "GET /sandboxes": Access(auditor=True, user=True, only=_rows(sandboxes="id")),
    "GET /sandboxes/{name}": _OWN_READ,
    "PATCH /sandboxes/{name}": _OWN,
    "DELETE /sandboxes/{name}": _OWN,
    "POST /sandboxes/{name}/start": _OWN,
    "POST /sandboxes/{name}/stop": _OWN,
    "POST /sandboxes/{name}/extend": _OWN,
    "POST /sandboxes/{name}/hold": _OWN,
    "DELETE /sandboxes/{name}/hold": _OWN,
    "POST /sandboxes/{name}/restore": _OWN,
    "POST /sandboxes/{name}/fork": _OWN,
    "GET /sandboxes/{name}/boot": _OWN_READ,
    "GET /sandboxes/{name}/ssh": _OWN_READ,
    "GET /sandboxes/{name}/access": _OWN_READ,
    "POST /sandboxes/{name}/access": _OWN,
    "DELETE /sandboxes/{name}/access/{key}": _OWN,
    "GET /sandboxes/{name}/snapshots": _OWN_READ,
    "POST /sandboxes/{name}/snapshots": _OWN,
    "GET /snapshots": Access(
        auditor=True, user=True, only=_Only(frozenset(("snapshots",)), _snapshots, owners.snapshots)
    ),
    "DELETE /snapshots/{snapshot}": _OWN,
    "GET /egress": _ALL,
    "PUT /egress": _NONE,
    "POST /egress/allow": _NONE,
    "POST /egress/deny": _NONE,
    "POST /egress/remove": _NONE,
    "DELETE /egress/rules": _NONE,
    "GET /egress/mode": Access(auditor=True, user=True, only=_MODES, what="yes, without others' sandboxes"),
    "PUT /egress/mode": _NONE,
    "GET /egress/check": Access(auditor=True, user=True, what="yes, without others' sandboxes"),
    "GET /sandboxes/{name}/egress": _OWN_READ,
    "PUT /sandboxes/{name}/egress": _OWN,
    "POST /sandboxes/{name}/egress/allow": _OWN,
    "POST /sandboxes/{name}/egress/deny": _OWN,
    "POST /sandboxes/{name}/egress/remove": _OWN,
    "DELETE /sandboxes/{name}/egress/rules": _OWN,
    "GET /sandboxes/{name}/egress/mode": _OWN_READ,
    "PUT /sandboxes/{name}/egress/mode": _OWN,
    "GET /questions": Access(auditor=True, user=True, only=_TOLD, own_only=True),
    "POST /questions/{id}": _OWN,
    "GET /audit/egress": Access(auditor=True, user=True, only=_EVENTS),
    "GET /audit/changes": _READ,
    "GET /sandboxes/{name}/audit/egress": _OWN_LOG,
    "GET /sandboxes/{name}/audit/hosts": _OWN_LOG,
    "GET /sandboxes/{name}/audit/totals": _OWN_LOG,
    "GET /sandboxes/{name}/audit/changes": _OWN_LOG,
    "GET /images": _ALL,
    "GET /version": _ALL,
    "GET /status": _READ,
    "GET /metrics": _READ,
    "GET /keys": _NONE,
    "POST /keys": _NONE,
    "DELETE /keys/{id}": _NONE,
    "GET /fleet/members": _NONE,
    "POST /fleet/members": _NONE,
    "DELETE /fleet/members/{name}": _NONE,
}
"""What the roles below `admin` may do, for each route by its method and path."""

_NAMED = frozenset(("name", "snapshot", "id", "key"))
"""What the gate knows that a path may name: a sandbox, a snapshot, a question, a public key of the sandbox in the same path."""


def access_of(route: ApiRoute) -> Access:
    """The line of a route in the table.

    Raises:
        LookupError: there is none, or the path names what the gate does not know.
    """
    line = f"{route.method} {route.path}"
    strange = [part for part in route.path.split("/") if part.startswith("{") and part[1:-1] not in _NAMED]
    if strange:
        raise LookupError(f"{line}: the gate does not know what {strange[0]} names")
    return ACCESS[line]


def caller_of(key: StoredKey | None, *, remote: bool) -> Caller:
    """Who sends a request.

    Args:
        key: the API key that it came with.
        remote: it came over TCP.

    Raises:
        HttpError: it came over TCP without a key; the listener lets none of those through.
    """
    if key is not None:
        return Caller(key.role, key.id)
    if remote:
        raise HttpError(401, "a key is needed")
    return ADMIN


class RoleGate:
    """One request at the gate.

    Args:
        plane: the control plane's parts.
        route: where it goes.
        caller: who sends it.
    """

    def __init__(self, plane: Plane, route: ApiRoute, caller: Caller) -> None:
        self._plane, self._route, self._caller = plane, route, caller
        self._access = ACCESS[f"{route.method} {route.path}"]

    def check_role(self) -> None:
        """Refuse what the caller's role may never do.

        Raises:
            HttpError: 403.
        """
        role = self._caller.role
        if not (role == "admin" or {"auditor": self._access.auditor, "user": self._access.user}.get(role)):
            raise self._refused("cannot do that")

    async def path(self, names: Mapping[str, str]) -> Mapping[str, str]:
        """What the path names, by the ids of what a user's key created; of other roles as it came.

        Raises:
            HttpError: 403 where another created it, 404 where there is none.
        """
        if self._caller.role != "user":
            return names
        found = dict(names)
        if "name" in found:
            found["name"] = await self._own_sandbox(found["name"])
        if "snapshot" in found:
            found["snapshot"] = await self._own_snapshot(found["snapshot"])
        if "id" in found:
            await self._own_question(found["id"])
        return found

    async def query(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """The query, likewise.

        Raises:
            HttpError: as `path`; or the role may not ask for this.
        """
        role = self._caller.role
        if role == "admin":
            return given
        # The gateway would connect for it: an auditor has nothing done, and a user's sandbox could do that itself.
        if given.get("live") and (role == "auditor" or "sandbox" not in given):
            raise self._refused(
                "has nothing tried for it" if role == "auditor" else "tries that for its sandboxes only"
            )
        if role == "user" and "sandbox" in given:
            return {**given, "sandbox": await self._own_sandbox(given["sandbox"])}
        return given

    async def body(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """The body, likewise.

        Raises:
            HttpError: as `path`; or the role may not ask for this.
        """
        if self._caller.role != "user":
            return given
        if given.get("scope") == "account":
            raise self._refused("answers for its sandboxes only")
        if given.get("snapshot"):
            return {**given, "snapshot": await self._own_snapshot(given["snapshot"])}
        return given

    async def owned(self) -> Owned | None:
        """What the answer is to be about: all that the caller created, or None for everything there is."""
        only = self._access.only
        if only is None or not self._sees_own():
            return None
        return Owned(self._caller.key, await self._created(only) if only.first else {})

    async def answer(self, given: Answer, owned: Owned | None) -> Answer:
        """An answer without what the caller did not create.

        Args:
            given: the handler's.
            owned: what the handler kept to.
        """
        only = self._access.only
        if owned is None or only is None or only.members.isdisjoint(given):
            return given
        return only.leave(given, owned.sandboxes if only.first else await self._created(only))

    def _sees_own(self) -> bool:
        role = self._caller.role
        return role == "user" or (role == "auditor" and self._access.own_only)

    async def _created(self, only: _Only) -> Mapping[str, str]:
        if self._caller.role != "user":
            return {}
        return await self._plane.store.read(lambda connection: only.read(connection, self._caller.key))

    async def _own_sandbox(self, name: str) -> str:
        gone = self._access.gone
        found = await self._plane.store.read(
            lambda connection: owners.of_sandbox(connection, name, gone=gone)
        )
        if found is None:
            raise missing(f"no sandbox is named {name!r}")
        if found.creator != self._caller.key:
            raise self._refused(f"did not create {name!r}")
        return found.id

    async def _own_snapshot(self, name: str) -> str:
        found = await self._plane.store.read(lambda connection: owners.of_snapshot(connection, name))
        if found is None:
            raise missing(f"there is no snapshot {name!r}", "irons snapshot list shows them")
        if found.creator != self._caller.key:
            raise self._refused(f"did not create the sandbox of the snapshot {name!r}")
        return found.id

    async def _own_question(self, identity: str) -> None:
        cell = self._plane.questions.cell_of(identity)
        if cell is None:
            # One that is gone is the handler's business.
            return
        creator = await self._plane.store.read(lambda connection: owners.of_id(connection, cell))
        if creator != self._caller.key:
            raise self._refused("does not answer for the sandbox of this question")

    def _refused(self, what: str) -> HttpError:
        return forbidden(f"this key, of the role {self._caller.role}, {what}")


def check_table(routes: Iterable[ApiRoute]) -> None:
    """Raise `LookupError` where a route has no line in the table."""
    for each in routes:
        access_of(each)
