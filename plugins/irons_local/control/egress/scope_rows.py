"""One scope's mode and rules as they are stored: read, and changed with the record of each change, in the caller's transaction.

A scope is one sandbox, or all of them, which is None.
"""

from __future__ import annotations

import shlex
import sqlite3
from collections.abc import Sequence

from irons_local.control.egress import locked
from irons_local.control.schema.errors import conflict, missing
from irons_local.control.store import changelog, sandboxes, unasked
from irons_local.control.store import rules as rulebook
from irons_local.control.store.rules import ACCOUNT
from irons_local.control.store.sandboxes import StoredSandbox
from irons_policy.ends import Moment
from irons_policy.patterns import Pattern
from irons_policy.policy import PatternIndex
from irons_policy.rules import Rule, RuleChange


def of_name(connection: sqlite3.Connection, name: str | None) -> StoredSandbox | None:
    """Return the sandbox of a name. Raises `HttpError` where there is none."""
    return None if name is None else sandboxes.get(connection, name)


def identity(sandbox: StoredSandbox | None) -> str:
    """Return the id by which a scope is stored."""
    return ACCOUNT if sandbox is None else sandbox.id


def mode_of(connection: sqlite3.Connection, sandbox: StoredSandbox | None) -> str:
    """Return the mode that is active in a scope."""
    own = None if sandbox is None else sandbox.mode
    return own or rulebook.account_mode(connection)


def revision(connection: sqlite3.Connection, sandbox: StoredSandbox | None, now: Moment | None = None) -> str:
    """Return what names mode and rules as they are stored; with `now` without the rules that are over by then."""
    mode = rulebook.account_mode(connection) if sandbox is None else sandbox.mode
    scope = identity(sandbox)
    rules = (each for each in rulebook.of(connection, scope) if now is None or not is_over(each, now))
    return rulebook.revision(mode, rules, unasked.of(connection, scope))


def set_mode(connection: sqlite3.Connection, sandbox: StoredSandbox | None, mode: str | None) -> None:
    """Set a scope's own mode. Raises `HttpError` where the role of the caller does not allow it."""
    before = rulebook.account_mode(connection) if sandbox is None else sandbox.mode
    # Who chooses for the first time has chosen, whatever the mode was.
    is_change = before != mode or (sandbox is None and is_undecided(connection))
    if before != mode:
        locked.check_mode(mode)
    if sandbox is not None:
        sandboxes.change(connection, sandbox.id, mode=mode)
    elif mode is not None:
        rulebook.set_account_mode(connection, mode)
    if is_change:
        changelog.record_mode(connection, before, mode, sandbox)


def is_undecided(connection: sqlite3.Connection) -> bool:
    """Whether no sandbox was ever created and the mode of all sandboxes was never set."""
    if sandboxes.was_any(connection) or rulebook.account_mode(connection) != rulebook.FIRST_MODE:
        return False
    return not changelog.may_have_had(connection, (changelog.What.MODE_SET, changelog.What.CREATED))


def is_over(rule: Rule, now: Moment) -> bool:
    """Whether a rule has ended by then."""
    return rule.until is not None and rule.until.over(now)


def put(
    connection: sqlite3.Connection,
    sandbox: StoredSandbox | None,
    rule: Rule,
    never: PatternIndex,
    *,
    answers: bool,
) -> bool:
    """Put a rule; False where it was already there, unchanged.

    Raises:
        HttpError: it ends by itself, and one that stays would be lost with it.
    """
    change = rulebook.put(connection, identity(sandbox), rule)
    if change is not None:
        locked.check_rules((rule,), never)
        if answers and rule.list == "allow" and change.before is not None and change.before.list == "deny":
            raise conflict(f"{rule.pattern.text} is denied, which no answer changes")
        if rule.until is not None and change.before is not None and change.before.until is None:
            who = "all sandboxes" if sandbox is None else sandbox.name
            scope = "--all" if sandbox is None else f"--sandbox {sandbox.name}"
            was = "allowed" if change.before.list == "allow" else "denied"
            raise conflict(
                f"{rule.pattern.text} is {was} for {who} by a rule without an end, which one with an end would replace",
                f"irons egress remove {shlex.quote(rule.pattern.text)} {scope} removes it first",
            )
        changelog.record_rule(connection, change, sandbox)
    return change is not None


def record_policy(
    connection: sqlite3.Connection,
    sandbox: StoredSandbox | None,
    before: str,
    after: str,
    closed: Sequence[Pattern],
) -> None:
    """Record a policy by its revision, and which patterns of `never` were added to `closed` and removed."""
    scope = identity(sandbox)
    was, now = ({each.text for each in patterns} for patterns in (closed, unasked.of(connection, scope)))
    never = {"never_added": sorted(now - was), "never_removed": sorted(was - now)}
    changelog.record(
        connection,
        changelog.What.POLICY_APPLIED,
        sandbox=sandbox,
        before={"revision": before},
        after={
            "revision": after,
            "rules": len(rulebook.of(connection, scope)),
            **{name: patterns for name, patterns in never.items() if patterns},
        },
    )


def remove(connection: sqlite3.Connection, sandbox: StoredSandbox | None, pattern: str) -> str:
    """Remove a rule; return the list that it was in. Raises `HttpError` where there is none."""
    removed = rulebook.remove(connection, identity(sandbox), pattern)
    if removed is None:
        where = "all sandboxes" if sandbox is None else sandbox.name
        scope = "--all" if sandbox is None else f"--sandbox {sandbox.name}"
        raise missing(f"there is no rule {pattern} for {where}", f"irons egress list {scope} shows the rules")
    changelog.record_rule(connection, RuleChange(removed, None), sandbox)
    return removed.list
