"""`egress check --live`: reach a host as a connection of a sandbox would, and say what took how long.

Asked by a person, not by a sandbox, so it counts towards no cap of a sandbox's. The rules and the floor are the same. Where it
is asked for one sandbox, it is recorded there before anything outside hears of it, with the protocol `check`; else it
belongs to no sandbox, and stands in the gateway's own log.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from irons_local.gateway.decide.verdicts import Judged, RefusedError, judge_addresses
from irons_local.gateway.reach.dial import STAGGER, DialError, dial, race
from irons_local.gateway.reach.proxy import STAGGER as PROXY_STAGGER
from irons_local.gateway.reach.proxy import Route
from irons_local.gateway.reach.resolve import ResolveError
from irons_local.gateway.streams.stream import Wire
from irons_policy.addresses import Address
from irons_policy.causes import Cause, Outcome
from irons_policy.decide import decide, decide_proxy
from irons_policy.event import record
from irons_policy.hostnames import Host
from irons_policy.policy import Policy

if TYPE_CHECKING:
    from irons_local.gateway.shared.context import Context

PROTOCOL = "check"
TIMEOUT = 8.0
_NOBODY = ""
_log = logging.getLogger(__name__)


class Probe:
    """One look at one host.

    Args:
        context: what connections share.
        policy: by whose rules.
        host: canonical.
        port: 1 to 65535.
        cell: the sandbox it is asked for; None for none.
    """

    def __init__(self, context: Context, policy: Policy, host: Host, port: int, cell: str | None) -> None:
        self._context = context
        self._policy = policy
        self._host = host
        self._port = port
        self._cell = cell
        self._judged = Judged(host, decide(policy, host, port))
        self._found: dict[str, Any] = {"outcome": Outcome.REFUSED}

    async def run(self) -> dict[str, Any]:
        """Reach the host, and close the connection at once.

        Returns:
            `outcome`; where it came so far `resolve_ms`, `addresses`, `connect_ms`, `address` and `proxy`; and `error`.

        Raises:
            JournalError: it could not be recorded, and so was not done.
        """
        if not self._judged.decision.allowed:
            self._found["error"] = self._judged.decision.reason
            return self._found
        _log.info("a person checks %s port %d", self._host.text, self._port)
        entry = None
        where = record(host=self._host.text, port=self._port, protocol=PROTOCOL)
        if self._cell is not None:
            entry = self._context.journal.open(self._cell, **where)
        began = time.monotonic()
        try:
            if entry is not None:
                reason = f"checked by a person, not by the sandbox; {self._judged.decision.reason}"
                entry.verdict(**(self._judged.record(self._port, PROTOCOL) | record(reason=reason)))
            await self._reach()
        finally:
            if entry is not None:
                fields = record(
                    protocol=PROTOCOL,
                    bytes_out=0,
                    bytes_in=0,
                    duration_ms=_since(began),
                    ended=str(self._found.get("error", "closed")),
                    outcome=self._found["outcome"],
                )
                entry.close(**fields)
        return self._found

    async def _reach(self) -> None:
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._try()
        except TimeoutError:
            self._fail(Outcome.UNREACHED, "no answer in time")
        except ResolveError as error:
            self._fail(Outcome.UNRESOLVED, f"its name was not resolved: {error}")
        except DialError as error:
            self._fail(Outcome.UNREACHED, str(error))
        except RefusedError as error:
            self._found["cause"] = error.refusal.cause
            self._fail(Outcome.REFUSED, error.refusal.reason)

    async def _try(self) -> None:
        proxy = self._context.proxy
        await proxy.settle(self._port)
        closed = decide_proxy(self._policy, self._host, self._port, self._context.host_network())
        if closed is not None:
            self._found["cause"] = Cause.NEVER
            self._fail(Outcome.REFUSED, closed.reason)
            return
        route = proxy.route(self._host)
        known = self._policy.addresses_of(self._host)
        if known is None and route is not None and route.by_name:
            began = time.monotonic()
            self._reached(await route.dial_name(self._port), None, began, route)
            return
        if known is None:
            began = time.monotonic()
            known = await self._context.resolver.resolve(self._cell or _NOBODY, self._host.text)
            self._found["resolve_ms"] = _since(began)
        self._found["addresses"] = [str(address) for address in known]
        passing = tuple(self._passing(known))
        began = time.monotonic()
        how, stagger = (dial, STAGGER) if route is None else (route.dial, PROXY_STAGGER)
        wire, address = await race(self._context.loop, passing, self._port, self._passing_still, how, stagger)
        self._reached(wire, address, began, route)

    def _passing(self, addresses: tuple[Address, ...]) -> dict[Address, Judged]:
        host_network = self._context.host_network()
        return judge_addresses(self._policy, self._judged, self._port, PROTOCOL, addresses, host_network)

    def _passing_still(self, address: Address) -> None:
        self._passing((address,))

    def _reached(self, wire: Wire, address: Address | None, began: float, route: Route | None) -> None:
        wire.close()
        self._found["connect_ms"] = _since(began)
        self._found["address"] = None if address is None else str(address)
        self._found["proxy"] = route is not None and (address is None or route.proxied(address, self._port))
        self._found["outcome"] = Outcome.REACHED

    def _fail(self, outcome: Outcome, why: str) -> None:
        self._found["outcome"] = outcome
        self._found["error"] = why


def _since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)
