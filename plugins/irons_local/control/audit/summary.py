"""Summary rows of the audit log, and how they are folded so that a sandbox has a bounded number of them: pure.

What passed is worth more than what was let through and reached no one, and that more than what was refused. Rows of
the least worth are folded first, into one row per registrable domain and then into one row for the rest, so that no
number of refused hosts takes the row of one that passed. The row of a domain to which something passed stays.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from ipaddress import ip_address, ip_network
from typing import Final, NamedTuple

from irons_policy.idn import registrable

MOST: Final = 20_000
"""Rows that one sandbox has at most."""
LARGEST: Final = 4 * 10**15
"""The largest count: two of them together are an exact number everywhere."""
OTHERS: Final = "(other hosts)"
"""The host of the row that counts what no other row has."""
HOST, DOMAIN, REST = 0, 1, 2
"""What a row is about: one host and port, all of a registrable domain, or the rest."""

_REFUSED, _UNREACHED, _PASSED = 0, 1, 2


class SummaryKey(NamedTuple):
    """Which attempts of a sandbox a row counts.

    Attributes:
        host: a host; of a folded row `*.` and the registrable domain, a network, or `OTHERS`.
        port: 0 where there is none, or where there may be several.
        verdict: allowed, warn or blocked.
        passed: a server was reached, or may have been.
    """

    host: str
    port: int
    verdict: str
    passed: bool


class SummaryRow(NamedTuple):
    """One summary row.

    Attributes:
        key: which attempts it counts.
        folded: `HOST`, `DOMAIN` or `REST`.
        domain: the registrable domain of its hosts, or the network of its addresses; empty for the rest.
        first: time of the earliest attempt, microseconds since 1970.
        last: time of the latest.
        times: attempts.
        bytes_in: bytes that came in by them.
        bytes_out: bytes that went out by them.
    """

    key: SummaryKey
    folded: int
    domain: str
    first: int
    last: int
    times: int
    bytes_in: int
    bytes_out: int

    @property
    def worth(self) -> int:
        """How much it matters: rows of less worth are folded first."""
        if self.key.verdict == "blocked":
            return _REFUSED
        return _PASSED if self.key.passed else _UNREACHED


class Folded(NamedTuple):
    """What folding changes: rows to remove, then rows to write."""

    gone: tuple[SummaryKey, ...]
    written: tuple[SummaryRow, ...]


def domain_of(host: str) -> str:
    """Return what hosts are folded by: the registrable domain of a name, the network of an address (a /24, a /48)."""
    if ":" in host or host[-1:].isdigit():
        try:
            address = ip_address(host)
        except ValueError:
            return host
        return str(ip_network((address, 24 if address.version == 4 else 48), strict=False))
    return registrable(host)


def domain_key(key: SummaryKey, domain: str) -> SummaryKey:
    """Return the key of the row that a host is folded into."""
    return SummaryKey(domain if "/" in domain else f"*.{domain}", 0, key.verdict, key.passed)


def rest_key(key: SummaryKey) -> SummaryKey:
    """Return the key of the row that counts the rest."""
    return SummaryKey(OTHERS, 0, key.verdict, key.passed)


def fold(rows: Iterable[SummaryRow], fresh: Collection[SummaryKey], most: int = MOST) -> Folded:
    """Fold the rows of one sandbox until there are no more than allowed.

    Args:
        rows: all of them.
        fresh: keys of those that were not there before: where nothing else is left, these are counted with the rest.
        most: how many there may be.
    """
    pile = _Pile(rows)
    # Further than must be, so that this is not done for each new row.
    goal = most - most // 4
    for worth in (_REFUSED, _UNREACHED):
        pile.fold_domains(worth, goal)
        pile.fold_rest([row for row in pile.rows if row.worth == worth], goal)
    if len(pile) > most:
        pile.fold_domains(_PASSED, goal)
        pile.fold_rest([row for row in pile.rows if row.worth == _PASSED and "/" in row.domain], most)
        pile.fold_rest([row for row in pile.rows if row.worth == _PASSED and row.key in fresh], most)
    return pile.changes()


class _Pile:
    """Rows by their keys, and what was changed of them."""

    def __init__(self, rows: Iterable[SummaryRow]) -> None:
        self._rows = {row.key: row for row in rows}
        self._before = dict(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def rows(self) -> list[SummaryRow]:
        """All rows, as they are now."""
        return list(self._rows.values())

    def fold_domains(self, worth: int, goal: int) -> None:
        """Fold the hosts of one domain after the other, the one with the most rows first, until so many rows are left."""
        groups: defaultdict[SummaryKey, list[SummaryRow]] = defaultdict(list)
        for row in self._rows.values():
            if row.worth == worth and row.folded != REST:
                groups[domain_key(row.key, row.domain)].append(row)
        for key, group in sorted(groups.items(), key=lambda each: (-len(each[1]), each[0])):
            if len(self._rows) <= goal or len(group) < 2:
                return
            self._merge(group, key, DOMAIN, group[0].domain)

    def fold_rest(self, rows: list[SummaryRow], goal: int) -> None:
        """Count rows with the rest, those tried least and latest first, until so many rows are left."""
        for row in sorted(rows, key=lambda row: (row.times, -row.first, row.key)):
            if len(self._rows) <= goal:
                return
            if row.folded != REST:
                self._merge([row], rest_key(row.key), REST, "")

    def changes(self) -> Folded:
        """What is not as it was."""
        return Folded(
            tuple(key for key in self._before if key not in self._rows),
            tuple(row for key, row in self._rows.items() if self._before.get(key) != row),
        )

    def _merge(self, rows: list[SummaryRow], key: SummaryKey, folded: int, domain: str) -> None:
        for row in rows:
            del self._rows[row.key]
        there = self._rows.get(key)
        parts = rows if there is None else [*rows, there]
        self._rows[key] = SummaryRow(
            key,
            folded,
            domain,
            min(row.first for row in parts),
            max(row.last for row in parts),
            min(LARGEST, sum(row.times for row in parts)),
            min(LARGEST, sum(row.bytes_in for row in parts)),
            min(LARGEST, sum(row.bytes_out for row in parts)),
        )
