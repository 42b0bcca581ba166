"""The control plane's process: `python -m irons_local.control.server`, started by the keeper.

It serves the v0 API on `api.sock`, is the only writer of the database, drives the engines and leads SSH
connections inside. Its link to the keeper is the descriptor `IRONS_LINK`; at `IRONS_KEEPER` it waits for the next
keeper, should that one die.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

from irons.host import PluginHost
from irons.settings.settings import config_path
from irons.version import __version__
from irons_local.bundle import trust
from irons_local.config.authorities import Authorities
from irons_local.config.server import LocalTable, ServerConfig, ServerConfigError, read_config
from irons_local.control.api.app import KeyRequired, make_app
from irons_local.control.api.plane import Plane
from irons_local.control.audit.change_log import ChangeLog
from irons_local.control.audit.ingest import GatheredLogs, Ingest
from irons_local.control.audit.log import Audit
from irons_local.control.audit.retention import Retention
from irons_local.control.audit.serving import Serving
from irons_local.control.clients.gateways import CellPlace, Gateways
from irons_local.control.clients.keeper import KeeperClient
from irons_local.control.egress.hook_notifier import HookNotifier
from irons_local.control.egress.notifier import ProgramNotifier
from irons_local.control.egress.questions import QuestionDesk
from irons_local.control.egress.rules_and_modes import Egress
from irons_local.control.egress.timed_rules import TimedRules
from irons_local.control.hook_feed import HookFeed
from irons_local.control.http.listeners import Listener, ListenError, tcp_listener, unix_listener
from irons_local.control.reserve import Reserve
from irons_local.control.sandbox.copies import SandboxCopies
from irons_local.control.sandbox.deadlines import SandboxDeadlines
from irons_local.control.sandbox.engine_registry import INCUS, VM, make_engines
from irons_local.control.sandbox.holds import Holds
from irons_local.control.sandbox.lifecycle import Lifecycle
from irons_local.control.sandbox.ssh_ports import NoPortError, SshPorts
from irons_local.control.schema.errors import HttpError, unready
from irons_local.control.store.database import TURN, Store, StoreError
from irons_local.control.store.keyring import KeyRing
from irons_local.control.store.terms import Instant
from irons_local.engines.namespace.starter import Starter
from irons_local.engines.protocol import Cells, Engine, EngineMaker, Kit, Listens, Members
from irons_local.errors import CellError, EngineError
from irons_local.images.layers import Layers
from irons_local.ipc.inherit import inherited
from irons_local.ipc.messages import OpenQuestions
from irons_local.linux.scheduling import lengthen_turns
from irons_local.linux.userns_call import program
from irons_local.log.setup import begin
from irons_local.paths import Paths, PathsError

_log = logging.getLogger(__name__)
_HOSTS_EVERY = 2.0
_KEEPER_WITHIN = 60.0
"""Seconds in which the keeper says whether a lost worker runs: after them it is left without a link, and rules do not reach it."""
_RESERVE_EVERY = 30.0
_LAYERS_EVERY = 5.0


class Server:
    """One control plane at work.

    Args:
        paths: where everything is; made already.
        config: its configuration.
        store: its database.
        engines: makes the engines, given the cells to put machines in, and the members that have others.
        local: gives what of `[local]` may change at any time.
        instant: the clocks that deadlines go by.
    """

    def __init__(
        self,
        paths: Paths,
        config: ServerConfig,
        store: Store,
        engines: Callable[[Cells, Members | None], Mapping[str, Engine]],
        local: LocalTable,
        instant: Callable[[], Instant] = Instant.now,
    ) -> None:
        self._local = local
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopping = asyncio.Event()
        self._listeners: list[Listener] = []
        kept = Retention(events=config.keep_events, days=config.keep_days)
        self._serving = Serving()
        logs = GatheredLogs(Ingest(paths.gateway / "audit", self._serving), paths.fleet / "logs")
        audit = Audit(store, logs, kept, self._settle, self._followed)
        fleet = None
        if config.fleet_listen is not None:
            # TLS takes a while to import.
            from irons_local.control.fleet.fleet import Fleet
            from irons_local.fleet.token import split_address

            fleet = Fleet(
                store,
                paths.fleet,
                split_address(config.fleet_listen),
                self._enforce_one,
                self._gateway_is_new,
                audit.poke,
            )
        keeper = KeeperClient(on_peer=self._meet, on_moved=lambda cell, served: self._soon({cell: served}))
        gateways = Gateways(
            locate=self._locate,
            release=keeper.release,
            on_audit=audit.poke,
            on_connect=self._gateway_is_new,
            on_lost=self._gateway_is_lost,
            on_questions=self._asked,
            serves=self._serving.serves,
            connections=config.connections,
            pool=config.synthetic_pool,
            others=None if fleet is None else fleet.members,
        )
        made = engines(keeper, None if fleet is None else fleet.members)
        self._hooks = HookFeed(audit.page, os.environ, partial(program, "irons_local.hooks"))
        doors = SshPorts(config.ssh_host)
        self._timed_rules = TimedRules(store, instant)
        egress = Egress(store, gateways, local.hosts, self._listening, local.upstream, local.never)
        lifecycle = Lifecycle(store, made, egress, doors, paths, self._hooks.note)
        self.plane = Plane(
            paths=paths,
            config=config,
            store=store,
            keeper=keeper,
            gateways=gateways,
            engines=made,
            doors=doors,
            egress=egress,
            lifecycle=lifecycle,
            deadlines=SandboxDeadlines(store, made, gateways, lifecycle, instant),
            copies=SandboxCopies(store, made, lifecycle),
            holds=Holds(store, lifecycle),
            questions=QuestionDesk(
                gateways,
                egress,
                store,
                config.ask_hold,
                caught_up=audit.caught_up,
                program=keeper.program,
                # A connection of a virtual machine is QEMU's, and one of a container arrives from outside the cell.
                opaque=(INCUS, VM),
            ),
            audit=audit,
            changes=ChangeLog(store, config.keep_changes),
            keys=KeyRing(store),
            fleet=fleet,
        )

        desk = self.plane.questions
        self._notifiers = (
            ProgramNotifier(desk, local.program, os.environ, _confined),
            HookNotifier(desk, local.notifier, self._hooks),
        )

    async def serve(self, link: socket.socket, rendezvous: socket.socket | None) -> None:
        """Serve until `stop` is called or, without a rendezvous, until the keeper ends.

        Raises:
            ListenError: the API cannot be served.
            NoPortError: SSH ports cannot be opened where they should be.
            StoreError: the database failed before anything was served.
        """
        plane = self.plane
        keeper = self._spawn(plane.keeper.serve(link, rendezvous, plane.lifecycle.recover))
        keeper.add_done_callback(lambda _: self.stop())
        try:
            plane.doors.check()
            # Before anything is pushed: the ends of rules count by the clocks of this boot.
            await self._timed_rules.look()
            if plane.fleet is not None:
                await plane.fleet.members.load()
            await plane.lifecycle.reconcile()
            await plane.copies.sweep()
            self._spawn(plane.audit.run())
            self._spawn(self._follow_local())
            self._spawn(self._keep_reserve())
            self._spawn(self._count_layers())
            self._listen()
            if plane.fleet is not None:
                await plane.fleet.open()
            serving = [self._spawn(listener.run_until_told()) for listener in self._listeners]
            for each in serving:
                each.add_done_callback(lambda _: self.stop())
            _log.info("irons %s serves %s", __version__, plane.paths.api_socket)
            await plane.keeper.ready()
            self._spawn(self._enforce())
            self._spawn(plane.deadlines.run())
            self._spawn(self._timed_rules.run())
            self._spawn(plane.questions.run())
            for notifier in self._notifiers:
                self._spawn(notifier.run())
            self._spawn(self._hooks.run())
            await plane.holds.resume()
            await self._stopping.wait()
            plane.audit.close()
            plane.changes.close()
            for listener in self._listeners:
                listener.stop()
            await asyncio.gather(*serving, return_exceptions=True)
        finally:
            await self._end()

    def stop(self) -> None:
        """Tell it to stop."""
        self._stopping.set()

    def _listen(self) -> None:
        plane = self.plane
        app = make_app(plane)
        if plane.config.host is not None:
            self._listeners.append(tcp_listener(KeyRequired(app, plane.keys), plane.config))
        self._listeners.append(unix_listener(app, plane.paths.api_socket))

    def _listening(self) -> list[tuple[str, int]]:
        served = [listener.address for listener in self._listeners if listener.address is not None]
        fleet = self.plane.fleet
        if fleet is not None:
            served += fleet.addresses
        for engine in self.plane.engines.values():
            if isinstance(engine, Listens):
                served += engine.listening()
        return [*served, *self.plane.doors.listening()]

    def _meet(self, sock: socket.socket, worker: int, cells: Sequence[str]) -> None:
        self._soon({cell: [worker] for cell in cells})
        for cell in cells:
            self.plane.questions.forget(cell)
        self.plane.gateways.attach(sock, worker, cells)

    def _asked(self, asked: OpenQuestions) -> None:
        self.plane.questions.heard(asked)

    async def _locate(self, cell: str) -> CellPlace:
        try:
            place = await self.plane.keeper.place(cell)
        except CellError as error:
            raise unready(f"where {cell} is served can't be asked: {error}") from error
        await self._note({cell: place.served})
        return place

    def _soon(self, served: Mapping[str, Collection[int]]) -> None:
        """Record which worker serves which cell; where that fails, the keeper is asked again when needed."""

        async def noting() -> None:
            with contextlib.suppress(StoreError):
                await self._note(served)

        self._spawn(noting())

    async def _note(self, served: Mapping[str, Collection[int]]) -> None:
        fresh = self._serving.fresh(served)
        if fresh:
            await self.plane.store.write(lambda connection: self._serving.note(connection, fresh))

    def _followed(self, lease: float) -> None:
        self.plane.gateways.followed(lease)

    async def _settle(self, pairs: Collection[tuple[str, int]]) -> bool:
        """Find out whether workers may write of cells; False where the keeper can't be asked now."""
        for cell, worker in pairs:
            served = await self.plane.keeper.served(cell)
            if served is None:
                return False
            await self._note({cell: served})
            if worker not in served:
                self._serving.refute(cell, worker)
        return True

    async def _gateway_is_lost(self, worker: int) -> None:
        """A worker that runs, and to which there is no link, is of no use: rules would not reach it."""
        try:
            known = (await self.plane.keeper.status(within=_KEEPER_WITHIN))["gateways"]
            if any(each["worker"] == worker and each["pid"] is not None for each in known):
                _log.warning("gateway worker %d runs, but does not speak; it is started again", worker)
                await self.plane.keeper.restart("gateway", worker)
        except (CellError, LookupError, TypeError) as error:
            _log.warning("the keeper cannot be asked about the gateway: %s", error)

    async def _gateway_is_new(self, cells: Collection[str]) -> None:
        await self._enforce(cells)
        self.plane.audit.poke()

    async def _enforce_one(self, cell: str) -> None:
        await self.plane.egress.enforce(cell)

    async def _enforce(self, cells: Collection[str] | None = None) -> None:
        """Bring the gateway up to date with what changed while no control plane ran, and the ports that are open.

        Args:
            cells: whose policies; None is all.
        """
        try:
            await self.plane.egress.enforce_all(cells)
        except (HttpError, StoreError) as error:
            _log.warning("not every policy is active: %s", error)

    async def _follow_local(self) -> None:
        """Make changes of `[local]` active; rules change by requests, these by an editor."""
        known = self._local.hosts(), self._local.upstream(), self._local.never()
        while True:
            await asyncio.sleep(_HOSTS_EVERY)
            now = self._local.hosts(), self._local.upstream(), self._local.never()
            if now == known:
                continue
            known = now
            await self._enforce()

    async def _keep_reserve(self) -> None:
        """Have room for the last steps on a full disk, and make it again once there is enough."""
        reserve = Reserve(self.plane.paths.reserve)
        while True:
            await asyncio.to_thread(reserve.fill)
            await asyncio.sleep(_RESERVE_EVERY)

    async def _count_layers(self) -> None:
        """Count the files of layers that a save made, which does not wait for that."""
        layers = Layers(self.plane.paths.layers)
        counted = 0
        while True:
            changed = layers.changed()
            if changed != counted:
                try:
                    counted = changed if await layers.count() else 0
                except (EngineError, OSError) as error:
                    _log.warning("the sizes of layers: %s", error)
                    counted = changed
            await asyncio.sleep(_LAYERS_EVERY)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            # Better to be started again than to go on with a part missing.
            _log.error("a part of the control plane failed", exc_info=task.exception())
            self.stop()

    async def _end(self) -> None:
        plane = self.plane
        await plane.holds.close()
        await plane.copies.close()
        await plane.lifecycle.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await plane.doors.close_all()
        if plane.fleet is not None:
            await plane.fleet.close()
        await plane.gateways.close()
        plane.keeper.close()


def _confined(command: Sequence[str]) -> Sequence[str]:
    """The command that runs a program of the user's without this process's rights."""
    return program("irons_local.hooks.program", *command)


def main() -> int:
    """Run the control plane; 1, with one line on stderr, where it cannot start."""
    os.umask(0o077)
    begin(os.environ)
    # The scheduler goes by the thread with the shortest turns of a process, so all that are often at work have them.
    lengthen_turns(TURN)
    try:
        paths = Paths.of().create()
        config = read_config(paths.listening, config_path(os.environ))
        link, rendezvous = inherited("IRONS_LINK"), inherited("IRONS_KEEPER")
        if link is None:
            raise ServerConfigError("IRONS_LINK names no descriptor; the keeper starts this program")
        with contextlib.closing(Store(paths.database, Reserve(paths.reserve).give)) as store:
            asyncio.run(_run(paths, config, store, link, rendezvous))
    except (PathsError, ServerConfigError, StoreError, ListenError, NoPortError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


async def _run(
    paths: Paths, config: ServerConfig, store: Store, link: socket.socket, rendezvous: socket.socket | None
) -> None:
    local = LocalTable(config_path(os.environ))
    starter = Starter()

    def engines(cells: Cells, members: Members | None) -> Mapping[str, Engine]:
        kit = Kit(
            cells=cells,
            images=paths.images,
            sandboxes=paths.sandboxes,
            shown=lambda: _trusted(local.authorities()),
            starter=starter,
            members=members,
        )
        return make_engines(kit, _brought())

    server = Server(paths, config, store, engines, local)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    try:
        await server.serve(link, rendezvous)
    finally:
        await starter.close()


def _trusted(found: Authorities) -> Mapping[str, str]:
    """The files of a sandbox's settings that say what it trusts next to what its image does."""
    return {trust.AUTHORITIES: found.pem, trust.BUNDLE: found.bundle}


def _brought() -> Mapping[str, EngineMaker]:
    """The engines of third parties; what the built-in plugins bring is known here."""
    try:
        return PluginHost(env=os.environ, warn=_log.warning, built_in=(), files=False).engines()
    except Exception:  # noqa: BLE001 (a plugin may raise anything, and others' sandboxes must be served)
        _log.exception("no engines of plugins")
        return {}


if __name__ == "__main__":
    sys.exit(main())
