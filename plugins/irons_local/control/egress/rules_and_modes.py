"""What people do to rules and modes: checked, recorded, active at the gateway, and only then answered."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from itertools import product
from typing import Any, NamedTuple, Protocol, TypeVar

from irons_local import clocks
from irons_local.config.upstream import Upstream
from irons_local.control.egress import locked, scope_rows
from irons_local.control.egress.rules_input import refuse_ended, shown
from irons_local.control.schema.errors import HttpError, bad, conflict, unready
from irons_local.control.store import changelog, sandboxes, unasked
from irons_local.control.store import rules as rulebook
from irons_local.control.store.database import Store
from irons_local.control.store.rules import ACCOUNT
from irons_local.control.store.sandboxes import STOPPED, StoredSandbox
from irons_local.linux.routes import read_host_network
from irons_policy import floor
from irons_policy.addresses import Address, is_single
from irons_policy.decide import judge
from irons_policy.hostnames import Host, HostError, canonical_host
from irons_policy.hostnet import HostNetwork, Listener
from irons_policy.patterns import Pattern
from irons_policy.policy import Decision, PatternIndex, Policy
from irons_policy.rules import Rule, RuleChange, spell

T = TypeVar("T")
Hosts = Callable[[], Mapping[str, tuple[Address, ...]]]
"""Gives `[local.hosts]` of the settings as they are now."""

_GONE = float("inf")
_LARGEST_POLICY = 3 * 1024 * 1024


class Enforcer(Protocol):
    """The gateway, as far as rules are concerned; each method raises `HttpError` where it does not answer."""

    async def push(self, cell: str, name: str, policy: dict[str, Any], *, within: float | None = None) -> int:
        """Put a policy active within so many seconds, or less than a client waits; gives the number of connections it cut."""
        ...

    async def impact(self, cell: str, policy: dict[str, Any]) -> int:
        """The number of connections a policy would cut."""
        ...

    async def listeners(self, listening: Sequence[tuple[str, int]], upstream: dict[str, Any] | None) -> None:
        """Tell where irons itself listens, and which upstream proxy there is."""
        ...

    async def forget(self, cell: str) -> None:
        """Forget a cell for good."""
        ...

    async def probe(
        self, cell: str | None, policy: Mapping[str, Any], host: str, port: int
    ) -> dict[str, Any]:
        """Reach a host as a connection of a sandbox would; gives what came of it, and how long it took."""
        ...


@dataclass(frozen=True, slots=True)
class Shown:
    """One scope's mode and rules, for people.

    Attributes:
        mode: the mode active.
        source: `account`, or `sandbox` where it has a mode of its own.
        rules: oldest first.
        revision: names just this state of the scope's own mode, rules and `never`.
        never: what no person is asked about, of the scope's own policy.
    """

    mode: str
    source: str
    rules: tuple[Rule, ...]
    revision: str
    never: tuple[Pattern, ...] = ()


class ChangedRule(NamedTuple):
    """What a change did to one rule.

    Attributes:
        pattern: in its one spelling.
        list: the list that it is, or was, in.
        changed: False where it was there already, just as it is.
    """

    pattern: str
    list: str
    changed: bool


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """What a change of rules or of the mode did, or, as a dry run, would do.

    Attributes:
        changed: False where everything was so already.
        cut: live connections that were cut.
        mode: the mode active in that scope.
        rules: each rule that was put or removed, in the order of the request; none for a change of mode.
    """

    changed: bool
    cut: int
    mode: str
    rules: tuple[ChangedRule, ...] = ()


class Egress:
    """Rules and modes of the account and of each sandbox.

    Changes are written one after the other. What follows from them goes to each cell in that order, and no cell waits
    for another one, whose worker may hang.
    """

    def __init__(
        self,
        store: Store,
        gateway: Enforcer,
        hosts: Hosts,
        listening: Callable[[], Sequence[tuple[str, int]]],
        upstream: Callable[[], Upstream | None],
        never: Callable[[], tuple[Pattern, ...]] = tuple,
    ) -> None:
        """Make the rules' keeper.

        Args:
            store: where rules and modes are recorded.
            gateway: what enforces them.
            hosts: gives `[local.hosts]`.
            listening: gives the addresses and ports that irons itself listens on.
            upstream: gives the upstream proxy, where there is one.
            never: gives what no person is asked about, `[ask] never`.
        """
        self._store = store
        self._gateway = gateway
        self._hosts = hosts
        self._listening = listening
        self._upstream = upstream
        self.never = never
        self._one_at_a_time = asyncio.Lock()
        self._changes = 0
        self._turns: defaultdict[str, _Turn] = defaultdict(_Turn)

    async def show(self, name: str | None) -> Shown:
        """Mode and rules of a sandbox, or of the account for None.

        Raises:
            HttpError: there is no such sandbox.
        """
        now = clocks.moment()

        def work(connection: sqlite3.Connection) -> Shown:
            sandbox = scope_rows.of_name(connection, name)
            own = None if sandbox is None else sandbox.mode
            return Shown(
                mode=scope_rows.mode_of(connection, sandbox),
                source="account" if own is None else "sandbox",
                rules=tuple(
                    each
                    for each in rulebook.of(connection, scope_rows.identity(sandbox))
                    if not scope_rows.is_over(each, now)
                ),
                revision=scope_rows.revision(connection, sandbox, now),
                never=unasked.of(connection, scope_rows.identity(sandbox)),
            )

        return await self._store.read(work)

    async def is_undecided(self) -> bool:
        """Whether no sandbox was ever created and the account's mode was never set."""
        return await self._store.read(scope_rows.is_undecided)

    async def differing(self) -> dict[str, str]:
        """The sandboxes whose mode is another than the account's, and theirs."""

        def work(connection: sqlite3.Connection) -> dict[str, str]:
            mode = rulebook.account_mode(connection)
            known = sandboxes.all_of(connection)
            return {each.name: each.mode for each in known if each.mode is not None and each.mode != mode}

        return await self._store.read(work)

    async def followers(self, *, of_mode: bool) -> int:
        """Count the sandboxes that a change for all sandboxes is for: with `of_mode` those without a mode of their own."""

        def work(connection: sqlite3.Connection) -> int:
            return sandboxes.count(connection, following=of_mode)

        return await self._store.read(work)

    async def put(
        self,
        name: str | None,
        rules: Sequence[Rule],
        *,
        dry: bool = False,
        also: Callable[[sqlite3.Connection], None] = lambda _: None,
        keep: bool = False,
        answers: bool = False,
    ) -> PolicyChange:
        """Add rules, each in place of the one with its pattern if there is one: all of them, or none.

        Args:
            name: the sandbox; None is the account.
            rules: with a pattern each of their own.
            dry: change nothing; the answer is what it would be.
            also: what else is written in the same transaction.
            keep: leave a pattern that has a rule of that scope as it is.
            answers: it is an answer to a question: that opens nothing which is denied.

        Raises:
            HttpError: there is no such sandbox, or the gateway did not confirm it.
        """

        def work(
            connection: sqlite3.Connection, sandbox: StoredSandbox | None
        ) -> tuple[tuple[ChangedRule, ...], str]:
            there = (
                {each.pattern for each in rulebook.of(connection, scope_rows.identity(sandbox))}
                if keep
                else set()
            )
            closed = self._locked(connection)
            done = tuple(
                ChangedRule(
                    rule.pattern.text,
                    rule.list,
                    scope_rows.put(connection, sandbox, rule, closed, answers=answers),
                )
                for rule in rules
                if rule.pattern not in there
            )
            also(connection)
            return done, scope_rows.mode_of(connection, sandbox)

        await self.check_pins(rules)
        (done, mode), cut = await self._change(name, work, dry=dry)
        return PolicyChange(any(each.changed for each in done), cut, mode, done)

    async def remove(self, name: str | None, patterns: Sequence[str], *, dry: bool = False) -> PolicyChange:
        """Remove the rules with these patterns: all of them, or, where one is missing, none.

        Args:
            name: the sandbox; None is the account.
            patterns: in their one spelling.
            dry: change nothing; the answer is what it would be.

        Raises:
            HttpError: there is no such sandbox or rule, or the gateway did not confirm it.
        """

        def work(
            connection: sqlite3.Connection, sandbox: StoredSandbox | None
        ) -> tuple[tuple[ChangedRule, ...], str]:
            done = (
                ChangedRule(each, scope_rows.remove(connection, sandbox, each), True) for each in patterns
            )
            return tuple(done), scope_rows.mode_of(connection, sandbox)

        (done, mode), cut = await self._change(name, work, dry=dry)
        return PolicyChange(True, cut, mode, done)

    async def set_mode(self, name: str | None, mode: str | None, *, dry: bool = False) -> PolicyChange:
        """Set the mode of the account, or of a sandbox; None lets a sandbox follow the account.

        Args:
            name: the sandbox; None is the account.
            mode: one of `MODES`.
            dry: change nothing; the answer is what it would be.

        Raises:
            HttpError: there is no such sandbox, or the gateway did not confirm it.
        """

        def work(connection: sqlite3.Connection, sandbox: StoredSandbox | None) -> tuple[bool, str]:
            before = rulebook.account_mode(connection) if sandbox is None else sandbox.mode
            scope_rows.set_mode(connection, sandbox, mode)
            return before != mode, mode or rulebook.account_mode(connection)

        (changed, now), cut = await self._change(name, work, dry=dry)
        return PolicyChange(changed, cut, now)

    async def replace(
        self,
        name: str | None,
        new: Sequence[Rule],
        given: Mapping[str, Any],
        *,
        dry: bool,
        never: Sequence[Pattern] | None = None,
    ) -> tuple[tuple[RuleChange, ...], int]:
        """Put `new` in place of all rules of a scope, and the mode with them where `given` has one.

        Args:
            name: the sandbox; None is the account.
            new: all rules.
            given: the request; its `mode`, where there is one, is set; its `revision`, where there is one, must be that of
                what is replaced.
            dry: change nothing; the number of connections is that which would be cut.
            never: what no person is asked about; None leaves it.

        Raises:
            HttpError: there is no such sandbox, the revision is another by now, a rule has ended, or the gateway did not answer.
        """
        now = clocks.moment()

        def work(connection: sqlite3.Connection, sandbox: StoredSandbox | None) -> tuple[RuleChange, ...]:
            revision, was_read = scope_rows.revision(connection, sandbox), given.get("revision")
            # A rule that is over stays in the store for seconds, and its removal changes nothing for who read the policy then.
            if was_read not in (None, revision) and was_read != scope_rows.revision(connection, sandbox, now):
                raise conflict("the policy has changed since it was read; read it again")
            if any(scope_rows.is_over(each, now) for each in new):
                # One that the client has read stays in the store for seconds after its end.
                refuse_ended(
                    new, now, rulebook.of(connection, scope_rows.identity(sandbox)) if was_read else ()
                )
            if "mode" in given:
                scope_rows.set_mode(connection, sandbox, given["mode"])
            changed = rulebook.replace(connection, scope_rows.identity(sandbox), new)
            locked.check_rules((each.after for each in changed if each.after), self._locked(connection))
            closed = unasked.of(connection, scope_rows.identity(sandbox))
            if never is not None:
                unasked.replace(connection, scope_rows.identity(sandbox), never)
            for each in changed:
                changelog.record_rule(connection, each, sandbox)
            after = scope_rows.revision(
                connection, None if sandbox is None else sandboxes.get(connection, sandbox.id)
            )
            if after != revision:
                scope_rows.record_policy(connection, sandbox, revision, after, closed)
            return changed

        await self.check_pins(new)
        return await self._change(name, work, dry=dry)

    async def check_pins(self, rules: Iterable[Rule]) -> None:
        """Refuse rules that pin a name to a port of irons itself, which the floor keeps closed under any rule.

        Raises:
            HttpError: 400, naming the rule, the address and the port; or the kernel cannot be asked.
        """
        listening = _listeners(self._listening())
        ports = {port for _, port in listening}
        upstream = self._upstream()
        if upstream is not None:
            ports.add(upstream.port)
        for rule in rules:
            asked = [port for port in rule.pattern.ports or () if port in ports]
            if not rule.private or not asked:
                continue
            host_network = await self._host_network()
            for network, port in product(rule.private, asked):
                is_own = is_single(network) and floor.own_port(network.network_address, port, host_network)
                if is_own:
                    pin = spell(network)
                    raise bad(
                        f"private {pin} of {shown(rule.pattern.text)}: {pin} port {port} is {is_own}; no rule opens that"
                    )

    async def check(
        self, name: str | None, host: str, port: int, *, live: bool = False
    ) -> tuple[Host, Decision, dict[str, Any] | None]:
        """The host in its one spelling, and what would be decided; for None, in a sandbox without rules of its own.

        A literal address, and a name of `[local.hosts]`, is judged by the floor too, on this machine's network as it is now.

        Args:
            name: the sandbox.
            host: as it was typed.
            port: 1 to 65535.
            live: also have the gateway reach it, where it is allowed; the third of the answers says what came of it.

        Raises:
            HttpError: there is no such sandbox, or the host is not one, or the kernel cannot be asked.
        """
        try:
            judged = canonical_host(host)
        except HostError as error:
            raise bad(f"{shown(host)}: {error}") from error
        hosts = self._hosts()

        def work(connection: sqlite3.Connection) -> tuple[StoredSandbox | None, Policy]:
            sandbox = scope_rows.of_name(connection, name)
            return sandbox, rulebook.policies_of(connection, [sandbox], hosts)[0].at(clocks.moment())

        sandbox, policy = await self._store.read(work)
        decision = judge(policy, judged, port, await self._host_network())
        found = None
        if live and decision.allowed:
            cell = None if sandbox is None else sandbox.id
            await self._tell()
            found = await self._gateway.probe(cell, policy.to_json(), judged.text, port)
        return judged, decision, found

    async def enforce(self, identity: str, *, within: float | None = None) -> None:
        """Put a sandbox's policy active, as it is recorded.

        Args:
            identity: the sandbox's id.
            within: seconds that the gateway has to confirm it; None is less than a client waits for an answer.

        Raises:
            HttpError: the gateway did not confirm it.
        """
        async with self._one_at_a_time:
            found = await self._store.read(partial(self._policies, identity=identity, every=True))
            change = self._next()
        await self._tell()
        await self._push(found, change, within, "its rules could not be made active")

    async def enforce_all(self, cells: Collection[str] | None = None) -> None:
        """Put the policy of every sandbox that may run active, for a gateway or settings that are new.

        Args:
            cells: only of these sandboxes, by their ids; None is all.

        Raises:
            HttpError: the gateway did not confirm it.
        """
        async with self._one_at_a_time:
            found = await self._store.read(self._policies)
            change = self._next()
        await self._tell()
        await self._push([each for each in found if cells is None or each[0].id in cells], change)

    async def _tell(self) -> None:
        upstream = self._upstream()
        await self._gateway.listeners(self._listening(), None if upstream is None else upstream.to_json())

    async def forget(self, identity: str) -> None:
        """Let the gateway forget a sandbox for good.

        Raises:
            HttpError: the gateway did not confirm it.
        """
        # Behind a push that began before the sandbox was leaving, and before one that waits, which comes to nothing then.
        turn = self._turns[identity]
        async with turn.lock:
            await self._gateway.forget(identity)
            turn.change = _GONE

    async def _host_network(self) -> HostNetwork:
        try:
            host_network = await asyncio.to_thread(read_host_network, _listeners(self._listening()))
        except OSError as error:
            raise unready(f"this machine's network can't be looked at: {error.strerror}") from error
        return _closed(host_network, self._upstream())

    async def _change(
        self,
        name: str | None,
        work: Callable[[sqlite3.Connection, StoredSandbox | None], T],
        *,
        dry: bool = False,
    ) -> tuple[T, int]:
        """Do `work` and put what follows from it active: both, or, where the work fails, neither."""

        def written(connection: sqlite3.Connection) -> tuple[T, list[tuple[StoredSandbox, dict[str, Any]]]]:
            sandbox = scope_rows.of_name(connection, name)
            locked.check_scope(sandbox)
            answer = work(connection, sandbox)
            _check_size(self._judged(connection, [sandbox])[0].to_json())
            found = self._policies(connection, None if sandbox is None else sandbox.id)
            if found:
                _check_size(max((policy for _, policy in found), key=lambda policy: len(policy["rules"])))
            if dry:
                raise _DryRun(answer, found)
            return answer, found

        async with self._one_at_a_time:
            try:
                answer, found = await self._store.write(written)
            except _DryRun as dried:
                cuts = [self._gateway.impact(sandbox.id, policy) for sandbox, policy in dried.found]
                return dried.answer, sum(await asyncio.gather(*cuts))
            change = self._next()
        return answer, await self._push(found, change)

    def _next(self) -> int:
        """The number of a change, or of a look at all that was changed; called where nothing else is written."""
        self._changes += 1
        return self._changes

    async def _push_one(
        self, sandbox: StoredSandbox, policy: dict[str, Any], change: int, within: float | None
    ) -> int:
        turn = self._turns[sandbox.id]
        async with turn.lock:
            if turn.change > change:
                # A later change, which has this one in it, is active already.
                return 0
            cut = await self._gateway.push(sandbox.id, sandbox.name, policy, within=within)
            turn.change = change
            return cut

    async def _push(
        self,
        found: Sequence[tuple[StoredSandbox, dict[str, Any]]],
        change: int,
        within: float | None = None,
        failed: str = "the change is stored, but not active everywhere yet",
    ) -> int:
        pushes = [self._push_one(sandbox, policy, change, within) for sandbox, policy in found]
        try:
            return sum(await asyncio.gather(*pushes))
        except HttpError as error:
            raise HttpError(error.status, f"{failed}: {error.text}") from error

    def _policies(
        self, connection: sqlite3.Connection, identity: str | None = None, *, every: bool = False
    ) -> list[tuple[StoredSandbox, dict[str, Any]]]:
        """The policies to push: of one sandbox, or of all; a stopped one gets its own when it starts, a leaving one none."""
        affected = [
            sandbox
            for sandbox in sandboxes.all_of(connection)
            if identity in (None, sandbox.id)
            and not sandbox.deleting
            and (every or sandbox.status != STOPPED)
        ]
        policies = self._judged(connection, affected)
        return [(sandbox, policy.to_json()) for sandbox, policy in zip(affected, policies, strict=True)]

    async def unasked(self, sandbox: StoredSandbox, *, all_of: bool) -> Mapping[Pattern, str]:
        """What no answer to a question of a sandbox opens.

        Args:
            sandbox: its list, and that of all sandboxes, count always.
            all_of: the answer is for all: the list of each one counts, but for those that a key of the role `user` created.

        Returns:
            Each pattern with the name of a sandbox that has it; empty where that is all of them.

        Raises:
            StoreError: the database failed.
        """

        def work(connection: sqlite3.Connection) -> dict[Pattern, str]:
            own = dict.fromkeys(unasked.of(connection, sandbox.id), sandbox.name)
            return own | (
                unasked.of_all(connection) if all_of else dict.fromkeys(unasked.of(connection, ACCOUNT), "")
            )

        return await self._store.read(work) | dict.fromkeys(self.never(), "")

    def _locked(self, connection: sqlite3.Connection) -> PatternIndex:
        """What the caller opens by no rule: nothing is closed to an admin."""
        if changelog.ORIGIN.get().role == "admin":
            return PatternIndex(())
        return PatternIndex((*self.never(), *unasked.of(connection, ACCOUNT)))

    def _judged(self, connection: sqlite3.Connection, among: Iterable[StoredSandbox | None]) -> list[Policy]:
        return rulebook.policies_of(connection, among, self._hosts(), self.never())


class _Turn:
    """One cell's: which change it has, and who may give it the next one."""

    __slots__ = ("change", "lock")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.change: float = 0


class _DryRun(Exception):
    def __init__(self, answer: Any, found: list[tuple[StoredSandbox, dict[str, Any]]]) -> None:
        super().__init__("dry run")
        self.answer = answer
        self.found = found


def _listeners(listening: Sequence[tuple[str, int]]) -> list[Listener]:
    return [(ip_address(address), port) for address, port in listening]


def _closed(host_network: HostNetwork, upstream: Upstream | None) -> HostNetwork:
    """The host's network with the upstream proxy closed to sandboxes, as far as is known without resolving its name."""
    if upstream is None:
        return host_network
    if upstream.host.address is not None:
        return host_network._replace(proxies=frozenset({(upstream.host.address, upstream.port)}))
    return host_network._replace(proxy=(upstream.host.text, upstream.port))


def _check_size(policy: Mapping[str, Any]) -> None:
    if len(json.dumps(policy)) > _LARGEST_POLICY:
        raise bad("too many rules for one policy; use wildcards")
