"""One connection that a cell tried: from its first words to its closing record.

The order is the promise: decide, opening record, resolve, check the address, verdict record, dial, relay, closing
record. Whatever is refused before the dial is refused before anything outside has heard of it.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from irons_plugins.local.gateway import inside, refuse
from irons_plugins.local.gateway.clear import LateError, relay_clear, relay_http
from irons_plugins.local.gateway.dial import Address, DialError, race
from irons_plugins.local.gateway.http1 import BadRequestError
from irons_plugins.local.gateway.journal import Entry, JournalError
from irons_plugins.local.gateway.opening import Opening, read_opening
from irons_plugins.local.gateway.relay import Turns
from irons_plugins.local.gateway.requests import Requests
from irons_plugins.local.gateway.resolve import ResolveError
from irons_plugins.local.gateway.session import BrokenError, Session
from irons_plugins.local.gateway.sniff import Kind
from irons_plugins.local.gateway.verdicts import (
    Judged,
    RefusedError,
    check_named,
    judge,
    judge_addresses,
    refuse_for,
)
from irons_plugins.local.gateway.wire import Wire
from irons_plugins.local.policy import Host, Live, Policy, decide

if TYPE_CHECKING:
    from irons_plugins.local.gateway.cell import Cell
    from irons_plugins.local.gateway.context import Context

STRICT = {443: Kind.TLS, 80: Kind.HTTP}
PATIENCE = 10.0
"""Seconds in which a client must begin where only it can: on the ports of TLS and HTTP."""
GRACE_NAMED = 0.02
"""Seconds in which a client that speaks first has spoken; after them the server may be the one that does."""
GRACE_LITERAL = 0.3
GRACE_DENIED = 1.0


class UnreachedError(Exception):
    """The rules let it pass, and nobody answered; the message is for the sandbox too."""


class Attempt:
    """One accepted connection.

    Args:
        context: what all connections share.
        cell: whose it is.
        client: the accepted socket.
        where: the address the program connected to.
        port: the port it connected to.
        turns: of its cell.

    Attributes:
        live: what it was judged by, once something outside may be reached.
        mismatched: it goes on only because mode warn lets two names pass on one connection.
    """

    def __init__(
        self, context: Context, cell: Cell, client: Wire, where: Address, port: int, turns: Turns
    ) -> None:
        self._context = context
        self._cell = cell
        self._client = client
        self._where = Host(str(where), where)
        self._port = port
        self._turns = turns
        self._name: Host | None = None
        self._server: Wire | None = None
        self._session: Session | None = None
        self._entry: Entry | None = None
        self._judged: Judged | None = None
        self._protocol = "tcp"
        self._alert = b""
        self._began = time.monotonic()
        self._ending = "failed"
        self._undecided = False
        self._told: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        self.live: Live | None = None
        self.mismatched = False

    def start(self) -> None:
        """Begin, in a task of its own."""
        self._cell.live.add(self)
        self._cell.undecided += 1
        self._undecided = True
        self._task = self._context.loop.create_task(self._run())

    def cut(self, ending: str) -> None:
        """End it now: both sides see a reset, and the closing record says `ending`."""
        self._ending = ending
        if self._task is not None:
            self._task.cancel()

    async def ended(self) -> None:
        """Wait until it has ended."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        try:
            await self._attempt()
            if self._ending == "failed":
                self._ending = "closed"
        except JournalError as error:
            self._ending = "refused: the audit log cannot be written"
            self._context.complain(str(error))
            self._reset()
        except BrokenError as error:
            self._ending = str(error)
            self._reset()
        except OSError as error:
            self._ending = f"broken: {(error.strerror or str(error)).lower()}"
            self._reset()
        except asyncio.CancelledError:
            # Cut by a rule, by the cell's end or the process's: nobody waits for the task itself.
            self._reset()
        finally:
            self._settle()
            self._cell.live.discard(self)
            if self._session is not None:
                self._session.stop()
            self._client.close()
            if self._server is not None:
                self._server.close()
            self._close()

    async def _attempt(self) -> None:
        try:
            self._name = self._named()
            if self._name is not None and self._name.text == inside.NAME:
                await inside.serve(self._client, self._cell, self._context.folder)
                return
            opening = await self._open()
            if opening.kind is Kind.HTTP:
                await self._http(opening)
            else:
                await self._other(opening)
        except RefusedError as error:
            await self._refuse(error)
        except LateError as error:
            late = refuse_for(
                error.host or self._host, self._port, error.protocol, self._cell.policy, str(error)
            )
            self._alert = error.alert
            await self._refuse(late)
        except UnreachedError as error:
            self._ending = f"unreachable: {error}"
            await self._say(
                refuse.unreachable(self._host.text, self._port, str(error)) if self._speaks_http else b""
            )

    @property
    def _host(self) -> Host:
        """Whom this is about, as far as is known."""
        return self._judged.host if self._judged is not None else self._name or self._where

    @property
    def _speaks_http(self) -> bool:
        return self._protocol == "http"

    def _named(self) -> Host | None:
        """The name this connection was opened to; None for a literal address."""
        address = self._where.address
        if address is None or not self._cell.names.synthetic(address):
            return None
        name = self._cell.names.name(address)
        if name is None:
            raise self._no("no name was ever given this address")
        return Host(name)

    async def _open(self) -> Opening:
        policy = self._cell.policy
        allowed = policy is not None and decide(policy, self._name or self._where, self._port).allowed
        strict = self._port in STRICT
        if not allowed:
            grace = GRACE_DENIED
        elif strict:
            grace = PATIENCE
        else:
            grace = GRACE_LITERAL if self._name is None else GRACE_NAMED
        opening = await read_opening(self._client, self._context.tls, grace, strict=strict and allowed)
        if opening.kind in {Kind.TLS, Kind.HTTP}:
            self._protocol = opening.kind.value
        self._alert = opening.alert
        return opening

    def _policy(self) -> Policy:
        policy = self._cell.policy
        if policy is None:
            raise self._no("no policy is known for this sandbox yet")
        return policy

    def _no(self, reason: str, host: Host | None = None) -> RefusedError:
        return refuse_for(host or self._host, self._port, self._protocol, self._cell.policy, reason)

    async def _http(self, opening: Opening) -> None:
        if self._name is not None:
            # A denied name is answered as soon as it is clear how, whatever else the request holds.
            judge(self._policy(), self._name, self._where, (), self._port, "http")
        self._policy()
        requests = Requests(self._client, opening.data)
        try:
            head = await requests.head()
        except BadRequestError as error:
            raise self._no(f"malformed request: {error}", error.host) from None
        if head is None:
            return
        self._judge(head.hosts)
        if self._port == 443:
            raise self._no("port 443 must speak TLS")
        session = await self._connect()
        await relay_http(session, requests, head, self._check)

    async def _other(self, opening: Opening) -> None:
        self._judge(() if opening.name is None else (opening.name,))
        if opening.fault is not None:
            raise self._no(opening.fault, opening.name)
        if opening.silent and opening.ended:
            self._untouched()
            return
        wanted = STRICT.get(self._port)
        if wanted is not None and wanted is not opening.kind:
            said = "nothing was sent" if opening.silent else f"port {self._port} must speak {wanted.name}"
            raise self._no(said)
        session = await self._connect()
        if opening.kind is Kind.TLS:
            await session.send(opening.data)
            await session.splice()
        else:
            await relay_clear(session, opening, self._context.tls, self._check)

    def _judge(self, claimed: tuple[Host, ...]) -> None:
        judged = judge(self._policy(), self._name, self._where, claimed, self._port, self._protocol)
        self._judged = judged
        self._tell(judged)

    def _check(self, claimed: tuple[Host, ...], protocol: str, alert: bytes = b"") -> None:
        """Judge names that show up once the server is reached."""
        self._protocol, self._alert = protocol, alert
        judged = check_named(self._policy(), self._host, claimed, self._port, self._protocol)
        if judged.others and self._entry is not None:
            self._entry.verdict(**judged.record(self._port, self._protocol))
        self._tell(judged)

    def _tell(self, judged: Judged) -> None:
        """Record, under their own names, those that only the mode lets pass."""
        self.mismatched = self.mismatched or bool(judged.others)
        for other in judged.others:
            if other.text not in self._told:
                self._told.add(other.text)
                fields = judged._replace(host=other).record(self._port, self._protocol)
                self._context.journal.event(self._cell.name, **fields)

    def _untouched(self) -> None:
        """Closed before a byte: nothing outside heard of it, and yet it was an attempt."""
        judged = self._judged
        if judged is not None:
            fields = judged.record(self._port, self._protocol)
            fields |= {"bytes_in": 0, "bytes_out": 0, "ended": "closed without a byte"}
            self._context.journal.event(self._cell.name, **fields)

    async def _connect(self) -> Session:
        judged = self._judged
        if judged is None:
            raise AssertionError
        known = self._policy().addresses_of(judged.host)
        if known is None:
            known = self._context.resolver.known(self._cell.name, judged.host.text)
        # Where nothing is asked of anyone, a refusal by the floor may be folded like any other.
        passing = self._where_to(judged, known) if known is not None else {}
        opened = {"host": judged.host.text, "port": self._port, "protocol": self._protocol}
        self._entry = entry = self._context.journal.open(self._cell.name, **opened)
        self.live = Live(judged.host, self._port)
        if known is None:
            passing = self._where_to(judged, await self._resolve(judged, entry))

        def before(address: Address) -> None:
            entry.verdict(**passing[address].record(self._port, self._protocol), address=str(address))
            self.live = Live(judged.host, self._port, address)

        try:
            self._server, address = await race(self._context.loop, tuple(passing), self._port, before)
        except DialError as error:
            raise UnreachedError(str(error)) from None
        self.live = Live(judged.host, self._port, address)
        self._settle()
        context = self._context
        self._session = Session(context.loop, self._client, self._server, context.pipes, self._turns)
        return self._session

    def _where_to(self, judged: Judged, addresses: tuple[Address, ...]) -> dict[Address, Judged]:
        policy, ground = self._policy(), self._context.ground()
        return judge_addresses(policy, judged, self._port, self._protocol, addresses, ground)

    async def _resolve(self, judged: Judged, entry: Entry) -> tuple[Address, ...]:
        try:
            return await self._context.resolver.resolve(self._cell.name, judged.host.text)
        except ResolveError as error:
            entry.verdict(**judged.record(self._port, self._protocol))
            raise UnreachedError(f"its name was not resolved: {error}") from None

    async def _refuse(self, error: RefusedError) -> None:
        refusal = error.refusal
        self._context.folder.remember(self._cell.name, refusal, error.command)
        if self._entry is not None and self._session is None:
            # The attempt is open in the log, as its name was asked of the host: its own record says how it went.
            self._entry.verdict(**refusal.record())
        else:
            self._context.folder.refused(self._cell.name, refusal)
        self._ending = f"refused: {refusal.reason}"
        self.live = None
        if self._session is not None:
            await self._session.last_answers()
        payload = self._alert
        if refusal.protocol == "http":
            reason = refusal.inside or refusal.reason
            payload = refuse.forbidden(refusal.host, refusal.port, reason, error.command)
        await self._say(payload)

    async def _say(self, payload: bytes) -> None:
        if self._server is not None:
            self._server.reset()
        self._settle()
        await refuse.say(self._client, payload)

    def _settle(self) -> None:
        """It has said what it wants, or has ended."""
        if self._undecided:
            self._undecided = False
            self._cell.undecided -= 1

    def _reset(self) -> None:
        if self._session is not None:
            self._session.stop()
        self._client.reset()
        if self._server is not None:
            self._server.reset()

    def _close(self) -> None:
        if self._entry is None:
            return
        session = self._session
        with suppress(JournalError):
            self._entry.close(
                protocol=self._protocol,
                bytes_out=session.bytes_out if session else 0,
                bytes_in=session.bytes_in if session else 0,
                duration_ms=round((time.monotonic() - self._began) * 1000),
                ended=self._ending,
            )
