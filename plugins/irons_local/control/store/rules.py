"""Egress rules and modes as rows, and the policy they make together."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace as altered
from typing import cast

from irons_local import times
from irons_local.control.store import unasked
from irons_local.control.store.sandboxes import StoredSandbox
from irons_local.control.store.stored_patterns import stored_pattern
from irons_local.control.store.terms import SECOND, Instant
from irons_policy.addresses import Address
from irons_policy.ends import Moment, RuleEnd
from irons_policy.modes import MODES, Mode
from irons_policy.patterns import Pattern, parse_network
from irons_policy.policy import Policy
from irons_policy.rules import ListName, Rule, RuleChange, Scope, diff_rules

ACCOUNT = ""
"""In place of a sandbox's id: the account's own list."""

FIRST_MODE = "warn"
"""The account's mode until it is set."""

_NOTED_EVERY = 60 * SECOND
"""What a rule may get back where the machine boots with its clock set back."""

_COLUMNS = "pattern, list, private, broad, note, ends_stop, ends_at, ends_up, created_at"


def of(connection: sqlite3.Connection, sandbox: str) -> list[Rule]:
    """The rules of one sandbox's id or of `ACCOUNT`, oldest first."""
    sql = f"SELECT {_COLUMNS} FROM rules WHERE sandbox = ? ORDER BY id"  # noqa: S608 (names of ours)
    return [_rule(row, sandbox) for row in connection.execute(sql, (sandbox,))]


def put(connection: sqlite3.Connection, sandbox: str, rule: Rule) -> RuleChange | None:
    """Add a rule, or put it in place of the one with its pattern.

    Returns:
        What that changed; None where the rule was already there, unchanged.
    """
    sql = f"SELECT {_COLUMNS} FROM rules WHERE sandbox = ? AND pattern = ?"  # noqa: S608 (names of ours)
    row = connection.execute(sql, (sandbox, rule.pattern.text)).fetchone()
    before = None if row is None else _rule(row, sandbox)
    if before == altered(rule, scope=_scope(sandbox)):
        return None
    _write(connection, sandbox, rule)
    return RuleChange(before, rule)


def remove(connection: sqlite3.Connection, sandbox: str, pattern: str) -> Rule | None:
    """Remove a rule.

    Returns:
        The rule, or None where there is no such rule.
    """
    sql = f"DELETE FROM rules WHERE sandbox = ? AND pattern = ? RETURNING {_COLUMNS}"  # noqa: S608 (names of ours)
    row = connection.execute(sql, (sandbox, pattern)).fetchone()
    return None if row is None else _rule(row, sandbox)


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


def end(connection: sqlite3.Connection, now: Instant) -> list[tuple[str, Rule]]:
    """Remove the rules whose time has come, and note what is left of the others.

    A rule ends by whichever clock gets there first. CLOCK_BOOTTIME begins again at each boot; after one, no more is left than was
    noted before, wherever the wall clock stands.

    Returns:
        The rules that are gone, each with its sandbox's id or `ACCOUNT`.
    """
    gone: list[tuple[str, Rule]] = []
    timed = "SELECT id, sandbox, ends_at, ends_up, ends_boot, ends_left FROM rules WHERE ends_at IS NOT NULL"
    for row in connection.execute(timed).fetchall():
        here = row["ends_boot"] == now.boot
        passed = row["ends_up"] - now.up if here else row["ends_left"]
        left = min(row["ends_at"] - now.wall, passed)
        if left <= 0:
            sql = f"DELETE FROM rules WHERE id = ? RETURNING {_COLUMNS}"  # noqa: S608 (names of ours)
            deleted = connection.execute(sql, (row["id"],)).fetchall()
            gone += [(row["sandbox"], _rule(each, row["sandbox"])) for each in deleted]
        elif not here:
            values = (now.up + left, now.boot, left, row["id"])
            connection.execute(
                "UPDATE rules SET ends_up = ?, ends_boot = ?, ends_left = ? WHERE id = ?", values
            )
        elif row["ends_left"] - passed > _NOTED_EVERY:
            connection.execute("UPDATE rules SET ends_left = ? WHERE id = ?", (passed, row["id"]))
    return gone


def end_with_run(connection: sqlite3.Connection, sandbox: str) -> list[Rule]:
    """Remove the rules of a sandbox that end when it stops; gives them."""
    sql = f"DELETE FROM rules WHERE sandbox = ? AND ends_stop RETURNING {_COLUMNS}"  # noqa: S608 (names of ours)
    return [_rule(row, sandbox) for row in connection.execute(sql, (sandbox,))]


def next_end(connection: sqlite3.Connection, now: Instant) -> int | None:
    """Microseconds until the next rule ends by a clock; None where none does. `end` has looked at them in this boot."""
    sql = "SELECT MIN(MIN(ends_at - ?, ends_up - ?)) FROM rules WHERE ends_at IS NOT NULL"
    left: int | None = connection.execute(sql, (now.wall, now.up)).fetchone()[0]
    return left


def revision(mode: str | None, rules: Iterable[Rule], never: Iterable[Pattern] = ()) -> str:
    """A name for exactly this mode, these rules and what no person is asked about, independent of their order."""
    plain = sorted(
        (rule.pattern.text, rule.list, rule.pins, rule.broad, rule.note, *_until(rule)) for rule in rules
    )
    # Without patterns it is what it was before there were any.
    closed = [sorted(each.text for each in never)]
    whole = [mode, plain, *(closed if closed[0] else ())]
    return hashlib.sha256(json.dumps(whole).encode()).hexdigest()[:32]


def account_mode(connection: sqlite3.Connection) -> str:
    """The account's mode: `warn`, `deny` or `ask`."""
    return str(connection.execute("SELECT mode FROM account").fetchone()[0])


def set_account_mode(connection: sqlite3.Connection, mode: str) -> None:
    """Set the account's mode."""
    connection.execute("UPDATE account SET mode = ?", (mode,))


def policies_of(
    connection: sqlite3.Connection,
    among: Iterable[StoredSandbox | None],
    hosts: Mapping[str, tuple[Address, ...]],
    never: tuple[Pattern, ...] = (),
) -> list[Policy]:
    """The active policies, one for each sandbox; None is one without rules of its own.

    Their rules have no notes: those decide nothing, and the gateway need not carry them.
    """
    mode, account = account_mode(connection), _judged(connection, ACCOUNT)
    closed = (*never, *unasked.of(connection, ACCOUNT))
    return [
        Policy(_mode(mode), account, hosts, tuple(dict.fromkeys(closed)))
        if sandbox is None
        else Policy(
            _mode(sandbox.mode or mode),
            (*account, *_judged(connection, sandbox.id)),
            hosts,
            tuple(dict.fromkeys((*closed, *unasked.of(connection, sandbox.id)))),
        )
        for sandbox in among
    ]


def _judged(connection: sqlite3.Connection, sandbox: str) -> tuple[Rule, ...]:
    return tuple(altered(rule, note="") if rule.note else rule for rule in of(connection, sandbox))


def _until(rule: Rule) -> tuple[str, ...]:
    return () if rule.until is None else (rule.until.text,)


def _mode(stored: str) -> Mode:
    """What is not a mode denies: no code that knows fewer modes opens this database."""
    modes: Mapping[str, Mode] = {mode: mode for mode in MODES}
    return modes.get(stored, "deny")


def _scope(sandbox: str) -> Scope:
    return "account" if sandbox == ACCOUNT else "sandbox"


def _rule(row: sqlite3.Row, sandbox: str) -> Rule:
    return Rule(
        pattern=stored_pattern(row["pattern"]),
        list=cast("ListName", row["list"]),
        scope=_scope(sandbox),
        private=tuple(parse_network(text) for text in json.loads(row["private"])),
        broad=bool(row["broad"]),
        note=row["note"] or "",
        until=_end(row),
        created_at=row["created_at"],
    )


def _end(row: sqlite3.Row) -> RuleEnd | None:
    if row["ends_stop"]:
        return RuleEnd()
    return None if row["ends_at"] is None else RuleEnd(row["ends_at"], row["ends_up"])


def _write(connection: sqlite3.Connection, sandbox: str, rule: Rule) -> None:
    values = {
        "list": rule.list,
        "private": json.dumps(rule.pins),
        "broad": rule.broad,
        "note": rule.note or None,
        "created_at": rule.created_at or times.now(),
        "ends_stop": False,
        "ends_at": None,
        "ends_up": None,
        "ends_boot": None,
        "ends_left": None,
    }
    if rule.until is not None:
        values["ends_stop"] = rule.until.at is None
    if rule.until is not None and rule.until.at is not None:
        now = Instant.now()
        left = rule.until.left(Moment(now.wall, now.up)) or 0
        values |= {
            "ends_at": rule.until.at,
            "ends_up": now.up + left,
            "ends_boot": now.boot,
            "ends_left": left,
        }
    columns, changed = ", ".join(values), ", ".join(f"{each} = excluded.{each}" for each in values)
    marks = ", ".join("?" * len(values))
    connection.execute(
        f"INSERT INTO rules (sandbox, pattern, {columns}) VALUES (?, ?, {marks}) "  # noqa: S608 (names of ours)
        f"ON CONFLICT (sandbox, pattern) DO UPDATE SET {changed}",
        (sandbox, rule.pattern.text, *values.values()),
    )
