"""The gateway process: the keeper attaches cells to it, the control plane gives them their policies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import socket
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from irons_local import clocks
from irons_local.cell.layout import SOCKETS
from irons_local.config.synthetic_pool import PoolError
from irons_local.config.upstream import UpstreamError
from irons_local.gateway.accept.hostnet_watch import GroundWatch
from irons_local.gateway.accept.listeners import CellListeners
from irons_local.gateway.accept.rule_ends import RuleEnds
from irons_local.gateway.ask.asking import Place
from irons_local.gateway.ask.news import QuestionNews
from irons_local.gateway.budget.descriptors import Files
from irons_local.gateway.budget.fairness import FairSelector
from irons_local.gateway.budget.watch import FairLoop
from irons_local.gateway.decide.probe import Probe
from irons_local.gateway.reach.nameservers import NameServers
from irons_local.gateway.reach.proxy import Proxy
from irons_local.gateway.reach.resolve import Resolver
from irons_local.gateway.record.folding import Dropped, Folder
from irons_local.gateway.record.journal import Journal, JournalError
from irons_local.gateway.record.notify import Notifier
from irons_local.gateway.shared.cell import Caps, Cell, Running, forget
from irons_local.gateway.shared.context import Context
from irons_local.gateway.shared.pools import Pools
from irons_local.gateway.streams.splice import Pipes, share_of_pipes
from irons_local.gateway.tls import client_hello
from irons_local.gateway.tls.remembered import Hellos
from irons_local.ipc.aio import AsyncLink
from irons_local.ipc.fields import BadMessageError, UnknownMessageError, Untold
from irons_local.ipc.framing import Body, LinkClosedError, LinkError, Message, line_of
from irons_local.ipc.messages import (
    CONTROL_TO_WORKER,
    KEEPER_TO_WORKER,
    AboutSandbox,
    Attach,
    CountLive,
    Detach,
    Figures,
    Followed,
    Forget,
    FromControl,
    HoldLog,
    Impact,
    Listeners,
    Missed,
    NewLink,
    ProbeHost,
    PutPolicy,
    ReplyQuestion,
    Stats,
    Surrender,
    WatchQuestions,
    read,
)
from irons_local.log.context import REQUEST, request_id
from irons_policy.causes import Cause
from irons_policy.decide import forbidden
from irons_policy.hostnames import HostError, canonical_host
from irons_policy.policy import Policy, PolicyError

CUT = "cut: the rules no longer allow it"
MISSED = Dropped("refused while there was no gateway", Cause.NO_POLICY)
PROBES = 8
"""Hosts that people may have checked at the same time."""
DETACHED = "cut: the sandbox is gone"
_log = logging.getLogger(__name__)


class Service:
    """Everything one gateway process does.

    Args:
        loop: the running loop.
        home: where policies, names and audit logs are kept.
        selector: of that loop.
        caps: what a cell may have at once.
        worker: number of this process among the gateway's workers.
        workers: processes of the gateway that share what the kernel counts by user id.
    """

    def __init__(
        self,
        loop: FairLoop,
        home: Path,
        selector: FairSelector,
        caps: Caps | None = None,
        *,
        worker: int = 0,
        workers: int = 1,
    ) -> None:
        self._home = home
        self._caps = caps or Caps()
        self._turn = selector.turn
        self._news = Notifier(loop)
        self._cells: dict[str, Cell] = {}
        self._ends: dict[str, RuleEnds] = {}
        self._asks: dict[str, QuestionNews] = {}
        self._watched_at = 0.0
        self._watched: WatchQuestions | None = None
        self._doors: dict[str, CellListeners] = {}
        self._ports: dict[str, Mapping[str, Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._said: str | None = None
        self._probing = 0
        self._watch = GroundWatch(home / "listeners")
        self._pools = Pools(home / "pools", self._watch.close_pools)
        journal = Journal(home / "audit", self._news.wrote, worker)
        resolver = Resolver(loop)
        self._context = Context(
            loop=loop,
            journal=journal,
            folder=Folder(loop, journal, lambda: self._news.unrecorded(self._context.folder.unrecorded)),
            resolver=resolver,
            nameservers=NameServers(loop),
            proxy=Proxy(loop, home / "upstream", resolver, self._watch.close_proxy, self._watch.host_network),
            pipes=Pipes(self._complain, share_of_pipes(workers, _pipe_pages())),
            files=Files(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
            tls=client_hello.context(),
            hellos=Hellos(),
            host_network=self._watch.host_network,
            crowded=lambda: selector.crowded,
            complain=self._complain,
        )

    async def serve(self, link: AsyncLink) -> None:
        """Obey the keeper until it is gone.

        Raises:
            LinkError: the keeper sent something that is not a message.
        """
        try:
            while True:
                await self._obey(link, await link.recv())
        except LinkClosedError:
            return

    async def close(self) -> None:
        """End every connection, and the log."""
        for name in list(self._cells):
            await self._detach(name)
        for task in self._tasks:
            task.cancel()
        self._context.folder.flush()
        self._context.journal.close()
        self._context.pipes.close()
        self._watch.close()

    def stats(self) -> Figures:
        """How much there is of everything."""
        return {
            "pid": os.getpid(),
            "cells": len(self._cells),
            "connections": sum(len(cell.live) for cell in self._cells.values()),
            "undecided": sum(cell.undecided for cell in self._cells.values()),
            "names": sum(len(cell.names) for cell in self._cells.values()),
            "resolving": self._context.resolver.threads,
            "files": self._context.files.limit,
            "fds": len(os.listdir("/proc/self/fd")),  # noqa: PTH208 - counted, not used
            "memory": _resident(),
            "lost": self._context.journal.lost,
            "run": self._context.journal.run,
        }

    async def _obey(self, link: AsyncLink, message: Message) -> None:
        """Do what the keeper says; descriptors that nobody took are closed."""
        body, fds = message
        REQUEST.set(request_id(body.get("request")))
        try:
            match read(KEEPER_TO_WORKER, body):
                case Attach(name, ports):
                    await self._attach(name, ports, fds)
                    await link.answer(message)
                case Detach(name):
                    await self._detach(name)
                    await link.answer(message)
                case Missed(name, count):
                    if count:
                        self._context.folder.dropped(name, count, MISSED)
                    await link.answer(message)
                case Surrender(cell):
                    await self._surrender(link, message, cell)
                case NewLink():
                    if not fds:
                        raise BadMessageError("a new link comes with its descriptor")
                    self._greet(socket.socket(fileno=fds.pop()))
                case Stats():
                    await link.answer(message, {**self.stats()})
        except UnknownMessageError as error:
            await link.refuse(message, "unknown", str(error))
        except (BadMessageError, OSError) as error:
            _log.error("%s failed: %s", body.get("op"), error)
            await link.refuse(message, "failed", line_of(error))
        finally:
            message.close()

    async def _surrender(self, link: AsyncLink, request: Message, name: str | None) -> None:
        """Give a keeper that has none of them the sockets of a cell, or say which cells there are."""
        if name is None:
            await link.answer(request, {"cells": sorted(self._doors)})
            return
        if name not in self._doors:
            raise BadMessageError(f"{name} is not attached")
        await link.answer(request, {"ports": self._ports[name]}, self._doors[name].fds)

    async def _attach(self, name: str, ports: Mapping[str, Any], fds: list[int]) -> None:
        if len(fds) != len(SOCKETS):
            raise BadMessageError(f"a cell has {len(SOCKETS)} sockets, not {len(fds)}")
        cell = self._cells.get(name)
        old = self._doors.pop(name, None)
        if old is not None:
            # The keeper holds the same sockets, or has made others in their place.
            old.close()
        if cell is None:
            cell = self._cells[name] = Cell(name, self._home, self._caps, self._turn, self._pools)
            self._context.files.attach()
            self._ends[name] = RuleEnds(self._context.loop, cell, partial(self._over, name))
            self._asks[name] = QuestionNews(self._context.loop, name, cell.asking, self._news.links)
            self._let_watch(cell, monotonic() - self._watched_at)
        taken, fds[:] = list(fds), []
        self._doors[name] = CellListeners(self._context, cell, taken)
        self._ports[name] = ports

    def _let_watch(self, cell: Cell, ago: float = 0.0) -> None:
        """Tell a cell how it is watched, which the control plane said so many seconds ago."""
        if self._watched is not None:
            own = (self._watched.cells or {}).get(cell.name)
            lease, hold, keys = (own["lease"], own["hold"], own["keys"]) if own else self._watched[:3]
            cell.asking.watch(max(0.0, lease - ago), hold, keys)

    async def _detach(self, name: str) -> None:
        doors = self._doors.pop(name, None)
        if doors is not None:
            doors.close()
            await doors.ended()
        self._ports.pop(name, None)
        ends = self._ends.pop(name, None)
        if ends is not None:
            ends.close()
        asks = self._asks.pop(name, None)
        if asks is not None:
            asks.close()
        cell = self._cells.pop(name, None)
        if cell is None:
            return
        attempts = list(cell.live)
        for attempt in attempts:
            attempt.cut(DETACHED, cause=None)
        for attempt in attempts:
            await attempt.ended()
        self._context.folder.forget(name)
        self._context.files.detach()
        cell.close()

    def _greet(self, sock: socket.socket) -> None:
        link = AsyncLink(sock)
        self._news.tell(link)
        for cell in self._cells.values():
            if cell.asking.open() or cell.asking.ended():
                cell.asking.changed()
        self._spawn(self._answer(link))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._context.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _probe(self, link: AsyncLink, message: Message, asked: ProbeHost) -> None:
        """Answer one check of a host, which takes seconds, beside whatever else is asked."""
        message.close()
        with suppress(LinkError):
            if self._probing >= PROBES:
                await link.refuse(message, "busy", "too many hosts are being checked at once")
                return
            self._probing += 1
            try:
                host, policy = canonical_host(asked.host), Policy.from_json(asked.policy)
                probe = Probe(self._context, policy, host, asked.port, asked.cell)
                await link.answer(message, await probe.run())
            except (HostError, JournalError, PolicyError, OSError) as error:
                await link.refuse(message, "failed", line_of(error))
            finally:
                self._probing -= 1

    async def _answer(self, link: AsyncLink) -> None:
        """Answer one control plane until it is gone."""
        try:
            while True:
                message = await link.recv()
                REQUEST.set(request_id(message.body.get("request")))
                try:
                    asked = read(CONTROL_TO_WORKER, message.body)
                    if isinstance(asked, ProbeHost):
                        self._spawn(self._probe(link, message, asked))
                    else:
                        await link.answer(message, await self._ask(asked))
                except LinkError:
                    raise
                except Exception as error:  # noqa: BLE001 (one request must not end the link)
                    if not isinstance(
                        error, BadMessageError | HostError | PolicyError | PoolError | UpstreamError | OSError
                    ):
                        _log.exception("a request of the control plane failed")
                    elif "id" not in message.body:
                        _log.error("%s failed: %s", message.body.get("op"), line_of(error))
                    await link.refuse(message, "failed", line_of(error))
                finally:
                    message.close()
        except LinkError as error:
            if not isinstance(error, LinkClosedError):
                _log.warning("the control plane's link: %s", error)
        finally:
            self._news.forget(link)
            link.close()

    async def _ask(self, asked: FromControl) -> Body:
        match asked:
            case Stats():
                return {**self.stats()}
            case Listeners(listeners, keep, upstream, pool):
                self._watch.put(listeners, keep=keep)
                # Beside the listeners, so that a control plane that knows nothing of proxies still gives these.
                if not isinstance(upstream, Untold):
                    self._context.proxy.put(upstream, keep=keep)
                self._pools.put(pool, keep=keep)
            case Forget(name):
                await self._forget(name)
            case CountLive(name):
                found = self._cells.get(name)
                return {"live": 0 if found is None else len(found.live)}
            case Impact(name, policy):
                return {"cut": len(self._forbidden(name, Policy.from_json(policy).at(clocks.moment())))}
            case PutPolicy(name, given, sandbox):
                new = Policy.from_json(given)
                cut = self._put(name, sandbox, new)
                _log.info(
                    "policy active, mode %s; %d connections cut", new.mode, cut, extra={"sandbox": name}
                )
                return {"cut": cut}
            case WatchQuestions():
                self._watched, self._watched_at = asked, monotonic()
                for each in self._cells.values():
                    self._let_watch(each)
            case Followed(lease):
                self._news.followed(lease)
            case ReplyQuestion(name, host, port, said, since):
                found = self._cells.get(name)
                if found is None:
                    return {"gone": True}
                place = Place(canonical_host(host), port)
                waited = found.asking.reply(place, "once" if said == "once" else "no", since)
                return {"gone": True} if waited is None else {"waited": waited}
            case HoldLog(full):
                self._context.journal.full = full
            case ProbeHost():
                raise AssertionError(asked)
        return {}

    def _put(self, name: str, sandbox: AboutSandbox, policy: Policy) -> int:
        cell = self._cells.get(name)
        if cell is None:
            # Born locked: it is kept before the cell is attached.
            early = Cell(name, self._home, self._caps, pools=self._pools)
            try:
                early.put(sandbox, policy)
            finally:
                early.close()
            return 0
        cell.put(sandbox, policy)
        cut = self._cut(name)
        self._ends[name].look()
        return cut

    def _over(self, name: str) -> None:
        """Cut what only a rule let go on that has ended."""
        cut = self._cut(name)
        _log.info("rules have ended; %d connections cut", cut, extra={"sandbox": name})

    def _cut(self, name: str) -> int:
        """Cut what the policy active forbids; gives how many that were."""
        policy = self._cells[name].policy
        cut = [] if policy is None else self._forbidden(name, policy)
        for attempt in cut:
            attempt.cut(CUT, cause=Cause.RULE)
        return len(cut)

    def _forbidden(self, name: str, policy: Policy) -> list[Running]:
        cell = self._cells.get(name)
        if cell is None:
            return []
        by_live = {id(attempt.live): attempt for attempt in cell.live if attempt.live is not None}
        lives = [attempt.live for attempt in by_live.values() if attempt.live is not None]
        found = {by_live[id(live)] for live, _ in forbidden(policy, lives, self._watch.host_network())}
        found = {attempt for attempt in found if not attempt.spared(policy)}
        if policy.mode != "warn":
            found |= {attempt for attempt in cell.live if attempt.mismatched}
        return list(found)

    async def _forget(self, name: str) -> None:
        await self._detach(name)
        forget(self._home, name)

    def _complain(self, what: str) -> None:
        """Say it once, not for every connection."""
        if what != self._said:
            self._said = what
            _log.error("%s", what)


def proportional() -> int | None:
    """Bytes of memory in use, what is shared with others counted in parts (`Pss` of proc(5)); None where the kernel does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return None


def _resident() -> int:
    """Bytes of memory in use."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize()


def _pipe_pages() -> int:
    """Pages of pipes that the kernel lets one user have; 0 for no limit."""
    try:
        return int(Path("/proc/sys/fs/pipe-user-pages-soft").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0
