"""The gateway's workers, as the control plane sees them: a set of links, keyed by cell.

Which worker serves a cell is asked of the keeper before each request: it is the only one who knows. A worker is known
by its number alone, so that one on another machine can join.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from irons_local import times
from irons_local.control.clients.gateway import GatewayClient
from irons_local.control.schema.errors import HttpError, unready
from irons_local.ipc.framing import LinkClosedError
from irons_local.ipc.messages import (
    AboutSandbox,
    CountLive,
    Followed,
    Forget,
    FromControl,
    HoldLog,
    Impact,
    Listeners,
    OpenQuestions,
    ProbeHost,
    PutPolicy,
    ReplyQuestion,
    Stats,
    WatchQuestions,
)

_log = logging.getLogger(__name__)
_WITHIN = 25.0
"""Seconds for an answer of a cell's worker: one that hangs is replaced after 5 s, and its successor starts on a busy machine. Less than a client waits."""
_RENEWED_WITHIN = 5.0
_LOOK_EVERY = 0.1
_DEAD_AFTER = 2.0
"""Seconds that a worker may be gone before a change goes on without it."""
_SPARE_WITHIN = 2.0


_GONE: Final[dict[str, Any]] = {"gone": True}


class OtherMachines(Protocol):
    """What cells may be on besides this machine."""

    def elsewhere(self, cell: str) -> Callable[[FromControl], Awaitable[dict[str, Any]]] | None:
        """What asks the worker of a cell on another machine; None for one of this. It raises `HttpError` where it can't."""
        ...

    def settings(self, listeners: Sequence[tuple[str, int]], upstream: Mapping[str, Any] | None) -> None:
        """What `Gateways.listeners` says to each worker of this machine."""
        ...


class CellPlace(NamedTuple):
    """Where a cell is served.

    Attributes:
        worker: the worker's number.
        runs: whether that worker runs.
        served: every worker that serves or served the cell in its life.
    """

    worker: int
    runs: bool
    served: tuple[int, ...] = ()


class Gateways:
    """The links to the workers, across their restarts; the keeper hands over a new end each time.

    Args:
        locate: asks the keeper where a cell is served; it gives the cell a worker if it has none.
        release: tells the keeper that a cell is gone for good.
        on_audit: called with the run whose log has grown.
        on_connect: awaited with the cells of a worker each time there is a new link to it.
        serves: whether a worker is known to serve a cell, or to have served it.
        on_questions: called with what is asked of a cell, by a worker that serves it.
        on_lost: awaited with the number of a worker whose link has ended and had no other in its place for a while.
        connections: what each sandbox may have at once; None leaves it to the gateway.
        pool: the block of made-up addresses of sandboxes made from now on; None leaves it to the gateway.
        others: the machines that cells may be on besides this one.

    Attributes:
        restarts: how often each worker was replaced by another process.
        confirmed_at: when a policy was last confirmed, microseconds since 1970; None where none was yet.
    """

    def __init__(
        self,
        *,
        locate: Callable[[str], Awaitable[CellPlace]],
        release: Callable[[str], Awaitable[None]],
        on_audit: Callable[[str], None],
        on_connect: Callable[[Collection[str]], Awaitable[None]],
        on_lost: Callable[[int], Awaitable[None]],
        serves: Callable[[str, int], bool] = lambda _cell, _worker: True,
        on_questions: Callable[[OpenQuestions], None] = lambda _asked: None,
        connections: int | None = None,
        pool: str | None = None,
        others: OtherMachines | None = None,
    ) -> None:
        self._others = others
        self._locate, self._release = locate, release
        self._on_audit, self._on_connect, self._on_lost = on_audit, on_connect, on_lost
        self._limits: AboutSandbox = {} if connections is None else {"connections": connections}
        self._pool = pool
        self._serves = serves
        self._on_questions = on_questions
        self._held = False
        self._unrecorded: dict[int, Mapping[str, int]] = {}
        # Which worker asks about a cell: while it does, no one else can take the answer.
        self._askers: dict[str, int] = {}
        self._peers: dict[int, GatewayClient] = {}
        self._listening: list[list[Any]] | None = None
        self._upstream: Mapping[str, Any] | None = None
        self._followed = float("-inf")
        self._news = asyncio.Event()
        self.restarts: dict[int, int] = {}
        self.confirmed_at: int | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def connected(self) -> bool:
        """True while there is a link to any worker."""
        return any(peer.connected for peer in self._peers.values())

    def attach(self, sock: socket.socket, worker: int = 0, cells: Collection[str] = ()) -> None:
        """Take a fresh end of a link to a worker, in place of the one before."""
        before = self._peers.pop(worker, None)
        if worker in self.restarts:
            self.restarts[worker] += 1
        else:
            self.restarts[worker] = 0
        if before is not None:
            self._spawn(before.close())
        peer = GatewayClient(
            sock,
            on_audit=self._on_audit,
            on_unrecorded=lambda counts: self._note_unrecorded(worker, counts),
            on_questions=partial(self._note_questions, worker),
            on_end=lambda: self._spawn(self._ended(worker, peer)),
        )
        self._peers[worker] = peer
        # What a worker that ended could not record is lost with it.
        self._unrecorded.pop(worker, None)
        # The first thing that a worker hears: a policy is judged with what irons itself listens on.
        if self._listening is not None:
            self._tell(worker, peer)
        left = self._followed - asyncio.get_running_loop().time()
        if left > 0:
            peer.tell(Followed(left))
        if self._held:
            peer.tell(HoldLog(full=True))
        self._news.set()
        self._spawn(self._greet(cells))

    def _note_unrecorded(self, worker: int, counts: Mapping[str, int]) -> None:
        """Believe a worker for the cells alone that are its own."""
        self._unrecorded[worker] = {cell: n for cell, n in counts.items() if self._serves(cell, worker)}

    def _note_questions(self, worker: int, asked: OpenQuestions) -> None:
        """Believe a worker for the cells alone that are its own."""
        if self._serves(asked.cell, worker):
            if asked.questions:
                self._askers[asked.cell] = worker
            elif self._askers.get(asked.cell) == worker:
                del self._askers[asked.cell]
            self._on_questions(asked)

    def watch(self, told: WatchQuestions) -> None:
        """Tell each worker who watches."""
        for peer in self._peers.values():
            if peer.connected:
                peer.tell(told)

    def followed(self, lease: float) -> None:
        """Tell each worker, and each that comes, that readers wait for new events: for so many seconds."""
        self._followed = asyncio.get_running_loop().time() + lease
        for peer in self._peers.values():
            if peer.connected:
                peer.tell(Followed(lease))

    def hold_log(self, full: bool) -> None:
        """Tell each worker, and those that come, whether as much is logged as may be."""
        if full != self._held:
            self._held = full
            for peer in self._peers.values():
                if peer.connected:
                    peer.tell(HoldLog(full))

    async def reply(self, cell: str, host: str, port: int, reply: str, since: int) -> int | None:
        """Give an answer that is not a rule, to the question that was asked at `since`.

        A connection waits for it, so the worker that asks gets it first, and the keeper is asked only where that one does not have the
        question any more: another worker may have been given the cell.

        Returns:
            How many connections waited for it; None where the question is gone.

        Raises:
            HttpError: the cell's worker did not answer in time.
        """
        asked = ReplyQuestion(cell, host, port, reply, since)
        loop = asyncio.get_running_loop()
        until = loop.time() + _WITHIN
        answer = await self._of_asker(cell, asked)
        if answer.get("gone"):
            answer = await self.of_cell(cell, asked, within=until - loop.time())
        if answer.get("gone"):
            return None
        waited = answer.get("waited")
        return waited if isinstance(waited, int) else 0

    @property
    def unrecorded(self) -> Mapping[str, int]:
        """How many refusals of each cell are not in the log, because it cannot be written now."""
        together: Counter[str] = Counter()
        for counts in self._unrecorded.values():
            together.update(counts)
        return together

    async def push(
        self, cell: str, name: str, policy: Mapping[str, Any], *, within: float | None = None
    ) -> int:
        """Put a policy active for a cell.

        Where the cell's worker is dead and does not come back, nothing of the cell passes; the policy is then laid
        where its next worker begins.

        Args:
            cell: the sandbox's.
            name: the sandbox's.
            policy: as the gateway takes it.
            within: seconds that it may take; None is less than a client waits for an answer.

        Returns:
            How many live connections it cut.

        Raises:
            HttpError: it was not confirmed in time.
        """
        sandbox: AboutSandbox = {"id": cell, "name": name, **self._limits}
        answer = await self.of_cell(cell, PutPolicy(cell, policy, sandbox), spare=True, within=within)
        self.confirmed_at = times.now()
        return _count(answer)

    async def impact(self, cell: str, policy: Mapping[str, Any]) -> int:
        """How many live connections of a cell a policy would cut.

        Raises:
            HttpError: the cell's worker did not answer in time.
        """
        return _count(await self.of_cell(cell, Impact(cell, policy)))

    async def live(self, cell: str) -> int | None:
        """How many live connections a cell has; None where its worker can't tell."""
        try:
            count = (await self.of_cell(cell, CountLive(cell))).get("live")
        except HttpError:
            return None
        return count if isinstance(count, int) else None

    async def probe(
        self, cell: str | None, policy: Mapping[str, Any], host: str, port: int
    ) -> dict[str, Any]:
        """Have a host reached as a connection of a sandbox would be.

        Args:
            cell: the sandbox it is asked for, whose worker does it and records it; None for none.
            policy: by whose rules.
            host: canonical.
            port: 1 to 65535.

        Raises:
            HttpError: no worker answered in time.
        """
        asked = ProbeHost(policy, host, port, cell)
        if cell is not None:
            return await self.of_cell(cell, asked)
        for peer in [peer for _, peer in sorted(self._peers.items()) if peer.connected]:
            with contextlib.suppress(LinkClosedError, TimeoutError):
                async with asyncio.timeout(_WITHIN):
                    return await peer.ask(asked)
        raise unready("the gateway does not answer; see `irons local status`")

    async def forget(self, cell: str) -> None:
        """Have a cell forgotten for good.

        Raises:
            HttpError: it was not confirmed in time.
        """
        await self.of_cell(cell, Forget(cell), spare=True)
        await self._release(cell)
        self._askers.pop(cell, None)

    async def listeners(
        self, listening: Sequence[tuple[str, int]], upstream: Mapping[str, Any] | None
    ) -> None:
        """Tell where irons itself listens, which no rule opens to a sandbox, and which upstream proxy there is.

        Each worker receives it before any later request; a worker that hangs delays no one.
        """
        self._listening = [list(each) for each in listening]
        self._upstream = upstream
        for number, peer in sorted(self._peers.items()):
            if peer.connected:
                self._tell(number, peer)
        if self._others is not None:
            self._others.settings(listening, upstream)

    async def stats(self, within: float = 10.0) -> dict[int, dict[str, Any]]:
        """What each worker reports; an `error` for one that does not answer in time."""
        peers = sorted((number, peer) for number, peer in self._peers.items() if peer.connected)
        said = await asyncio.gather(*(self._stats(peer, within) for _, peer in peers))
        return {number: each for (number, _), each in zip(peers, said, strict=True)}

    async def close(self) -> None:
        """End the links."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for peer in self._peers.values():
            await peer.close()

    async def _of_asker(self, cell: str, asked: ReplyQuestion) -> dict[str, Any]:
        """Ask the worker that asks about a cell; `gone` where there is none, or its link ends."""
        peer = self._peers.get(self._askers.get(cell, -1))
        if peer is None or not peer.connected:
            return _GONE
        try:
            async with asyncio.timeout(_WITHIN):
                return await peer.ask(asked)
        except LinkClosedError:
            return _GONE
        except TimeoutError:
            raise unready("the gateway does not answer; see `irons local status`") from None

    async def of_cell(
        self, cell: str, asked: FromControl, *, spare: bool = False, within: float | None = None
    ) -> dict[str, Any]:
        """Ask the worker of a cell; every request may be repeated, so one that dies with its worker goes to the next.

        Args:
            cell: the cell.
            asked: what is asked.
            spare: another worker may lay it where the next one of the cell begins, should that be dead.
            within: seconds for an answer.

        Raises:
            HttpError: no worker answered in time, or it refused.
        """
        loop = asyncio.get_running_loop()
        dead: float | None = None
        remote = None if self._others is None else self._others.elsewhere(cell)
        try:
            async with asyncio.timeout(_WITHIN if within is None else within):
                if remote is not None:
                    return await remote(asked)
                while True:
                    self._news.clear()
                    # Looked up before the keeper is asked: should the worker die after that, the link ends with it, and the
                    # worker that comes in its place, which may not serve this cell any more, has another.
                    peers = dict(self._peers)
                    place = await self._locate(cell)
                    peer = peers.get(place.worker)
                    if peer is not None and peer.connected:
                        with contextlib.suppress(LinkClosedError):
                            return await peer.ask(asked)
                    if place.runs:
                        dead = None
                    elif dead is None:
                        dead = loop.time()
                    elif loop.time() - dead > _DEAD_AFTER:
                        answer = await self._without(cell, asked if spare else None)
                        if answer is not None:
                            return answer
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_LOOK_EVERY):
                            await self._news.wait()
        except TimeoutError:
            raise unready("the gateway does not answer; see `irons local status`") from None

    async def _without(self, cell: str, asked: FromControl | None) -> dict[str, Any] | None:
        """Do without a dead worker: with `asked` another lays down what its next process begins with."""
        if asked is None:
            return {}
        for peer in [peer for _, peer in sorted(self._peers.items()) if peer.connected]:
            with contextlib.suppress(LinkClosedError, TimeoutError):
                async with asyncio.timeout(_SPARE_WITHIN):
                    answer = await peer.ask(asked)
                # If it has started again it may have begun with the old policy.
                return None if (await self._locate(cell)).runs else answer
        return None

    def _tell(self, number: int, peer: GatewayClient) -> None:
        # All know it, one of them keeps it for those that will be started.
        keep = number == min(other for other, each in self._peers.items() if each.connected)
        peer.tell(Listeners(self._listening or (), keep, self._upstream, self._pool))

    async def _greet(self, cells: Collection[str]) -> None:
        await self._on_connect(cells)

    async def _ended(self, worker: int, peer: GatewayClient) -> None:
        """Miss a link that has ended; its worker is of no use without another."""
        deadline = asyncio.get_running_loop().time() + _RENEWED_WITHIN
        while self._peers.get(worker) is peer:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                del self._peers[worker]
                await self._on_lost(worker)
                return
            await asyncio.sleep(min(left, _LOOK_EVERY))

    @staticmethod
    async def _stats(peer: GatewayClient, within: float) -> dict[str, Any]:
        try:
            async with asyncio.timeout(within):
                return await peer.ask(Stats())
        except (TimeoutError, LinkClosedError):
            return {"error": "it does not answer"}
        except HttpError as error:
            return {"error": error.text}

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _count(answer: Mapping[str, Any]) -> int:
    cut = answer.get("cut", 0)
    return cut if isinstance(cut, int) else 0
