"""Egress rules and modes as rows, and the policy they make together."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from irons_local.control.schema import times
from irons_local.control.store.sandboxes import Sandbox

ACCOUNT = ""
"""In place of a sandbox's id: the account's own list."""

_COLUMNS = "pattern, list, private, broad, note, created_at"


@dataclass(frozen=True, slots=True)
class StoredRule:
    """One rule of one list.

    Attributes:
        pattern: in its one spelling.
        list: `allow` or `deny`.
        private: addresses or networks that its names may lead to although they are private.
        broad: a wildcard over a private public suffix was meant.
        note: a person's own words.
        created_at: microseconds since 1970; 0 for one that is not stored yet.
    """

    pattern: str
    list: str
    private: tuple[str, ...] = ()
    broad: bool = False
    note: str | None = None
    created_at: int = 0

    def same(self, other: StoredRule) -> bool:
        """True where both say the same; when they were made does not count."""
        mine = (self.pattern, self.list, self.private, self.broad, self.note)
        return mine == (other.pattern, other.list, other.private, other.broad, other.note)


@dataclass(frozen=True, slots=True)
class Difference:
    """What replacing one list of rules by another does; patterns in order."""

    added: tuple[StoredRule, ...]
    removed: tuple[StoredRule, ...]
    changed: tuple[StoredRule, ...]


def of(connection: sqlite3.Connection, sandbox: str) -> list[StoredRule]:
    """The rules of one sandbox's id or of `ACCOUNT`, oldest first."""
    sql = f"SELECT {_COLUMNS} FROM rules WHERE sandbox = ? ORDER BY id"  # noqa: S608 (names of ours)
    rows = connection.execute(sql, (sandbox,))
    return [
        StoredRule(
            pattern=row["pattern"],
            list=row["list"],
            private=tuple(json.loads(row["private"])),
            broad=bool(row["broad"]),
            note=row["note"],
            created_at=row["created_at"],
        )
        for row in rows
    ]


def put(connection: sqlite3.Connection, sandbox: str, rule: StoredRule) -> bool:
    """Add a rule, or put it in place of the one with its pattern.

    Returns:
        True when that changed anything.
    """
    old = next((each for each in of(connection, sandbox) if each.pattern == rule.pattern), None)
    if old is not None and old.same(rule):
        return False
    _write(connection, sandbox, rule)
    return True


def remove(connection: sqlite3.Connection, sandbox: str, pattern: str) -> str | None:
    """Take a rule away.

    Returns:
        The list it was in, or None where there is no such rule.
    """
    row = connection.execute(
        "DELETE FROM rules WHERE sandbox = ? AND pattern = ? RETURNING list", (sandbox, pattern)
    ).fetchone()
    return None if row is None else str(row["list"])


def difference(old: Sequence[StoredRule], new: Sequence[StoredRule]) -> Difference:
    """What putting `new` in place of `old` does."""
    before = {rule.pattern: rule for rule in old}
    after = {rule.pattern for rule in new}
    return Difference(
        added=tuple(rule for rule in new if rule.pattern not in before),
        removed=tuple(rule for rule in old if rule.pattern not in after),
        changed=tuple(rule for rule in new if rule.pattern in before and not before[rule.pattern].same(rule)),
    )


def replace(connection: sqlite3.Connection, sandbox: str, new: Sequence[StoredRule]) -> Difference:
    """Put `new` in place of all rules of a list; rules that stay the same keep their time."""
    found = difference(of(connection, sandbox), new)
    for rule in found.removed:
        remove(connection, sandbox, rule.pattern)
    for rule in (*found.added, *found.changed):
        _write(connection, sandbox, rule)
    return found


def revision(mode: str | None, rules: Iterable[StoredRule]) -> str:
    """A name for just this mode and these rules, whatever their order: the same for the same, another for any other."""
    plain = sorted((rule.pattern, rule.list, rule.private, rule.broad, rule.note or "") for rule in rules)
    return hashlib.sha256(json.dumps([mode, plain]).encode()).hexdigest()[:32]


def account_mode(connection: sqlite3.Connection) -> str:
    """The account's mode, `warn` or `deny`."""
    return str(connection.execute("SELECT mode FROM account").fetchone()[0])


def set_account_mode(connection: sqlite3.Connection, mode: str) -> None:
    """Set the account's mode."""
    connection.execute("UPDATE account SET mode = ?", (mode,))


def policies_of(
    connection: sqlite3.Connection, among: Iterable[Sandbox | None], hosts: Mapping[str, Iterable[str]]
) -> list[dict[str, Any]]:
    """The policies in force, as the gateway gets them, one for each sandbox; None is one without rules of its own."""
    mode, account = account_mode(connection), of(connection, ACCOUNT)
    return [
        compose(mode, account, (), hosts)
        if sandbox is None
        else compose(sandbox.mode or mode, account, of(connection, sandbox.id), hosts)
        for sandbox in among
    ]


def compose(
    mode: str, account: Iterable[StoredRule], own: Iterable[StoredRule], hosts: Mapping[str, Iterable[str]]
) -> dict[str, Any]:
    """A policy as JSON, from a mode and the two lists."""
    return {
        "mode": mode,
        "rules": [
            {
                "pattern": rule.pattern,
                "list": rule.list,
                "scope": scope,
                "private": list(rule.private),
                "broad": rule.broad,
            }
            for scope, rules in (("account", account), ("sandbox", own))
            for rule in rules
        ],
        "hosts": {name: list(addresses) for name, addresses in hosts.items()},
    }


def _write(connection: sqlite3.Connection, sandbox: str, rule: StoredRule) -> None:
    connection.execute(
        "INSERT INTO rules (sandbox, pattern, list, private, broad, note, created_at) VALUES (?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (sandbox, pattern) DO UPDATE SET list = excluded.list, private = excluded.private, "
        "broad = excluded.broad, note = excluded.note, created_at = excluded.created_at",
        (
            sandbox,
            rule.pattern,
            rule.list,
            json.dumps(rule.private),
            rule.broad,
            rule.note,
            rule.created_at or times.now(),
        ),
    )
