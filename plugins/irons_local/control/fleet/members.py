"""The members of the fleet: which are connected, which cells are on which of them, and what they are asked."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from irons_local import clocks, times
from irons_local.control.fleet.cells import CellsOfMember
from irons_local.control.fleet.connected import Connected
from irons_local.control.fleet.copies import LogCopies
from irons_local.control.fleet.streams import CellStreams
from irons_local.control.schema.errors import HttpError, conflict, unready
from irons_local.control.store import members
from irons_local.control.store.database import Store, StoreError
from irons_local.control.store.members import StoredMember
from irons_local.errors import CellError
from irons_local.fleet.link import MemberLink
from irons_local.fleet.messages import (
    MEMBER_TO_SERVER,
    AskWorker,
    Beat,
    DropMemberCell,
    FleetSettings,
    LogPiece,
    MemberHello,
    Over,
    Runs,
    read,
)
from irons_local.ipc.fields import SANDBOX_ID, BadMessageError
from irons_local.ipc.framing import Body, LinkError, RequestError
from irons_local.ipc.messages import Forget, FromControl, PutPolicy, call_of
from irons_local.linux.routes import read_host_network

_log = logging.getLogger(__name__)
_WITHIN = 25.0
"""Seconds for an answer of a cell's worker, as on this machine."""
_AGAIN_EVERY = 3.0
_SETTINGS = "settings did not reach it"
_NO_LINK = "the member {} is not connected; is `irons member run` running there?"


class FleetMembers:
    """What the control plane knows of the fleet's members, and its way to them.

    Args:
        store: the database.
        directory: where copies of logs are, a directory for each member.
        enforce: awaited with a cell whose policy has to be pushed; it raises `HttpError` where that failed.
        on_cells: awaited with the cells of a member that has connected; their policies have to be pushed.
        on_audit: called when a copy of a log has grown.
    """

    def __init__(
        self,
        store: Store,
        directory: Path,
        enforce: Callable[[str], Awaitable[None]],
        on_cells: Callable[[Collection[str]], Awaitable[None]],
        on_audit: Callable[[], None],
    ) -> None:
        self._store, self._directory = store, directory
        self._enforce, self._on_cells, self._on_audit = enforce, on_cells, on_audit
        self._connected: dict[str, Connected] = {}
        self._places: dict[str, str] = {}
        self._pending: set[str] = set()
        self._copying: dict[str, asyncio.Lock] = {}
        self._settings: FleetSettings | None = None
        self._settled = asyncio.Event()
        self._opening: dict[str, set[MemberLink]] = {}
        self._telling: set[asyncio.Task[None]] = set()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._carrying: dict[str, set[asyncio.StreamWriter]] = {}
        self.streams = CellStreams()

    async def load(self) -> None:
        """Read which cells are on which member; before anything is pushed.

        Raises:
            StoreError: the database failed.
        """
        self._places = await self._store.read(members.places)

    def connected(self) -> frozenset[str]:
        """The members that can be asked at this moment."""
        return frozenset(self._connected)

    def member_of(self, cell: str) -> str | None:
        """The member that a cell is on; None for one of this machine."""
        return self._places.get(cell)

    def cells_of(self, member: str) -> CellsOfMember:
        """The cells of a member, for an engine.

        Raises:
            CellError: it is not connected.
        """
        self._link(member)
        return CellsOfMember(
            member,
            partial(self._link, member),
            self.streams,
            placed=partial(self._place, member),
            dropped=self._pending.discard,
        )

    def elsewhere(self, cell: str) -> Callable[[FromControl], Awaitable[dict[str, Any]]] | None:
        """What asks the gateway's worker of a cell on a member; None for a cell of this machine."""
        member = self._places.get(cell)
        return None if member is None else partial(self._ask_worker, member, cell)

    def settings(self, listeners: Sequence[tuple[str, int]], upstream: Mapping[str, Any] | None) -> None:
        """What holds for the cells of all members, from now on."""
        found = FleetSettings(upstream, _everywhere(listeners))
        if found == self._settings:
            return
        self._settings = found
        self._settled.set()
        for now in self._connected.values():
            task = asyncio.ensure_future(self._tell_settings(now))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def meet(self, member: StoredMember, link: MemberLink, hello: MemberHello) -> None:
        """Have a member for as long as its link lasts; one that was there under its name before is let go.

        Args:
            member: as it is stored.
            link: to it.
            hello: what it reported of itself.
        """
        opening = self._opening.setdefault(member.name, set())
        opening.add(link)
        try:
            # Once `part` would find it: it may have been removed, or have joined again, since it was looked up.
            again = await self._store.read(lambda connection: members.get(connection, member.name))
        finally:
            opening.discard(link)
        if again is None or again.fingerprint != member.fingerprint or link.closed:
            link.close()
            return
        member = again
        before = self._connected.pop(member.name, None)
        if before is not None:
            before.link.close()
        known = max(hello.cells.values(), default=0) if hello.epoch == member.epoch else 0
        now = Connected(member.name, link, hello, ahead=known > member.revision)
        if now.ahead:
            _log.error(
                "the member %s has policies that this server did not push: is its database an old one?",
                member.name,
            )
        self._connected[member.name] = now
        _log.info("the member %s is connected (irons %r)", member.name, hello.version[:40])
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(link.run())
                group.create_task(self._keep(now))
        except* LinkError as errors:
            _log.warning("the member %s: %s", member.name, errors.exceptions[0])
        finally:
            if self._connected.get(member.name) is now:
                del self._connected[member.name]
            link.close()
            _log.warning("the member %s is not connected any more", member.name)

    async def _keep(self, now: Connected) -> None:
        """Bring a member to what holds for it; what fails is tried again, and keeps nothing else from it."""
        here = [cell for cell, on in self._places.items() if on == now.name]
        known = {each for each in (*now.hello.cells, *now.hello.held) if SANDBOX_ID.fullmatch(each)}
        now.left = known | set(here)
        await self._tell_settings(now)
        await self._on_cells(here)
        while True:
            if now.left and not now.ahead:
                await self._tidy(now)
            await asyncio.sleep(_AGAIN_EVERY)
            await self._tell_settings(now)
            waiting = [cell for cell in self._pending if self._places.get(cell) == now.name]
            if waiting and not now.ahead:
                await self._on_cells(waiting)

    async def _tidy(self, now: Connected) -> None:
        """Drop the cells of a member whose sandboxes are gone, or are elsewhere now: they went while it was away."""
        try:
            lost = await self._store.read(members.without_sandbox)
        except StoreError as error:
            now.failed("its cells cannot be looked up", error)
            return
        for cell in sorted(now.left):
            async with self._turn(cell):
                # Looked up in its turn: a start may have put it there meanwhile.
                if self._places.get(cell) != now.name or cell in lost:
                    try:
                        await self._clear(now, cell)
                    except (RequestError, TimeoutError, StoreError) as error:
                        now.failed("a cell cannot be dropped", error)
                        continue
                now.left.discard(cell)

    async def _clear(self, now: Connected, cell: str) -> None:
        await now.link.request(DropMemberCell(cell), within=_WITHIN)
        op, said = call_of(Forget(cell))
        await now.link.request(AskWorker(cell, {"op": op, **said}), within=_WITHIN)
        if self._places.get(cell) == now.name:
            await self._unplace(cell)

    async def _unplace(self, cell: str) -> None:
        await self._store.write(lambda connection: members.unplace(connection, cell))
        self._places.pop(cell, None)
        self._pending.discard(cell)

    async def _tell_settings(self, now: Connected) -> None:
        """Tell what holds for all cells, once that is known: before, a member keeps to what it was told last."""
        await self._settled.wait()
        told = self._settings
        if told is None or told == now.settings:
            return
        try:
            await now.link.request(told, within=_WITHIN)
        except (LinkError, RequestError, TimeoutError) as error:
            now.failed(_SETTINGS, error)
        else:
            now.settings = told
            now.done(_SETTINGS)

    def part(self, member: str) -> None:
        """Cut all connections of a member that was removed, or has joined again."""
        gone = self._connected.pop(member, None)
        if gone is not None:
            gone.link.close()
        for link in self._opening.pop(member, ()):
            link.close()
        for writer in self._carrying.pop(member, ()):
            writer.transport.abort()

    @contextlib.contextmanager
    def carrying(self, member: str, writer: asyncio.StreamWriter) -> Iterator[None]:
        """Note that a connection of a member carries a stream, for as long as the context lasts."""
        streams = self._carrying.setdefault(member, set())
        streams.add(writer)
        try:
            yield
        finally:
            streams.discard(writer)

    async def hear(self, member: str, body: Body) -> Body:
        """Do what a member asks or tells.

        Raises:
            RequestError: it is refused.
        """
        if "op" not in body:
            return {}
        try:
            told = read(MEMBER_TO_SERVER, body)
        except BadMessageError as error:
            raise RequestError("input", str(error)) from error
        # What came besides can be large, and this may wait.
        del body
        if isinstance(told, Beat):
            now = self._connected.get(member)
            if now is not None:
                now.beat, now.heard_at = told, times.now()
            return {}
        copies = LogCopies(self._directory / member)
        try:
            async with self._lock(member):
                match told:
                    case Runs(runs):
                        at, over = await asyncio.to_thread(copies.compare, frozenset(runs))
                        return {"at": at, "over": over}
                    case LogPiece(run, at, data, counts):
                        reached = await asyncio.to_thread(copies.append, run, at, data, counts=counts)
                        return {"at": reached}
                    case Over(run, size):
                        await asyncio.to_thread(copies.end, run, size)
                        return {}
        except OSError as error:
            raise RequestError("failed", f"the copy cannot be written: {error.strerror}") from error
        finally:
            self._on_audit()
        raise RequestError("unknown", "that is not asked here")

    def rows(self, stored: Collection[StoredMember]) -> list[dict[str, Any]]:
        """How each member is."""
        return [self._row(member) for member in stored]

    def _row(self, member: StoredMember) -> dict[str, Any]:
        now = self._connected.get(member.name)
        cells = [cell for cell, on in self._places.items() if on == member.name]
        row: dict[str, Any] = {
            "name": member.name,
            "state": "connected" if now else "away" if member.fingerprint else "invited",
            "sandboxes": len(cells),
            "revision": member.revision,
            "pending": sum(1 for cell in cells if cell in self._pending),
        }
        if now is not None and now.ahead:
            row["state"] = "ahead"
        if now is not None:
            row["version"] = "".join(each for each in now.hello.version[:40] if each.isprintable())
        if now is not None and now.beat is not None:
            row |= {
                "workers": now.beat.workers,
                "backlog": now.beat.backlog,
                "skew": (now.beat.clock - now.heard_at) / 1_000_000,
            }
        return row

    def _link(self, member: str) -> MemberLink:
        now = self._connected.get(member)
        if now is None or now.link.closed:
            raise CellError(_NO_LINK.format(member))
        return now.link

    async def _place(self, member: str, cell: str) -> None:
        """Note that a cell is on a member, and have its policy there."""
        self._link(member)
        async with self._turn(cell):
            if self._places.get(cell) != member:
                await self._store.write(
                    lambda connection: members.place(connection, cell, member), durable=True
                )
                self._places[cell] = member
            try:
                await self._enforce(cell)
            except HttpError as error:
                # It does not start, so there is no cell that waits for it.
                self._pending.discard(cell)
                raise CellError(error.text) from error

    async def _ask_worker(self, member: str, cell: str, asked: FromControl) -> dict[str, Any]:
        if isinstance(asked, PutPolicy):
            self._pending.add(cell)
        now = self._connected.get(member)
        if now is None and isinstance(asked, Forget):
            # The member drops what it has of it when it connects again.
            await self._unplace(cell)
            return {}
        if now is None:
            raise unready(_NO_LINK.format(member))
        op, said = call_of(asked)
        revision = 0
        lefts: Sequence[int | None] = ()
        if isinstance(asked, PutPolicy):
            if now.ahead:
                raise conflict(
                    f"the member {member} has later policies than this server's database",
                    f"remove it and let it join again: irons fleet remove {member}; irons fleet add {member}",
                )
            counted = await self._store.write(
                lambda connection: members.next_revision(connection, member), durable=True
            )
            if counted is None:
                raise unready(f"the member {member} was removed")
            revision, lefts = counted, _lefts(asked.policy)
        try:
            answer = await now.link.request(
                AskWorker(cell, {"op": op, **said}, revision, lefts), within=_WITHIN
            )
        except RequestError as error:
            raise HttpError(500, f"the member {member} refused: {error.message}") from error
        except TimeoutError as error:
            raise unready(f"the member {member} does not answer") from error
        except LinkError as error:
            raise unready(f"the member {member} is gone: {error}") from error
        if revision:
            self._pending.discard(cell)
        if isinstance(asked, Forget):
            await self._unplace(cell)
        return answer

    def _lock(self, member: str) -> asyncio.Lock:
        return self._copying.setdefault(member, asyncio.Lock())

    def _turn(self, cell: str) -> asyncio.Lock:
        """A cell comes to a member, and goes from it, one after the other."""
        return self._turns.setdefault(cell, asyncio.Lock())


def _everywhere(listeners: Sequence[tuple[str, int]]) -> list[list[Any]]:
    """Listeners as other machines meet them: one on every address is also on each that this machine has."""
    found = [list(each) for each in listeners]
    ports = [port for address, port in listeners if ip_address(address).is_unspecified]
    if ports:
        # Without an answer of the kernel the address that a member dials is closed to its sandboxes, and others as far as no rule opens them.
        with contextlib.suppress(OSError):
            known = read_host_network().own
            own = sorted(str(each) for each in known if not each.is_loopback and not each.is_link_local)
            found += [[address, port] for port in ports for address in own]
    return found


def _lefts(policy: Mapping[str, Any]) -> list[int | None]:
    """What is left of each rule by the clock that no step moves: another machine has another one."""
    now = clocks.moment()
    ups = [rule.get("until_up") for rule in policy.get("rules", ())]
    return [None if up is None else max(0, up - now.up) for up in ups]
