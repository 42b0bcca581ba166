"""The agent's process: `python -m irons_local.member.agent`, started by the member's keeper in place of a control plane.

Its link to the keeper is the descriptor `IRONS_LINK`; at `IRONS_KEEPER` it waits for the next keeper, should that one die.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Collection, Coroutine, Mapping, Sequence
from typing import Any
from weakref import WeakValueDictionary

from irons.files import write_whole
from irons.settings.settings import config_path
from irons_local import times
from irons_local.config.member_log import MemberLogError, read_member_log
from irons_local.control.clients.gateways import CellPlace, Gateways
from irons_local.control.clients.keeper import KeeperClient
from irons_local.control.schema.errors import HttpError, unready
from irons_local.errors import CellError
from irons_local.fleet.link import MemberLink
from irons_local.fleet.messages import (
    SERVER_TO_MEMBER,
    AdoptMemberCell,
    AskWorker,
    Beat,
    DropMemberCell,
    FleetSettings,
    MakeMemberCell,
    OpenStream,
    ToMember,
    read,
)
from irons_local.fleet.splice import Ends
from irons_local.ipc import messages as worker_messages
from irons_local.ipc.fields import BadMessageError
from irons_local.ipc.framing import Body, LinkClosedError, LinkError, RequestError
from irons_local.ipc.inherit import inherited
from irons_local.ipc.messages import Forget, FromControl, PutPolicy, about_sandbox
from irons_local.log.setup import begin
from irons_local.member.cells import OwnCells
from irons_local.member.dialling import Dialler
from irons_local.member.identity import Identity, IdentityError, read_identity, read_state
from irons_local.member.policies import KeptPolicy, PolicyBook
from irons_local.member.settings import KeptSettings, dialled, read_settings
from irons_local.member.shipping import Shipping
from irons_local.paths import Paths, PathsError

_log = logging.getLogger(__name__)
_DELAYS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_ENFORCE_AGAIN = 2.0
_BOUND_EVERY = 0.5
_ALWAYS = ("worker", "settings", "cell.drop")
"""What waits behind no connection or cell that is being made."""
_REFUSED = 500
"""Of an error of a worker that does not take what it was given."""


class Agent:
    """One agent at work.

    Args:
        paths: where everything is; made already.
        identity: who the member is.
        most: bytes of the log that may wait for the server.
    """

    def __init__(self, paths: Paths, identity: Identity, most: int) -> None:
        home = paths.member
        self._home = home
        self._identity = identity
        self._most = most
        self._tasks: set[asyncio.Task[Any]] = set()
        self._begun: set[asyncio.Task[Body]] = set()
        self._stopping = asyncio.Event()
        self._server = ""
        self._epoch = str(read_state(home / "epoch.json").get("epoch", ""))
        self._book = PolicyBook(home / "policies")
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._shipping = Shipping(paths.gateway / "audit")
        self._keeper = KeeperClient(on_peer=self._meet, on_moved=lambda _cell, _served: None)
        self._cells = OwnCells(home / "cells", self._keeper)
        self._dialler = Dialler(identity)
        self._workers: set[int] = set()
        self._gateways = Gateways(
            locate=self._locate,
            release=self._keeper.release,
            on_audit=self._shipping.poke,
            on_connect=self._enforce,
            on_lost=self._lost,
        )

    async def serve(self, link: socket.socket, rendezvous: socket.socket | None) -> None:
        """Serve until `stop` is called or, without a rendezvous, until the keeper ends."""
        await self._apply(read_settings(self._home / "settings.json"))
        keeper = self._spawn(self._keeper.serve(link, rendezvous, self._cells.recover))
        keeper.add_done_callback(lambda _: self.stop())
        try:
            await self._cells.recover()
            await self._keeper.ready()
            self._spawn(self._enforce(self._book.cells()))
            self._spawn(self._connect())
            self._spawn(self._bound_log())
            await self._stopping.wait()
        finally:
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._dialler.close()
            await self._gateways.close()
            self._keeper.close()

    def stop(self) -> None:
        """Tell it to stop."""
        self._stopping.set()

    async def _connect(self) -> None:
        """Have a link to the server, again whenever one has ended."""
        failures, said = 0, ""
        while True:
            try:
                held = sorted({*self._book.cells(), *self._cells.names()})
                ends, hello = await self._dialler.greet(self._book.revisions(self._epoch), self._epoch, held)
                failures, said = 0, ""
                await self._linked(ends, hello)
            except (LinkError, RequestError, TimeoutError) as error:
                told = f"the server at {self._identity.host}:{self._identity.port}: {error}"
                if told != said:
                    _log.warning("%s", told)
                said = told
            await asyncio.sleep(_DELAYS[min(failures, len(_DELAYS) - 1)])
            failures += 1

    async def _linked(self, ends: Ends, hello: Mapping[str, Any]) -> None:
        link = MemberLink(*ends, self._hear, always=_ALWAYS)
        try:
            self._begin_epoch(str(hello.get("epoch", "")))
            _log.info("the server at %s is connected (irons %s)", self._identity.host, hello.get("version"))
            self._server = str(ends[1].get_extra_info("peername")[0])
            # The first of them that ends, ends both.
            async with asyncio.TaskGroup() as group:
                group.create_task(link.run(self._beat))
                group.create_task(self._shipping.run(link))
        except ExceptionGroup as group_error:
            first = group_error.exceptions[0]
            if isinstance(first, OSError) and not isinstance(first, TimeoutError):
                raise LinkClosedError(f"this machine's disk: {first}") from first
            raise first from None
        finally:
            link.close()

    def _begin_epoch(self, epoch: str) -> None:
        if epoch != self._epoch:
            try:
                write_whole(self._home / "epoch.json", json.dumps({"epoch": epoch}), durable=True)
            except OSError as error:
                raise LinkClosedError(f"this machine's disk: {error}") from error
            self._epoch = epoch

    async def _bound_log(self) -> None:
        """Have nothing more recorded, and so nothing let through, while too much of the log waits for the server."""
        held = False
        while True:
            kept = await asyncio.to_thread(self._shipping.backlog)
            full = kept >= self._most
            if full != held:
                held = full
                _log.warning(
                    "%d of %d bytes of the log wait for the server: %s",
                    kept,
                    self._most,
                    "connections are refused" if full else "they are judged again",
                )
                self._gateways.hold_log(full)
            await asyncio.sleep(_BOUND_EVERY)

    def _beat(self) -> Beat:
        return Beat(times.now(), self._shipping.backlog(), len(self._workers), len(self._cells))

    async def _hear(self, body: Body) -> Body:
        if "op" not in body:
            return {}
        try:
            return await self._do(read(SERVER_TO_MEMBER, body))
        except BadMessageError as error:
            raise RequestError("input", str(error)) from error
        except HttpError as error:
            raise RequestError("gateway", error.text) from error
        except OSError as error:
            raise RequestError("disk", f"the member's disk: {error.strerror or error}") from error

    async def _do(self, asked: ToMember) -> Body:
        match asked:
            case MakeMemberCell(cell):
                return await self._to_its_end(self._make(cell))
            case AdoptMemberCell(cell, pid, started):
                await self._cells.adopt(cell, pid, started)
            case DropMemberCell(cell):
                return await self._to_its_end(self._drop(cell))
            case OpenStream(cell, address, port, within, stream):
                sock = await self._cells.connect(cell, address, port, within)
                try:
                    await self._dialler.carry(sock, stream)
                except LinkError as error:
                    raise RequestError("stream", str(error)) from error
            case FleetSettings():
                await self._settle(asked)
            case AskWorker():
                return await self._ask(asked)
        return {}

    async def _ask(self, asked: AskWorker) -> Body:
        message: FromControl = worker_messages.read(worker_messages.CONTROL_TO_WORKER, dict(asked.asked))
        cell = asked.cell
        if getattr(message, "cell", None) != cell:
            raise RequestError("input", "that is about another cell")
        if isinstance(message, PutPolicy):
            return await self._to_its_end(self._put(cell, asked, message))
        if isinstance(message, Forget):
            return await self._to_its_end(self._forget(cell))
        return await self._gateways.of_cell(cell, message)

    async def _to_its_end(self, work: Coroutine[Any, Any, Body]) -> Body:
        """Do what an end of the link must not leave half done: what is kept here and what the gateway has are the same."""
        task = asyncio.create_task(work)
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)
        return await asyncio.shield(task)

    async def _make(self, cell: str) -> Body:
        async with self._turns.setdefault(cell, asyncio.Lock()):
            return (await self._cells.make(cell))._asdict()

    async def _drop(self, cell: str) -> Body:
        async with self._turns.setdefault(cell, asyncio.Lock()):
            await self._cells.drop(cell)
        return {}

    async def _put(self, cell: str, asked: AskWorker, message: PutPolicy) -> Body:
        async with self._turns.setdefault(cell, asyncio.Lock()):
            about = {**message.sandbox, "id": cell}
            kept = self._book.made(self._epoch, asked.revision, about, message.policy, asked.lefts)
            try:
                await asyncio.to_thread(self._book.put, cell, kept)
            except OSError:
                # A rule that was removed ends all the same; the server hears that it is not kept, and sends it again.
                await self._push(cell, kept)
                raise
            return await self._push(cell, kept)

    async def _forget(self, cell: str) -> Body:
        async with self._turns.setdefault(cell, asyncio.Lock()):
            await self._gateways.forget(cell)
            self._book.forget(cell)
        return {}

    async def _settle(self, settings: FleetSettings) -> None:
        """Take what holds for all cells; where the server listens on every address, that is where it was dialled."""
        made = dialled(settings, self._server, self._identity.port)
        # First, so that they hold on a full disk too; the server hears that they are not kept, and sends them again.
        await self._apply(made)
        write_whole(self._home / "settings.json", json.dumps(made._asdict()), durable=True)

    async def _apply(self, settings: KeptSettings | None) -> None:
        # Workers that are told nothing keep to what they were told last.
        if settings is not None:
            await self._gateways.listeners(settings.listeners, settings.upstream)

    async def _enforce(self, cells: Collection[str]) -> None:
        """Have the policies of cells active that are kept here; tried again until they are."""
        self._shipping.poke()
        await asyncio.gather(*map(self._enforce_one, cells))

    async def _enforce_one(self, cell: str) -> None:
        while True:
            try:
                async with self._turns.setdefault(cell, asyncio.Lock()):
                    kept = self._book.get(cell)
                    if kept is not None:
                        await self._push(cell, kept)
            except HttpError as error:
                _log.warning("the policy of %s is not active: %s", cell, error.text)
                if error.status == _REFUSED:
                    return
                await asyncio.sleep(_ENFORCE_AGAIN)
            else:
                return

    async def _push(self, cell: str, kept: KeptPolicy) -> Body:
        put = PutPolicy(cell, kept.policy, about_sandbox(kept.about))
        return await self._gateways.of_cell(cell, put, spare=True)

    def _meet(self, sock: socket.socket, worker: int, cells: Sequence[str]) -> None:
        self._workers.add(worker)
        self._gateways.attach(sock, worker, cells)

    async def _locate(self, cell: str) -> CellPlace:
        try:
            return await self._keeper.place(cell)
        except CellError as error:
            raise unready(f"where {cell} is served can't be asked: {error}") from error

    async def _lost(self, worker: int) -> None:
        """A worker that runs, and to which there is no link, is of no use: rules would not reach it."""
        self._workers.discard(worker)
        with contextlib.suppress(CellError, LookupError, TypeError):
            known = (await self._keeper.status(within=60.0))["gateways"]
            if any(each["worker"] == worker and each["pid"] is not None for each in known):
                await self._keeper.restart("gateway", worker)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            # Better to be started again than to go on with a part missing.
            _log.error("a part of the agent failed", exc_info=task.exception())
            self.stop()


def main() -> int:
    """Run the agent; 1, with one line on stderr, where it cannot start."""
    os.umask(0o077)
    begin(os.environ)
    try:
        paths = Paths.of().create()
        identity = read_identity(paths.member)
        link, rendezvous = inherited("IRONS_LINK"), inherited("IRONS_KEEPER")
        if link is None:
            raise IdentityError("IRONS_LINK names no descriptor; the keeper starts this program")
        most = read_member_log(config_path(os.environ))
        asyncio.run(_run(paths, identity, most, link, rendezvous))
    except (PathsError, IdentityError, MemberLogError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


async def _run(
    paths: Paths, identity: Identity, most: int, link: socket.socket, rendezvous: socket.socket | None
) -> None:
    agent = Agent(paths, identity, most)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, agent.stop)
    await agent.serve(link, rendezvous)


if __name__ == "__main__":
    sys.exit(main())
