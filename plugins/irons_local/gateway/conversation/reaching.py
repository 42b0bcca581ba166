"""The host a connection is for, and the way to it: judged, looked up, recorded, and only then dialled."""

from __future__ import annotations

from collections.abc import Mapping

from irons_local.gateway.conversation import actions as do
from irons_local.gateway.conversation import events as ev
from irons_local.gateway.conversation.actions import Waits
from irons_local.gateway.conversation.exchange import Exchange, Steps
from irons_local.gateway.decide.verdicts import Judged, RefusedError
from irons_local.gateway.http1.absolute import Forwarding
from irons_local.gateway.record.refusal import Refusal
from irons_policy.addresses import Address
from irons_policy.causes import Cause, Outcome
from irons_policy.decide import Live
from irons_policy.hostnames import Host

RESOLVE_HERE = 3.0
"""Seconds in which the host may resolve a name that the upstream proxy resolves as well."""


class UnreachedError(Exception):
    """The rules let it pass, and no server was reached; the message is for the sandbox too.

    Attributes:
        outcome: unresolved or unreached.
    """

    def __init__(self, reason: str, outcome: Outcome) -> None:
        super().__init__(reason)
        self.outcome = outcome


class Reaching:
    """Judges one connection, and has its server dialled.

    Args:
        exchange: the connection.
        accepted: how it began.

    Attributes:
        judged: the verdict on it before the dial; None for none yet.
        reached: its server is connected to.
        forwarding: how requests go to it, where that is by way of a proxy that takes them in absolute form.
        protocol: what it speaks, as far as is known.
    """

    def __init__(self, exchange: Exchange, accepted: ev.Accepted) -> None:
        self._exchange = exchange
        self._accepted = accepted
        self._mode = accepted.mode
        self._asked: do.Judge | None = None
        self._live: Live | None = None
        self._mismatched = False
        self.judged: Judged | None = None
        self.reached = False
        self.forwarding: Forwarding | None = None
        self.protocol = "tcp"

    @property
    def host(self) -> Host:
        """The host that this is about, as far as is known."""
        if self.judged is not None:
            return self.judged.host
        return self._accepted.name or self._accepted.where

    def speaks(self, protocol: str) -> None:
        """It speaks this from here on."""
        if protocol != self.protocol:
            self.protocol = protocol
            self._exchange.say(do.Speaks(protocol))

    def refusal(
        self, reason: str, cause: Cause, host: Host | None = None, protocol: str | None = None
    ) -> RefusedError:
        """A refusal that no rule made and no rule would lift."""
        about, port = (host or self.host).text, self._accepted.port
        return RefusedError(Refusal(about, port, protocol or self.protocol, self._mode, None, reason, cause))

    def changed(self, mode: str | None) -> None:
        """The policy is another one: ask again what is being asked, and about what goes on."""
        self._mode = mode
        if self._asked is not None:
            self._exchange.say(self._asked)
        if self._live is not None or self._mismatched:
            self._exchange.say(do.Judge(do.Standing(self._live, self._mismatched)))

    def ask(
        self, claimed: tuple[Host, ...], *, proxied: bool = False, reached: bool = False, early: bool = False
    ) -> Steps[Judged]:
        """Ask whether the connection may go to these names.

        Raises:
            RefusedError: it may not.
        """
        accepted = self._accepted
        host = self.host if reached else accepted.name
        names = do.Names(host, accepted.where, accepted.port, claimed, self.protocol, proxied, reached, early)
        return (yield from self._verdict(names))

    def _verdict(self, question: do.Names | do.ByName) -> Steps[Judged]:
        fact = yield from self._answer(question)
        if not isinstance(fact, ev.Verdict):
            raise TypeError(fact)
        return fact.judged

    def judge(self, claimed: tuple[Host, ...], *, proxied: bool = False) -> Steps[None]:
        """Judge the host that the connection is for.

        Raises:
            RefusedError: it may not go there.
        """
        self.judged = judged = yield from self.ask(claimed, proxied=proxied)
        self._mention(judged)

    def check(self, claimed: tuple[Host, ...], *, proxied: bool = False) -> Steps[None]:
        """Judge names that show up once the server is reached.

        Raises:
            RefusedError: they are refused.
        """
        self._mention((yield from self.ask(claimed, proxied=proxied, reached=True)))

    def connect(self) -> Steps[None]:
        """Reach the server of the host that was judged.

        Raises:
            RefusedError: it may not be reached.
            UnreachedError: it was not.
        """
        exchange, judged = self._exchange, self.judged
        if judged is None:
            raise AssertionError
        exchange.say(do.Lookup(judged.host))
        fact = yield from exchange.fact()
        if isinstance(fact, ev.ByProxy):
            yield from self._by_proxy(judged)
            return
        known = fact.addresses if isinstance(fact, ev.Known) else None
        # Where nothing is asked of anyone, a refusal by the floor may be folded like any other.
        passing = (yield from self._where_to(judged, known)) if known is not None else {}
        self._reach(judged)
        if known is None:
            passing = yield from self._resolve(judged)
        yield from self._dial(judged, passing)

    def unreach(self, reason: str) -> UnreachedError:
        """What was connected to has turned out to be no server."""
        self.reached = False
        return UnreachedError(reason, Outcome.UNREACHED)

    def _reach(self, judged: Judged) -> None:
        self._exchange.say(do.Reach(judged.host))
        self._live = Live(judged.host, self._accepted.port)

    def _arrived(self, fact: ev.Reached) -> None:
        self._exchange.release()
        self.forwarding = fact.forwarding
        self.reached = True
        self._exchange.settle()

    def _by_proxy(self, judged: Judged) -> Steps[None]:
        """Have the upstream proxy resolve the name, which leads to no address here, or to none beneath the floor."""
        exchange, port = self._exchange, self._accepted.port
        yield from self._verdict(do.ByName(judged, port, self.protocol))
        self._reach(judged)
        exchange.say(do.Resolve(judged.host, RESOLVE_HERE))
        exchange.hold(Waits.NAME, None)
        fact = yield from exchange.fact()
        exchange.release()
        for address in fact.addresses if isinstance(fact, ev.Resolved) else ():
            yield from self._where_to(judged, (address,))
        # What was asked here took its time: the rules may have changed.
        yield from self._verdict(do.ByName(judged, port, self.protocol))
        reason = f"{judged.decision.reason}; the upstream proxy resolves the name"
        exchange.say(do.Choose(judged._replace(decision=judged.decision._replace(reason=reason)), None))
        exchange.say(do.DialName(judged.host, port))
        exchange.hold(Waits.DIAL, None)
        fact = yield from exchange.fact()
        if isinstance(fact, ev.Unreached):
            raise UnreachedError(fact.reason, Outcome.UNREACHED)
        if not isinstance(fact, ev.Reached):
            raise TypeError(fact)
        self._arrived(fact)

    def _resolve(self, judged: Judged) -> Steps[Mapping[Address, Judged]]:
        exchange = self._exchange
        exchange.say(do.Resolve(judged.host))
        exchange.hold(Waits.NAME, None)
        fact = yield from exchange.fact()
        exchange.release()
        if isinstance(fact, ev.Resolved):
            return (yield from self._where_to(judged, fact.addresses))
        reason = fact.reason if isinstance(fact, ev.Unresolved) else ""
        exchange.say(do.Choose(judged, None))
        raise UnreachedError(f"its name was not resolved: {reason}", Outcome.UNRESOLVED)

    def _dial(self, judged: Judged, passing: Mapping[Address, Judged]) -> Steps[None]:
        exchange, port = self._exchange, self._accepted.port
        exchange.say(do.Dial(tuple(passing), port))
        exchange.hold(Waits.DIAL, None)
        last: Address | None = None
        while True:
            fact = yield from exchange.fact()
            if isinstance(fact, ev.Unreached):
                raise UnreachedError(fact.reason, Outcome.UNREACHED)
            if not isinstance(fact, ev.Dialling | ev.Reached):
                raise TypeError(fact)
            address = fact.address
            if address is None:
                raise TypeError(fact)
            # Between one dial and the next the rules and the ground may have changed.
            if isinstance(fact, ev.Dialling) or address != last:
                now = passing if last is None else (yield from self._where_to(judged, (address,)))
                exchange.say(do.Choose(now[address], address))
            last = address
            self._live = Live(judged.host, port, address)
            if isinstance(fact, ev.Reached):
                self._arrived(fact)
                return

    def _where_to(self, judged: Judged, addresses: tuple[Address, ...]) -> Steps[Mapping[Address, Judged]]:
        question = do.Addresses(judged, self._accepted.port, self.protocol, addresses)
        fact = yield from self._answer(question)
        if not isinstance(fact, ev.Passing):
            raise TypeError(fact)
        return fact.judged

    def _answer(self, question: do.Names | do.Addresses | do.ByName) -> Steps[ev.Fact]:
        """Ask, and wait for the answer, which may come from outside."""
        exchange = self._exchange
        exchange.release()
        self._asked = do.Judge(question)
        exchange.say(self._asked)
        otherwise: RefusedError | None = None
        try:
            while True:
                fact = yield from exchange.fact()
                if isinstance(fact, ev.Asked):
                    otherwise = fact.otherwise
                    exchange.hold(Waits.ASKED, fact.seconds, fact.reason)
                elif fact is not None:
                    return fact
                elif otherwise is not None:
                    raise otherwise
        finally:
            self._asked = None
            exchange.release()

    def _mention(self, judged: Judged) -> None:
        self._mismatched = self._mismatched or bool(judged.others)
        if judged.others:
            self._exchange.say(do.Mention(judged))
