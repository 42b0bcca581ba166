"""The host a connection is for, and the way to it: judged, looked up, recorded, and only then dialled."""

from __future__ import annotations

from collections.abc import Callable, Mapping

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

Question = do.Names | do.Addresses | do.ByName
AtOnce = Callable[[Question | do.Lookup], ev.Fact | None]
"""Answers a question in the call that asks it; None where the answer takes longer, and comes as an event."""
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
        at_once: answers what can be answered without waiting; None where every answer is an event.

    Attributes:
        judged: the verdict on it before the dial; None for none yet.
        reached: its server is connected to.
        forwarding: how requests go to it, where that is by way of a proxy that takes them in absolute form.
        protocol: what it speaks, as far as is known.
    """

    __slots__ = (
        "_accepted", "_asked", "_at_once", "_exchange", "_live", "_mismatched", "_mode", "forwarding", "judged",
        "protocol", "reached",
    )  # fmt: skip

    def __init__(self, exchange: Exchange, accepted: ev.Accepted, at_once: AtOnce | None) -> None:
        self._exchange = exchange
        self._accepted = accepted
        self._at_once = at_once
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

    def again(self) -> None:
        """Ask again what is being asked."""
        if self._asked is not None:
            self._exchange.say(self._asked)

    def ask(self) -> Steps[None]:
        """Ask whether the connection may go on before it has shown its names.

        Raises:
            RefusedError: it may not.
        """
        accepted = self._accepted
        yield from self._verdict(
            do.Names(accepted.name, accepted.where, accepted.port, (), self.protocol, early=True)
        )

    def judge(self, claimed: tuple[Host, ...], *, proxied: bool = False) -> Steps[None]:
        """Judge the host that the connection is for.

        Raises:
            RefusedError: it may not go there.
        """
        accepted = self._accepted
        self.judged = yield from self._verdict(
            do.Names(accepted.name, accepted.where, accepted.port, claimed, self.protocol, proxied)
        )
        if self.judged.others:
            self._mention(self.judged)

    def check(self, claimed: tuple[Host, ...], *, proxied: bool = False) -> Steps[None]:
        """Judge names that show up once the server is reached.

        Raises:
            RefusedError: they are refused.
        """
        accepted = self._accepted
        judged = yield from self._verdict(
            do.Names(self.host, accepted.where, accepted.port, claimed, self.protocol, proxied, reached=True)
        )
        if judged.others:
            self._mention(judged)

    def _verdict(self, question: do.Names | do.ByName) -> Steps[Judged]:
        fact = self._now(question)
        if not isinstance(fact, ev.Verdict):
            fact = yield from self._later(question, fact)
            if not isinstance(fact, ev.Verdict):
                raise TypeError(fact)
        return fact.judged

    def connect(self) -> Steps[None]:
        """Reach the server of the host that was judged.

        Raises:
            RefusedError: it may not be reached.
            UnreachedError: it was not.
        """
        exchange, judged = self._exchange, self.judged
        if judged is None:
            raise AssertionError
        lookup = do.Lookup(judged.host)
        fact = self._now(lookup)
        if fact is None:
            exchange.say(lookup)
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
        addresses = tuple(passing)
        last = addresses[0]
        exchange.say(do.Choose(passing[last], last))
        self._live = Live(judged.host, port, last)
        exchange.say(do.Dial(addresses, port))
        exchange.hold(Waits.DIAL, None)
        while True:
            fact = yield from exchange.fact()
            if isinstance(fact, ev.Unreached):
                raise UnreachedError(fact.reason, Outcome.UNREACHED)
            if not isinstance(fact, (ev.Dialling, ev.Reached)) or fact.address is None:
                raise TypeError(fact)
            address = fact.address
            if address != last:
                # Between one dial and the next the rules and the host's network may have changed.
                now = yield from self._where_to(judged, (address,))
                exchange.say(do.Choose(now[address], address))
                last = address
                self._live = Live(judged.host, port, address)
            if isinstance(fact, ev.Reached):
                self._arrived(fact)
                return

    def _where_to(self, judged: Judged, addresses: tuple[Address, ...]) -> Steps[Mapping[Address, Judged]]:
        question = do.Addresses(judged, self._accepted.port, self.protocol, addresses)
        fact = self._now(question)
        if not isinstance(fact, ev.Passing):
            fact = yield from self._later(question, fact)
            if not isinstance(fact, ev.Passing):
                raise TypeError(fact)
        return fact.judged

    def _now(self, question: Question | do.Lookup) -> ev.Fact | None:
        """The answer that is there without waiting, or None.

        Raises:
            RefusedError: it is a refusal.
        """
        fact = None if self._at_once is None else self._at_once(question)
        if isinstance(fact, ev.Denied):
            raise fact.error
        return fact

    def _later(self, question: Question, fact: ev.Fact | None) -> Steps[ev.Fact]:
        """Wait for the answer, which may come from outside.

        Args:
            question: what is asked.
            fact: that somebody is asked, where that is known; None where the question is still to be put.
        """
        exchange = self._exchange
        exchange.release()
        self._asked = asked = do.Judge(question)
        otherwise: RefusedError | None = None
        try:
            if fact is None:
                exchange.say(asked)
                fact = yield from exchange.fact()
            while isinstance(fact, ev.Asked) or fact is None:
                if isinstance(fact, ev.Asked):
                    otherwise = fact.otherwise
                    exchange.hold(Waits.ASKED, fact.seconds, fact.reason)
                elif otherwise is not None:
                    raise otherwise
                fact = yield from exchange.fact()
            return fact
        finally:
            self._asked = None
            exchange.release()

    def _mention(self, judged: Judged) -> None:
        self._mismatched = True
        self._exchange.say(do.Mention(judged))
