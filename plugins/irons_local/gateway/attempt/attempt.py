"""One connection that a cell tried: from its first words to its closing record.

The order is the promise: opening record, decide, resolve, check the address, verdict record, dial, relay, closing
record. What is refused before the dial is refused before anything outside has learned of it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from irons_local.gateway.attempt.account import Account, Ending
from irons_local.gateway.budget import descriptors, patience
from irons_local.gateway.budget.undecided import Holding, Meter, TooMuchError
from irons_local.gateway.decide import internal_page, pages, refusals
from irons_local.gateway.decide.verdicts import (
    UNKNOWN,
    Judged,
    RefusedError,
    check_named,
    judge,
    judge_addresses,
    refuse_for,
)
from irons_local.gateway.http1.absolute import Forwarding
from irons_local.gateway.http1.authority import BadRequestError
from irons_local.gateway.http1.heads import Head
from irons_local.gateway.http1.requests import Requests
from irons_local.gateway.http2.budget import Budget
from irons_local.gateway.http2.conversation import Http2
from irons_local.gateway.http2.frames import HTTP_1_1_REQUIRED, Http2Error
from irons_local.gateway.http2.heads import Request
from irons_local.gateway.http2.replies import PERMISSION_DENIED, UNAVAILABLE, Words
from irons_local.gateway.inspect.late import LateError
from irons_local.gateway.inspect.opening import read_opening
from irons_local.gateway.inspect.sniff import Kind, Opening
from irons_local.gateway.reach.dial import STAGGER, DialError, dial, race
from irons_local.gateway.reach.proxy import STAGGER as PROXY_STAGGER
from irons_local.gateway.reach.proxy import Route
from irons_local.gateway.reach.resolve import ResolveError
from irons_local.gateway.record.journal import JournalError
from irons_local.gateway.relay.absolute import relay_absolute
from irons_local.gateway.relay.handshake import relay_tls
from irons_local.gateway.relay.http2 import first_request, relay_http2
from irons_local.gateway.relay.modes import relay_clear, relay_http
from irons_local.gateway.relay.session import BrokenError, Session
from irons_local.gateway.streams.splice import Turns
from irons_local.gateway.streams.stream import Wire
from irons_local.log.context import CONNECTION
from irons_policy.addresses import Address
from irons_policy.causes import Cause, Outcome
from irons_policy.decide import Live, decide, decide_proxy
from irons_policy.hostnames import Host
from irons_policy.policy import Policy

if TYPE_CHECKING:
    from irons_local.gateway.accept.cell import Cell
    from irons_local.gateway.attempt.context import Context

STRICT = {443: Kind.TLS, 80: Kind.HTTP}
RESOLVE_HERE = 3.0
"""Seconds in which the host may resolve a name that the upstream proxy resolves as well."""
CROWDED = "this sandbox has all the connections that the machine's limit of open files leaves it"


class UnreachedError(Exception):
    """The rules let it pass, and no server was reached; the message is for the sandbox too.

    Attributes:
        outcome: unresolved or unreached.
    """

    def __init__(self, reason: str, outcome: Outcome) -> None:
        super().__init__(reason)
        self.outcome = outcome


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
        inside: it is for `irons.internal`, which is answered in here.
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
        self._account = Account(context, cell, port)
        self._opened_to = cell.names.name(where)
        self._name: Host | None = None
        self._server: Wire | None = None
        self._session: Session | None = None
        self._forwarding: Forwarding | None = None
        self._judged: Judged | None = None
        self._alert = b""
        self._ending = ""
        self._cause: Cause | None = None
        self._outcome: Outcome | None = None
        self._undecided = False
        self._files = descriptors.ACCEPTED
        self._task: asyncio.Task[None] | None = None
        self._engine: Http2 | None = None
        self.live: Live | None = None
        self.inside = self._opened_to == internal_page.NAME
        self.mismatched = False

    def start(self) -> None:
        """Open it, and begin."""
        if self.open():
            self.begin()

    def open(self) -> bool:
        """Write the opening record; False where there can be none, and so the attempt is over."""
        if self._recorded():
            return True
        self._client.reset()
        self._return_files()
        return False

    def turn_away(self, reason: str) -> None:
        """Refuse it before it has begun."""
        host = self._where if self._opened_to is None else Host(self._opened_to)
        self._account.refused(self._no(reason, Cause.CAP, host), dialled=False)
        self._client.reset()
        self._return_files()

    def begin(self) -> None:
        """Begin in a task of its own."""
        self._cell.live.add(self)
        if self.inside:
            self._cell.inside += 1
        else:
            self._cell.undecided += 1
            self._undecided = True
        self._client.meter = Meter(self._cell.opening)
        self._task = self._context.loop.create_task(self._run())
        # Not at the end of the task itself: one that is cut before its first step never gets there.
        self._task.add_done_callback(self._finish)

    def _recorded(self) -> bool:
        name = self._opened_to
        if self.inside:
            # Answered in here, so none of the log's business.
            self._account.told = True
            return True
        try:
            self._account.accepted(self._where if name is None else Host(name))
        except JournalError as error:
            self._context.complain(str(error))
            self._context.folder.unwritten(self._cell.name)
            return False
        return True

    def cut(self, ending: str, *, cause: Cause | None) -> None:
        """End it now: both sides see a reset.

        Args:
            ending: what the closing record says.
            cause: the same for programs; None where the verdict's cause stays.
        """
        self._ending, self._cause = ending, cause
        if self._task is not None:
            self._task.cancel()

    async def ended(self) -> None:
        """Wait until it has ended."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        CONNECTION.set(self._account)
        try:
            await self._attempt()
        except JournalError as error:
            self._cause, self._outcome = Cause.JOURNAL, Outcome.REFUSED
            self._end("refused: the audit log cannot be written")
            self._context.complain(str(error))
        except BrokenError as error:
            self._end(str(error))
        except OSError as error:
            self._end(f"broken: {(error.strerror or str(error)).lower()}")

    def _end(self, ending: str) -> None:
        """End otherwise than in good order: both sides see a reset."""
        self._ending = self._ending or ending
        if self._session is not None:
            self._session.stop()
        self._client.reset()
        if self._server is not None:
            self._server.reset()

    def _finish(self, task: asyncio.Task[None]) -> None:
        """Leave nothing behind, whatever happened."""
        if task.cancelled():
            self._end("interrupted")
        elif task.exception() is not None:
            self._end("failed")
            self._context.complain(f"a connection failed: {task.exception()!r}")
        self._settle()
        self._cell.live.discard(self)
        self._cell.inside -= self.inside
        if self._session is not None:
            self._session.stop()
        self._client.close()
        if self._server is not None:
            self._server.close()
        if self._engine is not None:
            self._engine.close()
        self._return_files()
        self._cell.freed()
        self._account.close(self._host, self._judged, self._session, self._how())

    def _how(self) -> Ending:
        """How it ended."""
        outcome = Outcome.REACHED if self._session is not None else self._outcome or Outcome.ABANDONED
        return Ending(self._ending or "closed", outcome, self._cause)

    def _return_files(self) -> None:
        self._context.files.give(self._cell.files, self._files)
        self._files = 0

    async def _attempt(self) -> None:
        try:
            self._name = self._named()
            if self.inside:
                await internal_page.serve(self._client, self._cell, self._context.folder)
                return
            opening = await self._open()
            if opening.kind is Kind.HTTP:
                await self._http(opening)
            elif opening.kind is Kind.HTTP2:
                await self._http2(opening)
            else:
                await self._other(opening)
            if self._session is not None:
                await self._session.delivered()
        except RefusedError as error:
            await self._refuse(error)
        except TooMuchError as error:
            await self._refuse(self._no(str(error), Cause.CAP))
        except LateError as error:
            late = refuse_for(
                error.host or self._host,
                self._port,
                error.protocol,
                self._cell.policy,
                str(error),
                error.cause,
            )
            self._alert = error.alert
            await self._refuse(late)
        except UnreachedError as error:
            self._ending = f"unreachable: {error}"
            self._outcome, self._cause = error.outcome, Cause(error.outcome)
            host, reason = self._host.text, str(error)
            if self._engine is not None:
                page = pages.unreachable_page(host, self._port, reason)
                self._engine.refuse(Words(502, UNAVAILABLE, page.strip(), page))
                await self._say(self._engine.take_for_client())
            elif self._account.protocol == "http":
                await self._say(pages.unreachable(host, self._port, reason))
            else:
                await self._say(b"")

    @property
    def _host(self) -> Host:
        """The host that this is about, as far as is known."""
        return self._judged.host if self._judged is not None else self._name or self._where

    def _named(self) -> Host | None:
        """The name this connection was opened to; None for a literal address."""
        address = self._where.address
        if address is None or not self._cell.names.synthetic(address):
            return None
        name = self._opened_to
        if name is None:
            raise self._no("no name was ever given this address", Cause.NEVER)
        return Host(name)

    async def _open(self) -> Opening:
        policy = self._cell.policy
        allowed = policy is not None and decide(policy, self._name or self._where, self._port).allowed
        strict = self._port in STRICT
        if not allowed:
            grace = patience.GRACE_DENIED
        elif strict:
            grace = patience.PATIENCE
        else:
            grace = patience.GRACE_LITERAL if self._name is None else patience.GRACE_NAMED
        tls, hellos = self._context.tls, self._context.hellos
        opening = await read_opening(self._client, tls, hellos, grace, strict=strict and allowed)
        if opening.kind in {Kind.TLS, Kind.HTTP}:
            self._account.protocol = opening.kind.value
        elif opening.kind is Kind.HTTP2:
            self._account.protocol = "http"
        self._alert = opening.alert
        return opening

    def _policy(self) -> Policy:
        policy = self._cell.policy
        if policy is None:
            raise self._no(UNKNOWN, Cause.NO_POLICY)
        return policy

    def _no(self, reason: str, cause: Cause, host: Host | None = None) -> RefusedError:
        protocol, policy = self._account.protocol, self._cell.policy
        return refuse_for(host or self._host, self._port, protocol, policy, reason, cause)

    async def _http(self, opening: Opening) -> None:
        if self._name is not None:
            # A denied name is answered as soon as it is clear how, whatever else the request holds.
            judge(self._policy(), self._name, self._where, (), self._port, "http")
        self._policy()
        requests = Requests(self._client, opening.data, self._cell.opening)
        try:
            head = await requests.head()
        except BadRequestError as error:
            raise self._no(error.reason, error.cause, error.host) from None
        if head is None:
            return
        self._judge(head.hosts, proxied=head.proxied)
        if self._port == 443:
            raise self._no("port 443 must speak TLS", Cause.PROTOCOL)
        session = await self._connect()
        if self._forwarding is not None:
            await self._by_proxy(session, requests, head, self._forwarding)
        else:
            await relay_http(session, requests, head, self._check)

    async def _by_proxy(self, session: Session, requests: Requests, head: Head, way: Forwarding) -> None:
        try:
            await relay_absolute(session, requests, head, way)
        except DialError as error:
            session.stop()
            self._session = None
            raise UnreachedError(str(error), Outcome.UNREACHED) from None

    async def _http2(self, opening: Opening) -> None:
        self._engine = engine = self._http2_engine(greeted=False)
        if self._port in STRICT:
            engine.end(Http2Error("HTTP/1 or TLS is spoken here", HTTP_1_1_REQUIRED))
            wanted = "TLS" if self._port == 443 else "HTTP/1"
            raise self._no(f"port {self._port} must speak {wanted}", Cause.PROTOCOL)
        try:
            if not await first_request(self._client, engine, opening.data, patience.REQUEST):
                self._ending = "closed without a request"
                return
        except TimeoutError:
            # A client may wait until it has something to ask; where it is opened to a name that is known.
            if self._name is None:
                raise self._no("no request was sent", Cause.MALFORMED) from None
        if self._judged is None:
            self._judge(())
        session = await self._connect()
        engine.reached = True
        await relay_http2(session, engine)

    async def _late_http2(self, session: Session) -> None:
        self._account.protocol = "http"
        self._engine = engine = self._http2_engine(greeted=True)
        await relay_http2(session, engine)

    def _http2_engine(self, *, greeted: bool) -> Http2:
        cell = self._cell
        return Http2(self._ask, Budget(cell.http2), Holding(cell.opening), greeted=greeted)

    def _ask(self, found: Request | BadRequestError) -> Words | None:
        """Judge a request of HTTP/2; the first decides whether anyone is dialled."""
        first = self._judged is None
        try:
            if isinstance(found, BadRequestError):
                raise self._no(found.reason, found.cause, found.host)
            if first:
                self._judge(found.hosts)
            else:
                self._check(found.hosts, "http")
        except RefusedError as error:
            if first:
                raise
            self._account.refused(error, dialled=True)
            return _words(error, self._cell.title)
        return None

    async def _other(self, opening: Opening) -> None:
        self._judge(() if opening.name is None else (opening.name,))
        if opening.fault is not None:
            raise self._no(opening.fault, Cause.MALFORMED, opening.name)
        if opening.silent and opening.ended:
            self._ending = "closed without a byte"
            return
        wanted = STRICT.get(self._port)
        if wanted is not None and wanted is not opening.kind:
            said = "nothing was sent" if opening.silent else f"port {self._port} must speak {wanted.name}"
            raise self._no(said, Cause.PROTOCOL)
        session = await self._connect()
        if opening.kind is Kind.TLS:
            await session.send(opening.data)
            await relay_tls(session, self._context.tls, self._check, late=False)
        else:
            tls, budget = self._context.tls, self._cell.opening
            await relay_clear(session, opening, tls, budget, self._check, self._late_http2)

    def _judge(self, claimed: tuple[Host, ...], *, proxied: bool = False) -> None:
        policy, protocol = self._policy(), self._account.protocol
        judged = judge(policy, self._name, self._where, claimed, self._port, protocol, proxied=proxied)
        self._judged = judged
        self._tell(judged)

    def _check(
        self, claimed: tuple[Host, ...], protocol: str, alert: bytes = b"", *, proxied: bool = False
    ) -> None:
        """Judge names that show up once the server is reached."""
        self._account.protocol, self._alert = protocol, alert
        self._tell(check_named(self._policy(), self._host, claimed, self._port, protocol, proxied=proxied))

    def _tell(self, judged: Judged) -> None:
        self.mismatched = self.mismatched or bool(judged.others)
        self._account.others(judged)

    async def _connect(self) -> Session:
        judged = self._judged
        if judged is None:
            raise AssertionError
        proxy = self._context.proxy
        route = proxy.route(judged.host)
        if proxy.setting is not None:
            await proxy.settle(self._port)
        known = self._policy().addresses_of(judged.host)
        if known is None and route is not None and route.by_name:
            return await self._connect_by_name(judged, route)
        if known is None:
            known = self._context.resolver.known(self._cell.name, judged.host.text)
        # Where nothing is asked of anyone, a refusal by the floor may be folded like any other.
        passing = self._where_to(judged, known) if known is not None else {}
        if not self._context.files.take(self._cell.files, descriptors.DIALLED):
            raise self._no(CROWDED, Cause.CAP)
        self._files += descriptors.DIALLED
        self._account.reach(judged.host)
        self.live = Live(judged.host, self._port)
        if known is None:
            passing = self._where_to(judged, await self._resolve(judged))

        dialled: list[Address] = []

        def before(address: Address) -> None:
            # Between one dial and the next the rules and the ground may have changed.
            now = self._where_to(judged, (address,)) if dialled else passing
            dialled.append(address)
            self._account.verdict(now[address], address)
            self.live = Live(judged.host, self._port, address)

        try:
            how, stagger = (dial, STAGGER) if route is None else (route.dial, PROXY_STAGGER)
            self._server, address = await race(
                self._context.loop, tuple(passing), self._port, before, how, stagger
            )
        except DialError as error:
            raise UnreachedError(str(error), Outcome.UNREACHED) from None
        if route is not None:
            self._forwarding = route.forwarding(self._server)
        self.live = Live(judged.host, self._port, address)
        if address != dialled[-1]:
            # Rules that came meanwhile were held against the address dialled last.
            self._account.verdict(self._where_to(judged, (address,))[address], address)
        return self._connected(self._server)

    async def _connect_by_name(self, judged: Judged, route: Route) -> Session:
        """Have the upstream proxy resolve the name, which leads to no address here, or to none beneath the floor."""
        closed = decide_proxy(self._policy(), judged.host, self._port, self._context.ground())
        if closed is not None:
            raise self._no(closed.reason, closed.cause)
        if not self._context.files.take(self._cell.files, descriptors.DIALLED):
            raise self._no(CROWDED, Cause.CAP)
        self._files += descriptors.DIALLED
        self._account.reach(judged.host)
        self.live = Live(judged.host, self._port)
        try:
            async with asyncio.timeout(RESOLVE_HERE):
                found = await self._context.resolver.resolve(self._cell.name, judged.host.text)
        except (ResolveError, TimeoutError):
            found = ()
        for address in found:
            self._where_to(judged, (address,))
        # What was asked here took its time: the rules may have changed.
        now = decide(self._policy(), judged.host, self._port)
        if not now.allowed:
            raise self._no(now.reason, now.cause)
        reason = f"{judged.decision.reason}; the upstream proxy resolves the name"
        self._account.verdict(judged._replace(decision=judged.decision._replace(reason=reason)))
        try:
            self._server = await route.dial_name(self._port)
        except DialError as error:
            raise UnreachedError(str(error), Outcome.UNREACHED) from None
        self._forwarding = route.forwarding(self._server)
        return self._connected(self._server)

    def _connected(self, server: Wire) -> Session:
        if not self._cell.roomy:
            server.narrow()
        self._settle()
        context = self._context
        self._session = Session(context.loop, self._client, server, context.pipes, self._turns)
        return self._session

    def _where_to(self, judged: Judged, addresses: tuple[Address, ...]) -> dict[Address, Judged]:
        policy, ground = self._policy(), self._context.ground()
        return judge_addresses(policy, judged, self._port, self._account.protocol, addresses, ground)

    async def _resolve(self, judged: Judged) -> tuple[Address, ...]:
        try:
            return await self._context.resolver.resolve(self._cell.name, judged.host.text)
        except ResolveError as error:
            self._account.verdict(judged)
            raise UnreachedError(f"its name was not resolved: {error}", Outcome.UNRESOLVED) from None

    async def _refuse(self, error: RefusedError) -> None:
        refusal = error.refusal
        self._account.refused(error, dialled=self._session is not None)
        self._ending, self._cause = f"refused: {refusal.reason}", refusal.cause
        self._outcome = Outcome.REFUSED
        self.live = None
        if self._session is not None:
            await self._session.last_answers()
        payload = self._alert
        if self._engine is not None:
            if not self._engine.going:
                self._engine.refuse(_words(error, self._cell.title))
            payload = self._engine.take_for_client()
        elif refusal.protocol == "http":
            reason = refusal.inside or refusal.reason
            payload = pages.forbidden(refusal.host, refusal.port, reason, error.command(self._cell.title))
        await self._say(payload)

    async def _say(self, payload: bytes) -> None:
        if self._server is not None:
            self._server.reset()
        self._settle()
        await refusals.say(self._client, payload)

    def _settle(self) -> None:
        """It has said what it wants, or has ended."""
        if self._client.meter is not None:
            self._client.meter.close()
            self._client.meter = None
        if self._undecided:
            self._undecided = False
            self._cell.undecided -= 1
            self._cell.freed()


def _words(error: RefusedError, sandbox: str) -> Words:
    refusal = error.refusal
    reason = refusal.inside or refusal.reason
    page = pages.forbidden_page(refusal.host, refusal.port, reason, error.command(sandbox))
    return Words(403, PERMISSION_DENIED, " ".join(page.split("\n")).strip(), page)
