"""Egress rules and modes as rows, and the policy they make together."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace as altered
from functools import lru_cache
from typing import cast

from irons_local import times
from irons_local.control.store.sandboxes import StoredSandbox
from irons_policy.addresses import Address
from irons_policy.modes import Mode
from irons_policy.patterns import Pattern, parse_network, read_pattern
from irons_policy.policy import Policy
from irons_policy.rules import ListName, Rule, RuleChange, Scope, diff_rules

ACCOUNT = ""
"""In place of a sandbox's id: the account's own list."""

_COLUMNS = "pattern, list, private, broad, note, created_at"


def of(connection: sqlite3.Connection, sandbox: str) -> list[Rule]:
    """The rules of one sandbox's id or of `ACCOUNT`, oldest first."""
    sql = f"SELECT {_COLUMNS} FROM rules WHERE sandbox = ? ORDER BY id"  # noqa: S608 (names of ours)
    return [_rule(row, sandbox) for row in connection.execute(sql, (sandbox,))]


def put(connection: sqlite3.Connection, sandbox: str, rule: Rule) -> bool:
    """Add a rule, or put it in place of the one with its pattern.

    Returns:
        True when that changed anything.
    """
    sql = f"SELECT {_COLUMNS} FROM rules WHERE sandbox = ? AND pattern = ?"  # noqa: S608 (names of ours)
    row = connection.execute(sql, (sandbox, rule.pattern.text)).fetchone()
    if row is not None and _rule(row, sandbox) == altered(rule, scope=_scope(sandbox)):
        return False
    _write(connection, sandbox, rule)
    return True


def remove(connection: sqlite3.Connection, sandbox: str, pattern: str) -> str | None:
    """Remove a rule.

    Returns:
        The list it was in, or None where there is no such rule.
    """
    row = connection.execute(
        "DELETE FROM rules WHERE sandbox = ? AND pattern = ? RETURNING list", (sandbox, pattern)
    ).fetchone()
    return None if row is None else str(row["list"])


def replace(connection: sqlite3.Connection, sandbox: str, new: Sequence[Rule]) -> tuple[RuleChange, ...]:
    """Put `new` in place of all rules of a list; rules that stay the same keep their time."""
    scope = _scope(sandbox)
    changes = diff_rules(of(connection, sandbox), [altered(rule, scope=scope) for rule in new])
    for change in changes:
        if change.after is None:
            remove(connection, sandbox, change.rule.pattern.text)
        else:
            _write(connection, sandbox, change.after)
    return changes


def revision(mode: str | None, rules: Iterable[Rule]) -> str:
    """A name for exactly this mode and these rules, independent of their order."""
    plain = sorted((rule.pattern.text, rule.list, rule.pins, rule.broad, rule.note) for rule in rules)
    return hashlib.sha256(json.dumps([mode, plain]).encode()).hexdigest()[:32]


def account_mode(connection: sqlite3.Connection) -> str:
    """The account's mode, `warn` or `deny`."""
    return str(connection.execute("SELECT mode FROM account").fetchone()[0])


def set_account_mode(connection: sqlite3.Connection, mode: str) -> None:
    """Set the account's mode."""
    connection.execute("UPDATE account SET mode = ?", (mode,))


def policies_of(
    connection: sqlite3.Connection,
    among: Iterable[StoredSandbox | None],
    hosts: Mapping[str, tuple[Address, ...]],
) -> list[Policy]:
    """The active policies, one for each sandbox; None is one without rules of its own.

    Their rules have no notes: those decide nothing, and the gateway need not carry them.
    """
    mode, account = account_mode(connection), _judged(connection, ACCOUNT)
    return [
        Policy(_mode(mode), account, hosts)
        if sandbox is None
        else Policy(_mode(sandbox.mode or mode), (*account, *_judged(connection, sandbox.id)), hosts)
        for sandbox in among
    ]


def _judged(connection: sqlite3.Connection, sandbox: str) -> tuple[Rule, ...]:
    return tuple(altered(rule, note="") if rule.note else rule for rule in of(connection, sandbox))


def _mode(stored: str) -> Mode:
    return "deny" if stored == "deny" else "warn"


def _scope(sandbox: str) -> Scope:
    return "account" if sandbox == ACCOUNT else "sandbox"


def _rule(row: sqlite3.Row, sandbox: str) -> Rule:
    return Rule(
        pattern=_pattern(row["pattern"]),
        list=cast("ListName", row["list"]),
        scope=_scope(sandbox),
        private=tuple(parse_network(text) for text in json.loads(row["private"])),
        broad=bool(row["broad"]),
        note=row["note"] or "",
        created_at=row["created_at"],
    )


@lru_cache(maxsize=10_000)
def _pattern(text: str) -> Pattern:
    """A stored pattern; each change reads all rules again, and reading them costs more than the database does."""
    return read_pattern(text, mapped=True)


def _write(connection: sqlite3.Connection, sandbox: str, rule: Rule) -> None:
    connection.execute(
        "INSERT INTO rules (sandbox, pattern, list, private, broad, note, created_at) VALUES (?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (sandbox, pattern) DO UPDATE SET list = excluded.list, private = excluded.private, "
        "broad = excluded.broad, note = excluded.note, created_at = excluded.created_at",
        (
            sandbox,
            rule.pattern.text,
            rule.list,
            json.dumps(rule.pins),
            rule.broad,
            rule.note or None,
            rule.created_at or times.now(),
        ),
    )
