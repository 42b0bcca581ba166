"""What a person sees of a question before answering: what the audit log has of its host, and what its name alone says; and which answers last.

Nothing is looked up or contacted for a question, not even by DNS.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, cast

from irons_local.control.audit.events import AGAINST
from irons_local.control.egress.relays import looks_random, relay_of
from irons_local.control.store.database import Store
from irons_policy.hostnames import Host, HostError, canonical_host
from irons_policy.idn import registrable
from irons_policy.patterns import narrowest

_DOMAIN = 1
"""Kind of a summary's row that stands for all names below a domain; what is above it stands for the rest."""
MOST_BELOW: Final = 3
"""Other names below the same domain that are named; further ones are counted."""
MOST_LATEST: Final = 256
"""Refusals since the question was asked that are counted apart from those before it."""

_MOST_ANSWERS = 64
"""Answers of one cell that are taken from a worker."""
_LONGEST_ANSWER = 3600
"""Seconds for which an answer counts at most."""


class QuestionAbout(NamedTuple):
    """What a question is about.

    Attributes:
        id: the question's id.
        cell: the sandbox.
        host: the host.
        port: the port.
        since: when it was asked, microseconds since 1970.
    """

    id: str
    cell: str
    host: Host
    port: int
    since: int


class QuestionDetails(NamedTuple):
    """What there is to see of a question.

    Attributes:
        new: this sandbox had not tried the host before it was asked; False too where the log no longer tells such hosts apart.
        refused: connections to just that host and port that were refused before it was asked, which a rule would have let pass.
        below: other names below the same registrable domain that this sandbox tried, the last ones.
        below_count: how many there are.
        marks: `random` where the name looks made by a machine, `punycode` where it stands for other letters, and the kind of relay
            that it is known as.
    """

    new: bool
    refused: int
    below: tuple[str, ...]
    below_count: int
    marks: tuple[str, ...]


class QuestionBook:
    """Knows the details of the open questions, each looked up once, as they were when it was first seen.

    Args:
        store: has the audit log.
        caught_up: has what was recorded until now taken into it.
        open_ids: gives the ids of all open questions; of others nothing is kept.
    """

    def __init__(
        self, store: Store, caught_up: Callable[[], Awaitable[None]], open_ids: Callable[[], Collection[str]]
    ) -> None:
        self._store = store
        self._caught_up = caught_up
        self._open_ids = open_ids
        self._known: dict[str, QuestionDetails] = {}

    async def of(self, questions: Iterable[QuestionAbout]) -> Mapping[str, QuestionDetails]:
        """Return the details of open questions, by their ids.

        Raises:
            StoreError: the database failed.
        """
        # While the store is read, another call may forget what is known here.
        asked, known = list(questions), self._known
        fresh = [each for each in asked if each.id not in known]
        if fresh:
            await self._caught_up()
        found = await self._store.read(lambda connection: details(connection, fresh)) if fresh else {}
        # Of two looks at once the first one counts.
        together = {**found, **known, **self._known}
        open_ids = {*self._open_ids()}
        self._known = {name: each for name, each in together.items() if name in open_ids}
        return {each.id: together[each.id] for each in asked}


def details(connection: sqlite3.Connection, questions: Iterable[QuestionAbout]) -> dict[str, QuestionDetails]:
    """Look questions up in the audit log's summaries, those of one sandbox together."""
    of: defaultdict[str, list[QuestionAbout]] = defaultdict(list)
    for each in questions:
        of[each.cell].append(each)
    found: dict[str, QuestionDetails] = {}
    for cell, asked in of.items():
        tried = _tried(connection, cell, asked)
        known = {each.id: _details(each, tried) for each in asked}
        if any(each.refused for each in known.values()):
            # The summaries have what waits now among what was refused.
            latest = _latest(connection, cell)
            known = {each.id: _before(each, known[each.id], latest) for each in asked}
        found |= known
    return found


class _Tried(NamedTuple):
    """What a sandbox tried below one domain: hosts, the last first, and whether some are not told apart any more."""

    hosts: list[tuple[str, int, int, int]]
    folded: bool


def _domain(host: Host) -> str:
    return host.text if host.address is not None else registrable(host.text)


def _tried(connection: sqlite3.Connection, cell: str, asked: Iterable[QuestionAbout]) -> dict[str, _Tried]:
    """What a sandbox tried, by the domains that are asked about."""
    domains = {_domain(each.host) for each in asked}
    rows = connection.execute(
        "SELECT host, port, folded, min(first), total(CASE WHEN verdict = 'blocked' THEN count ELSE 0 END) FROM summaries "
        "WHERE subject = (SELECT id FROM subjects WHERE sandbox = ?) GROUP BY host, port, folded ORDER BY max(last) DESC",
        (cell,),
    ).fetchall()
    hosts: dict[str, list[tuple[str, int, int, int]]] = {each: [] for each in domains}
    folded = {row["host"].removeprefix("*.") for row in rows if row["folded"] == _DOMAIN}
    rest = any(row["folded"] > _DOMAIN for row in rows)
    for host, port, kind, first, refused in rows:
        labels = host.split(".")
        ends = (".".join(labels[start:]) for start in range(len(labels)))
        domain = None if kind else next((each for each in ends if each in domains), None)
        if domain is not None:
            hosts[domain].append((host, port, first, int(refused)))
    return {each: _Tried(found, rest or each in folded) for each, found in hosts.items()}


def _latest(connection: sqlite3.Connection, cell: str) -> Sequence[sqlite3.Row]:
    """The latest refusals of a sandbox."""
    return connection.execute(
        "SELECT at, host, port, count FROM events WHERE subject = (SELECT id FROM subjects WHERE sandbox = ?) "  # noqa: S608 (text of ours)
        f"AND {AGAINST} AND verdict = 'blocked' ORDER BY id DESC LIMIT ?",
        (cell, MOST_LATEST),
    ).fetchall()


def _before(about: QuestionAbout, known: QuestionDetails, latest: Sequence[sqlite3.Row]) -> QuestionDetails:
    """The details without the refusals since the question was asked: its own connections."""
    own = sum(
        row["count"]
        for row in latest
        if row["host"] == about.host.text and row["port"] == about.port and row["at"] >= about.since
    )
    return known._replace(refused=max(0, known.refused - own))


def _details(about: QuestionAbout, tried: Mapping[str, _Tried]) -> QuestionDetails:
    name, below_domain = about.host.text, tried[_domain(about.host)]
    same = [
        (port, refused)
        for host, port, first, refused in below_domain.hosts
        if host == name and first < about.since
    ]
    below = list(dict.fromkeys(host for host, _, _, _ in below_domain.hosts if host != name))
    marks = (
        "random" if looks_random(about.host) else None,
        "punycode" if any(each.startswith("xn--") for each in name.split(".")) else None,
        relay_of(about.host),
    )
    return QuestionDetails(
        not same and not below_domain.folded,
        sum(refused for port, refused in same if port == about.port),
        tuple(below[:MOST_BELOW]),
        len(below),
        tuple(each for each in marks if each),
    )


class CellAnswer(NamedTuple):
    """An answer.

    Attributes:
        host: what it is for, canonical.
        port: and where.
        reply: `once` lets the next connection pass, `no` refuses all without a question.
        until: when it ends, by the control plane's clock.
    """

    host: str
    port: int
    reply: Literal["once", "no"]
    until: float

    @property
    def pattern(self) -> str:
        """What it is for, as the pattern of a rule would be."""
        return narrowest(self.host, self.port, exact=True)


def read_answers(told: Sequence[object], now: float) -> tuple[CellAnswer, ...]:
    """Read the answers that a worker tells of; what is malformed is passed over."""
    found = (
        _read_answer(cast("Mapping[str, Any]", each), now)
        for each in told[-_MOST_ANSWERS:]
        if isinstance(each, Mapping)
    )
    return tuple(each for each in found if each is not None)


def _read_answer(told: Mapping[str, Any], now: float) -> CellAnswer | None:
    name, port, reply, left = (told.get(key) for key in ("host", "port", "reply", "left"))
    if (
        not isinstance(name, str)
        or type(port) is not int
        or type(left) is not int
        or reply not in ("once", "no")
    ):
        return None
    if not 0 < port < 65_536 or not 0 < left <= _LONGEST_ANSWER:
        return None
    try:
        host = canonical_host(name).text
    except HostError:
        return None
    return CellAnswer(host, port, reply, now + left)
